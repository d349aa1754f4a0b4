import csv
import json
import pickle
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from modeling_umons import UmonsFeatureExtractor
from modeling_umons.data import extraction
from modeling_umons.data.extraction import ExtractionSettings
from modeling_umons.data.layouts import folder as folder_module
from modeling_umons.data.layouts.folder import ClipFolder
from modeling_umons.data.schema import to_table
from modeling_umons.models.umons.media_umons import read_clip


EMOTIONS = {"happy": 0.0, "sad": 1.0, "anger": 2.0, "surprise": 0.0, "disgust": 3.0, "fear": 0.5}


def write_wav(path: Path, seconds: float = 0.5, pitch: float = 220.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * 22050)) / 22050)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 22050, 0, "NONE", ""))
        file.writeframes((samples * 2**15).astype("<i2").tobytes())


def write_mute_clip(path: Path) -> None:
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=15)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 15)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_table(folder: Path, *rows: dict) -> None:
    with open(folder / "metadata.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list({key: None for row in rows for key in row}))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def sounds(tmp_path) -> Path:
    for number, name in enumerate(["a.wav", "b.wav", "c/d.wav"]):
        write_wav(tmp_path / name, pitch=200 + 50 * number)
    return tmp_path


@pytest.fixture
def tower(monkeypatch):
    """In place of R(2+1)D: the mean of each of its clips, 512 times."""

    class Mean(torch.nn.Module):
        def forward(self, clips):
            return clips.float().flatten(1).mean(1, keepdim=True).expand(-1, 512)

    monkeypatch.setattr(ExtractionSettings, "tower", lambda self: Mean())


@pytest.fixture
def no_decoding(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a clip was opened")

    monkeypatch.setattr(extraction.DecodingWorker, "read_clip", refuse)


def test_the_sample(root):
    folder = root / "hub" / "sample"
    source = ClipFolder(folder)
    with open(folder / "metadata.csv", encoding="utf-8", newline="") as file:
        table = {row["file_name"]: row for row in csv.DictReader(file)}
    assert {split: len(names) for split, names in source.segments.items()} == {
        split: sum(row["split"] == split for row in table.values()) for split in ("train", "validation", "test")
    }
    for split, names in source.segments.items():
        row = source.read(split, names[-1])
        file = row["video_id"] + ".mp4"
        clip = read_clip(folder / file, video=False)
        expected = UmonsFeatureExtractor()(clip.audio, sampling_rate=clip.sampling_rate)["input_features"][0]
        np.testing.assert_array_equal(row["audio_features"], expected)
        assert row["audio_features"].dtype == np.float32
        assert row["video_features"] is None
        assert (table[file]["split"], table[file]["text"]) == (split, row["text"])
        assert (float(table[file]["sentiment"]), float(table[file]["happy"])) == (row["sentiment"], row["happy"])


def test_folder_without_table_is_train(sounds):
    source = ClipFolder(sounds, ["audio"])
    assert source.segments == {"train": ["a[0]", "b[0]", "c/d[0]"]}
    row = source.read("train", "c/d[0]")
    assert row["audio_features"].shape == (len(row["audio_features"]), 80)
    assert np.isfinite(row["audio_features"]).all()
    assert [row[name] for name in ("text", "sentiment", "fear", "start")] == [None] * 4
    table = to_table([row], source.features)
    assert table["audio_features"].to_pylist() == [row["audio_features"].tolist()]


def test_folders_of_splits_leave_out_unlisted_clips(sounds):
    for name in ("a.wav", "b.wav"):
        (sounds / name).unlink()
    (sounds / "c").rename(sounds / "train")
    for name in ("train/e.wav", "Test/d.wav", "f.wav"):
        write_wav(sounds / name)
    write_table(sounds / "train", {"file_name": "d.wav", "text": "so"})
    source = ClipFolder(sounds)
    assert source.segments == {"train": ["train/d[0]"], "test": ["Test/d[0]"]}
    assert source.left_out == {name: f"{name}: the table does not name it" for name in ("f.wav", "train/e.wav")}
    row = source.read("train", "train/d[0]")
    assert (row["text"], row["audio_features"].shape[1]) == ("so", 80)


def test_labels_and_splits_of_the_table(sounds):
    emotions = json.dumps(list(EMOTIONS.values()))
    write_table(
        sounds,
        {"file_name": "b.wav", "split": "Dev", "text": "so", "sentiment": -1, "emotions": emotions,
         "start": 0.1, "end": 0.4},
        {"file_name": "a.wav", "split": "test", "text": "", "sentiment": "", "emotions": "", "start": "", "end": ""},
        {"file_name": "c/d.wav", "split": "", "text": "", "sentiment": "", "emotions": "", "start": "", "end": ""},
    )  # fmt: skip
    source = ClipFolder(sounds)
    assert source.segments == {"validation": ["b[0]"], "test": ["a[0]"]}
    assert source.left_out == {"c/d[0]": "c/d.wav: the table names no split for it"}
    row = source.read("validation", "b[0]")
    assert {name: row[name] for name in EMOTIONS} == EMOTIONS
    assert (row["text"], row["sentiment"], row["start"], row["end"]) == ("so", -1.0, 0.1, 0.4)
    assert len(row["audio_features"]) < len(source.read("test", "a[0]")["audio_features"])


def test_official_splits_of_videos_that_are_official(sounds, monkeypatch):
    monkeypatch.setattr(folder_module, "official_split", {"v1": "test", "v2": "train"}.get)
    videos = [("a.wav", "v1"), ("b.wav", "v2"), ("c/d.wav", "mine"), ("a.wav", "v1")]
    write_table(sounds, *({"file_name": file, "video_id": video, "text": "so"} for file, video in videos))
    source = ClipFolder(sounds, ("text",))
    assert source.segments == {"train": ["v2[0]"], "test": ["v1[0]", "v1[1]"]}
    assert source.left_out == {"mine[0]": "c/d.wav: its video is in no official split of CMU-MOSEI"}


@pytest.mark.shared
def test_a_real_official_video(shared, tmp_path):
    with open(shared / "data" / "mosei" / "transcripts_valid.csv", encoding="utf-8", newline="") as file:
        rows = [next(csv.DictReader(file)) for _ in range(1)]
    video = rows[0]["segment_id"].partition("[")[0]
    write_table(tmp_path, {"file_name": "x.wav", "video_id": video, "text": rows[0]["text"]})
    assert ClipFolder(tmp_path, ("text",)).segments == {"validation": [f"{video}[0]"]}


def test_text_only_opens_no_clip(sounds, no_decoding):
    write_table(sounds, {"file_name": "a.wav", "text": "so"}, {"file_name": "missing.wav", "text": "and so"},
                {"file_name": "b.wav", "text": ""})  # fmt: skip
    source = ClipFolder(sounds, ("text",))
    assert source.segments == {"train": ["a[0]", "missing[0]", "b[0]"]}
    assert [source.read("train", name)["text"] for name in ("a[0]", "missing[0]")] == ["so", "and so"]
    assert to_table([source.read("train", "a[0]")], source.features)["audio_features"].to_pylist() == [None]
    with pytest.raises(ValueError, match=r"b\[0\] \(b.wav\): the row has neither text nor words"):
        source.read("train", "b[0]")


def test_extractor_is_lazy_and_not_pickled(sounds):
    source = ClipFolder(sounds)
    _ = source.segments
    assert "_extract" not in vars(source)
    row = source.read("train", "a[0]")
    assert "_extract" in vars(source)
    again = pickle.loads(pickle.dumps(source))
    assert "_extract" not in vars(again)
    assert again.segments == source.segments
    np.testing.assert_array_equal(again.read("train", "a[0]")["audio_features"], row["audio_features"])


def test_missing_stream_is_null_with_warning(tmp_path, tower, caplog):
    write_mute_clip(tmp_path / "mute.mp4")
    source = ClipFolder(tmp_path, ("audio", "video"), tower_weights="weights.pt", max_length=2)
    (name,) = source.segments["train"]
    row = source.read("train", name)
    assert row["audio_features"] is None
    assert row["video_features"].shape == (1, 512)
    assert row["video_features"].dtype == np.float32
    (record,) = caplog.records
    assert "mute[0] (mute.mp4): audio_features is null: the clip lacks this stream" in record.getMessage()


def test_frames_kept(sounds):
    assert ClipFolder(sounds, max_length=2).read("train", "a[0]")["audio_features"].shape == (2, 80)


def test_extractor_of_a_model(sounds, tmp_path):
    UmonsFeatureExtractor(max_length=1).save_pretrained(tmp_path / "model")
    source = ClipFolder(sounds, model=str(tmp_path / "model"))
    assert source.read("train", "a[0]")["audio_features"].shape == (1, 80)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ()}, "pass any of text, audio, video"),
        ({"modalities": ("text", "sound")}, "modalities are 'text, sound'; pass any of"),
        ({"modalities": ("video",)}, "need a video tower"),
        ({"tower_weights": "x.pt"}, "video is not among"),
        ({"modalities": ("text",), "max_length": 3}, "Text only is copied"),
        ({"max_length": 0}, "max_length is 0"),
    ],
)
def test_contradicting_options_raise(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        ClipFolder(tmp_path, **options)


def test_missing_tower_or_model_raises_once(sounds):
    with pytest.raises(ValueError, match=r"'nowhere.pt' is neither a file nor weights of torchvision"):
        _ = ClipFolder(sounds, ("video",), tower_weights="nowhere.pt").segments
    with pytest.raises(OSError, match="nowhere"):
        _ = ClipFolder(sounds, model=str(sounds / "nowhere")).segments


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"file_name": "a.wav", "split": "trial"}], r"a\[0\]: its split is 'trial'; use one of train"),
        ([{"file_name": "a.wav", "segment_id": "x"}, {"file_name": "b.wav", "segment_id": "x"}],
         "'a.wav' and 'b.wav' are both the segment 'x'"),
        ([{"path": "a.wav"}], "metadata.csv has no column `file_name`"),
    ],
)  # fmt: skip
def test_tables_that_are_broken(sounds, rows, message):
    write_table(sounds, *rows)
    with pytest.raises(ValueError, match=message):
        _ = ClipFolder(sounds).segments


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        ({"file_name": "missing.wav"}, OSError, r"missing\[0\] \(missing.wav\): .* there is no such file"),
        ({"file_name": "empty.wav"}, OSError, r"empty\[0\] \(empty.wav\): .* could not be opened"),
        ({"file_name": "a.wav", "start": "soon"}, ValueError, r"a\[0\] \(a.wav\): start='soon' is not a number"),
        ({"file_name": "a.wav", "start": 3, "end": 4}, ValueError, r"a\[0\] \(a.wav\): .* lies outside"),
        ({"file_name": "a.wav", "emotions": "[1]"}, ValueError, r"a\[0\] \(a.wav\): .* must be 6 numbers"),
        ({"file_name": "a.wav", "happy": "yes"}, ValueError, r"a\[0\] \(a.wav\): happy='yes' is not a number"),
    ],
)
def test_broken_segment_raises_only_for_itself(sounds, row, kind, message):
    (sounds / "empty.wav").touch()
    write_table(sounds, row, {"file_name": "b.wav"})
    source = ClipFolder(sounds)
    assert len(source.segments["train"]) == 2
    assert source.read("train", "b[0]")["audio_features"].shape[1] == 80
    with pytest.raises(kind, match=message):
        source.read("train", source.segments["train"][0])
