"""UMONS model: equality with the equations of the paper, masking, outputs, losses and errors."""

import itertools
import logging
import math

import pytest
import torch
from reference_umons import Weights, classify_row, encode_row
from transformers.utils.logging import warning_once

from modeling_umons import EMOTIONS, MODALITIES, UmonsConfig, UmonsForSequenceClassification, UmonsModel
from modeling_umons.models.umons.modeling_tbje import UmonsLSTM


VALUES = {"text": "input_ids", "audio": "input_features", "video": "video_features"}
MASKS = {"text": "attention_mask", "audio": "input_features_mask", "video": "video_features_mask"}
SUBSETS = [list(s) for n in (1, 2, 3) for s in itertools.combinations(MODALITIES, n)]
LENGTHS = {"text": [9, 1, 4, 6], "audio": [3, 11, 1, 8], "video": [2, 5, 7, 1]}


def make_config(**overrides) -> UmonsConfig:
    fields = {
        "modalities": list(MODALITIES), "vocab_size": 30, "word_embedding_size": 6, "hidden_size": 16,
        "intermediate_size": 20, "num_hidden_layers": 3, "num_attention_heads": 4, "max_text_length": 9,
        "max_audio_length": 11, "max_video_length": 7, "audio_feature_size": 5, "video_feature_size": 6,
        "num_labels": 3,
    }  # fmt: skip
    return UmonsConfig(**{**fields, **overrides})


def make_model(cls=UmonsForSequenceClassification, attn_implementation: str = "sdpa", **overrides):
    torch.manual_seed(0)
    model = cls._from_config(make_config(**overrides), attn_implementation=attn_implementation)
    # Norms are initialized as the identity, which would hide a misplaced norm.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def make_batch(modalities=MODALITIES, lengths=LENGTHS, seed: int = 1) -> dict[str, torch.Tensor]:
    """Return a ragged batch with masks, padded with zeros to the longest row."""
    generator = torch.Generator().manual_seed(seed)
    batch = {}
    for modality in modalities:
        shape = (len(lengths[modality]), max(lengths[modality]))
        mask = torch.arange(shape[1]) < torch.tensor(lengths[modality])[:, None]
        if modality == "text":
            values = torch.randint(2, 30, shape, generator=generator) * mask
        else:
            size = {"audio": 5, "video": 6}[modality]
            values = torch.randn(*shape, size, generator=generator) * mask[..., None]
        batch |= {VALUES[modality]: values, MASKS[modality]: mask.long()}
    return batch


def name_of(argument: str) -> str:
    return next(m for m in MODALITIES if argument in (VALUES[m], MASKS[m]))


def without(batch: dict, modality: str) -> dict:
    return {name: value for name, value in batch.items() if name not in (VALUES[modality], MASKS[modality])}


def rows_of(batch: dict) -> list[dict[str, torch.Tensor]]:
    """Return the rows without padding, the input of the reference."""
    given = [modality for modality in MODALITIES if VALUES[modality] in batch]
    rows = []
    for i in range(len(batch[VALUES[given[0]]])):
        row = {m: batch[VALUES[m]][i][batch[MASKS[m]][i].bool()] for m in given}
        rows.append({m: value for m, value in row.items() if len(value)})
    return rows


@torch.no_grad()
def logits_of(model, batch: dict) -> torch.Tensor:
    return model(**batch).logits


def assert_same(actual: torch.Tensor, expected: torch.Tensor, atol: float = 1e-5):
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


# The equations


@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])
@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["float32", "float64"]
)
@pytest.mark.parametrize("modalities", SUBSETS, ids="+".join)
def test_forward_equals_paper_equations(modalities, dtype, atol, attn_implementation):
    model = make_model(modalities=modalities, attn_implementation=attn_implementation).to(dtype)
    batch = make_batch(modalities)
    batch = {name: value.to(dtype) if value.is_floating_point() else value for name, value in batch.items()}
    with torch.no_grad():
        outputs = model.model(**batch)
        logits = model(**batch).logits
    assert logits.dtype == dtype
    for i, row in enumerate(rows_of(batch)):
        sequences, pooled = encode_row(Weights(model.state_dict()) / "model", model.config, row)
        assert_same(outputs.pooler_output[i], pooled, atol)
        assert_same(logits[i], classify_row(model.state_dict(), model.config, row), atol)
        joint = outputs.last_hidden_state[i].split([batch[VALUES[m]].shape[1] for m in modalities])
        for steps, modality in zip(joint, modalities, strict=True):
            assert_same(steps[: len(row[modality])], sequences[modality], atol)


