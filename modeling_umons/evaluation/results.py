"""Metrics of a model on each split, with bootstrap intervals and baselines."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypedDict

import numpy as np

from ..tasks.task import Task
from .bootstrap import bootstrap_intervals
from .groups import measure_groups
from .metrics import constant_metrics, depends_on_thresholds, task_metrics, tune_thresholds
from .splits import Split
from .tfidf_baseline import TfidfBaseline


Metrics = dict[str, float]


class SplitResult(TypedDict, total=False):
    """Results of a split, in the form of report.json. All but the first six keys are optional."""

    rows: int
    groups: int | None  # number of videos, dialogues or speakers
    model: Metrics
    intervals: dict[str, list[float]]  # 95 %, [low, high]; empty for fewer than two rows or groups
    baselines: dict[str, Metrics]  # "constant" and "tfidf"
    notes: list[str]  # how the results were computed
    thresholds: dict[str, float]  # of the emotions' logits, chosen on validation; the metrics at them:
    model_tuned: Metrics
    intervals_tuned: dict[str, list[float]]
    baselines_tuned: dict[str, Metrics]  # "tfidf", with its own thresholds
    sources: dict[str, "SplitResult"]  # of the rows of each source
    by_column: dict[str, dict[str, Any]]  # see `groups.measure_groups`
    explanations: dict[str, Any]  # see `explanation_curves.measure_explanations`
    calibration: dict[str, Any]  # see `calibration.calibration_metrics`
    members: dict[str, Metrics]  # of the models of an ensemble
    missing_modalities: dict[str, Any]  # see `missing_modalities.missing_curves`


def measure(
    task: Task,
    train: Split | None,
    splits: Mapping[str, Split],
    tune: bool = False,
    num_bootstrap: int = 1000,
    metric: str | None = None,
) -> dict[str, SplitResult]:
    """
    Compute the results of each split that has logits.

    Args:
        task: the task.
        train: training rows, for the baselines; without them there are none.
        splits: held-out rows with logits. On `validation` the settings of the TF-IDF baseline are chosen (logits are
            not needed for that) and, with `tune`, the thresholds of the emotions.
        tune: also compute metrics at thresholds of the emotions chosen on validation.
        num_bootstrap: number of bootstrap samples.
        metric: metric that chooses the settings of the TF-IDF baseline; by default that of the task.

    Raises:
        ValueError: logits are not finite.
    """
    validation = splits.get("validation")
    notes, tfidf = [], None
    if train is None:
        notes.append("There are no baselines because there are no training rows.")
    else:
        tfidf, note = _train_tfidf(task, train, validation, metric)
        notes.append(note)
    if tune and not (task.emotions and validation is not None and validation.logits is not None):
        tune = False
        notes.append("Thresholds were not tuned; this requires emotions and a validation split.")
    thresholds = tfidf_thresholds = None
    if tune:
        thresholds = _choose_thresholds(task, validation.truth, validation.logits)
        if tfidf is not None and validation.texts is not None:
            tfidf_thresholds = _choose_thresholds(task, validation.truth, tfidf.logits(validation.texts))

    results = {}
    for name, split in splits.items():
        if split.logits is None:
            continue
        chosen = (thresholds, tfidf_thresholds) if name != "validation" else (None, None)
        evaluator = _Evaluator(task, None if train is None else train.truth, num_bootstrap, *chosen)
        tfidf_logits = None if tfidf is None or split.texts is None else tfidf.logits(split.texts)
        result = evaluator.evaluate(split, tfidf_logits)
        result["notes"] += notes
        if tfidf is not None and split.texts is None:
            result["notes"].append("There is no TF-IDF baseline because the rows have no text.")
        sources = sorted({source for source in split.sources or () if source is not None})
        if len(sources) > 1:
            result["sources"] = {}
            for source in sources:
                rows = np.flatnonzero([value == source for value in split.sources])
                logits = None if tfidf_logits is None else tfidf_logits[rows]
                result["sources"][source] = evaluator.evaluate(split.take(rows), logits)
        if split.groupings:
            result["by_column"] = measure_groups(task, split, split.groupings, num_bootstrap)
        results[name] = result
    return results


def _train_tfidf(
    task: Task, train: Split, validation: Split | None, metric: str | None
) -> tuple[TfidfBaseline | None, str]:
    """Train the TF-IDF baseline; returns it, or `None`, and a note for the report."""
    texts, truth = train.texts or (None,) * len(train), _Array.of(train.truth)
    if validation is not None and validation.texts is not None:
        return _fit_tfidf(task, metric, texts, truth, validation.texts, _Array.of(validation.truth))
    return _fit_tfidf(task, metric, texts, truth)


class _Array(NamedTuple):
    """Content of an array, which can be hashed."""

    content: bytes
    dtype: np.dtype
    shape: tuple[int, ...]

    @classmethod
    def of(cls, array: np.ndarray) -> "_Array":
        return cls(array.tobytes(), array.dtype, array.shape)

    def values(self) -> np.ndarray:
        return np.frombuffer(self.content, self.dtype).reshape(self.shape)


@lru_cache(maxsize=1)  # all models of a comparison have the same rows
def _fit_tfidf(
    task: Task,
    metric: str | None,
    texts: tuple[str | None, ...],
    truth: _Array,
    validation_texts: tuple[str | None, ...] = (),
    validation_truth: _Array | None = None,
) -> tuple[TfidfBaseline | None, str]:
    held_out = () if validation_truth is None else (validation_texts, validation_truth.values())
    try:
        tfidf = TfidfBaseline(task, texts, truth.values(), *held_out, metric=metric)
    except ValueError as error:
        return None, str(error)
    return tfidf, tfidf.describe()


def _choose_thresholds(task: Task, truth: np.ndarray, logits: np.ndarray) -> np.ndarray:
    return tune_thresholds(truth[:, -len(task.emotions) :], logits[:, -len(task.emotions) :])


def _thresholded(metrics: dict[str, Any]) -> dict[str, Any]:
    """Select the metrics that depend on the emotions' thresholds."""
    return {name: value for name, value in metrics.items() if depends_on_thresholds(name)}


