# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""The layouts in which people hold utterances with sentiment and emotions: one file for each, one `Source` in each file.

A source finds out at once which segments there are, and reads each when it is asked to. What is wrong with the whole is
an error; what is wrong with one segment is an error of that segment alone.
"""

import importlib
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Features


class Source(ABC):
    """
    Utterances in one layout.

    A source goes to worker processes by pickling, so it keeps no open file: what opens one does it where it reads.

    Args:
        folder: where the files are. Raises OSError where there is no such folder or a file is missing.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{folder}: there is no such folder.")
        # segment_id -> why the source has it but no split of it
        self.left_out: dict[str, str] = {}

    @property
    @abstractmethod
    def features(self) -> Features:
        """The columns, as `make_features` gives them: the sizes of audio and video features are this source's own."""

    @cached_property
    @abstractmethod
    def segments(self) -> dict[str, list[str]]:
        """
        {split: segment ids in their order} for those of `SPLITS` that the source has; fills in `left_out`.

        Raises:
            OSError: a file is missing or damaged; ValueError: it is not of this layout. Both name the file, the key and
            the fact.
        """

    @abstractmethod
    def read(self, split: str, segment_id: str) -> dict[str, Any]:
        """
        A row: values of `features`, those that are missing `None` or left out. `audio_features` and `video_features` are
        float32 (T, D), T > 0, all finite.

        Raises:
            OSError, ValueError: the segment cannot be read. The message names the file, the key and the fact.
        """


_SOURCES = {
    "umons": "UmonsPickles",
    "csd": "CsdFiles",
    "mmsa": "MmsaPickle",
    "folder": "ClipFolder",
    "labels": "LabelTables",
    "mosi": "MosiTable",
    "meld": "MeldTables",
    "ravdess": "RavdessFolder",
    "mini": "MiniMixture",
}
LAYOUTS = tuple(_SOURCES)


def source_class(layout: str) -> type[Source]:
    """The class of a layout's source. Raises ValueError for a layout that there is not."""
    if layout not in _SOURCES:
        raise ValueError(f"There is no layout {layout!r}; there are {', '.join(LAYOUTS)}.")
    return getattr(importlib.import_module(f"{__name__}.{layout}"), _SOURCES[layout])


def open_source(layout: str, folder: str | Path, **options: Any) -> Source:
    """The source of a layout; `options` are those of its class. Raises ValueError for a layout that there is not."""
    return source_class(layout)(folder, **options)
