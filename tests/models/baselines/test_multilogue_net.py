"""Multilogue-Net: equations of the paper, and properties of conversations that hold for any weights."""

import math

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, pipeline

from modeling_umons import (
    MultilogueNetConfig,
    MultilogueNetForSequenceClassification,
    MultilogueNetModel,
    UmonsFeatureExtractor,
    UmonsProcessor,
    UmonsVideoProcessor,
    build_tokenizer,
)


SIZES = {"audio": 3, "video": 5}
INPUTS = {
    "text": ("input_ids", "attention_mask"),
    "audio": ("input_features", "input_features_mask"),
    "video": ("video_features", "video_features_mask"),
}
# Two conversations of up to five utterances, by three and two speakers with arbitrary ids.
SPEAKERS = torch.tensor([[7, 2, 7, 90, 2], [4, 0, 4, 0, 0]])
LENGTHS = torch.tensor([5, 3])
EXISTS = torch.arange(5) < LENGTHS[:, None]
# Missing modalities of utterances.
MISSING = {"text": [(0, 1), (1, 0)], "audio": [(0, 0), (0, 3), (1, 2)], "video": [(0, 1), (0, 4), (1, 1)]}
COMBINATIONS = [("text",), ("audio",), ("text", "audio"), ("audio", "video"), ("text", "audio", "video")]


def make_model(modalities, model_class=MultilogueNetForSequenceClassification, **options):
    torch.manual_seed(0)
    config = MultilogueNetConfig(
        modalities=list(modalities), vocab_size=20, word_embedding_size=4, audio_feature_size=SIZES["audio"],
        video_feature_size=SIZES["video"], utterance_size=6, global_state_size=5, party_state_size=4,
        emotion_state_size=3, **options,
    )  # fmt: skip
    return model_class(config).eval()


def make_inputs(modalities, seed: int = 0) -> dict[str, torch.Tensor]:
    """Build the inputs of a model. Padding has values that must not change the result."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {"speaker_ids": SPEAKERS, "utterance_mask": EXISTS.long()}
    for modality in modalities:
        length = {"text": 4, "audio": 6, "video": 3}[modality]
        lengths = torch.randint(1, length + 1, (2, 5), generator=generator)
        mask = torch.arange(length) < lengths[..., None]
        if len(modalities) > 1:
            for place in MISSING[modality]:
                mask[place] = False
        value, name = INPUTS[modality]
        if modality == "text":
            inputs[value] = torch.randint(1, 20, (2, 5, length), generator=generator)
        else:
            inputs[value] = torch.randn(2, 5, length, SIZES[modality], generator=generator)
        inputs[name] = mask.long()
    return inputs


# --- reference: the equations in numpy, one utterance at a time


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru(x, h, cell, stream):
    """Compute a GRU step as in Cho et al. (2014), with PyTorch's two biases."""
    size = len(h)
    of_input = x @ cell["weight_ih"][stream] + cell["bias_ih"][stream, 0]
    of_state = h @ cell["weight_hh"][stream] + cell["bias_hh"][stream, 0]
    r = sigmoid(of_input[:size] + of_state[:size])
    z = sigmoid(of_input[size : 2 * size] + of_state[size : 2 * size])
    n = np.tanh(of_input[2 * size :] + r * of_state[2 * size :])
    return (1 - z) * n + z * h


def lstm(words, weights, size):
    h, c = np.zeros(size), np.zeros(size)
    for word in words:
        gates = (
            weights["weight_ih_l0"] @ word
            + weights["bias_ih_l0"]
            + weights["weight_hh_l0"] @ h
            + weights["bias_hh_l0"]
        )
        i, f, g, o = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    return h


def follow(utterances, speakers, weights, stream, config):
    """Compute the emotion states of one modality in one direction. `utterances` are vectors, or None."""
    g, e = np.zeros(config.global_state_size), np.zeros(config.emotion_state_size)
    parties, past, emotions = {}, [], []
    for u, speaker in zip(utterances, speakers, strict=True):
        if u is None:
            emotions.append(None)
            continue
        p = parties.get(speaker, np.zeros(config.party_state_size))
        g = gru(np.concatenate([u, p]), g, weights["global_cell"], stream)
        c = np.zeros(config.global_state_size)
        if past:
            scores = [u @ weights["attention_weight"][stream] @ old for old in past]
            shares = np.exp(np.array(scores) - max(scores))
            c = sum(share * old for share, old in zip(shares / shares.sum(), past, strict=True))
        past.append(g)
        p = parties[speaker] = gru(np.concatenate([u, c]), p, weights["party_cell"], stream)
        e = gru(p, e, weights["emotion_cell"], stream)
        emotions.append(e)
    return emotions


