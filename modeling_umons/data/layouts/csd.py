"""CMU-MOSEI as the computational sequences of the CMU Multimodal SDK (Zadeh et al., 2018)."""

import logging
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Features

from ..layouts import Source
from ..official_splits import official_split
from ..schema import SPLIT_NAMES, SPLITS, make_features
from .arrays import split_id, to_emotions, to_frames, to_sentiment
from .computational_sequences import ComputationalSequence
from .tables import read_csv


logger = logging.getLogger(__name__)

# The roles of a file, by the names of its root and of itself, in lower case without punctuation.
ROLES = {
    "labels": re.compile(r"alllabels"),
    "words": re.compile(r"words|.*timestampedwords"),
    "audio": re.compile(r".*(covarep|coavarep|opensmile|acoustic).*"),
    "video": re.compile(r".*(facet|openface|visual).*"),
}
MAX_SEGMENTS = 10_000  # of one video: compressed labels of zeros could declare millions in a few bytes


class CsdFiles(Source):
    """
    `.csd` files: the labels (root `All Labels`) and any of words, audio and video features.

    Row k of a video's labels is the segment `video[k]`. Words and frames belong to the segment in whose [start, end)
    the middle of their own interval lies; all times are seconds of the whole recording. The pauses `sp` of the SDK's
    aligner are words.
    In files that the SDK has aligned already, `video[k]` is a key itself, and all under it belongs to that segment.

    The splits are those of `splits.csv` (video_id, split) in the folder, or else the official ones. Segments of videos
    that are in none go to `left_out`; where no video at all is official, all are of the split train.

    Args:
        audio, video: file of the features, or its root, if there are several. Files of other content (phones, word
            vectors) are not read.
        average_per_word: whether frames are averaged over each word's interval, so that features have a row per word.
            A word that no frame overlaps has the frame nearest to its middle.
        max_length: longer features of a segment are averaged over so many equal parts, because models do not use later
            frames; `None` keeps all frames.

    Raises:
        OSError: there are no labels, or a file is damaged; ValueError: several files have the same role, or
        `max_length` is below 1.
    """

    def __init__(
        self,
        folder: str | Path,
        audio: str | None = None,
        video: str | None = None,
        average_per_word: bool = False,
        max_length: int | None = 60,
    ):
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length is {max_length}; it must be at least 1 (`--max_length`).")
        self.max_length = max_length
        self._has_told_length = False
        super().__init__(folder)
        sequences = [ComputationalSequence(path) for path in sorted(self.folder.glob("*.csd"))]
        chosen = {role: _choose(self.folder, sequences, role, name) for role, name in (
            ("labels", None), ("words", None), ("audio", audio), ("video", video)
        )}  # fmt: skip
        if chosen["labels"] is None:
            has = (
                ", ".join(f"{sequence.path.name} ({sequence.root})" for sequence in sequences) or "no .csd file at all"
            )
            raise FileNotFoundError(f"{self.folder} has no .csd file with the root 'All Labels'; it has {has}.")
        self.average_per_word = average_per_word
        if average_per_word and chosen["words"] is None:
            raise ValueError(f"{self.folder} has no .csd file of words, which average_per_word needs.")
        self._sequences = {role: sequence for role, sequence in chosen.items() if sequence is not None}
        # (video, {(role, key): what was read}) of the video that was read last
        self._cache: tuple[str, dict[tuple[str, str], Any]] = "", {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": ("", {})}

    @cached_property
    def _segments_of_videos(self) -> dict[str, list[str]]:
        """{video: its segment ids}; ValueError for labels without any."""
        labels = self._sequences["labels"]
        segments: dict[str, dict[str, None]] = {}
        for key in labels.keys:
            if (parts := split_id(key)) is not None:
                segments.setdefault(parts[0], {})[key] = None
                continue
            shape = labels.shape(key)
            if len(shape) != 2 or shape[1] != 7 or shape[0] > MAX_SEGMENTS:
                raise ValueError(
                    f"{labels.path}, {labels.root}/data/{key}/features has the shape {shape}, expected (segments, 7) "
                    f"with at most {MAX_SEGMENTS} segments."
                )
            segments.setdefault(key, {}).update(dict.fromkeys(f"{key}[{k}]" for k in range(shape[0])))
        if not any(segments.values()):
            raise ValueError(f"{labels.path}, {labels.root}/data has no rows of labels.")
        return {video_id: list(names) for video_id, names in segments.items()}

    @cached_property
    def segments(self) -> dict[str, list[str]]:
        split_of = self._splits_of_videos()
        segments: dict[str, list[str]] = {split: [] for split in SPLITS}
        for video_id, names in self._segments_of_videos.items():
            if (split := split_of.get(video_id)) is not None:
                segments[split] += names
            else:
                self.left_out |= dict.fromkeys(names, f"the video {video_id} is of no split")
        return {split: names for split, names in segments.items() if names}

    def _splits_of_videos(self) -> dict[str, str | None]:
        path = self.folder / "splits.csv"
        if path.exists():
            rows = read_csv(path, ("video_id", "split"), key="video_id")
            for video_id, row in rows.items():
                if row["split"].lower() not in SPLIT_NAMES:
                    raise ValueError(
                        f"{path}: {video_id} is of split {row['split']!r}; known are {', '.join(SPLIT_NAMES)}."
                    )
            return {video_id: SPLIT_NAMES[row["split"].lower()] for video_id, row in rows.items()}
        official = {video_id: official_split(video_id) for video_id in self._segments_of_videos}
        if any(official.values()):
            return official
        logger.warning(
            "%s: no video is in the official splits of CMU-MOSEI, so all segments are of the split train. "
            "A file splits.csv (video_id, split) in the folder says otherwise.", self.folder,
        )  # fmt: skip
        return dict.fromkeys(official, "train")

    @cached_property
    def features(self) -> Features:
        """Columns; the sizes of the features are those of the first records."""
        sizes = {}
        for role in ("audio", "video"):
            if (sequence := self._sequences.get(role)) is not None and sequence.keys:
                key = next(iter(sequence.keys))
                shape = sequence.shape(key)
                if len(shape) != 2:
                    where = f"{sequence.path}, {sequence.root}/data/{key}/features"
                    raise ValueError(f"{where} has the shape {shape}, expected (frames, values).")
                sizes[f"{role}_size"] = shape[1]
        return make_features(**sizes)

    def read(self, split: str, segment_id: str) -> dict[str, Any]:
        video_id, segment = split_id(segment_id)
        row = {"segment_id": segment_id, "video_id": video_id, "segment": segment}
        row |= self._labels(segment_id)
        words = self._words(segment_id, row["start"], row["end"])
        row |= {"words": words or None, "text": " ".join(word["word"] for word in words) or None}
        for role in ("audio", "video"):
            if (record := self._record(role, segment_id)) is None or record[0] is None:
                continue
            frames, intervals, is_whole = record
            times = _middles(intervals)
            if self.average_per_word:
                frames = _average(frames, intervals, words)
                times = _middles(np.array([(word["start"], word["end"]) for word in words]).reshape(-1, 2))
            elif not is_whole:
                chosen = _lies_within(intervals, row["start"], row["end"])
                frames, times = frames[chosen], times[chosen]
            fitted = self._fit(frames, times, segment_id) if len(frames) else (None, None)
            row[f"{role}_features"], row[f"{role}_times"] = fitted
        return row

    def _fit(self, frames: np.ndarray, times: np.ndarray, segment_id: str) -> tuple[np.ndarray, np.ndarray]:
        """Average frames (T, D) and their times (T,) over `max_length` equal parts if there are more."""
        if self.max_length is None or self.average_per_word or len(frames) <= self.max_length:
            return frames, times
        if not self._has_told_length:
            self._has_told_length = True
            logger.warning(
                "%s: %s has %d frames; features of more than %d are averaged over %d equal parts (--max_length).",
                self.folder, segment_id, len(frames), self.max_length, self.max_length,
            )  # fmt: skip
        starts = np.arange(self.max_length) * len(frames) // self.max_length
        counts = np.diff(starts, append=len(frames))
        average = np.add.reduceat(frames, starts, axis=0, dtype=np.float64) / counts[:, None]
        return average.astype(frames.dtype), np.add.reduceat(times, starts) / counts

    def _labels(self, segment_id: str) -> dict[str, Any]:
        labels, intervals, is_whole = self._record("labels", segment_id)
        sequence, k = self._sequences["labels"], 0 if is_whole else split_id(segment_id)[1]
        where = f"{sequence.path}, {sequence.root}/data, {segment_id}"
        if is_whole and len(labels) != 1:
            raise ValueError(f"{where} has {len(labels)} rows of labels, expected one.")
        start, end = intervals[k].tolist()
        if end < start:
            raise ValueError(f"{where} ends at {end} s, before it starts at {start} s.")
        sentiment = {"sentiment": to_sentiment(labels[k, 0], f"{where}, sentiment")}
        return {"start": start, "end": end} | sentiment | to_emotions(labels[k, 1:], where)

    def _words(self, segment_id: str, start: float, end: float) -> list[dict[str, Any]]:
        if (record := self._record("words", segment_id)) is None:
            return []
        words, intervals, is_whole = record
        chosen = range(len(words)) if is_whole else np.flatnonzero(_lies_within(intervals, start, end))
        return [
            {"word": words[i], "start": intervals[i, 0].item(), "end": intervals[i, 1].item()}
            for i in chosen if words[i]
        ]  # fmt: skip

    def _record(self, role: str, segment_id: str) -> tuple[Any, np.ndarray, bool] | None:
        """Return values and intervals for a segment, and whether they belong to it only; `None` without any."""
        video_id, _ = split_id(segment_id)
        sequence = self._sequences.get(role)
        key = next((key for key in (segment_id, video_id) if sequence is not None and key in sequence.keys), None)
        if key is None:
            return None
        if self._cache[0] != video_id:
            self._cache = video_id, {}
        records = self._cache[1]
        if (role, key) not in records:
            records[role, key] = self._read(role, sequence, key)
        return *records[role, key], key == segment_id

    def _read(self, role: str, sequence: ComputationalSequence, key: str) -> tuple[Any, np.ndarray]:
        values, intervals = sequence.read(key)
        where = f"{sequence.path}, {sequence.root}/data/{key}/features"
        if role == "labels":
            if values.dtype.kind not in "fiu" or values.ndim != 2 or values.shape[1] != 7:
                raise ValueError(
                    f"{where} has the shape {values.shape} and the dtype {values.dtype}, expected numbers of shape "
                    "(segments, 7): sentiment, happy, sad, anger, surprise, disgust, fear."
                )
            return values, intervals
        if role == "words":
            return _to_words(values, where), intervals
        return to_frames(values, where, self._sizes[role]), intervals

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return {role: self.features[f"{role}_features"].feature.length for role in ("audio", "video")}


def _choose(
    folder: Path, sequences: list[ComputationalSequence], role: str, name: str | None
) -> ComputationalSequence | None:
    """Return the sequence of a role, or the one that is named. Raises ValueError if that is not exactly one."""
    if name is not None:
        fitting = [
            sequence for sequence in sequences if name in (sequence.root, sequence.path.name, sequence.path.stem)
        ]
    else:
        fitting = [sequence for sequence in sequences if _has_role(sequence, role)]
    if len(fitting) > 1 or (name is not None and not fitting):
        names = ", ".join(f"{s.path.name} ({s.root})" for s in fitting or sequences) or "none"
        fact = f"{len(fitting)} .csd files that could be the {role}" if fitting else f"no .csd file {name!r}"
        remedy = f"name one of them as `{role}=`" if role in ("audio", "video") else "leave one of them there"
        raise ValueError(f"{folder} has {fact}; {remedy}: {names}.")
    return fitting[0] if fitting else None


def _has_role(sequence: ComputationalSequence, role: str) -> bool:
    names = (re.sub(r"[^a-z0-9]", "", name.lower()) for name in (sequence.root, sequence.path.stem))
    return any(ROLES[role].fullmatch(name) for name in names)


def _middles(intervals: np.ndarray) -> np.ndarray:
    return (intervals[:, 0] + intervals[:, 1]) / 2


def _lies_within(intervals: np.ndarray, start: float, end: float) -> np.ndarray:
    middles = _middles(intervals)
    return (middles >= start) & (middles < end)


def _to_words(values: np.ndarray, where: str) -> list[str]:
    if values.dtype.kind != "S" or values.size != len(values):
        raise ValueError(
            f"{where} has the shape {values.shape} and the dtype {values.dtype}, expected byte strings "
            "of shape (words, 1)."
        )
    try:
        return [word.decode().strip() for word in values.reshape(-1).tolist()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} has a word that is not UTF-8 text ({error}).") from None


def _average(frames: np.ndarray, intervals: np.ndarray, words: list[dict[str, Any]]) -> np.ndarray:
    """Average, for each word, the frames whose intervals overlap that of the word, as the SDK aligns."""
    rows = np.empty((len(words), frames.shape[1]), dtype=np.float32)
    first, last = min((word["start"] for word in words), default=0), max((word["end"] for word in words), default=0)
    near = np.flatnonzero(_overlaps(intervals, first, last))  # a video has many times the frames of a segment
    for row, word in zip(rows, words, strict=True):
        chosen = near[_overlaps(intervals[near], word["start"], word["end"])]
        if len(chosen) == 0:
            chosen = [np.argmin(np.abs(_middles(intervals) - (word["start"] + word["end"]) / 2))]
        row[:] = frames[chosen].mean(axis=0)
    return rows


def _overlaps(intervals: np.ndarray, start: float, end: float) -> np.ndarray:
    return (intervals[:, 0] < end) & (intervals[:, 1] > start)
