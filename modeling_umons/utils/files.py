"""Atomic writing of files and folders: a reader, or a run that is killed, finds the old content or the new one."""

import glob
import hashlib
import os
import platform
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


MACHINE = hashlib.blake2b(platform.node().encode(), digest_size=3).hexdigest()
_written: set[Path] = set()  # temporary paths of this process


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """
    Yield a temporary path next to `path`, for a file or a folder that replaces it when the block succeeds.

    See [`scratch_path`] for its name. The content is on the disk before it replaces `path`. A link is followed: its
    target is replaced. An existing folder is replaced only if it is empty.
    """
    target = Path(path).resolve()
    with scratch_path(target) as temporary:
        yield temporary
        flush_to_disk(temporary)
        if temporary.is_dir() and target.is_dir():
            target.rmdir()  # Windows does not replace a folder
        os.replace(temporary, target)


@contextmanager
def scratch_path(target: Path) -> Iterator[Path]:
    """
    Yield a temporary path next to `target`, for a file or a folder that is removed after the block.

    The name begins with a dot and ends in `.part` and the suffix of `target`; it is unique. Those of killed processes
    of this machine are removed first.
    """
    # The name is cut, so that one of the maximum length keeps working; writers may choose the format by the suffix.
    prefix, suffix = f".{target.stem[:40]}.{MACHINE}-", f".part{target.suffix}"
    _remove_leftovers(target.parent, prefix, suffix)
    temporary = target.with_name(f"{prefix}{os.getpid()}-{secrets.token_hex(3)}{suffix}")
    _written.add(temporary)
    try:
        yield temporary
    finally:
        _remove(temporary)
        _written.discard(temporary)


def _remove_leftovers(folder: Path, prefix: str, suffix: str) -> None:
    """Remove temporary files and folders whose process is not running."""
    for path in folder.glob(f"{glob.escape(prefix)}*{glob.escape(suffix)}"):
        process = path.name.removeprefix(prefix).partition("-")[0]
        if process.isdecimal() and path not in _written and not _is_running(int(process)):
            _remove(path)


def _is_running(process: int) -> bool:
    if os.name != "posix":
        return True  # `os.kill` would end it
    if process == os.getpid():
        return False  # an earlier process with the same number, as in containers
    with suppress(ProcessLookupError):
        with suppress(PermissionError):
            os.kill(process, 0)
        return True
    return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Write a file, or all files in a folder, from the caches of the system to the disk."""
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file() and not file.is_symlink():
            with open(file, "rb+") as opened:
                os.fsync(opened.fileno())


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
