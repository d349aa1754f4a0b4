"""Options of `umons train`: data, model, augmentation and run, from a YAML recipe and the command line."""

import sys
from argparse import ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, HfArgumentParser, PreTrainedConfig, TrainingArguments
from transformers.trainer_utils import HubStrategy

from ..data.arguments import DataArguments
from ..models.umons.configuration_umons import MODALITIES
from ..publishing.push import FinalPush
from ..recipes import read_recipe
from ..tasks.task import BEST_METRICS, LOWER_IS_BETTER, Task
from ..utils.hub_files import find_model
from ..utils.suggest import did_you_mean, nearest


MODALITY_SYNONYMS = {
    "sound": "audio", "speech": "audio", "voice": "audio", "acoustic": "audio", "words": "text", "language": "text",
    "transcript": "text", "vision": "video", "visual": "video", "image": "video", "images": "video", "frames": "video",
}  # fmt: skip


# Learning rate of a trained model: a new one at 1e-4 learns for hours, fine-tuning on a few hundred rows for seconds.
FINE_TUNING_RATE = 3e-4


@dataclass
class ModelArguments:
    """Model to train. Sizes are those of new models; defaults are the paper's."""

    model: list[str] = field(
        default_factory=lambda: ["umons"],
        metadata={
            "help": "New model: umons, tfn, mfn, graph_mfn, multilogue_net or mult, optionally with some modalities "
            "only, such as umons_text or tfn_text_audio. With pretrained encoders also umons_paper (the same without "
            "them) and plain_encoder (text encoder with a linear head). Several models are trained on the same rows "
            "and compared."
        },
    )
    config_overrides: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Options of the configuration, such as dropout=0.3, or tfn.dropout=0.3 for one of several models."
        },
    )
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Trained model to fine-tune: a folder or Hub repository."}
    )
    text_model: str | None = field(
        default=None,
        metadata={
            "help": "UMONS: trained model of text with the same sizes and labels, whose weights and tokenizer the new "
            "model has. They stay fixed, so that only the other modalities are trained."
        },
    )
    modalities: list[str] = field(
        default_factory=lambda: ["text", "audio"], metadata={"help": "Modalities of the model: text, audio, video."}
    )
    feature_extractor: str | None = field(
        default=None,
        metadata={"help": "Folder with the preprocessor_config.json of the audio features, instead of the paper's."},
    )
    text_encoder: str | None = field(
        default=None,
        metadata={
            "help": "UMONS: pretrained encoder instead of word vectors and LSTM: a folder, a Hub repository, or "
            "minilm."
        },
    )
    audio_encoder: str | None = field(
        default=None,
        metadata={
            "help": "UMONS: pretrained audio encoder. It is fine-tuned on tables of audio files, and frozen on data "
            "sets with its features (see `umons extract`)."
        },
    )
    video_encoder: str | None = field(
        default=None,
        metadata={"help": "UMONS: pretrained video encoder whose features the data set contains; always frozen."},
    )
    use_weighted_layer_sum: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Modalities whose encoder gives a learnt weighted average of all its hidden layers instead of the "
            "last one, such as audio."
        },
    )
    freeze_encoders: bool = field(default=False, metadata={"help": "Freeze the pretrained encoders."})
    lora_rank: int = field(
        default=0,
        metadata={"help": "Rank of LoRA for the encoders, merged at the end; 0 fine-tunes all their weights."},
    )
    standardize_features: bool = field(
        default=False,
        metadata={"help": "Initialise the model with the mean and standard deviation of the training features."},
    )
    word_vectors: str | None = field(
        default=None,
        metadata={"help": "Initial word vectors: a GloVe or word2vec file, a .npy matrix, or glove."},
    )
    extra_words: int = field(
        default=0,
        metadata={"help": "Number of most frequent words of --word_vectors added to the training vocabulary."},
    )
    freeze_word_vectors: bool = field(default=False, metadata={"help": "Freeze the word vectors."})
    min_word_count: int = field(
        default=1, metadata={"help": "Minimum count of a training word; rarer ones are unknown."}
    )
    word_embedding_size: int = field(default=300, metadata={"help": "Size of word vectors."})
    hidden_size: int = field(default=512, metadata={"help": "UMONS: hidden size."})
    intermediate_size: int = field(
        default=1024, metadata={"help": "UMONS: inner size of feed-forward layers and glimpses."}
    )
    num_hidden_layers: int = field(default=4, metadata={"help": "UMONS: number of co-attention blocks."})
    num_attention_heads: int = field(default=4, metadata={"help": "UMONS: number of attention heads."})
    hidden_dropout_prob: float = field(default=0.1, metadata={"help": "UMONS: dropout probability."})
    attention_probs_dropout_prob: float = field(
        default=0.1, metadata={"help": "UMONS: dropout probability of attention weights."}
    )

    context_size: int = field(
        default=0,
        metadata={
            "help": "UMONS: number of previous utterances of the same conversation that the text encoder or LSTM "
            "processes before the text. Conversations are rows of a `video_id`, ordered by `segment` or `start`, with "
            "`speaker`; or the column `history` contains them."
        },
    )

    # Options of a recipe whose models --model replaces: they may have no effect. Not an option itself.
    optional = frozenset[str]()

    def pretrained_config(self) -> PreTrainedConfig | None:
        """Load the configuration of the model to fine-tune; `None` for new models."""
        if self.model_name_or_path is None:
            return None
        return AutoConfig.from_pretrained(find_model(self.model_name_or_path))

    def __post_init__(self):
        _check_range("lora_rank", self.lora_rank, 0)
        _check_range("context_size", self.context_size, 0)
        for name in self.modalities:
            if name not in MODALITIES:
                close = MODALITY_SYNONYMS.get(name.lower()) or nearest(name, MODALITIES)
                hint = "" if close is None else f" Did you mean {close}?"
                raise ValueError(f"--modalities {name} is unknown; available: {', '.join(MODALITIES)}.{hint}")
        if self.model_name_or_path is not None and self.model != ["umons"]:
            raise ValueError(
                "--model creates a new model and --model_name_or_path fine-tunes a trained one; pass only one."
            )


