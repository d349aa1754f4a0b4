"""Builders over a source: streamed, prepared, in other processes, and what a bad row does."""

import logging
import os
import pickle
import re

import numpy as np
import pytest
import torch
from datasets import ClassLabel, List
from datasets.exceptions import DatasetGenerationError

from modeling_umons.data import MeldBuilder, MoseiBuilder, MosiBuilder, RavdessBuilder
from modeling_umons.data.builders import builder_class
from modeling_umons.data.layouts import LAYOUTS
from modeling_umons.models.umons.configuration_umons import EMOTIONS


pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture
def build(tiny_source, tmp_path):
    def build(config_name=None, **options):
        options = {"layout": "labels", "data_dir": str(tmp_path), "cache_dir": str(tmp_path / "cache"), **options}
        return MoseiBuilder(config_name=config_name, **options)

    return build


def test_stream(build, tiny_source, tmp_path):
    source = tiny_source(tmp_path)
    stream = build().as_streaming_dataset()
    assert list(stream) == ["train", "test"]  # the validation split has no segment
    rows = list(stream["train"])
    assert [row["segment_id"] for row in rows] == source.segments["train"]
    assert set(rows[0]) == set(source.features)
    for row, segment_id in zip(rows, source.segments["train"], strict=True):
        expected = dict.fromkeys(source.features) | source.read("train", segment_id)
        for name in ("audio_features", "video_features"):
            if expected[name] is not None:
                np.testing.assert_array_equal(np.float32(row.pop(name)), expected.pop(name))
        assert row == expected


@pytest.mark.parametrize("config_name", ["all", "emotion", "sentiment-7", "sentiment-2", "sentiment"])
def test_prepared_equals_streamed(build, config_name):
    builder = build(config_name, shard_size=5)
    builder.download_and_prepare()
    prepared = builder.as_dataset()
    streamed = builder.as_streaming_dataset()
    assert list(prepared) == list(streamed) == ["train", "test"]
    for split, stream in streamed.items():
        assert prepared[split].features == stream.features
        assert list(prepared[split]) == list(stream)


def test_class_columns(build):
    emotion = build("emotion").as_streaming_dataset(split="train")
    assert emotion.features["emotions"] == List(ClassLabel(names=list(EMOTIONS)))
    by_id = {row["segment_id"]: row for row in emotion}
    assert by_id["train_0[0]"]["emotions"] is None
    present = [i for i, name in enumerate(EMOTIONS) if by_id["train_1[1]"][name] > 0]
    assert by_id["train_1[1]"]["emotions"] == present == [0, 4]
    seven = build("sentiment-7").as_streaming_dataset(split="train")
    classes = {row["segment_id"]: (row["sentiment"], row["sentiment_7"]) for row in seven}
    assert classes["train_1[1]"] == (-1.0, 2)
    assert classes["train_0[0]"] == (None, None)
    assert "emotions" not in seven.features


def test_several_processes(build):
    builder = build("emotion", shard_size=5)
    streamed = list(builder.as_streaming_dataset(split="train"))
    builder.download_and_prepare(num_proc=2)
    assert list(builder.as_dataset(split="train")) == streamed
    assert builder.as_dataset(split="test").num_rows == 7


def test_processes_do_not_wait_for_threads_of_torch(build, tiny_source, monkeypatch):
    def read(self, split, segment_id, read=tiny_source.read):
        return read(self, split, segment_id) | {"text": str(torch.get_num_threads())}

    monkeypatch.setattr(tiny_source, "read", read)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    builder = build(shard_size=5)
    builder.download_and_prepare(num_proc=2)
    assert set(builder.as_dataset(split="train")["text"]) == {"1"}
    assert {row["text"] for row in builder.as_streaming_dataset(split="train")} == {"2"}
    torch.set_num_threads(before)


def test_shards_of_a_stream(build):
    stream = build(shard_size=5).as_streaming_dataset(split="train")
    assert stream.num_shards == 7
    halves = [list(stream.shard(2, i)) for i in range(2)]
    assert sorted(row["segment_id"] for half in halves for row in half) == sorted(row["segment_id"] for row in stream)


def test_pickled_builder_drops_its_source(build):
    builder = build("sentiment-2")
    assert builder.source.segments
    copy = pickle.loads(pickle.dumps(builder))
    assert "source" not in vars(copy)
    assert list(copy.as_streaming_dataset(split="test")) == list(builder.as_streaming_dataset(split="test"))


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("text.p, train_1[0]: no words"), ValueError, "train, train_1[0]: text.p, train_1[0]: no words"),
        (OSError("a.mp4: damaged"), OSError, "train, train_1[0]: a.mp4: damaged"),
        (KeyError("data"), ValueError, "train, train_1[0]: KeyError: 'data'"),
    ],
)
def test_bad_row_raises(build, tiny_source, error, kind, message):
    tiny_source.bad["train_1[0]"] = error
    with pytest.raises(kind) as raised:
        list(build().as_streaming_dataset(split="train"))
    assert str(raised.value) == f'{message} (on_bad_rows="warn" skips such rows)'
    with pytest.raises(DatasetGenerationError) as raised:
        build().download_and_prepare()
    assert message in str(raised.value.__cause__)


def test_bad_rows_are_left_out_with_a_warning(build, tiny_source, caplog):
    tiny_source.bad |= {"train_1[0]": ValueError("no words"), "train_1[2]": OSError("damaged")}
    rows = list(build(on_bad_rows="warn").as_streaming_dataset(split="train"))
    assert len(rows) == 31
    assert [record.getMessage() for record in caplog.records if "Left out" in record.getMessage()] == [
        "Left out: train, train_1[0]: no words",
        "Left out: train, train_1[2]: damaged",
    ]


