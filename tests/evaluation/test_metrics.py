"""Tests of the metrics against their definitions and scikit-learn."""

import warnings

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from modeling_umons import EMOTIONS
from modeling_umons.evaluation.metrics import (
    classification_metrics,
    constant_metrics,
    emotion_metrics,
    rounded_sentiment_bins,
    sentiment_bins,
    sentiment_metrics,
    task_metrics,
    tune_thresholds,
    weighted_metrics,
)
from modeling_umons.tasks.labels import sentiment_class_7
from modeling_umons.tasks.task import make_task


def weighted_f1(truth, prediction):
    """Compute the F1 of each class that occurs, weighted by its support."""
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    total = 0.0
    for value in np.unique(truth):
        hits = ((truth == value) & (prediction == value)).sum()
        total += (truth == value).sum() * 2 * hits / ((truth == value).sum() + (prediction == value).sum())
    return total / len(truth)


@pytest.fixture
def random():
    return np.random.default_rng(0)


def test_sentiment_metrics_of_known_values():
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


def test_f1_is_weighted_by_support(random):
    """Some implementations swap labels and predictions, which weights by the predictions."""
    truth, prediction = random.uniform(-3, 3, 200), random.uniform(-1, 3, 200)
    metrics = sentiment_metrics(truth, prediction)
    assert metrics["f1_non0"] == pytest.approx(weighted_f1(truth > 0, prediction > 0))
    assert metrics["f1_non0"] != pytest.approx(weighted_f1(prediction > 0, truth > 0), abs=1e-3)


def test_unknown_sentiments_are_ignored(random):
    truth, prediction = random.uniform(-3, 3, 20), random.uniform(-3, 3, 20)
    expected = sentiment_metrics(truth, prediction)
    unknown = np.r_[truth, np.nan, np.nan]
    assert sentiment_metrics(unknown, np.r_[prediction, 3.0, -3.0]) == expected
    assert sentiment_metrics(np.full(3, np.nan), np.zeros(3)) == {}


def test_non0_metrics_are_undefined_for_neutral_segments():
    metrics = sentiment_metrics(np.zeros(4), np.array([0.0, 0.1, -0.1, 1.0]))
    assert "acc2_non0" not in metrics
    assert "f1_non0" not in metrics
    assert metrics["acc2_has0"] == 0.75


def test_correlation_of_constant_is_zero():
    assert sentiment_metrics(np.array([-1.0, 1.0]), np.zeros(2))["corr"] == 0.0
    assert sentiment_metrics(np.ones(2), np.array([0.3, 0.4]))["corr"] == 0.0


def test_emotion_metrics_of_known_values():
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


def test_unknown_emotions_are_ignored(random):
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


def test_classification_metrics_of_known_values():
    truth, prediction = np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 1, 1])
    metrics = classification_metrics(truth, np.eye(4)[prediction])
    assert metrics["accuracy"] == pytest.approx(3 / 5)
    assert metrics["balanced_accuracy"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert metrics["f1_weighted"] == pytest.approx(weighted_f1(truth, prediction))
    assert metrics["f1_macro"] == pytest.approx((2 * 2 / 5 + 2 * 1 / 4 + 0) / 3)


SENTIMENT = {"mae", "corr", "acc7", "acc7_rounded", "acc2_has0", "f1_has0", "acc2_non0", "f1_non0"}
EMOTION = {f"emotion_{name}" for name in ("acc", "f1", "f1_macro", "wa", "auroc", "ap")} | {
    f"{emotion}_{name}" for emotion in EMOTIONS for name in ("acc", "f1", "f1_macro", "wa", "auroc", "ap")
}
CLASSES = {"accuracy", "balanced_accuracy", "f1_weighted", "f1_macro"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("joint", SENTIMENT | EMOTION),
        ("emotion", EMOTION),
        ("sentiment", SENTIMENT),
        ("sentiment-7", CLASSES | {"acc7"}),
        ("sentiment-2", CLASSES | {"acc2_has0", "f1_has0"}),
        ("classification", CLASSES),
    ],
)
def test_task_metrics_have_expected_names(random, name, expected):
    task = make_task(name, classes=["a", "b"])
    truth = truth_of(random, name, 30)
    metrics = task_metrics(task, truth, random.normal(size=(30, len(task.labels))))
    assert set(metrics) == expected
    assert all(type(value) is float for value in metrics.values())
    assert set(constant_metrics(task, truth, truth)) == set(metrics)