@dataclass(frozen=True)
class _Evaluator:
    """Evaluation of the rows of a split, or of one source in it."""

    task: Task
    train_truth: np.ndarray | None
    num_bootstrap: int
    thresholds: np.ndarray | None = None
    tfidf_thresholds: np.ndarray | None = None

    def evaluate(self, split: Split, tfidf_logits: np.ndarray | None) -> SplitResult:
        task, truth = self.task, split.truth
        intervals, note, num_groups = self._intervals(split)
        result: SplitResult = {
            "rows": len(split),
            "groups": num_groups,
            "model": task_metrics(task, truth, split.logits),
            "intervals": intervals,
            "baselines": {},
            "notes": [note],
        }
        if self.train_truth is not None:
            result["baselines"]["constant"] = constant_metrics(task, self.train_truth, truth)
        if tfidf_logits is not None:
            result["baselines"]["tfidf"] = task_metrics(task, truth, tfidf_logits)
        if self.thresholds is not None:
            result["thresholds"] = dict(zip(task.emotions, self.thresholds.tolist(), strict=True))
            result["model_tuned"] = _thresholded(task_metrics(task, truth, split.logits, self.thresholds))
            result["intervals_tuned"] = _thresholded(self._intervals(split, self.thresholds)[0])
            result["baselines_tuned"] = {}
            if tfidf_logits is not None and self.tfidf_thresholds is not None:
                tuned = task_metrics(task, truth, tfidf_logits, self.tfidf_thresholds)
                result["baselines_tuned"]["tfidf"] = _thresholded(tuned)
            result["notes"].append(
                "Tuned scores use thresholds of the emotions' logits that maximise the macro F1 of each emotion on "
                "the validation split. The TF-IDF baseline has its own thresholds, chosen in the same way."
            )
        return result

    def _intervals(self, split: Split, thresholds=None) -> tuple[dict[str, list[float]], str, int | None]:
        """Compute the intervals; returns them, a note on how they were computed, and the number of groups."""
        groups, num_groups = None, None
        if split.groups is not None:
            # A row without a group is a group of its own.
            groups = [("row", i) if group is None else group for i, group in enumerate(split.groups)]
            num_groups = len(set(groups))
        if (len(split) if num_groups is None else num_groups) < 2:
            return {}, "There are no intervals; they require at least two rows or two groups.", num_groups
        intervals = bootstrap_intervals(
            self.task, split.truth, split.logits, groups, self.num_bootstrap, thresholds=thresholds
        )
        unit = "single rows, because no column `video_id` groups them"
        if groups is not None:
            unit = (
                "whole groups (videos, dialogues or speakers), because rows of a group are correlated; with few "
                "groups they are imprecise"
            )
        note = f"95 % intervals are percentiles over {self.num_bootstrap} bootstrap samples of {unit}."
        return {name: list(interval) for name, interval in intervals.items()}, note, num_groups
