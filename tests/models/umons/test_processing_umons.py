"""Processor of text, audio and video, rows with missing modalities, and the model on its outputs."""

import re

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
from modeling_umons.models.umons.media_umons import read_clip


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


def test_parts_equal_those_called_alone(processor):
    texts, waveforms, videos = (
        ["so glad", "very very sad"],
        [make_waveform(1.0), make_waveform(2.0)],
        [make_video(24)] * 2,
    )
    inputs = processor(text=texts, audio=waveforms, videos=videos, sampling_rate=SAMPLING_RATE, return_tensors="pt")
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


@pytest.mark.parametrize("return_tensors", ["pt", "np"])
def test_missing_rows_are_zero(processor, return_tensors):
    waveforms, videos = [make_waveform(1.0), make_waveform(2.0)], [make_video(16), make_video(24)]
    inputs = processor(
        text=[None, "so glad", "sad", "sad"],
        audio=[None, waveforms[0], None, waveforms[1]],
        videos=[*videos, None, None],
        sampling_rate=SAMPLING_RATE,
        return_tensors=return_tensors,
    )
    alone = {
        **processor.tokenizer(["so glad", "sad", "sad"], padding=True, return_tensors="np"),
        **processor.feature_extractor(waveforms, sampling_rate=SAMPLING_RATE, return_tensors="np"),
        **processor.video_processor(videos, return_tensors="np"),
    }
    present = {**dict.fromkeys(TEXT, (1, 2, 3)), **dict.fromkeys(AUDIO, (1, 3)), **dict.fromkeys(VIDEO, (0, 1))}
    assert inputs.keys() == present.keys()
    for name, rows in present.items():
        assert isinstance(inputs[name], torch.Tensor if return_tensors == "pt" else np.ndarray)
        values = np.asarray(inputs[name])
        assert values.dtype == alone[name].dtype
        np.testing.assert_array_equal(values[list(rows)], alone[name], err_msg=name)
        assert values.shape[0] == 4
        assert not np.delete(values, rows, axis=0).any(), name


def test_modality_missing_in_all_rows_is_omitted(processor):
    audio = [make_waveform(1.0)] * 2
    inputs = processor(
        text=[None, ""], audio=audio, videos=[None, None], sampling_rate=SAMPLING_RATE, return_tensors="pt"
    )
    assert sorted(inputs) == sorted(AUDIO)


@pytest.mark.parametrize("wordless", ["", "...", "?!"])
def test_text_without_words_is_missing(processor, wordless):
    inputs = processor(
        text=[wordless, "so glad"],
        audio=[make_waveform(1.0)] * 2,
        sampling_rate=SAMPLING_RATE,
        return_tensors="pt",
    )
    assert inputs["attention_mask"].tolist() == [[0, 0], [1, 1]]

    with pytest.raises(ValueError, match=rf"Row 1 .* {re.escape(repr(wordless))}, has no word"):
        processor(text=["so glad", wordless], return_tensors="pt")
    with pytest.raises(ValueError, match=r"Row 0 .* has no word"):
        processor(text=wordless)
    # Without the mask as well.
    with pytest.raises(ValueError, match=r"Row 1 .* has no word"):
        processor(text=["so glad", wordless], return_attention_mask=False)


def test_silent_audio_is_missing(processor, model):
    silence, words = np.full(SAMPLING_RATE, 1e-5, np.float32), ["so glad", "sad"]
    options = {"sampling_rate": SAMPLING_RATE, "return_tensors": "pt"}
    inputs = processor(text=words, audio=[silence, make_waveform(1.0)], **options)
    expected = processor(text=words, audio=[None, make_waveform(1.0)], **options)
    assert inputs.keys() == expected.keys()
    assert all(torch.equal(inputs[name], expected[name]) for name in inputs)
    assert sorted(processor(text=words, audio=[silence, silence], **options)) == sorted(TEXT)
    with pytest.raises(ValueError, match=r"Row 1 of the batch has no modality: its audio is silent\. Leave it out"):
        processor(audio=[make_waveform(1.0), silence], **options)
    with pytest.raises(ValueError, match="its text, '', has no word and its audio is silent"):
        processor(text="", audio=silence, **options)


def test_row_without_modality_raises(processor):
    with pytest.raises(ValueError, match=r"^Row 1 of the batch has no modality\. Leave it out\.$"):
        processor(text=["glad", None], audio=[make_waveform(1.0), None], sampling_rate=SAMPLING_RATE)


@pytest.mark.parametrize("audio", [[make_waveform(1.0)], [make_waveform(1.0), None, None], [None]])
def test_unequal_numbers_of_rows_raise(processor, audio):
    with pytest.raises(ValueError, match=rf"same number of rows.*`text` 2, `audio` {len(audio)}"):
        processor(text=["so", "glad"], audio=audio, sampling_rate=SAMPLING_RATE)


