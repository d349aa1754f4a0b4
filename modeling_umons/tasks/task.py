"""Prediction tasks: labels, problem type and the label of a row."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    range_advice,
    sentiment_class_2,
    sentiment_class_7,
    sort_classes,
    split_labels,
)


TASKS = (
    "joint", "joint-neutral", "emotion", "sentiment", "sentiment-7", "sentiment-2", "classification", "multi_label",
    "regression",
)  # fmt: skip
# Validation metric that selects the best epoch. UMONS uses accuracy.
BEST_METRICS = {
    "emotion": "emotion_acc",
    "sentiment": "mae",
    "sentiment-7": "accuracy",
    "sentiment-2": "accuracy",
    "classification": "accuracy",
    "joint": "loss",
    "multi_label": "loss",
    "regression": "ccc",
}
LOWER_IS_BETTER = ("mae", "loss")
BOOLEANS = {"true": 1.0, "false": 0.0}
OWN_LABELS = ("multi_label", "regression")  # tasks whose labels are the names of their columns


@dataclass(frozen=True)
class Task:
    """
    A task and the table columns that contain its labels.

    Args:
        name: one of `TASKS`, but "joint" also for "joint-neutral".
        labels: labels of the model.
        problem_type: that of the configuration. `joint` has `None`: no single loss or activation fits both sentiment
            and emotions.
        columns: columns that contain the labels; a single one with lists of labels for `multi_label`.
        label_range: lowest and highest value of sentiments in the table, which are rescaled to [-3, 3], or of all
            labels of a `regression`; by default [-3, 3], or no limits.
        ranges: lowest and highest value of each label of a `regression`, (num_labels, 2), which scale its loss and
            outputs; empty if unknown.
    """

    name: str
    labels: tuple[str, ...]
    problem_type: str | None
    columns: tuple[str, ...]
    label_range: tuple[float, float] | None = None
    ranges: tuple[tuple[float, float], ...] = field(default=(), compare=False)

    @property
    def emotions(self) -> tuple[str, ...]:
        """Labels that are present or absent, the last ones: emotions, or those of `multi_label`."""
        return self.labels[self.name == "joint" :] if self.name in ("joint", "emotion", "multi_label") else ()

    @property
    def option(self) -> str:
        """Name of the task in `TASKS`."""
        return "joint-neutral" if self.has_probabilities else self.name

    @property
    def sentiment_column(self) -> str | None:
        """Column of sentiments, if the task reads one."""
        return self.columns[0] if self.name == "joint" or self.name.startswith("sentiment") else None

    @property
    def reads_lists(self) -> bool:
        """Return whether a single column contains lists of the labels that are present."""
        return self.name == "multi_label" and len(self.columns) == 1 and self.columns != self.labels

    @property
    def has_probabilities(self) -> bool:
        """Return whether labels of emotions are probabilities, and not present or absent."""
        return self.name == "joint" and NEUTRAL in self.emotions

    def missing(self, row: Mapping[str, Any]) -> list[str]:
        """Return the columns in which the row has no label."""
        return [column for column in self.columns if _is_missing(row[column])]

    def label(self, row: Mapping[str, Any]) -> list[float] | float | int | None:
        """
        Return the label of a row in the form of the model's `labels`, or `None` if it has none. Unknown parts of
        `joint`, `multi_label` and `regression` are NaN; `emotion` requires all six emotions. Raises ValueError for a
        value that is not a finite number in the range of the column, or a class that is not in the training rows.
        """
        if self.name == "classification":
            (column,) = self.columns
            value = row[column]
            if _is_missing(value) or not class_name(value):
                return None
            names = [class_name(label) for label in self.labels]
            if class_name(value) not in names:
                raise ValueError(
                    f"{column} is {str(value)!r}, which is not a class of the training rows: "
                    f"{', '.join(self.labels)}.{did_you_mean(class_name(value), self.labels)}"
                )
            return names.index(class_name(value))
        if self.reads_lists:
            return self._presence(row[self.columns[0]])
        values = np.array([[self._number(row[column], column) for column in self.columns]])
        labels, is_known = self._label_rows(values)
        return labels[0].tolist() if is_known[0] else None

    def label_array(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """
        Return the labels of all rows of a table, equal to [`Task.label`] of each row.

        Returns:
            Labels, (B,) int64 for classes, (B,) float32 for `sentiment` or (B, num_labels) float32 otherwise, with NaN
            for unknown parts; and (B,) bool, which rows have a label. Rows without one contain -100 or NaN.

        Raises:
            ValueError: see `label`.
        """
        if self.name == "classification":
            return self._class_array(table[self.columns[0]])
        if self.reads_lists:
            rows = [self._presence(value) for value in table[self.columns[0]].to_pylist()]
            unknown = [math.nan] * len(self.labels)
            labels = np.array([unknown if row is None else row for row in rows], dtype=np.float32)
            return labels.reshape(-1, len(self.labels)), np.array([row is not None for row in rows], dtype=bool)
        values = np.stack([self._numbers(table[column], column) for column in self.columns], axis=-1)
        labels, is_known = self._label_rows(values)
        return labels.astype(np.float32) if labels.dtype == float else labels, is_known

    def _label_rows(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Convert the values (B, columns) to labels in float64 or int64, and tell which rows have one."""
        is_unknown = np.isnan(values)
        is_known = ~(is_unknown.any(axis=1) if self.name == "emotion" else is_unknown.all(axis=1))
        if self.sentiment_column is not None and self.label_range is not None:
            (low, high), (lowest, highest) = self.label_range, SENTIMENT_RANGE
            values[:, 0] = lowest + (values[:, 0] - low) / (high - low) * (highest - lowest)
        if self.emotions:
            emotions = values[:, -len(self.emotions) :]
            emotions[:] = self._targets(emotions)
        elif self.name in ("sentiment-7", "sentiment-2"):
            sentiment_class = {"sentiment-7": sentiment_class_7, "sentiment-2": sentiment_class_2}[self.name]
            classes, inverse = np.unique(values[is_known, 0], return_inverse=True)
            labels = np.full(len(values), -100)
            labels[is_known] = np.array([sentiment_class(value) for value in classes], dtype=np.int64)[inverse]
            return labels, is_known
        return (values[:, 0] if self.name == "sentiment" else values), is_known

    def _presence(self, value: Any) -> list[float] | None:
        """Return 1.0 for the labels in a list and 0.0 for the others; `None` without a list."""
        if _is_missing(value):
            return None
        present = split_labels(value)
        if unknown := [name for name in present if name not in self.labels]:
            raise ValueError(
                f"{self.columns[0]} contains {unknown[0]!r}, which is not a label of the training rows: "
                f"{', '.join(self.labels)}.{did_you_mean(unknown[0], self.labels)}"
            )
        return [float(label in present) for label in self.labels]

    def _targets(self, emotions: np.ndarray) -> np.ndarray:
        """Convert intensities to labels: present above 0; or probabilities, which are 1 at most. NaN is unknown."""
        if self.has_probabilities:
            return np.minimum(emotions, 1.0)
        return np.where(np.isnan(emotions), np.nan, emotions > 0)

    def _class_array(self, column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
        encoded = column.combine_chunks().dictionary_encode()
        # The last entry is for null.
        labels = [self.label({self.columns[0]: value}) for value in [*encoded.dictionary.to_pylist(), None]]
        labels = np.array([-100 if label is None else label for label in labels])
        labels = labels[encoded.indices.fill_null(len(labels) - 1).to_numpy()]
        return labels, labels != -100

    def _range_of(self, column: str) -> tuple[float, float]:
        """Return the lowest and highest value of a column."""
        if column == self.sentiment_column:
            return self.label_range or SENTIMENT_RANGE
        if self.name == "regression":
            return self.label_range or (-math.inf, math.inf)
        return (0.0, 1.0) if self.name == "multi_label" else EMOTION_RANGE

    def _number(self, value: Any, column: str) -> float:
        """Convert a cell to float, NaN if it is missing. Raises ValueError outside of the range of the column."""
        try:
            value = BOOLEANS.get(value.strip().lower(), value) if isinstance(value, str) else value
            number = math.nan if value is None else float(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"{column} is {value!r}, which is not a number. Leave the cells of unknown labels empty."
            ) from error
        if math.isinf(number):
            raise ValueError(f"{column} is {value!r}, which is not a finite number.")
        low, high = self._range_of(column)
        if number < low or number > high or (self.name == "multi_label" and 0 < number < 1):
            is_binary = self.name == "multi_label"
            place = "neither 0 nor 1; intensities are for --task regression" if is_binary else (
                f"outside of [{low:g}, {high:g}]{' (`--label_range`)' if self.name == 'regression' else ''}"
            )  # fmt: skip
            raise ValueError(f"{column} is {value!r}, which is {place}.")
        return number

    def _numbers(self, column: pa.ChunkedArray, name: str) -> np.ndarray:
        """Convert a column to float64, NaN where it is missing. Raises ValueError as `_number`."""
        try:
            numbers = pc.cast(column, pa.float64()).to_numpy()
            low, high = self._range_of(name)
            is_binary = self.name != "multi_label" or np.isin(numbers, (0.0, 1.0)) | np.isnan(numbers)
            if np.all(is_binary) and not ((numbers < low) | (numbers > high) | np.isinf(numbers)).any():
                return numbers
        except pa.ArrowException:  # Python parses more formats than Arrow
            pass
        return np.array([self._number(value, name) for value in column.to_pylist()])

    def config_options(self) -> dict[str, Any]:
        """Return the options of `UmonsConfig` that depend on the task."""
        return {
            "problem_type": self.problem_type,
            "joint_sentiment": self.name == "joint",
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: i for i, label in enumerate(self.labels)},
            "label_ranges": [list(limits) for limits in self.ranges] or None,
        }


