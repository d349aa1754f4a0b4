"""Measures, against their definitions written out by hand."""

import numpy as np
import pytest

from modeling_umons import EMOTIONS
from modeling_umons.training.metrics import (
    classification_metrics,
    constant_metrics,
    emotion_metrics,
    sentiment_metrics,
    task_metrics,
)
from modeling_umons.training.tasks import make_task


def weighted_f1(truth, prediction):
    """F1 of each class that occurs, weighted by how often it is true."""
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    total = 0.0
    for value in np.unique(truth):
        hits = ((truth == value) & (prediction == value)).sum()
        total += (truth == value).sum() * 2 * hits / ((truth == value).sum() + (prediction == value).sum())
    return total / len(truth)


@pytest.fixture
def random():
    return np.random.default_rng(0)


def test_sentiment_by_hand():
    truth = np.array([-2.5, -1.0, 0.0, 0.0, 0.4, 2.0])
    prediction = np.array([-2.1, 0.2, 0.1, -0.3, 1.0, 1.5])
    metrics = sentiment_metrics(truth, prediction)
    assert metrics["mae"] == pytest.approx((0.4 + 1.2 + 0.1 + 0.3 + 0.6 + 0.5) / 6)
    assert metrics["corr"] == pytest.approx(np.corrcoef(truth, prediction)[0, 1])
    assert metrics["acc7"] == pytest.approx(3 / 6)  # -2.5/-2.1, 0.4/1.0, 2.0/1.5
    assert metrics["acc2_has0"] == pytest.approx(4 / 6)  # all but the second and the fourth
    assert metrics["acc2_non0"] == pytest.approx(3 / 4)  # all but the second
    assert metrics["f1_has0"] == pytest.approx(weighted_f1(truth >= 0, prediction >= 0))
    polar = truth != 0
    assert metrics["f1_non0"] == pytest.approx(weighted_f1(truth[polar] > 0, prediction[polar] > 0))


def test_f1_is_weighted_by_the_truth(random):
    """Several peers swap truth and prediction, which weights by the prediction."""
    truth, prediction = random.uniform(-3, 3, 200), random.uniform(-1, 3, 200)
    metrics = sentiment_metrics(truth, prediction)
    assert metrics["f1_non0"] == pytest.approx(weighted_f1(truth > 0, prediction > 0))
    assert metrics["f1_non0"] != pytest.approx(weighted_f1(prediction > 0, truth > 0), abs=1e-3)


def test_unknown_sentiments_do_not_count(random):
    truth, prediction = random.uniform(-3, 3, 20), random.uniform(-3, 3, 20)
    expected = sentiment_metrics(truth, prediction)
    unknown = np.r_[truth, np.nan, np.nan]
    assert sentiment_metrics(unknown, np.r_[prediction, 3.0, -3.0]) == expected
    assert sentiment_metrics(np.full(3, np.nan), np.zeros(3)) == {}


def test_sentiments_that_are_all_neutral_have_no_non0():
    metrics = sentiment_metrics(np.zeros(4), np.array([0.0, 0.1, -0.1, 1.0]))
    assert "acc2_non0" not in metrics
    assert "f1_non0" not in metrics
    assert metrics["acc2_has0"] == 0.75


def test_a_constant_does_not_correlate():
    assert sentiment_metrics(np.array([-1.0, 1.0]), np.zeros(2))["corr"] == 0.0
    assert sentiment_metrics(np.ones(2), np.array([0.3, 0.4]))["corr"] == 0.0


def test_emotions_by_hand():
    truth = np.array([[1, 0], [0, 0], [1, 1], [0, 1.0]])
    logits = np.array([[2.0, -1], [0.1, -3], [-0.1, 0.5], [-2, 0.0]])
    metrics = emotion_metrics(truth, logits, ("happy", "sad"))
    assert metrics["emotion_acc"] == pytest.approx(5 / 8)  # a logit of 0 is not above 0
    assert metrics["happy_acc"] == pytest.approx(2 / 4)
    assert metrics["sad_acc"] == pytest.approx(3 / 4)
    assert metrics["happy_f1"] == pytest.approx(weighted_f1(truth[:, 0], logits[:, 0] > 0))
    assert metrics["sad_f1"] == pytest.approx(weighted_f1(truth[:, 1], logits[:, 1] > 0))
    assert metrics["sad_f1_macro"] == pytest.approx((2 * 2 / 5 + 2 * 1 / 3) / 2)
    assert next(iter(metrics)) == "emotion_acc"


def test_unknown_emotions_do_not_count(random):
    truth, logits = random.integers(0, 2, (30, 6)).astype(float), random.normal(size=(30, 6))
    expected = emotion_metrics(truth, logits, EMOTIONS)
    more = np.vstack([truth, np.full((5, 6), np.nan)])
    assert emotion_metrics(more, np.vstack([logits, np.ones((5, 6))]), EMOTIONS) == expected
    # Unknown in a single emotion: the others count, in `emotion_acc` too.
    truth[:, 2] = np.nan
    metrics = emotion_metrics(truth, logits, EMOTIONS)
    assert not [name for name in metrics if name.startswith("anger")]
    assert metrics["emotion_acc"] == pytest.approx(np.mean([metrics[f"{e}_acc"] for e in EMOTIONS if e != "anger"]))
    assert emotion_metrics(np.full((2, 6), np.nan), np.zeros((2, 6)), EMOTIONS) == {}