def truth_of(random, name, size):
    return {
        "joint": np.c_[random.uniform(-3, 3, size), random.integers(0, 2, (size, 6))],
        "emotion": random.integers(0, 2, (size, 6)).astype(float),
        "sentiment": random.uniform(-3, 3, size),
        "sentiment-7": random.integers(0, 7, size),
        "sentiment-2": random.integers(0, 2, size),
        "classification": random.integers(0, 2, size),
    }[name]


def test_sentiment_classes_equal_bins(random):
    """Compare the accuracy of a classifier of the bins with `acc7` of a regressor."""
    truth, prediction = random.uniform(-3, 3, (2, 100)).round(1)
    expected = sentiment_metrics(truth, prediction)
    classes = task_metrics(make_task("sentiment-7"), sentiment_bins(truth), np.eye(7)[sentiment_bins(prediction)])
    assert classes["acc7"] == classes["accuracy"] == pytest.approx(expected["acc7"])
    sides = task_metrics(make_task("sentiment-2"), (truth >= 0).astype(int), np.eye(2)[(prediction >= 0).astype(int)])
    assert sides["acc2_has0"] == sides["accuracy"] == pytest.approx(expected["acc2_has0"])
    assert sides["f1_has0"] == sides["f1_weighted"] == pytest.approx(expected["f1_has0"])


# --- bins


def test_sentiment_bins_at_boundaries():
    halves = np.arange(-10, 11) / 2
    values = np.concatenate([halves, np.nextafter(halves, -np.inf), np.nextafter(halves, np.inf), [-0.0, 1e-9, -1e-9]])
    assert sentiment_bins(values).tolist() == [sentiment_class_7(value) for value in values]
    rounded = {
        -9.0: -3, -2.51: -3, -2.5: -2, -1.5: -2, -1.49: -1, -0.51: -1, -0.5: 0, 0.5: 0, 0.51: 1, 1.5: 2, 2.5: 2, 2.51:
        3, 9.0: 3,
    }  # fmt: skip
    assert (rounded_sentiment_bins(list(rounded)) - 3).tolist() == list(rounded.values())


def test_acc7_rounded_rounds_truth_and_prediction():
    truth, prediction = np.array([-1.5, 2.5, 0.5, 3.0, 0.6]), np.array([-2.4, 1.5, -0.5, 7.0, 0.4])
    metrics = sentiment_metrics(truth, prediction)
    assert metrics["acc7_rounded"] == pytest.approx(4 / 5)
    assert metrics["acc7"] == pytest.approx(2 / 5)  # 3.0 with 7.0 and 0.6 with 0.4


# --- against scikit-learn


def sklearn_sentiment(truth, prediction):
    known = ~np.isnan(truth)
    truth, prediction = truth[known], prediction[known]
    polar = truth != 0
    accuracy, f1 = sklearn_metrics.accuracy_score, sklearn_metrics.f1_score
    return {
        "mae": sklearn_metrics.mean_absolute_error(truth, prediction),
        "corr": np.corrcoef(truth, prediction)[0, 1],
        "acc7": accuracy([sentiment_class_7(v) for v in truth], [sentiment_class_7(v) for v in prediction]),
        "acc7_rounded": accuracy([round(v) for v in truth], [round(min(3, max(-3, v))) for v in prediction]),
        "acc2_has0": accuracy(truth >= 0, prediction >= 0),
        "f1_has0": f1(truth >= 0, prediction >= 0, average="weighted", zero_division=0),
        "acc2_non0": accuracy(truth[polar] > 0, prediction[polar] > 0),
        "f1_non0": f1(truth[polar] > 0, prediction[polar] > 0, average="weighted", zero_division=0),
    }


