"""Computational sequences: segments, alignment, splits, and hostile files."""

import logging
import pickle
import zlib

import h5py
import numpy as np
import pytest

from modeling_umons.data.layouts import computational_sequences, open_source
from modeling_umons.data.layouts.csd import CsdFiles
from modeling_umons.data.schema import to_table


LABELS, WORDS = "CMU_MOSEI_Labels.csd", "CMU_MOSEI_TimestampedWords.csd"
AUDIO, VIDEO = "CMU_MOSEI_COVAREP.csd", "CMU_MOSEI_VisualFacet42.csd"
FIRST, SECOND = "-3g5yACwYnA[0]", "-3g5yACwYnA[1]"
RECORD = "COVAREP/data/-3g5yACwYnA"


def change(path, name: str, data: np.ndarray | None, **options) -> None:
    """Puts another data set in the place of one, or none."""
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        if data is not None or options:
            file.create_dataset(name, data=data, **options)


def test_every_value(csd_folder):
    source = open_source("csd", csd_folder)
    assert source.segments == {"train": [FIRST, SECOND], "validation": ["wF8980oGklk[0]"]}
    assert source.left_out == {"aB3dE6gH9jK[0]": "the video aB3dE6gH9jK is of no split"}
    assert source.features["audio_features"].feature.length == 5
    assert source.features["video_features"].feature.length == 3
    row = source.read("train", FIRST)
    audio, video = row.pop("audio_features"), row.pop("video_features")
    assert audio.dtype == video.dtype == np.float32
    assert audio.tolist() == [[10, 11, 12, 13, 14], [15, 16, 17, 18, 19], [0] * 5, [25, 26, 27, 28, 29]]
    assert video.tolist() == [[3, 4, 5], [6, 7, 8]]
    assert row.pop("audio_times").tolist() == [1.25, 1.75, 2.25, 2.75]
    assert row.pop("video_times").tolist() == [1.5, 2.5]
    assert row == {
        "segment_id": FIRST, "video_id": "-3g5yACwYnA", "segment": 0, "start": 1, "end": 3,
        "text": "and sp so great",
        "words": [
            {"word": "and", "start": 1, "end": 1.4},
            {"word": "sp", "start": 1.4, "end": 1.6},
            {"word": "so", "start": 1.6, "end": 2.75},
            {"word": "great", "start": 2.75, "end": 3.15},
        ],
        "sentiment": 1, "happy": 2 / 3, "sad": 0, "anger": 0, "surprise": 0, "disgust": 0, "fear": 1 / 3,
    }  # fmt: skip
    row = source.read("train", SECOND)
    assert (row["segment"], row["start"], row["end"], row["text"]) == (1, 3, 5, "movie")
    assert [row[name] for name in ("sentiment", "happy", "sad", "anger", "disgust")] == [-2.5, 0, 3, 1, 2]
    assert row["audio_features"][:, 0].tolist() == [30, 35, 40, 45]
    assert row["video_features"].tolist() == [[9, 10, 11], [12, 13, 14]]
    row = source.read("validation", "wF8980oGklk[0]")
    assert (row["text"], row["end"], row["surprise"]) == ("é sp", 9.5, 1)
    assert "audio_features" not in row
    rows = [source.read("train", name) for name in (FIRST, SECOND)]
    assert to_table(rows, source.features).num_rows == 2


def test_words_get_the_mean_of_their_frames(csd_folder, write_sequence):
    source = CsdFiles(csd_folder, average_per_word=True)
    row = source.read("train", FIRST)
    steps = np.arange(5)
    expected = [10 + steps, 12.5 + steps, (40 + 2 * steps) / 3, 27.5 + steps]
    assert row["audio_features"] == pytest.approx(np.array(expected), rel=1e-6)
    assert row["video_features"].tolist() == [[3, 4, 5], [3, 4, 5], [4.5, 5.5, 6.5], [7.5, 8.5, 9.5]]
    assert len(row["words"]) == 4
    for name in ("audio_times", "video_times"):  # those of the words
        np.testing.assert_allclose(row[name], [1.2, 1.5, 2.175, 2.95])
    # Beyond the last frame, and between two frames that do not touch
    words = np.array([b"far", b"gap", b"sp"]).reshape(-1, 1)
    times = np.array([[2.0, 2.9], [1.15, 1.2], [1.4, 1.5]])
    write_sequence(csd_folder / WORDS, "words", {"-3g5yACwYnA": (words, times)})
    frames = (np.array([[1.0] * 5, [2.0] * 5]), np.array([[1.0, 1.1], [1.3, 1.4]]))
    write_sequence(csd_folder / AUDIO, "COVAREP", {"-3g5yACwYnA": frames})
    source = CsdFiles(csd_folder, average_per_word=True)
    assert source.read("train", FIRST)["audio_features"][:, 0].tolist() == [2, 1, 2]
    row = source.read("train", SECOND)
    assert (row["words"], row["text"], row["audio_features"]) == (None, None, None)
    (csd_folder / WORDS).unlink()
    with pytest.raises(ValueError, match=r"no \.csd file of words, which average_per_word needs"):
        CsdFiles(csd_folder, average_per_word=True)


