"""Layouts of data sets of utterances with sentiment and emotions: one file and one `Source` for each.

A source lists its segments at once, and reads each on request. A fault of the whole is an error of the source; a fault
of a segment is an error of that segment only.
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

    A source is pickled for worker processes, so it keeps no open file: `read` opens them.

    Args:
        folder: folder of the files. Raises OSError if the folder or a file is missing.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{folder}: there is no such folder.")
        # {segment_id: reason} of segments in no split
        self.left_out: dict[str, str] = {}

    @property
    @abstractmethod
    def features(self) -> Features:
        """Columns, from `make_features` with the sizes of the audio and video features of this source."""

    @cached_property
    @abstractmethod
    def segments(self) -> dict[str, list[str]]:
        """
        {split: segment ids in their order} of the splits of the source. Sets `left_out`.

        Raises:
            OSError: a file is missing or damaged; ValueError: it is not of this layout. Both name the file and the
                key.
        """

    @abstractmethod
    def read(self, split: str, segment_id: str) -> dict[str, Any]:
        """
        Return a row: values of `features`, missing ones `None` or left out. `audio_features` and `video_features` are
        float32 (T, D), T > 0, all finite.

        Raises:
            OSError, ValueError: the segment cannot be read. The message names the file and the key.
        """


_SOURCES = {
    "umons": "UmonsPickles",
    "csd": "CsdFiles",
    "mmsa": "MmsaPickle",
    "folder": "ClipFolder",
    "labels": "LabelTables",
    "mosi": "MosiTable",
    "meld": "MeldTables",
    "goemotions": "GoEmotionsTables",
    "ravdess": "RavdessFolder",
    "emodb": "EmodbFolder",
    "prompts": "PromptFolder",
    "mini": "MiniMixture",
}
LAYOUTS = tuple(_SOURCES)


def source_class(layout: str) -> type[Source]:
    """Return the class of a layout's source. Raises ValueError for an unknown layout."""
    if layout not in _SOURCES:
        raise ValueError(f"Unknown layout {layout!r}; use one of {', '.join(LAYOUTS)}.")
    return getattr(importlib.import_module(f"{__name__}.{layout}"), _SOURCES[layout])


def open_source(layout: str, folder: str | Path, **options: Any) -> Source:
    """Open the source of a layout with the `options` of its class. Raises ValueError for an unknown layout."""
    return source_class(layout)(folder, **options)
