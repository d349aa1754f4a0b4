"""Checks of an assembled folder before a push: its kind, code, weights, data, card, and tokens in its files."""

import mmap
import os
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import constants, metadata_load
from safetensors import SafetensorError, safe_open
from transformers.dynamic_module_utils import get_relative_import_files

from .assemble import find_references, read_configs, read_json


README = "README.md"
WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".p", ".joblib")
TOKEN = re.compile(rb"hf_(?:oauth_)?[A-Za-z0-9]{20,}")  # without other underscores, which names in code have
SHARD = "?????-of-?????"


def find_kind(folder: Path) -> str:
    """Return "model", "dataset", "metric" or "space". Raises OSError if the files of `folder` do not tell."""
    if not folder.is_dir():
        raise OSError(f"{folder} is not a folder.")
    if (folder / "config.json").exists():
        return "model"
    metadata = read_metadata(folder)
    if "sdk" in metadata:
        return "metric" if {"evaluate", "metric"} <= set(metadata.get("tags") or ()) else "space"
    if "configs" in metadata or any(folder.glob("data/*.parquet")):
        return "dataset"
    if (folder / "app.py").exists():
        return "space"
    models = ", ".join(sorted(path.parent.name for path in folder.glob("*/config.json")))
    raise OSError(
        f"{folder} is neither a model (config.json), nor a data set (`configs` in README.md), nor a Space (`sdk` in "
        "README.md): give its kind with --type, or push another folder"
        + (f", such as {models} in it." if models else ".")
    )


def read_metadata(folder: Path) -> dict[str, Any]:
    """Return the metadata of a folder's card; empty if there is none. Raises OSError if it is not valid YAML."""
    if not (folder / README).is_file():
        return {}
    try:
        return metadata_load(folder / README) or {}
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise OSError(f"The metadata of {folder / README} is not a YAML mapping: {error}") from error


def check_folder(folder: Path, kind: str, metadata: dict[str, Any], repo_id: str, token: str = "") -> list[str]:
    """
    Check that an assembled folder loads for a user who has only the Hub, and return warnings.

    No file may contain `token`, or anything that looks like a token of the Hub. Raises OSError if something is
    missing, damaged or must not be published.
    """
    if not (folder / README).is_file():
        raise OSError(f"{folder} has no README.md: write a card with purpose, data, limits and licence.")
    for path in (path for path in folder.rglob("*") if path.is_file()):
        if path.suffix in PICKLES:
            raise OSError(
                f"{path} is a pickle, which can run code when it is loaded: save the weights as safetensors "
                "(`save_pretrained`), and remove it."
            )
        _check_tokens(path, token)
    CHECKS[kind](folder, metadata, repo_id)
    if not metadata.get("license"):
        return ["README.md names no licence (`license:` in its metadata): nobody may use the repository."]
    return []


def stale_patterns(kind: str, metadata: dict[str, Any]) -> list[str]:
    """Return patterns of the weights or Parquet shards that a push replaces in the repository."""
    if kind == "model":
        return [WEIGHTS, WEIGHTS_INDEX, f"model-{SHARD}.safetensors"]
    patterns = _data_patterns(metadata) if kind == "dataset" else []
    return [pattern.replace("-*.", f"-{SHARD}.") for pattern in patterns if pattern.endswith("-*.parquet")]


def _check_tokens(path: Path, token: str) -> None:
    if path.stat().st_size == 0:
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if TOKEN.search(content) or (token and content.find(token.encode()) >= 0):
            raise OSError(f"{path} holds a token of the Hub: remove it, and revoke it if others have seen it.")


def _check_model(folder: Path, metadata: dict[str, Any], repo_id: str) -> None:
    configs = read_configs(folder)
    if not configs.get("config.json", {}).get("auto_map"):
        raise OSError(
            f"{folder / 'config.json'} names no code (`auto_map`), so that the model loads only with modeling_umons: "
            "load it with modeling_umons and save it again with `save_pretrained`."
        )
    if not {"processor_config.json", "preprocessor_config.json"} & set(configs):
        raise OSError(f"{folder} has no processor_config.json: save the processor there too.")
    if "text" in configs["config.json"].get("modalities", ["text"]) and not (folder / "tokenizer.json").is_file():
        raise OSError(f"{folder} has no tokenizer.json: save the processor there too.")
    for name, config in configs.items():
        for reference in find_references(config):
            if "--" not in reference:  # `user/repo--module.Class` is in another repository
                _check_code(folder, reference.rpartition(".")[0], f"{name} names {reference}")
    _check_weights(folder)


