"""Fast dropout on a CPU: its noise, gradient and reproducibility, and models that are swapped to it."""

import pytest
import torch
from reference_baselines import make_model as make_baseline
from torch import nn
from torch.utils.checkpoint import checkpoint

from modeling_umons import TfnForSequenceClassification, UmonsConfig, UmonsForSequenceClassification
from modeling_umons.training.fast_dropout import FastDropout, use_fast_dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_share_and_scale_follow_p(p, dtype):
    torch.manual_seed(0)
    result = FastDropout(p)(torch.ones(101, 333, dtype=dtype))
    assert result.dtype == dtype
    # Of 33,633 draws, within five standard deviations.
    assert (result == 0).float().mean().item() == pytest.approx(p, abs=5 * (p * (1 - p) / result.numel()) ** 0.5)
    kept = result[result != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - p)), rtol=1e-2, atol=0)


def test_draws_are_independent():
    torch.manual_seed(0)
    dropped = (FastDropout(0.5)(torch.ones(400, 400)) == 0).float() - 0.5
    for axis in (0, 1):
        for lag in range(1, 9):  # four draws share one random number of PyTorch
            product = dropped * dropped.roll(lag, axis)
            assert abs(4 * product.mean().item()) < 5 / 400


def test_gradient_is_zero_where_dropped():
    torch.manual_seed(0)
    values = torch.randn(7, 5, 11, dtype=torch.float64, requires_grad=True)
    result = FastDropout(0.3)(values)
    weights = torch.randn_like(result)
    (result * weights).sum().backward()
    is_kept = (result != 0).double()
    torch.testing.assert_close(values.grad, weights * is_kept / 0.7, rtol=1e-4, atol=0)
    torch.testing.assert_close(result, values * is_kept / 0.7, rtol=1e-4, atol=0)


def test_seed_determines_noise():
    values = torch.randn(64, 3)

    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return FastDropout(0.5)(values)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_checkpointing_repeats_the_noise():
    values = torch.randn(16, 16, requires_grad=True)
    dropout, gradients = FastDropout(0.5), []
    for call in (dropout, lambda x: checkpoint(dropout, x, use_reentrant=False)):
        torch.manual_seed(0)
        values.grad = None
        call(values).square().sum().backward()
        gradients.append(values.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("p", [0.0, 0.3])
def test_evaluation_drops_nothing(p):
    values = torch.randn(4, 4)
    assert torch.equal(FastDropout(p).eval()(values.clone()), values)
    assert torch.equal(FastDropout(0.0).train()(values.clone()), values)


@pytest.mark.parametrize("p", [1e-9, 1.0])
def test_p_beyond_16_bits_runs_pytorch(p):
    values = torch.ones(10, 10)
    assert not FastDropout(p).is_fast(values)
    assert torch.equal(FastDropout(p)(values), values * (p < 1))


def test_backward_keeps_one_byte_per_element():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        FastDropout(0.1)(torch.randn(100, 100, requires_grad=True))
    assert [x.nbytes for x in kept] == [10_000]


def test_compiled_graph_runs_pytorch():
    compiled = torch.compile(FastDropout(0.5), backend="eager", fullgraph=True)
    result = compiled(torch.ones(64, 64))
    assert set(result.unique().tolist()) == {0.0, 2.0}


def make_umons() -> UmonsForSequenceClassification:
    torch.manual_seed(0)
    config = UmonsConfig(
        vocab_size=12, word_embedding_size=4, hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_labels=6
    )
    return UmonsForSequenceClassification(config)


@pytest.mark.parametrize(
    "make", [make_umons, lambda: make_baseline(TfnForSequenceClassification)], ids=["umons", "tfn"]
)
def test_swapped_model_has_fast_dropout_only(make):
    model = use_fast_dropout(make())
    kinds = {type(module) for module in model.modules() if isinstance(module, nn.Dropout)}
    assert kinds == {FastDropout}


def test_swapped_model_saves_the_same(tmp_path):
    model, swapped = make_umons().eval(), use_fast_dropout(make_umons().eval())
    assert not any(module.training for module in swapped.modules())
    for name, saved in (("before", model), ("after", swapped)):
        saved.save_pretrained(tmp_path / name)
    for path in (tmp_path / "before").iterdir():
        assert path.read_bytes() == (tmp_path / "after" / path.name).read_bytes()
    ids = torch.tensor([[3, 5, 2]])
    torch.testing.assert_close(swapped(ids).logits, model(ids).logits)


def test_swapped_model_drops_in_training():
    swapped = use_fast_dropout(make_umons()).train()
    assert swapped.config._attn_implementation == "eager"  # `sdpa` would run its own dropout
    first, second = (swapped(torch.tensor([[3, 5, 2]])).logits for _ in range(2))
    assert not torch.equal(first, second)