def test_files_that_the_sdk_has_aligned(csd_folder, write_sequence):
    for path in csd_folder.iterdir():
        path.unlink()
    # The intervals of the content may reach out of the segment's: it belongs there all the same.
    two, six = np.array([[0.0, 1], [8, 9]]), np.array([[1.0, 0, 0, 0, 0, 0, 2]])
    labels = {f"-3g5yACwYnA[{k}]": (six * (k + 1) / 2, np.array([[1.0 + k, 2 + k]])) for k in (0, 1)}
    write_sequence(csd_folder / "All Labels.csd", "All Labels", labels)
    write_sequence(csd_folder / "words.csd", "words", {FIRST: (np.array([[b"a"], [b"sp"]]), two)})
    write_sequence(csd_folder / "COVAREP.csd", "COVAREP", {FIRST: (np.array([[1.0, 2], [3, 4]]), two)})
    source = CsdFiles(csd_folder)
    assert source.segments == {"train": [FIRST, SECOND]}
    row = source.read("train", FIRST)
    assert (row["start"], row["end"], row["text"], row["sentiment"], row["fear"]) == (1, 2, "a sp", 0.5, 1)
    assert row["audio_features"].tolist() == [[1, 2], [3, 4]]
    row = source.read("train", SECOND)
    assert (row["start"], row["text"], row["sentiment"], row["fear"]) == (2, None, 1, 2)
    assert "audio_features" not in row
    labels = {FIRST: (np.repeat(six, 2, axis=0), two)}
    write_sequence(csd_folder / "All Labels.csd", "All Labels", labels)
    with pytest.raises(ValueError, match=r"All Labels\.csd, .*-3g5yACwYnA\[0\] has 2 rows of labels, expected one"):
        CsdFiles(csd_folder).read("train", FIRST)


def test_splits(csd_folder, write_sequence, caplog):
    (csd_folder / "splits.csv").write_text("video_id,split\naB3dE6gH9jK,dev\n-3g5yACwYnA,test\nzzz,train\n")
    source = CsdFiles(csd_folder)
    assert source.segments == {"validation": ["aB3dE6gH9jK[0]"], "test": [FIRST, SECOND]}
    assert list(source.left_out) == ["wF8980oGklk[0]"]
    (csd_folder / "splits.csv").write_text("video_id,split\naB3dE6gH9jK,eval\n")
    with pytest.raises(ValueError, match=r"splits\.csv: aB3dE6gH9jK is of split 'eval'"):
        _ = CsdFiles(csd_folder).segments
    (csd_folder / "splits.csv").unlink()
    write_sequence(
        csd_folder / LABELS, "All Labels", {"aB3dE6gH9jK": (np.zeros((2, 7)), np.array([[0.0, 1], [1, 2]]))}
    )
    source = CsdFiles(csd_folder)
    with caplog.at_level(logging.WARNING):
        assert source.segments == {"train": ["aB3dE6gH9jK[0]", "aB3dE6gH9jK[1]"]}
        _ = source.segments
    assert [record.getMessage().split(": ")[1][:36] for record in caplog.records] == [
        "no video is in the official splits o"
    ]
    assert source.left_out == {}


def test_which_file_serves(csd_folder, write_sequence):
    frames = (np.ones((1, 2)), np.array([[1.0, 2]]))
    write_sequence(csd_folder / "CMU_MOSEI_OpenSMILE.csd", "OpenSMILE", {"-3g5yACwYnA": frames})
    with pytest.raises(ValueError, match=r"2 \.csd files that could be the audio; .*`audio=`: .*COVAREP.*OpenSMILE"):
        CsdFiles(csd_folder)
    for name in ("OpenSMILE", "CMU_MOSEI_OpenSMILE.csd", "CMU_MOSEI_OpenSMILE"):
        assert CsdFiles(csd_folder, audio=name).read("train", FIRST)["audio_features"].tolist() == [[1, 1]]
    source = CsdFiles(csd_folder, audio="COVAREP", video="glove_vectors")
    assert source.features["audio_features"].feature.length == 5
    assert source.features["video_features"].feature.length == 300
    with pytest.raises(ValueError, match=r"no \.csd file 'eGeMAPS'.*CMU_MOSEI_COVAREP\.csd \(COVAREP\)"):
        CsdFiles(csd_folder, audio="eGeMAPS")
    write_sequence(csd_folder / "more.csd", "All Labels", {})
    with pytest.raises(ValueError, match=r"2 \.csd files that could be the labels; leave one"):
        CsdFiles(csd_folder, audio="COVAREP")
    for name in (LABELS, "more.csd"):
        (csd_folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"no \.csd file with the root 'All Labels'; it has .*COVAREP"):
        CsdFiles(csd_folder, audio="COVAREP")