ABLATIONS = [
    {"use_cross_attention": False}, {"use_glimpses": False}, {"use_outer_residual": False}, {"guide": "audio"},
    {"audio_front_end": "lstm"},
]  # fmt: skip


@pytest.mark.parametrize("options", ABLATIONS, ids=lambda options: next(iter(options)))
def test_ablation_equals_its_equation(options, tmp_path):
    model = make_model(**options)
    batch = make_batch(lengths={"text": [9, 0, 4], "audio": [3, 11, 0], "video": [1, 5, 7]})
    expected = torch.stack([classify_row(model.state_dict(), model.config, row) for row in rows_of(batch)])
    assert_same(logits_of(model, batch), expected)
    model.save_pretrained(tmp_path)
    loaded = UmonsForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(logits_of(loaded, batch), logits_of(model, batch))
    assert (logits_of(make_model(), batch) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("given", SUBSETS[:-1], ids="+".join)
def test_forward_equals_equations_without_modalities(given):
    """Missing modalities add nothing, and without text there is no guided attention."""
    model = make_model()
    batch = make_batch(given)
    expected = [classify_row(model.state_dict(), model.config, row) for row in rows_of(batch)]
    assert_same(logits_of(model, batch), torch.stack(expected))


def test_forward_equals_equations_for_ragged_modalities():
    model = make_model()
    batch = make_batch(lengths={"text": [9, 0, 4, 0, 2], "audio": [3, 11, 0, 8, 0], "video": [0, 5, 7, 0, 0]})
    rows = rows_of(batch)
    assert [len(row) for row in rows] == [2, 2, 2, 1, 1]
    expected = torch.stack([classify_row(model.state_dict(), model.config, row) for row in rows])
    assert_same(logits_of(model, batch), expected)


def test_recipe_parameter_count():
    with torch.device("meta"):
        model = UmonsForSequenceClassification(UmonsConfig(vocab_size=14000, num_labels=6))
    assert model.num_parameters() == 32_575_920
    assert round((model.num_parameters() - 14000 * 300) / 1e6, 1) == 28.4  # the number in the paper


# Padding and missing modalities


@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("modalities", SUBSETS, ids="+".join)
def test_padding_does_not_change_logits(modalities, attn_implementation):
    limits = {f"max_{modality}_length": 60 for modality in MODALITIES}
    model = make_model(modalities=modalities, attn_implementation=attn_implementation, **limits)
    tight = make_batch(modalities)
    expected = logits_of(model, tight)

    wide = {}
    for name, value in tight.items():
        padding = (0, 60 - value.shape[1]) if value.ndim == 2 else (0, 0, 0, 60 - value.shape[1])
        wide[name] = torch.nn.functional.pad(value, padding)
    assert_same(logits_of(model, wide), expected)

    # Without masks, id 0 and all-zero frames are padding.
    assert_same(logits_of(model, {VALUES[m]: wide[VALUES[m]] for m in modalities}), expected)

    # With masks, values of the padding do not matter.
    noisy = dict(wide)
    for modality in modalities:
        values, mask = wide[VALUES[modality]], wide[MASKS[modality]].bool()
        noise = torch.full_like(values, 7)
        noisy[VALUES[modality]] = torch.where(mask if modality == "text" else mask[..., None], values, noise)
    assert_same(logits_of(model, noisy), expected)

    for i in range(len(expected)):
        alone = {VALUES[m]: tight[VALUES[m]][i : i + 1, : LENGTHS[m][i]] for m in modalities}
        assert_same(logits_of(model, alone), expected[i : i + 1])


@torch.no_grad()
@pytest.mark.parametrize("kept", ["11100", "00111", "10101"])
@pytest.mark.parametrize("audio_front_end", ["linear", "lstm"])
def test_masked_steps_do_not_count_in_any_place(kept, audio_front_end):
    model = make_model(audio_front_end=audio_front_end)
    batch = make_batch(lengths={"text": [3], "audio": [3], "video": [3]})
    is_kept = torch.tensor([[step == "1" for step in kept]])
    spread = {}
    for modality in MODALITIES:
        values = batch[VALUES[modality]]
        spread[VALUES[modality]] = torch.full((1, 5, *values.shape[2:]), 9, dtype=values.dtype)
        spread[VALUES[modality]][is_kept] = values[0]
        spread[MASKS[modality]] = is_kept.long()
    expected, outputs = (model.model(**inputs, output_hidden_states=True) for inputs in (batch, spread))
    assert_same(outputs.pooler_output, expected.pooler_output)
    # Steps keep their places in the outputs.
    for states, others in zip(outputs.hidden_states, expected.hidden_states, strict=True):
        assert_same(states[is_kept.repeat(1, 3)], others[0])


def test_legacy_masking_attends_to_padding():
    lengths = {"max_audio_length": 11, "max_video_length": 11}
    model, legacy = make_model(**lengths), make_model(legacy_masking=True, **lengths)
    legacy.load_state_dict(model.state_dict())
    batch = make_batch()
    assert (logits_of(model, batch) - logits_of(legacy, batch)).abs().max() > 1e-2
    # It attends to as much padding as the published code: up to the maximum length.
    cut = {name: value[:1, : max(LENGTHS[name_of(name)][0], 1)] for name, value in batch.items()}
    assert_same(logits_of(legacy, cut), logits_of(legacy, batch)[:1])


def test_legacy_masking_masks_video_glimpse_like_audio():
    model = make_model(legacy_masking=True, max_audio_length=11, max_video_length=11)
    batch = make_batch(lengths={"text": [4, 4], "audio": [3, 0], "video": [6, 6]})
    with torch.no_grad():
        weights = model(**batch, output_glimpse_weights=True).glimpse_weights
    seen = (weights[2] > 1e-6).all(dim=2)  # of block 0
    # Without audio, the glimpse has the mask of the video.
    assert seen.sum(dim=1).tolist() == [3, 6]
    assert (weights[5] > 1e-6).all()  # of block 1: all positions, including padding


@pytest.mark.parametrize("legacy_masking", [False, True], ids=["", "legacy"])
@pytest.mark.parametrize("absent", SUBSETS[:-1], ids="+".join)
def test_missing_modality_equals_masked_rows(absent, legacy_masking):
    model = make_model(legacy_masking=legacy_masking, max_audio_length=11, max_video_length=11)
    batch = make_batch()
    for modality in absent:
        batch[MASKS[modality]] = torch.zeros_like(batch[MASKS[modality]])
    left_out = {name: value for name, value in batch.items() if name_of(name) not in absent}
    assert_same(logits_of(model, batch), logits_of(model, left_out))


def test_missing_modality_changes_logits():
    model, batch = make_model(), make_batch()
    answers = [logits_of(model, batch)] + [logits_of(model, without(batch, modality)) for modality in MODALITIES]
    for one, other in itertools.combinations(answers, 2):
        assert (one - other).abs().max() > 1e-3


def test_modality_order_does_not_change_model():
    model = make_model()
    other = make_model(modalities=["video", "audio", "text"])
    assert list(other.state_dict()) == list(model.state_dict())
    other.load_state_dict(model.state_dict())
    assert_same(logits_of(other, make_batch()), logits_of(model, make_batch()), atol=0)


# Gradients, precision, compilation


def test_every_parameter_has_gradient():
    model = make_model().train()
    model(**make_batch(), labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A softmax is invariant to a shift of its scores: by the equations, these biases have no effect.
        if not name.endswith(("k_proj.bias", "glimpse.fc2.bias")):
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("legacy_masking", [False, True], ids=["", "legacy"])
def test_gradient_checkpointing_keeps_gradients(legacy_masking):
    gradients = []
    for checkpointing in (False, True):
        model = make_model(legacy_masking=legacy_masking, max_audio_length=7).train()
        if checkpointing:
            getattr(
                model, "activation_checkpointing_enable", model.gradient_checkpointing_enable
            )()  # its name before 5.23
            assert all(layer.gradient_checkpointing for layer in model.model.layers)
        torch.manual_seed(3)  # the same dropout
        batch = make_batch(lengths={"text": [9, 3], "audio": [7, 2], "video": [0, 5]})
        model(**batch, labels=torch.tensor([0, 2])).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert all(gradient is not None for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        assert_same(gradients[1][name], gradient, atol=1e-7)


@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])
def test_bfloat16_logits_are_close(attn_implementation):
    model, batch = make_model(attn_implementation=attn_implementation), make_batch()
    expected = logits_of(model, batch)
    logits = logits_of(model.to(torch.bfloat16), batch)  # features are cast to the dtype of the model
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()
    assert_same(logits.float(), expected, atol=5e-2)


def test_model_compiles_as_one_graph():
    model, batch = make_model(num_hidden_layers=2), make_batch()
    # Without code generation, which takes a minute and is tested by torch.
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert_same(logits_of(compiled, batch), logits_of(model, batch))


# Outputs


def test_exported_program_takes_any_length():
    model = make_model(modalities=["text", "audio"], num_hidden_layers=1)
    batch = make_batch(["text", "audio"])
    rows, words, frames = (torch.export.Dim(name, min=1, max=n) for name, n in (("b", 99), ("t", 9), ("a", 11)))
    shapes = {name: {0: rows, 1: words if name in (VALUES["text"], MASKS["text"]) else frames} for name in batch}
    with torch.no_grad():
        program = torch.export.export(model, (), batch, dynamic_shapes=shapes, strict=False).module()
        for num_words, num_frames in ((1, 2), (9, 1)):
            other = make_batch(
                lengths={"text": [num_words, 1], "audio": [1, num_frames]}, modalities=["text", "audio"]
            )
            assert_same(program(**other).logits, model(**other).logits)


@pytest.mark.parametrize("training", [False, True])
def test_sdpa_runs_sdpa(monkeypatch, training):
    calls = []
    sdpa = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *a, **k: calls.append(k["dropout_p"]) or sdpa(*a, **k),
    )
    make_model(attention_probs_dropout_prob=0.25).train(training)(**make_batch())
    assert calls == [0.25 if training else 0.0] * 15  # 3 blocks: 3 self-attentions and 2 cross-attentions each


