"""Models to train, new or pretrained, with their processors, from the options of a run."""

import copy
import dataclasses
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import yaml
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from ..data.word_vectors import load_word_vectors
from ..models.umons.configuration_umons import MODALITIES
from ..models.umons.feature_extraction_umons import UmonsFeatureExtractor
from ..models.umons.modeling_tbje import UmonsModel
from ..models.umons.processing_umons import UmonsProcessor
from ..models.umons.tokenization_umons import build_embedding_matrix, build_tokenizer, train_vocabulary
from ..models.umons.video_processing_umons import UmonsVideoProcessor
from ..registration import MODELS
from ..tasks.losses import SENTIMENT_WIDTH
from ..tasks.task import Task, task_of
from ..utils.hub_files import find_model
from .arguments import ModelArguments
from .encoders import encoders_of, find_encoder, prepare_encoders
from .plain_encoder import PlainEncoderConfig
from .text_model import copy_text_model


logger = logging.getLogger(__name__)

# Options of UMONS only; the sizes of other models are set by --config_overrides.
UMONS_OPTIONS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_dropout_prob",
    "attention_probs_dropout_prob", "context_size",
)  # fmt: skip
# Models that align frames with words and therefore need the times of frames.
# Options that apply to a pretrained model.
FINE_TUNING_OPTIONS = (
    "model", "model_name_or_path", "freeze_word_vectors", "freeze_encoders", "lora_rank", "context_size",
)  # fmt: skip
WORD_OPTIONS = ("word_vectors", "extra_words", "freeze_word_vectors", "min_word_count", "word_embedding_size")
PLAIN_ENCODER = PlainEncoderConfig.model_type
# Options of the configuration that an audio encoder determines.
AUDIO_OPTIONS = ("audio_feature_size", "audio_sampling_rate", "max_audio_length")


@dataclass(frozen=True)
class System:
    """
    A model named in --model.

    Args:
        name: name in --model: the type, with suffixes `_text`, `_audio` and `_video` for a subset of the modalities.
        model_type: type of the configuration.
        modalities: modalities of the model.
        is_paper: has the paper's front ends even if pretrained encoders are given (`umons_paper`).
    """

    name: str
    model_type: str
    modalities: tuple[str, ...]
    is_paper: bool = False

    @classmethod
    def parse(cls, name: str, modalities: Sequence[str]) -> "System":
        """
        Parse a name such as `umons`, `tfn_text_audio`, `umons_paper` or `plain_encoder` (which processes text);
        without suffix it has all of `modalities`. Raises ValueError for an unknown name.
        """
        words, model_type = name.split("_"), None
        chosen: list[str] = []
        while words and words[-1] in MODALITIES:
            chosen.insert(0, words.pop())
        is_paper = words == ["umons", "paper"]
        model_type = "umons" if is_paper else "_".join(words)
        if model_type == PLAIN_ENCODER:
            chosen = chosen or ["text"]
        if model_type not in (*MODELS, PLAIN_ENCODER) or (model_type == PLAIN_ENCODER and chosen != ["text"]):
            raise ValueError(
                f"--model {name} is unknown; available: {', '.join(MODELS)}, umons_paper and plain_encoder, also with "
                f"some of the modalities, such as umons_{modalities[0]}."
            )
        if missing := [modality for modality in chosen if modality not in modalities]:
            raise ValueError(f"--model {name} requires {' and '.join(missing)} in --modalities.")
        return cls(name, model_type, tuple(chosen or modalities), is_paper)

    def encoders(self, arguments: ModelArguments) -> dict[str, str]:
        """Return its pretrained encoders by modality: folders or Hub ids. Raises ImportError for a missing package."""
        if self.is_paper or self.model_type not in ("umons", PLAIN_ENCODER):
            return {}
        names = {modality: getattr(arguments, f"{modality}_encoder", None) for modality in self.modalities}
        return {modality: find_encoder(name) for modality, name in names.items() if name is not None}