def test_labels_alone(csd_folder):
    for name in (WORDS, AUDIO, VIDEO):
        (csd_folder / name).unlink()
    source = CsdFiles(csd_folder)
    row = source.read("train", FIRST)
    assert (row["text"], row["words"], row["sentiment"]) == (None, None, 1)
    assert not {"audio_features", "video_features"} & row.keys()
    assert source.features["audio_features"].feature.length == 80


def test_video_is_read_once_and_files_are_not_pickled(csd_folder, monkeypatch):
    reads = []
    read = computational_sequences.ComputationalSequence.read
    monkeypatch.setattr(
        computational_sequences.ComputationalSequence, "read", lambda self, key: reads.append(key) or read(self, key)
    )
    source = CsdFiles(csd_folder)
    for name in (FIRST, SECOND, FIRST):
        source.read("train", name)
    assert len(reads) == 4
    source.read("validation", "wF8980oGklk[0]")
    assert len(reads) == 6
    copy = pickle.loads(pickle.dumps(source))
    assert all(sequence._file is None for sequence in copy._sequences.values())
    assert copy._cache == ("", {})
    assert copy.read("train", FIRST)["text"] == "and sp so great"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("features", None, r"COVAREP/data/-3g5yACwYnA has no features"),
        ("intervals", None, r"COVAREP/data/-3g5yACwYnA has no intervals"),
        ("intervals", np.zeros((4, 2)), r"features has 12 rows, intervals 4"),
        ("intervals", np.zeros((12, 3)), r"intervals has the shape \(12, 3\)"),
        ("intervals", np.full((12, 2), np.nan), r"intervals has the row \[nan nan\] at 0, no seconds"),
        ("features", np.float64(1), "features is a single value, expected a row for each interval"),
        ("features", np.zeros(12), r"features has the shape \(12,\) .* expected numbers of shape \(frames, 5\)"),
        ("features", np.zeros((12, 4)), r"features has the shape \(12, 4\)"),
        ("features", np.zeros((12, 5), dtype="S3"), r"the dtype \|S3"),
        ("features", np.zeros((12, 5), dtype=complex), "dtype complex128, expected numbers or byte strings"),
        ("features", np.zeros(12, dtype=[("a", "f4")]), "expected numbers or byte strings"),
    ],
)
def test_wrong_record_raises_for_its_segments(csd_folder, name, data, message):
    source = CsdFiles(csd_folder)
    assert source.features["audio_features"].feature.length == 5
    source = pickle.loads(pickle.dumps(source))
    change(csd_folder / AUDIO, f"{RECORD}/{name}", data)
    assert source.read("validation", "wF8980oGklk[0]")["text"] == "é sp"
    with pytest.raises(ValueError, match=rf"CMU_MOSEI_COVAREP\.csd, COVAREP/data/-3g5yACwYnA.*{message}"):
        source.read("train", FIRST)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (0, np.nan, "sentiment is nan, expected a number from -3 to 3"),
        (0, 4, r"sentiment is 4\.0, expected a number from -3 to 3"),
        (2, -1, r"sad is -1\.0, expected a number from 0 to 3"),
        (6, np.inf, "fear is inf, expected a number from 0 to 3"),
    ],
)
def test_invalid_labels_raise(csd_folder, column, value, message):
    with h5py.File(csd_folder / LABELS, "a") as file:
        file["All Labels/data/-3g5yACwYnA/features"][1, column] = value
    source = CsdFiles(csd_folder)
    assert source.read("train", FIRST)["sentiment"] == 1
    with pytest.raises(ValueError, match=rf"Labels\.csd, All Labels/data, -3g5yACwYnA\[1\], {message}"):
        source.read("train", SECOND)