@pytest.mark.parametrize(
    ("attn_implementation", "through_the_configuration"),
    [("eager", False), ("eager", True), ("sdpa", False)],
    ids=["eager", "eager-configuration", "sdpa"],
)
def test_outputs_have_attentions_and_glimpses(attn_implementation, through_the_configuration):
    model, batch = make_model(attn_implementation=attn_implementation), make_batch()
    wanted = {"output_attentions": True, "output_hidden_states": True, "output_glimpse_weights": True}
    wanted["output_cross_attentions"] = True
    expected = logits_of(model, batch)
    if through_the_configuration:
        for name, value in wanted.items():
            setattr(model.config, name, value)
        wanted = {}
    with torch.no_grad():
        outputs = model(**batch, **wanted)
    assert_same(outputs.logits, expected, atol=1e-6)
    lengths = {modality: batch[VALUES[modality]].shape[1] for modality in MODALITIES}
    assert [state.shape for state in outputs.hidden_states] == [(4, sum(lengths.values()), 16)] * 4

    self_shapes = [(4, 4, lengths[m], lengths[m]) for _ in range(3) for m in MODALITIES]
    assert [attention.shape for attention in outputs.attentions] == self_shapes
    cross_shapes = [(4, 4, lengths[m], lengths["text"]) for _ in range(3) for m in ("audio", "video")]
    assert [attention.shape for attention in outputs.cross_attentions] == cross_shapes
    sources = [MODALITIES[i % 3] for i in range(9)] + ["text"] * 6
    for attention, source in zip(outputs.attentions + outputs.cross_attentions, sources, strict=True):
        assert_same(attention.sum(-1), torch.ones(attention.shape[:-1]))
        padding = (batch[MASKS[source]] == 0)[:, None, None, :].expand_as(attention)
        assert attention[padding].max() < 1e-6

    glimpse_shapes = [(4, lengths[m], lengths[m]) for _ in range(2) for m in MODALITIES]
    assert [w.shape for w in outputs.glimpse_weights] == glimpse_shapes + [(4, lengths[m], 1) for m in MODALITIES]
    for i, weights in enumerate(outputs.glimpse_weights):
        assert_same(weights.sum(1), torch.ones(weights.shape[0], weights.shape[2]))
        assert weights[batch[MASKS[MODALITIES[i % 3]]] == 0].max() < 1e-6


