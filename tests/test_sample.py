"""Tests of the synthetic sample in hub/sample and of scripts/make_sample.py."""

import csv
import gc
import os
import shutil
import subprocess
import sys
from collections import Counter

import av
import numpy as np
import pytest


EMOTIONS = ["happy", "sad", "anger", "surprise", "disgust", "fear"]
COLUMNS = ["file_name", "text", "split", "sentiment", *EMOTIONS]
SPLITS = ["train", "validation", "test"]


@pytest.fixture(scope="module")
def folder(root):
    return root / "hub" / "sample"


@pytest.fixture(scope="module")
def rows(folder):
    return read(folder / "metadata.csv")


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def decode(path):
    """Return number and (width, height) of video frames, audio (num_samples,), its rate and number of channels."""
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        num_frames, sound = 0, []
        for frame in container.decode(video, audio):
            if isinstance(frame, av.VideoFrame):
                num_frames += 1
            else:
                sound.append(frame.to_ndarray()[0])
        return num_frames, (video.width, video.height), np.concatenate(sound), audio.rate, audio.channels


@pytest.fixture(scope="module")
def clips(folder, rows):
    return [decode(folder / row["file_name"]) for row in rows]


def present(row):
    return [name for name in EMOTIONS if int(row[name])]


def strongest(row):
    return max(EMOTIONS, key=lambda name: int(row[name])) if present(row) else "neutral"