def test_records_of_another_structure(csd_folder):
    labels, words = "All Labels/data/-3g5yACwYnA", "words/data/-3g5yACwYnA/features"
    change(csd_folder / LABELS, f"{labels}/intervals", np.array([[3.0, 1], [3, 5]]))
    with pytest.raises(ValueError, match=r"-3g5yACwYnA\[0\] ends at 1\.0 s, before it starts at 3\.0 s"):
        CsdFiles(csd_folder).read("train", FIRST)
    change(csd_folder / WORDS, words, np.zeros((6, 1)))
    with pytest.raises(
        ValueError, match=rf"{words} has the shape \(6, 1\) and the dtype float64, expected byte strings"
    ):
        CsdFiles(csd_folder).read("train", SECOND)
    change(csd_folder / WORDS, words, np.array([b"\xff"] * 6))
    with pytest.raises(ValueError, match=rf"{words} has a word that is not UTF-8 text"):
        CsdFiles(csd_folder).read("train", SECOND)
    change(csd_folder / LABELS, f"{labels}/features", np.zeros((2, 6)))
    with pytest.raises(
        ValueError, match=rf"{labels}/features has the shape \(2, 6\) .* \(segments, 7\): sentiment, happy"
    ):
        CsdFiles(csd_folder).read("train", FIRST)
    change(csd_folder / LABELS, f"{labels}/features", np.zeros(2))
    with pytest.raises(ValueError, match=rf"{labels}/features has the shape \(2,\), expected \(segments, 7\)"):
        _ = CsdFiles(csd_folder).segments
    change(csd_folder / LABELS, f"{labels}/features", None)
    with pytest.raises(ValueError, match=rf"{labels}/features cannot be read: /{labels} has no features"):
        _ = CsdFiles(csd_folder).segments


