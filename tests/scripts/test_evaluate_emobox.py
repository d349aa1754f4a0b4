"""Folds of EmoBox are evaluated with its metrics; what a model cannot predict is counted."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small_pipelines import make_model, make_processor


ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def evaluate(root):
    return runpy.run_path(str(root / "scripts" / "evaluate_emobox.py"))["evaluate"]


@pytest.fixture
def fold(tmp_path):
    """Fold with two recordings of anger, one of a neutral voice, one of boredom, and a missing one."""
    rows = [("a", "anger"), ("b", "anger"), ("c", "Neutral"), ("d", "boredem"), ("e", "anger")]
    folder = tmp_path / "emodb" / "fold_1"
    folder.mkdir(parents=True)
    lines = [json.dumps({"key": name, "wav": f"downloads/{name}.wav", "emo": label}) for name, label in rows]
    (folder / "test.jsonl").write_text("\n".join(lines))
    names = {"anger": "Angry", "boredem": "Boredom", "Neutral": "Neutral"}
    (folder.parent / "label_map.json").write_text(json.dumps(names))
    random = np.random.default_rng(0)
    for name in "abcd":
        soundfile.write(tmp_path / f"{name}.flac", 0.1 * random.standard_normal(16000), 16000)
    return folder / "test.jsonl"


def test_fold_has_metrics_of_emobox_and_counts_rows_left_out(evaluate, fold, tmp_path):
    report = evaluate(str(ROOT / "hub" / "umons-mini"), fold, tmp_path)
    assert report["rows"] == 3
    assert report["left_out"] == {"class Boredom": 1, "recording missing": 1}
    assert report["WA"] in (0, 1 / 3, 2 / 3, 1)
    assert 0 <= report["UA"] <= 1


def test_fold_without_usable_row_raises(evaluate, fold, tmp_path):
    with pytest.raises(ValueError, match=r"has no row that .* can predict"):
        evaluate(str(ROOT / "hub" / "umons-mini"), fold, fold.parent)


def test_silent_recording_and_other_files_are_left_out(evaluate, fold, tmp_path):
    soundfile.write(tmp_path / "a.flac", np.zeros(16000), 16000)
    (tmp_path / "c.txt").write_text("transcript")
    report = evaluate(str(ROOT / "hub" / "umons-mini"), fold, tmp_path)
    assert report["rows"] == 2
    assert report["left_out"]["recording without prediction"] == 1


def test_model_of_classes_is_evaluated(evaluate, fold, tmp_path):
    options = {"problem_type": "single_label_classification", "id2label": {0: "anger", 1: "neutral"}}
    make_model(modalities=["text", "audio"], **options).save_pretrained(tmp_path / "model")
    make_processor().save_pretrained(tmp_path / "model")
    assert evaluate(str(tmp_path / "model"), fold, tmp_path)["rows"] == 3


@pytest.mark.parametrize("line", ["{", "[]", '{"key": "a"}'])
def test_invalid_row_names_file_and_line(evaluate, fold, tmp_path, line):
    fold.write_text(f"{fold.read_text()}\n{line}\n")
    with pytest.raises(ValueError, match=r"test.jsonl, line 6: expected a JSON object with `wav` and `emo`"):
        evaluate(str(ROOT / "hub" / "umons-mini"), fold, tmp_path)