def test_optional_outputs_default_to_none():
    outputs = make_model(attn_implementation="eager")(**make_batch())
    assert set(outputs.keys()) == {"logits"}
    assert isinstance(make_model()(**make_batch(), return_dict=False), tuple)


def test_saved_model_loads_equal(tmp_path):
    model, batch = make_model(), make_batch()
    model.save_pretrained(tmp_path)
    assert_same(logits_of(UmonsForSequenceClassification.from_pretrained(tmp_path), batch), logits_of(model, batch), 0)
    base = UmonsModel.from_pretrained(tmp_path)
    assert_same(base(**batch).pooler_output, model.model(**batch).pooler_output, atol=0)

    half = UmonsForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float16)
    assert half.dtype == torch.float16
    assert_same(logits_of(half, batch).float(), logits_of(model, batch), atol=1e-2)


def test_resize_token_embeddings_updates_config():
    model, batch = make_model(), make_batch()
    expected = logits_of(model, batch)
    model.resize_token_embeddings(35, mean_resizing=False)
    assert model.config.vocab_size == 35
    assert model.get_input_embeddings().weight.shape == (35, 6)
    assert_same(logits_of(model, batch), expected, atol=0)
    logits_of(model, {"input_ids": torch.tensor([[34]])})
    assert make_model(modalities=["audio"]).get_input_embeddings() is None


