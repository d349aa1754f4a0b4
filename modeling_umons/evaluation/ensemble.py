"""Ensembles: averages of the best models on the validation split."""

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
    Average the logits (N, num_labels) of several models, or their probabilities, which are returned as logits: log(p)
    for classes and log(p / (1 - p)) for emotions. Sentiments are always averaged themselves. (N, num_labels) float64.
    """
    if average not in AVERAGES:
        raise ValueError(f"`average` is {average!r}, expected one of {', '.join(AVERAGES)} (`--average`).")
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
    """Compute log(mean(exp(x))) over the first axis without underflow."""
    return np.logaddexp.reduce(logarithms, axis=0) - np.log(len(logarithms))


def validation_score(task: Task, truth: np.ndarray, logits: np.ndarray) -> float | None:
    """Compute the metric that selects models of a task (`BEST_METRICS`); `None` if it is undefined on these rows."""
    metric = BEST_METRICS[task.name]
    if metric != "loss":
        return task_metrics(task, truth, logits).get(metric)
    return TaskLoss(task)(torch.as_tensor(logits), torch.as_tensor(truth)).item()


@dataclass(frozen=True)
class Ensemble:
    """
    Average of the first `size` models.

    Args:
        order: names of all models, the best one first.
        size: number of averaged models.
        average: "logits" or "probabilities".
        metric: validation metric that `order` and `size` were chosen by; `None` if there was no validation split.
        member_scores: validation scores of single models, in `order`.
        ensemble_scores: `ensemble_scores[n - 1]` is the validation score of the average of the first n models.
    """

    order: tuple[str, ...]
    size: int
    average: str = "logits"
    metric: str | None = None
    member_scores: tuple[float, ...] = ()
    ensemble_scores: tuple[float, ...] = ()

    @property
    def members(self) -> tuple[str, ...]:
        return self.order[: self.size]

    def logits(self, task: Task, members: Mapping[str, np.ndarray]) -> np.ndarray:
        """Average the logits of all models, given by name. (N, num_labels) float64."""
        return average_logits(task, [members[name] for name in self.members], self.average)

    def describe(self) -> str:
        """Return a description for a report."""
        if self.metric is None:
            return (
                f"Average of the {self.average} of all {self.size} models; there was no separate validation split to "
                "choose their number on."
            )
        scores = ", ".join(f"{size}: {score:.4f}" for size, score in enumerate(self.ensemble_scores, start=1))
        names = ", ".join(self.members)
        chosen = f"Average of the {self.average} of {self.size} of {len(self.order)} models ({names})"
        if self.size == 1:
            chosen = f"Best of {len(self.order)} models ({names})"
        return (
            f"{chosen}. The number of models was chosen on validation; {self.metric} by number, best first: {scores}."
        )


def choose_ensemble(
    task: Task, members: Mapping[str, np.ndarray], truth: np.ndarray | None = None, average: str = "logits"
) -> Ensemble:
    """
    Choose the number of models to average on validation rows.

    Models join in the order of their own scores, best first. The number with the best score is chosen, the smallest of
    equal ones. Without `truth`, or if the metric is undefined on it, all models are averaged.

    Args:
        task: the task.
        members: validation logits (N, num_labels) of each model, by name.
        truth: labels of the validation rows.
        average: "logits" or "probabilities".
    """
    names = list(members)
    scores = None
    if truth is not None:
        scores = {name: validation_score(task, truth, logits) for name, logits in members.items()}
    if scores is None or any(score is None for score in scores.values()):
        return Ensemble(tuple(names), len(names), average)
    metric = BEST_METRICS[task.name]
    sign = -1 if metric in LOWER_IS_BETTER else 1
    order = sorted(names, key=lambda name: -sign * scores[name])
    averaged = [
        average_logits(task, [members[name] for name in order[:size]], average) for size in range(1, len(order) + 1)
    ]
    ensemble_scores = tuple(validation_score(task, truth, logits) for logits in averaged)
    best = int(np.argmax([sign * score for score in ensemble_scores]))
    return Ensemble(tuple(order), best + 1, average, metric, tuple(scores[name] for name in order), ensemble_scores)
