"""Tests of scripts/measure_speakers.py on turns of known errors."""

import itertools
from importlib.util import module_from_spec, spec_from_file_location

import numpy as np
import pytest


pytest.importorskip("pyannote.metrics")
RATE = 16000


@pytest.fixture(scope="module")
def script(root):
    spec = spec_from_file_location("measure_speakers", root / "scripts" / "measure_speakers.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def turn(speaker, start, end, **scores):
    return {
        "speaker": speaker,
        "timestamp": (start, end),
        "emotions": [{"label": label, "score": score} for label, score in scores.items()],
    }


def test_errors_are_of_matched_speakers(script):
    true = [turn("Ann", 0, 4), turn("Bob", 5, 10)]
    dialogue = script.Dialogue("none", np.zeros(12 * RATE, np.float32), true, np.zeros((2, 6)))
    found = [turn("1", 0, 3), turn("0", 5, 9), turn("1", 9, 11)]
    errors = script.measure_errors(dialogue, found)
    assert errors == pytest.approx({"total": 9, "missed detection": 1, "false alarm": 1, "confusion": 1})
    row = {"seconds": 12.0, "time": 0.6, "right_count": True, "known": errors, "estimated": errors}
    report = script.summarize([row])
    assert report["der_known"] == pytest.approx([3 / 9] * 3)
    assert report["confusion_estimated"][0] == pytest.approx(1 / 9)
    assert report["cpu_seconds_per_second"] == pytest.approx(0.05)


def test_scores_come_from_turns_of_the_same_speaker(script):
    true = [turn("Ann", 0, 4), turn("Bob", 4, 8), turn("Cid", 8, 9)]
    found = [turn("0", 0, 3, happy=0.8), turn("0", 3, 4, happy=0.4), turn("1", 4, 9, sad=0.5)]
    scores = script.attribute(true, found)
    assert scores[0] == pytest.approx([0.7, 0, 0, 0, 0, 0])
    assert scores[1] == pytest.approx([0, 0.5, 0, 0, 0, 0])
    assert not scores[2].any()


def test_dialogue_has_each_speaker_in_turns_of_bounded_length(script):
    voices = {name: {"happy": [(np.ones(RATE * 2, np.float32), [1, 0, 0, 0, 0, 0])] * 3} for name in "abc"}
    dialogue = script.stitch("none", voices, list("abc"), np.random.default_rng(0))
    speakers = [one["speaker"] for one in dialogue.turns]
    assert dialogue.num_speakers == 3
    assert all(first != second for first, second in itertools.pairwise(speakers))
    lengths = [one["timestamp"][1] - one["timestamp"][0] for one in dialogue.turns]
    assert 2 <= min(lengths) <= max(lengths) <= 10
    assert dialogue.seconds >= 60
    assert dialogue.labels.shape == (len(speakers), 6)