# Losses


def test_loss_follows_problem_type():
    batch = make_batch()
    classes = torch.tensor([0, 2, 1, 1])
    outputs = make_model(problem_type="single_label_classification")(**batch, labels=classes)
    assert_same(outputs.loss, torch.nn.functional.cross_entropy(outputs.logits, classes))

    several = torch.tensor([[0.0, 1, 1], [0, 0, 0], [1, 1, 1], [1, 0, 0]])
    outputs = make_model(problem_type="multi_label_classification")(**batch, labels=several)
    assert_same(outputs.loss, torch.nn.functional.binary_cross_entropy_with_logits(outputs.logits, several))

    numbers = torch.tensor([-3.0, 0.5, 0, 2])
    outputs = make_model(problem_type="regression", num_labels=1)(**batch, labels=numbers)
    assert outputs.logits.shape == (4, 1)
    assert_same(outputs.loss, ((outputs.logits[:, 0] - numbers) ** 2).mean())


def joint_loss_by_hand(logits: torch.Tensor, labels: torch.Tensor) -> float:
    errors = [[], []]
    for row, truth in zip(logits.tolist(), labels.tolist(), strict=True):
        for column, (value, label) in enumerate(zip(row, truth, strict=True)):
            if math.isnan(label):
                continue
            probability = 1 / (1 + math.exp(-value))
            entropy = -label * math.log(probability) - (1 - label) * math.log(1 - probability)
            errors[column > 0].append(entropy if column else abs(value - label))
    return sum(sum(known) / len(known) for known in errors if known)


