# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Batches from Parquet files: order, resuming, processes, damaged and hostile files."""

import json
import subprocess
import sys
from itertools import chain, islice, pairwise
from pathlib import Path

import fsspec
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch.utils.data import DataLoader

from modeling_umons.data.collator import UtteranceCollator
from modeling_umons.data.schema import make_features, to_table
from modeling_umons.data.stream import ParquetStream, find_rank
from modeling_umons.tasks.task import make_task


NUM_ROWS = 203
FEATURES = make_features(audio_size=4, video_size=3)


def make_table(begin: int, end: int, num_frames: int = 2) -> pa.Table:
    """Rows whose `segment` is their number; every fifth has no sentiment."""
    rows = [
        {
            "segment_id": f"v_{i}",
            "segment": i,
            "audio_features": np.full((1 + i % num_frames, 4), i, dtype=np.float32),
            "sentiment": None if i % 5 == 0 else 1.0,
        }
        for i in range(begin, end)
    ]
    return to_table(rows, FEATURES)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    """Three files of row groups of 10, the last of each smaller; one file has none."""
    folder = tmp_path_factory.mktemp("stream")
    bounds = (0, 95, 95, 96, NUM_ROWS)
    paths = [folder / f"{i}.parquet" for i in range(4)]
    for path, (begin, end) in zip(paths, pairwise(bounds), strict=True):
        pq.write_table(make_table(begin, end), path, row_group_size=10)
    return paths


def make_stream(files, **options) -> ParquetStream:
    return ParquetStream(
        files, **{"batch_size": 8, "window_rows": 35, "columns": ["segment", "audio_features"], **options}
    )


def numbers(batches) -> list[list[int]]:
    return [batch["segment"].to_pylist() for batch in batches]


def flat(batches) -> list[int]:
    return list(chain.from_iterable(numbers(batches)))


def test_file_order(files):
    batches = list(make_stream(files, shuffle=False))
    assert numbers(batches) == [list(range(i, min(i + 8, NUM_ROWS))) for i in range(0, NUM_ROWS, 8)]
    assert batches[0].column_names == ["segment", "audio_features"]
    assert pa.concat_tables(batches).equals(make_table(0, NUM_ROWS).select(["segment", "audio_features"]))
    assert make_stream(files, columns=None).columns == make_table(0, 1).column_names


@pytest.mark.parametrize("window_rows", [1, 35, 1000])
def test_shuffling(files, window_rows):
    stream = make_stream(files, window_rows=window_rows)
    assert len(stream) == 26
    first, second = flat(stream), flat(stream)
    assert sorted(first) == sorted(second) == list(range(NUM_ROWS))
    assert first != second
    # Far from sorted, even among the rows of each row group.
    assert abs(np.corrcoef(first, np.arange(NUM_ROWS))[0, 1]) < 0.5
    assert sum(b - a == 1 for a, b in pairwise(first)) < NUM_ROWS / 4

    stream.set_epoch(0)
    assert flat(stream) == first
    assert flat(make_stream(files, window_rows=window_rows)) == first
    assert flat(make_stream(files, window_rows=window_rows, seed=1)) != first
    # A row comes with its own features.
    for batch in stream:
        assert [row[0][0] for row in batch["audio_features"].to_pylist()] == batch["segment"].to_pylist()


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("rank", [0, 1])
def test_resuming_after_each_batch(files, shuffle, rank):
    options = {"shuffle": shuffle, "rank": rank, "world_size": 2}
    stream = make_stream(files, **options)
    whole, states = [], [stream.state_dict()]
    for batch in stream:
        whole.append(batch["segment"].to_pylist())
        states.append(stream.state_dict())
    following = numbers(stream)
    for i, state in enumerate(states):
        again = make_stream(files, **options)
        again.load_state_dict(json.loads(json.dumps(state)))
        assert numbers(again) == whole[i:]
        assert numbers(again) == following


def test_what_was_passed_is_not_read(files, monkeypatch):
    stream = make_stream(files)
    list(islice(stream, 20))
    again = make_stream(files)
    again.load_state_dict(stream.state_dict())
    read, original = [], ParquetStream._read
    monkeypatch.setattr(ParquetStream, "_read", lambda self, *where: (read.append(where), original(self, *where))[1])
    rest = flat(again)
    assert len(rest) == NUM_ROWS - 20 * 8
    assert sum(stop - start for _, start, stop in read) <= len(rest) + 35
    # While it goes on, state says where it is; a pass that was left begins anew.
    assert again.state_dict()["epoch"] == 1
    assert numbers(islice(again, 2)) == numbers(islice(again, 2))
    assert again.state_dict()["batches"] == 2