def test_invalid_inputs_raise(processor):
    with pytest.raises(ValueError, match="have no `images`"):
        processor(text="glad", images=np.zeros((8, 8, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="has no `video`: pass `videos`"):
        processor(text="glad", video=make_video(16))
    with pytest.raises(ValueError, match="`audio` is an empty list"):
        processor(text="glad", audio=[])
    with pytest.raises(ValueError, match="at least one input"):
        processor()


def test_long_inputs_are_truncated(processor):
    inputs = processor(text="so " * 70, audio=make_waveform(15.0), sampling_rate=SAMPLING_RATE, return_tensors="pt")
    assert inputs["input_ids"].shape == (1, 60)
    assert inputs["input_features"].shape == (1, 60, 80)


def test_options_reach_the_parts(processor):
    waveform = make_waveform(1.0)
    inputs = processor(text="so very glad", audio=waveform, sampling_rate=8000, return_tensors="pt")
    expected = processor.feature_extractor(waveform, sampling_rate=8000, return_tensors="pt")
    assert torch.equal(inputs["input_features"], expected["input_features"])
    assert inputs["input_features"].shape[1] == 14  # 2.76 s at 8 kHz, where 1 s at 22.05 kHz has 6 frames

    inputs = processor(
        text=["so very glad", "sad"],
        audio=[waveform, None],
        text_kwargs={"max_length": 2},
        audio_kwargs={"sampling_rate": SAMPLING_RATE, "padding": "max_length"},
        return_tensors="pt",
    )
    assert inputs["input_ids"].tolist() == [[2, 3], [5, 0]]
    assert inputs["input_features"].shape == (2, 60, 80)


def test_audio_rows_of_an_array_are_a_batch(processor):
    rows = np.stack([make_waveform(1.0, seed) for seed in range(2)])
    options = {"sampling_rate": SAMPLING_RATE, "return_tensors": "pt"}
    for given in (rows, torch.from_numpy(rows)):
        inputs = processor(text=["so", "glad"], audio=given, **options)
        assert torch.equal(inputs["input_features"], processor(audio=list(rows), **options)["input_features"])


def test_audio_files_are_decoded_as_by_read_clip(processor, root):
    clip = str(root / "hub" / "sample" / "clips" / "000.mp4")
    expected = processor.feature_extractor(read_clip(clip, video=False).audio, sampling_rate=SAMPLING_RATE)
    inputs = processor(text=["so", "glad", "sad"], audio=[clip, None, clip])
    np.testing.assert_array_equal(inputs["input_features"][[0, 2]], np.repeat(expected["input_features"], 2, axis=0))
    assert not inputs["input_features_mask"][1].any()


def test_save_and_load(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    for loaded in (UmonsProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is UmonsProcessor
        assert loaded.to_dict() == processor.to_dict()
        assert loaded.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
        inputs = {"text": ["So sad", None], "videos": [make_video(24)] * 2, "return_tensors": "pt"}
        found, expected = loaded(**inputs), processor(**inputs)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_each_part_loads_from_the_processors_folder(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == processor.tokenizer.get_vocab()
    for auto_class, part in (
        (AutoFeatureExtractor, processor.feature_extractor),
        (AutoVideoProcessor, processor.video_processor),
    ):
        loaded = auto_class.from_pretrained(tmp_path)
        assert type(loaded) is type(part)
        assert loaded.to_dict() == part.to_dict()


def test_batch_without_text_has_gradients(processor, model):
    labels = torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]]).repeat(2, 1)
    audio = [make_waveform(1.0), make_waveform(2.0)]
    for text in (["so glad", "very sad"], ["so glad", None], None):
        inputs = processor(text=text, audio=audio, sampling_rate=SAMPLING_RATE, return_tensors="pt")
        model.zero_grad()
        model(**inputs, labels=labels).loss.backward()
        gradient = model.model.front_ends["audio"].weight.grad
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


@torch.no_grad()
def test_missing_rows_equal_missing_modality(processor, model):
    texts, audio = ["so glad", "very very sad"], [make_waveform(1.0), make_waveform(2.0)]
    options = {"sampling_rate": SAMPLING_RATE, "return_tensors": "pt"}
    full = model(**processor(text=texts, audio=audio, **options)).logits
    text_only = model(**processor(text=texts, **options)).logits
    audio_only = model(**processor(audio=audio, **options)).logits
    first_has_text = model(**processor(text=[texts[0], None], audio=audio, **options)).logits
    first_has_audio = model(**processor(text=texts, audio=[audio[0], None], **options)).logits

    close = {"atol": 1e-6, "rtol": 0.0}
    torch.testing.assert_close(first_has_text, torch.stack([full[0], audio_only[1]]), **close)
    torch.testing.assert_close(first_has_audio, torch.stack([full[0], text_only[1]]), **close)
    # and it makes a difference
    assert (full[1] - audio_only[1]).abs().max() > 1e-3
    assert (full[1] - text_only[1]).abs().max() > 1e-3
