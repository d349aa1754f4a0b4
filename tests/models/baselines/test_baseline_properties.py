"""Properties of TFN, MFN, Graph-MFN and MulT that hold for any weights."""

import math

import pytest
import torch
from reference_baselines import (
    FULL_LENGTHS,
    LENGTHS,
    MASKS,
    MODALITIES,
    SUBSETS,
    make_batch,
    make_model,
    some_rows,
    with_padding,
    without,
)
from torch import sigmoid
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from modeling_umons import (
    GraphMfnForSequenceClassification,
    MfnForSequenceClassification,
    MultForSequenceClassification,
    TfnForSequenceClassification,
)


MEMORY_RATES = ("proposal_dropout", "retain_gate_dropout", "update_gate_dropout", "output_dropout")
DROPOUT_RATES = {
    TfnForSequenceClassification: ("dropout",),
    MfnForSequenceClassification: ("attention_hidden_dropout", *MEMORY_RATES),
    GraphMfnForSequenceClassification: MEMORY_RATES,
    MultForSequenceClassification: ("text_dropout", "attention_dropout", "hidden_dropout", "output_dropout"),
}


@pytest.fixture(params=DROPOUT_RATES, ids=lambda model_class: model_class.config_class.model_type)
def model_class(request):
    return request.param


@pytest.mark.parametrize("modalities", SUBSETS, ids="-".join)
def test_every_parameter_has_gradient(model_class, modalities):
    model = make_model(model_class, modalities=modalities).train()
    # All classes and all modalities occur.
    batch = make_batch(modalities, FULL_LENGTHS)
    model(**batch, labels=torch.tensor([0, 1, 2])).loss.backward()
    still = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert not still, still


def test_dropout_is_active_in_training_only(model_class):
    batch = make_batch(lengths=FULL_LENGTHS)
    rates = dict.fromkeys(DROPOUT_RATES[model_class], 0.0)
    model = make_model(model_class, **rates).train()
    assert torch.equal(model(**batch).logits, model(**batch).logits)
    for rate in rates:
        model = make_model(model_class, **rates | {rate: 0.5})
        assert torch.equal(model(**batch).logits, model(**batch).logits), rate
        model.train()
        assert not torch.equal(model(**batch).logits, model(**batch).logits), rate


@torch.no_grad()
def test_padding_does_not_change_logits(model_class):
    model = make_model(model_class)
    for lengths in (FULL_LENGTHS, LENGTHS):
        batch = make_batch(model.config.modalities, lengths)
        expected = model(**batch).logits
        for sides in ((0, 0, 2), (1, 0, 0), (0, 2, 0), (1, 1, 0)):
            padded = with_padding(batch, *sides)
            torch.testing.assert_close(model(**padded).logits, expected, atol=1e-6, rtol=0)
        for i in range(len(expected)):
            alone = some_rows(batch, [i])
            torch.testing.assert_close(model(**alone).logits, expected[i : i + 1], atol=1e-6, rtol=0)


@torch.no_grad()
def test_missing_input_equals_zero_mask(model_class):
    model = make_model(model_class)
    batch = make_batch(lengths=FULL_LENGTHS)
    for modality in MODALITIES:
        by_row = batch | {MASKS[modality]: torch.zeros_like(batch[MASKS[modality]])}
        expected = model(**without(batch, modality)).logits
        torch.testing.assert_close(model(**by_row).logits, expected, atol=1e-6, rtol=0)
        assert not torch.allclose(model(**batch).logits, expected, atol=1e-4)


def test_labels_give_loss(model_class):
    """Loss of sentiment and emotions at once, some unknown, and of every `problem_type`."""
    batch = make_batch(lengths=FULL_LENGTHS)
    model = make_model(model_class, num_labels=7, joint_sentiment=True)
    assert model.config.id2label[0] == "sentiment"
    labels = torch.tensor([[1.5, 1, 0, 1, 0, 0, 1], [-2.0] + [math.nan] * 6, [math.nan, 0, 0, 1, 1, 0, 0]])
    outputs = model(**batch, labels=labels)
    scores = sigmoid(outputs.logits[:, 1:].double())
    entropy = -(labels[:, 1:] * scores.log() + (1 - labels[:, 1:]) * (1 - scores).log())
    errors = (outputs.logits[:, 0] - labels[:, 0]).abs()
    torch.testing.assert_close(outputs.loss.double(), errors[:2].double().mean() + entropy[[0, 2]].mean())
    outputs.loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    for problem_type, num_labels, labels in (
        ("regression", 1, torch.tensor([0.5, -1.0, 2.0])),
        ("single_label_classification", 3, torch.tensor([0, 2, 1])),
        ("multi_label_classification", 2, torch.tensor([[1.0, 0], [0, 0], [1, 1]])),
    ):
        model = make_model(model_class, num_labels=num_labels, problem_type=problem_type)
        assert model(**batch, labels=labels).loss.isfinite()


def test_invalid_inputs_raise(model_class):
    model = make_model(model_class)
    batch = make_batch(lengths=FULL_LENGTHS)
    with pytest.raises(ValueError, match="No input: pass at least one of `input_ids`, `input_features`"):
        model()
    nothing = {MASKS[m]: batch[MASKS[m]] * torch.tensor([[1], [0], [1]]) for m in MODALITIES}
    with pytest.raises(ValueError, match=r"Row\(s\) \[1\] of the batch are padding in every modality"):
        model(**(batch | nothing))
    with pytest.raises(ValueError, match=r"`video_features` has shape \(3, 7, 3\)"):
        model(**(batch | {"video_features": batch["video_features"][..., 1:]}))
    with pytest.raises(ValueError, match=r"`input_features` has 14 steps, but this model takes 1 to 13"):
        model(**with_padding(make_batch(["audio"], FULL_LENGTHS), 0, 0, 3))
    with pytest.raises(ValueError, match="same number of rows"):
        model(**(batch | {"input_ids": batch["input_ids"][:2], "attention_mask": batch["attention_mask"][:2]}))
    with pytest.raises(ValueError, match="`labels` has shape"):
        make_model(model_class, num_labels=7, joint_sentiment=True)(**batch, labels=torch.zeros(3, 6))
    with pytest.raises(ValueError, match="must name at least one of"):
        model_class.config_class(modalities=["smell"])
    with pytest.raises(ValueError, match="`text_hidden_size` is 0"):
        model_class.config_class(text_hidden_size=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@torch.no_grad()
def test_half_precision_is_close(model_class, dtype):
    batch = make_batch()
    expected = make_model(model_class)(**batch).logits
    logits = make_model(model_class).to(dtype)(**batch).logits
    assert logits.dtype == dtype
    torch.testing.assert_close(logits.float(), expected, atol=3e-2, rtol=0)


@torch.no_grad()
def test_saved_model_loads_with_auto_classes(model_class, tmp_path):
    model, batch = make_model(model_class), make_batch()
    model.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is model_class.config_class
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(loaded) is model_class
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)
    base = AutoModel.from_pretrained(tmp_path)
    assert type(base) is type(model.model)
    assert torch.equal(base(**batch).pooler_output, model.model(**batch).pooler_output)
