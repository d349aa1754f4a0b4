"""Layouts of voices: EMO-DB, prompts of Asterisk, stored audio, and the faces of RAVDESS."""

import io
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from datasets import Audio, load_dataset
from small_encoders import AUDIO, save_encoder

from modeling_umons import EMOTIONS
from modeling_umons.data.builders import builder_class
from modeling_umons.data.layouts.emodb import EmodbFolder
from modeling_umons.data.layouts.prompts import PromptFolder
from modeling_umons.data.layouts.ravdess import RavdessFolder
from modeling_umons.data.prepare import prepare_dataset
from modeling_umons.models.umons.media_umons import read_clip


TONE = (9000 * np.sin(np.arange(40000) / 9)).astype("<i2")


def write_wav(path: Path, rate: int = 16000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(TONE.tobytes())
    return path


def write_g722(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="g722") as container:
        stream = container.add_stream("g722", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(TONE[None], format="s16", layout="mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


@pytest.mark.parametrize(
    ("letter", "name", "present"),
    [("W", "anger", "anger"), ("L", "boredom", "neutral"), ("E", "disgust", "disgust"), ("A", "anxiety", "fear"),
     ("F", "happiness", "happy"), ("T", "sadness", "sad"), ("N", "neutral", "neutral")],
)  # fmt: skip
def test_emodb_row_of_each_emotion(tmp_path, letter, name, present):
    write_wav(tmp_path / f"12b10{letter}d.wav")
    source = EmodbFolder(tmp_path)
    assert source.segments == {"validation": [f"12b10{letter}d"]}
    row = source.read("validation", f"12b10{letter}d")
    assert source.classes[row["emotion"]] == name
    assert [emotion for emotion in (*EMOTIONS, "neutral") if row[emotion]] == [present]
    assert (row["speaker"], row["gender"], row["text"], row["sentiment"]) == ("emodb_12", "male", None, None)
    assert row["audio_features"].shape[1] == 80
    assert set(row) <= set(source.features)


def test_emodb_leaves_out_other_files(tmp_path):
    for name in ("03a01Fa", "03a01Xa", "99a01Fa", "03a01F"):
        write_wav(tmp_path / f"{name}.wav")
    source = EmodbFolder(tmp_path)
    assert source.segments == {"train": ["03a01Fa"]}
    assert sorted(source.left_out) == ["03a01F.wav", "03a01Xa.wav", "99a01Fa.wav"]
    (tmp_path / "03a01Fa.wav").unlink()
    with pytest.raises(OSError, match=r"no recording of EMO-DB: expected files such as 03a01Fa\.wav"):
        _ = EmodbFolder(tmp_path).segments


def test_outputs_of_an_encoder_replace_frames(tmp_path):
    write_wav(tmp_path / "voices" / "03a01Fa.wav")
    source = EmodbFolder(tmp_path / "voices", audio_encoder=save_encoder(AUDIO["whisper"](), tmp_path / "encoder"))
    assert source.features["audio_features"].feature.length == 16
    assert source.segments == {"train": ["03a01Fa"]}
    features = source.read("train", "03a01Fa")["audio_features"]
    assert features.shape == (100, 16)  # two seconds, its window
    source = EmodbFolder(tmp_path / "voices", audio_encoder=str(tmp_path / "encoder"), average_audio=True)
    averaged = source.read("train", "03a01Fa")["audio_features"]
    np.testing.assert_allclose(averaged, features.mean(axis=0, keepdims=True), atol=1e-5)
    with pytest.raises(ValueError, match="--average_audio averages the output of --audio_encoder, which is not given"):
        EmodbFolder(tmp_path / "voices", average_audio=True)


@pytest.mark.shared
def test_speakers_of_emodb_are_in_one_split(shared):
    source = EmodbFolder(shared / "data" / "emodb")
    assert {split: len(names) for split, names in source.segments.items()} == {
        "train": 200, "validation": 35, "test": 43,
    }  # fmt: skip
    speakers = {split: {name[:2] for name in names} for split, names in source.segments.items()}
    assert speakers == {"train": {"03", "08", "10", "11"}, "validation": {"12"}, "test": {"09"}}


def test_prompts_are_neutral_speech(tmp_path):
    write_wav(tmp_path / "en_US_f_Allison" / "vm-opts.wav", 8000)
    write_g722(tmp_path / "en_US_f_Allison" / "vm-opts.g722")
    write_wav(tmp_path / "sounds" / "it_IT_m_Carlo" / "dictate" / "long.wav", 8000)
    write_wav(tmp_path / "fr_CA_f_June" / "silence" / "9.wav", 8000)
    write_wav(tmp_path / "fr_CA_f_June" / "vm-opts.wav", 8000)
    write_wav(tmp_path / "other" / "vm-opts.wav", 8000)
    source = PromptFolder(tmp_path, keep_audio=True)
    assert source.segments == {"train": ["en/vm-opts", "it/dictate/long"], "validation": ["fr/vm-opts"]}
    row = source.read("train", "en/vm-opts")
    assert (row["neutral"], row["speaker"], row["gender"]) == (1.0, "prompts_Allison", "female")
    assert not any(row[emotion] for emotion in EMOTIONS)
    decoded = read_clip(io.BytesIO(row["audio"]["bytes"]).getvalue(), video=False, sampling_rate=16000).audio
    delayed = decoded[22 : 22 + len(TONE)]  # G.722 delays by 22 samples
    assert np.corrcoef(delayed, TONE[: len(delayed)])[0, 1] > 0.9
    with pytest.raises(ValueError, match="--keep_audio stores no features"):
        PromptFolder(tmp_path, keep_audio=True, max_length=9)
    assert list(PromptFolder(tmp_path, max_per_folder=1).read("train", "it/dictate/long")["audio_features"].shape)


def test_prepared_audio_is_stored_as_files(tmp_path):
    path = write_wav(tmp_path / "source" / "03a01Fa.wav")
    builder = builder_class("emodb")(
        layout="emodb",
        data_dir=str(tmp_path / "source"),
        options={"keep_audio": True},
        cache_dir=str(tmp_path / "cache"),
    )
    report = prepare_dataset(builder, tmp_path / "out")
    assert report["splits"]["train"]["missing"] == {"text": 1, "sentiment": 1, "emotions": 0}
    rows = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert not {"audio_features", "video_features"} & set(rows.column_names)
    row = rows.cast_column("audio", Audio(decode=False))[0]
    assert row["audio"]["bytes"] == path.read_bytes()
    assert (row["happy"], row["neutral"]) == (1.0, 0.0)


def test_ravdess_faces_are_video_features(tmp_path):
    for name in ("03-01-05-02-01-01-01", "03-01-05-02-01-02-01"):
        write_wav(tmp_path / "actor_01" / f"{name}.wav")
    faces = tmp_path / "faces.csv"
    faces.write_text("file,actor,AU01_r,AU45_c\n03-01-05-02-01-01-01,01,0.25,1\n")
    source = RavdessFolder(tmp_path, faces=faces)
    assert source.features["video_features"].feature.length == 2
    rows = [source.read("train", name) for name in source.segments["train"]]
    np.testing.assert_array_equal(rows[0]["video_features"], [[0.25, 1]])
    assert rows[1]["video_features"] is None
    assert (rows[0]["gender"], rows[0]["intensity"]) == ("male", "strong")
    faces.write_text("file,AU01_r\n03-01-05-02-01-01-01,much\n")
    with pytest.raises(ValueError, match=r"faces\.csv, line 2: an action unit is not a number"):
        RavdessFolder(tmp_path, faces=faces)
    faces.write_text("file,happy\n")
    with pytest.raises(ValueError, match="has no column `file` or no action units such as AU01_r"):
        RavdessFolder(tmp_path, faces=faces)
