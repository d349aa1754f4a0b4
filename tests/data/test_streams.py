"""Streams of training rows from a folder of Parquet files."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
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
    values = (int(row[0][0].as_py()) for _, table in rows for row in table["audio_features"])
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


def read_batches(rows: RowStream, num_batches: int) -> list[dict]:
    loader = DataLoader(rows, batch_size=None, collate_fn=rows.collate, num_workers=rows.num_workers)
    batches = list(islice(loader, num_batches))
    for batch in batches:
        if batch:
            rows.record(batch)
    return batches


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("options", [{"buffer_size": 5}, {"process_index": 1, "num_processes": 2}, {"batch_size": 20}])
def test_loaded_state_continues_with_the_next_batch(folder, num_workers, options):
    """Batches of several passes; skipped ones are empty."""
    options["num_workers"] = num_workers
    expected = [batch["input_features"] for batch in read_batches(stream(folder, **options), 16)]
    assert expected[0].shape == (options.get("batch_size", 4), 3, 4)
    for num_before in (3,) if num_workers else range(16):
        first, second = stream(folder, **options), stream(folder, **options)
        read_batches(first, num_before)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        batches = read_batches(second, 16)
        assert batches[:num_before] == [{}] * num_before
        found = [batch["input_features"] for batch in batches[num_before:]]
        assert all(map(torch.equal, found, expected[num_before:]))
        assert first.state_dict() != second.state_dict()


def test_state_of_another_order_raises(folder):
    with pytest.raises(ValueError, match="with --dataloader_num_workers 2, not 0: resume with --dataloader_num_w"):
        stream(folder).load_state_dict(stream(folder, num_workers=2).state_dict())


def test_heads_are_the_first_rows(folder):
    heads = read_heads(open_stream(str(folder), None), 12)
    assert heads["train"]["segment_id"] == [str(i) for i in range(12)]
    assert heads["validation"]["segment_id"] == ["100", "101", "102"]


def test_stream_of_columns_reads_no_others(folder):
    rows = open_stream(str(folder), None, ["text", "sentiment"])["train"]
    assert rows.column_names == ["text", "sentiment"]
    table = next(iter(rows.with_format("arrow").iter(batch_size=4)))
    assert table.column_names == ["text", "sentiment"]


def test_stream_without_features_raises(folder):
    collator = UtteranceCollator(["video"], task=make_task("sentiment"))
    rows = open_stream(str(folder), None)["train"].remove_columns("video_features")
    with pytest.raises(ValueError, match=r"requires the columns video_features: extract features first"):
        RowStream(rows, collator, 4, 0, 5)
