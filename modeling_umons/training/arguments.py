"""Options of `umons train`: data, model, augmentation and run, from a recipe in YAML and the command line."""

from argparse import ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from transformers import HfArgumentParser, TrainingArguments
from transformers.trainer_utils import HubStrategy

from ..data.arguments import DataArguments
from ..publishing.push import FinalPush
from ..recipes import read_recipe
from ..tasks.task import BEST_METRICS, LOWER_IS_BETTER, Task


@dataclass
class ModelArguments:
    """What to train. The sizes are those of a new model; the defaults are the paper's."""

    model: list[str] = field(
        default_factory=lambda: ["umons"],
        metadata={
            "help": "A new model: umons, tfn, mfn, graph_mfn or multilogue_net, or with some of the modalities alone "
            "umons_text, tfn_text_audio ...; several are trained on the same rows and compared. Beside a umons with pretrained "
            "encoders: umons_paper, which is without them, and plain_encoder, the text encoder with a linear head alone."
        },
    )
    config_overrides: list[str] = field(
        default_factory=list,
        metadata={"help": "More of its configuration: option=value, or of one of several models tfn.dropout=0.3."},
    )
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "A model to go on from, instead of a new one."}
    )
    modalities: list[str] = field(
        default_factory=lambda: ["text", "audio"], metadata={"help": "Any of text, audio and video."}
    )
    feature_extractor: str | None = field(
        default=None,
        metadata={
            "help": "A folder with the preprocessor_config.json that sound is heard by; else as the paper has it."
        },
    )
    text_encoder: str | None = field(
        default=None,
        metadata={
            "help": "UMONS: a pretrained encoder in place of word vectors and LSTM: a folder or Hub id, or the word minilm."
        },
    )
    audio_encoder: str | None = field(
        default=None,
        metadata={
            "help": "UMONS: a pretrained encoder of sound. Of a table of sound files it is trained with the rest; where the "
            "data has its features (`umons extract`) it becomes a part of the model as it is."
        },
    )
    video_encoder: str | None = field(
        default=None,
        metadata={"help": "UMONS: the encoder of clips of pictures whose features the data has; it is not trained."},
    )
    use_weighted_layer_sum: bool = field(
        default=False,
        metadata={
            "help": "Take a learnt mean of all hidden layers of each encoder that is trained, not the last one."
        },
    )
    freeze_encoders: bool = field(default=False, metadata={"help": "Leave the encoders as they are."})
    lora_rank: int = field(
        default=0,
        metadata={
            "help": "Train the encoders by LoRA of this rank, merged into them at the end; 0 trains all of them."
        },
    )
    standardize_features: bool = field(
        default=False, metadata={"help": "Start from features on one scale, that of the training rows."}
    )
    word_vectors: str | None = field(
        default=None,
        metadata={"help": "Word vectors to start from: a GloVe or word2vec file, a .npy matrix, or the word glove."},
    )
    extra_words: int = field(
        default=0,
        metadata={"help": "So many of the first words of --word_vectors are known besides those of training."},
    )
    freeze_word_vectors: bool = field(default=False, metadata={"help": "Leave the word vectors as they are."})
    min_word_count: int = field(default=1, metadata={"help": "Words seen less often in training are unknown."})
    word_embedding_size: int = field(default=300, metadata={"help": "Size of word vectors."})
    hidden_size: int = field(default=512, metadata={"help": "UMONS: size of every sequence inside the model."})
    intermediate_size: int = field(
        default=1024, metadata={"help": "UMONS: size inside feed-forward networks and glimpses."}
    )
    num_hidden_layers: int = field(default=4, metadata={"help": "UMONS: number of co-attention blocks."})
    num_attention_heads: int = field(default=4, metadata={"help": "UMONS: number of attention heads."})
    hidden_dropout_prob: float = field(default=0.1, metadata={"help": "UMONS: dropout."})
    attention_probs_dropout_prob: float = field(
        default=0.1, metadata={"help": "UMONS: dropout of attention probabilities."}
    )