@dataclass(frozen=True)
class Parts:
    """
    Parts shared by models with the same front ends.

    Args:
        processor: the processor.
        vectors: initial word vectors.
        pretrained: model that contains the pretrained encoders.
    """

    processor: UmonsProcessor
    vectors: Mapping[str, Any] | None = None
    pretrained: UmonsModel | None = None

    @classmethod
    def make(cls, arguments: ModelArguments, texts: list[str], encoders: Mapping[str, str] | None = None) -> "Parts":
        """Create the parts; the vocabulary is that of the pretrained model, the text encoder or the training texts."""
        if arguments.model_name_or_path is not None:
            return cls(UmonsProcessor.from_pretrained(find_model(arguments.model_name_or_path)))
        own_tokenizer = None
        if arguments.text_model is not None:
            own_tokenizer = UmonsProcessor.from_pretrained(find_model(arguments.text_model)).tokenizer
        if encoders:
            # Only the encoders of this model are used.
            small = {"hidden_size": 1, "num_attention_heads": 1, "intermediate_size": 1, "num_hidden_layers": 1}
            pretrained = UmonsModel.from_encoders(**encoders, **small)
            own = cls.make(arguments, texts) if "text" not in encoders else None
            tokenizer = own_tokenizer if own is None else own.processor.tokenizer
            processor = UmonsProcessor.from_encoders(**encoders, tokenizer=tokenizer)
            return cls(processor, None if own is None else own.vectors, pretrained)
        vectors = None
        words = train_vocabulary(texts, min_count=arguments.min_word_count) if texts else []
        if arguments.word_vectors is not None and words:
            vectors = load_word_vectors(arguments.word_vectors, size=arguments.word_embedding_size)
            words += list(islice(vectors, arguments.extra_words))  # in the order of the file, most frequent first
        extractor = UmonsFeatureExtractor()
        if arguments.feature_extractor is not None:
            extractor = UmonsFeatureExtractor.from_pretrained(find_model(arguments.feature_extractor))
        tokenizer = build_tokenizer(words) if own_tokenizer is None else own_tokenizer
        return cls(UmonsProcessor(tokenizer, extractor, UmonsVideoProcessor()), vectors)


def union(systems: Sequence[System]) -> System:
    """Return a system with the modalities of all systems."""
    read = {modality for system in systems for modality in system.modalities}
    first = next((system for system in systems if system.model_type != PLAIN_ENCODER), systems[0])
    return dataclasses.replace(first, modalities=tuple(modality for modality in MODALITIES if modality in read))


def has_labels(pretrained: PreTrainedConfig, task: Task) -> bool:
    """Return whether a pretrained model has all labels of a task, so that its outputs are kept."""
    try:
        own = task_of(pretrained)
    except ValueError:  # labels of no task
        return False
    if task.name == "classification" or task.reads_lists:
        return own.name == task.name and set(task.labels) <= set(own.labels)
    return own.labels == task.labels and own.problem_type == task.problem_type


def make_config(system: System, arguments: ModelArguments, parts: Parts, task: Task) -> PreTrainedConfig:
    """Create the configuration of a new model, or load that of a pretrained one with the labels of the task."""
    if arguments.model_name_or_path is not None:
        folder, options = find_model(arguments.model_name_or_path), task.config_options()
        if arguments.context_size:
            options["context_size"] = arguments.context_size
        # Votes are of a sentiment and emotions. The calibration is that of the old weights.
        if task.name != "joint" and hasattr(arguments.pretrained_config(), "modality_fusion"):
            options["modality_fusion"] = "attention"
        return AutoConfig.from_pretrained(folder, **options, calibration=None)
    extractor = parts.processor.feature_extractor
    options = {
        "modalities": list(system.modalities),
        # Audio encoders have their own feature extractor without these attributes.
        "audio_feature_size": getattr(extractor, "frame_size", 80),
        "max_audio_length": getattr(extractor, "max_length", 60),
        "vocab_size": len(parts.processor.tokenizer),
        "word_embedding_size": arguments.word_embedding_size,
        **task.config_options(),
        **_encoder_options(system, arguments, parts),
    }
    if system.model_type == "umons":
        options |= {name: getattr(arguments, name) for name in UMONS_OPTIONS}
    config = AutoConfig.for_model(system.model_type, **options)
    overrides = config_overrides(system, arguments.config_overrides)
    if unknown := sorted(set(overrides) - {option.name for option in dataclasses.fields(config)}):
        raise ValueError(f"--config_overrides: {type(config).__name__} has no {', '.join(unknown)}.")
    return AutoConfig.for_model(system.model_type, **(options | overrides)) if overrides else config


