# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Inference on a CPU with weights laid out once for oneDNN's products, in float32 or bfloat16, instead of in each call."""

import copy

import torch
from torch import nn
from transformers import PreTrainedModel


# Rows of a product that the layout is best for; any number works.
DEFAULT_ROWS = 32 * 60


class PackedLinear(nn.Module):
    """
    A linear map (..., in_features) -> (..., out_features) for inference on a CPU. In float32 `nn.Linear` calls MKL, which
    on many processors is slower than oneDNN; and in bfloat16 it calls oneDNN with the weight as it lies, not as the
    product wants it. Here it lies so from the start.
    """

    def __init__(self, linear: nn.Linear, num_rows: int = DEFAULT_ROWS):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        # No buffer: what oneDNN has laid out can neither be saved nor moved.
        self.packed_weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), num_rows)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(hidden_states, self.packed_weight, self.bias, "none", [], "")


def pack_linears(model: PreTrainedModel, num_rows: int = DEFAULT_ROWS) -> PreTrainedModel:
    """
    A copy of a model for inference on a CPU, faster and with the same answers (to rounding). It can be neither trained
    nor saved, converted nor moved: choose the precision before, as `pack_linears(model.bfloat16())`.

    Args:
        model: on a CPU, in float32 or bfloat16; left as it is.
        num_rows: batch size times length that it will see most of; others work as well.

    Raises:
        ValueError: the model is not on a CPU, or of another precision; or this PyTorch is without oneDNN.
    """
    if model.device.type != "cpu" or model.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(
            f"The model is {model.dtype} on {model.device}, but linear maps are packed in float32 or bfloat16 on a CPU: "
            'call `model.to("cpu", torch.bfloat16)` before.'
        )
    if not torch.backends.mkldnn.is_available():
        raise ValueError("This PyTorch is without oneDNN (`torch.backends.mkldnn`): use the model as it is.")
    packed = copy.deepcopy(model).eval().requires_grad_(False)
    # Glimpses take a slice of their second map, so that one stays as it is.
    kept = {name for name, _ in packed.named_modules() if name.endswith("glimpse.fc2")}
    for name, module in list(packed.named_modules()):
        if type(module) is nn.Linear and name not in kept:
            parent, _, child = name.rpartition(".")
            setattr(packed.get_submodule(parent), child, PackedLinear(module, num_rows))
    return packed


__all__ = ["PackedLinear", "pack_linears"]
