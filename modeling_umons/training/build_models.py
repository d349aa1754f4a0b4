"""What is trained: the UMONS model or one of the related work, new or to go on from, and the processor it is fed by."""

import copy
import dataclasses
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import yaml
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from ..data.word_vectors import load_word_vectors
from ..models.umons.configuration_umons import MODALITIES
from ..models.umons.feature_extraction_umons import UmonsFeatureExtractor
from ..models.umons.modeling_tbje import UmonsModel
from ..models.umons.processing_umons import UmonsProcessor
from ..models.umons.tokenization_umons import build_embedding_matrix, build_tokenizer, train_vocabulary
from ..models.umons.video_processing_umons import UmonsVideoProcessor
from ..registration import MODELS
from ..tasks.task import Task
from ..utils.hub_files import find_model
from .arguments import ModelArguments
from .encoders import encoders_of, find_encoder, prepare_encoders
from .plain_encoder import PlainEncoderConfig


logger = logging.getLogger(__name__)

# Sizes and dropout that options of their own set, in a model of this type; those of others are set by --config_overrides.
UMONS_OPTIONS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_dropout_prob",
    "attention_probs_dropout_prob",
)  # fmt: skip
# They read frames word by word, and so have to know when each frame is.
ALIGNED_MODELS = ("mfn", "graph_mfn")
# What does not make a model new, but says which one it is and how it is trained.
READ_BY_ANY_MODEL = ("model", "model_name_or_path", "freeze_word_vectors", "freeze_encoders", "lora_rank")
WORD_OPTIONS = ("word_vectors", "extra_words", "freeze_word_vectors", "min_word_count", "word_embedding_size")
PLAIN_ENCODER = PlainEncoderConfig.model_type
# What follows from an encoder of sound.
AUDIO_OPTIONS = ("audio_feature_size", "audio_sampling_rate", "max_audio_length")


