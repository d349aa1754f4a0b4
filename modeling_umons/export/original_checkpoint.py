"""Conversion of checkpoints of the published UMONS implementation."""

import logging
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedTokenizerFast

from ..data.safe_checkpoint import read_checkpoint
from ..data.safe_pickle import read_pickle
from ..models.umons.configuration_umons import EMOTIONS, UmonsConfig
from ..models.umons.feature_extraction_umons import UmonsFeatureExtractor
from ..models.umons.modeling_tbje import UmonsForSequenceClassification
from ..models.umons.processing_umons import UmonsProcessor
from ..models.umons.tokenization_umons import build_original_tokenizer, build_tokenizer
from ..models.umons.video_processing_umons import UmonsVideoProcessor
from ..utils.files import new_folder, use_default_mode


logger = logging.getLogger(__name__)

# Published parameter names by model. An `enc_list` block has one unit per modality.
MODALITY_OF_UNIT = {
    "Model_LA": {"sa1": "text", "sa3": "audio"},
    "Model_LAV": {"sa1": "text", "sa2": "audio", "sa3": "video"},
}
MODALITY_OF_NAME = {
    "lang": "text", "l": "text",
    "audio": "audio", "ac": "audio", "img": "audio", "i": "audio", "a": "audio",
    "vid": "video", "v": "video",
}  # fmt: skip
# Published training arguments that describe the model, in addition to `model`.
ARGUMENTS = (
    "task", "ans_size", "layer", "hidden_size", "ff_size", "multi_head", "dropout_r", "word_embed_size",
    "lang_seq_len", "audio_seq_len", "video_seq_len", "audio_feat_size", "video_feat_size",
)  # fmt: skip
PROJECTIONS = {"linear_q": "q_proj", "linear_k": "k_proj", "linear_v": "v_proj", "linear_merge": "o_proj"}
MLP_LAYERS = {"mlp.fc.linear": "fc1", "mlp.linear": "fc2"}
FRONT_ENDS = {
    "embedding": "front_ends.text.embed_tokens",
    "lstm_x": "front_ends.text.lstm",
    "lstm_y": "front_ends.audio",  # of models of MELD
    "adapter": "front_ends.audio",
    "adapter_y": "front_ends.audio",
    "adapter_z": "front_ends.video",
}


def rename(name: str, model: str) -> str:
    """Return the name in `UmonsForSequenceClassification` of the parameter `name` of a published `model`."""
    name = name.removeprefix("module.").replace("a_2", "weight").replace("b_2", "bias")
    if name.startswith("proj."):
        return name.replace("proj", "classifier")
    if name.startswith("proj_norm."):
        return "model." + name.replace("proj_norm", "layer_norm")
    if name.split(".")[0] in FRONT_ENDS:
        return "model." + FRONT_ENDS[name.split(".")[0]] + "." + name.split(".")[1]

    if match := re.fullmatch(r"attflat_(\w+?)\.(mlp\.fc\.linear|mlp\.linear|linear_merge)\.(\w+)", name):
        part = {**{k: f"glimpse.{v}" for k, v in MLP_LAYERS.items()}, "linear_merge": "projection"}[match[2]]
        return f"model.poolers.{MODALITY_OF_NAME[match[1]]}.{part}.{match[3]}"

    block, rest = re.fullmatch(r"enc_list\.(\d+)\.(.+)", name).groups()
    if match := re.fullmatch(r"att_(\w+?)\.(mlp\.fc\.linear|mlp\.linear)\.(\w+)", rest):
        modality, part = MODALITY_OF_NAME[match[1]], f"glimpse.{MLP_LAYERS[match[2]]}.{match[3]}"
    elif match := re.fullmatch(r"norm_(\w)\.(\w+)", rest):
        modality, part = MODALITY_OF_NAME[match[1]], f"glimpse_layer_norm.{match[2]}"
    else:
        unit, rest = rest.split(".", 1)
        modality = MODALITY_OF_UNIT[model][unit]
        guided = modality != "text"
        norms = {"norm1": "self_attn", "norm2": "cross_attn" if guided else "mlp", "norm3": "mlp"}
        if match := re.fullmatch(r"(mhatt[12]?)\.(\w+)\.(\w+)", rest):
            part = f"{'cross' if match[1] == 'mhatt2' else 'self'}_attn.{PROJECTIONS[match[2]]}.{match[3]}"
        elif match := re.fullmatch(r"ffn\.(mlp\.fc\.linear|mlp\.linear)\.(\w+)", rest):
            part = f"mlp.{MLP_LAYERS[match[1]]}.{match[2]}"
        else:
            norm, leaf = rest.split(".")
            part = f"{norms[norm]}_layer_norm.{leaf}"
    return f"model.layers.{block}.modality_layers.{modality}.{part}"


