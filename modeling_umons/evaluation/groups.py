"""Metrics of a model by group of rows: by speaker, gender, length, level or any column of a data set."""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from math import inf
from numbers import Real
from typing import Any

import numpy as np
from datasets import Dataset

from ..data.arguments import DataArguments
from ..data.audio_files import end_worker, read_audio
from ..tasks.task import Task
from ..utils.suggest import did_you_mean
from .bootstrap import intervals_of_statistics
from .metrics import weighted_metrics
from .splits import Split


MIN_ROWS = 10  # smaller groups are left out and counted
MAX_VALUES = 10  # columns of more numbers are cut at their quartiles
MIN_VIDEOS = 10  # samples of fewer videos are all alike: rows are drawn
UNKNOWN = "unknown"
DERIVED = {"length": "texts", "duration": "audio files", "level": "audio files"}  # and what they are measured of
ANALYSIS_RATE = 16_000  # Hz
# Metrics of groups, by task; classes have the last ones. Means of areas are over the labels that occur in a group.
GROUP_METRICS = {
    "joint": ("mae", "corr", "acc2_non0", "emotion_auroc"),
    "emotion": ("emotion_auroc", "emotion_f1_macro"),
    "sentiment": ("mae", "corr", "acc2_non0"),
    "multi_label": ("auroc_macro", "f1_macro"),
    "regression": ("ccc", "mae"),
}
CLASS_GROUP_METRICS = ("balanced_accuracy", "accuracy")
LOWER_IS_BETTER = {"mae"}


def read_groupings(dataset: Dataset, columns: Sequence[str], data: DataArguments) -> dict[str, tuple[str, ...]]:
    """
    Return the group of each row, by column.

    Args:
        dataset: rows with their texts in the column `text`.
        columns: columns of the data set, or names of `DERIVED`. Numbers of more than `MAX_VALUES` values are cut at
            their quartiles.
        data: names of the columns.

    Raises:
        ValueError: there is no such column, or a derived one has no source.
    """
    groupings = {}
    for column in columns:
        if column in dataset.column_names:
            values = dataset[column][:]
        elif column == "length" and "text" in dataset.column_names:
            values = [None if text is None else len(text.split()) for text in dataset["text"]]
        elif column in ("duration", "level") and data.audio_column in dataset.column_names:
            values = [_measure_audio(value, column) for value in dataset[data.audio_column]]
            end_worker()
        elif column in DERIVED:
            option = "text_column" if column == "length" else "audio_column"
            raise ValueError(f"--group_by {column} needs {DERIVED[column]}: name the column with --{option}.")
        else:
            known = [*(name for name in dataset.column_names if not name.startswith("_")), *DERIVED]
            raise ValueError(
                f"--group_by {column}: there is no such column.{did_you_mean(column, known)} Columns: "
                f"{', '.join(known)}."
            )
        groupings[column] = _name_groups(values)
    return groupings


def _measure_audio(value: Any, quantity: str) -> float | None:
    """Return the seconds or the level (dB of full scale) of a file; `None` if it cannot be read."""
    if value is None:
        return None
    try:
        audio = read_audio(value, ANALYSIS_RATE)
    except (OSError, ValueError):
        return None
    if not len(audio):
        return None
    return len(audio) / ANALYSIS_RATE if quantity == "duration" else 10 * float(np.log10(np.mean(audio**2) + 1e-10))


def _name_groups(values: Sequence[Any]) -> tuple[str, ...]:
    """Return the name of the group of each value; missing and infinite ones are `UNKNOWN`."""
    is_known = [value is not None and value == value and value not in (inf, -inf) for value in values]
    known = [value for value, is_given in zip(values, is_known, strict=True) if is_given]
    names = [str(value) for value in known]
    is_number = all(isinstance(value, Real) and not isinstance(value, bool) for value in known)
    if is_number and len(set(known)) > MAX_VALUES:
        edges = np.unique(np.quantile(known, [0, 0.25, 0.5, 0.75, 1]))
        quarters = [f"{low} to {high}" for low, high in pairwise(_format_edges(edges))]
        names = [quarters[place] for place in np.searchsorted(edges[1:-1], np.array(known, float), side="right")]
    found = iter(names)
    return tuple(next(found) if is_given else UNKNOWN for is_given in is_known)


