"""MFN: equations of the paper, and properties that hold for any weights."""

import pytest
import torch
from reference_baselines import (
    FULL_LENGTHS,
    LENGTHS,
    SUBSETS,
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