def _is_missing(value: Any) -> bool:
    return value is None or value != value


def make_task(
    name: str,
    label_columns: str | Sequence[str] = (),
    classes: Iterable[str] = (),
    label_range: Sequence[float] | None = None,
) -> Task:
    """
    Create the task called `name`.

    Args:
        name: one of `TASKS`.
        label_columns: columns of the labels, in their order; by default they have the names of the labels, or "label"
            for `classification`. `multi_label` and `regression` require them.
        classes: classes in the column of `classification`.
        label_range: see [`Task`].

    Raises:
        ValueError: the task is unknown, or the other arguments do not fit it.
    """
    columns = (label_columns,) if isinstance(label_columns, str) else tuple(label_columns)
    if len(set(columns)) < len(columns):
        raise ValueError(f"The label columns are {', '.join(columns)}: name each one once (`--label_columns`).")
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
        "multi_label": (columns, "multi_label_classification"),
        "regression": (columns, "regression"),
    }.get(name, (None, None))
    if labels is None:
        raise ValueError(
            f"Unknown task {name!r}; available: {', '.join(TASKS)} (`--task`).{did_you_mean(name, TASKS)}"
        )
    if name in OWN_LABELS and not columns:
        raise ValueError(f"--task {name} requires the columns of its labels: --label_columns joy anxiety ...")
    usual = {"classification": ("label",), "sentiment-7": ("sentiment",), "sentiment-2": ("sentiment",)}
    usual_columns = usual.get(name, labels)
    if columns and len(columns) != len(usual_columns):
        raise ValueError(
            f"--label_columns names {len(columns)} column(s), but --task {name} reads {len(usual_columns)}: "
            f"{', '.join(usual_columns)}. For labels of your own, pass --task multi_label or --task regression."
        )
    columns = columns or usual_columns
    if name == "classification" and len(labels) < 2:
        raise ValueError(
            f"Column {columns[0]!r} contains {len(labels)} class(es); classification requires at least two "
            "(`--label_columns`)."
        )
    limits = _check_range(name, label_range)
    return Task("joint" if name == "joint-neutral" else name, labels, problem_type, columns, limits)


