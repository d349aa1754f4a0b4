"""Behaviour of the models that people get on plain sentences and recordings. None of them is training data."""

import csv
from pathlib import Path

import numpy as np
import pytest

from modeling_umons.inference.loading import load_pipeline
from modeling_umons.models.umons.media_umons import read_clip
from modeling_umons.utils.hub_files import hub_path


SENTENCES = Path(__file__).with_name("plain_sentences.csv")
ODD_TEXTS = Path(__file__).with_name("odd_texts.csv")
# Lowest share of sentences with the right label on top.
SHARES = {"umons-mini": 0.6, "umons-base": 0.8}


@pytest.fixture(scope="module", params=SHARES)
def recognize(request):
    if not hub_path(request.param).is_dir():
        pytest.skip(f"{request.param} is not in this checkout")
    recognize = load_pipeline(str(hub_path(request.param)))
    recognize.name = request.param
    return recognize


def scores(result: dict) -> dict[str, float]:
    return {entry["label"]: entry["score"] for entry in result["emotions"]}


def test_plain_sentences_have_the_right_label_on_top(recognize):
    with SENTENCES.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    results = recognize([{"text": row["text"]} for row in rows], batch_size=50)
    tops = [max(scores(result), key=scores(result).get) for result in results]
    right = [top in row["labels"].split("|") for top, row in zip(tops, rows, strict=True)]
    assert len(rows) == 100
    assert np.mean(right) >= SHARES[recognize.name], [
        row["text"] for row, ok in zip(rows, right, strict=True) if not ok
    ]


def test_polarity_of_plain_sentences(recognize):
    good, bad = recognize([{"text": "What a wonderful day!"}, {"text": "This was the worst day of my life."}])
    assert good["sentiment"] > 0.5
    assert bad["sentiment"] < -0.5


def test_averaged_audio_has_no_moments(recognize):
    clip = hub_path("sample") / "clips" / "075.mp4"
    options = {"return_attention": True, "return_explanations": True}
    result = recognize({"text": "I am angry.", "video": str(clip)}, **options)
    has_moments = not getattr(recognize.model.config, "average_audio", False)
    assert [entry["word"].strip(".") for entry in result["attention"]["text"]] == ["I", "am", "angry"]
    assert ("audio" in result["attention"]) == has_moments
    assert bool(result["explanations"]["audio"]) == has_moments
    assert list(result["explanations"]["modalities"]) == ["text", "audio"]


@pytest.mark.shared
def test_neutral_readers_have_no_emotion(recognize, shared):
    clips = sorted((shared / "data" / "clips").glob("grid_*.mpg"))
    results = recognize([{"audio": str(clip)} for clip in clips])
    emotions = [{name: score for name, score in scores(result).items() if name != "neutral"} for result in results]
    assert sum(max(found.values()) < 0.5 for found in emotions) >= len(clips) - 1


@pytest.mark.shared
def test_level_does_not_change_the_scores(recognize, shared):
    rate = recognize.processor.feature_extractor.sampling_rate
    files = sorted((shared / "data" / "ravdess" / "actor_18").glob("*.flac"))[::10]
    waveforms = [read_clip(file, video=False, sampling_rate=rate).audio for file in files]
    waveforms = [waveform / np.abs(waveform).max() * 0.3 for waveform in waveforms]
    shifts = []
    for waveform in waveforms:
        quiet, loud = ({"audio": waveform * 10 ** (gain / 20), "sampling_rate": rate} for gain in (-20, 10))
        before, after = scores(recognize(quiet)), scores(recognize(loud))
        shifts += [abs(before[name] - after[name]) for name in before]
    assert np.mean(shifts) <= 0.03


@pytest.mark.shared
def test_neutral_voice_leaves_the_words_their_say(recognize, shared):
    voice = str(sorted((shared / "data" / "ravdess" / "actor_18").glob("03-01-01-*.flac"))[0])
    for text, label in (("I am so happy, this is wonderful!", "happy"), ("I am terrified of spiders.", "fear")):
        found = scores(recognize({"text": text, "audio": voice}))
        assert max(found, key=found.get) == label


def test_odd_texts_have_a_warning(recognize):
    with ODD_TEXTS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    results = recognize([{"text": row["text"]} for row in rows], batch_size=50, on_error="return")
    missed = [
        row["text"]
        for row, result in zip(rows, results, strict=True)
        if "error" not in result and not result["warnings"]
    ]
    assert len(missed) <= 0.05 * len(rows), missed
