# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Pickles of the published implementation of UMONS (Delbrouck et al., 2020)."""

from functools import cached_property
from typing import Any

from datasets import Features

from ..layouts import Source
from ..safe_pickle import read_pickle
from ..schema import make_features
from .arrays import split_id, to_emotions, to_frames, to_sentiment


# Splits here, and in the names of the files.
SPLITS = {"train": "train", "validation": "valid", "test": "test"}
PARTS = ("sentences", "mels", "sentiment", "emotion")


class UmonsPickles(Source):
    """
    `{train,valid,test}_{sentences,mels,sentiment,emotion}.p`, dicts by segment id: `wF8980oGklk[13]`.

    A sentence is a list of words, mels are float (T, D), a sentiment is one number, an emotion the six intensities.
    What has no file, or is not in its dict, is missing; there is no video. All files of all splits are read at once
    and stay in memory.
    """

    def __getstate__(self) -> dict[str, Any]:
        # The arrays do not go to worker processes: each reads the files itself.
        return {name: value for name, value in self.__dict__.items() if name != "_parts"}

    @cached_property
    def _parts(self) -> dict[str, dict[str, dict[str, Any]]]:
        """{split: {part: {segment id: value}}} of the files that there are."""
        parts: dict[str, dict[str, dict[str, Any]]] = {}
        for split, name in SPLITS.items():
            for part in PARTS:
                path = self.folder / f"{name}_{part}.p"
                if path.exists():
                    parts.setdefault(split, {})[part] = self._read_part(path)
        if not parts:
            splits, names = "{" + ",".join(SPLITS.values()) + "}", "{" + ",".join(PARTS) + "}"
            raise FileNotFoundError(f"{self.folder} has none of the files {splits}_{names}.p.")
        return parts

    @staticmethod
    def _read_part(path) -> dict[str, Any]:
        values = read_pickle(path)
        if not isinstance(values, dict):
            raise ValueError(f"{path} is a {type(values).__name__}, expected a dict by segment id.")
        for key in values:
            if not isinstance(key, str) or split_id(key) is None:
                raise ValueError(f"{path} has the key {key!r:.80}, expected segment ids of the form video[3].")
        return values

    @cached_property
    def segments(self) -> dict[str, list[str]]:
        ids = {
            split: list(dict.fromkeys(key for part in parts.values() for key in part))
            for split, parts in self._parts.items()
        }
        return {split: names for split, names in ids.items() if names}

    @cached_property
    def features(self) -> Features:
        """Columns; the size of the audio features is that of the first segment with features."""
        for parts in self._parts.values():
            for mels in parts.get("mels", {}).values():
                if getattr(mels, "ndim", 0) == 2 and mels.shape[1] > 0:
                    return make_features(audio_size=mels.shape[1])
        return make_features()

    def read(self, split: str, segment_id: str) -> dict[str, Any]:
        video_id, segment = split_id(segment_id)
        row: dict[str, Any] = {"segment_id": segment_id, "video_id": video_id, "segment": segment}
        for part, values in self._parts[split].items():
            if segment_id in values:
                where = f"{self.folder / f'{SPLITS[split]}_{part}.p'}, {segment_id}"
                row |= self._read_value(part, values[segment_id], where)
        return row

    def _read_value(self, part: str, value: Any, where: str) -> dict[str, Any]:
        """Return the columns of one part."""
        if part == "sentences":
            if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
                raise ValueError(f"{where} is not a list of words.")
            words = [{"word": word, "start": None, "end": None} for word in value]
            return {"text": " ".join(value) or None, "words": words or None}
        if part == "mels":
            return {"audio_features": to_frames(value, where, self._audio_size)}
        if part == "sentiment":
            return {"sentiment": to_sentiment(value, where)}
        return to_emotions(value, where)

    @cached_property
    def _audio_size(self) -> int:
        return self.features["audio_features"].feature.length
