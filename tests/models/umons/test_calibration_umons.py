"""Calibrated scores, intervals, labels and abstention of the pipeline."""

import pytest
import torch
from small_pipelines import make_pipeline

from modeling_umons.models.umons.calibration_umons import (
    check_calibration,
    choose_emotion,
    choose_polarity,
    sentiment_interval,
)


EMOTIONS = ["happy", "sad", "anger", "surprise", "disgust", "fear"]
ENTRY = {
    "rows": 100,
    "temperature": dict.fromkeys(EMOTIONS, 2.0),
    "bias": dict.fromkeys(EMOTIONS, -1.0),
    "threshold": dict.fromkeys(EMOTIONS, 0.2),
    "sentiment_error": 1.5,
}


@pytest.fixture
def calibrated():
    return make_pipeline(joint_sentiment=True, calibration={"text": ENTRY})


def scores_of(result) -> dict[str, float]:
    return {entry["label"]: entry["score"] for entry in result["emotions"]}


def test_calibration_changes_scores_of_its_modalities_only(calibrated):
    plain = make_pipeline(joint_sentiment=True)
    before, after = plain({"text": "so glad"}), calibrated({"text": "so glad"})
    assert "sentiment_interval" not in before
    assert after["sentiment"] == before["sentiment"]
    low, high = after["sentiment_interval"]
    assert low == pytest.approx(max(-3, after["sentiment"] - 1.5))
    assert high == pytest.approx(min(3, after["sentiment"] + 1.5))
    for name, score in scores_of(before).items():
        expected = torch.tensor(score).logit() / 2 - 1
        assert scores_of(after)[name] == pytest.approx(expected.sigmoid().item(), abs=1e-5)
    for entry in after["emotions"]:
        assert entry["present"] == (entry["score"] >= 0.2)
    sound = {"array": torch.sin(torch.arange(22050) / 20).numpy() * 0.3, "sampling_rate": 22050}
    results = [model({"audio": sound}) for model in (calibrated, plain)]
    codes = [{warning["code"] for warning in result.pop("warnings")} for result in results]
    assert codes[0] - codes[1] == {"untested_modalities"}
    assert results[0] == results[1]


def test_untested_modalities_need_no_calibration():
    model = make_pipeline(joint_sentiment=True, trained_modalities=["audio"])
    (warning,) = [w for w in model({"text": "so glad"})["warnings"] if w["code"] == "untested_modalities"]
    assert warning["message"].startswith("The model was trained on audio, not on text")


def test_label_is_unsure_below_the_wanted_confidence(calibrated):
    result = calibrated({"text": "so glad"})
    confidence = result["confidence"]
    assert calibrated({"text": "so glad"}, abstain_below=confidence - 1e-6)["label"] == result["label"]
    abstained = calibrated({"text": "so glad"}, abstain_below=min(1.0, confidence + 1e-6))
    assert abstained == {**result, "label": "unsure"}
    for wrong in (-0.1, 1.1, True, "0.5", float("nan")):
        with pytest.raises(ValueError, match="`abstain_below` is"):
            calibrated({"text": "so glad"}, abstain_below=wrong)


def test_sentiment_model_without_calibration_cannot_abstain():
    recognize = make_pipeline(num_labels=1)
    result = recognize({"text": "so glad"})
    assert result["label"] == ("positive" if result["sentiment"] >= 0 else "negative")
    assert "confidence" not in result
    with pytest.raises(ValueError, match="umons evaluate --calibrate"):
        recognize({"text": "so glad"}, abstain_below=0.5)
    calibrated = make_pipeline(num_labels=1, calibration={"text": {"rows": 50, "sentiment_error": 1.0}})
    assert 0.5 <= calibrated({"text": "so glad"})["confidence"] <= 1
    assert calibrated({"text": "so glad"}, abstain_below=1.0)["label"] in ("unsure", result["label"])


def test_label_of_a_class_model_is_the_first(calibrated):
    recognize = make_pipeline(id2label={0: "-1", 1: "0", 2: "1"}, problem_type="single_label_classification")
    result = recognize({"text": "so glad"})
    assert (result["label"], result["confidence"]) == tuple(result["labels"][0].values())


@pytest.mark.parametrize(
    ("scores", "entry", "expected"),
    [
        ({"happy": 0.9, "anger": 0.6}, {}, ("happy", 0.9, {"happy", "anger"})),
        ({"happy": 0.4, "anger": 0.3}, {}, ("neutral", 0.6, set())),
        ({"happy": 0.4, "anger": 0.3}, {"threshold": {"anger": 0.25}}, ("anger", 0.3, {"anger"})),
        ({"happy": 0.4, "neutral": 0.3}, {}, ("neutral", 0.3, set())),
        ({"happy": 0.4, "neutral": 0.7}, {}, ("neutral", 0.7, {"neutral"})),
        ({"question": 0.4, "complaint": 0.3}, {}, ("none", 0.6, set())),
        ({"question": 0.4, "none": 0.3}, {}, ("none", 0.3, set())),
    ],
)
def test_choose_emotion_takes_the_strongest_present(scores, entry, expected):
    assert choose_emotion(scores, entry) == (expected[0], pytest.approx(expected[1]), expected[2])


def test_choose_polarity_is_surer_of_a_larger_sentiment():
    entry = {"sentiment_error": 1.6449}
    assert choose_polarity(-1.0, entry) == ("negative", pytest.approx(0.8413, abs=1e-4))
    assert choose_polarity(0.0, entry)[1] == 0.5
    assert choose_polarity(2.0, {}) == ("positive", None)


def test_sentiment_interval_stays_in_its_range():
    assert sentiment_interval(2.5, {"sentiment_error": 1.0}) == (1.5, 3.0)
    assert sentiment_interval(3.4, {"sentiment_error": 0.1}) == (3.0, 3.0)
    assert sentiment_interval(0.0, {}) is None


@pytest.mark.parametrize(
    "wrong",
    [
        "text",
        {"text": 1.0},
        {"text": {"temperature": 2.0}},
        {"text": {"temperature": {"happy": 0.0}}},
        {"text": {"threshold": {"happy": float("nan")}}},
        {"text": {"sentiment_error": "1"}},
    ],
)
def test_damaged_calibration_raises(wrong):
    with pytest.raises(ValueError, match="`calibration` of the configuration"):
        check_calibration(wrong)