def nest(model) -> dict:
    """Return the weights as arrays in nested dicts, by the dots in their names."""
    nested: dict = {}
    for name, value in model.state_dict().items():
        *path, last = name.split(".")
        inner = nested
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value.double().numpy()
    return nested


def reference_logits(model, inputs, conversation: int) -> np.ndarray:
    """Compute the logits (utterances, num_labels) of one conversation without its padding."""
    config, weights = model.config, nest(model)
    body, num = weights["model"], int(LENGTHS[conversation])
    speakers = inputs["speaker_ids"][conversation, :num].tolist() if "speaker_ids" in inputs else [0] * num
    states = []
    for m, modality in enumerate(config.modalities):
        value, name = (inputs[key][conversation].double().numpy() for key in INPUTS[modality])
        utterances = []
        for i in range(num):
            steps = [step for step, exists in zip(value[i], name[i], strict=True) if exists]
            if not steps:
                utterances.append(None)
            elif modality == "text":
                words = [body["embed_tokens"]["weight"][int(step)] for step in steps]
                utterances.append(lstm(words, body["lstm"], config.utterance_size))
            else:
                front_end = body["front_ends"][modality]
                utterances.append(front_end["weight"] @ (sum(steps) / len(steps)) + front_end["bias"])
        backward = m + len(config.modalities)
        ahead = follow(utterances, speakers, body["recurrence"], m, config)
        back = follow(utterances[::-1], speakers[::-1], body["recurrence"], backward, config)[::-1]
        states.append([None if a is None else np.concatenate([a, b]) for a, b in zip(ahead, back, strict=True)])

    size, logits = 2 * config.emotion_state_size, []
    for i in range(num):
        parts = [np.zeros(size) if own[i] is None else own[i] for own in states]
        for m1 in range(len(states)):
            for m2 in range(len(states)):
                if m1 == m2:
                    continue
                others = [state for state in states[m2] if state is not None]
                own = states[m1][i]
                if own is None or not others:
                    parts.append(np.zeros(size))
                    continue
                shares = np.array([math.exp(own @ other) for other in others])
                seen = sum(share * other for share, other in zip(shares / shares.sum(), others, strict=True))
                parts.append(seen * own)
        head = weights["classifier"]
        logits.append(head["weight"] @ np.concatenate(parts) + head["bias"])
    return np.stack(logits)


@pytest.mark.parametrize("modalities", COMBINATIONS, ids="-".join)
def test_logits_equal_reference(modalities):
    model, inputs = make_model(modalities, num_labels=4), make_inputs(modalities)
    with torch.no_grad():
        logits = model(**inputs).logits
    assert logits.shape == (2, 5, 4)
    for i, length in enumerate(LENGTHS):
        np.testing.assert_allclose(logits[i, :length].numpy(), reference_logits(model, inputs, i), atol=1e-5)


def test_logits_depend_on_speakers_but_not_on_their_ids():
    model, inputs = make_model(["audio"]), make_inputs(["audio"])
    with torch.no_grad():
        logits = model(**inputs).logits
        renamed = model(**inputs | {"speaker_ids": SPEAKERS * 5 + 3}).logits
        alone = model(**{name: value for name, value in inputs.items() if name != "speaker_ids"}).logits
        same = model(**inputs | {"speaker_ids": torch.full_like(SPEAKERS, 8)}).logits
    assert renamed.equal(logits)
    assert same.equal(alone)
    assert (alone - logits)[EXISTS].abs().amax(dim=-1).gt(1e-5).any()


# --- padding and missing modalities


