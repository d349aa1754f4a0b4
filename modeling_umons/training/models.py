"""What is trained: the UMONS model or one of the related work, new or to go on from, and the processor it is fed by."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import yaml
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from ..auto_registration import MODELS
from ..configuration_umons import MODALITIES
from ..data.word_vectors import load_word_vectors
from ..feature_extraction_umons import UmonsFeatureExtractor
from ..processing_umons import UmonsProcessor
from ..tokenization_umons import build_embedding_matrix, build_tokenizer, train_vocabulary
from ..video_processing_umons import UmonsVideoProcessor
from .arguments import ModelArguments
from .tasks import Task


logger = logging.getLogger(__name__)

# Sizes and dropout that options of their own set, in a model of this type; those of others are set by --config_overrides.
UMONS_OPTIONS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_dropout_prob",
    "attention_probs_dropout_prob",
)  # fmt: skip
# What does not make a model new, but says which one it is and how it is trained.
READ_BY_ANY_MODEL = ("model", "model_name_or_path", "freeze_word_vectors")


@dataclass(frozen=True)
class System:
    """A model by the name that --model has for it: its type, and `_text`, `_audio`, `_video` for what it is left with."""

    name: str
    model_type: str
    modalities: tuple[str, ...]

    @classmethod
    def parse(cls, name: str, modalities: Sequence[str]) -> "System":
        """
        `umons`, `tfn`, ... with all of `modalities`, or `umons_text`, `tfn_text_audio`, ... with those of them. Raises
        ValueError for a name that no model has.
        """
        words, model_type = name.split("_"), None
        chosen: list[str] = []
        while words and words[-1] in MODALITIES:
            chosen.insert(0, words.pop())
        model_type = "_".join(words)
        if model_type not in MODELS:
            raise ValueError(
                f"--model {name}: there is no such model; there are {', '.join(MODELS)}, and with some of the modalities alone "
                f"such as umons_{modalities[0]}."
            )
        if missing := [modality for modality in chosen if modality not in modalities]:
            raise ValueError(f"--model {name}: --modalities has no {' and no '.join(missing)}.")
        return cls(name, model_type, tuple(chosen or modalities))


@dataclass(frozen=True)
class Parts:
    """What all models that are trained on the same rows share: the processor, and the word vectors to start from."""

    processor: UmonsProcessor
    vectors: Mapping[str, Any] | None = None

    @classmethod
    def make(cls, arguments: ModelArguments, texts: list[str]) -> "Parts":
        """With a vocabulary of the training texts, or of the model to go on from."""
        if arguments.model_name_or_path is not None:
            return cls(UmonsProcessor.from_pretrained(arguments.model_name_or_path))
        vectors = None
        words = train_vocabulary(texts, min_count=arguments.min_word_count) if texts else []
        if arguments.word_vectors is not None and words:
            vectors = load_word_vectors(arguments.word_vectors, size=arguments.word_embedding_size)
            words += list(islice(vectors, arguments.extra_words))  # in the order of the file, commonest first
        extractor = UmonsFeatureExtractor()
        if arguments.feature_extractor is not None:
            extractor = UmonsFeatureExtractor.from_pretrained(arguments.feature_extractor)
        return cls(UmonsProcessor(build_tokenizer(words), extractor, UmonsVideoProcessor()), vectors)


def union(systems: Sequence[System]) -> System:
    """A model that reads all that any of these reads."""
    read = {modality for system in systems for modality in system.modalities}
    return dataclasses.replace(systems[0], modalities=tuple(modality for modality in MODALITIES if modality in read))


def make_config(system: System, arguments: ModelArguments, parts: Parts, task: Task) -> PreTrainedConfig:
    """The configuration of a new model, or of the one to go on from with the labels of the task."""
    if arguments.model_name_or_path is not None:
        read = set(READ_BY_ANY_MODEL)
        if unread := [name for name in chosen_options(arguments) if name not in read]:
            raise ValueError(
                f"A model to go on from is as it is: nothing reads {', '.join('--' + name for name in unread)}."
            )
        return AutoConfig.from_pretrained(arguments.model_name_or_path, **task.config_options())
    extractor = parts.processor.feature_extractor
    options = {
        "modalities": list(system.modalities),
        "audio_feature_size": extractor.frame_size,
        "max_audio_length": extractor.max_length,
        "vocab_size": len(parts.processor.tokenizer),
        "word_embedding_size": arguments.word_embedding_size,
        **task.config_options(),
    }
    if system.model_type == "umons":
        options |= {name: getattr(arguments, name) for name in UMONS_OPTIONS}
    config = AutoConfig.for_model(system.model_type, **options)
    overrides = config_overrides(system, arguments.config_overrides)
    if unknown := sorted(name for name in overrides if not hasattr(config, name)):
        raise ValueError(f"--config_overrides: {type(config).__name__} has no {', '.join(unknown)}.")
    return AutoConfig.for_model(system.model_type, **(options | overrides)) if overrides else config


def make_model(config: PreTrainedConfig, arguments: ModelArguments, parts: Parts) -> PreTrainedModel:
    """A model of this configuration, its word vectors those of `parts`; or the one to go on from, its head for the task."""
    if arguments.model_name_or_path is not None:
        model = AutoModelForSequenceClassification.from_pretrained(
            arguments.model_name_or_path, config=config, ignore_mismatched_sizes=True
        )
        if AutoConfig.from_pretrained(arguments.model_name_or_path).id2label != config.id2label:
            model.classifier.reset_parameters()  # a head that says something else, even if it has the same size
    else:
        model = AutoModelForSequenceClassification.from_config(config)
        if parts.vectors is not None and "text" in config.modalities:
            tokenizer = parts.processor.tokenizer
            matrix, coverage = build_embedding_matrix(tokenizer, parts.vectors, size=config.word_embedding_size)
            model.get_input_embeddings().weight.data.copy_(torch.from_numpy(matrix))
            logger.info(
                "%.1f %% of %d words have a vector in %s", 100 * coverage, len(tokenizer), arguments.word_vectors
            )
    if arguments.freeze_word_vectors and "text" in config.modalities:
        model.get_input_embeddings().requires_grad_(False)
    return model


def check_options(systems: Sequence[System], arguments: ModelArguments) -> None:
    """Raises ValueError for options that none of the models reads."""
    chosen = chosen_options(arguments)
    is_read = arguments.model_name_or_path is not None or any(system.model_type == "umons" for system in systems)
    if not is_read and (unread := [name for name in chosen if name in UMONS_OPTIONS]):
        raise ValueError(
            f"Nothing reads {', '.join('--' + name for name in unread)}: they are of UMONS models. Others have their sizes "
            "from --config_overrides."
        )
    if arguments.model_name_or_path is not None and "model" in chosen:
        raise ValueError("--model makes a new model, --model_name_or_path goes on from one: pass one of them.")
    names = {system.name for system in systems} | {system.model_type for system in systems}
    for prefix, name, _ in map(_override, arguments.config_overrides):
        if prefix is not None and prefix not in names:
            raise ValueError(f"--config_overrides {prefix}.{name}: no model {prefix!r} is trained.")


def config_overrides(system: System, overrides: Sequence[str]) -> dict[str, Any]:
    """What `--config_overrides` says of a model: `option=value` of all, `tfn.option=value` of one, which goes before."""
    parsed = list(map(_override, overrides))
    chosen = {name: value for prefix, name, value in parsed if prefix is None}
    for of in (system.model_type, system.name):
        chosen |= {name: value for prefix, name, value in parsed if prefix == of}
    return chosen


def _override(text: str) -> tuple[str | None, str, Any]:
    """The model (or `None`), the option and its value. Numbers, booleans and lists are as in YAML."""
    option, equals, value = text.partition("=")
    prefix, _, name = option.rpartition(".")
    if not equals or not name:
        raise ValueError(f"--config_overrides {text}: expected option=value, or model.option=value.")
    try:
        return prefix or None, name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"--config_overrides {text}: {value!r} is no value: {error}") from error


def chosen_options(arguments: Any) -> dict[str, Any]:
    """The options of one part that are not at their defaults."""
    defaults, chosen = type(arguments)(), {}
    for option in dataclasses.fields(arguments):
        value = getattr(arguments, option.name)
        if option.init and value != getattr(defaults, option.name):
            chosen[option.name] = getattr(value, "value", value)
    return chosen