def run_script(root, *args, **environment):
    command = [sys.executable, str(root / "scripts" / "make_sample.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def test_metadata_has_columns_and_labels(rows):
    assert list(rows[0]) == COLUMNS
    assert 100 <= len(rows) <= 120
    for row in rows:
        assert 3 <= len(row["text"].split()) <= 14
        sentiment = float(row["sentiment"])
        assert -3 <= sentiment <= 3
        assert abs(3 * sentiment - round(3 * sentiment)) < 0.03, "sentiment is not in thirds"
        assert all(row[name] in {"0", "1", "2", "3"} for name in EMOTIONS)
        if not present(row):
            assert abs(sentiment) < 0.5
    assert 0.1 < sum(not present(row) for row in rows) / len(rows) < 0.2


def test_texts_are_unique(rows):
    normalised = [" ".join(row["text"].lower().split()) for row in rows]
    assert len(set(normalised)) == len(rows)
    by_split = {split: {row["text"].lower() for row in rows if row["split"] == split} for split in SPLITS}
    assert not by_split["test"] & by_split["train"]


def test_splits_are_stratified(rows):
    sizes = Counter(row["split"] for row in rows)
    assert set(sizes) == set(SPLITS)
    for split, share in zip(SPLITS, (0.7, 0.15, 0.15), strict=True):
        assert abs(sizes[split] / len(rows) - share) < 0.02
    for name in EMOTIONS:
        counts = Counter(row["split"] for row in rows if int(row[name]))
        assert sum(counts.values()) >= 14
        assert all(counts[split] >= 2 for split in SPLITS), f"{name} is rare in a split: {counts}"


def test_metadata_matches_script(folder, rows):
    labels = COLUMNS[1:2] + COLUMNS[3:]
    source = read(folder / "utterances.csv")
    assert [row["file_name"] for row in rows] == [f"clips/{index:03d}.mp4" for index in range(len(source))]
    for written, row in zip(rows, source, strict=True):
        assert written["text"] == row["text"]
        assert [float(written[name]) for name in labels[1:]] == [float(row[name]) for name in labels[1:]]
    for split in SPLITS:
        assert read(folder / f"{split}set.csv") == [row for row in rows if row["split"] == split]


def test_folder_is_small_and_complete(folder, rows):
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 6e6
    assert {f"clips/{path.name}" for path in (folder / "clips").iterdir()} == {row["file_name"] for row in rows}


def test_clips_have_video_and_audio(clips):
    for num_frames, size, sound, rate, channels in clips:
        assert size == (128, 128)
        assert (rate, channels) == (22050, 1)
        assert 0.7 <= num_frames / 12 <= 8
        assert abs(len(sound) / rate - num_frames / 12) < 0.15
        assert np.sqrt((sound**2).mean()) > 0.005, "the clip is silent"
        assert np.abs(sound).max() < 1, "the sound is clipped"


def test_loudness_and_speed_depend_on_emotion(rows, clips):
    rms, speed = {}, {}
    for name in [*EMOTIONS, "neutral"]:
        chosen = [(row, clip) for row, clip in zip(rows, clips, strict=True) if strongest(row) == name]
        rms[name] = np.mean([np.sqrt((clip[2] ** 2).mean()) for _, clip in chosen])
        speed[name] = np.mean([len(row["text"].split()) / clip[0] for row, clip in chosen])
    assert rms["anger"] > 1.3 * rms["neutral"] > 1.3 * 1.5 * rms["sad"]
    assert speed["fear"] > 1.15 * speed["neutral"] > 1.15 * 1.2 * speed["sad"]


def median_pitch(sound, rate):
    """Estimate the median fundamental frequency in Hz of loud frames by autocorrelation between 65 and 400 Hz."""
    size, pitches = rate // 25, []
    for start in range(0, len(sound) - size, size):
        frame = sound[start : start + size] - sound[start : start + size].mean()
        correlation = np.correlate(frame, frame, "full")[size - 1 :]
        lag = rate // 400 + correlation[rate // 400 : rate // 65].argmax()
        if correlation[0] > 1e-4 * size and correlation[lag] > 0.5 * correlation[0]:
            pitches.append(rate / lag)
    return np.median(pitches)


def test_pitch_depends_on_emotion(rows, clips):
    pitch = {}
    for name in ("sad", "neutral", "surprise"):
        chosen = [clip for row, clip in zip(rows, clips, strict=True) if strongest(row) == name]
        pitch[name] = np.mean([median_pitch(sound, rate) for _, _, sound, rate, _ in chosen])
    assert pitch["surprise"] > 1.2 * pitch["neutral"]
    assert pitch["sad"] < 0.9 * pitch["neutral"]


def test_bag_of_words_learns_sign_of_sentiment(rows):
    """Check a margin of 0.15 over the most frequent sign on held-out clips."""
    text = pytest.importorskip("sklearn.feature_extraction.text")
    linear = pytest.importorskip("sklearn.linear_model")
    train = [row for row in rows if row["split"] == "train"]
    held_out = [row for row in rows if row["split"] != "train"]
    signs, expected = ([np.sign(float(row["sentiment"])) for row in part] for part in (train, held_out))
    vectorizer = text.TfidfVectorizer().fit([row["text"] for row in train])
    model = linear.LogisticRegression(C=10, class_weight="balanced")
    model.fit(vectorizer.transform([row["text"] for row in train]), signs)
    accuracy = model.score(vectorizer.transform([row["text"] for row in held_out]), expected)
    constant = np.mean(np.array(expected) == Counter(signs).most_common(1)[0][0])
    assert accuracy > constant + 0.15


# The loader peeks at the table's first rows and leaves the file to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed file .*metadata.csv:ResourceWarning")
@pytest.mark.filterwarnings("ignore:unclosed file .*set.csv:ResourceWarning")
def test_sample_loads_with_datasets(folder, rows, tmp_path):
    datasets = pytest.importorskip("datasets")
    by_split = datasets.load_dataset(str(folder), cache_dir=str(tmp_path))
    assert {split: len(part) for split, part in by_split.items()} == Counter(row["split"] for row in rows)
    test = by_split["test"].cast_column("video", datasets.Video(decode=False))
    assert [row["text"] for row in test] == [row["text"] for row in rows if row["split"] == "test"]
    assert all(os.path.isfile(row["video"]["path"]) for row in test)

    whole = datasets.load_dataset("videofolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path))
    assert whole.column_names == ["video", *COLUMNS[1:]]
    assert len(whole) == len(rows)

    table = datasets.load_dataset(
        "csv", data_files=str(folder / "metadata.csv"), split="train", cache_dir=str(tmp_path)
    )
    assert table.column_names == COLUMNS
    gc.collect()  # while the two warnings are ignored


def write_utterances(path, *lines):
    path.write_text("\n".join([",".join(["text", "sentiment", *EMOTIONS]), *lines]) + "\n", encoding="utf-8")
    return path


@pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="espeak-ng is not on the PATH (apt-get install espeak-ng)"
)
def test_make_sample_is_reproducible(root, tmp_path):
    source = write_utterances(tmp_path / "one.csv", "I love fish & chips by the sea.,2.33,2,0,0,0,0,0")
    for name in ("first", "second"):
        result = run_script(root, "--utterances", source, "--output", tmp_path / name)
        assert result.returncode == 0, result.stderr
        assert "1 clips" in result.stdout
    first, second = tmp_path / "first", tmp_path / "second"
    assert sorted(path.name for path in (first / "clips").iterdir()) == ["000.mp4"]
    assert (first / "metadata.csv").read_bytes() == (second / "metadata.csv").read_bytes()
    assert (first / "clips" / "000.mp4").read_bytes() == (second / "clips" / "000.mp4").read_bytes()
    num_frames, size, sound, *_ = decode(first / "clips" / "000.mp4")
    assert size == (128, 128)
    assert 0.7 <= num_frames / 12 <= 8
    assert np.sqrt((sound**2).mean()) > 0.02


@pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="espeak-ng is not on the PATH (apt-get install espeak-ng)"
)
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Hello there you.,4,1,0,0,0,0,0", "[-3, 3]"),
        ("Hello there you.,1,5,0,0,0,0,0", "0, 1, 2 or 3"),
        ("Hello there you.,good,1,0,0,0,0,0", "not a number"),
        ("Hello there you.,1,1", "not a number"),
    ],
)
def test_make_sample_rejects_wrong_labels(root, tmp_path, line, words):
    source = write_utterances(tmp_path / "one.csv", line)
    result = run_script(root, "--utterances", source, "--output", tmp_path / "out")
    assert result.returncode == 1
    assert "line 2" in result.stderr
    assert words in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="espeak-ng is not on the PATH (apt-get install espeak-ng)"
)
def test_make_sample_keeps_other_clips(root, tmp_path):
    source = write_utterances(tmp_path / "one.csv", "Hello there you.,1,1,0,0,0,0,0")
    holiday = tmp_path / "out" / "clips" / "holiday.mp4"
    holiday.parent.mkdir(parents=True)
    holiday.write_bytes(b"mine")
    result = run_script(root, "--utterances", source, "--output", tmp_path / "out")
    assert result.returncode == 1
    assert "holiday.mp4" in result.stderr
    assert [path.name for path in holiday.parent.iterdir()] == ["holiday.mp4"]


def test_make_sample_requires_espeak(root, tmp_path):
    result = run_script(root, "--output", tmp_path / "out", PATH=str(tmp_path))
    assert result.returncode == 1
    assert "apt-get install espeak-ng" in result.stderr
    assert not (tmp_path / "out").exists()