def _check_code(folder: Path, module: str, reason: str) -> None:
    try:
        get_relative_import_files(folder / f"{module}.py")  # reads the files that it lists
    except FileNotFoundError as error:
        name = Path(error.filename).name
        raise OSError(f"{folder} has no {name}, but {reason}: save the model and its processor again.") from error


def _check_weights(folder: Path) -> None:
    expected = {WEIGHTS}
    if (folder / WEIGHTS_INDEX).is_file():
        weight_map = read_json(folder / WEIGHTS_INDEX).get("weight_map")
        if not isinstance(weight_map, dict):
            raise OSError(f"{folder / WEIGHTS_INDEX} has no `weight_map`: save the model again.")
        expected = set(map(str, weight_map.values()))
    found = {path.name: path for path in folder.glob("*.safetensors")}
    if missing := sorted(expected - set(found)):
        raise OSError(f"{folder} has no {missing[0]}: save the model again.")
    if stray := sorted(set(found) - expected):
        raise OSError(
            f"{found[stray[0]]} does not belong to these weights: remove it, or save the model in a new folder."
        )
    for path in found.values():
        try:
            with safe_open(path, framework="np"):
                pass
        except SafetensorError as error:
            raise OSError(f"{path} is not a complete safetensors file ({error}): save the model again.") from error


def _check_dataset(folder: Path, metadata: dict[str, Any], repo_id: str) -> None:
    patterns = _data_patterns(metadata)
    if not patterns:
        raise OSError(f"{folder / README} has no `configs` with `data_files`: prepare the data with `umons prepare`.")
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in names):
            raise OSError(f"{folder} has no {pattern}, which its card names: prepare the data with `umons prepare`.")
    for path in folder.rglob("*.parquet"):
        with open(path, "rb") as file:
            file.seek(-min(4, path.stat().st_size), os.SEEK_END)
            if file.read() != b"PAR1":
                raise OSError(f"{path} is not a complete Parquet file: prepare the data again.")


def _data_patterns(metadata: dict[str, Any]) -> list[str]:
    """Return the paths in the `configs` of a data set's card, in which they have several forms."""

    def walk(value: Any) -> Iterator[str]:
        if isinstance(value, str) and "://" not in value:
            yield value.removeprefix("./")
        elif isinstance(value, list):
            for item in value:
                yield from walk(item)
        elif isinstance(value, dict):
            yield from walk(value["path"] if "path" in value else list(value.values()))

    configs = metadata.get("configs")
    configs = configs if isinstance(configs, list) else []
    return list(dict.fromkeys(walk([config.get("data_files") for config in configs if isinstance(config, dict)])))


def _check_metric(folder: Path, metadata: dict[str, Any], repo_id: str) -> None:
    name = repo_id.rpartition("/")[2]
    if not (folder / f"{name}.py").is_file():
        found = ", ".join(sorted(path.stem for path in folder.glob("*.py"))) or "no .py file"
        raise OSError(f"`evaluate` loads {name}.py from a repository named {name!r}, but {folder} has {found}.")
    _check_space(folder, metadata, repo_id)


def _check_space(folder: Path, metadata: dict[str, Any], repo_id: str) -> None:
    if metadata.get("sdk") not in constants.SPACES_SDK_TYPES:
        known = ", ".join(constants.SPACES_SDK_TYPES)
        raise OSError(f"{folder / README} has no valid `sdk` in its metadata: use one of {known}.")
    app = str(metadata.get("app_file", "app.py"))
    if metadata["sdk"] == "gradio" and not (folder / app).is_file():
        raise OSError(f"{folder} has no {app}, which the Space runs.")


CHECKS = {"model": _check_model, "dataset": _check_dataset, "metric": _check_metric, "space": _check_space}