@dataclass
class AugmentationArguments:
    """What is taken from a batch of training, and how its loss is weighed. All off by default, as in the paper."""

    modality_dropout: float = field(default=0.0, metadata={"help": "Probability that a row loses a modality."})
    word_dropout: float = field(default=0.0, metadata={"help": "Probability that a word becomes unknown."})
    time_mask: float = field(default=0.0, metadata={"help": "Largest share of frames that a masked stripe takes."})
    bin_mask: float = field(default=0.0, metadata={"help": "Largest share of mel bins that a masked stripe takes."})
    mixup: float = field(default=0.0, metadata={"help": "Alpha of mixup, for models without text; 0 is off."})
    class_weights: str = field(
        default="none", metadata={"help": "none, or balanced: rare classes and emotions count as much as common ones."}
    )
    focal_gamma: float = field(default=0.0, metadata={"help": "Focal loss: how much less rows count that are right."})


@dataclass
class CardArguments:
    """What people say of a model in its card, besides what the run knows."""

    license: str | None = field(default=None, metadata={"help": "The licence of the model, as the Hub names it."})
    about_data: str = field(default="", metadata={"help": "A paragraph on the data it was trained on."})
    limits: str = field(default="", metadata={"help": "A paragraph on what it cannot do and must not be used for."})


@dataclass
class RunArguments(TrainingArguments):
    """transformers' TrainingArguments. The defaults are the paper's: Adam at 1e-4, batches of 32, no clipping."""

    output_dir: str = field(default="runs/umons", metadata={"help": "The folder to write."})
    learning_rate: float = field(default=1e-4, metadata={"help": "The learning rate of Adam."})
    lr_scheduler_type: str = field(default="constant", metadata={"help": "The schedule of the learning rate."})
    max_halvings: int = field(
        default=0,
        metadata={"help": "How often an epoch without gain goes back to the best one at half the learning rate."},
    )
    patience: int = field(
        default=0, metadata={"help": "Stop after so many epochs without gain, halvings not counted; 0 never does."}
    )
    max_grad_norm: float = field(default=0.0, metadata={"help": "Where to clip gradients; 0 does not."})
    per_device_train_batch_size: int = field(
        default=32, metadata={"help": "Rows in a batch, per process; conversations are batched to about as many."}
    )
    per_device_eval_batch_size: int = field(default=32, metadata={"help": "Batch size in evaluation, per process."})
    num_train_epochs: float = field(default=10, metadata={"help": "Passes over the training rows."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save; as often as evaluation."})
    save_total_limit: int | None = field(
        default=2, metadata={"help": "Checkpoints to keep, the best one among them; 2 or more, so that one is whole."}
    )
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Keep the best epoch by validation."})
    metric_for_best_model: str = field(
        default="task", metadata={"help": "By which metric of validation; `task` is what each task is judged by."}
    )
    logging_strategy: str = field(default="epoch", metadata={"help": "When to log."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "The collator wants all columns."})
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "A run that goes on knows how often it halved."}
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "help": "A checkpoint to go on from; `last` is the last whole one of --output_dir, if there is one."
        },
    )
    learning_rates: list[str] = field(
        default_factory=list,
        metadata={"help": "Of single ones of several models, in place of --learning_rate: tfn=5e-3 mfn=5e-4."},
    )
    epochs: list[str] = field(
        default_factory=list,
        metadata={"help": "Of single ones of several models, in place of --num_train_epochs: umons_paper=12."},
    )
    encoder_learning_rate: float | None = field(
        default=None, metadata={"help": "The learning rate of the encoders, in place of --learning_rate."}
    )
    encoder_layer_decay: float = field(
        default=1.0, metadata={"help": "By what a layer of an encoder has its rate lower than the one above it."}
    )
    unfreeze_epoch: int = field(
        default=0, metadata={"help": "Leave the encoders as they are until this epoch, counted from 0."}
    )
    seeds: int = field(default=1, metadata={"help": "Train so many models, from --seed on, and report their spread."})
    tune_thresholds: bool = field(
        default=False, metadata={"help": "Report emotions also at thresholds that are chosen on validation."}
    )
    dataloader_pin_memory: bool = field(
        default_factory=torch.accelerator.is_available, metadata={"help": "Only of use with an accelerator."}
    )

    def __post_init__(self):
        super().__post_init__()
        for name in ("max_halvings", "patience"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} is {getattr(self, name)}; it must be 0 or more.")
        if self.seeds < 1:
            raise ValueError(f"--seeds is {self.seeds}; it must be 1 or more.")
        if self.save_total_limit is not None and self.save_total_limit < 2:
            raise ValueError(
                "--save_total_limit must be 2 or more: with 1, a run that is killed while saving loses all."
            )
        if (self.max_halvings or self.patience) and not self._saves_what_it_evaluates():
            raise ValueError(
                "--max_halvings and --patience want every evaluation to be saved: give --save_strategy and --save_steps what "
                "--eval_strategy and --eval_steps have."
            )
        if self.max_halvings and self.lr_scheduler_type != "constant":
            raise ValueError("--max_halvings is a schedule of its own: leave --lr_scheduler_type constant.")

    def learning_rate_of(self, names: Sequence[str]) -> float:
        """The learning rate of a model that goes by these names, the last of which counts most."""
        return self._number_of(names, "learning_rates", "its rate, such as tfn=5e-3", self.learning_rate)

    def epochs_of(self, names: Sequence[str]) -> float:
        """The same of the number of epochs."""
        return self._number_of(names, "epochs", "how many, such as umons_paper=12", self.num_train_epochs)

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
        The push that --push_to_hub asks for, if it does. Afterwards these options know nothing of a Hub: what `Trainer`
        itself would push are checkpoints, while it trains, and it writes its options, with the token, beside each of them.
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
                f"--hub_strategy is {strategy}, but checkpoints are not pushed: leave it out, and the finished model is."
            )
        if num_models > 1:
            raise ValueError(
                f"--push_to_hub goes with one model, and these are {num_models}: train them, and push the one that you choose "
                "with `umons push`."
            )
        return push

    def _saves_what_it_evaluates(self) -> bool:
        strategy = self.eval_strategy.value
        is_same_step = strategy != "steps" or self.eval_steps == self.save_steps
        return strategy != "no" and strategy == self.save_strategy.value and is_same_step

    def choose_best_by(self, task: Task) -> None:
        """Fills in by which metric of validation the best epoch is chosen."""
        if self.metric_for_best_model == "task":
            self.metric_for_best_model = BEST_METRICS[task.name]
        self.greater_is_better = self.metric_for_best_model.removeprefix("eval_") not in LOWER_IS_BETTER