def convert_state_dict(state_dict: Mapping[str, torch.Tensor], model: str) -> dict[str, torch.Tensor]:
    """
    Rename the parameters of a published model.

    The published LayerNorm divides by the unbiased standard deviation; its weights are scaled for the biased one.
    """
    converted = {}
    for name, tensor in state_dict.items():
        if name.endswith("a_2"):
            tensor = tensor * math.sqrt(1 - 1 / max(tensor.numel(), 1))
        try:
            converted[rename(name, model)] = tensor.float().clone()  # safetensors refuses shared memory
        except (AttributeError, IndexError, KeyError, ValueError):
            raise ValueError(f"The checkpoint has a parameter `{name}`, which {model} does not have.") from None
    return converted


def convert_config(args: Mapping, vocab_size: int, audio_front_end: str = "linear") -> UmonsConfig:
    """
    Return the configuration for the published training arguments `args`. Classes of MELD have no names, because the
    published code does not name them.
    """
    if args.get("model") not in list(MODALITY_OF_UNIT):
        raise ValueError(f"The checkpoint is of `{args.get('model')}`; expected one of {', '.join(MODALITY_OF_UNIT)}.")
    if missing := [name for name in ARGUMENTS if name not in args]:
        raise ValueError(f"The checkpoint's training arguments have no {', '.join(missing)}.")
    if args.get("dataset") == "MELD":
        labels = tuple(f"LABEL_{i}" for i in range(args["ans_size"]))
        problem_type = "single_label_classification"
    elif args["task"] == "emotion":
        labels, problem_type = EMOTIONS, "multi_label_classification"
    elif args["ans_size"] == 2:
        labels, problem_type = ("negative", "not negative"), "single_label_classification"
    else:
        labels, problem_type = ("-3", "-2", "-1", "0", "1", "2", "3"), "single_label_classification"
    try:
        return UmonsConfig(
            modalities=list(MODALITY_OF_UNIT[args["model"]].values()),
            vocab_size=vocab_size,
            word_embedding_size=args["word_embed_size"],
            hidden_size=args["hidden_size"],
            intermediate_size=args["ff_size"],
            num_hidden_layers=args["layer"],
            num_attention_heads=args["multi_head"],
            hidden_dropout_prob=args["dropout_r"],
            attention_probs_dropout_prob=args["dropout_r"],
            max_text_length=args["lang_seq_len"],
            max_audio_length=args["audio_seq_len"],
            max_video_length=args["video_seq_len"],
            audio_feature_size=args["audio_feat_size"],
            video_feature_size=args["video_feat_size"],
            legacy_masking=True,
            audio_front_end=audio_front_end,
            problem_type=problem_type,
            id2label=dict(enumerate(labels)),
            label2id={label: i for i, label in enumerate(labels)},
        )
    except StrictDataclassError as error:
        raise ValueError(f"The checkpoint's training arguments do not describe a model: {error}") from None


