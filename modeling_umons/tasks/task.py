"""Prediction tasks: labels, problem type and the label of a row."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..models.umons.configuration_umons import EMOTIONS, NEUTRAL
from ..utils.suggest import did_you_mean
from .labels import (
    EMOTION_RANGE,
    SENTIMENT_2,
    SENTIMENT_7,
    SENTIMENT_RANGE,
    class_name,
    rescaling_advice,
    sentiment_class_2,
    sentiment_class_7,
    sort_classes,
)


TASKS = ("joint", "joint-neutral", "emotion", "sentiment", "sentiment-7", "sentiment-2", "classification")
# Validation metric that selects the best epoch. UMONS uses accuracy.
BEST_METRICS = {
    "emotion": "emotion_acc",
    "sentiment": "mae",
    "sentiment-7": "accuracy",
    "sentiment-2": "accuracy",
    "classification": "accuracy",
    "joint": "loss",
}
LOWER_IS_BETTER = ("mae", "loss")


@dataclass(frozen=True)
class Task:
    """A task and the table columns that contain its labels."""

    name: str
    labels: tuple[str, ...]
    problem_type: str | None  # of `joint` `None`: no single loss or activation fits both sentiment and emotions
    label_column: str = "label"

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that contain the labels."""
        if self.name in ("joint", "emotion"):
            return self.labels
        return (self.label_column,) if self.name == "classification" else ("sentiment",)

    @property
    def emotions(self) -> tuple[str, ...]:
        """Labels that are emotions, the last ones; empty for tasks without emotions."""
        return self.labels[self.name == "joint" :] if self.name in ("joint", "emotion") else ()

    @property
    def has_probabilities(self) -> bool:
        """Return whether labels of emotions are probabilities, and not present or absent."""
        return NEUTRAL in self.emotions

    def missing(self, row: Mapping[str, Any]) -> list[str]:
        """Return the columns in which the row has no label."""
        return [column for column in self.columns if _is_missing(row[column])]

    def label(self, row: Mapping[str, Any]) -> list[float] | float | int | None:
        """
        Return the label of a row in the form of the model's `labels`, or `None` if it has none. Unknown parts of a
        `joint` label are NaN; `emotion` requires all six emotions. Raises ValueError for a value that is not a finite
        number in the range of the column, or a class that is not in the training rows.
        """
        if self.name == "classification":
            value = row[self.label_column]
            if _is_missing(value) or not class_name(value):
                return None
            names = [class_name(label) for label in self.labels]
            if class_name(value) not in names:
                raise ValueError(
                    f"{self.label_column} is {str(value)!r}, which is not a class of the training rows: "
                    f"{', '.join(self.labels)}.{did_you_mean(class_name(value), self.labels)}"
                )
            return names.index(class_name(value))
        values = [_number(row[column], column) for column in self.columns]
        if all(map(math.isnan, values)):
            return None
        if self.name in ("joint", "emotion"):
            emotions = self._targets(np.array(values[-len(self.emotions) :])).tolist()
            if self.name == "joint":
                return [values[0], *emotions]
            return None if any(map(math.isnan, emotions)) else emotions
        return {"sentiment": float, "sentiment-7": sentiment_class_7, "sentiment-2": sentiment_class_2}[self.name](
            values[0]
        )

    def label_array(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """
        Return the labels of all rows of a table, equal to [`Task.label`] of each row.

        Returns:
            Labels, (B,) int64 for classes, (B,) float32 for `sentiment` or (B, num_labels) float32 otherwise, with NaN
            for unknown parts of `joint`; and (B,) bool, which rows have a label. Rows without one contain -100 or NaN.

        Raises:
            ValueError: see `label`.
        """
        if self.name == "classification":
            return self._class_array(table[self.label_column])
        values = np.stack([_numbers(table[column], column) for column in self.columns], axis=-1)
        is_unknown = np.isnan(values)
        is_known = ~(is_unknown.any(axis=1) if self.name == "emotion" else is_unknown.all(axis=1))
        if self.name in ("joint", "emotion"):
            emotions = values[:, -len(self.emotions) :]
            emotions[:] = self._targets(emotions)
        elif self.name != "sentiment":
            sentiment_class = {"sentiment-7": sentiment_class_7, "sentiment-2": sentiment_class_2}[self.name]
            classes, inverse = np.unique(values[is_known, 0], return_inverse=True)
            labels = np.full(len(values), -100)
            labels[is_known] = np.array([sentiment_class(value) for value in classes], dtype=np.int64)[inverse]
            return labels, is_known
        return (values[:, 0] if self.name == "sentiment" else values).astype(np.float32), is_known

    def _targets(self, emotions: np.ndarray) -> np.ndarray:
        """Convert intensities to labels: present above 0; or probabilities, which are 1 at most. NaN is unknown."""
        if self.has_probabilities:
            return np.minimum(emotions, 1.0)
        return np.where(np.isnan(emotions), np.nan, emotions > 0)

    def _class_array(self, column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
        encoded = column.combine_chunks().dictionary_encode()
        # The last entry is for null.
        labels = [self.label({self.label_column: value}) for value in [*encoded.dictionary.to_pylist(), None]]
        labels = np.array([-100 if label is None else label for label in labels])
        labels = labels[encoded.indices.fill_null(len(labels) - 1).to_numpy()]
        return labels, labels != -100

    def config_options(self) -> dict[str, Any]:
        """Return the options of `UmonsConfig` that depend on the task."""
        return {
            "problem_type": self.problem_type,
            "joint_sentiment": self.name == "joint",
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: i for i, label in enumerate(self.labels)},
        }


def _is_missing(value: Any) -> bool:
    return value is None or value != value


def _number(value: Any, column: str) -> float:
    """Convert a cell to float, NaN if it is missing. Raises ValueError outside of the range of the column."""
    try:
        number = math.nan if value is None else float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{column} is {value!r}, which is not a number.") from error
    low, high = SENTIMENT_RANGE if column == "sentiment" else EMOTION_RANGE
    if math.isinf(number):
        raise ValueError(f"{column} is {value!r}, which is not a finite number.")
    if number < low or number > high:
        raise ValueError(f"{column} is {value!r}, which is outside of [{low:g}, {high:g}].")
    return number


def _numbers(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """Convert a column to float64, NaN where it is missing. Raises ValueError outside of the range of the column."""
    try:
        numbers = pc.cast(column, pa.float64()).to_numpy()
        low, high = SENTIMENT_RANGE if name == "sentiment" else EMOTION_RANGE
        if not ((numbers < low) | (numbers > high)).any():
            return numbers
    except pa.ArrowException:  # Python parses more formats than Arrow
        pass
    return np.array([_number(value, name) for value in column.to_pylist()])


def make_task(name: str, label_column: str = "label", classes: Iterable[str] = ()) -> Task:
    """Create the task called `name`; `classification` requires the `classes` in the label column."""
    labels, problem_type = {
        "joint": (("sentiment", *EMOTIONS), None),
        "joint-neutral": (("sentiment", *EMOTIONS, NEUTRAL), None),
        "emotion": (EMOTIONS, "multi_label_classification"),
        "sentiment": (("sentiment",), "regression"),
        "sentiment-7": (SENTIMENT_7, "single_label_classification"),
        "sentiment-2": (SENTIMENT_2, "single_label_classification"),
        "classification": (
            sort_classes({class_name(c) for c in classes} - {""}),
            "single_label_classification",
        ),
    }.get(name, (None, None))
    if labels is None:
        raise ValueError(
            f"Unknown task {name!r}; available: {', '.join(TASKS)} (`--task`).{did_you_mean(name, TASKS)}"
        )
    if name == "classification" and len(labels) < 2:
        raise ValueError(
            f"Column {label_column!r} contains {len(labels)} class(es); classification requires at least two "
            "(`--label_column`)."
        )
    return Task("joint" if name == "joint-neutral" else name, labels, problem_type, label_column)


def scale_advice(values: Iterable[float | str | None]) -> str:
    """Return how to convert a column of sentiments that fits another scale than [-3, 3]; empty if it fits this one."""
    numbers = []
    for value in values:
        try:
            numbers.append(math.nan if value is None else float(value))
        except (TypeError, ValueError):
            continue  # reported with its row
    numbers = [number for number in numbers if math.isfinite(number)]
    low, high = min(numbers, default=0), max(numbers, default=0)
    is_narrow = len(numbers) > 1 and low < high and low >= -1 and high <= 1
    is_wide = low < SENTIMENT_RANGE[0] or high > SENTIMENT_RANGE[1]
    return rescaling_advice(low, high) if is_narrow or is_wide else ""


def task_of(config, label_column: str = "label") -> Task:
    """
    Return the task that a model's configuration was trained for. Classes other than sentiments are read from
    `label_column`. Raises ValueError for labels of no task.
    """
    labels = tuple(config.id2label[i] for i in range(len(config.id2label)))
    kind = config.problem_type
    if kind == "single_label_classification":
        named = {SENTIMENT_7: "sentiment-7", SENTIMENT_2: "sentiment-2"}
        return make_task(named[labels]) if labels in named else Task("classification", labels, kind, label_column)
    for name in ("joint", "joint-neutral", "emotion", "sentiment"):
        task = make_task(name)
        same_labels = labels == task.labels or (name == "sentiment" and len(labels) == 1)
        is_joint = bool(getattr(config, "joint_sentiment", False))
        if same_labels and is_joint == (task.name == "joint") and kind in (task.problem_type, None):
            return task
    raise ValueError(
        f"The model has the labels {', '.join(map(str, labels))} and the problem type {kind}, which match no task. "
        f"Supported are classes, a sentiment, and the emotions {', '.join(EMOTIONS)} with or without a sentiment "
        f"first, and with both {NEUTRAL} last."
    )