def test_set_epoch(files):
    """A trainer says which epoch it is, also of the one that a state was loaded of: the stream stays where it is."""
    stream = make_stream(files)
    whole = numbers(stream)
    state = {**stream.state_dict(), "epoch": 0, "batches": 20}
    stream.load_state_dict(state)
    stream.set_epoch(0)
    assert numbers(stream) == whole[20:]
    stream.load_state_dict(state)
    stream.set_epoch(1)
    assert len(numbers(stream)) == len(stream)


def test_a_state_of_another_stream(files):
    state = make_stream(files).state_dict()
    with pytest.raises(
        ValueError, match=r"state is of a stream with \{'batch_size': 8\}, this one has \{'batch_size': 4\}"
    ):
        make_stream(files, batch_size=4).load_state_dict(state)
    with pytest.raises(ValueError, match=r"'num_rows': 203.*'num_rows': 95"):
        make_stream(files[:1]).load_state_dict(state)
    with pytest.raises(ValueError, match=r"\{'files': '\w+'\}, this one has \{'files': '\w+'\}"):
        make_stream(files[::-1]).load_state_dict(state)
    with pytest.raises(ValueError, match=r"state lacks \['stream'\]"):
        make_stream(files).load_state_dict({"epoch": 0, "batches": 3})


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_processes_share_evenly(files, world_size, shuffle):
    streams = [make_stream(files, rank=rank, world_size=world_size, shuffle=shuffle) for rank in range(world_size)]
    given = [numbers(stream) for stream in streams]
    assert {tuple(map(len, batches)) for batches in given} == {tuple(map(len, given[0]))}  # sizes of batches, too
    assert {len(stream) for stream in streams} == {len(given[0])}
    rows = [row for batches in given for batch in batches for row in batch]
    assert set(rows) == set(range(NUM_ROWS))
    assert len(rows) - NUM_ROWS == streams[0].num_repeated < world_size
    if not shuffle:
        assert rows == [*range(NUM_ROWS), *range(streams[0].num_repeated)]


def test_more_processes_than_rows(tmp_path):
    pq.write_table(make_table(0, 5), tmp_path / "a.parquet")
    streams = [make_stream([tmp_path / "a.parquet"], rank=rank, world_size=4, shuffle=False) for rank in range(4)]
    assert [flat(stream) for stream in streams] == [[0, 1], [2, 3], [4, 0], [1, 2]]
    stream = make_stream([tmp_path / "a.parquet"], rank=7, world_size=8, shuffle=False)
    assert (flat(stream), stream.num_repeated) == ([2], 3)


def test_ranks_of_the_environment(monkeypatch, files):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert find_rank() == (0, 1)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert find_rank() == (1, 2)
    assert flat(make_stream(files, shuffle=False))[0] == 102


def test_usable_rows(files):
    """Rows without a label are passed over, and the processes are even nonetheless."""
    collator = UtteranceCollator(["audio"], task=make_task("sentiment"), audio_size=4)
    options = {"columns": [*collator.columns, "segment"], "usable": collator.usable_rows, "world_size": 2}
    streams = [make_stream(files, rank=rank, **options) for rank in range(2)]
    expected = [i for i in range(NUM_ROWS) if i % 5]
    assert streams[0].num_rows == len(expected)
    first = [numbers(stream) for stream in streams]
    assert sorted(chain.from_iterable(chain.from_iterable(first))) == expected
    again = make_stream(files, rank=1, **options)
    again.load_state_dict({**streams[1].state_dict(), "epoch": 0, "batches": 7})
    assert numbers(again) == first[1][7:]
    for batch in again:
        assert collator(batch)["labels"].tolist() == [1.0] * len(batch)
    with pytest.raises(ValueError, match=r"No row of 4 file\(s\) can be used; the first is "):
        make_stream(files, usable=lambda read: np.zeros(len(read(["segment"])), dtype=bool))
    with pytest.raises(ValueError, match=r"column\(s\) \['sentiment'\] are not among those that are read"):
        make_stream(files, usable=collator.usable_rows)


