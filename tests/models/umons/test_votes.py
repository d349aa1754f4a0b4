"""Models whose modalities vote: `modality_fusion="vote"`."""

import pytest
import torch

from modeling_umons import UmonsConfig, UmonsForSequenceClassification
from modeling_umons.models.umons.modeling_tbje import combine_votes


LABELS = ("sentiment", "happy", "sad", "anger", "surprise", "disgust", "fear", "neutral")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = UmonsConfig(
        vocab_size=20, word_embedding_size=6, hidden_size=8, intermediate_size=8, num_hidden_layers=2,
        joint_sentiment=True, modality_fusion="vote", id2label=dict(enumerate(LABELS)),
    )  # fmt: skip
    return UmonsForSequenceClassification(config).eval()


def test_single_modality_keeps_its_logits():
    logits = 3 * torch.randn(5, 1, 8)
    combined = combine_votes(logits, torch.ones(5, 1, dtype=torch.bool), neutral=7)
    torch.testing.assert_close(combined, logits[:, 0], rtol=1e-4, atol=1e-5)


def test_emotions_of_any_modality_and_neutral_of_all_are_present():
    logits = torch.tensor([[[1.0, 0.0, 3.0], [-2.0, 1.0, -1.0]]])
    combined = combine_votes(logits, torch.tensor([[True, True]]), neutral=2)[0]
    p = logits[0].sigmoid()
    assert combined[0].item() == pytest.approx(1.0 - 0.25 * 2.0)
    assert combined[1].sigmoid().item() == pytest.approx((1 - (1 - p[0, 1]) * (1 - p[1, 1])).item(), abs=1e-6)
    assert combined[2].sigmoid().item() == pytest.approx((p[0, 2] * p[1, 2]).item(), abs=1e-6)
    alone = combine_votes(logits, torch.tensor([[False, True]]), neutral=2)[0]
    torch.testing.assert_close(alone, logits[0, 1], rtol=1e-4, atol=1e-5)


def test_rows_equal_the_votes_of_single_modalities(model):
    ids, frames = torch.tensor([[3, 4, 5], [6, 7, 0]]), torch.rand(2, 4, 80)
    frames_mask = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0]])
    both = model(input_ids=ids, input_features=frames, input_features_mask=frames_mask).logits
    words = model(input_ids=ids).logits
    voice = model(input_features=frames[:1, :3]).logits
    expected = combine_votes(torch.stack([words[:1], voice], dim=1), torch.ones(1, 2, dtype=torch.bool), neutral=7)
    torch.testing.assert_close(both[:1], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(both[1:], words[1:], rtol=1e-4, atol=1e-5)


def test_gradients_are_finite(model):
    logits = torch.tensor([[[0.0, -80.0, 80.0], [0.0, -80.0, 80.0]]], requires_grad=True)
    combine_votes(logits, torch.ones(1, 2, dtype=torch.bool), neutral=2).sum().backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("options", [{}, {"joint_sentiment": True, "legacy_masking": True}])
def test_votes_require_a_joint_model(options):
    with pytest.raises(ValueError, match="modality_fusion='vote'"):
        UmonsConfig(modality_fusion="vote", **options)
    with pytest.raises(ValueError, match="'attention' or 'vote'"):
        UmonsConfig(modality_fusion="sum")