@dataclass
class AugmentationArguments:
    """Augmentation and loss. All options are off by default, as in the paper."""

    modality_dropout: float = field(default=0.0, metadata={"help": "Probability that a row loses a modality."})
    word_dropout: float = field(
        default=0.0, metadata={"help": "Probability that a word is replaced by the unknown one."}
    )
    time_mask: float = field(
        default=0.0, metadata={"help": "Maximum share of frames in a masked stripe (SpecAugment)."}
    )
    bin_mask: float = field(
        default=0.0, metadata={"help": "Maximum share of mel bins in a masked stripe (SpecAugment)."}
    )
    waveform_augmentation: float = field(
        default=0.0,
        metadata={
            "help": "Probability that the waveform of an audio file is distorted: speed, cuts, reverberation, noise, "
            "gain, telephone band, codecs."
        },
    )
    mixup: float = field(default=0.0, metadata={"help": "Alpha of mixup, for models without text; 0 disables it."})
    class_weights: str = field(
        default="none", metadata={"help": "Loss weights: none, or balanced (by inverse frequency)."}
    )
    focal_gamma: float = field(default=0.0, metadata={"help": "Gamma of the focal loss; 0 disables it."})
    emotion_weight: float = field(
        default=1.0, metadata={"help": "Weight of the loss of the emotions next to that of the sentiment (joint)."}
    )

    def __post_init__(self):
        for name in ("modality_dropout", "word_dropout", "time_mask", "bin_mask", "waveform_augmentation"):
            _check_range(name, getattr(self, name), 0, 1)
        for name in ("mixup", "focal_gamma", "emotion_weight"):
            _check_range(name, getattr(self, name), 0)
        if self.class_weights not in ("none", "balanced"):
            raise ValueError(f"--class_weights is {self.class_weights!r}; it must be none or balanced.")


@dataclass
class CardArguments:
    """Facts for the model card that the run does not know."""

    license: str | None = field(
        default=None,
        metadata={"help": "License of the model, as a Hub identifier; by default that of --model_name_or_path."},
    )
    about_data: str = field(default="", metadata={"help": "Paragraph on the training data."})
    limits: str = field(default="", metadata={"help": "Paragraph on limitations and out-of-scope use."})


