import pickle
import wave
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from modeling_umons import EMOTIONS, UmonsFeatureExtractor
from modeling_umons.data.layouts.ravdess import RAVDESS_EMOTIONS, RavdessFolder, split_of_actor
from modeling_umons.data.schema import to_table
from modeling_umons.models.umons.media_umons import read_clip


def write(folder: Path, *names: str) -> RavdessFolder:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        with wave.open(str(folder / name), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes((9000 * np.sin(np.arange(8000) / 9)).astype("<i2").tobytes())
    return RavdessFolder(folder)


@pytest.fixture(scope="module")
def ravdess(shared) -> RavdessFolder:
    return RavdessFolder(shared / "data" / "ravdess")


@pytest.mark.shared
def test_all_of_ravdess(ravdess):
    segments = ravdess.segments
    assert {split: len(names) for split, names in segments.items()} == {"train": 840, "validation": 180, "test": 180}
    assert ravdess.left_out == {}
    actors = {split: {name.partition("[")[0] for name in names} for split, names in segments.items()}
    assert actors["validation"] == {"actor_15", "actor_16", "actor_17"}
    assert actors["test"] == {"actor_18", "actor_19", "actor_20"}
    assert len(actors["train"]) == 14
    assert segments["train"][:2] == ["actor_01[0]", "actor_01[1]"]
    assert segments["train"][-1] == "actor_14[59]"


@pytest.mark.shared
def test_real_recordings(ravdess, shared):
    names = ravdess.segments["validation"][:60:4]
    rows = [ravdess.read("validation", name) for name in names]
    files = sorted((shared / "data" / "ravdess" / "actor_15").iterdir())[::4]
    for row, file in zip(rows, files, strict=True):
        fields = [int(field) for field in file.stem.split("-")]
        assert row["emotion"] == fields[2] - 1
        assert row["text"].startswith(("Kids", "Dogs")[fields[4] - 1])
        assert (row["speaker"], row["video_id"]) == ("actor_15", "actor_15")
    clip = read_clip(files[0], video=False)
    expected = UmonsFeatureExtractor()(clip.audio, sampling_rate=clip.sampling_rate)["input_features"][0]
    np.testing.assert_array_equal(rows[0]["audio_features"], expected)
    assert Counter(RAVDESS_EMOTIONS[row["emotion"]] for row in rows) == {"neutral": 1} | dict.fromkeys(
        RAVDESS_EMOTIONS[1:], 2
    )
    assert to_table(rows, ravdess.features).num_rows == 15


def test_actors_of_the_splits():
    assert Counter(map(split_of_actor, range(1, 25))) == {"train": 14, "validation": 3, "test": 7}


@pytest.mark.parametrize(
    ("code", "name", "column"),
    [("01", "neutral", None), ("02", "calm", None), ("03", "happy", "happy"), ("04", "sad", "sad"),
     ("05", "angry", "anger"),
     ("06", "fearful", "fear"), ("07", "disgust", "disgust"), ("08", "surprised", "surprise")],
)  # fmt: skip
def test_a_row_of_each_emotion(tmp_path, code, name, column):
    source = write(tmp_path, f"Actor_24/03-01-{code}-01-02-01-24.wav")
    assert source.segments == {"test": ["actor_24[0]"]}
    row = source.read("test", "actor_24[0]")
    assert source.features["emotion"].int2str(row["emotion"]) == name
    assert [emotion for emotion in EMOTIONS if row[emotion]] == [column] * (column is not None)
    assert {row[emotion] for emotion in EMOTIONS} <= {0.0, 1.0}
    assert row["audio_features"].shape[1] == 80
    known = ("segment_id", "video_id", "segment", "text", "speaker", "sentiment")
    assert [row.get(column) for column in known] == [
        "actor_24[0]", "actor_24", None, "Dogs are sitting by the door", "actor_24", None,
    ]  # fmt: skip
    assert set(row) <= set(source.features)


def test_segments_in_the_order_of_the_files(tmp_path):
    source = write(
        tmp_path, "actor_02/03-01-03-01-01-01-02.wav", "actor_01/03-01-05-01-01-01-01.wav",
        "actor_02/03-01-01-01-01-02-02.wav", "actor_15/03-01-01-01-01-02-15.wav",
    )  # fmt: skip
    assert source.segments == {"train": ["actor_01[0]", "actor_02[0]", "actor_02[1]"], "validation": ["actor_15[0]"]}
    assert [source.read("train", name)["emotion"] for name in source.segments["train"]] == [4, 0, 2]
    again = pickle.loads(pickle.dumps(source))
    assert again.read("train", "actor_02[1]")["emotion"] == 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("03-02-03-01-01-01-01", "its vocal channel is 02; only 01, speech, is read"),
        ("01-01-03-01-01-01-01", "its modality is 01; only 03, sound alone, is read"),
        ("03-01-09-01-01-01-01", "its name says emotion 09, but there are 01 to 08"),
        ("03-01-00-01-01-01-01", "its name says emotion 00"),
        ("03-01-03-01-03-01-01", "its name says statement 03, but there are 01 to 02"),
        ("03-01-03-01-01-01-25", "its name says actor 25, but there are 01 to 24"),
        ("03-01-03-01-01-01-02", "it lies in actor_01, but its name says actor 02"),
        ("03-01-03-01-01-01", "its name is not seven numbers"),
        ("03-01-03-01-01-01-01 (1)", "its name is not seven numbers"),
    ],
)
def test_files_that_are_left_out(tmp_path, name, reason):
    source = write(tmp_path, f"actor_01/{name}.wav", "actor_01/03-01-08-01-01-01-01.wav")
    (tmp_path / "actor_01" / "notes.txt").touch()
    assert source.segments == {"train": ["actor_01[0]"]}
    assert list(source.left_out) == [f"actor_01/{name}.wav"]
    assert source.left_out[f"actor_01/{name}.wav"].startswith(reason)
    assert source.read("train", "actor_01[0]")["surprise"] == 1


