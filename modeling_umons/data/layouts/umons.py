"""Pickles of the published implementation of UMONS (Delbrouck et al., 2020)."""

import logging
from functools import cached_property
from typing import Any

import numpy as np
from datasets import Features

from ..layouts import Source
from ..safe_pickle import read_pickle
from ..schema import FEATURE_COLUMNS, make_features
from .arrays import split_id, to_emotions, to_frames, to_sentiment


logger = logging.getLogger(__name__)

# Splits here, and in the names of the files.
SPLITS = {"train": "train", "validation": "valid", "test": "test"}
PARTS = ("sentences", "mels", "r21d", "sentiment", "emotion")


class UmonsPickles(Source):
    """
    `{train,valid,test}_{sentences,mels,r21d,sentiment,emotion}.p`, dicts by segment id: `wF8980oGklk[13]`.

    A sentence is a list of words, mels and r21d (audio and video features) are float (T, D), a sentiment is one
    number, an emotion the six intensities. What has no file, or is not in its dict, is missing. A file of video
    features that contains the mels, as the public one does, is left out with a warning. All files of all splits are
    read at once and stay in memory.
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
        for split, of_split in parts.items():
            if _contains_mels(of_split):
                del of_split["r21d"]
                logger.warning(
                    "%s_r21d.p is left out: it contains the mel frames, not video features.",
                    self.folder / SPLITS[split],
                )
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
        """Columns; the sizes of the features are those of the first segments with features."""
        sizes = {"audio_size": self._size_of("mels"), "video_size": self._size_of("r21d")}
        return make_features(**{name: size for name, size in sizes.items() if size is not None})

    def _size_of(self, part: str) -> int | None:
        frames = (value for parts in self._parts.values() for value in parts.get(part, {}).values())
        sizes = (value.shape[1] for value in frames if getattr(value, "ndim", 0) == 2)
        return next((size for size in sizes if size > 0), None)

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
            return {"audio_features": to_frames(value, where, self._sizes["audio_features"])}
        if part == "r21d":
            return {"video_features": to_frames(value, where, self._sizes["video_features"])}
        if part == "sentiment":
            return {"sentiment": to_sentiment(value, where)}
        return to_emotions(value, where)

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return {name: self.features[name].feature.length for name in FEATURE_COLUMNS}


def _contains_mels(parts: dict[str, dict[str, Any]]) -> bool:
    """Return whether the video features of a split are its mels."""
    mels, clips = parts.get("mels", {}), parts.get("r21d", {})
    shared = next((name for name in clips if name in mels), None)
    return shared is not None and np.array_equal(clips[shared], mels[shared])
