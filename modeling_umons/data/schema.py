"""Columns and configurations of all data sets of utterances."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Features, List, Value

from ..models.umons.configuration_umons import EMOTIONS
from ..tasks.labels import SENTIMENT_2, SENTIMENT_7, sentiment_class_2, sentiment_class_7


SPLITS = ("train", "validation", "test")
# Other names of splits.
SPLIT_NAMES = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test",
}  # fmt: skip
FEATURE_COLUMNS = ("audio_features", "video_features")
TIME_COLUMNS = ("audio_times", "video_times")

# Columns of a configuration in addition to those of `make_features`: the labels of its task, as classes.
CONFIGURATIONS = {
    "all": {},
    "emotion": {"emotions": List(ClassLabel(names=list(EMOTIONS)))},
    "sentiment-7": {"sentiment_7": ClassLabel(names=list(SENTIMENT_7))},
    "sentiment-2": {"sentiment_2": ClassLabel(names=list(SENTIMENT_2))},
    "sentiment": {},
}
CLASS_COLUMNS = {name: feature for columns in CONFIGURATIONS.values() for name, feature in columns.items()}


def make_features(audio_size: int = 80, video_size: int = 512, **more: Any) -> Features:
    """
    Return the columns of a data set and their types. `audio_features` (T, audio_size) and `video_features`
    (T, video_size) are lists of lists of a fixed length in float32, which are read without a copy. `audio_times` and
    `video_times` (T,) are the middles of their frames. All times are seconds of the recording; the segment is in
    [`start`, `end`). A missing value is null. `more` are further columns of a source.
    """
    return Features(
        {
            "segment_id": Value("string"),
            "video_id": Value("string"),
            "segment": Value("int64"),
            "start": Value("float64"),
            "end": Value("float64"),
            "text": Value("string"),
            "words": List({"word": Value("string"), "start": Value("float64"), "end": Value("float64")}),
            "audio_features": List(List(Value("float32"), length=audio_size)),
            "video_features": List(List(Value("float32"), length=video_size)),
            **dict.fromkeys(TIME_COLUMNS, List(Value("float64"))),
            **dict.fromkeys(("sentiment", *EMOTIONS), Value("float32")),
            **more,
        }
    )


def class_columns(row: dict[str, Any]) -> dict[str, Any]:
    """Return the `CLASS_COLUMNS` of a row: null without a sentiment, or without all six emotions."""
    sentiment, emotions = row["sentiment"], [row[name] for name in EMOTIONS]
    is_known = not any(value is None for value in emotions)
    return {
        "emotions": [i for i, value in enumerate(emotions) if value > 0] if is_known else None,
        "sentiment_7": None if sentiment is None else sentiment_class_7(sentiment),
        "sentiment_2": None if sentiment is None else sentiment_class_2(sentiment),
    }


def to_table(rows: Sequence[dict[str, Any]], features: Features) -> pa.Table:
    """
    Convert rows to an Arrow table with the columns of `features`; missing values are null. `audio_features` and
    `video_features` are numpy arrays (T, D) or `None`. Raises ValueError for another D than that of `features`.
    """
    schema = features.arrow_schema
    columns = []
    for field in schema:
        values = [row.get(field.name) for row in rows]
        if field.name in FEATURE_COLUMNS:
            columns.append(_feature_column(values, field, [row["segment_id"] for row in rows]))
        else:
            columns.append(pa.array(values, type=field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _feature_column(values: list[np.ndarray | None], field: pa.Field, names: list[str]) -> pa.Array:
    size = field.type.value_type.list_size
    for name, value in zip(names, values, strict=True):
        if value is not None and (value.ndim != 2 or value.shape[1] != size):
            raise ValueError(f"{name}: {field.name} has the shape {value.shape}, expected (frames, {size}).")
    present = [np.asarray(value, dtype=np.float32).reshape(-1) for value in values if value is not None]
    flat = np.concatenate(present) if present else np.empty(0, dtype=np.float32)
    offsets = np.cumsum([0, *(0 if value is None else len(value) for value in values)], dtype=np.int32)
    frames = pa.FixedSizeListArray.from_arrays(pa.array(flat), size)
    mask = pa.array([value is None for value in values]) if any(value is None for value in values) else None
    return pa.ListArray.from_arrays(pa.array(offsets), frames, type=field.type, mask=mask)
