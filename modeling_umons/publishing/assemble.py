"""Assembly of a repository of the Hub: the files of a folder, its code, and a handler for endpoints."""

import importlib
import json
import os
import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers.dynamic_module_utils import custom_object_save


PACKAGE = Path(__file__).resolve().parent.parent
# Files of the package that the handler of an endpoint imports as plain modules.
ENDPOINT_CODE = ("serving/request_handling.py",)
MODEL_FOLDERS = ("umons", "baselines")
CONFIGS = ("config.json", "processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
# Never pushed: hidden files, caches, and what only a training run needs.
IGNORED = (
    ".*", "checkpoint-*", "last-checkpoint", "training_args.bin", "optimizer.*", "optimizer_*", "scheduler.pt",
    "scaler.pt", "rng_state*", "trainer_state.json", "runs", "wandb", "mlruns", "events.out.tfevents.*", "cache",
    "cache-*", "__pycache__", "*.pyc", "*.egg-info", "*.part", "*.tmp", "*.lock", "*.incomplete", "flagged",
)  # fmt: skip
LINKED_SIZE = 8 << 20  # bytes; larger files are linked, not copied, when a push assembles a folder


def assemble_folder(
    folder: str | Path, destination: str | Path, endpoint: str | Path | None = None, link_large_files: bool = False
) -> list[str]:
    """
    Copy `folder` into `destination`, an empty or new folder, with the code that its configurations name.

    The code of the package is added if `folder` holds none. The result loads with `trust_remote_code=True` where the
    package is not installed, as a repository of the Hub does.

    Args:
        folder: a folder that `save_pretrained` wrote, `hub/umons-mini`, a data set, a metric or a Space.
        destination: where to write.
        endpoint: a folder with the handler of an Inference Endpoint, whose files are added, but for its card.
        link_large_files: make symbolic links to large files instead of copies.

    Returns:
        The names of files and folders that were left out: hidden files, caches, checkpoints.

    Raises:
        OSError: a file cannot be copied, is a symbolic link, or is in both folders.
    """
    folder, destination = Path(folder), Path(destination)
    destination.mkdir(parents=True, exist_ok=True)
    ignored = _copy_files(folder, destination, link_large_files)
    _add_code(destination)
    if endpoint is not None:
        _add_endpoint(Path(endpoint), destination)
    return ignored


def find_references(config: Any) -> Iterator[str]:
    """Yield `module.Class` of each `auto_map` entry and custom pipeline in a configuration, at any depth."""
    if not isinstance(config, dict):
        return
    for key, value in config.items():
        if key == "auto_map" and isinstance(value, dict):
            for names in value.values():
                yield from (name for name in (names if isinstance(names, list) else [names]) if isinstance(name, str))
        elif key == "custom_pipelines" and isinstance(value, dict):
            yield from (task["impl"] for task in value.values() if isinstance(task, dict) and "impl" in task)
        else:
            yield from find_references(value)


def read_configs(folder: Path) -> dict[str, Any]:
    """Return the configurations in a folder, by file name. Raises OSError if one is not a JSON object."""
    return {name: read_json(folder / name) for name in CONFIGS if (folder / name).is_file()}


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises OSError if the file holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise OSError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise OSError(f"{path} is not a JSON object.")
    return content


def _copy_files(folder: Path, destination: Path, link_large_files: bool) -> list[str]:
    ignored = []

    def walk(directory: Path) -> None:
        for path in sorted(directory.iterdir()):
            name = path.relative_to(folder)
            if any(fnmatch(path.name, pattern) for pattern in IGNORED):
                ignored.append(name.as_posix())
            elif path.is_symlink():
                raise OSError(f"{path} is a symbolic link to {os.readlink(path)}: replace it by a copy, or remove it.")
            elif path.is_dir():
                walk(path)
            else:
                target = destination / name
                target.parent.mkdir(parents=True, exist_ok=True)
                _copy_or_link(path, target, link_large_files and path.stat().st_size > LINKED_SIZE)

    walk(folder)
    return ignored


def _copy_or_link(source: Path, target: Path, is_linked: bool) -> None:
    if is_linked:
        try:
            target.symlink_to(source.resolve())
            return
        except OSError:  # Windows links files only for some users
            pass
    shutil.copyfile(source, target)


def _add_code(folder: Path) -> None:
    """Add the package's code to a folder that names code and holds none."""
    named = {name for config in read_configs(folder).values() for name in find_references(config)}
    references = sorted(name for name in named if "--" not in name)  # `user/repo--module.Class` is elsewhere
    if any((folder / f"{name.rpartition('.')[0]}.py").exists() for name in references):
        return
    for reference in references:
        module_name, _, class_name = reference.rpartition(".")
        for room in MODEL_FOLDERS:
            full_name = f"modeling_umons.models.{room}.{module_name}"
            if module_name.isidentifier() and find_spec(full_name) is not None:
                cls = getattr(importlib.import_module(full_name), class_name, None)
                if cls is not None:
                    custom_object_save(cls, folder)


def _add_endpoint(endpoint: Path, folder: Path) -> None:
    if not (endpoint / "handler.py").is_file():
        raise OSError(f"{endpoint} has no handler.py, which an Inference Endpoint starts from.")
    paths = [path for path in sorted(endpoint.iterdir()) if path.is_file() and path.name != "README.md"]
    for path in [*paths, *(PACKAGE / name for name in ENDPOINT_CODE)]:
        target = folder / path.name
        if any(fnmatch(path.name, pattern) for pattern in IGNORED):
            continue
        if target.exists() and target.read_bytes() != path.read_bytes():
            raise OSError(f"{path} would replace another {path.name} of the model: rename one of them.")
        if not target.exists():
            shutil.copyfile(path, target)
