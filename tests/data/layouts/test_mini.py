"""Training data of umons-base and umons-mini: splits, and what each corpus says about the emotions."""

import pickle

import pytest

from modeling_umons.data.layouts import open_source
from modeling_umons.data.layouts.mini import clean_text, present_emotions


NONE = dict.fromkeys(("happy", "sad", "anger", "surprise", "disgust", "fear"), 0.0)


def test_text_is_cleaned():
    assert clean_text("^ It\u2019s \u201cfine\u201d", "mosei/a[0]") == 'It\'s "fine"'
    masked = clean_text("[NAME] and [NAME] left [RELIGION]", "goemotions/a")
    assert "[" not in masked
    assert masked.endswith("left religion")
    assert masked == clean_text("[NAME] and [NAME] left [RELIGION]", "goemotions/a")


def test_mosei_intensities_become_probabilities():
    row = present_emotions("mosei", {**NONE, "happy": 2.0, "sad": 1 / 3, "sentiment": 1.0})
    assert (row["happy"], row["sad"], row["anger"], row["neutral"]) == (1.0, 1 / 3, 0.0, 0.0)
    assert present_emotions("mosei", {**NONE, "sentiment": 0.5})["neutral"] == 1.0
    assert present_emotions("mosei", {**NONE, "sentiment": 2.0})["neutral"] is None
    assert set(present_emotions("mosi", {"sentiment": 2.0}).values()) == {None}


def test_weak_labels_of_goemotions_leave_room_for_neutral():
    row = present_emotions("goemotions", {**NONE, "surprise": 1.0, "labels": "curiosity"})
    assert row["surprise"] == pytest.approx(0.3)
    assert row["neutral"] == pytest.approx(0.7)
    row = present_emotions("goemotions", {**NONE, "sad": 1.0, "labels": "grief,neutral"})
    assert (row["sad"], row["neutral"]) == (1.0, 0.5)


@pytest.fixture(scope="module")
def source(shared):
    return open_source("mini", shared / "data", sources=["mosei", "mosi", "goemotions", "meld"])


@pytest.mark.shared
def test_corpora_keep_their_splits(source):
    counts = {split: len(names) for split, names in source.segments.items()}
    assert counts == {"train": 70932, "validation": 8635, "test": 8723}
    assert not any(name.startswith("mosei/") for name in source.segments["test"])


@pytest.mark.shared
def test_rows_have_text_and_probabilities(source):
    copy = pickle.loads(pickle.dumps(source))  # as a worker process has it
    for split in ("train", "validation"):
        for name in copy.segments[split][::500]:
            row = copy.read(split, name)
            assert row["text"]
            assert row["source"] == name.partition("/")[0] == row["video_id"].partition("/")[0]
            assert all(row[label] is None or 0 <= row[label] <= 1 for label in (*NONE, "neutral"))


@pytest.mark.shared
def test_unknown_source_raises(shared):
    with pytest.raises(ValueError, match="The sources are iemocap; there are mosei, mosi, goemotions, meld"):
        open_source("mini", shared / "data", sources=["iemocap"])


@pytest.mark.shared
def test_voices_are_alone_and_next_to_words(shared):
    sources = ["goemotions", "meld", "emodb"]
    source = open_source("mini", shared / "data", sources=sources, voices_only=True, keep_audio=True)
    assert set(source.features) >= {"audio", "neutral", "sentiment", "source"}
    alone = [name for name in source.segments["train"] if "+" not in name]
    assert len(source.segments["train"]) == 3 * len(alone)
    assert not any("+" in name for name in source.segments["validation"])
    labels = (*NONE, "neutral")
    for name in alone[::5]:
        voice, *pairs = (source.read("train", f"{name}{end}") for end in ("", "+1", "+2"))
        assert voice["text"] is None
        assert all(pair["text"] and pair["audio"] == voice["audio"] for pair in pairs)
        strongest = max(labels, key=lambda label: voice[label])
        if strongest != "neutral":
            assert all(max(labels, key=lambda label, pair=pair: pair[label]) == strongest for pair in pairs)


@pytest.mark.shared
def test_options_of_voices_require_a_voice(shared):
    with pytest.raises(ValueError, match="voices_only applies to audio"):
        open_source("mini", shared / "data", sources=["mosi"], voices_only=True)
