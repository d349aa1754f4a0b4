"""Augmentation of waveforms in training: log-mel features computed from distorted audio, and resumed runs."""

import shutil
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from call_command import call
from datasets import Dataset
from safetensors.torch import load_file

from modeling_umons import UmonsConfig, UmonsProcessor
from modeling_umons.cli import train
from modeling_umons.data.arguments import DataArguments
from modeling_umons.data.collator import ArrowRows, DrawnRows
from modeling_umons.data.rows import make_collator, usable_rows
from modeling_umons.data.waveforms import WaveformAugmentation
from modeling_umons.models.umons.feature_extraction_umons import UmonsFeatureExtractor
from modeling_umons.models.umons.tokenization_umons import build_tokenizer
from modeling_umons.models.umons.video_processing_umons import UmonsVideoProcessor
from modeling_umons.tasks.task import make_task


RATE = 16000


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """Table of ten tones with noise, two of them for validation, and a row without audio."""
    folder = tmp_path_factory.mktemp("tones")
    random, lines = np.random.default_rng(0), ["file_name,text,sentiment,split"]
    for i in range(10):
        time = np.arange(RATE * (1 + i % 3)) / RATE
        samples = 0.3 * np.sin(2 * np.pi * (300 + 100 * i) * time) + 0.01 * random.normal(size=len(time))
        with wave.open(str(folder / f"{i}.wav"), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes((samples * 32767).astype("<i2").tobytes())
        lines.append(f"{i}.wav,fine,{i % 2},{'train' if i < 8 else 'validation'}")
    (folder / "metadata.csv").write_text("\n".join([*lines, ",fine,1,train"]), encoding="utf-8")
    return folder / "metadata.csv"


def make_rows(table: Path, augmentation: WaveformAugmentation | None):
    processor = UmonsProcessor(build_tokenizer(["fine"]), UmonsFeatureExtractor(), UmonsVideoProcessor())
    config = UmonsConfig(modalities=["text", "audio"], vocab_size=9, num_labels=1, problem_type="regression")
    rows = Dataset.from_csv(str(table))
    rows = rows.map(lambda row: {"file_name": row["file_name"] and str(table.parent / row["file_name"])})
    collator = make_collator(processor, config, make_task("sentiment"), rows.column_names, augmentation)
    return usable_rows(rows, collator, processor, DataArguments())[0], collator


def test_batches_are_augmented_by_row_and_epoch(table):
    stored, plain = make_rows(table, None)
    rows, collator = make_rows(table, WaveformAugmentation(1.0, seed=1))
    assert "audio_features" in stored.column_names
    # Without draws, features are those of the files, also of the row without audio.
    batch, expected = (c(ArrowRows(r)[:]) for r, c in ((rows, collator), (stored, plain)))
    assert batch.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(batch[name], values)

    drawn = DrawnRows(rows)
    first, again = collator(drawn[:]), collator(drawn[:])
    assert torch.equal(first["input_features"], again["input_features"])
    assert first["input_features_mask"][-1].sum() == 0
    assert not torch.equal(first["input_features"][0, 0], batch["input_features"][0, 0])
    drawn.set_epoch(1)
    assert not torch.equal(collator(drawn[[0]])["input_features"][0, 0], first["input_features"][0, 0])


def test_augmentation_of_extracted_features_raises(table):
    processor = UmonsProcessor(build_tokenizer(["fine"]), UmonsFeatureExtractor(), UmonsVideoProcessor())
    for config, columns in (
        (UmonsConfig(modalities=["text"], vocab_size=9), ["text", "file_name"]),
        (UmonsConfig(vocab_size=9), ["text", "audio_features"]),
    ):
        with pytest.raises(ValueError, match="--waveform_augmentation requires a model of utterances with audio"):
            make_collator(processor, config, None, columns, WaveformAugmentation(0.5))


def test_resumed_run_draws_the_same_augmentation(table, tmp_path, monkeypatch):
    augment, draws = WaveformAugmentation.__call__, []

    def record(self, waveform, draw, *arguments):
        draws.append(draw)
        return augment(self, waveform, draw, *arguments)

    monkeypatch.setattr(WaveformAugmentation, "__call__", record)
    options = [
        "--train_file", table, "--task", "sentiment", "--label_range", -3, 3,
        "--word_embedding_size", 4, "--hidden_size", 8,
        "--intermediate_size", 8, "--num_hidden_layers", 1, "--num_attention_heads", 1, "--waveform_augmentation", 0.8,
        "--standardize_features", "true", "--num_train_epochs", 3, "--per_device_train_batch_size", 2,
        "--save_strategy", "steps", "--save_steps", 2, "--save_total_limit", 9, "--eval_strategy", "no",
        "--load_best_model_at_end", "false", "--disable_tqdm", "true", "--report_to", "none", "--use_cpu", "true",
    ]  # fmt: skip
    call(train.main, *options, "--output_dir", tmp_path / "whole")
    assert len(set(draws)) == 3 * 8  # epochs, rows with audio
    checkpoint = tmp_path / "part" / "checkpoint-8"  # within the second epoch of five steps
    shutil.copytree(tmp_path / "whole" / "checkpoint-8", checkpoint)
    part = ["--output_dir", tmp_path / "part", "--resume_from_checkpoint", checkpoint]
    call(train.main, *options, *part, "--dataloader_num_workers", 1)
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "part"))
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())