NAN = math.nan
JOINT_LABELS = {
    "all known": [[1.5, 0, 1, 0, 0, 1, 0], [-3, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0], [2, 0, 0, 1, 1, 0, 1]],
    "some unknown": [[1.5, NAN, 1, 0, 0, 1, 0], [NAN, 1, 1, 1, 0, 0, 0], [0, *[NAN] * 6], [2, 0, 0, NAN, 1, 0, 1]],
    "a row unknown": [[1.5, 0, 1, 0, 0, 1, 0], [NAN] * 7, [NAN] * 7, [2, 0, 0, 1, 1, 0, 1]],
    "sentiment unknown": [[NAN, 0, 1, 0, 0, 1, 0]] * 4,
    "emotions unknown": [[1.5, *[NAN] * 6], [0, *[NAN] * 6], [-3, *[NAN] * 6], [3, *[NAN] * 6]],
    "nothing known": [[NAN] * 7] * 4,
}


@pytest.mark.parametrize("case", JOINT_LABELS)
def test_joint_loss_averages_known_labels(case):
    model, batch, labels = (
        make_model(joint_sentiment=True, num_labels=7),
        make_batch(),
        torch.tensor(JOINT_LABELS[case]),
    )
    assert list(model.config.id2label.values()) == ["sentiment", *EMOTIONS]
    given = labels.clone()
    outputs = model(**batch, labels=labels)
    assert outputs.loss.item() == pytest.approx(joint_loss_by_hand(outputs.logits, labels), abs=1e-5)
    assert (outputs.loss.item() == 0) == (case == "nothing known")
    outputs.loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(labels, given, equal_nan=True)  # the labels are not modified


# Invalid input


def bad(**changes) -> dict:
    return {**make_batch(), **changes}


def features_with(value: float) -> torch.Tensor:
    features = make_batch()["input_features"]
    features[2, 0, 1] = value
    return features


def with_id(word_id: int) -> torch.Tensor:
    ids = make_batch()["input_ids"]
    ids[1, 0] = word_id
    return ids


def empty_rows() -> dict:
    batch = make_batch()
    for mask in MASKS.values():
        batch[mask] = batch[mask].clone()
        batch[mask][1:3] = 0
    return batch