def sklearn_emotion(truth, logits, threshold=0.0):
    known = ~np.isnan(truth)
    truth, logits = truth[known] > 0, logits[known]
    answer = logits > threshold
    metrics = {
        "acc": sklearn_metrics.accuracy_score(truth, answer),
        "f1": sklearn_metrics.f1_score(truth, answer, average="weighted", zero_division=0),
        "f1_macro": sklearn_metrics.f1_score(truth, answer, average="macro", zero_division=0),
    }
    if truth.any() and not truth.all():
        metrics |= {
            "wa": sklearn_metrics.balanced_accuracy_score(truth, answer),
            "auroc": sklearn_metrics.roc_auc_score(truth, logits),
            "ap": sklearn_metrics.average_precision_score(truth, logits),
        }
    return metrics


def sklearn_classes(truth, prediction):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="y_pred contains classes not in y_true|A single label was found")
        return {
            "accuracy": sklearn_metrics.accuracy_score(truth, prediction),
            "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(truth, prediction),
            "f1_weighted": sklearn_metrics.f1_score(truth, prediction, average="weighted", zero_division=0),
            "f1_macro": sklearn_metrics.f1_score(truth, prediction, average="macro", zero_division=0),
        }


@pytest.mark.parametrize("decimals", [0, 1, 9], ids=["ties", "some ties", "no ties"])
@pytest.mark.parametrize("size", [3, 40, 500])
def test_sentiment_metrics_match_sklearn(random, size, decimals):
    truth, prediction = random.uniform(-3, 3, (2, size)).round(decimals) * [[1], [1.5]]
    truth[:2], prediction[:2] = (1, -2), (0.5, 1)  # neither is constant
    if size > 3:
        truth[::7] = np.nan
    assert sentiment_metrics(truth, prediction) == pytest.approx(sklearn_sentiment(truth, prediction), abs=1e-12)


@pytest.mark.parametrize("decimals", [0, 1, 9], ids=["ties", "some ties", "no ties"])
@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 1.0])
@pytest.mark.parametrize("size", [3, 40, 500])
def test_emotion_metrics_match_sklearn(random, size, share, decimals):
    truth = np.where(random.uniform(size=(size, 2)) < share, random.uniform(0.3, 3, (size, 2)), 0.0)
    logits = (0.3 * truth + random.normal(size=(size, 2))).round(decimals)
    if size > 3:
        truth[::5, 1] = np.nan
    thresholds = [0.0, 0.4]
    metrics = emotion_metrics(truth, logits, ("sad", "fear"), thresholds)
    expected = {}
    for i, label in enumerate(("sad", "fear")):
        expected |= {f"{label}_{k}": v for k, v in sklearn_emotion(truth[:, i], logits[:, i], thresholds[i]).items()}
    each = {name: value for name, value in metrics.items() if not name.startswith("emotion_")}
    assert each == pytest.approx(expected, abs=1e-12)
    known = ~np.isnan(truth)
    assert metrics["emotion_acc"] == pytest.approx(((logits > thresholds) == (truth > 0))[known].mean())
    for name in ("f1", "f1_macro", "wa", "auroc", "ap"):
        both = [expected.get(f"{label}_{name}") for label in ("sad", "fear")]
        assert (f"emotion_{name}" in metrics) == (None not in both)
        if None not in both:
            assert metrics[f"emotion_{name}"] == pytest.approx(np.mean(both))


def test_wa_matches_definition_of_literature(random):
    truth, logits = random.uniform(size=200) < 0.2, random.normal(size=200)
    answer = logits > 0
    p, n = truth.sum(), (~truth).sum()
    tp, tn = (truth & answer).sum(), (~truth & ~answer).sum()
    metrics = emotion_metrics(truth[:, None], logits[:, None], ("fear",))
    assert metrics["fear_wa"] == pytest.approx((tp * n / p + tn) / (2 * n))


@pytest.mark.parametrize("true_classes", [1, 3, 7])
@pytest.mark.parametrize("size", [1, 40, 500])
def test_classification_metrics_match_sklearn(random, size, true_classes):
    truth, logits = random.integers(0, true_classes, size), random.normal(size=(size, 7))
    expected = sklearn_classes(truth, logits.argmax(axis=1))
    assert classification_metrics(truth, logits) == pytest.approx(expected, abs=1e-12)
    # An unknown class does not count.
    more = np.r_[truth.astype(float), np.nan], np.vstack([logits, np.ones(7)])
    assert classification_metrics(*more) == pytest.approx(expected, abs=1e-12)
    assert classification_metrics(np.full(2, np.nan), np.zeros((2, 7))) == {}


