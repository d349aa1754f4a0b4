"""Linear layers with weights in the layout of oneDNN, for faster inference on a CPU."""

import copy

import torch
from torch import nn
from transformers import PreTrainedModel


MIN_HIDDEN_SIZE = 256  # with 128, a short utterance takes longer than with `nn.Linear`
NUM_ROWS = 32 * 60  # rows of a product that the layout is optimised for; others work as well


class PackedLinear(nn.Module):
    """
    Linear layer (..., in_features) -> (..., out_features) for inference on a CPU.

    oneDNN gets the weight in its own layout. `nn.Linear` calls MKL in float32, which is slower on many processors, and
    in bfloat16 oneDNN with a weight that it reorders in each call.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        # Not a buffer: the tensor can neither be saved nor moved.
        self.packed_weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), NUM_ROWS)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(hidden_states, self.packed_weight, self.bias, "none", [], "")


def pack_linears(model: PreTrainedModel) -> PreTrainedModel:
    """
    Return a copy of a model with packed weights: faster inference on a CPU, with the same logits to rounding.

    The copy can neither be trained, saved, moved nor converted: choose the precision first, as in
    `pack_linears(model.bfloat16())`.

    Raises:
        ValueError: the model is not on a CPU in float32 or bfloat16, or PyTorch is built without oneDNN.
    """
    if model.device.type != "cpu" or model.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(
            f"The model is {model.dtype} on {model.device}, but weights are packed in float32 or bfloat16 on a CPU. "
            'Call `model.to("cpu", torch.bfloat16)` first.'
        )
    if not torch.backends.mkldnn.is_available():
        raise ValueError("PyTorch is built without oneDNN (`torch.backends.mkldnn`). Use the model as it is.")
    packed = copy.deepcopy(model).eval().requires_grad_(False)
    # A glimpse slices the weight of its second layer.
    kept = {name for name, _ in packed.named_modules() if name.endswith("glimpse.fc2")}
    for name, module in list(packed.named_modules()):
        if type(module) is nn.Linear and name not in kept:
            parent, _, child = name.rpartition(".")
            setattr(packed.get_submodule(parent), child, PackedLinear(module))
    return packed


def pack_if_faster(model: PreTrainedModel) -> PreTrainedModel:
    """Return [`pack_linears`] of a UMONS model without encoders that is large enough, or else the model itself."""
    config = model.config
    if (
        config.model_type != "umons"
        or config.hidden_size < MIN_HIDDEN_SIZE
        or any(getattr(config, f"{modality}_encoder", None) is not None for modality in ("text", "audio", "video"))
        or model.device.type != "cpu"
        or model.dtype not in (torch.float32, torch.bfloat16)
        or not torch.backends.mkldnn.is_available()
    ):
        return model
    return pack_linears(model)


__all__ = ["PackedLinear", "pack_if_faster", "pack_linears"]
