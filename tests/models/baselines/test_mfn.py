"""MFN: equations of the paper, and properties that hold for any weights."""

import pytest
import torch
from reference_baselines import (
    FULL_LENGTHS,
    LENGTHS,
    SUBSETS,
    check_errors,
    check_every_parameter_has_gradient,
    check_half_precision,
    check_labels,
    check_missing_input_equals_zero_mask,
    check_padding_does_not_change_logits,
    check_saving,
    check_times_are_used,
    make_batch,
    make_model,
    make_times,
    memory_fusion,
    mfn_fuse,
    rows_of,
    times_of_row,
)

from modeling_umons import MfnForSequenceClassification


# Different sizes, so that a confusion of two fails.
SIZES = {
    "text_hidden_size": 5, "audio_hidden_size": 3, "video_hidden_size": 4, "memory_size": 7,
    "attention_hidden_size": 6, "proposal_hidden_size": 8, "retain_gate_hidden_size": 9,
    "update_gate_hidden_size": 10, "output_hidden_size": 16,
}  # fmt: skip


def small_mfn(**overrides):
    return make_model(MfnForSequenceClassification, **SIZES, **overrides)


@torch.no_grad()
@pytest.mark.parametrize("alignment", ["words", "adaptive"])
@pytest.mark.parametrize("modalities", SUBSETS, ids="-".join)
def test_logits_equal_reference(modalities, alignment):
    model = small_mfn(modalities=modalities, alignment=alignment)
    batch = make_batch(modalities, LENGTHS if len(modalities) == 3 else FULL_LENGTHS)
    times = make_times(batch) if "text" in modalities else {}
    outputs = model.model(**batch, **times)
    logits = model(**batch, **times).logits
    for i, row in enumerate(rows_of(batch)):
        used = times_of_row(batch, times, i) if alignment == "words" else {}
        expected, states, _ = memory_fusion(model.state_dict(), model.config, row, mfn_fuse, used)
        torch.testing.assert_close(logits[i], expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(outputs.last_hidden_state[i, : len(states)], states, atol=1e-5, rtol=0)
        assert not outputs.last_hidden_state[i, len(states) :].any()


@torch.no_grad()
def test_hidden_states_are_returned_on_request():
    model, batch = small_mfn(), make_batch()
    outputs = model(**batch, output_hidden_states=True)
    assert [states.shape for states in outputs.hidden_states] == [(6, 11, 5 + 3 + 4 + 7)]
    assert outputs.efficacies is None
    assert model(**batch).hidden_states is None


def test_times_are_used_with_alignment_words():
    check_times_are_used(small_mfn)


@pytest.mark.parametrize("modalities", SUBSETS, ids="-".join)
def test_every_parameter_has_gradient(modalities):
    check_every_parameter_has_gradient(MfnForSequenceClassification, modalities)


def test_dropout_is_active_in_training_only():
    model, batch = small_mfn(), make_batch(lengths=FULL_LENGTHS)
    rates = ("attention_hidden_dropout", "proposal_dropout", "retain_gate_dropout", "output_dropout")
    assert torch.equal(model(**batch).logits, model(**batch).logits)
    for rate in rates:
        others = {name: 0.0 for name in rates if name != rate}
        model = small_mfn(**others).train()
        assert not torch.equal(model(**batch).logits, model(**batch).logits), rate
    model = small_mfn(**dict.fromkeys(rates, 0.0)).train()
    assert torch.equal(model(**batch).logits, model(**batch).logits)


def test_padding_does_not_change_logits():
    check_padding_does_not_change_logits(small_mfn())


def test_missing_input_equals_zero_mask():
    check_missing_input_equals_zero_mask(small_mfn())


def test_labels_give_loss():
    check_labels(MfnForSequenceClassification)


def test_invalid_inputs_raise():
    check_errors(MfnForSequenceClassification)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_close(dtype):
    check_half_precision(MfnForSequenceClassification, dtype)


def test_saved_model_loads_with_auto_classes(tmp_path):
    check_saving(MfnForSequenceClassification, tmp_path)
