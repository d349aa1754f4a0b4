"""What a model is trained to say: for each task its labels, the kind of problem, and the label of a row."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..models.umons.configuration_umons import EMOTIONS
from .labels import SENTIMENT_2, SENTIMENT_7, sentiment_class_2, sentiment_class_7


TASKS = ("joint", "emotion", "sentiment", "sentiment-7", "sentiment-2", "classification")
# The metric of validation that selects the best epoch. UMONS takes the accuracy.
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
    """A task and the columns of a table that it reads."""

    name: str
    labels: tuple[str, ...]
    problem_type: str
    label_column: str = "label"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that hold the truth."""
        return {"joint": ("sentiment", *EMOTIONS), "emotion": EMOTIONS, "classification": (self.label_column,)}.get(
            self.name, ("sentiment",)
        )

    def missing(self, row: Mapping[str, Any]) -> list[str]:
        """The columns in which the row has no label."""
        return [column for column in self.columns if _is_missing(row[column])]

    def label(self, row: Mapping[str, Any]) -> list[float] | float | int | None:
        """
        The label of a row, as the model's `labels` want it; None where the row has none. For `joint` an unknown part is
        NaN; for `emotion` all six must be known. Raises ValueError for a cell that is no number or of an unknown class.
        """
        if self.name == "classification":
            value = row[self.label_column]
            if not _is_missing(value) and str(value) not in self.labels:
                raise ValueError(
                    f"{self.label_column} is {str(value)!r}, a class that no training row has; those of the training rows "
                    f"are {', '.join(self.labels)}."
                )
            return None if _is_missing(value) else self.labels.index(str(value))
        values = [_number(row[column], column) for column in self.columns]
        if all(map(math.isnan, values)):
            return None
        if self.name in ("joint", "emotion"):
            # An emotion is present when its intensity is above 0.
            emotions = [value if math.isnan(value) else float(value > 0) for value in values[-len(EMOTIONS) :]]
            if self.name == "joint":
                return [values[0], *emotions]
            return None if any(map(math.isnan, emotions)) else emotions
        return {"sentiment": float, "sentiment-7": sentiment_class_7, "sentiment-2": sentiment_class_2}[self.name](
            values[0]
        )

    def label_array(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """
        The labels of all rows at once, for training: what [`Task.label`] says of each.

        Returns:
            the labels, (B,) int64 of classes, (B,) float32 of `sentiment` or (B, num_labels) float32, NaN for an unknown
            part of `joint`; and the rows that have one, (B,) bool. The others hold -100 or NaN and are to be left out.

        Raises:
            ValueError: as `label`.
        """
        if self.name == "classification":
            return self._class_array(table[self.label_column])
        values = np.stack([_numbers(table[column], column) for column in self.columns], axis=-1)
        is_unknown = np.isnan(values)
        is_known = ~(is_unknown.any(axis=1) if self.name == "emotion" else is_unknown.all(axis=1))
        if self.name in ("joint", "emotion"):
            emotions = values[:, -len(EMOTIONS) :]
            emotions[:] = np.where(np.isnan(emotions), np.nan, emotions > 0)
        elif self.name != "sentiment":
            sentiment_class = {"sentiment-7": sentiment_class_7, "sentiment-2": sentiment_class_2}[self.name]
            classes, inverse = np.unique(values[is_known, 0], return_inverse=True)
            labels = np.full(len(values), -100)
            labels[is_known] = np.array([sentiment_class(value) for value in classes], dtype=np.int64)[inverse]
            return labels, is_known
        return (values[:, 0] if self.name == "sentiment" else values).astype(np.float32), is_known

    def _class_array(self, column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
        encoded = column.combine_chunks().dictionary_encode()
        # One more at the end, for rows of null.
        labels = [self.label({self.label_column: value}) for value in [*encoded.dictionary.to_pylist(), None]]
        labels = np.array([-100 if label is None else label for label in labels])
        labels = labels[encoded.indices.fill_null(len(labels) - 1).to_numpy()]
        return labels, labels != -100

    def config_options(self) -> dict[str, Any]:
        """What `UmonsConfig` has to know of the task."""
        return {
            "problem_type": self.problem_type,
            "joint_sentiment": self.name == "joint",
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: i for i, label in enumerate(self.labels)},
        }


def _is_missing(value: Any) -> bool:
    return value is None or value != value


def _number(value: Any, column: str) -> float:
    """NaN where it is missing."""
    try:
        return math.nan if value is None else float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{column} is {value!r}, which is no number.") from error


def _numbers(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """float64, NaN where it is missing."""
    try:
        return pc.cast(column, pa.float64()).to_numpy()
    except pa.ArrowException:  # what Arrow cannot read, Python may
        return np.array([_number(value, name) for value in column.to_pylist()])


def make_task(name: str, label_column: str = "label", classes: Iterable[str] = ()) -> Task:
    """The task called `name`; `classification` needs the `classes` that stand in the label column."""
    labels, problem_type = {
        "joint": (("sentiment", *EMOTIONS), "multi_label_classification"),
        "emotion": (EMOTIONS, "multi_label_classification"),
        "sentiment": (("sentiment",), "regression"),
        "sentiment-7": (SENTIMENT_7, "single_label_classification"),
        "sentiment-2": (SENTIMENT_2, "single_label_classification"),
        "classification": (tuple(sorted({str(c) for c in classes})), "single_label_classification"),
    }.get(name, (None, None))
    if labels is None:
        raise ValueError(f"There is no task {name!r}; there are {', '.join(TASKS)}.")
    if name == "classification" and len(labels) < 2:
        raise ValueError(
            f"Column {label_column!r} holds {len(labels)} class(es); a classification needs two at least."
        )
    return Task(name, labels, problem_type, label_column)