@pytest.mark.parametrize("modalities", COMBINATIONS, ids="-".join)
def test_padding_does_not_change_logits(modalities):
    """Holds for steps and for utterances, before, between and after the others."""
    model, inputs = make_model(modalities), make_inputs(modalities)
    more = {}
    places = [1, 2, 4, 5, 7]  # of the five utterances among eight
    for name, value in inputs.items():
        padded = value.new_full((2, 8, *value.shape[2:]), 0 if name.endswith("mask") else 3)
        padded[:, places] = value
        if padded.ndim > 2:  # steps in front, after the first one, and behind
            steps = padded.new_full((2, 8, padded.shape[2] + 3, *padded.shape[3:]), 0 if name.endswith("mask") else 2)
            steps[:, :, [1, *range(3, steps.shape[2] - 1)]] = padded
            padded = steps
        more[name] = padded
    with torch.no_grad():
        expected, logits = model(**inputs).logits, model(**more).logits[:, places]
        alone = model(**{name: value[1:, :3] for name, value in inputs.items()}).logits
    torch.testing.assert_close(logits[EXISTS], expected[EXISTS], atol=1e-6, rtol=0)
    torch.testing.assert_close(alone[0], expected[1, :3], atol=1e-6, rtol=0)


def test_missing_input_equals_zero_mask():
    model, inputs = make_model(["text", "audio", "video"]), make_inputs(["text", "audio", "video"])
    inputs["attention_mask"] = EXISTS[..., None].expand(2, 5, 4).long()
    left_out = {name: value for name, value in inputs.items() if name not in INPUTS["audio"]}
    inputs["input_features_mask"] = torch.zeros_like(inputs["input_features_mask"])
    with torch.no_grad():
        assert model(**left_out).logits.equal(model(**inputs).logits)


def test_zeros_are_padding_without_masks():
    model, inputs = make_model(["text", "audio"]), make_inputs(["text", "audio"])
    for value, mask in (INPUTS["text"], INPUTS["audio"]):
        is_there = inputs[mask].bool() & EXISTS[..., None]
        inputs[value] = inputs[value] * (is_there if value == "input_ids" else is_there[..., None])
    bare = {name: value for name, value in inputs.items() if not name.endswith("mask")}
    with torch.no_grad():
        torch.testing.assert_close(model(**bare).logits[EXISTS], model(**inputs).logits[EXISTS])


# --- training


@pytest.mark.parametrize("modalities", COMBINATIONS, ids="-".join)
def test_every_parameter_has_gradient(modalities):
    model, inputs = make_model(modalities).train(), make_inputs(modalities)
    labels = torch.zeros(2, 5, dtype=torch.long).masked_fill(~EXISTS, -100)
    model(**inputs, labels=labels).loss.backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()] == []


@pytest.mark.parametrize(
    "kind", ["single_label_classification", "multi_label_classification", "regression", "joint_sentiment"]
)
def test_loss_is_mean_over_labelled_utterances(kind):
    """Equals the loss with one row per labelled utterance."""
    joint = kind == "joint_sentiment"
    num_labels = {"regression": 1, "joint_sentiment": 7}.get(kind, 3)
    options = {"joint_sentiment": True} if joint else {"problem_type": kind}
    model, inputs = make_model(["audio"], num_labels=num_labels, **options), make_inputs(["audio"])
    generator = torch.Generator().manual_seed(0)
    known = EXISTS.clone()
    known[0, 2] = False
    if kind == "single_label_classification":
        labels = torch.randint(0, 3, (2, 5), generator=generator).masked_fill(~known, -100)
    else:
        labels = torch.randint(0, 2, (2, 5, num_labels), generator=generator).float()
        labels = labels.masked_fill(~known[..., None], torch.nan)
        labels = labels[..., 0] if kind == "regression" else labels
    if joint:
        labels[0, 0, 0] = labels[0, 1, 3:] = torch.nan
    with torch.no_grad():
        outputs = model(**inputs, labels=labels)
        # Labels of padding are ignored even if they are valid.
        again = model(**inputs, labels=torch.where(EXISTS if labels.ndim == 2 else EXISTS[..., None], labels, 1))
    logits, rows = outputs.logits[known], labels[known]
    loss_of = torch.nn.functional
    if joint:
        of_sentiment = (logits[:, 0] - rows[:, 0])[~rows[:, 0].isnan()].abs().mean()
        emotions = ~rows[:, 1:].isnan()
        of_emotions = loss_of.binary_cross_entropy_with_logits(logits[:, 1:][emotions], rows[:, 1:][emotions])
        expected = of_sentiment + of_emotions
    elif kind == "regression":
        expected = loss_of.mse_loss(logits[:, 0], rows)
    elif kind == "multi_label_classification":
        expected = loss_of.binary_cross_entropy_with_logits(logits, rows)
    else:
        expected = loss_of.cross_entropy(logits, rows)
    torch.testing.assert_close(outputs.loss, expected)
    assert again.loss.equal(outputs.loss)


