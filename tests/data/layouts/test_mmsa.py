"""The pickles of MMSA: every value, padding, and broken files in words."""

import pickle

import numpy as np
import pytest

from modeling_umons.data.layouts import open_source
from modeling_umons.data.layouts.mmsa import MmsaPickle
from modeling_umons.data.schema import to_table


FIRST, SECOND = "-3g5yACwYnA$_$10", "-3g5yACwYnA$_$2"


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_every_value(mmsa_folder, rewrite_pickle, protocol):
    rewrite_pickle(mmsa_folder / "aligned_50.pkl", lambda content: None, protocol=protocol)
    source = open_source("mmsa", mmsa_folder)
    assert source.segments == {
        "train": [FIRST, SECOND], "validation": ["wF8980oGklk$_$13"], "test": ["-6rXp3zJ3kc$_$0"],
    }  # fmt: skip
    assert source.left_out == {}
    assert source.features["audio_features"].feature.length == 5
    assert source.features["video_features"].feature.length == 2
    row = source.read("train", FIRST)
    audio, video = row.pop("audio_features"), row.pop("video_features")
    assert audio.dtype == video.dtype == np.float32
    assert audio.tolist() == [[1, 2, 3, 4, 5], [0] * 5, [11, 12, 13, 14, 15]]
    assert video.tolist() == [[0.5, -0.25]]
    assert row == {
        "segment_id": FIRST, "video_id": "-3g5yACwYnA", "segment": 10, "text": "I liked it", "sentiment": 1.5,
    }  # fmt: skip
    row = source.read("train", SECOND)
    assert (row["segment"], row["text"], row["sentiment"], row["audio_features"]) == (2, None, -3, None)
    assert row["video_features"].tolist() == [[7, 7]] * 3
    assert source.read("test", "-6rXp3zJ3kc$_$0")["sentiment"] == 0
    assert to_table([row], source.features).num_rows == 1


def test_lengths_say_what_is_padding(mmsa_folder, rewrite_pickle):
    def add(content):
        content["train"] |= {"audio_lengths": [4, 2], "vision_lengths": np.array([1, 0])}

    rewrite_pickle(mmsa_folder / "aligned_50.pkl", add)
    source = MmsaPickle(mmsa_folder)
    row = source.read("train", FIRST)
    assert row["audio_features"].tolist() == [[1, 2, 3, 4, 5], [0] * 5, [11, 12, 13, 14, 15], [0] * 5]
    assert row["video_features"].tolist() == [[0, 0]]
    row = source.read("train", SECOND)
    assert row["audio_features"].tolist() == [[0] * 5] * 2
    assert row["video_features"] is None


def test_missing_values_are_null(mmsa_folder, rewrite_pickle):
    rewrite_pickle(mmsa_folder / "aligned_50.pkl", lambda content: {"test": {"id": [b"a$_$0"]}, "train": {"id": []}})
    source = MmsaPickle(mmsa_folder)
    assert source.segments == {"test": ["a$_$0"]}
    assert source.features["audio_features"].feature.length == 80
    assert source.read("test", "a$_$0") == {"segment_id": "a$_$0", "video_id": "a", "segment": 0}


def test_values_that_are_not_finite(mmsa_folder, rewrite_pickle):
    def spoil(content):
        content["train"]["audio"][0, 0] = -np.inf
        content["train"]["audio"][0, 2, 0] = np.nan

    rewrite_pickle(mmsa_folder / "aligned_50.pkl", spoil)
    assert MmsaPickle(mmsa_folder).read("train", FIRST)["audio_features"].tolist() == [[0, 12, 13, 14, 15]]


def test_ragged_lists_raise_only_for_their_segment(mmsa_folder, rewrite_pickle):
    ragged = [[[1.0, 2.0], [3.0]], np.ones((3, 2))]
    rewrite_pickle(mmsa_folder / "aligned_50.pkl", lambda content: content["train"].update(vision=ragged))
    source = MmsaPickle(mmsa_folder)
    assert source.read("train", SECOND)["video_features"].tolist() == [[1, 1]] * 3
    with pytest.raises(ValueError, match=r"aligned_50\.pkl, train, vision, .*\$_\$10 is a list, expected numbers"):
        source.read("train", FIRST)


