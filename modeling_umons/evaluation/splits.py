"""Labelled rows of a split and the logits of a model on them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from datasets import Dataset

from ..tasks.task import Task


@dataclass(frozen=True)
class Split:
    """
    Labelled rows of a split. All fields are parallel to the rows; `None` if unknown.

    Args:
        truth: labels as returned by [`Task.label_array`].
        logits: (N, num_labels), predictions of a model.
        texts: texts of the rows.
        segment_ids: identifiers of the rows.
        groups: group of each row (its video); rows of a group are correlated.
        sources: data set that each row is from.
        modalities: combination of modalities of each row, such as "text+audio".
        groupings: group of each row by column, for results by group.
    """

    truth: np.ndarray
    logits: np.ndarray | None = None
    texts: tuple[str | None, ...] | None = None
    segment_ids: tuple[str | None, ...] | None = None
    groups: tuple[str | None, ...] | None = None
    sources: tuple[str | None, ...] | None = None
    modalities: tuple[str, ...] | None = None
    groupings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        task: Task,
        dataset: Dataset,
        logits: np.ndarray | None = None,
        modalities: tuple[str, ...] | None = None,
    ) -> "Split":
        """
        Create a split from the rows of a data set; reads the columns `text`, `segment_id`, `video_id` and `source`
        where present. Raises ValueError if a row has no label or the number of logits differs.
        """
        truth, has_label = task.label_array(dataset.select_columns(list(task.columns)).with_format("arrow")[:])
        if not has_label.all():
            row = int(np.flatnonzero(~has_label)[0])
            raise ValueError(f"{(~has_label).sum()} row(s) have no label, the first one is row {row}; remove them.")
        if logits is not None and len(logits) != len(truth):
            raise ValueError(f"`logits` has {len(logits)} rows, but the data set has {len(truth)}.")

        def column(name: str) -> tuple[str | None, ...] | None:
            if name not in dataset.column_names:
                return None
            values = tuple(None if value is None else str(value) for value in dataset[name])
            return values if any(value is not None for value in values) else None

        names = ("text", "segment_id", "video_id", "source")
        return cls(truth, logits, *map(column, names), modalities)

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, rows: np.ndarray) -> "Split":
        """Select rows by their indices."""

        def pick(values):
            return None if values is None else tuple(values[row] for row in rows)

        return Split(
            self.truth[rows],
            None if self.logits is None else self.logits[rows],
            *map(pick, (self.texts, self.segment_ids, self.groups, self.sources, self.modalities)),
            {column: pick(names) for column, names in self.groupings.items()},
        )

    def has_same_rows(self, other: "Split") -> bool:
        """Return whether labels, texts, identifiers, groups and sources are equal and in the same order."""
        names = ("texts", "segment_ids", "groups", "sources")
        return np.array_equal(self.truth, other.truth, equal_nan=True) and all(
            getattr(self, name) == getattr(other, name) for name in names
        )