def test_classes_by_hand():
    truth, prediction = np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 1, 1])
    metrics = classification_metrics(truth, np.eye(4)[prediction])
    assert metrics["accuracy"] == pytest.approx(3 / 5)
    assert metrics["balanced_accuracy"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert metrics["f1_weighted"] == pytest.approx(weighted_f1(truth, prediction))
    assert metrics["f1_macro"] == pytest.approx((2 * 2 / 5 + 2 * 1 / 4 + 0) / 3)


@pytest.mark.parametrize("name", ["joint", "emotion", "sentiment", "sentiment-7", "classification"])
def test_each_task_has_its_measures(random, name):
    task = make_task(name, classes=["a", "b"])
    truth = {
        "joint": np.c_[random.uniform(-3, 3, 30), random.integers(0, 2, (30, 6))],
        "emotion": random.integers(0, 2, (30, 6)).astype(float),
        "sentiment": random.uniform(-3, 3, 30),
        "sentiment-7": random.integers(0, 7, 30),
        "classification": random.integers(0, 2, 30),
    }[name]
    metrics = task_metrics(task, truth, random.normal(size=(30, len(task.labels))))
    expected = {
        "joint": {"mae", "acc2_non0", "emotion_acc", "fear_f1"},
        "emotion": {"emotion_acc", "happy_acc"},
        "sentiment": {"mae", "corr", "acc7", "acc2_has0", "f1_has0"},
        "sentiment-7": {"accuracy", "f1_macro"},
        "classification": {"accuracy", "balanced_accuracy"},
    }[name]
    assert expected <= set(metrics)
    assert all(type(value) is float for value in metrics.values())
    assert set(constant_metrics(task, truth, truth)) == set(metrics)


# --- the constant predictor


def test_constant_of_classes_is_the_commonest():
    task = make_task("classification", classes=["a", "b", "c"])
    metrics = constant_metrics(task, np.array([1, 1, 1, 0, 2]), np.array([0, 0, 1]))
    assert metrics["accuracy"] == pytest.approx(1 / 3)


def test_constant_of_sentiment_is_the_best_in_each_measure():
    train = np.array([0.0] * 5 + [1.0] * 4 + [-0.5, -2.0])
    metrics = constant_metrics(make_task("sentiment"), train, np.array([1.0, 2.0, 0.0, -1.0]))
    assert metrics["mae"] == pytest.approx(1.0)  # of the median, 0
    assert metrics["acc7"] == pytest.approx(1 / 4)  # of class 0, the commonest
    assert metrics["acc2_has0"] == pytest.approx(3 / 4)
    assert metrics["acc2_non0"] == pytest.approx(2 / 3)  # of a positive answer: the median would have 1 / 3
    assert metrics["corr"] == 0.0


def test_constant_of_emotions_is_the_commoner_state():
    train = np.zeros((10, 6))
    train[:7, 0] = 1
    truth = np.zeros((4, 6))
    truth[0, 0] = truth[:3, 1] = 1
    metrics = constant_metrics(make_task("emotion"), train, truth)
    assert metrics["happy_acc"] == pytest.approx(1 / 4)
    assert metrics["sad_acc"] == pytest.approx(1 / 4)
    assert metrics["emotion_acc"] == pytest.approx((1 / 4 + 1 / 4 + 4) / 6)


def test_constant_of_a_table_that_knows_no_sentiment():
    truth = np.c_[np.full(4, np.nan), np.eye(4, 6)]
    metrics = constant_metrics(make_task("joint"), truth, truth)
    assert "mae" not in metrics
    assert metrics["happy_acc"] == pytest.approx(3 / 4)


@pytest.mark.shared
def test_constants_of_the_official_mosei_test_split(shared):
    pandas = pytest.importorskip("pandas")
    labels = pandas.read_csv(shared / "data" / "mosei" / "labels.csv")
    task = make_task("joint")
    truth = {
        split: np.array([task.label(row) for row in rows.to_dict("records")])
        for split, rows in labels.groupby("split")
    }
    constant = constant_metrics(task, truth["train"], truth["test"])
    assert len(truth["test"]) == 4662
    for name, value in {"acc2_has0": 71.04, "acc2_non0": 62.88, "acc7": 32.43}.items():
        assert 100 * constant[name] == pytest.approx(value, abs=0.005), name
    assert constant["mae"] == pytest.approx(np.abs(truth["test"][:, 0]).mean())  # the median is 0

    absent = emotion_metrics(truth["test"][:, 1:], np.full((4662, 6), -1.0), EMOTIONS)
    assert 100 * absent["emotion_acc"] == pytest.approx(77.4, abs=0.06)
    # Most training segments are happy: to say so always does better than to call every emotion absent.
    assert constant["emotion_acc"] == pytest.approx(absent["emotion_acc"] + (2505 - (4662 - 2505)) / (6 * 4662))
