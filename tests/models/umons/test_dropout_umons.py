# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Dropout on a CPU: how much is dropped, what comes back, and that it is as reproducible as PyTorch's own."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from modeling_umons.models.umons.dropout_umons import UmonsDropout, UmonsReLUDropout, apply_dropout, is_fast


MODULES = (UmonsDropout, UmonsReLUDropout)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_share_and_scale(p, dtype):
    torch.manual_seed(0)
    result = apply_dropout(torch.ones(101, 333, dtype=dtype), p, training=True)
    assert result.dtype == dtype
    # Of 33,633 draws, within five standard deviations.
    assert (result == 0).float().mean().item() == pytest.approx(p, abs=5 * (p * (1 - p) / result.numel()) ** 0.5)
    kept = result[result != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - p)), rtol=1e-2, atol=0)


def test_draws_are_independent():
    torch.manual_seed(0)
    dropped = (apply_dropout(torch.ones(400, 400), 0.5, training=True) == 0).float() - 0.5
    for axis in (0, 1):
        for lag in range(1, 9):  # four draws share a number of PyTorch's
            product = dropped * dropped.roll(lag, axis)
            assert abs(4 * product.mean().item()) < 5 / 400


@pytest.mark.parametrize("module", MODULES)
def test_gradient_is_that_of_what_was_kept(module):
    torch.manual_seed(0)
    values = torch.randn(7, 5, 11, dtype=torch.float64, requires_grad=True)
    result = module(0.3)(values)
    weights = torch.randn_like(result)
    (result * weights).sum().backward()
    is_kept = (result != 0).double()
    torch.testing.assert_close(values.grad, weights * is_kept / 0.7, rtol=1e-4, atol=0)
    kept = values.relu() if module is UmonsReLUDropout else values
    torch.testing.assert_close(result, kept * is_kept / 0.7, rtol=1e-4, atol=0)


@pytest.mark.parametrize("module", MODULES)
def test_as_random_as_the_seed_says(module):
    values = torch.randn(64, 3)

    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return module(0.5)(values)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@pytest.mark.parametrize("module", MODULES)
def test_checkpointing_draws_the_same_again(module):
    values = torch.randn(16, 16, requires_grad=True)
    dropout, gradients = module(0.5), []
    for call in (dropout, lambda x: checkpoint(dropout, x, use_reentrant=False)):
        torch.manual_seed(0)
        values.grad = None
        call(values).square().sum().backward()
        gradients.append(values.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("p", [0.0, 0.3])
def test_nothing_is_dropped_in_evaluation(module, p):
    values = torch.randn(4, 4)
    expected = values.relu() if module is UmonsReLUDropout else values.clone()
    assert torch.equal(module(p).eval()(values.clone()), expected)
    assert torch.equal(module(0.0).train()(values.clone()), expected)


@pytest.mark.parametrize("p", [1e-9, 1.0])
def test_what_16_bits_cannot_decide_is_left_to_pytorch(p):
    values = torch.ones(10, 10)
    assert not is_fast(values, p)
    assert torch.equal(apply_dropout(values, p, training=True), values * (p < 1))


def test_what_is_kept_for_the_backward_pass_is_small():
    """One byte for each element, and after a ReLU nothing but the result, which a linear map keeps as well."""
    sizes = {}
    for module in MODULES:
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, kept=kept: kept.append(x) or x, lambda x: x):
            result = module(0.1)(torch.randn(100, 100, requires_grad=True))
        sizes[module] = [x.nbytes for x in kept if x.data_ptr() != result.data_ptr()]
    assert sizes == {UmonsDropout: [10_000], UmonsReLUDropout: []}


@pytest.mark.parametrize("module", MODULES)
def test_a_compiled_graph_has_pytorchs_own(module):
    compiled = torch.compile(module(0.5), backend="eager", fullgraph=True)
    result = compiled(torch.ones(64, 64))
    assert set(result.unique().tolist()) == {0.0, 2.0}