@dataclass
class RunArguments(TrainingArguments):
    """`TrainingArguments` of transformers with the paper's defaults: Adam at 1e-4, batches of 32, no clipping."""

    output_dir: str = field(default="runs/umons", metadata={"help": "Output folder."})
    learning_rate: float = field(
        default=1e-4, metadata={"help": f"Learning rate of Adam; {FINE_TUNING_RATE:g} with --model_name_or_path."}
    )
    lr_scheduler_type: str = field(default="constant", metadata={"help": "Learning rate schedule."})
    max_halvings: int = field(
        default=0,
        metadata={
            "help": "Number of times that an epoch without improvement reloads the best one and halves the learning "
            "rate."
        },
    )
    patience: int = field(
        default=0,
        metadata={
            "help": "Number of epochs without improvement, after all halvings, that stop training; 0 disables it."
        },
    )
    max_grad_norm: float = field(default=0.0, metadata={"help": "Maximum norm of gradients; 0 disables clipping."})
    per_device_train_batch_size: int = field(
        default=32,
        metadata={"help": "Training batch size per process, in utterances also for models of conversations."},
    )
    per_device_eval_batch_size: int = field(default=32, metadata={"help": "Evaluation batch size per process."})
    num_train_epochs: float = field(default=10, metadata={"help": "Number of epochs."})
    eval_strategy: str = field(default="epoch", metadata={"help": "Evaluation strategy: epoch, steps or no."})
    save_strategy: str = field(default="epoch", metadata={"help": "Checkpoint strategy: epoch, steps or no."})
    save_total_limit: int | None = field(
        default=2, metadata={"help": "Number of checkpoints to keep, including the best one; at least 2."}
    )
    load_best_model_at_end: bool = field(
        default=True, metadata={"help": "Load the best epoch on validation at the end."}
    )
    metric_for_best_model: str = field(
        default="task",
        metadata={"help": "Validation metric of the best epoch; task is the default metric of the task."},
    )
    logging_strategy: str = field(default="epoch", metadata={"help": "Logging strategy: epoch, steps or no."})
    logging_nan_inf_filter: bool = field(
        default=False,
        metadata={"help": "Log the mean of earlier losses instead of NaN; every step then waits for the GPU."},
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Not supported: the collator reads columns."})
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "Restore the number of halvings when resuming."}
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={"help": "Checkpoint to resume from; last is the last complete one in --output_dir, if any."},
    )
    learning_rates: list[str] = field(
        default_factory=list,
        metadata={"help": "Learning rates of single models, instead of --learning_rate: tfn=5e-3 mfn=5e-4."},
    )
    epochs: list[str] = field(
        default_factory=list,
        metadata={"help": "Epochs of single models, instead of --num_train_epochs: umons_paper=12."},
    )
    encoder_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of pretrained encoders, instead of --learning_rate."}
    )
    encoder_layer_decay: float = field(
        default=1.0, metadata={"help": "Factor of the learning rate from each encoder layer to the one below it."}
    )
    unfreeze_epoch: int = field(
        default=0, metadata={"help": "Epoch, counted from 0, until which encoders are frozen."}
    )
    seeds: int = field(
        default=1, metadata={"help": "Number of seeds, starting at --seed; reports mean and standard deviation."}
    )
    tune_thresholds: bool = field(
        default=False, metadata={"help": "Also report emotions at thresholds tuned on validation."}
    )
    dataloader_pin_memory: bool = field(
        default_factory=torch.accelerator.is_available,
        metadata={"help": "Pin memory of batches, with an accelerator."},
    )

    def __post_init__(self):
        if self.disable_tqdm is None and not sys.stderr.isatty():
            self.disable_tqdm = True  # progress bars fill log files
        if self.accelerator_config is None and self.dataloader_pin_memory:
            self.accelerator_config = {"non_blocking": True}  # copies to the GPU run next to the step before
        super().__post_init__()
        for name, minimum in (("max_halvings", 0), ("patience", 0), ("seeds", 1), ("unfreeze_epoch", 0)):
            _check_range(name, getattr(self, name), minimum)
        if self.save_total_limit is not None and self.save_total_limit < 2:
            raise ValueError(
                "--save_total_limit must be 2 or more: with 1, a run that is interrupted while saving loses its "
                "checkpoint."
            )
        if (self.max_halvings or self.patience) and not self._saves_every_evaluation():
            raise ValueError(
                "--max_halvings and --patience require a checkpoint for each evaluation: set --save_strategy and "
                "--save_steps to the values of --eval_strategy and --eval_steps."
            )
        if self.max_halvings and self.lr_scheduler_type != "constant":
            raise ValueError("--max_halvings is itself a schedule and requires --lr_scheduler_type constant.")
        if not 0 < self.encoder_layer_decay <= 1:
            raise ValueError(f"--encoder_layer_decay is {self.encoder_layer_decay}; it must be in (0, 1].")
        if self.encoder_learning_rate is not None and self.encoder_learning_rate <= 0:
            raise ValueError(f"--encoder_learning_rate is {self.encoder_learning_rate}; it must be above 0.")
        if self.unfreeze_epoch and self.world_size > 1:
            raise ValueError(
                "--unfreeze_epoch requires a single process. Train with --freeze_encoders first, then fine-tune with "
                "--model_name_or_path."
            )

    def learning_rate_of(self, names: Sequence[str]) -> float:
        """Return the learning rate of a model with these names; the last one has priority."""
        return self._number_of(names, "learning_rates", "its learning rate, such as tfn=5e-3", self.learning_rate)

    def epochs_of(self, names: Sequence[str]) -> float:
        """Return the number of epochs of a model with these names; the last one has priority."""
        return self._number_of(names, "epochs", "a number of epochs, such as umons_paper=12", self.num_train_epochs)

    def _number_of(self, names: Sequence[str], option: str, expected: str, default: float) -> float:
        numbers = {}
        for item in getattr(self, option):
            name, _, number = item.partition("=")
            try:
                numbers[name] = float(number)
            except ValueError as error:
                raise ValueError(f"--{option} {item}: expected a model and {expected}.") from error
        return next((numbers[name] for name in reversed(names) if name in numbers), default)

    def take_push(self, num_models: int) -> FinalPush | None:
        """
        Return the push that --push_to_hub requests, and reset the Hub options: `Trainer` would push each checkpoint,
        and save the token in its training_args.bin.
        """
        is_wanted, strategy = self.push_to_hub, getattr(self.hub_strategy, "value", self.hub_strategy)
        name = self.hub_model_id or Path(self.output_dir).resolve().name
        push = FinalPush(name, bool(self.hub_private_repo), self.hub_revision, self.hub_token)
        self.push_to_hub, self.hub_always_push, self.hub_strategy = False, False, HubStrategy.EVERY_SAVE
        self.hub_model_id = self.hub_private_repo = self.hub_revision = self.hub_token = None
        if not is_wanted:
            return None
        if strategy not in ("every_save", "end"):
            raise ValueError(
                f"--hub_strategy {strategy} is not supported: only the final model is pushed. Remove the option."
            )
        if num_models > 1:
            raise ValueError(
                f"--push_to_hub requires a single model, but {num_models} are trained. Push one of them with `umons "
                "push`."
            )
        return push

    def _saves_every_evaluation(self) -> bool:
        strategy = self.eval_strategy.value
        is_same_step = strategy != "steps" or self.eval_steps == self.save_steps
        return strategy != "no" and strategy == self.save_strategy.value and is_same_step

    def choose_best_by(self, task: Task) -> None:
        """Set the validation metric of the best epoch."""
        if self.metric_for_best_model == "task":
            self.metric_for_best_model = BEST_METRICS[task.name]
        self.greater_is_better = self.metric_for_best_model.removeprefix("eval_") not in LOWER_IS_BETTER


