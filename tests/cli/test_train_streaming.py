"""`umons train --streaming true`."""

import json
from pathlib import Path

import numpy as np
import pytest
from call_command import call
from datasets import Dataset
from safetensors.torch import load_file

from modeling_umons.cli import train
from modeling_umons.data.schema import make_features, to_table


WORDS = {"good": 1.0, "fine": 0.5, "bad": -1.0, "so": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Parquet files of 40, 40 and 16 rows, whose sentiment is the sum of their words."""
    folder, random = tmp_path_factory.mktemp("words"), np.random.default_rng(0)
    (folder / "data").mkdir()
    for split, num_rows in (("train-0", 40), ("train-1", 40), ("validation-0", 16)):
        texts = random.choice(list(WORDS), (num_rows, 3)).tolist()
        rows = [
            {"segment_id": f"{split}-{i}", "text": " ".join(text), "sentiment": sum(map(WORDS.get, text))}
            for i, text in enumerate(texts)
        ]
        Dataset(to_table(rows, make_features())).to_parquet(folder / "data" / f"{split}.parquet")
    return folder


@pytest.fixture
def run(folder, monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    values = {
        "dataset_name": folder, "streaming": "true", "streaming_buffer": 16, "task": "sentiment", "modalities": "text",
        "word_embedding_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 2, "learning_rate": 0.01, "per_device_train_batch_size": 8, "eval_strategy": "steps",
        "save_strategy": "steps", "eval_steps": 10, "save_steps": 10, "logging_strategy": "steps",
        "logging_steps": 5, "report_to": "none",
    }  # fmt: skip

    def main(**options):
        call(train.main, *(word for name, value in (values | options).items() for word in (f"--{name}", value)))

    return main


def test_stream_trains_and_resumes_bit_exactly(run, tmp_path):
    run(max_steps=30, output_dir=tmp_path / "whole")
    report = json.loads((tmp_path / "whole" / "report" / "report.json").read_text())
    losses = [entry["loss"] for entry in report["history"] if "loss" in entry]
    assert losses[-1] < 0.5 * losses[0]
    run(max_steps=20, output_dir=tmp_path / "parts")
    run(max_steps=30, output_dir=tmp_path / "parts", resume_from_checkpoint="last")
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(whole[name].equal(parts[name]) for name in whole)
    assert "16 validation rows" in (tmp_path / "whole" / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": -1}, "requires --max_steps"),
        ({"train_sampling_strategy": "group_by_length"}, "does not support --train_sampling_strategy group_by_length"),
        ({"repeat": "mosi=2"}, "does not support --repeat"),
        ({"ignore_data_skip": True}, "does not support --ignore_data_skip"),
    ],
)
def test_stream_refuses_options(run, tmp_path, options, message):
    with pytest.raises(SystemExit, match=message):
        run(output_dir=tmp_path / "run", **{"max_steps": 5, **options})
