"""Diagnosis of folders of models that cannot be loaded: which file is at fault, and why."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any


CONFIG, TOKENIZER, TOKENIZER_CONFIG = "config.json", "tokenizer.json", "tokenizer_config.json"
PROCESSOR_CONFIGS = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
WEIGHTS = "model.safetensors"
# Types of settings that transformers uses without checking them.
CONFIG_TYPES: dict[str, tuple[type, ...]] = {
    "architectures": (list, type(None)),
    "model_type": (str,),
    "auto_map": (dict,),
    "custom_pipelines": (dict,),
    "id2label": (dict,),
    "label2id": (dict,),
}
TOKENIZER_TYPES: dict[str, tuple[type, ...]] = {
    "tokenizer_class": (str,),
    "model_max_length": (int, float),
    "padding_side": (str,),
    "truncation_side": (str,),
    "model_input_names": (list,),
    "added_tokens_decoder": (dict,),
    "extra_special_tokens": (dict, list),
    "auto_map": (dict,),
    **dict.fromkeys(("unk_token", "pad_token", "bos_token", "eos_token", "cls_token", "sep_token", "mask_token"),
                    (str, dict, type(None))),
}  # fmt: skip


def describe_damage(folder: str | Path, error: Exception) -> str:
    """
    Return the file at fault and the reason, on one line.

    Args:
        folder: Folder of a model, or its name on the Hub, of which only the error is described.
        error: Error of loading the model.
    """
    return next(_find_faults(Path(folder)), describe_error(error))


def describe_error(error: Exception) -> str:
    """Return the message of an error on one line, with its type if that is not OSError or ValueError."""
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, (OSError, ValueError)) and text else f"{type(error).__name__}: {text}"


def _find_faults(folder: Path) -> Iterator[str]:
    """Yield what is wrong with the files in a folder, in the order in which they are loaded."""
    if not folder.is_dir():
        return
    contents = {}
    for name in (CONFIG, *PROCESSOR_CONFIGS, TOKENIZER_CONFIG, TOKENIZER):
        if (path := folder / name).is_file():
            try:
                contents[name] = json.loads(path.read_text(encoding="utf-8"))
            except (ValueError, RecursionError) as error:
                yield f"{name} is not valid JSON in UTF-8 ({describe_error(error)})."
                return
            if not isinstance(contents[name], dict):
                yield f"{name} is not a JSON object."
                return
    for name, types in {CONFIG: CONFIG_TYPES, TOKENIZER_CONFIG: TOKENIZER_TYPES}.items():
        for key, value in contents.get(name, {}).items():
            if key in types and not isinstance(value, types[key]):
                expected = " or ".join(kind.__name__ for kind in types[key])
                yield f"{name}: `{key}` is {value!r:.80}, expected {expected}."
            elif key in types and isinstance(value, list) and not all(isinstance(item, str) for item in value):
                yield f"{name}: `{key}` is {value!r:.80}, expected a list of texts."
    for name, load in _steps(folder).items():
        if name == TOKENIZER and not (folder / TOKENIZER).exists():  # not every tokenizer has this file
            continue
        try:
            load()
        except Exception as error:  # libraries raise errors of many types for damaged files
            yield f"{name}: {describe_error(error)}"


def _steps(folder: Path) -> dict[str, Callable[[], Any]]:
    """Return, by the name of a file, a function that loads it."""
    from tokenizers import Tokenizer
    from transformers import AutoConfig, AutoTokenizer

    from ..models.umons.processing_umons import UmonsProcessor

    return {
        CONFIG: lambda: AutoConfig.from_pretrained(folder, trust_remote_code=False),
        TOKENIZER: lambda: Tokenizer.from_file(str(folder / TOKENIZER)),
        TOKENIZER_CONFIG: lambda: AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
        PROCESSOR_CONFIGS[0]: lambda: UmonsProcessor.from_pretrained(folder),
        WEIGHTS: lambda: _check_weights(folder),
    }


def _check_weights(folder: Path) -> None:
    """Raise ValueError for weights that do not fit the configuration."""
    import torch
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModelForSequenceClassification

    with safe_open(folder / WEIGHTS, "pt") as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):  # shapes without memory
        model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
    for name, tensor in model.state_dict().items():
        if name in found and found[name] != tuple(tensor.shape):
            raise ValueError(f"`{name}` has the shape {found[name]}, but {CONFIG} requires {tuple(tensor.shape)}.")


def check_complete(name: str, model: Any) -> None:
    """
    Check that the safetensors files of a model contain all of its weights. (`from_pretrained` initialises missing ones
    at random, with a warning.)

    Args:
        name: Folder or Hub id that the model was loaded from.
        model: The model.

    Raises:
        ValueError: Weights are missing.
    """
    from safetensors import safe_open
    from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, cached_file

    find = partial(cached_file, name, _raise_exceptions_for_missing_entries=False)
    if path := find(WEIGHTS):
        with safe_open(path, "pt") as file:
            found = set(file.keys())
    elif path := find(SAFE_WEIGHTS_INDEX_NAME):
        found = set(json.loads(Path(path).read_text(encoding="utf-8"))["weight_map"])
    else:
        return
    tied = set(getattr(model, "all_tied_weights_keys", ()))
    missing = [key for key in model.state_dict() if key not in found | tied]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(
            f"{Path(path).name} lacks weights of the model: {', '.join(missing[:3])}{more}. Save the model again."
        )
