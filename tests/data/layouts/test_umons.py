"""The published implementation's pickles: every value, and broken files in words."""

import pickle
import tracemalloc

import numpy as np
import pytest

from modeling_umons.data.layouts import open_source
from modeling_umons.data.layouts.arrays import to_emotions
from modeling_umons.data.layouts.umons import UmonsPickles
from modeling_umons.data.safe_pickle import read_pickle


EMOTIONS = ("happy", "sad", "anger", "surprise", "disgust", "fear")


def test_every_value(umons_folder):
    source = open_source("umons", umons_folder)
    assert source.segments == {
        "train": ["-3g5yACwYnA[0]", "-3g5yACwYnA[1]"],
        "validation": ["wF8980oGklk[13]"],
        "test": ["-6rXp3zJ3kc[0]"],
    }
    assert list(source.segments) == ["train", "validation", "test"]
    assert source.left_out == {}
    assert source.features["audio_features"].feature.length == 4
    row = source.read("train", "-3g5yACwYnA[1]")
    frames = row.pop("audio_features")
    assert frames.dtype == np.float32
    assert frames.tolist() == (np.arange(12).reshape(3, 4) - 1).tolist()
    assert row == {
        "segment_id": "-3g5yACwYnA[1]", "video_id": "-3g5yACwYnA", "segment": 1, "text": "That's fine",
        "words": [{"word": "That's", "start": None, "end": None}, {"word": "fine", "start": None, "end": None}],
        "sentiment": 0.5, "happy": 0.5, "sad": 0, "anger": 0, "surprise": 0, "disgust": 1, "fear": 3,
    }  # fmt: skip
    assert source.read("validation", "wF8980oGklk[13]")["segment"] == 13


@pytest.mark.shared
def test_real_files(shared):
    folder = shared / "golden" / "original" / "MOSEI"
    source = UmonsPickles(folder)
    assert {split: len(names) for split, names in source.segments.items()} == {
        "train": 48, "validation": 16, "test": 16,
    }  # fmt: skip
    assert source.features["audio_features"].feature.length == 80
    for split, name in (("train", "train"), ("validation", "valid"), ("test", "test")):
        words, mels, sentiment, emotion = (
            read_pickle(folder / f"{name}_{part}.p") for part in ("sentences", "mels", "sentiment", "emotion")
        )
        assert source.segments[split] == list(words)
        for segment_id in source.segments[split]:
            row = source.read(split, segment_id)
            assert row["text"].split(" ") == [word["word"] for word in row["words"]] == words[segment_id]
            assert np.array_equal(row["audio_features"], mels[segment_id])
            assert row["sentiment"] == sentiment[segment_id]
            assert [row[name] for name in EMOTIONS] == emotion[segment_id].tolist()
            assert f"{row['video_id']}[{row['segment']}]" == segment_id


def test_video_features(umons_folder, caplog):
    ids = {"train": ["-3g5yACwYnA[0]", "-3g5yACwYnA[1]"], "valid": ["wF8980oGklk[13]"]}
    for split, names in ids.items():
        clips = {name: np.full((2, 6), 0.5) for name in names}
        (umons_folder / f"{split}_r21d.p").write_bytes(pickle.dumps(clips))
    (umons_folder / "test_r21d.p").write_bytes((umons_folder / "test_mels.p").read_bytes())
    source = UmonsPickles(umons_folder)
    assert source.features["video_features"].feature.length == 6
    assert source.read("validation", "wF8980oGklk[13]")["video_features"].tolist() == [[0.5] * 6] * 2
    assert "video_features" not in source.read("test", "-6rXp3zJ3kc[0]")
    assert caplog.messages == [
        f"{umons_folder / 'test'}_r21d.p is left out: it contains the mel frames, not video features."
    ]


def test_missing_values_are_null(umons_folder, rewrite_pickle):
    for path in umons_folder.glob("test_*"):
        path.unlink()
    for path in umons_folder.glob("*_mels.p"):
        path.unlink()
    rewrite_pickle(umons_folder / "train_sentences.p", lambda words: words.update({"-3g5yACwYnA[1]": []}))
    rewrite_pickle(umons_folder / "train_emotion.p", lambda emotions: emotions.__delitem__("-3g5yACwYnA[0]"))
    rewrite_pickle(umons_folder / "train_sentiment.p", lambda sentiments: sentiments.update({"zzz[2]": 1}))
    source = UmonsPickles(umons_folder)
    assert source.segments == {
        "train": ["-3g5yACwYnA[0]", "-3g5yACwYnA[1]", "zzz[2]"],
        "validation": ["wF8980oGklk[13]"],
    }
    assert source.features["audio_features"].feature.length == 80
    first, second, third = (source.read("train", name) for name in source.segments["train"])
    assert "happy" not in first
    assert first["sentiment"] == -0.5
    assert (second["text"], second["words"], second["happy"]) == (None, None, 0.5)
    assert third == {"segment_id": "zzz[2]", "video_id": "zzz", "segment": 2, "sentiment": 1}
    assert "audio_features" not in first


