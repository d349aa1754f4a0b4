"""What a folder is that goes to the Hub, which of its files go, and whether it will load for one who has the Hub alone."""

import ast
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml
from fsspec.utils import glob_translate
from huggingface_hub import constants, metadata_load


Files = Mapping[str, Path]  # path in the repository -> where it is here

README = "README.md"
# Never uploaded: what is hidden, what training needs to go on, and what programs leave behind.
LEFT_OUT = (
    ".*", "checkpoint-*", "last-checkpoint", "training_args.bin", "optimizer.pt", "optimizer.bin", "optimizer_*", "scheduler.pt", "scaler.pt", "rng_state*",
    "trainer_state.json", "runs", "wandb", "mlruns", "events.out.tfevents.*", "cache", "cache-*", "__pycache__", "*.pyc",
    "*.egg-info", "*.part", "*.tmp", "*.lock", "*.incomplete", "flagged",
)  # fmt: skip
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".p", ".joblib")
CONFIGS = ("config.json", "processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
SHARDS = "model-?????-of-?????.safetensors"
TOKEN = re.compile(rb"hf_(?:oauth_)?[A-Za-z0-9]{20,}")  # without other underscores, which names in code have
CHUNK, OVERLAP = 4 << 20, 512  # bytes of a file that are searched at once, and again with the next ones
SHAPES = {dict: "a mapping", list: "a list", str: "a text", int: "an integer"}


def find_type(folder: Path) -> str:
    """ "model", "dataset", "metric" or "space". Raises OSError where nothing says which."""
    if not folder.is_dir():
        raise OSError(f"{folder} is no folder.")
    if (folder / "config.json").exists():
        return "model"
    metadata = read_metadata(folder / README)
    if "sdk" in metadata:
        tags = expect(list, metadata.get("tags") or [], f"{folder / README}: `tags`")
        return "metric" if "evaluate" in tags and "metric" in tags else "space"
    if "configs" in metadata or any(folder.glob("data/*.parquet")):
        return "dataset"
    if (folder / "app.py").exists():
        return "space"
    seeds = sorted(path.parent.name for path in folder.glob("*/config.json"))
    hint = f" It holds {', '.join(seeds)}: push one of them." if seeds else ""
    raise OSError(
        f"{folder} is no model (it has no config.json), no data set and no Space (README.md has neither `configs` nor `sdk`): "
        f"push another folder, or say what it is with --type.{hint}"
    )


def read_metadata(path: Path) -> dict[str, Any]:
    """What stands between the lines --- of a card; empty where there is no card."""
    if not path.exists():
        return {}
    try:
        return metadata_load(path) or {}
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise OSError(f"{path}: what stands between the lines --- is no YAML mapping: {error}") from error


def expect(shape: type, value: Any, what: str) -> Any:
    """The value that a file has as `what`. Raises OSError where it is not of that shape."""
    if not isinstance(value, shape):
        raise OSError(f"{what} is {value!r:.60}, but it has to be {SHAPES[shape]}: mend it.")
    return value


def collect_files(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The files that go to the Hub, by their path there, links followed; and the names of what is left out."""
    files, left_out = {}, []

    def walk(directory: Path, prefix: str, above: tuple[Path, ...]) -> None:
        for path in sorted(directory.iterdir()):
            name = prefix + path.name
            if not path.name.isprintable():
                raise OSError(f"{str(path)!a} has a name that the Hub cannot have: rename it.")
            if any(fnmatch(path.name, pattern) for pattern in LEFT_OUT):
                left_out.append(name)
            elif path.is_dir():
                if path.resolve() in above:
                    raise OSError(f"{path} is a link to a folder that it is in: remove it.")
                _check_link(path, folder)
                walk(path, f"{name}/", (*above, path.resolve()))
            elif path.is_file():
                _check_link(path, folder)
                files[name] = path
            else:
                what = (
                    f"a link to {os.readlink(path)}, where there is no file"
                    if path.is_symlink()
                    else "no regular file"
                )
                raise OSError(f"{path} is {what}: mend or remove it.")

    walk(folder, "", (folder.resolve(),))
    return files, left_out


def _check_link(path: Path, folder: Path) -> None:
    """Raises OSError where a link would take to the Hub what nobody meant: see the help of scripts/push_to_hub.py."""
    if not path.is_symlink() or (path.resolve().suffix == ".py" and path.is_file()):
        return
    around = folder.resolve().parent
    if around in (Path(around.root), Path(os.path.expanduser("~")).resolve()):
        around = folder.resolve()
    target = path.resolve()
    if not target.is_relative_to(around) or any(part[0] == "." for part in target.relative_to(around).parts):
        raise OSError(
            f"{path} is a link to {target}, which is hidden, or outside of {around}: copy what others may have to the "
            "folder, and remove the link."
        )


def is_under(path: Path, name: str) -> bool:
    """Whether a file stands where its name in the repository says, and no link on the way leads elsewhere."""
    base = path.parents[name.count("/")]
    return path.resolve() == base.resolve() / name


def refuse_tokens(files: Files, token: str | None = None) -> None:
    """Raises OSError where a file holds a token of the Hub, or this one."""
    pattern = re.compile(b"|".join([TOKEN.pattern, *([re.escape(token.encode())] if token else [])]))
    for name, path in files.items():
        with open(path, "rb") as file:
            end = b""
            while chunk := file.read(CHUNK):
                if pattern.search(end + chunk):
                    raise OSError(
                        f"{name} holds a token of the Hub, which all would see: take it out, and make a new token."
                    )
                end = chunk[-OVERLAP:]


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a path in the repository is meant by one of these, which are as `data_files` has them."""
    for pattern in patterns:
        try:
            is_match = re.fullmatch(glob_translate(pattern), name)
        except (ValueError, re.error) as error:
            raise OSError(f"{pattern} is no pattern of files: {error}.") from None
        if is_match:
            return True
    return False


def replaced_patterns(kind: str, metadata: Mapping[str, Any]) -> list[str]:
    """Which files of an earlier push would be loaded together with what is pushed, so that they must not stay."""
    if kind == "model":
        return [WEIGHTS, WEIGHTS_INDEX, SHARDS]
    if kind == "dataset":
        patterns = [pattern for config in metadata["configs"] for pattern in _patterns(config.get("data_files"))]
        patterns = [f"{pattern}/*" if pattern.endswith("**") else pattern for pattern in patterns]
        patterns = [f"{pattern}.parquet" if pattern.endswith("*") else pattern for pattern in patterns]
        return [pattern for pattern in dict.fromkeys(patterns) if pattern.endswith(".parquet")]
    return []


def check(kind: str, folder: Path, files: Files, metadata: dict[str, Any], repo_id: str) -> list[str]:
    """
    Warnings on what stands in `folder`, of which `files` go to the repository, with the metadata of its card.

    Raises:
        OSError: something is missing, cut short, or a pickle.
    """
    for name in files:
        if name.endswith(PICKLES):
            raise OSError(
                f"{folder / name} is a pickle, which can run code where it is loaded: save weights as safetensors "
                "(`save_pretrained`), and remove it."
            )
    warnings = CHECKS[kind](folder, files, metadata, repo_id)
    if README not in files:
        raise OSError(f"{folder} has no README.md: the card says what this is, for whom, and under which licence.")
    if not metadata.get("license"):
        warnings.append(
            "README.md names no licence (`license:` between the lines ---): nobody may use what is pushed."
        )
    return warnings


def _check_model(folder: Path, files: Files, metadata: dict, repo_id: str) -> list[str]:
    configs = {name: _read_json(files[name]) for name in CONFIGS if name in files}
    if "config.json" not in configs:
        raise OSError(f"{folder} has no config.json: it is no model that `save_pretrained` wrote.")
    config = configs["config.json"]
    if not expect(dict, config.get("auto_map") or {}, f"{folder / 'config.json'}: `auto_map`"):
        raise OSError(
            f"{folder / 'config.json'} names no code (`auto_map`), so it would load only where modeling_umons is installed: "
            "load it with modeling_umons and save it again with `save_pretrained`."
        )
    if not {"processor_config.json", "preprocessor_config.json"} & set(configs):
        raise OSError(f"{folder} has no processor_config.json: save the processor there too.")
    if "text" in expect(list, config.get("modalities", ["text"]), f"{folder / 'config.json'}: `modalities`"):
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if name not in files:
                raise OSError(f"{folder} has no {name}: save the processor there too, which saves its tokenizer.")
    _read_json(files["tokenizer.json"]) if "tokenizer.json" in files else None
    warnings = _check_code(folder, files, configs)
    _check_weights(folder, files)
    return warnings


def _check_code(folder: Path, files: Files, configs: dict[str, dict]) -> list[str]:
    """That each class that a configuration names is in a file, and all that these files import of one another."""
    warnings, checked = [], set()
    for name, config in configs.items():
        for reference in _references(config, name):
            if "--" in reference:
                warnings.append(
                    f"{name} takes {reference.replace('--', ' ')} from another repository, which must stay."
                )
                continue
            module, _, class_name = reference.rpartition(".")
            tree = _parse(folder, files, module, f"{name} names {reference}")
            if not any(isinstance(node, ast.ClassDef) and node.name == class_name for node in tree.body):
                raise OSError(f"{folder / module}.py has no class {class_name}, which {name} names.")
            _check_imports(folder, files, module, tree, checked)
    return warnings


def _references(config: Any, where: str) -> Iterator[str]:
    """`module.Class` of all that is in an `auto_map`, or is the code of a pipeline, at any depth."""
    if not isinstance(config, dict):
        return
    for key, value in config.items():
        what = f"{where}: `{key}`"
        if key == "auto_map":
            for reference in expect(dict, value or {}, what).values():
                references = reference if isinstance(reference, list) else [reference]
                yield from (expect(str, name, what) for name in references if name is not None)
        elif key == "custom_pipelines":
            for pipeline in expect(dict, value or {}, what).values():
                yield expect(str, expect(dict, pipeline, what).get("impl"), f"{what}: `impl`")
        else:
            yield from _references(value, what)


def _parse(folder: Path, files: Files, module: str, why: str) -> ast.Module:
    name = f"{module}.py"
    if name not in files:
        raise OSError(f"{folder} has no {name}, but {why}: save the model and its processor again.")
    try:
        return ast.parse(files[name].read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise OSError(f"{files[name]} is no Python: {error}") from error


def _check_imports(folder: Path, files: Files, module: str, tree: ast.Module, checked: set[str]) -> None:
    checked.add(module)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and node.module and node.module not in checked:
            imported = _parse(folder, files, node.module, f"{module}.py imports it")
            _check_imports(folder, files, node.module, imported, checked)


def _check_weights(folder: Path, files: Files) -> None:
    shards = set()
    if WEIGHTS_INDEX in files:
        index = f"{files[WEIGHTS_INDEX]}: `weight_map`"
        weight_map = expect(dict, _read_json(files[WEIGHTS_INDEX]).get("weight_map"), index)
        shards = {expect(str, shard, index) for shard in weight_map.values()}
        if missing := sorted(shards - set(files)):
            raise OSError(f"{folder} has no {missing[0]}, which {WEIGHTS_INDEX} names: save the model again.")
    elif WEIGHTS not in files:
        raise OSError(f"{folder} has no {WEIGHTS}: save the model there.")
    for name, path in files.items():
        if name.endswith(".safetensors"):
            if name not in (shards or {WEIGHTS}):
                raise OSError(f"{path} is no part of these weights: remove it, or save the model in a new folder.")
            _check_safetensors(path)


def _check_safetensors(path: Path) -> None:
    """That it is as long as its header says."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length if length < size else 0))
        except (ValueError, RecursionError):
            raise OSError(f"{path} is no safetensors file, or is cut short: save the model again.") from None
    end, what = 0, f"{path}: its header"
    for name, tensor in expect(dict, header, what).items():
        if name != "__metadata__":
            offsets = expect(list, expect(dict, tensor, what).get("data_offsets"), f"{what}: `data_offsets`")
            end = max(end, *(expect(int, offset, what) for offset in offsets or [0]))
    if size != 8 + length + end:
        raise OSError(f"{path} is cut short: it has {size} bytes, but its header tells of more. Save the model again.")


def _check_dataset(folder: Path, files: Files, metadata: dict, repo_id: str) -> list[str]:
    what = f"{folder / README}: `configs`"
    configs = expect(list, metadata.get("configs") or [], what)
    if not configs:
        raise OSError(
            f"{folder / README} has no `configs`, so nobody can load the data: run scripts/prepare_mosei.py."
        )
    for config in configs:
        for pattern in _patterns(expect(dict, config, what).get("data_files")):
            if not any(matches(name, [pattern]) for name in files):
                raise OSError(
                    f"{folder} has no {pattern}, which its configuration {config.get('config_name')!r} reads: make the data "
                    "with scripts/prepare_mosei.py, and push what it wrote."
                )
    for path in (path for name, path in files.items() if name.endswith(".parquet")):
        with open(path, "rb") as file:
            start = file.read(4)
            file.seek(-min(4, path.stat().st_size), os.SEEK_END)
            if (start, file.read()) != (b"PAR1", b"PAR1"):
                raise OSError(f"{path} is no Parquet file, or is cut short: prepare the data again.")
    return []


def _patterns(data_files: Any) -> Iterator[str]:
    """All paths of the repository in the `data_files` of a configuration, which has them in many shapes."""
    if isinstance(data_files, dict):
        yield from _patterns(data_files["path"] if "path" in data_files else list(data_files.values()))
    elif isinstance(data_files, list):
        for item in data_files:
            yield from _patterns(item)
    elif data_files is not None and "://" not in expect(str, data_files, f"{README}: `data_files`"):
        yield data_files.removeprefix("./")


def _check_metric(folder: Path, files: Files, metadata: dict, repo_id: str) -> list[str]:
    name = repo_id.rpartition("/")[2]
    if f"{name}.py" not in files:
        found = ", ".join(path.removesuffix(".py") for path in files if path.endswith(".py")) or "no .py file"
        raise OSError(
            f"`evaluate` looks for {name}.py in a repository of the name {name!r}, but {folder} has {found}: push it to a "
            "repository of that name."
        )
    _parse(folder, files, name, "that is the metric")
    _check_sdk(folder, metadata)
    return []


def _check_space(folder: Path, files: Files, metadata: dict, repo_id: str) -> list[str]:
    _check_sdk(folder, metadata)
    if metadata["sdk"] != "gradio":
        return []
    app = expect(str, metadata.get("app_file", "app.py"), f"{folder / README}: `app_file`")
    _parse(folder, files, app.removesuffix(".py"), "that is what the Space runs")
    return [] if "requirements.txt" in files else ["There is no requirements.txt: the Space will have gradio alone."]


def _check_sdk(folder: Path, metadata: dict) -> None:
    known = constants.SPACES_SDK_TYPES
    if metadata.get("sdk") not in known:
        raise OSError(
            f"{folder / README} does not say how the Space runs: put `sdk: gradio` between its lines --- (or another of "
            f"{', '.join(known)})."
        )


CHECKS = {"model": _check_model, "dataset": _check_dataset, "metric": _check_metric, "space": _check_space}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise OSError(f"{path} is no JSON: {error}") from error
    return expect(dict, content, str(path))
