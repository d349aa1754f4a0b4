"""Tests of the TF-IDF baseline."""

import time

import numpy as np
import pytest

from modeling_umons.evaluation.metrics import task_metrics
from modeling_umons.evaluation.tfidf_baseline import LOWEST, RIDGE_ALPHAS, TfidfBaseline
from modeling_umons.tasks.task import make_task


GOOD, BAD = "what a lovely sunny day", "an awful boring film"
TEXTS = [GOOD, BAD] * 10
SENTIMENT = np.array([2.0, -2.0] * 10, dtype=np.float32)


def test_baseline_learns_sentiment():
    baseline = TfidfBaseline(make_task("sentiment"), TEXTS, SENTIMENT, [GOOD, BAD], np.array([2.0, -2.0]))
    logits = baseline.logits(["lovely", "awful", None, " "])
    assert logits.shape == (4, 1)
    assert logits[0, 0] > 0.5 > -0.5 > logits[1, 0]
    assert logits[2:, 0].tolist() == [0.0, 0.0]  # the median of the training rows
    assert baseline.chosen == {"sentiment": {"alpha": 0.3}}  # clear texts require little regularisation
    assert "chosen on validation: sentiment 0.3." in baseline.describe()


def test_rows_without_text_have_median_of_all_rows():
    truth = np.r_[SENTIMENT, np.full(30, 1.5)]
    baseline = TfidfBaseline(make_task("sentiment"), [*TEXTS, *[None] * 30], truth)
    assert baseline.logits([None]).item() == 1.5
    assert baseline.chosen == {"sentiment": {"alpha": RIDGE_ALPHAS[0]}}
    assert "by default, without validation texts" in baseline.describe()


def test_baseline_learns_emotions_from_known_rows():
    truth = np.zeros((20, 7), dtype=np.float32)
    truth[:, 0] = SENTIMENT
    truth[:, 1] = [1, 0] * 10  # happy with the good ones
    truth[:, 2] = np.nan  # sad is not known anywhere
    truth[:10, 3] = np.nan
    truth[10:, 3] = [0, 1] * 5  # anger with the bad ones, where it is known
    baseline = TfidfBaseline(make_task("joint"), TEXTS, truth, TEXTS[:4], truth[10:14])
    logits = baseline.logits([GOOD, BAD, None])
    assert logits[0, 1] > 0 > logits[1, 1]
    assert logits[0, 3] < 0 < logits[1, 3]
    assert logits[:, 2].tolist() == [0, 0, 0]  # nothing is known of it
    absent = np.log(0.5 / 20.5)  # half a row of 21 has it
    np.testing.assert_allclose(logits[:, 4:], absent)
    assert logits[2, 1] == pytest.approx(0)
    assert set(baseline.chosen) == {"sentiment", "happy", "anger"}


def test_classes_without_training_rows_are_not_predicted():
    task = make_task("sentiment-7")
    baseline = TfidfBaseline(task, TEXTS, np.array([5, 1] * 10), [GOOD, BAD, BAD], np.array([5, 1, 6]))
    logits = baseline.logits([GOOD, BAD, None])
    assert logits.shape == (3, 7)
    assert logits[:2].argmax(axis=1).tolist() == [5, 1]
    assert (logits[:2, [0, 2, 3, 4, 6]] == LOWEST).all()
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(np.exp(logits[2]).sum(), 1)


def test_ngrams_and_class_weights_are_chosen_on_validation():
    task = make_task("classification", classes=["a", "b"])
    # The order of two words decides, so single words are not enough.
    texts, truth = ["good not", "not good"] * 20, np.array([0, 1] * 20)
    assert TfidfBaseline(task, texts, truth, texts[:4], truth[:4]).ngrams[1] > 1
    # One row in ten is of class b; the validation rows are half of each, so weights help.
    texts, truth = ["so"] * 17 + ["fine", "fine", "fine"], np.array([0] * 18 + [1, 0])
    for metric, weight in (("balanced_accuracy", "balanced"), ("loss", None)):
        held_out = (["fine", "fine", "so"], np.array([1, 0, 0]))
        chosen = TfidfBaseline(task, texts, truth, *held_out, metric=metric).chosen
        assert chosen["classification"]["class_weight"] == weight


@pytest.mark.parametrize(
    ("task", "texts", "truth", "message"),
    [
        ("sentiment", [None, "", "  "], [1.0, 2.0, 3.0], "the training rows have no text"),
        ("sentiment", ["a", "b", "c"], [1.0, 1.0, 1.0], "have the same labels"),
        ("sentiment-2", ["a", "b", None], [1, 1, 0], "have the same class"),
        ("sentiment", ["!", "?", "..."], [1.0, 2.0, 3.0], "no word of the training rows"),
    ],
)
def test_baseline_raises_without_text_or_variation(task, texts, truth, message):
    with pytest.raises(ValueError, match=message):
        TfidfBaseline(make_task(task), texts, np.array(truth))


@pytest.mark.shared
def test_baseline_on_real_texts(shared):
    """Check that the baseline beats the constant one in a few seconds."""
    import pandas as pd

    table = pd.read_csv(shared / "data" / "mosi" / "mosi.csv")
    train, valid, test = (table[table["split"] == name] for name in ("train", "valid", "test"))
    task, began = make_task("sentiment"), time.perf_counter()
    baseline = TfidfBaseline(
        task,
        train["text"].tolist(),
        train["sentiment"].to_numpy(),
        valid["text"].tolist(),
        valid["sentiment"].to_numpy(),
    )
    metrics = task_metrics(task, test["sentiment"].to_numpy(), baseline.logits(test["text"].tolist()))
    assert time.perf_counter() - began < 20
    assert metrics["mae"] < 1.2
    assert metrics["acc2_non0"] > 0.68
