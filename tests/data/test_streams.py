# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Streams of training rows from a folder of Parquet files."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from torch.utils.data import DataLoader

from modeling_umons import build_tokenizer
from modeling_umons.data.collator import UtteranceCollator
from modeling_umons.data.schema import make_features, to_table
from modeling_umons.data.streams import RowStream, open_stream, read_heads
from modeling_umons.tasks.task import make_task


NUM_ROWS = 30  # in three files; rows 4, 14 and 24 have no label


def write_parquet(folder: Path, split: str, first: int, num_rows: int) -> None:
    rows = [
        {
            "segment_id": str(i),
            "text": "good film",
            "audio_features": np.full((1 + i % 3, 4), i, np.float32),
            "sentiment": None if i % 10 == 4 else i / 10 - 1.5,
        }
        for i in range(first, first + num_rows)
    ]
    (folder / "data").mkdir(parents=True, exist_ok=True)
    Dataset(to_table(rows, make_features(4))).to_parquet(folder / "data" / f"{split}-{first // 10:05d}.parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stream")
    for first in (0, 10, 20):
        write_parquet(folder, "train", first, 10)
    write_parquet(folder, "validation", 100, 3)
    return folder


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def stream(folder: Path, **options) -> RowStream:
    collator = UtteranceCollator(
        ["text", "audio"], build_tokenizer(["good", "film"]), make_task("sentiment"), audio_size=4
    )
    options = {"batch_size": 4, "seed": 0, "buffer_size": 5, **options}
    return RowStream(open_stream(str(folder), None)["train"], collator, **options)


def take(rows: RowStream, num_rows: int) -> list[int]:
    """The first rows of a stream, by their features."""
    values = (int(row[0][0].as_py()) for table in rows for row in table["audio_features"])
    return list(islice(values, num_rows))


USABLE = [i for i in range(NUM_ROWS) if i % 10 != 4]


@pytest.mark.parametrize("buffer_size", [5, 1000])
def test_each_pass_has_each_usable_row_once(folder, buffer_size):
    rows = take(stream(folder, buffer_size=buffer_size), 2 * len(USABLE))
    first, second = rows[: len(USABLE)], rows[len(USABLE) :]
    assert sorted(first) == sorted(second) == USABLE
    assert first != second != USABLE
    assert rows == take(stream(folder, buffer_size=buffer_size), 2 * len(USABLE))
    assert rows != take(stream(folder, buffer_size=buffer_size, seed=1), 2 * len(USABLE))


@pytest.mark.parametrize("num_processes", [2, 3, 5])
def test_processes_share_files_or_rows(folder, num_processes):
    """Three files for two or three processes; five processes share the rows of each file."""
    shares = [stream(folder, process_index=i, num_processes=num_processes) for i in range(num_processes)]
    sizes = {2: [18, 9], 3: [9, 9, 9], 5: [5, 5, 6, 6, 5]}[num_processes]
    rows = [row for share, size in zip(shares, sizes, strict=True) for row in take(share, size)]
    assert sorted(rows) == USABLE


def test_batches_of_workers_are_those_of_the_collator(folder):
    rows = stream(folder)
    loader = DataLoader(rows, batch_size=None, collate_fn=rows.collator, num_workers=2)
    batches = list(islice(loader, 3))
    assert [len(batch["labels"]) for batch in batches] == [4, 4, 4]
    assert batches[0]["input_features"].shape[2] == 4


def test_heads_are_the_first_rows(folder):
    heads = read_heads(open_stream(str(folder), None), 12)
    assert heads["train"]["segment_id"] == [str(i) for i in range(12)]
    assert heads["validation"]["segment_id"] == ["100", "101", "102"]


def test_stream_without_features_raises(folder):
    collator = UtteranceCollator(["video"], task=make_task("sentiment"))
    rows = open_stream(str(folder), None)["train"].remove_columns("video_features")
    with pytest.raises(ValueError, match=r"requires the columns video_features: extract features first"):
        RowStream(rows, collator, 4, 0, 5)