# --- thresholds


def brute_force_threshold(truth, logits):
    candidates = [0.0, *((a + b) / 2 for a, b in zip(*[np.unique(logits)[i:] for i in (0, 1)], strict=False))]
    candidates.sort(key=abs)
    scores = [sklearn_emotion(truth, logits, candidate)["f1_macro"] for candidate in candidates]
    return candidates[int(np.argmax(np.round(scores, 12)))]


@pytest.mark.parametrize("decimals", [0, 1, 9], ids=["ties", "some ties", "no ties"])
def test_tuned_thresholds_are_optimal(random, decimals):
    truth = np.where(random.uniform(size=(25, 4)) < [0.1, 0.3, 0.5, 0.9], 1.5, 0)
    truth[::9, 0] = np.nan
    logits = (truth + random.normal(size=(25, 4)) * [0.4, 1, 2, 1] - 1.5).round(decimals)
    logits[np.isnan(logits)] = 0.7
    thresholds = tune_thresholds(truth, logits)
    assert thresholds == pytest.approx([brute_force_threshold(*c) for c in zip(truth.T, logits.T, strict=True)])
    before = emotion_metrics(truth, logits, EMOTIONS[:4])
    after = emotion_metrics(truth, logits, EMOTIONS[:4], thresholds)
    assert after["emotion_f1_macro"] > before["emotion_f1_macro"]
    assert after["emotion_auroc"] == before["emotion_auroc"]  # which asks for no threshold


def test_undetermined_thresholds_are_zero():
    nan = np.nan
    truth = np.array([[1, 0, nan, 1, 0, 1], [1, 0, nan, 0, 1, nan], [1, 0, nan, 1, 1, nan]])
    logits = np.array([[3.0, -2, 1, 5, -1, 1], [2, -3, 2, 5, 1, 2], [1, -4, 3, 5, 2, 3]])
    assert tune_thresholds(truth, logits).tolist() == [0, 0, 0, 0, 0, 0]  # the fifth is right as it is


def test_threshold_between_adjacent_floats():
    low, high = 1.0, np.nextafter(1.0, 2.0)
    threshold = tune_thresholds(np.array([[0], [1]]), np.array([[low], [high]]))[0]
    assert low <= threshold < high