def test_a_recording_in_two_formats(tmp_path):
    source = write(tmp_path, "actor_01/03-01-08-01-01-01-01.wav", "actor_01/03-01-08-01-01-01-01.flac")
    assert source.segments == {"train": ["actor_01[0]"]}
    (reason,) = source.left_out.values()
    assert reason == "actor_01/03-01-08-01-01-01-01.flac is the same recording"


def test_folder_of_songs_raises(tmp_path):
    source = write(tmp_path, "actor_01/03-02-03-01-01-01-01.wav")
    with pytest.raises(
        OSError, match=r"contains no speech of RAVDESS \(1 files were left out\).* actor_01 to actor_24"
    ):
        _ = source.segments


def test_broken_recording_raises_only_for_itself(tmp_path):
    source = write(tmp_path, "actor_01/03-01-08-01-01-01-01.wav")
    (tmp_path / "actor_01" / "03-01-03-01-01-01-01.wav").write_text("no sound")
    assert len(source.segments["train"]) == 2
    with pytest.raises(OSError, match=r"actor_01\[0\] \(actor_01/03-01-03-01-01-01-01.wav\): .* could not be opened"):
        source.read("train", "actor_01[0]")
    assert source.read("train", "actor_01[1]")["surprise"] == 1


def test_frames_kept_and_extractor_of_a_model(tmp_path):
    file = "actor_01/03-01-08-01-01-01-01.wav"
    UmonsFeatureExtractor(max_length=1).save_pretrained(tmp_path / "model")
    write(tmp_path, file)
    for options, length in (({"max_length": 2}, 2), ({"model": str(tmp_path / "model")}, 1)):
        assert RavdessFolder(tmp_path, **options).read("train", "actor_01[0]")["audio_features"].shape == (length, 80)