BAD_INPUTS = {
    "id too large": (lambda: bad(input_ids=with_id(30)), "`input_ids` contains word id 30, but ids must be 0 to 29"),
    "negative id": (lambda: bad(input_ids=with_id(-1)), "`input_ids` contains word id -1, but ids must be 0 to 29"),
    "NaN": (lambda: bad(input_features=features_with(NAN)), r"`input_features` contains NaN .* in row\(s\) \[2\]"),
    "infinity": (lambda: bad(input_features=features_with(-math.inf)), r"or infinite values in row\(s\) \[2\]"),
    "feature size": (
        lambda: bad(video_features=torch.ones(4, 7, 5)),
        r"`video_features` has shape \(4, 7, 5\), but this model takes \(batch, time, 6\)",
    ),
    "rank of the features": (
        lambda: bad(input_features=torch.ones(11, 5)),
        r"`input_features` has shape \(11, 5\), but this model takes \(batch, time, 5\)",
    ),
    "rank of the ids": (
        lambda: bad(input_ids=torch.ones(9, dtype=torch.long)),
        r"`input_ids` has shape \(9,\), but this model takes \(batch, time\)",
    ),
    "too long": (
        lambda: {"input_ids": torch.ones(1, 10, dtype=torch.long)},
        r"`input_ids` has 10 steps, but this model takes 1 to 9 \(`max_text_length`\): truncate longer sequences",
    ),
    "zero length": (lambda: {"input_features": torch.ones(2, 0, 5)}, "`input_features` has 0 steps, .* 1 to 11"),
    "nothing": (dict, r"No input: pass at least one of `input_ids`, `input_features`, `video_features`"),
    "masks only": (lambda: {"attention_mask": torch.ones(1, 3)}, "No input: pass at least one of"),
    "empty rows": (empty_rows, r"Row\(s\) \[1, 2\] of the batch are padding in every modality \(text, audio, video\)"),
    "empty rows without masks": (
        lambda: {"input_ids": torch.tensor([[3, 0], [0, 0]])},
        r"Row\(s\) \[1\] of the batch are padding in every modality \(text\)",
    ),
    "mask of another shape": (
        lambda: bad(input_features_mask=torch.ones(4, 10)),
        r"`input_features_mask` has shape \(4, 10\), .* \(4, 11\)",
    ),
    "numbers of rows": (
        lambda: make_batch(["text"]) | make_batch(["audio"], {"audio": [3, 4, 5]}),
        "same number of rows, but have: text 4, audio 3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_INPUTS)
@pytest.mark.parametrize("legacy_masking", [False, True], ids=["", "legacy"])
def test_invalid_input_raises(case, legacy_masking):
    make_inputs, words = BAD_INPUTS[case]
    lengths = {"max_video_length": 11} if legacy_masking else {}
    model = make_model(num_hidden_layers=1, legacy_masking=legacy_masking, **lengths)
    with pytest.raises(ValueError, match=words):
        model(**make_inputs())


@pytest.mark.parametrize("shape", [(4,), (4, 6), (3, 7)])
def test_joint_labels_of_wrong_shape_raise(shape):
    model = make_model(joint_sentiment=True, num_labels=7, num_hidden_layers=1)
    with pytest.raises(ValueError, match=r"`labels` has shape .*, but `joint_sentiment` requires \(4, 7\)"):
        model(**make_batch(), labels=torch.zeros(shape))


def test_unused_modality_warns_once(caplog):
    warning_once.cache_clear()
    model, batch = make_model(modalities=["text", "audio"]), make_batch()
    logits = [logits_of(model, batch) for _ in range(2)]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message == "The video input is ignored: the modalities of this model are ['text', 'audio']."
    assert_same(logits[0], logits_of(model, without(batch, "video")), atol=0)
    with pytest.raises(ValueError, match=r"one of `input_ids`, `input_features`\."):
        model(video_features=batch["video_features"])


@pytest.fixture
def transformers_log(caplog):
    """Capture the log of transformers, which does not propagate to the root logger."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_mismatched_head_raises(tmp_path, transformers_log):
    make_model(num_labels=6).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="mismatch"):
        UmonsForSequenceClassification.from_pretrained(tmp_path, num_labels=7)
    assert "classifier.weight" in transformers_log.text

    transformers_log.clear()
    model = UmonsForSequenceClassification.from_pretrained(tmp_path, num_labels=7, ignore_mismatched_sizes=True)
    assert model.classifier.weight.shape == (7, 32)
    assert "classifier.weight" in transformers_log.text


def test_missing_head_is_initialized(tmp_path, transformers_log):
    make_model(UmonsModel).save_pretrained(tmp_path)
    assert "classifier" not in transformers_log.text
    model = UmonsForSequenceClassification.from_pretrained(tmp_path)
    for name in ("classifier.weight", "classifier.bias"):
        assert name in transformers_log.text
    assert "layers.0" not in transformers_log.text
    assert model.classifier.weight.isfinite().all()


def test_padding_id_other_than_zero_is_masked():
    model = make_model(modalities=["text"], pad_token_id=3)
    ids = torch.tensor([[5, 0, 7, 3, 3], [9, 3, 3, 3, 3]])
    with torch.no_grad():
        found = model(input_ids=ids).logits
        expected = model(input_ids=ids, attention_mask=(ids != 3).long()).logits
        short = model(input_ids=ids[:1, :3], attention_mask=torch.ones(1, 3, dtype=torch.long)).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    torch.testing.assert_close(found[:1], short)


def test_initial_weights_are_those_of_pytorch():
    factor = 0.5
    model = UmonsForSequenceClassification(make_config(initializer_factor=factor, hidden_size=32))
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            bound, parameters = factor * module.in_features**-0.5, [module.weight]
        elif isinstance(module, UmonsLSTM):
            bound, parameters = factor * module.hidden_size**-0.5, [module.weight_ih_l0, module.weight_hh_l0]
        else:
            continue
        for parameter in (parameter for parameter in parameters if parameter.numel() > 100):
            assert 0.9 * bound < parameter.abs().max() <= bound
            assert parameter.std().item() == pytest.approx(bound / 3**0.5, rel=0.2)  # uniform
    assert model.get_input_embeddings().weight.std().item() == pytest.approx(factor, rel=0.2)
