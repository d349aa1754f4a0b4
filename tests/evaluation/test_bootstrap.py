"""Tests of the bootstrap intervals against a loop over drawn rows."""

import time

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from modeling_umons import EMOTIONS
from modeling_umons.evaluation.bootstrap import bootstrap_intervals
from modeling_umons.evaluation.metrics import task_metrics
from modeling_umons.tasks.labels import sentiment_class_7
from modeling_umons.tasks.task import make_task


JOINT = make_task("joint")


@pytest.fixture
def random():
    return np.random.default_rng(0)


def joint_rows(random, size):
    """Create labels with ties and unknown values, rare emotions, and correlated logits."""
    truth = np.c_[
        random.uniform(-3, 3, size).round(), random.uniform(size=(size, 6)) < [0.5, 0.3, 0.3, 0.1, 0.2, 0.04]
    ]
    logits = (0.5 * truth + random.normal(size=(size, 7))).round(1)
    truth[random.uniform(size=truth.shape) < 0.1] = np.nan
    return truth, logits


def drawn_rows(num_samples, seed, groups, size):
    """Draw the rows of each sample."""
    random, units = np.random.default_rng(seed), list(dict.fromkeys(groups)) if groups else range(size)
    rows_of = (
        {unit: [row for row in range(size) if not groups or groups[row] == unit] for unit in units} if groups else {}
    )
    for _ in range(num_samples):
        drawn = random.integers(len(units), size=len(units))
        yield np.concatenate([rows_of[units[i]] for i in drawn]) if groups else drawn


def sklearn_measures(truth, logits):
    sentiment, fear = ~np.isnan(truth[:, 0]), ~np.isnan(truth[:, 6])
    s, p = truth[sentiment, 0], logits[sentiment, 0]
    t, q = truth[fear, 6] > 0, logits[fear, 6]
    f1 = sklearn_metrics.f1_score
    return {
        "mae": sklearn_metrics.mean_absolute_error(s, p),
        "corr": np.corrcoef(s, p)[0, 1],
        "acc7": np.mean([sentiment_class_7(a) == sentiment_class_7(b) for a, b in zip(s, p, strict=True)]),
        "f1_non0": f1(s[s != 0] > 0, p[s != 0] > 0, average="weighted", zero_division=0),
        "emotion_acc": ((truth[:, 1:] > 0) == (logits[:, 1:] > 0))[~np.isnan(truth[:, 1:])].mean(),
        "fear_f1": f1(t, q > 0, average="weighted", zero_division=0),
        "fear_f1_macro": f1(t, q > 0, average="macro", zero_division=0),
        "fear_wa": sklearn_metrics.balanced_accuracy_score(t, q > 0) if t.any() else np.nan,
        "fear_auroc": sklearn_metrics.roc_auc_score(t, q) if t.any() else np.nan,
        "fear_ap": sklearn_metrics.average_precision_score(t, q) if t.any() else np.nan,
    }


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("of_sklearn", [False, True])
def test_intervals_match_reference_loop(random, of_sklearn, grouped):
    truth, logits = joint_rows(random, 80)
    groups = [f"video {n}" for n in random.integers(0, 15, 80)] if grouped else None

    def measures(truth, logits):
        return sklearn_measures(truth, logits) if of_sklearn else task_metrics(JOINT, truth, logits)

    # Fear is so rare that it is in no row of some samples, where it has no area under a curve: they do not count.
    samples = [measures(truth[rows], logits[rows]) for rows in drawn_rows(60, 7, groups, 80)]
    expected = {
        name: np.nanquantile([sample.get(name, np.nan) for sample in samples], [0.025, 0.975])
        for name in measures(truth, logits)
    }
    intervals = bootstrap_intervals(JOINT, truth, logits, groups, num_samples=60, seed=7)
    assert set(intervals) >= set(expected)
    for name, interval in expected.items():
        assert intervals[name] == pytest.approx(interval, abs=1e-12), name
    if not of_sklearn:
        assert set(intervals) == set(expected)
        assert any("fear_auroc" not in sample for sample in samples) or grouped