# Options that say which rows to train on.
ROWS = ("train_file", "validation_file", "test_file", "dataset_name", "dataset_config_name")
PARTS = (DataArguments, ModelArguments, AugmentationArguments, CardArguments, RunArguments)


class _ManualFormatter(ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter):
    """Paragraphs and examples as they are written, and the default of each option."""


def parse_arguments(words: list[str], description: str, parts: tuple[type, ...] = PARTS) -> tuple[Any, ...]:
    """
    Parse options: the command line overrides the recipe, which overrides the defaults.

    `words[0]` is the name or path of a recipe unless it begins with a hyphen. Rows given on the command line replace all
    of those of the recipe. Raises ValueError for unknown options and for values that do not fit.
    """
    usage = "umons train [RECIPE] [OPTIONS]"
    parser = HfArgumentParser(parts, description=description, usage=usage, formatter_class=_ManualFormatter)
    parser.error = _refuse
    if words and not words[0].startswith("-"):
        path, *words = words
        recipe = read_recipe(path)
        given = {word.removeprefix("--").partition("=")[0] for word in words if word.startswith("--")}
        if given & set(ROWS):
            recipe = {name: value for name, value in recipe.items() if name not in (*ROWS, "repeat")}
        known = {option.name for part in parts for option in fields(part)}
        if unknown := sorted(set(recipe) - known):
            raise ValueError(f"{path} has option(s) {unknown} that nothing reads; `--help` lists what there is.")
        # As options of the command line, before those that are there: the same checks, and the last word counts.
        for name, value in recipe.items():
            option = [f"--{name}", *map(str, value)] if isinstance(value, list) else [f"--{name}={value}"]
            words = [*option, *words] if value is not None else words
    return parser.parse_args_into_dataclasses(words)


def _refuse(message: str):
    raise ValueError(f"{message}; `--help` lists what there is.")