def _format_edges(edges: np.ndarray) -> list[str]:
    """Return different numbers in as few digits as tell them apart, at least three: years differ in the fourth."""
    digits = max(3, len(str(int(np.abs(edges).max()))))
    while len(names := [f"{edge:.{digits}g}" for edge in edges]) > len(set(names)):
        digits += 1
    return names


def measure_groups(
    task: Task,
    split: Split,
    groupings: Mapping[str, Sequence[str]],
    num_bootstrap: int = 1000,
    metrics: Collection[str] | None = None,
) -> dict[str, dict[str, Any]]:
    """
    Compute metrics and 95 % bootstrap intervals of each group of rows.

    Args:
        task: the task.
        split: rows with logits.
        groupings: group of each row, by column.
        num_bootstrap: number of bootstrap samples: of videos, or of rows in a group of fewer than `MIN_VIDEOS`.
        metrics: names of metrics; by default those of `GROUP_METRICS` that are defined.

    Returns:
        For each column: `groups`, with `rows`, `model` and `intervals` of each as in [`SplitResult`], the worst in the
        first metric first; `worst`, the worst group of each metric; `left_out`, the number of rows in groups of fewer
        than `MIN_ROWS`.
    """
    wanted = metrics or GROUP_METRICS.get(task.name, CLASS_GROUP_METRICS)
    results = {}
    for column, names in groupings.items():
        groups, left_out, rows_by_name = {}, 0, {}
        for row, name in enumerate(names):
            rows_by_name.setdefault(name, []).append(row)
        for name, rows in rows_by_name.items():
            if len(rows) < MIN_ROWS:
                left_out += len(rows)
                continue
            groups[name] = _measure_group(task, split.take(np.array(rows)), wanted, num_bootstrap)
        ranked = {metric: _rank(groups, metric) for metric in wanted}
        ranked = {metric: order for metric, order in ranked.items() if len(order) > 1}
        order = list(dict.fromkeys([*next(iter(ranked.values()), []), *groups]))
        results[column] = {
            "groups": {name: groups[name] for name in order},
            "worst": {metric: order[0] for metric, order in ranked.items()},
            "left_out": left_out,
        }
    return results


def _measure_group(task: Task, split: Split, wanted: Collection[str], num_bootstrap: int) -> dict[str, Any]:
    scores = group_metrics(task, np.ones((1, len(split))), split)
    model = {name: float(scores[name][0]) for name in wanted if name in scores and not np.isnan(scores[name][0])}

    def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
        found = group_metrics(task, weights, split)
        return {name: found[name] for name in model}

    videos = split.groups if len(set(split.groups or ())) >= MIN_VIDEOS else None
    intervals = intervals_of_statistics(statistics, len(split), videos, num_bootstrap)
    return {"rows": len(split), "model": model, "intervals": {name: list(pair) for name, pair in intervals.items()}}


def _rank(groups: Mapping[str, Mapping[str, Any]], metric: str) -> list[str]:
    """Return the names of the groups in which a metric is defined, the worst first."""
    sign = -1 if metric in LOWER_IS_BETTER else 1
    return sorted((n for n in groups if metric in groups[n]["model"]), key=lambda n: sign * groups[n]["model"][metric])


def group_metrics(task: Task, weights: np.ndarray, split: Split) -> dict[str, np.ndarray]:
    """Compute `weighted_metrics`, (S,) each, with means of areas over the labels that occur under each weights."""
    metrics = weighted_metrics(task, weights, split.truth, split.logits)
    for mean in {"emotion_auroc", "auroc_macro"} & set(metrics):
        areas = np.array([metrics[f"{label}_auroc"] for label in task.labels if f"{label}_auroc" in metrics])
        occurs = ~np.isnan(areas)
        number = np.where(occurs.any(axis=0), occurs.sum(axis=0), np.nan)
        metrics[mean] = np.where(occurs, areas, 0).sum(axis=0) / number
    return metrics
