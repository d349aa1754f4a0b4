# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Training data of umons-mini: four data sets of utterances as one, three of text only and one of audio only."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Features, Value

from ..layouts import Source, open_source
from ..schema import SPLITS, make_features
from .arrays import split_id


SOURCES = ("mosi", "mosei", "meld", "ravdess")


class MiniMixture(Source):
    """
    A folder with `mosi`, `mosei` (labels and the transcripts of the official validation split), `meld` and `ravdess`.

    MOSI, MELD and RAVDESS keep their splits: by video, by dialogue and by actor. The validation videos of MOSEI, the
    only ones with transcripts, are split by a hash of their id: three fifths for training, a fifth each for validation
    and test. `segment_id` and `video_id` begin with the name of the source.

    No source has matching text and audio: RAVDESS has two sentences for all emotions. For rows with both, every other
    training row of RAVDESS keeps its sentence, and every third training row of text gets the audio of a calm or
    neutral recording of RAVDESS, selected by a hash. All other rows have one modality.

    Args:
        folder: folder of the sources.
        sources: the sources to read; without RAVDESS, all rows are text only.
        model, max_length: model whose feature extractor is used for RAVDESS, and frames that it keeps.
    """

    def __init__(self, folder: str | Path, sources: Sequence[str] = SOURCES, **options: Any):
        super().__init__(folder)
        if not sources or not set(sources) <= set(SOURCES):
            raise ValueError(f"The sources are {', '.join(sources) or 'none'}; there are {', '.join(SOURCES)}.")
        if options and "ravdess" not in sources:
            raise ValueError(f"{', '.join(options)} applies to audio, and only the source ravdess has audio.")
        layouts = {
            "mosi": ({}, "mosi"),
            "mosei": ({}, "labels"),
            "meld": ({}, "meld"),
            "ravdess": (options, "ravdess"),
        }
        self.sources = {
            name: open_source(layout, self.folder / name, **some)
            for name, (some, layout) in layouts.items()
            if name in sources
        }
        self._voices: dict[str, np.ndarray] = {}

    @cached_property
    def features(self) -> Features:
        source = self.sources.get("ravdess", next(iter(self.sources.values())))
        return make_features(source.features["audio_features"].feature.length, source=Value("string"))

    @cached_property
    def _origin(self) -> dict[str, tuple[str, str, str, str]]:
        """Map segment ids to their split, their source, and their split and id in the source."""
        origin = {}
        for name, source in self.sources.items():
            for split, ids in source.segments.items():
                for segment_id in ids:
                    if (mine := self._split(name, split, segment_id)) is not None:
                        origin[f"{name}/{segment_id}"] = (mine, name, split, segment_id)
            self.left_out.update({f"{name}/{key}": reason for key, reason in source.left_out.items()})
        return origin

    @cached_property
    def segments(self) -> dict[str, list[str]]:
        segments: dict[str, list[str]] = {split: [] for split in SPLITS}
        for segment_id, (split, *_) in self._origin.items():
            segments[split].append(segment_id)
        return segments

    @staticmethod
    def _split(name: str, split: str, segment_id: str) -> str | None:
        if name != "mosei":
            return split
        if split != "validation":  # neither text nor audio
            return None
        video_id = segment_id.rpartition("[")[0]
        return {3: "validation", 4: "test"}.get(_hash(video_id) % 5, "train")

    def read(self, split: str, segment_id: str) -> dict[str, Any]:
        _, name, original_split, original_id = self._origin[segment_id]
        row = self.sources[name].read(original_split, original_id)
        row = {column: value for column, value in row.items() if column in self.features}
        if name == "ravdess":
            if split != "train" or split_id(original_id)[1] % 2:
                row.update(text=None, words=None)
        elif "ravdess" in self.sources and split == "train" and row["segment"] % 3 == 0:
            row["audio_features"] = self._calm_voice(_hash(segment_id))
        if row.get("text"):  # the TF-IDF baseline splits words at curly apostrophes
            row["text"] = row["text"].replace("\u2019", "'")
        return {**row, "segment_id": segment_id, "video_id": f"{name}/{row['video_id']}", "source": name}

    def _calm_voice(self, number: int) -> np.ndarray:
        """Return features (T, D) of a training recording without emotion, by number."""
        segment_id = self._calm[number % len(self._calm)]
        if segment_id not in self._voices:
            self._voices[segment_id] = self.sources["ravdess"].read("train", segment_id)["audio_features"]
        return self._voices[segment_id]

    @cached_property
    def _calm(self) -> list[str]:
        voices, calm = self.sources["ravdess"], {"neutral", "calm"}
        return [name for name in voices.segments["train"] if voices.emotion_of(name) in calm]


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
