"""Several models as one: the mean of what they say, of as many of them as do best on validation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..tasks.losses import TaskLoss
from ..tasks.task import BEST_METRICS, LOWER_IS_BETTER, Task
from .metrics import task_metrics


AVERAGES = ("logits", "probabilities")


def average_logits(task: Task, members: Sequence[np.ndarray], average: str = "logits") -> np.ndarray:
    """
    The mean of several models' logits (N, num_labels), or of their probabilities, given back as logits: log(p) of classes
    and log(p / (1 - p)) of emotions. Sentiments are averaged as they are. (N, num_labels) float64.
    """
    if average not in AVERAGES:
        raise ValueError(f"average is {average!r}, expected one of {', '.join(AVERAGES)}.")
    logits = np.stack([np.asarray(member, dtype=np.float64) for member in members])
    if average == "logits" or task.problem_type == "regression":
        return logits.mean(axis=0)
    if task.problem_type == "single_label_classification":
        return _log_mean(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))
    averaged = _log_mean(-np.logaddexp(0, -logits)) - _log_mean(-np.logaddexp(0, logits))
    if task.name == "joint":
        averaged[:, 0] = logits[:, :, 0].mean(axis=0)
    return averaged


def _log_mean(logarithms: np.ndarray) -> np.ndarray:
    """log(mean(exp(x))) over the first axis, where exp(x) itself may be too small for a number."""
    return np.logaddexp.reduce(logarithms, axis=0) - np.log(len(logarithms))


def validation_figure(task: Task, truth: np.ndarray, logits: np.ndarray) -> float | None:
    """What models of a task are chosen by (`BEST_METRICS`); `None` where it is not defined on these rows."""
    metric = BEST_METRICS[task.name]
    if metric != "loss":
        return task_metrics(task, truth, logits).get(metric)
    return TaskLoss(task)(torch.as_tensor(logits), torch.as_tensor(truth)).item()


@dataclass(frozen=True)
class Ensemble:
    """Which models are averaged. `figures[n - 1]` is what the first n of `order` get on validation."""

    order: tuple[str, ...]
    size: int
    average: str = "logits"
    metric: str | None = None
    alone: tuple[float, ...] = ()
    figures: tuple[float, ...] = ()

    @property
    def members(self) -> tuple[str, ...]:
        return self.order[: self.size]

    def logits(self, task: Task, members: Mapping[str, np.ndarray]) -> np.ndarray:
        """(N, num_labels) float64, of those of all models by their names."""
        return average_logits(task, [members[name] for name in self.members], self.average)

    def describe(self) -> str:
        """A sentence or two for a report."""
        if self.metric is None:
            return (
                f"The {self.average} of all {self.size} models are averaged: there was no other split, called validation, "
                "to choose on how many."
            )
        steps = ", ".join(f"{size}: {figure:.4f}" for size, figure in enumerate(self.figures, start=1))
        names = ", ".join(self.members)
        what = f"The {self.average} of {self.size} of {len(self.order)} models are averaged ({names})"
        if self.size == 1:
            what = f"One of {len(self.order)} models stands for all ({names})"
        return f"{what}. Their number was chosen on validation, where, best model first, {self.metric} is by number {steps}."


def choose_ensemble(
    task: Task, members: Mapping[str, np.ndarray], truth: np.ndarray | None = None, average: str = "logits"
) -> Ensemble:
    """
    How many models to average, from their `members` logits (N, num_labels) on validation rows of this `truth`: models
    join in the order of their own figures, best first, and the number with the best figure is taken, the smallest of
    equals. Without a truth, or where the figure is not defined on it, all are averaged.
    """
    names = list(members)
    alone = None
    if truth is not None:
        alone = {name: validation_figure(task, truth, logits) for name, logits in members.items()}
    if alone is None or any(figure is None for figure in alone.values()):
        return Ensemble(tuple(names), len(names), average)
    metric = BEST_METRICS[task.name]
    sign = -1 if metric in LOWER_IS_BETTER else 1
    order = sorted(names, key=lambda name: -sign * alone[name])
    figures = []
    for size in range(1, len(order) + 1):
        averaged = average_logits(task, [members[name] for name in order[:size]], average)
        figures.append(validation_figure(task, truth, averaged))
    best = int(np.argmax([sign * figure for figure in figures]))
    return Ensemble(tuple(order), best + 1, average, metric, tuple(alone[name] for name in order), tuple(figures))