# --- errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"input_features": torch.ones(2, 5, 3)},
            r"`input_features` has shape \(2, 5, 3\), but this model takes conv",
        ),
        (
            {"speaker_ids": torch.zeros(2, 4)},
            r"`speaker_ids` has 2 conversation\(s\) of 4 utterance\(s\), but `input_f",
        ),
        ({"input_features": None}, "No input: pass at least one of"),
        ({"input_features": torch.ones(2, 5, 6, 4)}, r"\(batch, time, 3\)"),
        ({"utterance_mask": torch.zeros(2, 5)}, r"Row\(s\) \[0, 1\] of the batch are padding in every modality"),
        (
            {"input_features_mask": torch.zeros(2, 5, 6)},
            r"Row\(s\) \[0, 1, 2, 3, 4, 5, 6, 7\] of the batch are padding",
        ),
        ({"labels": torch.zeros(2, 4)}, r"`labels` has shape \(2, 4\), but there are 2 conversation"),
        ({"labels": torch.full((2, 5), -100)}, "No utterance has a label"),
    ],
    ids=["axes", "speakers", "none", "size", "no-conversation", "nothing", "labels", "no-label"],
)
def test_invalid_inputs_raise(change, message):
    inputs = make_inputs(["audio"]) | change
    with pytest.raises(ValueError, match=message):
        make_model(["audio"])(**inputs)


def test_invalid_config_raises():
    with pytest.raises(ValueError, match="`party_state_size` is 0: it must be at least 1"):
        MultilogueNetConfig(party_state_size=0)
    with pytest.raises(ValueError, match="`recurrent_dropout` is 2: it must be a probability"):
        MultilogueNetConfig(recurrent_dropout=2)


# --- pipeline


def test_pipeline_input_is_conversation_of_one_utterance():
    """Each segment of a file is a conversation of its own, for any batch size."""
    torch.manual_seed(0)
    processor = UmonsProcessor(build_tokenizer(["so", "very", "glad"]), UmonsFeatureExtractor(), UmonsVideoProcessor())
    config = MultilogueNetConfig(vocab_size=5, joint_sentiment=True, num_labels=7)
    model = MultilogueNetForSequenceClassification(config).eval()
    recognize = pipeline("multimodal-emotion-recognition", model=model, processor=processor)
    result = recognize({"text": "so glad"})
    with torch.no_grad():
        ids = processor.tokenizer("so glad", return_tensors="pt")["input_ids"]
        expected = model(input_ids=ids[None]).logits[0, 0, 0].item()
    assert result["sentiment"] == pytest.approx(expected, abs=1e-6)
    assert result["modalities"] == ["text"]

    sound = {"audio": np.sin(np.arange(48000) / 9).astype(np.float32), "sampling_rate": 16000}
    whole, cut = recognize(sound, chunk_length_s=1.0), recognize(sound, chunk_length_s=1.0, batch_size=2)
    assert len(whole) == 3
    assert [one["sentiment"] for one in cut] == pytest.approx([one["sentiment"] for one in whole], abs=1e-6)
    with pytest.raises(ValueError, match="requires a model with glimpses, which a MultilogueNet"):
        recognize({"text": "so glad"}, return_attention=True)


# --- saving


def test_saved_model_loads_with_auto_classes(tmp_path):
    model, inputs = make_model(["text", "audio"], joint_sentiment=True, num_labels=7), make_inputs(["text", "audio"])
    model.save_pretrained(tmp_path)
    loaded, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert isinstance(loaded, MultilogueNetForSequenceClassification)
    assert isinstance(AutoModel.from_pretrained(tmp_path), MultilogueNetModel)
    assert AutoConfig.from_pretrained(tmp_path).takes_conversations
    with torch.no_grad():
        assert loaded.eval()(**inputs).logits.equal(model(**inputs).logits)