def convert_model(state_dict: Mapping[str, torch.Tensor], args: Mapping) -> UmonsForSequenceClassification:
    """
    Return a float32 model in evaluation mode with the published parameters.

    Raises:
        ValueError: Parameters are missing, unexpected, or of other sizes than the training arguments.
    """
    embedding = state_dict.get("module.embedding.weight", state_dict.get("embedding.weight"))
    if embedding is None or embedding.ndim != 2:
        raise ValueError(
            "The checkpoint has no matrix `embedding.weight`: it is not one of the published implementation."
        )
    has_lstm = any(name.removeprefix("module.").startswith("lstm_y.") for name in state_dict)
    config = convert_config(args, len(embedding), audio_front_end="lstm" if has_lstm else "linear")
    converted = convert_state_dict(state_dict, args["model"])
    # Checked before the model is built, because a hostile number of layers may be very large.
    blocks = {name.split(".")[2] for name in converted if name.startswith("model.layers.")}
    if len(blocks) != config.num_hidden_layers:
        raise ValueError(
            f"The checkpoint does not fit its own arguments: they say {config.num_hidden_layers} layers, it has "
            f"{len(blocks)}."
        )
    with torch.device("meta"):  # shapes without memory
        model = UmonsForSequenceClassification(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in converted.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ValueError(
                f"The checkpoint does not fit its own arguments: as `{name}` it has {found.get(name, 'nothing')}, "
                f"where they call for {expected.get(name, 'nothing')}."
            )
    model.load_state_dict(converted, assign=True)
    return model.eval()


def make_tokenizer(token_to_ix: Path | None, config: UmonsConfig) -> PreTrainedTokenizerFast:
    """Build the tokenizer of the published vocabulary. Without one, every word is the unknown word."""
    if token_to_ix is not None:
        vocabulary = read_pickle(token_to_ix)
        if not isinstance(vocabulary, dict) or any(
            (type(word), type(index)) != (str, int) for word, index in vocabulary.items()
        ):
            raise ValueError(f"{token_to_ix} is not a vocabulary: expected a dict of words and their ids.")
        with _name_file(token_to_ix):
            tokenizer = build_original_tokenizer(vocabulary, max_length=config.max_text_length)
        if len(tokenizer) != config.vocab_size:
            raise ValueError(
                f"{token_to_ix} has {len(tokenizer)} word ids, but the checkpoint has {config.vocab_size} word "
                "vectors: pass the vocabulary of this checkpoint."
            )
        return tokenizer
    logger.warning(
        "Without --token_to_ix, the tokenizer of this folder treats every word as unknown. Pass the token_to_ix.pkl "
        "of the training data of the checkpoint."
    )
    return build_tokenizer([], max_length=config.max_text_length)


def convert_checkpoint(checkpoint: Path, output: Path, token_to_ix: Path | None = None):
    """
    Convert a checkpoint to a new folder that loads with AutoModelForSequenceClassification and AutoProcessor.

    Raises:
        OSError: A file cannot be read, or `output` is a file or a folder that is not empty.
        ValueError: The checkpoint or the vocabulary is damaged, or they are not of the published implementation.
    """
    with new_folder(output) as folder:
        _convert(checkpoint, folder, token_to_ix)


def _convert(checkpoint: Path, folder: Path, token_to_ix: Path | None) -> None:
    published = read_checkpoint(checkpoint)
    with _name_file(checkpoint):
        model = convert_model(published["state_dict"], published["args"])
    processor = UmonsProcessor(
        make_tokenizer(token_to_ix, model.config),
        UmonsFeatureExtractor(feature_size=model.config.audio_feature_size, max_length=model.config.max_audio_length),
        UmonsVideoProcessor(max_clips=model.config.max_video_length),
    )
    if "LABEL_0" in model.config.label2id:
        logger.warning(
            "%s has %d classes of MELD, whose names it does not contain: set `id2label` in config.json to the order "
            "of its labels.", checkpoint, model.config.num_labels,
        )  # fmt: skip
    model.save_pretrained(folder)
    use_default_mode(folder)
    processor.save_pretrained(folder)


@contextmanager
def _name_file(path: Path) -> Iterator[None]:
    """Prefix errors of the content of a file with its path."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