def test_bad_rows_are_skipped(build, tiny_source, caplog):
    tiny_source.bad |= {f"test_{i // 3}[{i % 3}]": ValueError("no words") for i in range(7)}
    builder = build(on_bad_rows="skip")
    assert list(builder.as_streaming_dataset(split="test")) == []
    builder.download_and_prepare()
    assert builder.as_dataset(split="train").num_rows == 33
    with pytest.raises(ValueError, match='"test" corresponds to no data'):  # as `datasets` has it of any empty split
        builder.as_dataset(split="test")
    assert not any("no words" in record.getMessage() for record in caplog.records)


def test_row_with_wrong_type_raises_only_for_itself(build, tiny_source, monkeypatch, caplog):
    def read(self, split, segment_id, read=tiny_source.read):
        row = read(self, split, segment_id)
        return row | {"audio_features": np.zeros((2, 4), np.float32)} if segment_id == "train_1[0]" else row

    monkeypatch.setattr(tiny_source, "read", read)
    rows = list(build(on_bad_rows="warn").as_streaming_dataset(split="train"))
    assert len(rows) == 32
    assert "train_1[0]: audio_features has the shape (2, 4), expected (frames, 3)" in caplog.text
    assert "the row does not fit the columns" in caplog.text


def test_overflowing_number_raises_only_for_its_row(build, tiny_source, monkeypatch, caplog, tmp_path):
    def read(self, split, segment_id, read=tiny_source.read):
        row = read(self, split, segment_id)
        return row | {"segment": 10**20} if segment_id == "train_1[0]" else row

    monkeypatch.setattr(tiny_source, "read", read)
    assert len(list(build(on_bad_rows="warn").as_streaming_dataset(split="train"))) == 32
    assert f"train_1[0]: {tmp_path}: the row does not fit the columns: OverflowError: " in caplog.text


def test_left_out_segments_warn_once(build, tmp_path, caplog):
    builder = build()
    builder.as_streaming_dataset()
    builder.as_streaming_dataset()
    (record,) = [record for record in caplog.records if "in no split" in record.getMessage()]
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(
        f"{tmp_path}: 6 segments are in no split: stray[0] (its video is in no split)"
    )
    assert record.getMessage().endswith(", ...")


def test_cache_follows_changed_files(mosi_folder, tmp_path):
    def build(**options):
        return MosiBuilder(data_dir=str(mosi_folder), on_bad_rows="skip", cache_dir=str(tmp_path / "cache"), **options)

    builder = build()
    builder.download_and_prepare()
    assert builder.as_dataset(split="test").num_rows == 8
    assert build().cache_dir == builder.cache_dir
    table = mosi_folder / "mosi.csv"
    table.write_text(table.read_text() + "video9_9,test,0,new\n")
    changed = build()
    changed.download_and_prepare()
    assert changed.as_dataset(split="test").num_rows == 9
    os.utime(table, ns=(0, 0))  # another time of change, with all else the same
    assert build().cache_dir not in (builder.cache_dir, changed.cache_dir)
    assert build(config_name="sentiment").cache_dir != build().cache_dir


def test_cache_follows_files_in_options(tiny_source, tmp_path):
    (tmp_path / "source").mkdir()
    weights = tmp_path / "tower.pt"
    weights.write_text("weights")

    def cache_dir() -> str:
        options = {"tower_weights": str(weights), "model": None}
        return MoseiBuilder(layout="folder", data_dir=str(tmp_path / "source"), options=options).cache_dir

    before = cache_dir()
    assert cache_dir() == before
    weights.write_text("others!")
    os.utime(weights, ns=(0, 0))
    assert cache_dir() != before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"layout": "mosi"},
            "MoseiBuilder has no layout 'mosi': pass layout= as one of umons, csd, mmsa, folder, labels",
        ),
        ({"layout": None}, "MoseiBuilder has no layout None"),
        ({"on_bad_rows": "ignore"}, "on_bad_rows is 'ignore'"),
        ({"shard_size": 0}, "shard_size is 0"),
        ({"data_dir": None}, "requires data_dir="),
        ({"options": {"smell": 1}}, "layout labels does not take the option(s) smell; it takes none"),
        ({"config_name": "smell"}, "'smell' not found. Available"),
    ],
)
def test_wrong_arguments_raise(build, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build(**options)


def test_source_without_segments_raises(build, tiny_source, monkeypatch):
    monkeypatch.setattr(tiny_source, "segments", {"train": []})
    with pytest.raises(ValueError, match="there is no segment in it"):
        build().as_streaming_dataset()


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        MosiBuilder(data_dir=str(tmp_path / "nowhere"))


def test_every_layout_has_a_builder():
    assert all(layout in builder_class(layout).LAYOUTS for layout in LAYOUTS)
    assert {builder_class(layout) for layout in ("umons", "csd", "mmsa", "labels")} == {MoseiBuilder}
    assert builder_class("folder").PRETTY_NAME == "Clips"
    assert [builder_class(layout) for layout in ("mosi", "meld", "ravdess")] == [
        MosiBuilder,
        MeldBuilder,
        RavdessBuilder,
    ]
    with pytest.raises(ValueError, match="Unknown layout 'smell'"):
        builder_class("smell")


@pytest.mark.shared
def test_mosi(shared, tmp_path):
    stream = MosiBuilder(config_name="sentiment-7", data_dir=str(shared / "data" / "mosi"), cache_dir=str(tmp_path))
    assert {split: len(list(rows)) for split, rows in stream.as_streaming_dataset().items()} == {
        "train": 1284,
        "validation": 229,
        "test": 686,
    }
