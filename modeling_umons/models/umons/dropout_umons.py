# Copyright 2026 The modeling_umons authors.
#
# Licensed under the MIT License (the "License"); you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     https://opensource.org/license/mit
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
Dropout that costs little on a CPU. PyTorch draws there, for each element in turn, a number of 53 bits, and keeps the noise
in full precision for the backward pass, which together takes a third of the time of a training step. Here 16 bits decide,
and what is kept is one byte, or nothing. Elsewhere, and in a compiled graph, it is PyTorch's own.
"""

import torch
from torch import nn


LEVELS = 2**16  # of the bits that decide


def draw_noise(like: torch.Tensor, p: float) -> tuple[torch.Tensor, float]:
    """
    What is kept, and what makes up for the rest: int8 of the shape of `like`, each element 0 with the probability `p` (to
    1/65536) and 1 otherwise, and the inverse of the share that is 1. From PyTorch's generator, as all of its noise.
    """
    num_kept = round((1 - p) * LEVELS)
    words = torch.empty((like.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    draws = words.view(torch.int16)[: like.numel()].view(like.shape)
    # Numbers all the way: comparisons that give bool are not vectorised, nor is what converts it.
    return draws.lt_(num_kept - LEVELS // 2).to(torch.int8), LEVELS / num_kept


def apply_noise(values: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
    # One new tensor, which is worth more here than one pass less: memory from the system costs as much as what fills it.
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


class _ReLUDropout(torch.autograd.Function):
    """Where the result is positive, something got through both: no more need be remembered."""

    @staticmethod
    def forward(ctx, values: torch.Tensor, p: float) -> torch.Tensor:
        mask, ctx.scale = draw_noise(values, p)
        result = apply_noise(values, mask, ctx.scale).relu_()
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (result,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradient, result, 0.0).mul_(ctx.scale), None


def is_fast(values: torch.Tensor, p: float) -> bool:
    """Whether dropout is done here, where there is any, and not by PyTorch."""
    is_drawn = 1 / LEVELS <= p <= 1 - 1 / LEVELS
    return values.device.type == "cpu" and is_drawn and not torch.compiler.is_compiling()


def apply_dropout(values: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    """`nn.functional.dropout`: any shape, any floating type."""
    if training and is_fast(values, p):
        return _Dropout.apply(values, p)
    return nn.functional.dropout(values, p, training)


class UmonsDropout(nn.Dropout):
    """`nn.Dropout`, by [`apply_dropout`]."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return apply_dropout(values, self.p, self.training)


class UmonsReLUDropout(nn.Dropout):
    """ReLU, then dropout. In evaluation it overwrites what it is given, which is the result of a linear map."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if self.training and is_fast(values, self.p):
            return _ReLUDropout.apply(values, self.p)
        return super().forward(nn.functional.relu(values, inplace=not self.training))


__all__ = ["UmonsDropout", "UmonsReLUDropout", "apply_dropout", "is_fast"]
