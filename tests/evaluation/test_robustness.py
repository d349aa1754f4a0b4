"""Robustness of models to distorted recordings."""

import json
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from call_command import call

from modeling_umons import (
    UmonsConfig,
    UmonsFeatureExtractor,
    UmonsForSequenceClassification,
    UmonsProcessor,
    UmonsVideoProcessor,
    build_tokenizer,
)
from modeling_umons.cli import evaluate
from modeling_umons.evaluation.robustness import CONDITIONS
from modeling_umons.tasks.task import make_task


RATE = 16000


def save_model(folder: Path, task, modalities=("text", "audio"), **extractor) -> str:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(["fine"])
    config = UmonsConfig(
        modalities=list(modalities), vocab_size=len(tokenizer), word_embedding_size=4, hidden_size=8,
        intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, initializer_factor=3.0,
        **task.config_options(),
    )  # fmt: skip
    UmonsForSequenceClassification(config).save_pretrained(folder)
    UmonsProcessor(tokenizer, UmonsFeatureExtractor(**extractor), UmonsVideoProcessor()).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """Table of twenty-four voices of two speakers, happy if they are high, and a row without audio."""
    folder = tmp_path_factory.mktemp("voices")
    lines, random = (
        ["file_name,text,speaker,video_id,happy,sad,anger,surprise,disgust,fear,mood"],
        np.random.default_rng(0),
    )
    for i in range(24):
        time = np.arange(RATE // 2) / RATE
        pitch = (600 if i % 2 else 150) + 20 * random.normal()
        tone = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 6))
        samples = 0.1 * tone * (np.sin(2 * np.pi * 4 * time) > -0.5) + 0.001 * random.normal(size=len(time))
        with wave.open(str(folder / f"{i}.wav"), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes((samples * 32767).astype("<i2").tobytes())
        speaker = f"s{i // 12}"
        lines.append(f"{i}.wav,fine,{speaker},{speaker},{i % 2},{(i + 1) % 2},0,0,0,0,{'high' if i % 2 else 'low'}")
    lines.append(",fine,s1,s1,1,0,0,0,0,0,low")
    (folder / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder / "metadata.csv"


def test_normalized_level_removes_shift_over_level(table, tmp_path, capsys):
    shifts = {}
    for name in (True, False):
        model = save_model(tmp_path / str(name), make_task("emotion"), normalize_level=name)
        output = tmp_path / f"out-{name}"
        options = ("--split", "train", "--num_bootstrap", 20, "--robustness", "--group_by", "speaker", "length")
        call(evaluate.main, "--model", model, "--dataset", table, "--output", output, *options)
        report = json.loads((output / "robustness.json").read_text(encoding="utf-8"))
        shifts[name] = [record["shift"] for record in report["conditions"] if record["kind"] == "level, dB"]
    assert report["rows"] == 24
    assert report["metric"] == "emotion_auroc"
    assert [record["kind"] for record in report["conditions"]] == [condition.kind for condition in CONDITIONS]
    speakers = report["by_column"]["speaker"]["groups"]
    assert {group["rows"] for group in speakers.values()} == {12}
    assert list(report["by_column"]["length"]["groups"]) == ["1"]
    assert report["by_column"]["speaker"]["worst"] == {"emotion_auroc": next(iter(speakers))}
    scores = [report["clean"], *report["conditions"]]
    assert all(record["interval"][0] <= record["score"] <= record["interval"][1] for record in scores)
    assert np.mean(shifts[True]) < 0.2 * np.mean(shifts[False])
    assert 0.01 < np.mean(shifts[False]) < 1  # of probabilities
    assert "| speaker | rows | emotion_auroc |" in capsys.readouterr().out
    assert (output / "robustness.png").stat().st_size > 1000
    assert "| cut, s: 0.5 |" in (output / "robustness.md").read_text(encoding="utf-8")


def test_classes_have_balanced_accuracy(table, tmp_path):
    model = save_model(tmp_path / "model", make_task("classification", "mood", ["high", "low"]), ["audio"])
    call(evaluate.main, "--model", model, "--dataset", table, "--output", tmp_path / "out", "--label_column", "mood",
         "--split", "train", "--num_bootstrap", 20, "--robustness")  # fmt: skip
    report = json.loads((tmp_path / "out" / "robustness.json").read_text(encoding="utf-8"))
    assert report["metric"] == "balanced_accuracy"
    assert 0 <= report["clean"]["score"] <= 1


def test_models_and_tables_without_audio_raise(table, tmp_path):
    text = save_model(tmp_path / "text", make_task("emotion"), ["text"])
    both = save_model(tmp_path / "both", make_task("emotion"))
    words = "text,happy,sad,anger,surprise,disgust,fear\nfine,1,0,0,0,0,0\nfine,0,1,1,1,1,1\n"
    (tmp_path / "words.csv").write_text(words)
    options = ("--output", tmp_path / "out", "--split", "train", "--num_bootstrap", 5, "--robustness")
    for models, data, message in (
        ([text], table, "--robustness requires a model with audio"),
        ([both], tmp_path / "words.csv", "--robustness requires audio files, but there is no column 'file_name'"),
        ([both, text], table, "--robustness measures a single model"),
    ):
        with pytest.raises(SystemExit, match=message):
            call(evaluate.main, "--model", *models, "--dataset", data, *options)