def make_model(
    config: PreTrainedConfig, arguments: ModelArguments, parts: Parts, running: Collection[str] = ("text",)
) -> PreTrainedModel:
    """
    Create a model with the word vectors and encoders of `parts`, or load a pretrained one with a head for the task.
    Encoders are trainable only for the modalities in `running`.
    """
    if arguments.model_name_or_path is not None:
        model = AutoModelForSequenceClassification.from_pretrained(
            find_model(arguments.model_name_or_path), config=config, ignore_mismatched_sizes=True, use_safetensors=True
        )
        is_new_head = not has_labels(arguments.pretrained_config(), task_of(config))
        if is_new_head:
            model.classifier.reset_parameters()  # other labels, even if the size is equal
    else:
        is_new_head = True
        model = AutoModelForSequenceClassification.from_config(config)
        for modality, encoder in encoders_of(model).items():
            encoder.load_state_dict(encoders_of(parts.pretrained)[modality].state_dict())
        if parts.vectors is not None and "text" in config.modalities:
            tokenizer = parts.processor.tokenizer
            matrix, coverage = build_embedding_matrix(tokenizer, parts.vectors, size=config.word_embedding_size)
            model.get_input_embeddings().weight.data.copy_(torch.from_numpy(matrix))
            logger.info(
                "%.1f %% of the %d words have a vector in %s", 100 * coverage, len(tokenizer), arguments.word_vectors
            )
    if config.label_ranges and is_new_head:
        scale_outputs(model.classifier, config.label_ranges)
    prepare_encoders(model, arguments, running)
    if arguments.text_model is not None:
        copy_text_model(model, arguments.text_model)
    if arguments.freeze_word_vectors and "text" in config.modalities:
        model.get_input_embeddings().requires_grad_(False)
    return model


def scale_outputs(classifier: nn.Linear, ranges: Sequence[Sequence[float]]) -> None:
    """Scale the outputs of a new regression, whose spread suits a sentiment, to the ranges of its labels."""
    low, high = torch.tensor(ranges, dtype=classifier.weight.dtype).T
    with torch.no_grad():
        classifier.weight *= ((high - low) / SENTIMENT_WIDTH)[:, None]
        classifier.bias.copy_((low + high) / 2)


def _encoder_options(system: System, arguments: ModelArguments, parts: Parts) -> dict[str, Any]:
    """Return the options of the configuration that depend on the pretrained encoders."""
    encoders = system.encoders(arguments)
    options: dict[str, Any] = {}
    for modality in encoders:
        options[f"{modality}_encoder"] = copy.deepcopy(parts.pretrained.config.encoder_of(modality))
    if encoders:
        options["use_weighted_layer_sum"] = [m for m in arguments.use_weighted_layer_sum if m in encoders]
    if "audio" in encoders:
        options |= {name: getattr(parts.pretrained.config, name) for name in AUDIO_OPTIONS}
    return options


