"""How sure a figure is: 95 % intervals of all measures of a task, by resampling the segments it was taken on."""

from collections.abc import Iterator, Sequence

import numpy as np

from ..tasks.task import Task
from .metrics import task_metrics, weighted_metrics


QUANTILES = (0.025, 0.975)

# Weights that are made at a time: few enough to stay near the processor, enough for the products to be quick.
CHUNK = 500_000


def bootstrap_intervals(
    task: Task,
    truth: np.ndarray,
    logits: np.ndarray,
    groups: Sequence | np.ndarray | None = None,
    num_samples: int = 1000,
    seed: int = 0,
    thresholds: np.ndarray | Sequence[float] | None = None,
) -> dict[str, tuple[float, float]]:
    """
    The 95 % percentile bootstrap interval (low, high) of each of `task_metrics`.

    `truth` and `logits` are as there, of N segments. Each of `num_samples` samples draws N segments with replacement; with
    `groups` (N,), the video, dialogue or speaker of each segment, it draws as many groups as there are, whole: segments
    of one video are alike, and intervals that take them for independent are too narrow. Samples in which a measure is
    not defined (none of its few angry segments was drawn) do not count for it. The intervals are about the choice of
    test segments alone, not about training again. The same `seed` gives the same intervals.

    Raises ValueError where there are fewer than two segments or groups, or a segment's group is unknown.

    Source: Efron, Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile intervals).
    """
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}, expected 1 or more.")
    names = list(task_metrics(task, truth, logits, thresholds))
    unit_of_segment = _units(groups, len(truth))
    samples = {name: [] for name in names}
    for weights in _draw(unit_of_segment, num_samples, seed):
        values = weighted_metrics(task, weights, truth, logits, thresholds)
        for name in names:
            samples[name].append(values[name])
    intervals = {}
    for name in names:
        values = np.concatenate(samples[name])
        values = values[~np.isnan(values)]
        if len(values):
            low, high = np.quantile(values, QUANTILES)
            intervals[name] = (float(low), float(high))
    return intervals


def _units(groups: Sequence | np.ndarray | None, num_segments: int) -> np.ndarray:
    """The number (N,) of what is drawn of each segment: of itself, or of its group."""
    units = np.arange(num_segments)
    if groups is not None:
        groups = groups.tolist() if isinstance(groups, np.ndarray) else list(groups)
        if len(groups) != num_segments:
            raise ValueError(f"There are {len(groups)} groups of {num_segments} segments, expected one of each.")
        if unknown := sum(group is None or group != group for group in groups):
            raise ValueError(f"The group of {unknown} of {num_segments} segments is unknown: give each a group.")
        numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
        units = np.array([numbers[group] for group in groups], dtype=int)
    if (count := len(np.unique(units))) < 2:
        what = "segment(s)" if groups is None else "group(s)"
        raise ValueError(f"There are {count} {what}: to resample takes two at least.")
    return units


def _draw(unit_of_segment: np.ndarray, num_samples: int, seed: int) -> Iterator[np.ndarray]:
    """Weights (samples, N): how often each segment is drawn, a few samples at a time."""
    random, num_units = np.random.default_rng(seed), unit_of_segment.max() + 1
    size = max(1, CHUNK // len(unit_of_segment))
    for start in range(0, num_samples, size):
        count = min(size, num_samples - start)
        drawn = random.integers(num_units, size=(count, num_units)) + num_units * np.arange(count)[:, None]
        times = np.bincount(drawn.reshape(-1), minlength=count * num_units).reshape(count, num_units)
        yield times[:, unit_of_segment].astype(float)
