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

    The temporary name ends in `.part` and the suffix of `path`, is unique, and is removed if the block raises. A link is
    followed: what it points to is replaced. An existing folder is replaced only if it is empty.
    """
    target = Path(path).resolve()
    # Short, so that a name of the maximum length keeps working; the suffix is kept for writers that choose a format by it.
    temporary = target.with_name(f".{secrets.token_hex(6)}.part{target.suffix}")
    try:
        yield temporary
        if temporary.is_dir() and target.is_dir():
            target.rmdir()  # Windows does not replace a folder
        os.replace(temporary, target)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write a whole file atomically, with the folders above it. Text is encoded as UTF-8."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
