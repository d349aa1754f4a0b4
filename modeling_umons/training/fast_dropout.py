"""Dropout that is faster than PyTorch's on a CPU.

PyTorch draws a 53-bit number for each element, one by one, and keeps the noise in full precision for the backward
pass. Here 16 bits decide about an element, and the backward pass keeps one byte of it.
"""

import torch
from torch import nn
from transformers import PreTrainedModel

from ..models.umons.modeling_tbje import UmonsPreTrainedModel


LEVELS = 2**16  # of the bits that decide


def use_fast_dropout(model: PreTrainedModel) -> PreTrainedModel:
    """
    Replace the dropout modules of a model, in place, for training on a CPU.

    Parameters, their names and what `save_pretrained` writes stay the same. On other devices and in compiled graphs
    the new modules call PyTorch's dropout. UMONS models switch to eager attention, because `sdpa` has a dropout of its
    own.

    Args:
        model: any model.

    Returns:
        the same model.
    """
    if isinstance(model, UmonsPreTrainedModel) and model.config.attention_probs_dropout_prob:
        model.set_attn_implementation({"": "eager"})  # of the encoders, as it is
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, FastDropout(child.p).train(child.training))
    return model


def draw_noise(like: torch.Tensor, p: float) -> tuple[torch.Tensor, float]:
    """
    Return the kept elements and the scale of dropout, drawn from PyTorch's generator.

    Returns:
        int8 of the shape of `like`, each element 0 with probability `p` (to 1/65536) and 1 otherwise; and the inverse
        of the share of ones.
    """
    num_kept = round((1 - p) * LEVELS)
    words = torch.empty((like.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    draws = words.view(torch.int16)[: like.numel()].view(like.shape)
    # In int16: neither comparisons that return bool nor conversions from it are vectorised.
    return draws.lt_(num_kept - LEVELS // 2).to(torch.int8), LEVELS / num_kept


def apply_noise(values: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
    # One new tensor: allocating memory costs as much as a pass over it.
    return mask.to(values.dtype).mul_(scale).mul_(values)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: torch.Tensor, p: float) -> torch.Tensor:
        mask, ctx.scale = draw_noise(values, p)
        ctx.save_for_backward(mask)
        return apply_noise(values, mask, ctx.scale)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return apply_noise(gradient, *ctx.saved_tensors, ctx.scale), None


class FastDropout(nn.Dropout):
    """`nn.Dropout` for a CPU: any shape, any floating type."""

    def is_fast(self, values: torch.Tensor) -> bool:
        """Return False if PyTorch's dropout runs: not on a CPU, compiled, and for `p` beyond 16 bits."""
        is_drawn = 1 / LEVELS <= self.p <= 1 - 1 / LEVELS
        return self.training and values.device.type == "cpu" and is_drawn and not torch.compiler.is_compiling()

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return _Dropout.apply(values, self.p) if self.is_fast(values) else super().forward(values)


__all__ = ["FastDropout", "use_fast_dropout"]