@dataclass(frozen=True)
class System:
    """
    A model by the name that --model has for it: its type, and `_text`, `_audio`, `_video` for what it is left with. With
    `_paper` a umons has the paper's front ends, whatever encoders there are.
    """

    name: str
    model_type: str
    modalities: tuple[str, ...]
    is_paper: bool = False

    @classmethod
    def parse(cls, name: str, modalities: Sequence[str]) -> "System":
        """
        `umons`, `tfn`, ... with all of `modalities`, or `umons_text`, `tfn_text_audio`, ... with those of them;
        `umons_paper`, and `plain_encoder`, which reads text. Raises ValueError for a name that no model has.
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
                f"--model {name}: there is no such model; there are {', '.join(MODELS)}, umons_paper and plain_encoder, and with some of the modalities alone "
                f"such as umons_{modalities[0]}."
            )
        if missing := [modality for modality in chosen if modality not in modalities]:
            raise ValueError(f"--model {name}: --modalities has no {' and no '.join(missing)}.")
        return cls(name, model_type, tuple(chosen or modalities), is_paper)

    def encoders(self, arguments: ModelArguments) -> dict[str, str]:
        """The pretrained encoders that it has, by modality: folders or Hub ids. Raises ImportError for a missing package."""
        if self.is_paper or self.model_type not in ("umons", PLAIN_ENCODER):
            return {}
        names = {modality: getattr(arguments, f"{modality}_encoder", None) for modality in self.modalities}
        return {modality: find_encoder(name) for modality, name in names.items() if name is not None}


@dataclass(frozen=True)
class Parts:
    """
    What models of the same front ends share that are trained on the same rows: the processor, and what to start from,
    word vectors or a model of their pretrained encoders.
    """

    processor: UmonsProcessor
    vectors: Mapping[str, Any] | None = None
    pretrained: UmonsModel | None = None

    @classmethod
    def make(cls, arguments: ModelArguments, texts: list[str], encoders: Mapping[str, str] | None = None) -> "Parts":
        """With a vocabulary of the training texts, or of the encoder of text, or of the model to go on from."""
        if arguments.model_name_or_path is not None:
            return cls(UmonsProcessor.from_pretrained(find_model(arguments.model_name_or_path)))
        if encoders:
            # Of this model, only the encoders are of interest.
            small = {"hidden_size": 1, "num_attention_heads": 1, "intermediate_size": 1, "num_hidden_layers": 1}
            pretrained = UmonsModel.from_encoders(
                **encoders, use_weighted_layer_sum=arguments.use_weighted_layer_sum, **small
            )
            own = cls.make(arguments, texts) if "text" not in encoders else None
            tokenizer = None if own is None else own.processor.tokenizer
            processor = UmonsProcessor.from_encoders(**encoders, tokenizer=tokenizer)
            return cls(processor, None if own is None else own.vectors, pretrained)
        vectors = None
        words = train_vocabulary(texts, min_count=arguments.min_word_count) if texts else []
        if arguments.word_vectors is not None and words:
            vectors = load_word_vectors(arguments.word_vectors, size=arguments.word_embedding_size)
            words += list(islice(vectors, arguments.extra_words))  # in the order of the file, commonest first
        extractor = UmonsFeatureExtractor()
        if arguments.feature_extractor is not None:
            extractor = UmonsFeatureExtractor.from_pretrained(find_model(arguments.feature_extractor))
        return cls(UmonsProcessor(build_tokenizer(words), extractor, UmonsVideoProcessor()), vectors)


def union(systems: Sequence[System]) -> System:
    """A model that reads all that any of these reads."""
    read = {modality for system in systems for modality in system.modalities}
    first = next((system for system in systems if system.model_type != PLAIN_ENCODER), systems[0])
    return dataclasses.replace(first, modalities=tuple(modality for modality in MODALITIES if modality in read))


def make_config(system: System, arguments: ModelArguments, parts: Parts, task: Task) -> PreTrainedConfig:
    """The configuration of a new model, or of the one to go on from with the labels of the task."""
    if arguments.model_name_or_path is not None:
        read = set(READ_BY_ANY_MODEL)
        if unread := [name for name in chosen_options(arguments) if name not in read]:
            raise ValueError(
                f"A model to go on from is as it is: nothing reads {', '.join('--' + name for name in unread)}."
            )
        return AutoConfig.from_pretrained(find_model(arguments.model_name_or_path), **task.config_options())
    extractor = parts.processor.feature_extractor
    options = {
        "modalities": list(system.modalities),
        # An encoder of sound has a feature extractor of its own, and the sizes are the encoder's.
        "audio_feature_size": getattr(extractor, "frame_size", 80),
        "max_audio_length": getattr(extractor, "max_length", 60),
        "vocab_size": len(parts.processor.tokenizer),
        "word_embedding_size": arguments.word_embedding_size,
        **task.config_options(),
        **_encoder_options(system, arguments, parts),
    }
    if system.model_type == "umons":
        options |= {name: getattr(arguments, name) for name in UMONS_OPTIONS}
    if system.model_type in ALIGNED_MODELS:
        clips = parts.processor.video_processor
        options |= {
            "audio_frame_duration": extractor.frame_duration,
            "video_frame_duration": clips.clip_stride / clips.frame_rate,
            "video_first_middle": clips.clip_length / 2 / clips.frame_rate,
        }
    config = AutoConfig.for_model(system.model_type, **options)
    overrides = config_overrides(system, arguments.config_overrides)
    if unknown := sorted(set(overrides) - {option.name for option in dataclasses.fields(config)}):
        raise ValueError(f"--config_overrides: {type(config).__name__} has no {', '.join(unknown)}.")
    return AutoConfig.for_model(system.model_type, **(options | overrides)) if overrides else config


def make_model(
    config: PreTrainedConfig, arguments: ModelArguments, parts: Parts, running: Collection[str] = ("text",)
) -> PreTrainedModel:
    """
    A model of this configuration, its word vectors those of `parts`; or the one to go on from, its head for the task. Of
    its pretrained encoders those of the modalities `running` may learn.
    """
    if arguments.model_name_or_path is not None:
        model = AutoModelForSequenceClassification.from_pretrained(
            find_model(arguments.model_name_or_path), config=config, ignore_mismatched_sizes=True
        )
        if AutoConfig.from_pretrained(find_model(arguments.model_name_or_path)).id2label != config.id2label:
            model.classifier.reset_parameters()  # a head that says something else, even if it has the same size
    else:
        model = AutoModelForSequenceClassification.from_config(config)
        for modality, encoder in encoders_of(model).items():
            encoder.load_state_dict(encoders_of(parts.pretrained)[modality].state_dict())
        if parts.vectors is not None and "text" in config.modalities:
            tokenizer = parts.processor.tokenizer
            matrix, coverage = build_embedding_matrix(tokenizer, parts.vectors, size=config.word_embedding_size)
            model.get_input_embeddings().weight.data.copy_(torch.from_numpy(matrix))
            logger.info(
                "%.1f %% of %d words have a vector in %s", 100 * coverage, len(tokenizer), arguments.word_vectors
            )
    prepare_encoders(model, arguments, running)
    if arguments.freeze_word_vectors and "text" in config.modalities:
        model.get_input_embeddings().requires_grad_(False)
    return model


def _encoder_options(system: System, arguments: ModelArguments, parts: Parts) -> dict[str, Any]:
    """What the configuration of a system has to know of its pretrained encoders."""
    encoders = system.encoders(arguments)
    options: dict[str, Any] = {}
    for modality in encoders:
        options[f"{modality}_encoder"] = copy.deepcopy(parts.pretrained.config.encoder_of(modality))
    if encoders:
        options["use_weighted_layer_sum"] = arguments.use_weighted_layer_sum
    if "audio" in encoders:
        options |= {name: getattr(parts.pretrained.config, name) for name in AUDIO_OPTIONS}
    return options


def check_options(systems: Sequence[System], arguments: ModelArguments, of_models: Sequence[str] = ()) -> None:
    """
    Raises ValueError for options that none of the models reads, and where those `of_models`, such as tfn=5e-3, name what
    is no model. (Of models that are not trained they may be: a recipe knows more of them than one run of it.)
    """
    for item in of_models:
        try:
            System.parse(item.partition("=")[0], MODALITIES)
        except ValueError as error:
            raise ValueError(f"{item} is for a model that does not exist: {error}") from error
    chosen = chosen_options(arguments)
    is_read = arguments.model_name_or_path is not None or any(system.model_type == "umons" for system in systems)
    if not is_read and (unread := [name for name in chosen if name in UMONS_OPTIONS]):
        raise ValueError(
            f"Nothing reads {', '.join('--' + name for name in unread)}: they are of UMONS models. Others have their sizes "
            "from --config_overrides."
        )
    if arguments.model_name_or_path is not None and "model" in chosen:
        raise ValueError("--model makes a new model, --model_name_or_path goes on from one: pass one of them.")
    _check_encoders(systems, arguments)
    names = {system.name for system in systems} | {system.model_type for system in systems}
    for prefix, name, _ in map(_override, arguments.config_overrides):
        if prefix is not None and prefix not in names:
            raise ValueError(f"--config_overrides {prefix}.{name}: no model {prefix!r} is trained.")


def _check_encoders(systems: Sequence[System], arguments: ModelArguments) -> None:
    """Raises ValueError for encoders that none of the models reads, and a model that lacks its own."""
    if arguments.model_name_or_path is not None:
        return
    read = {modality for system in systems for modality in system.encoders(arguments)}
    for modality in MODALITIES:
        if getattr(arguments, f"{modality}_encoder") is not None and modality not in read:
            raise ValueError(
                f"Nothing reads --{modality}_encoder: that takes a model umons, and {modality} among its modalities."
            )
    if arguments.use_weighted_layer_sum and not read & {"text", "audio"}:
        raise ValueError("Nothing reads --use_weighted_layer_sum: give --text_encoder or --audio_encoder.")
    is_plain = any(system.model_type == PLAIN_ENCODER for system in systems)
    if is_plain and "text" not in read:
        raise ValueError("--model plain_encoder needs an encoder: give --text_encoder.")
    unread = [name for name in chosen_options(arguments) if name in WORD_OPTIONS]
    if unread and all("text" in system.encoders(arguments) for system in systems):
        raise ValueError(
            f"Nothing reads {', '.join('--' + name for name in unread)}: the words of all models are the encoder's."
        )


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