def _check_range(name: str, label_range: Sequence[float] | None) -> tuple[float, float] | None:
    """Return the range of labels as a pair. Raises ValueError if it is not a range, or the task has none."""
    if label_range is None:
        return None
    if len(label_range) != 2 or not -math.inf < label_range[0] < label_range[1] < math.inf:
        raise ValueError(f"--label_range is {list(label_range)}: pass the lowest and the highest label, such as 1 5.")
    if name in ("emotion", "classification", "multi_label"):
        raise ValueError(f"--label_range has no effect: --task {name} has neither a sentiment nor other numbers.")
    return (float(label_range[0]), float(label_range[1]))


def with_listed_labels(task: Task, values: Iterable[Any]) -> Task:
    """Return a `multi_label` task with the labels in its single column, if that contains lists and not numbers."""
    values = [value for value in values if not _is_missing(value)]
    try:
        for value in values:
            task.label({task.columns[0]: value})
    except ValueError:
        if all(isinstance(value, (str, list)) for value in values):
            names = {name for value in values for name in split_labels(value)}
            return replace(task, labels=sort_classes(names))
    return task


def scale_advice(task: Task, values: Iterable[float | str | None]) -> str:
    """Return the option that rescales a column of sentiments of another scale than [-3, 3]; empty if it fits it."""
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
    return range_advice(low, high) if task.label_range is None and (is_narrow or is_wide) else ""


def task_of(config, label_columns: Sequence[str] = (), label_range: Sequence[float] | None = None) -> Task:
    """
    Return the task that a model's configuration was trained for, which reads `label_columns`. Raises ValueError for
    labels of no task.
    """
    labels = tuple(config.id2label[i] for i in range(len(config.id2label)))
    kind = config.problem_type
    is_joint = bool(getattr(config, "joint_sentiment", False))
    if kind == "single_label_classification":
        name = {SENTIMENT_7: "sentiment-7", SENTIMENT_2: "sentiment-2"}.get(labels)
        if name is not None:
            return make_task(name, label_columns, label_range=label_range)
        task = make_task("classification", label_columns, "01")  # any two classes
        return replace(task, labels=labels)
    for name in ("joint", "joint-neutral", "emotion", "sentiment"):
        task = make_task(name)
        # The one label of a sentiment may have no name.
        same_labels = labels == task.labels or (name == "sentiment" and labels == ("LABEL_0",))
        if same_labels and is_joint == (task.name == "joint") and kind in (task.problem_type, None):
            return make_task(name, label_columns, label_range=label_range)
    name = {"multi_label_classification": "multi_label", "regression": "regression"}.get(kind)
    if name is not None and not is_joint:
        task = make_task(name, label_columns or labels, label_range=label_range)
        if len(task.columns) != len(labels) and not (name == "multi_label" and len(task.columns) == 1):
            raise ValueError(
                f"The model has the labels {', '.join(labels)}: name a column for each (`--label_columns`)."
            )
        ranges = getattr(config, "label_ranges", None) or ()
        return replace(task, labels=labels, ranges=tuple((low, high) for low, high in ranges))
    raise ValueError(
        f"The model has the labels {', '.join(map(str, labels))} and the problem type {kind}, which match no task. "
        f"Supported are classes, labels that are present or absent, numbers, and a sentiment before the emotions "
        f"{', '.join(EMOTIONS)}, or before these and {NEUTRAL}."
    )