@pytest.mark.parametrize("name", ["sentiment-7", "sentiment-2", "classification", "emotion", "sentiment"])
def test_intervals_of_all_tasks(random, name):
    task = make_task(name, classes=["a", "b", "c"])
    size = len(task.labels)
    truth = {
        "emotion": (random.uniform(size=(50, 6)) < 0.4).astype(float),
        "sentiment": random.uniform(-3, 3, 50),
    }.get(name, random.integers(0, size, 50))
    logits = random.normal(size=(50, size))
    samples = [task_metrics(task, truth[rows], logits[rows]) for rows in drawn_rows(25, 1, None, 50)]
    intervals = bootstrap_intervals(task, truth, logits, num_samples=25, seed=1)
    assert set(intervals) == set(task_metrics(task, truth, logits))
    for metric, interval in intervals.items():
        expected = np.quantile([sample[metric] for sample in samples], [0.025, 0.975])
        assert interval == pytest.approx(expected, abs=1e-12), metric


def test_intervals_depend_on_seed(random):
    truth, logits = joint_rows(random, 300)
    first = bootstrap_intervals(JOINT, truth, logits, num_samples=200)
    assert first == bootstrap_intervals(JOINT, truth, logits, num_samples=200, seed=0)
    assert first != bootstrap_intervals(JOINT, truth, logits, num_samples=200, seed=1)
    for name, value in task_metrics(JOINT, truth, logits).items():
        low, high = first[name]
        assert low < value < high, name


def test_intervals_use_thresholds(random):
    truth, logits = joint_rows(random, 100)
    thresholds = np.full(6, 0.5)
    intervals = bootstrap_intervals(JOINT, truth, logits, num_samples=40, thresholds=thresholds)
    shifted = logits - np.r_[0, thresholds]
    expected = bootstrap_intervals(JOINT, truth, shifted, num_samples=40)
    assert set(intervals) == set(expected)
    for name, interval in expected.items():
        assert intervals[name] == pytest.approx(interval), name
    assert intervals != bootstrap_intervals(JOINT, truth, logits, num_samples=40)


def test_intervals_have_nominal_coverage(random):
    """
    Check that about 95 % of the intervals contain the true accuracy of 0.7. If the segments of a video are correlated,
    only intervals over whole videos do.
    """
    task, covered = make_task("sentiment-2"), {"segments": 0, "videos": 0, "segments of videos": 0}
    trials = 200
    for trial in range(trials):
        right = random.uniform(size=120) < 0.7
        together = np.repeat(random.uniform(size=30) < 0.7, 4)
        videos = np.repeat(np.arange(30), 4)
        for name, answers, groups in (
            ("segments", right, None), ("videos", together, videos), ("segments of videos", together, None),
        ):  # fmt: skip
            interval = bootstrap_intervals(
                task, np.ones(120, dtype=int), np.eye(2)[answers.astype(int)], groups, num_samples=200, seed=trial
            )
            covered[name] += interval["accuracy"][0] <= 0.7 <= interval["accuracy"][1]
    # Two standard errors of 200 trials are 0.03, and percentile intervals of 30 videos are a little narrow.
    assert 0.91 <= covered["segments"] / trials <= 0.99
    assert 0.87 <= covered["videos"] / trials <= 0.99
    assert covered["segments of videos"] / trials < 0.75


def test_bootstrap_of_many_rows_is_fast(random):
    """Bootstrap as many rows as MOSEI's test split in seconds."""
    truth, logits = joint_rows(random, 4662)
    videos = random.integers(0, 676, 4662)
    start = time.perf_counter()
    intervals = bootstrap_intervals(JOINT, truth, logits, videos, num_samples=200)
    assert time.perf_counter() - start < 6  # a tenth of that, and less, on an idle processor
    assert len(intervals) == 8 + 6 + 6 * len(EMOTIONS)


def test_intervals_without_known_labels_are_empty(random):
    assert bootstrap_intervals(JOINT, np.full((5, 7), np.nan), random.normal(size=(5, 7)), num_samples=3) == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_samples": 0}, "`num_samples` is 0"),
        ({"groups": ["a", "b"]}, "`groups` has 2 entries, but there are 3 segments"),
        ({"groups": ["a", None, "b"]}, "1 of 3 segments is unknown"),
        ({"groups": np.array([1, np.nan, np.nan])}, "2 of 3 segments is unknown"),
        ({"groups": ["a", "a", "a"]}, r"1 group\(s\)"),
    ],
)
def test_bootstrap_rejects_invalid_arguments(options, words):
    with pytest.raises(ValueError, match=words):
        bootstrap_intervals(make_task("sentiment"), np.arange(3.0), np.zeros(3), **options)
    with pytest.raises(ValueError, match=r"1 segment\(s\)"):
        bootstrap_intervals(make_task("sentiment"), np.zeros(1), np.zeros(1))
