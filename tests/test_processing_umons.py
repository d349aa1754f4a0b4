"""What the processor makes of text, sound and video, of rows that lack some of them, and what the model makes of that."""

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, AutoProcessor, AutoTokenizer, AutoVideoProcessor

from modeling_umons import (
    UmonsConfig,
    UmonsFeatureExtractor,
    UmonsForSequenceClassification,
    UmonsProcessor,
    UmonsVideoProcessor,
    build_tokenizer,
)


SAMPLING_RATE = 22050
TEXT = ["input_ids", "attention_mask"]
AUDIO = ["input_features", "input_features_mask"]
VIDEO = ["pixel_values_videos", "video_features_mask"]


@pytest.fixture(scope="module")
def processor():
    return UmonsProcessor(
        tokenizer=build_tokenizer(["so", "very", "glad", "sad"]),
        feature_extractor=UmonsFeatureExtractor(),
        video_processor=UmonsVideoProcessor(size={"height": 12, "width": 16}),
    )


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = UmonsConfig(
        vocab_size=8, word_embedding_size=12, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_labels=6
    )
    config.problem_type = "multi_label_classification"
    return UmonsForSequenceClassification(config).eval()


def make_waveform(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, int(seconds * SAMPLING_RATE)).astype(np.float32)


def make_video(num_frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num_frames, 20, 24, 3), dtype=np.uint8)


def test_one_row_of_each_modality(processor):
    inputs = processor(text="So very glad!", return_tensors="pt")
    assert list(inputs) == TEXT
    assert inputs["input_ids"].tolist() == [[2, 3, 4]]

    inputs = processor(audio=make_waveform(1.0), sampling_rate=SAMPLING_RATE, return_tensors="pt")
    assert sorted(inputs) == sorted(AUDIO)
    assert inputs["input_features"].shape == (1, 6, 80)

    inputs = processor(videos=make_video(24), return_tensors="pt")
    assert sorted(inputs) == sorted(VIDEO)
    assert inputs["pixel_values_videos"].shape == (1, 2, 16, 3, 12, 16)


def test_one_row_has_a_batch_axis_without_tensors(processor):
    assert processor(text="So very glad!")["input_ids"] == [[2, 3, 4]]


def test_parts_give_what_they_give_alone(processor):
    texts, waveforms, videos = ["so glad", "very very sad"], [make_waveform(1.0), make_waveform(2.0)], [make_video(24)] * 2
    inputs = processor(
        text=texts, audio=waveforms, videos=videos, sampling_rate=SAMPLING_RATE, return_tensors="pt"
    )
    assert sorted(inputs) == sorted([*TEXT, *AUDIO, *VIDEO]) == sorted(processor.model_input_names)
    alone = {
        **processor.tokenizer(texts, padding=True, return_tensors="pt"),
        **processor.feature_extractor(waveforms, sampling_rate=SAMPLING_RATE, return_tensors="pt"),
        **processor.video_processor(videos, return_tensors="pt"),
    }
    for name, values in inputs.items():
        assert torch.equal(values, alone[name]), name
    assert inputs["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert inputs["input_features_mask"].sum(dim=1).tolist() == [6, 11]


@pytest.mark.parametrize("return_tensors", ["pt", "np", None])
def test_absent_rows_are_zero_and_others_as_without_them(processor, return_tensors):
    waveforms = [make_waveform(1.0), make_waveform(2.0)]
    options = {"sampling_rate": SAMPLING_RATE, "return_tensors": return_tensors}
    inputs = processor(
        text=[None, "so glad", "sad", "sad"],
        audio=[None, waveforms[0], None, waveforms[1]],
        videos=[make_video(16), make_video(24), None, None],
        **options,
    )
    alone = processor(text=["so glad", "sad", "sad"], audio=waveforms, videos=[make_video(16), make_video(24)], **options) \
        if False else None
    assert alone is None
    has_text, has_audio, has_video = [1, 2, 3], [1, 3], [0, 1]
    for names, rows in ((TEXT, has_text), (AUDIO, has_audio), (VIDEO, has_video)):
        for name in names:
            values = np.asarray(inputs[name])
            assert len(values) == 4
            for row in set(range(4)) - set(rows):
                assert not values[row].any(), (name, row)
            for row in rows:
                assert values[row].any(), (name, row)
    features = processor.feature_extractor(waveforms, sampling_rate=SAMPLING_RATE)
    for name in AUDIO:
        np.testing.assert_array_equal(np.asarray(inputs[name])[has_audio], features[name])
        assert isinstance(inputs[name], torch.Tensor if return_tensors == "pt" else np.ndarray)
    clips = processor.video_processor([make_video(16), make_video(24)], return_tensors="np")
    for name in VIDEO:
        np.testing.assert_array_equal(np.asarray(inputs[name])[has_video], clips[name])