def test_frames_are_finite(umons_folder, rewrite_pickle):
    odd = np.array([[-np.inf, np.nan, 1e300, 2]])
    empty = np.zeros((0, 4))
    rewrite_pickle(
        umons_folder / "train_mels.p", lambda mels: mels.update({"-3g5yACwYnA[0]": odd, "-3g5yACwYnA[1]": empty})
    )
    source = UmonsPickles(umons_folder)
    frames = source.read("train", "-3g5yACwYnA[0]")["audio_features"]
    assert frames.dtype == np.float32
    assert frames.tolist() == [[0, 0, 0, 2]]
    assert source.read("train", "-3g5yACwYnA[1]")["audio_features"] is None


def test_files_are_read_once_and_by_each_process_itself(umons_folder, monkeypatch):
    paths = []
    monkeypatch.setattr(
        "modeling_umons.data.layouts.umons.read_pickle", lambda path: paths.append(path.name) or read_pickle(path)
    )
    source = UmonsPickles(umons_folder)
    _ = source.segments, source.features
    for _ in range(2):
        source.read("train", "-3g5yACwYnA[0]")
    assert len(paths) == len(set(paths)) == 12
    copy = pickle.loads(pickle.dumps(source))
    assert "_parts" not in vars(copy)
    assert copy.read("train", "-3g5yACwYnA[0]")["sentiment"] == -0.5
    assert len(paths) == 24


def test_folders_without_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        UmonsPickles(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"\{train,valid,test\}_\{sentences,mels,r21d,sentiment,emotion\}\.p"):
        _ = UmonsPickles(tmp_path).segments


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: ["a"], "is a list, expected a dict by segment id"),
        (lambda content: {"video": 1}, "has the key 'video', expected segment ids"),
        (lambda content: {3: 1}, "has the key 3, expected segment ids"),
    ],
)
def test_files_of_another_structure(umons_folder, rewrite_pickle, change, message):
    rewrite_pickle(umons_folder / "valid_sentiment.p", change)
    with pytest.raises(ValueError, match=rf"valid_sentiment\.p {message}"):
        _ = UmonsPickles(umons_folder).segments


def test_damaged_and_hostile_files(umons_folder):
    path = umons_folder / "train_mels.p"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"train_mels\.p \(\d+ bytes\) is damaged"):
        _ = UmonsPickles(umons_folder).segments
    path.write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    with pytest.raises(ValueError, match=r"train_mels\.p is refused: it contains the global posix\.system"):
        _ = UmonsPickles(umons_folder).segments


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("sentences", "text", "is not a list of words"),
        ("sentences", ["a", 1], "is not a list of words"),
        ("mels", np.zeros((3, 5)), r"shape \(3, 5\) .* expected numbers of shape \(frames, 4\)"),
        ("mels", np.zeros(4), r"shape \(4,\)"),
        ("mels", np.array([["a"] * 4]), "dtype <U1"),
        ("mels", [[1.0] * 4], "is a list, expected numbers"),
        ("sentiment", float("nan"), r"is nan, expected a number from -3 to 3"),
        ("sentiment", 3.5, r"is 3\.5, expected a number from -3 to 3"),
        ("sentiment", "1", "is a str, expected a number"),
        ("sentiment", True, "is a bool, expected a number"),
        ("sentiment", None, "is None, expected a number"),
        ("emotion", np.zeros(5), "is not the 6 numbers of happy, sad"),
        ("emotion", 1.0, "is not the 6 numbers"),
        ("emotion", [0, 0, 0, "1", 0, 0], "surprise is a str, expected a number"),
        ("emotion", np.array([0, np.nan, 0, 0, 0, 0]), "sad is nan, expected a number from 0 to 3"),
        ("emotion", [0, 0, 0, 0, 0, -1], "fear is -1, expected a number from 0 to 3"),
    ],
)
def test_wrong_segment_raises_only_for_itself(umons_folder, rewrite_pickle, part, value, message):
    rewrite_pickle(umons_folder / f"train_{part}.p", lambda values: values.update({"-3g5yACwYnA[1]": value}))
    source = UmonsPickles(umons_folder)
    assert source.read("train", "-3g5yACwYnA[0]")["text"] == "That's fine"
    with pytest.raises(ValueError, match=rf"train_{part}\.p, -3g5yACwYnA\[1\],? ?.*{message}"):
        source.read("train", "-3g5yACwYnA[1]")


def test_emotions_that_are_rows_without_values():
    values = np.empty((10**6, 0), dtype=np.float32)
    tracemalloc.start()
    with pytest.raises(ValueError, match="is not the 6 numbers of happy, sad"):
        to_emotions(values, "emotion")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20  # a list of as many lists takes 64 MB