# --- invalid arrays


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sentiment_metrics(np.zeros(3), np.zeros(2)), r"shape \(3,\) and predictions \(2,\)"),
        (
            lambda: sentiment_metrics(np.zeros(3), np.array([0, np.nan, 1])),
            "1 of 3 segments are not finite, the first one is segment 1",
        ),
        (lambda: emotion_metrics(np.zeros((3, 2)), np.full((3, 2), np.inf), ("a", "b")), "3 of 3 segments"),
        (lambda: emotion_metrics(np.zeros((3, 2)), np.zeros((3, 2)), ("a",)), r"expected \(segments, 1\)"),
        (lambda: emotion_metrics(np.zeros((3, 2)), np.zeros((3, 2)), ("a", "b"), [0.5]), "for each of a, b"),
        (lambda: task_metrics(make_task("joint"), np.zeros(3), np.zeros(3)), r"expected \(segments, 7\)"),
        (
            lambda: task_metrics(make_task("sentiment"), np.zeros(3), np.zeros(3), [0.0]),
            "require emotions; the task 'sentiment' has none",
        ),
        (lambda: classification_metrics(np.zeros(3), np.zeros(3)), r"expected \(segments,\), \(segments, classes\)"),
        (
            lambda: classification_metrics(np.array([0, 5, -100]), np.zeros((3, 3))),
            r"\[-100.0, 5.0\], but there are logits for the classes 0 to 2",
        ),
        (lambda: classification_metrics(np.array([0]), np.full((1, 3), np.nan)), "not finite"),
        (lambda: tune_thresholds(np.zeros(3), np.zeros(3)), r"expected \(segments, emotions\)"),
    ],
)
def test_metrics_reject_invalid_arrays(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# --- the constant predictor


def test_constant_baseline_predicts_most_frequent_class():
    task = make_task("classification", classes=["a", "b", "c"])
    metrics = constant_metrics(task, np.array([1, 1, 1, 0, 2]), np.array([0, 0, 1]))
    assert metrics["accuracy"] == pytest.approx(1 / 3)


def test_constant_baseline_is_best_in_each_sentiment_metric():
    train = np.array([0.0] * 5 + [1.0] * 4 + [-0.5, -2.0])
    metrics = constant_metrics(make_task("sentiment"), train, np.array([1.0, 2.0, 0.0, -1.0]))
    assert metrics["mae"] == pytest.approx(1.0)  # of the median, 0
    assert metrics["acc7"] == pytest.approx(1 / 4)  # of class 0, the commonest
    assert metrics["acc2_has0"] == pytest.approx(3 / 4)
    assert metrics["acc2_non0"] == pytest.approx(2 / 3)  # of a positive answer: the median would have 1 / 3
    assert metrics["corr"] == 0.0


def test_constant_baseline_predicts_more_frequent_state():
    train = np.zeros((10, 6))
    train[:7, 0] = 1
    truth = np.zeros((4, 6))
    truth[0, 0] = truth[:3, 1] = 1
    metrics = constant_metrics(make_task("emotion"), train, truth)
    assert metrics["happy_acc"] == pytest.approx(1 / 4)
    assert metrics["sad_acc"] == pytest.approx(1 / 4)
    assert metrics["emotion_acc"] == pytest.approx((1 / 4 + 1 / 4 + 4) / 6)


def test_constant_baseline_without_known_sentiment():
    truth = np.c_[np.full(4, np.nan), np.eye(4, 6)]
    metrics = constant_metrics(make_task("joint"), truth, truth)
    assert "mae" not in metrics
    assert metrics["happy_acc"] == pytest.approx(3 / 4)


def test_constant_baseline_has_chance_ranking(random):
    truth = (random.uniform(size=(50, 6)) < 0.3).astype(float)
    truth[:, 5] = 0
    metrics = constant_metrics(make_task("emotion"), truth, truth)
    for i, emotion in enumerate(EMOTIONS[:5]):
        assert metrics[f"{emotion}_auroc"] == metrics[f"{emotion}_wa"] == 0.5
        assert metrics[f"{emotion}_ap"] == pytest.approx(truth[:, i].mean())
    # Nobody is afraid: there is nothing to rank, and so no mean over all six.
    assert not {"fear_wa", "fear_auroc", "fear_ap", "emotion_wa", "emotion_auroc", "emotion_ap"} & set(metrics)
    assert metrics["fear_acc"] == metrics["fear_f1"] == 1.0


@pytest.mark.parametrize("sentiment", [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0])
def test_constant_baseline_considers_all_sentiment_classes(sentiment):
    """Some constant prediction is in each class, rounded or in UMONS' bins."""
    train = np.r_[np.full(9, sentiment), np.full(8, 0.1)]
    metrics = constant_metrics(make_task("sentiment"), train, np.array([sentiment, 2.2 if sentiment < 2 else -1.0]))
    assert metrics["acc7_rounded"] == metrics["acc7"] == 0.5


@pytest.mark.shared
def test_constant_baseline_on_mosei_test_split(shared):
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
    assert 100 * constant["acc7_rounded"] == pytest.approx(100 * (np.abs(truth["test"][:, 0]) <= 0.5).mean())
    assert constant["emotion_auroc"] == constant["emotion_wa"] == 0.5
    assert constant["mae"] == pytest.approx(np.abs(truth["test"][:, 0]).mean())  # the median is 0

    absent = emotion_metrics(truth["test"][:, 1:], np.full((4662, 6), -1.0), EMOTIONS)
    assert 100 * absent["emotion_acc"] == pytest.approx(77.4, abs=0.06)
    # Most training segments are happy: to say so always does better than to call every emotion absent.
    assert constant["emotion_acc"] == pytest.approx(absent["emotion_acc"] + (2505 - (4662 - 2505)) / (6 * 4662))


# --- own labels


def test_label_metrics_match_scikit_learn():
    task, random = make_task("multi_label", ["a", "b", "c"]), np.random.default_rng(0)
    truth, logits = random.integers(0, 2, (60, 3)), random.normal(size=(60, 3))
    metrics = task_metrics(task, truth, logits, [0.0, 0.5, -0.5])
    predicted = logits > [0.0, 0.5, -0.5]
    for average in ("macro", "micro"):
        assert metrics[f"f1_{average}"] == pytest.approx(sklearn_metrics.f1_score(truth, predicted, average=average))
    assert metrics["ap_macro"] == pytest.approx(
        sklearn_metrics.average_precision_score(truth, logits, average="macro")
    )
    assert metrics["auroc_macro"] == pytest.approx(sklearn_metrics.roc_auc_score(truth, logits, average="macro"))
    assert metrics["label_accuracy"] == pytest.approx((truth == predicted).mean())
    assert metrics["b_f1"] == pytest.approx(sklearn_metrics.f1_score(truth[:, 1], predicted[:, 1]))
    partly = np.where(random.random((60, 3)) < 0.3, np.nan, truth)
    known = ~np.isnan(partly[:, 2])
    assert task_metrics(task, partly, logits)["c_f1"] == pytest.approx(
        sklearn_metrics.f1_score(truth[known, 2], logits[known, 2] > 0)
    )


def test_label_metrics_of_label_in_no_row():
    task = make_task("multi_label", ["a", "b"])
    metrics = task_metrics(task, np.zeros((3, 2)), np.array([[1.0, -1.0]] * 3))
    assert metrics == {"label_accuracy": 0.5, "f1_micro": 0.0, "f1_macro": 0.0, "a_f1": 0.0, "b_f1": 0.0}
    assert task_metrics(task, np.full((3, 2), np.nan), np.zeros((3, 2))) == {}


def test_regression_metrics_match_definitions():
    random = np.random.default_rng(0)
    truth = random.normal(5, 2, (50, 2))
    prediction = truth * 0.5 + random.normal(1, 1, (50, 2))
    metrics = task_metrics(make_task("regression", ["valence", "arousal"]), truth, prediction)
    for name, t, p in zip(("valence", "arousal"), truth.T, prediction.T, strict=True):
        covariance = ((t - t.mean()) * (p - p.mean())).mean()
        concordance = 2 * covariance / (t.var() + p.var() + (t.mean() - p.mean()) ** 2)
        assert metrics[f"{name}_ccc"] == pytest.approx(concordance)
        assert metrics[f"{name}_corr"] == pytest.approx(np.corrcoef(t, p)[0, 1])
        assert metrics[f"{name}_mae"] == pytest.approx(np.abs(t - p).mean())
    for name in ("ccc", "corr", "mae"):
        assert metrics[name] == pytest.approx((metrics[f"valence_{name}"] + metrics[f"arousal_{name}"]) / 2)
    single = make_task("regression", ["valence"])
    assert task_metrics(single, truth[:, :1], prediction[:, :1]) == {
        name: pytest.approx(metrics[f"valence_{name}"]) for name in ("ccc", "corr", "mae")
    }
    constant = task_metrics(single, np.ones((3, 1)), np.ones((3, 1)))
    assert constant == {"ccc": 0.0, "corr": 0.0, "mae": 0.0}


@pytest.mark.parametrize("name", ["multi_label", "regression"])
def test_weighted_metrics_of_own_labels_equal_repeated_rows(name):
    task, random = make_task(name, ["a", "b"]), np.random.default_rng(0)
    truth, logits = random.integers(0, 2, (20, 2)).astype(float), random.normal(size=(20, 2))
    truth[3, 1] = np.nan
    counts = random.integers(0, 3, (1, 20))
    weighted = weighted_metrics(task, counts.astype(float), truth, logits)
    repeated = task_metrics(task, np.repeat(truth, counts[0], axis=0), np.repeat(logits, counts[0], axis=0))
    assert {metric: pytest.approx(float(value[0])) for metric, value in weighted.items()} == repeated