def test_loader(files):
    collator = UtteranceCollator(["audio"], audio_size=4)
    loader = DataLoader(make_stream(files, columns=collator.columns), batch_size=None, collate_fn=collator)
    assert len(loader) == 26
    batches = list(loader)
    assert [tuple(batch["input_features"].shape[::2]) for batch in batches] == [(8, 4)] * 25 + [(3, 4)]
    with pytest.raises(ValueError, match="give the DataLoader num_workers=0"):
        next(iter(DataLoader(make_stream(files), batch_size=None, num_workers=1)))


@pytest.fixture(scope="module")
def folder(files, tmp_path_factory) -> Path:
    """A data set of two configurations, one of them of fewer columns."""
    folder = tmp_path_factory.mktemp("dataset")
    for name in ("0", "3"):
        (folder / f"{name}.parquet").write_bytes((files[0].parent / f"{name}.parquet").read_bytes())
    configs = [
        {
            "config_name": "all",
            "default": True,
            "data_files": [{"split": "train", "path": ["0.parquet", "3.parquet"]}],
        },
        {
            "config_name": "small",
            "data_files": [{"split": "test", "path": "0.parquet"}],
            "columns": ["segment", "text"],
        },
    ]
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    return folder


def test_data_sets(folder):
    stream = ParquetStream.from_dataset(str(folder), shuffle=False)
    assert flat(stream) == [*range(95), *range(96, NUM_ROWS)]
    assert stream.columns == make_table(0, 1).column_names
    stream = ParquetStream.from_dataset(str(folder), "small", "test", batch_size=100)
    assert stream.columns == ["segment", "text"]
    assert sorted(flat(stream)) == list(range(95))
    assert ParquetStream.from_dataset(str(folder), "small", "test", columns=["text"]).columns == ["text"]
    with pytest.raises(ValueError, match=r"no split 'train' in the configuration 'small', only \['test'\]"):
        ParquetStream.from_dataset(str(folder), "small")


