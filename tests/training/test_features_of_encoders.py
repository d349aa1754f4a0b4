"""Tests of extracted features of audio and video encoders and of models trained on them."""

import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from datasets import Dataset
from small_encoders import AUDIO, VIDEO, changed, save_encoder, weights_of

from modeling_umons import UmonsConfig, UmonsForSequenceClassification, UmonsProcessor
from modeling_umons.data.extraction import ExtractionSettings, extract_features
from modeling_umons.data.rows import make_collator
from modeling_umons.models.umons.media_umons import read_clip
from modeling_umons.tasks.task import make_task
from modeling_umons.training.arguments import AugmentationArguments, ModelArguments, RunArguments
from modeling_umons.training.build_models import Parts, System, make_config, make_model
from modeling_umons.training.encoders import prepare_encoders
from modeling_umons.training.trainer import UmonsTrainer


BODY = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def test_encoders_of_extracted_features_are_frozen():
    config = AUDIO["wav2vec2"]()
    model = UmonsForSequenceClassification(UmonsConfig(modalities=["audio"], audio_encoder=config, **BODY))
    prepare_encoders(model, ModelArguments(), running={"text"})
    learning = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert learning
    assert not any(".encoders." in name for name in learning)


@pytest.fixture(scope="module")
def wav2vec2(tmp_path_factory) -> str:
    return save_encoder(AUDIO["wav2vec2"](), tmp_path_factory.mktemp("wav2vec2"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Folder of four tones and their table."""
    folder = tmp_path_factory.mktemp("clips")
    random = np.random.default_rng(0)
    lines = ["file_name,text,sentiment,split"]
    for i, split in enumerate(["train", "train", "validation", "test"]):
        samples = 0.2 * random.normal(size=1600 + 400 * i)
        with wave.open(str(folder / f"{i}.wav"), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())
        lines.append(f"{i}.wav,good,{i - 1},{split}")
    (folder / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_extracted_features_equal_those_of_model(clips, wav2vec2, tmp_path):
    settings = ExtractionSettings(("text", "audio"), 40, audio_encoder=wav2vec2)
    report = extract_features(clips, tmp_path / "features", settings)
    assert (report.num_rows, report.failures) == (4, [])
    again = extract_features(clips, tmp_path / "features", settings)  # nothing is left to do
    assert again.num_rows == 4
    with pytest.raises(ValueError, match="max_audio_length"):
        extract_features(
            clips, tmp_path / "features", ExtractionSettings(("text", "audio"), 30, audio_encoder=wav2vec2)
        )

    data = {split: Dataset.from_parquet(str(path)) for split in ("train", "validation", "test")
            for path in (tmp_path / "features").rglob(f"{split}-*.parquet")}  # fmt: skip
    arguments = ModelArguments(
        audio_encoder=wav2vec2, **BODY, **NO_DROPOUT, config_overrides=["max_audio_length=40"], word_embedding_size=4
    )
    task, system = make_task("sentiment"), System.parse("umons", ["text", "audio"])
    parts = Parts.make(arguments, ["good"], system.encoders(arguments))
    config = make_config(system, arguments, parts, task)
    parts.processor.max_audio_length = config.max_audio_length
    model = make_model(config, arguments, parts)
    before = weights_of(model)
    run = RunArguments(
        output_dir=tmp_path / "run", num_train_epochs=1, disable_tqdm=True, report_to="none", use_cpu=True
    )
    collator = make_collator(parts.processor, config, task)
    trainer = UmonsTrainer(model, run, task, data, collator, AugmentationArguments(), parts.processor)
    trainer.run()
    names = changed(model, before)
    assert "model.front_ends.audio.weight" in names
    assert not any(".encoders." in name for name in names)

    clip = read_clip(str(clips / "3.wav"), video=False, sampling_rate=16000)
    inputs = parts.processor(text=["good"], audio=[clip.audio], sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        heard = model.eval()(**inputs).logits.numpy()
    np.testing.assert_allclose(heard, trainer.logits(data["test"]), atol=1e-5)

    model.save_pretrained(tmp_path / "saved")
    parts.processor.save_pretrained(tmp_path / "saved")
    settings = ExtractionSettings(("text", "audio"), model=str(tmp_path / "saved"))
    extract_features(clips, tmp_path / "again", settings)
    one, other = (next((tmp_path / name).rglob("test-*.parquet")) for name in ("features", "again"))
    assert Dataset.from_parquet(str(one))["audio_features"] == Dataset.from_parquet(str(other))["audio_features"]


def test_extracted_video_features_equal_those_of_model(tmp_path):
    encoder = save_encoder(VIDEO["videomae"](), tmp_path / "videomae")
    (tmp_path / "clips").mkdir()
    with av.open(str(tmp_path / "clips" / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=15)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        random = np.random.default_rng(0)
        for number in range(20):
            picture = random.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 15)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    settings = ExtractionSettings(("video",), 2, video_encoder=encoder)
    extract_features(tmp_path / "clips", tmp_path / "features", settings)
    rows = Dataset.from_parquet(str(next((tmp_path / "features").rglob("*.parquet"))))
    features = np.array(rows["video_features"][0])

    processor = UmonsProcessor.from_encoders(video=encoder, max_video_length=2)
    model = UmonsForSequenceClassification.from_encoders(video=encoder, max_video_length=2, num_labels=2, **BODY)
    cut = processor.video_processor
    clip = read_clip(str(tmp_path / "clips" / "clip.mp4"), audio=False, frame_rate=cut.frame_rate, size=(16, 16))
    with torch.no_grad():
        seen = model.get_video_features(cut([clip.frames], return_tensors="pt")["pixel_values_videos"])
    np.testing.assert_allclose(features, seen.pooler_output[0].numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"video_encoder": "y"}, "video is not among"),
        ({"modalities": ("video",), "tower_weights": "x", "video_encoder": "y"}, "pass one of them"),
        ({"modalities": ("video",), "tower_weights": "x", "audio_encoder": "y"}, "audio is not among"),
        ({"audio_encoder": "y", "model": "z"}, "both given"),
    ],
)
def test_extraction_rejects_unused_encoders(options, match):
    with pytest.raises(ValueError, match=match):
        ExtractionSettings(**options)
