"""Atomic writing of files and folders: a reader, or a run that is killed, finds the old content or the new one."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """
    Yield a temporary path next to `path`, for a file or a folder that replaces it when the block succeeds.

    The temporary name begins with a dot and ends in `.part` and the suffix of `path`; it is unique, and removed if the
    block raises. A link is followed: its target is replaced. An existing folder is replaced only if it is empty.
    """
    target = Path(path).resolve()
    # The name is cut, so that one of the maximum length keeps working; writers may choose the format by the suffix.
    temporary = target.with_name(f".{target.stem[:40]}.{secrets.token_hex(6)}.part{target.suffix}")
    try:
        yield temporary
        if temporary.is_dir() and target.is_dir():
            target.rmdir()  # Windows does not replace a folder
        os.replace(temporary, target)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """
    Yield a temporary folder that becomes `path` when the block succeeds.

    Raises:
        OSError: `path` is a file, or a folder that is not empty.
    """
    target = Path(path).resolve()
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise OSError(f"{path} exists already: choose a new or empty folder, or delete it first.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as folder:
        folder.mkdir()
        yield folder


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write a whole file atomically, with the folders above it. Text is encoded as UTF-8."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def use_default_mode(folder: str | Path) -> None:
    """Give safetensors files, which are written with mode 600, the mode of the `config.json` next to them."""
    config = Path(folder, "config.json")
    for path in Path(folder).glob("*.safetensors") if config.exists() else ():
        shutil.copymode(config, path)
