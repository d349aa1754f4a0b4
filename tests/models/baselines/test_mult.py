"""MulT: equations of the paper, and properties that hold for any weights."""

import pytest
import torch
from reference_baselines import (
    FULL_LENGTHS,
    LENGTHS,
    SUBSETS,
    make_batch,
    make_model,
    mult_logits,
    rows_of,
)

from modeling_umons import MultConfig, MultForSequenceClassification


SIZES = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "text_kernel_size": 2}


def small_mult(**overrides):
    return make_model(MultForSequenceClassification, **SIZES, **overrides)


@torch.no_grad()
@pytest.mark.parametrize("modalities", SUBSETS, ids="-".join)
def test_logits_equal_reference(modalities):
    model = small_mult(modalities=modalities)
    batch = make_batch(modalities, LENGTHS if len(modalities) == 3 else FULL_LENGTHS)
    logits = model(**batch).logits
    for i, row in enumerate(rows_of(batch)):
        expected = mult_logits(model.state_dict(), model.config, row)
        torch.testing.assert_close(logits[i], expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_hidden_states_are_returned_on_request():
    model, batch = small_mult(), make_batch()
    outputs = model(**batch, output_hidden_states=True)
    assert [states.shape for states in outputs.hidden_states] == [(6, 9, 16), (6, 11, 16), (6, 7, 16)]
    assert model(**batch).hidden_states is None


def test_default_sizes_are_those_of_the_paper():
    config = MultConfig(modalities=["text", "audio", "video"])
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (40, 4, 8)
    assert (config.memory_size, config.pooled_size) == (80, 240)


def test_invalid_sizes_raise():
    with pytest.raises(ValueError, match=r"`hidden_size` \(40\) must be a multiple of `num_attention_heads` \(7\)"):
        MultConfig(num_attention_heads=7)
    with pytest.raises(ValueError, match="`num_hidden_layers` is 0"):
        MultConfig(num_hidden_layers=0)
    with pytest.raises(ValueError, match="`text_kernel_size` is 0"):
        MultConfig(text_kernel_size=0)