def check_options(systems: Sequence[System], arguments: ModelArguments, of_models: Sequence[str] = ()) -> None:
    """
    Check that options have an effect on one of the models.

    Args:
        systems: the models.
        arguments: options of the models.
        of_models: options of single models, such as tfn=5e-3; models of a recipe that are not trained are allowed.

    Raises:
        ValueError: an option has no effect, or a model in `of_models` is unknown.
    """
    for item in of_models:
        try:
            System.parse(item.partition("=")[0], MODALITIES)
        except ValueError as error:
            raise ValueError(f"{item}: {error}") from error
    if arguments.model_name_or_path is not None:
        unread = [f"--{name}" for name in chosen_options(arguments) if name not in FINE_TUNING_OPTIONS]
        if unread:
            names = ", ".join(unread)
            raise ValueError(f"With --model_name_or_path, {names} has no effect: leave it out, the model has its own.")
    chosen = [name for name in chosen_options(arguments) if name not in arguments.optional]
    has_umons = arguments.model_name_or_path is not None or any(system.model_type == "umons" for system in systems)
    if not has_umons and (unread := [name for name in chosen if name in UMONS_OPTIONS]):
        raise ValueError(
            f"{', '.join('--' + name for name in unread)} has no effect: it applies to UMONS models only. Set the "
            "sizes of other models with --config_overrides."
        )
    _check_encoders(systems, arguments)
    names = {system.name for system in systems} | {system.model_type for system in systems}
    if "config_overrides" in arguments.optional:
        names |= {*MODELS, PLAIN_ENCODER}
    for prefix, name, _ in map(_override, arguments.config_overrides):
        if prefix is not None and prefix not in names:
            raise ValueError(f"--config_overrides {prefix}.{name}: the model {prefix!r} is not trained.")


def _check_encoders(systems: Sequence[System], arguments: ModelArguments) -> None:
    """Check that each pretrained encoder is used, and that plain_encoder has one."""
    if arguments.model_name_or_path is not None:
        return
    read = {modality for system in systems for modality in system.encoders(arguments)}
    for modality in MODALITIES:
        option = f"{modality}_encoder"
        if getattr(arguments, option) is not None and modality not in read and option not in arguments.optional:
            raise ValueError(
                f"--{option} has no effect: it requires a umons model with {modality} among its modalities."
            )
    chosen = [name for name in chosen_options(arguments) if name not in arguments.optional]
    for modality in arguments.use_weighted_layer_sum:
        if modality not in read and "use_weighted_layer_sum" in chosen:
            raise ValueError(f"--use_weighted_layer_sum {modality} has no effect without --{modality}_encoder.")
    is_plain = any(system.model_type == PLAIN_ENCODER for system in systems)
    if is_plain and "text" not in read:
        raise ValueError("--model plain_encoder requires --text_encoder.")
    unread = [name for name in chosen if name in WORD_OPTIONS]
    if unread and all("text" in system.encoders(arguments) for system in systems):
        raise ValueError(
            f"{', '.join('--' + name for name in unread)} has no effect: all models use the tokens of the text "
            "encoder."
        )


def config_overrides(system: System, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the overrides of a model; `tfn.option=value` has priority over `option=value`."""
    parsed = list(map(_override, overrides))
    chosen = {name: value for prefix, name, value in parsed if prefix is None}
    for of in (system.model_type, system.name):
        chosen |= {name: value for prefix, name, value in parsed if prefix == of}
    return chosen


def _override(text: str) -> tuple[str | None, str, Any]:
    """Parse an override to model (or `None`), option and value; values are YAML."""
    option, equals, value = text.partition("=")
    prefix, _, name = option.rpartition(".")
    if not equals or not name:
        raise ValueError(f"--config_overrides {text}: expected option=value, or model.option=value.")
    try:
        return prefix or None, name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"--config_overrides {text}: {value!r} is not a valid value: {error}") from error


def chosen_options(arguments: Any) -> dict[str, Any]:
    """Return the options that are not at their defaults."""
    defaults, chosen = type(arguments)(), {}
    for option in dataclasses.fields(arguments):
        value = getattr(arguments, option.name)
        if option.init and value != getattr(defaults, option.name):
            chosen[option.name] = getattr(value, "value", value)
    return chosen
