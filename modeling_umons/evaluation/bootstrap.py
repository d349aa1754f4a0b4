"""Bootstrap confidence intervals of the metrics of a task."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from ..tasks.task import Task
from .metrics import task_metrics, weighted_metrics


QUANTILES = (0.025, 0.975)

# Number of weights drawn at a time, which fit into the processor's cache.
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
    Compute the 95 % percentile bootstrap interval (low, high) of each metric in `task_metrics`.

    The intervals describe the choice of test segments, not the randomness of training. Samples in which a metric is
    undefined are ignored for that metric.

    Args:
        task: the task.
        truth: labels of N segments.
        logits: predictions of N segments.
        groups: (N,) video, dialogue or speaker of each segment. Whole groups are drawn, because segments of a group
            are correlated and intervals that assume independence are too narrow. Default: segments are drawn.
        num_samples: number of bootstrap samples.
        seed: seed of the samples.
        thresholds: thresholds of the emotions' logits.

    Raises:
        ValueError: there are fewer than two segments or groups, or the group of a segment is unknown.

    Source: Efron, Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile intervals).
    """
    if num_samples < 1:
        raise ValueError(f"`num_samples` is {num_samples}, but must be at least 1 (`--num_bootstrap`).")
    names = list(task_metrics(task, truth, logits, thresholds))
    _units(groups, len(truth))  # raises for groups that cannot be drawn

    def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
        values = weighted_metrics(task, weights, truth, logits, thresholds)
        return {name: values[name] for name in names}

    return intervals_of_statistics(statistics, len(truth), groups, num_samples, seed)


def interval_of_statistic(
    statistic: Callable[[np.ndarray], np.ndarray],
    num_segments: int,
    groups: Sequence | None = None,
    num_samples: int = 1000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """
    Compute the 95 % percentile bootstrap interval of a statistic, as [`bootstrap_intervals`].

    Args:
        statistic: maps weights (S, num_segments) to values (S,), NaN where it is undefined.
        num_segments: number of segments.
        groups: group of each segment; segments are drawn if all are of one group or the group of one is unknown.
        num_samples, seed: as in [`bootstrap_intervals`].

    Returns:
        (low, high); `None` if there are fewer than two segments, or the statistic is undefined in all samples.
    """
    return intervals_of_statistics(
        lambda weights: {"": statistic(weights)}, num_segments, groups, num_samples, seed
    ).get("")


def intervals_of_statistics(
    statistics: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    num_segments: int,
    groups: Sequence | None = None,
    num_samples: int = 1000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Compute [`interval_of_statistic`] of several statistics on the same samples; undefined ones are left out."""
    if num_segments < 2:
        return {}
    groups = [None] if groups is None else list(groups)
    is_grouped = None not in groups and len(set(groups)) > 1
    units = _units(groups if is_grouped else None, num_segments)
    samples = [statistics(weights) for weights in _draw(units, num_samples, seed)]
    intervals = {}
    for name in samples[0]:
        values = np.concatenate([sample[name] for sample in samples])
        values = values[~np.isnan(values)]
        if len(values):
            low, high = np.quantile(values, QUANTILES)
            intervals[name] = (float(low), float(high))
    return intervals


def _units(groups: Sequence | np.ndarray | None, num_segments: int) -> np.ndarray:
    """Return the index (N,) of the unit that is drawn for each segment: itself, or its group."""
    units = np.arange(num_segments)
    if groups is not None:
        groups = groups.tolist() if isinstance(groups, np.ndarray) else list(groups)
        if len(groups) != num_segments:
            raise ValueError(f"`groups` has {len(groups)} entries, but there are {num_segments} segments.")
        if unknown := sum(group is None or group != group for group in groups):
            raise ValueError(f"The group of {unknown} of {num_segments} segments is unknown; pass a group for each.")
        numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
        units = np.array([numbers[group] for group in groups], dtype=int)
    if (count := len(np.unique(units))) < 2:
        unit = "segment(s)" if groups is None else "group(s)"
        raise ValueError(f"There are {count} {unit}; resampling requires at least two.")
    return units


def _draw(unit_of_segment: np.ndarray, num_samples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield weights (samples, N), how often each segment is drawn, for a few samples at a time."""
    random, num_units = np.random.default_rng(seed), unit_of_segment.max() + 1
    size = max(1, CHUNK // len(unit_of_segment))
    for start in range(0, num_samples, size):
        count = min(size, num_samples - start)
        drawn = random.integers(num_units, size=(count, num_units)) + num_units * np.arange(count)[:, None]
        times = np.bincount(drawn.reshape(-1), minlength=count * num_units).reshape(count, num_units)
        yield times[:, unit_of_segment].astype(float)
