# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""The training data of umons-mini: whose rows are where, and which of them have words and a voice."""

import pickle

import pytest

from modeling_umons.data.layouts import open_source


@pytest.fixture(scope="module")
def source(shared):
    return open_source("mini", shared / "data")


@pytest.mark.shared
def test_no_video_is_in_two_splits(source):
    counts = {split: len(names) for split, names in source.segments.items()}
    assert counts == {"train": 13203, "validation": 1905, "test": 3870}
    videos = {
        split: {name.rpartition("_" if name.startswith("mosi/") else "[")[0] for name in names}
        for split, names in source.segments.items()
    }
    assert not videos["train"] & videos["validation"]
    assert not videos["train"] & videos["test"]
    assert not videos["validation"] & videos["test"]


@pytest.mark.shared
def test_words_and_voices(source):
    """A row that was held out has one of both; the words of a third of training have a calm voice beside them."""
    copy = pickle.loads(pickle.dumps(source))  # as a worker process has it
    for split, count in (("train", 1), ("test", 0)):
        texts = [name for name in copy.segments[split] if name.startswith("mosei/")][:30]
        rows = [copy.read(split, name) for name in texts]
        assert all(row["text"] and row["source"] == "mosei" for row in rows)
        heard = [row.get("audio_features") is not None for row in rows]
        assert heard == [bool(count) and row["segment"] % 3 == 0 for row in rows]
    voices = [name for name in copy.segments["test"] if name.startswith("ravdess/")][:4]
    for row in (copy.read("test", name) for name in voices):
        assert row["text"] is None
        assert row["audio_features"].shape[1] == 80


@pytest.mark.shared
def test_some_of_the_sources(shared):
    texts = open_source("mini", shared / "data", sources=["mosi", "mosei"])
    assert {split: len(names) for split, names in texts.segments.items()} == {
        "train": 1284 + 1090, "validation": 229 + 387, "test": 686 + 394,
    }  # fmt: skip
    assert all(texts.read("train", name).get("audio_features") is None for name in texts.segments["train"][::40])
    with pytest.raises(ValueError, match="The sources are iemocap; there are mosi, mosei, meld, ravdess"):
        open_source("mini", shared / "data", sources=["iemocap"])
    with pytest.raises(ValueError, match="max_length applies to audio"):
        open_source("mini", shared / "data", sources=["mosi"], max_length=80)