# Options that select the rows.
ROWS = ("train_file", "validation_file", "test_file", "dataset_name", "dataset_config_name")


def _check_range(name: str, value: float, minimum: float, maximum: float | None = None) -> None:
    if value < minimum or (maximum is not None and value > maximum):
        expected = f"{minimum} or more" if maximum is None else f"between {minimum} and {maximum}"
        raise ValueError(f"--{name} is {value}; it must be {expected}.")


PARTS = (DataArguments, ModelArguments, AugmentationArguments, CardArguments, RunArguments)


class _ManualFormatter(ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter):
    """Keep paragraphs and examples, and show the default of each option."""


def parse_arguments(
    words: list[str], description: str, prog: str = "umons train", parts: tuple[type, ...] = PARTS
) -> tuple[Any, ...]:
    """
    Parse options: the command line overrides the recipe, which overrides the defaults.

    `words[0]` is the name or path of a recipe unless it begins with a hyphen. Options of rows on the command line
    replace all those of the recipe. Raises ValueError for unknown options and invalid values.
    """
    usage = f"{prog} [RECIPE] [OPTIONS]"
    parser = HfArgumentParser(parts, description=description, usage=usage, formatter_class=_ManualFormatter)
    parser.error = _refuse
    optional: frozenset[str] = frozenset()
    if words and not words[0].startswith("-"):
        path, *words = words
        recipe = read_recipe(path)
        given = {word.removeprefix("--").partition("=")[0] for word in words if word.startswith("--")}
        if given & set(ROWS):
            recipe = {name: value for name, value in recipe.items() if name not in (*ROWS, "repeat")}
        if "model" in given:
            optional = frozenset(recipe)
        known = {option.name for part in parts for option in fields(part)}
        if unknown := sorted(set(recipe) - known):
            hint = did_you_mean(unknown[0], known)
            raise ValueError(f"{path} has unknown option(s) {unknown}; see `--help`.{hint}")
        # Prepended to the command line: the same checks apply, and later options have priority.
        for name, value in recipe.items():
            option = [f"--{name}", *map(str, value)] if isinstance(value, list) else [f"--{name}={value}"]
            words = [*option, *words] if value is not None else words
    if parser.parse_known_args(words)[0].model_name_or_path is not None:
        parser.set_defaults(learning_rate=FINE_TUNING_RATE)
    parsed = parser.parse_args_into_dataclasses(words)
    for part in parsed:
        if isinstance(part, ModelArguments):
            part.optional = optional
    return parsed


def _refuse(message: str):
    raise ValueError(f"{message}; see `--help`.")
