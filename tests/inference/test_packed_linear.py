"""Packed weights: the same logits as the model's."""

import copy

import pytest
import torch

from modeling_umons import UmonsConfig, UmonsForSequenceClassification
from modeling_umons.inference.packed_linear import PackedLinear, pack_if_faster, pack_linears


@pytest.fixture(scope="module")
def model() -> UmonsForSequenceClassification:
    torch.manual_seed(0)
    config = UmonsConfig(
        vocab_size=50, word_embedding_size=12, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_labels=6
    )
    return UmonsForSequenceClassification(config).eval()


@pytest.fixture(scope="module")
def inputs() -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    ids = torch.randint(2, 50, (3, 7), generator=rng)
    ids[1, 4:] = 0
    frames = torch.rand(3, 9, 80, generator=rng)
    frames[2] = 0
    return {"input_ids": ids, "input_features": frames}


@torch.inference_mode()
def test_packed_logits_in_float32(model, inputs):
    packed = pack_linears(model)
    torch.testing.assert_close(packed(**inputs).logits, model(**inputs).logits, rtol=0, atol=1e-5)
    for length in (1, 5):
        few = {name: value[:2, :length] for name, value in inputs.items()}
        torch.testing.assert_close(packed(**few).logits, model(**few).logits, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_packed_logits_in_bfloat16(model, inputs):
    packed = pack_linears(copy.deepcopy(model).bfloat16())
    logits = packed(**inputs).logits
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), model(**inputs).logits, rtol=0, atol=2e-2)


def test_pack_linears_copies_the_model(model):
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    packed = pack_linears(model)
    assert isinstance(packed.model.layers[0].modality_layers["audio"].cross_attn.q_proj, PackedLinear)
    assert not any(isinstance(module, PackedLinear) for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name])


@pytest.mark.parametrize("where", [{"dtype": torch.float64}, {"device": "meta"}], ids=["double", "not on a CPU"])
def test_models_that_cannot_be_packed_raise(model, where):
    with pytest.raises(ValueError, match="packed in float32 or bfloat16 on a CPU"):
        pack_linears(copy.deepcopy(model).to(**where))


def test_pack_if_faster_packs_large_models(model, inputs):
    assert pack_if_faster(model) is model
    large = UmonsForSequenceClassification(
        UmonsConfig(vocab_size=50, word_embedding_size=12, hidden_size=256, intermediate_size=64, num_hidden_layers=1)
    ).eval()
    packed = pack_if_faster(large)
    assert isinstance(packed.model.layers[0].modality_layers["audio"].cross_attn.q_proj, PackedLinear)
    with torch.inference_mode():
        torch.testing.assert_close(packed(**inputs).logits, large(**inputs).logits, rtol=0, atol=1e-5)
    large.config.audio_encoder = {"model_type": "wav2vec2"}
    assert pack_if_faster(large) is large