def test_files_that_are_not_sequences_raise(csd_folder, write_sequence):
    path = csd_folder / AUDIO
    data = path.read_bytes()
    for broken in (b"", b"no HDF5 at all", data[:1000], data[: len(data) // 2]):
        path.write_bytes(broken)
        with pytest.raises(OSError, match=r"CMU_MOSEI_COVAREP\.csd, .*: this HDF5 cannot be read, it is damaged"):
            CsdFiles(csd_folder)
    path.unlink()
    with h5py.File(path, "w") as file:
        file["values"] = 1
    with pytest.raises(ValueError, match=r"COVAREP\.csd has 0 groups with a group `data`"):
        CsdFiles(csd_folder)
    path.unlink()
    with h5py.File(path, "w") as file:
        file.create_group("COVAREP/data").create_group(b"\xff")
    with pytest.raises(ValueError, match=r"COVAREP/data has the name b'\\xff', which is not UTF-8 text"):
        CsdFiles(csd_folder).read("train", FIRST)
    write_sequence(csd_folder / LABELS, "All Labels", {"-3g5yACwYnA": (np.zeros((0, 7)), np.zeros((0, 2)))})
    path.unlink()
    with pytest.raises(ValueError, match=r"Labels\.csd, All Labels/data has no rows of labels"):
        _ = CsdFiles(csd_folder).segments


def test_damaged_bytes_raise_clear_errors(csd_folder):
    path = csd_folder / AUDIO
    data, generator = path.read_bytes(), np.random.default_rng(0)
    messages = []
    for _ in range(100):
        changed = bytearray(data)
        for place in generator.integers(len(data), size=20):
            changed[place] = generator.integers(256)
        path.write_bytes(changed)
        try:
            CsdFiles(csd_folder).read("train", FIRST)
        except (OSError, ValueError) as error:
            messages.append(str(error))
    assert len(messages) > 10
    assert all(AUDIO in message or "the root" in message for message in messages)


def test_arrays_that_the_file_does_not_hold(csd_folder):
    change(csd_folder / AUDIO, f"{RECORD}/features", None, shape=(2**40, 5), chunks=(1000, 5), dtype="f4")
    with pytest.raises(
        ValueError, match=rf"COVAREP\.csd, {RECORD}/features is refused: it declares 21990232555520 bytes"
    ):
        CsdFiles(csd_folder).read("train", FIRST)
    # A chunk is unpacked as a whole, however little of it is in the shape.
    change(
        csd_folder / AUDIO,
        f"{RECORD}/features",
        None,
        shape=(12, 5),
        maxshape=(None, 5),
        chunks=(10**8, 5),
        dtype="f4",
    )
    with pytest.raises(ValueError, match="is refused: it declares 2000000000 bytes"):
        CsdFiles(csd_folder).read("train", FIRST)
    # HDF5 before 2.0 limits the stored size of chunks under 256 bytes to 64 KiB.
    options = {"shape": (12, 5), "maxshape": (None, 5), "chunks": (120, 5), "dtype": "f4", "compression": "gzip"}
    change(csd_folder / AUDIO, f"{RECORD}/features", None, **options)
    with h5py.File(csd_folder / AUDIO, "a") as file:
        file[f"{RECORD}/features"].id.write_direct_chunk((0, 0), zlib.compress(bytes(2**27)))
    with pytest.raises(ValueError, match=r"is refused: it stores \d{5,} bytes for the 240 bytes of its shape"):
        CsdFiles(csd_folder).read("train", FIRST)
    change(csd_folder / AUDIO, f"{RECORD}/features", None, shape=(10**7, 5), chunks=(1000, 5), dtype="f4")
    with pytest.raises(ValueError, match="is refused: it stores 0 bytes for the 200000000 bytes of its shape"):
        CsdFiles(csd_folder).read("train", FIRST)


def test_rows_that_take_no_bytes(csd_folder):
    name = "All Labels/data/-3g5yACwYnA/features"
    change(csd_folder / LABELS, name, None, shape=(10**12, 0), maxshape=(None, 7), chunks=(1, 1), dtype="f4")
    with pytest.raises(
        ValueError, match=rf"{name} is refused: its shape \(1000000000000, 0\) has rows without values"
    ):
        _ = CsdFiles(csd_folder).segments
    change(csd_folder / LABELS, name, None, shape=(10**5, 7), chunks=(1000, 7), dtype="i1")
    with pytest.raises(ValueError, match=rf"{name} has the shape \(100000, 7\), expected .* at most 10000 segments"):
        _ = CsdFiles(csd_folder).segments


def test_external_links_are_not_read(csd_folder, tmp_path):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["features"] = np.ones((12, 5))
        file["record/features"] = np.ones((12, 5))
    (tmp_path / "numbers").write_bytes(np.ones((12, 5), dtype="f4").tobytes())
    path, name = csd_folder / AUDIO, f"{RECORD}/features"

    def refused(match: str, key: str = name) -> None:
        with pytest.raises(ValueError, match=rf"COVAREP\.csd, {key}.* is refused: {match}"):
            CsdFiles(csd_folder).read("train", FIRST)

    change(path, name, None, shape=(12, 5), dtype="f4", external=[(str(tmp_path / "numbers"), 0, 240)])
    refused("its values lie in other files")
    change(path, name, None)
    layout = h5py.VirtualLayout(shape=(12, 5), dtype="f8")
    layout[:] = h5py.VirtualSource(str(secret), "features", shape=(12, 5))
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset(name, layout)
    refused("its values lie in other files")
    change(path, name, None)
    with h5py.File(path, "a") as file:
        file[name] = h5py.ExternalLink(str(secret), "features")
    refused(f"/{name} is a link to somewhere else")
    change(path, name, None)
    with h5py.File(path, "a") as file:
        file[name] = h5py.SoftLink(f"/{RECORD}/intervals")
    refused(f"/{name} is a link to somewhere else")
    with h5py.File(path, "a") as file:
        del file[RECORD]
        file[RECORD] = h5py.ExternalLink(str(secret), "record")
    refused(f"/{RECORD} is a link to somewhere else", RECORD)
    with h5py.File(path, "w") as file:
        file["COVAREP"] = h5py.ExternalLink(str(secret), "/")
    with pytest.raises(ValueError, match=r"COVAREP\.csd has 0 groups"):
        CsdFiles(csd_folder)


def test_python_objects_raise(csd_folder):
    name = "words/data/-3g5yACwYnA/features"
    change(csd_folder / WORDS, name, np.array(["a"] * 6, dtype=object), dtype=h5py.string_dtype())
    with pytest.raises(ValueError, match=rf"{name} has the dtype object, expected numbers or byte strings"):
        CsdFiles(csd_folder).read("train", FIRST)


def test_long_features_are_averaged_to_max_length(csd_folder, caplog):
    whole = CsdFiles(csd_folder, max_length=None).read("train", FIRST)
    source = CsdFiles(csd_folder, max_length=3)
    rows = [source.read("train", name) for name in (FIRST, SECOND)]
    frames = whole["audio_features"]
    expected = [frames[0], frames[1], frames[2:].mean(axis=0)]
    np.testing.assert_allclose(rows[0]["audio_features"], expected)
    assert rows[0]["audio_features"].dtype == np.float32
    assert rows[0]["audio_times"].tolist() == [1.25, 1.75, 2.5]
    assert rows[0]["video_features"].tolist() == whole["video_features"].tolist()
    assert caplog.text.count("features of more than 3 are averaged over 3 equal parts") == 1
    with pytest.raises(ValueError, match="max_length is 0; it must be at least 1"):
        CsdFiles(csd_folder, max_length=0)
