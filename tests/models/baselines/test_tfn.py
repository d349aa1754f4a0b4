"""TFN: equations of the paper, and properties that hold for any weights."""

import pytest
import torch
from reference_baselines import (
    FULL_LENGTHS,
    LENGTHS,
    MODALITIES,
    SUBSETS,
    make_batch,
    make_model,
    rows_of,
    some_rows,
    tfn_logits,
)

from modeling_umons import TfnConfig, TfnForSequenceClassification
from modeling_umons.models.baselines.modeling_tfn import TfnBatchNorm


# Different sizes, so that a confusion of two fails.
SIZES = {
    "text_hidden_size": 5, "audio_hidden_size": 3, "video_hidden_size": 4, "text_output_size": 6,
    "fusion_hidden_size": 8,
}  # fmt: skip


def small_tfn(**overrides):
    return make_model(TfnForSequenceClassification, **SIZES, **overrides)


@torch.no_grad()
@pytest.mark.parametrize("modalities", SUBSETS, ids="-".join)
def test_logits_equal_reference(modalities):
    model = small_tfn(modalities=modalities)
    batch = make_batch(modalities, LENGTHS if len(modalities) == 3 else FULL_LENGTHS)
    expected = torch.stack([tfn_logits(model.state_dict(), model.config, row) for row in rows_of(batch)])
    torch.testing.assert_close(model(**batch).logits, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_vector_of_missing_modality_is_zero():
    model, batch = small_tfn(), make_batch()
    vectors = model(**batch, output_hidden_states=True).hidden_states
    assert [vector.shape for vector in vectors] == [(6, 6), (6, 3), (6, 4)]
    for modality, vector in zip(MODALITIES, vectors, strict=True):
        is_there = torch.tensor(LENGTHS[modality]) > 0
        assert vector[is_there].any(dim=1).all()
        assert not vector[~is_there].any()
    assert model(**batch).hidden_states is None


def test_batch_norm_ignores_rows_without_modality():
    """Equals PyTorch's batch norm of the other rows, for any values in the ignored ones."""
    torch.manual_seed(0)
    ours, theirs = TfnBatchNorm(4), torch.nn.BatchNorm1d(4)
    with torch.no_grad():
        ours.weight.uniform_()
        theirs.weight.copy_(ours.weight)
    for _ in range(3):
        values = 3 * torch.randn(7, 4) + 1
        present = torch.tensor([True, False, True, True, False, True, True])
        values[~present] = 1e6
        torch.testing.assert_close(ours(values, present)[present], theirs(values[present]), atol=1e-5, rtol=0)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, atol=1e-5, rtol=0)
    ours.eval()
    theirs.eval()
    torch.testing.assert_close(ours(values[present], present[present]), theirs(values[present]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [0, 1])
def test_batch_norm_uses_running_statistics_for_fewer_than_two_rows(count):
    model = small_tfn(dropout=0.0, modalities=["audio", "video"])
    rows = some_rows(make_batch(["audio", "video"], FULL_LENGTHS), [0])
    if count == 0:
        rows["input_features_mask"] = torch.zeros_like(rows["input_features_mask"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        expected = model(**rows).logits
    outputs = model.train()(**rows, labels=torch.tensor([0]))
    torch.testing.assert_close(outputs.logits, expected, atol=1e-5, rtol=0)
    outputs.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_default_tensor_size():
    with torch.device("meta"):
        model = TfnForSequenceClassification(TfnConfig(modalities=list(MODALITIES)))
    assert model.model.fc1.in_features == 17 * 129 * 129
