"""Weights of models that FSDP or DeepSpeed shards over processes. All processes must call these functions."""

import torch
from torch import nn


def gather_fsdp_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the whole weights of a model sharded by FSDP 2, by name."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))


def gather_deepspeed_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the whole weights of a model trained by DeepSpeed ZeRO, by name: the optimizer's, in float32."""
    from deepspeed.runtime.zero import GatheredParameters
    from deepspeed.utils import safe_get_full_fp32_param

    parameters = dict(model.named_parameters(remove_duplicate=False))
    with GatheredParameters(list(model.parameters())):  # ZeRO 3 keeps a part of each in a process
        weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    for name, parameter in parameters.items():
        if parameter.requires_grad:
            weights[name] = safe_get_full_fp32_param(parameter).cpu()
    return weights