def test_data_sets_of_other_files(tmp_path):
    (tmp_path / "train.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"is no data set of Parquet files: .*train.csv"):
        ParquetStream.from_dataset(str(tmp_path))


def test_urls(files):
    memory = fsspec.filesystem("memory")
    memory.pipe("/stream/a.parquet", files[0].read_bytes())
    assert flat(make_stream(["memory://stream/a.parquet"], shuffle=False)) == list(range(95))
    with pytest.raises(FileNotFoundError, match=r"memory://stream/b.parquet: there is no such file"):
        make_stream(["memory://stream/b.parquet"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "cannot be read as Parquet"),
        (lambda data: b"a,b\n1,2\n" * 50, "cannot be read as Parquet"),
        (lambda data: data[: len(data) // 2], "cannot be read as Parquet"),
        (lambda data: data[:4] + bytes(len(data) // 3) + data[4 + len(data) // 3 :], "row group 0, is damaged"),
    ],
)
def test_damaged_files(files, tmp_path, damage, message):
    path = tmp_path / "damaged.parquet"
    path.write_bytes(damage(files[0].read_bytes()))
    with pytest.raises(OSError, match=rf"damaged.parquet.*{message}"):
        list(make_stream([path], shuffle=False))
    with pytest.raises(FileNotFoundError, match=r"none.parquet: there is no such file"):
        make_stream([files[0], tmp_path / "none.parquet"])


def test_row_groups_that_are_too_large(files, tmp_path):
    with pytest.raises(ValueError, match=r"0.parquet, row group 0, has 10 rows of \d+ bytes in all.*9 rows"):
        make_stream(files, max_row_group_rows=9)
    with pytest.raises(ValueError, match=r"0.parquet, row group 0, has 10 rows of \d+ bytes in all.* 100 bytes"):
        make_stream(files, max_row_group_bytes=100)
    # A few bytes in the file may stand for very many values; columns that nobody reads do not count.
    path = tmp_path / "bomb.parquet"
    flood = pa.array([[0.0] * 2**20], pa.list_(pa.float32()))
    pq.write_table(pa.table({"flood": flood, "segment": [1]}), path, compression="zstd")
    assert path.stat().st_size < 2**15
    assert flat(make_stream([path], columns=["segment"], max_row_group_bytes=2**20)) == [1]
    with pytest.raises(ValueError, match=r"bomb.parquet, row group 0, has 1 rows of 41\d{5} bytes"):
        make_stream([path], columns=["flood"], max_row_group_bytes=2**20)


@pytest.mark.parametrize("nested", [False, True])
def test_texts_that_a_file_has_once_for_many_rows(tmp_path, nested):
    path = tmp_path / "bomb.parquet"
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 1500), ["x" * 2**20])
    if nested:
        words = pa.StructArray.from_arrays([text], ["word"])
        text = pa.ListArray.from_arrays(pa.array([0, *range(0, 1500), 1500]), words)
    table = pa.table({"text": text, "segment": range(len(text))})
    pq.write_table(table, path, compression="zstd", store_schema=False)
    stream = ParquetStream(path, columns=["text"])  # one file may be given as it is
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(ValueError, match=r"bomb.parquet, row group 0, takes 15\d{8} bytes or more when its texts are"):
        next(iter(stream))
    assert pa.default_memory_pool().max_memory() < before + 2**27
    assert len(flat(ParquetStream(str(path), columns=["segment"]))) == len(text)
    # Texts that are many, but small in all, are measured and pass.
    pq.write_table(pa.table({"text": [f"{i:0100}" for i in range(1000)]}), path)
    assert len(next(iter(ParquetStream(path, max_row_group_bytes=2**20)))) == 32


def test_texts_that_repeat_what_was_before(tmp_path):
    path = tmp_path / "bomb.parquet"
    encoding = {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}
    pq.write_table(pa.table({"text": ["x" * 2**16] * 100}), path, **encoding)
    with pytest.raises(ValueError, match=r"bomb.parquet, row group 0, takes \d+ bytes or more"):
        next(iter(ParquetStream(path, max_row_group_bytes=2**20)))
    assert len(next(iter(ParquetStream(path)))) == 32


def test_files_that_do_not_belong_together(files, tmp_path):
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"text": ["good"], "segment": ["1"]}), path)
    with pytest.raises(ValueError, match=r"other.parquet has no column 'audio_features'.*columns are text, segment"):
        make_stream([*files, path], columns=["audio_features"])
    with pytest.raises(
        ValueError, match=r"other.parquet: the column segment is of the type string, but of int64 in .*0.par"
    ):
        make_stream([*files, path], columns=["segment"])
    with pytest.raises(ValueError, match=r"0.parquet has no column 'smell'"):
        make_stream(files, columns=["smell"])
    # Remarks on columns, and whether they may be null, are of no importance.
    schema = pa.schema([pa.field("segment", pa.int64(), nullable=False)], metadata={"written": "by another"})
    pq.write_table(pa.table({"segment": [1000]}, schema=schema), path)
    assert flat(make_stream([files[2], path], columns=["segment"], shuffle=False)) == [95, 1000]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 2, "world_size": 2}, r"rank is 2, expected 0 to 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"window_rows": 0}, "window_rows 0"),
        ({"files": []}, r"files are \[\]: give one at least"),
        ({"files": ["a", "a"]}, "none twice"),
    ],
)
def test_wrong_arguments(files, options, message):
    with pytest.raises(ValueError, match=message):
        make_stream(options.pop("files", files), **options)


def test_abandoned_streams_exit(files):
    """`break`, `next` and an iterator that is still there when the interpreter ends."""
    code = (
        "import sys, itertools; from modeling_umons.data.stream import ParquetStream\n"
        "stream = ParquetStream(sys.argv[1:], window_rows=10)\n"
        "for batch in stream: break\n"
        "next(iter(stream)); held = iter(stream); next(held); list(itertools.islice(stream, 2)); print('done')"
    )
    command = [sys.executable, "-W", "error", "-c", code, *map(str, files)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (process.returncode, process.stdout, process.stderr) == (0, "done\n", "")


def test_memory_stays(tmp_path):
    """32 MB of rows in row groups of 1 MB: what is held is a few of them, whichever it is that is read."""
    table = make_table(0, 128, num_frames=1)
    frames = np.random.default_rng(0).random((128, 4 * 512), dtype=np.float32)
    table = table.set_column(
        7, "audio_features", pa.FixedSizeListArray.from_arrays(pa.array(frames.reshape(-1)), 2048)
    )
    path = tmp_path / "large.parquet"
    with pq.ParquetWriter(path, table.schema, use_dictionary=False) as writer:
        for _ in range(32):
            writer.write_table(table)
    stream = make_stream([path], columns=None, window_rows=128)
    process, held, resident = psutil.Process(), [], []
    for _ in range(3):
        for i, batch in enumerate(stream):
            assert batch.num_rows == 8
            if i % 64 == 63:
                held.append(pa.total_allocated_bytes())
                resident.append(process.memory_info().rss)
    size = 32 * frames.nbytes
    assert max(held) < size / 4
    assert max(resident[8:]) - resident[8] < size / 2