def test_which_file(mmsa_folder):
    path = mmsa_folder / "aligned_50.pkl"
    (mmsa_folder / "unaligned_50.p").write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=r"several pickles; name one .* `file=`: aligned_50\.pkl, unaligned_50\.p"):
        MmsaPickle(mmsa_folder)
    assert MmsaPickle(mmsa_folder, file="unaligned_50.p").segments["train"] == [FIRST, SECOND]
    with pytest.raises(FileNotFoundError, match=r"no pickle other\.pkl; it has aligned_50\.pkl, unaligned_50\.p"):
        MmsaPickle(mmsa_folder, file="other.pkl")
    for file in mmsa_folder.iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError, match=r"no pickle \*\.pkl or \*\.p; it has no pickle at all"):
        MmsaPickle(mmsa_folder)


def test_arrays_do_not_go_to_worker_processes(mmsa_folder):
    source = MmsaPickle(mmsa_folder)
    _ = source.segments
    size = len(pickle.dumps(source))
    assert size < 1000
    assert pickle.loads(pickle.dumps(source)).read("train", FIRST)["segment"] == 10


def test_damaged_and_hostile_files(mmsa_folder):
    path = mmsa_folder / "aligned_50.pkl"
    data = path.read_bytes()
    for broken in (b"", b"no pickle", data[: len(data) // 2]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"aligned_50\.pkl .* is damaged"):
            _ = MmsaPickle(mmsa_folder).segments
    path.write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    with pytest.raises(ValueError, match=r"aligned_50\.pkl is refused: it contains the global posix\.system"):
        _ = MmsaPickle(mmsa_folder).segments


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: [1], "is a list, expected a dict of train, valid and test"),
        (lambda content: {}, "is an empty dict, expected a dict of train, valid and test"),
        (lambda content: content.update(eval=1), "has the key 'eval', expected one each of train"),
        (lambda content: content.update(dev=1), "has the key 'dev', expected one each of train"),
        (lambda content: content.update(valid=[1]), ", valid has no `id`, it is a list"),
        (lambda content: content["test"].__delitem__("id"), ", test has no `id`, it is only raw_text, text"),
        (lambda content: content["test"].update(id="a"), ", test, id is a str, expected a list or an array"),
        (lambda content: content["test"].update(id=["a[0]"]), r", test, id, row 0 is 'a\[0\]', expected the form"),
        (lambda content: content["test"].update(id=[3]), ", test, id, row 0 is a int, expected text"),
        (lambda content: content["test"].update(id=[b"\xff$_$1"]), ", test, id, row 0 is not UTF-8 text"),
        (lambda content: content["train"].update(id=[FIRST] * 2), ", train, id, row 1: .* is a duplicate"),
        (lambda content: content["train"].update(raw_text=["a"]), ", train: raw_text has 1 rows, id 2"),
        (lambda content: content["train"].update(audio=np.zeros((3, 4, 5))), ", train: audio has 3 rows, id 2"),
        (lambda content: content["train"].update(vision=1.0), ", train, vision is a float, expected a list"),
        (lambda content: content["train"].update(audio_lengths=[1]), ", train: audio_lengths has 1 rows, id 2"),
    ],
)
def test_files_of_another_structure(mmsa_folder, rewrite_pickle, change, message):
    rewrite_pickle(mmsa_folder / "aligned_50.pkl", change)
    with pytest.raises(ValueError, match=rf"aligned_50\.pkl ?{message}"):
        _ = MmsaPickle(mmsa_folder).segments


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("regression_labels", np.array([0, np.nan]), "is nan, expected a number from -3 to 3"),
        ("regression_labels", [0, "1"], "is a str, expected a number"),
        ("regression_labels", np.zeros((2, 3)), "is a ndarray, expected a number"),
        ("raw_text", ["a", None], "is a NoneType, expected text"),
        ("audio", [np.zeros((4, 5)), np.zeros((4, 3))], r"has the shape \(4, 3\) .* of shape \(frames, 5\)"),
        ("vision", np.zeros((2, 3)), r"has the shape \(3,\) .* of shape \(frames, 2\)"),
        ("vision", [np.zeros((3, 2)), None], "is a NoneType, expected numbers"),
        ("audio_lengths", [1, 5], r"is 5, expected a number from 0 to 4"),
        ("vision_lengths", [1, -1], r"is -1, expected a number from 0 to 3"),
    ],
)
def test_wrong_segment_raises_only_for_itself(mmsa_folder, rewrite_pickle, key, values, message):
    rewrite_pickle(mmsa_folder / "aligned_50.pkl", lambda content: content["train"].update({key: values}))
    source = MmsaPickle(mmsa_folder)
    assert len(source.segments["train"]) == 2
    with pytest.raises(ValueError, match=rf"aligned_50\.pkl, train, {key}, -3g5yACwYnA\$_\$2 .*{message}"):
        source.read("train", SECOND)
