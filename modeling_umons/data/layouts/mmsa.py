"""Pickles of MMSA (Mao et al., ACL 2022 demonstrations): CMU-MOSEI, CMU-MOSI and CH-SIMS."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Features

from ..layouts import Source
from ..safe_pickle import read_pickle
from ..schema import SPLIT_NAMES, SPLITS, make_features
from .arrays import split_id, to_frames, to_scalar, to_sentiment


ID_PATTERN = r"(.+)\$_\$([0-9]{1,9})"
# Names in MMSA, and here.
MODALITIES = {"audio": "audio", "vision": "video"}


class MmsaPickle(Source):
    """
    One pickle: `{train,valid,test}` -> `id` (`video$_$3`), `raw_text`, `audio` (N, T, D), `vision` (N, T, D),
    `regression_labels`, all optional but `id`; other keys are not used.

    Frames beyond `audio_lengths` and `vision_lengths` are padding; where there are no lengths, frames at both ends
    that are all zero are. There are no emotions. The whole file stays in memory while it is read from.

    Args:
        file: the name of the pickle where the folder has several (`*.pkl`, `*.p`).
    """

    def __init__(self, folder: str | Path, file: str | None = None):
        super().__init__(folder)
        paths = sorted(path for path in self.folder.iterdir() if path.suffix in (".pkl", ".p"))
        names = ", ".join(path.name for path in paths) or "no pickle at all"
        if file is not None:
            paths = [self.folder / file]
        if not paths or not paths[0].is_file():
            raise FileNotFoundError(f"{self.folder} has no pickle {file or '*.pkl or *.p'}; it has {names}.")
        if len(paths) > 1:
            raise ValueError(f"{self.folder} has several pickles; name one of them as `file=`: {names}.")
        self.path = paths[0]

    def __getstate__(self) -> dict[str, Any]:
        # The arrays do not go to worker processes: each reads the file itself.
        return {name: value for name, value in self.__dict__.items() if name != "_folds"}

    @cached_property
    def _folds(self) -> dict[str, tuple[str, dict[str, int], dict[str, Any]]]:
        """{split: (their name of it, {segment id: its row}, their columns)}."""
        content = read_pickle(self.path)
        if not isinstance(content, dict) or not content:
            fact = "an empty dict" if content == {} else f"a {type(content).__name__}"
            raise ValueError(f"{self.path} is {fact}, expected a dict of train, valid and test.")
        folds: dict[str, tuple[str, dict[str, int], dict[str, Any]]] = {}
        for name, columns in content.items():
            split = SPLIT_NAMES.get(str(name).lower())
            if split is None or split in folds:
                raise ValueError(f"{self.path} has the key {name!r:.80}, expected one each of train, valid and test.")
            folds[split] = name, self._check(name, columns), columns
        return {split: folds[split] for split in SPLITS if split in folds}

    def _check(self, name: str, columns: Any) -> dict[str, int]:
        """{segment id: row} of a fold, of which every column that is used must have a row for each."""
        if not isinstance(columns, dict) or "id" not in columns:
            has = (
                f"only {', '.join(map(str, columns))}" if isinstance(columns, dict) else f"a {type(columns).__name__}"
            )
            raise ValueError(f"{self.path}, {name} has no `id`, it is {has}.")
        ids: dict[str, int] = {}
        for row, value in enumerate(_to_list(columns["id"], f"{self.path}, {name}, id")):
            text = _to_text(value, f"{self.path}, {name}, id, row {row}")
            if split_id(text, ID_PATTERN) is None:
                raise ValueError(f"{self.path}, {name}, id, row {row} is {text!r:.80}, expected the form video$_$3.")
            if text in ids:
                raise ValueError(f"{self.path}, {name}, id, row {row}: {text} is a duplicate.")
            ids[text] = row
        for key in ("raw_text", "regression_labels", *MODALITIES, *(f"{key}_lengths" for key in MODALITIES)):
            values = columns.get(key)
            if values is None:
                continue
            count = len(_to_list(values, f"{self.path}, {name}, {key}"))
            if count != len(ids):
                raise ValueError(f"{self.path}, {name}: {key} has {count} rows, id {len(ids)}.")
        return ids

    @cached_property
    def segments(self) -> dict[str, list[str]]:
        return {split: list(ids) for split, (_, ids, _) in self._folds.items() if ids}

    @cached_property
    def features(self) -> Features:
        """Columns; the sizes of the features are those of the first segment with features."""
        sizes = {}
        for key, column in MODALITIES.items():
            columns = (columns.get(key) for _, _, columns in self._folds.values())
            arrays = (array for values in columns if values is not None for array in values)
            # What is no such array, such as lists of different lengths, is an error of its segment.
            fitting = (a.shape[1] for a in arrays if isinstance(a, np.ndarray) and a.ndim == 2 and a.shape[1] > 0)
            if (size := next(fitting, None)) is not None:
                sizes[f"{column}_size"] = size
        return make_features(**sizes)

    def read(self, split: str, segment_id: str) -> dict[str, Any]:
        name, ids, columns = self._folds[split]
        i = ids[segment_id]
        video_id, segment = split_id(segment_id, ID_PATTERN)
        row: dict[str, Any] = {"segment_id": segment_id, "video_id": video_id, "segment": segment}
        where = f"{self.path}, {name}, {{}}, {segment_id}"
        if columns.get("raw_text") is not None:
            row["text"] = _to_text(columns["raw_text"][i], where.format("raw_text")).strip() or None
        if columns.get("regression_labels") is not None:
            row["sentiment"] = to_sentiment(columns["regression_labels"][i], where.format("regression_labels"))
        for key, column in MODALITIES.items():
            if columns.get(key) is None:
                continue
            frames = to_frames(columns[key][i], where.format(key), self._sizes[column])
            lengths = columns.get(f"{key}_lengths")
            if lengths is not None:
                length = to_scalar(lengths[i], where.format(f"{key}_lengths"), (0, len(columns[key][i])))
                frames = frames[: int(length)] if frames is not None else None
            elif frames is not None:
                frames = _trim(frames)
            row[f"{column}_features"] = frames if frames is not None and len(frames) else None
        return row

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return {column: self.features[f"{column}_features"].feature.length for column in MODALITIES.values()}


def _to_list(values: Any, where: str) -> Sequence[Any]:
    if not isinstance(values, (list, tuple)) and not (isinstance(values, np.ndarray) and values.ndim > 0):
        raise ValueError(f"{where} is a {type(values).__name__}, expected a list or an array.")
    return values


def _to_text(value: Any, where: str) -> str:
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{where} is not UTF-8 text ({error}).") from None
    if not isinstance(value, str):
        raise ValueError(f"{where} is a {type(value).__name__}, expected text.")
    return str(value)


def _trim(frames: np.ndarray) -> np.ndarray:
    """Remove frames of zeros at both ends."""
    is_filled = np.flatnonzero(frames.any(axis=1))
    return frames[is_filled[0] : is_filled[-1] + 1] if len(is_filled) else frames[:0]
