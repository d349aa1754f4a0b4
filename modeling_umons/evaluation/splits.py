"""Labelled rows of a split and the logits of a model on them."""

from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from ..tasks.task import Task


@dataclass(frozen=True)
class Split:
    """
    Rows that have a label, in parallel: their `truth` as [`Task.label_array`] gives it, the `logits` (N, num_labels) of a
    model, and what is known of each row. `None` is what is not known; rows of one group (a video) are alike.
    """

    truth: np.ndarray
    logits: np.ndarray | None = None
    texts: tuple[str | None, ...] | None = None
    segment_ids: tuple[str | None, ...] | None = None
    groups: tuple[str | None, ...] | None = None
    sources: tuple[str | None, ...] | None = None

    @classmethod
    def of(cls, task: Task, dataset: Dataset, logits: np.ndarray | None = None) -> "Split":
        """
        Of the rows of a data set, all of which have a label (see `tables.usable_rows`); its columns `text`, `segment_id`,
        `video_id` and `source` are read where it has them.
        """
        truth, has_label = task.label_array(dataset.select_columns(list(task.columns)).with_format("arrow")[:])
        if not has_label.all():
            row = int(np.flatnonzero(~has_label)[0])
            raise ValueError(f"{(~has_label).sum()} row(s), first of number {row}, have no label: leave them out.")
        if logits is not None and len(logits) != len(truth):
            raise ValueError(f"There are logits of {len(logits)} rows, but {len(truth)} rows.")

        def column(name: str) -> tuple[str | None, ...] | None:
            if name not in dataset.column_names:
                return None
            values = tuple(None if value is None else str(value) for value in dataset[name])
            return values if any(value is not None for value in values) else None

        return cls(truth, logits, column("text"), column("segment_id"), column("video_id"), column("source"))

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, rows: np.ndarray) -> "Split":
        """The rows of these numbers."""

        def pick(values):
            return None if values is None else tuple(values[row] for row in rows)

        return Split(
            self.truth[rows],
            None if self.logits is None else self.logits[rows],
            *map(pick, (self.texts, self.segment_ids, self.groups, self.sources)),
        )

    def is_of_the_rows_of(self, other: "Split") -> bool:
        """Whether both are of the same rows in the same order, as far as can be seen."""
        names = ("texts", "segment_ids", "groups", "sources")
        return np.array_equal(self.truth, other.truth, equal_nan=True) and all(
            getattr(self, name) == getattr(other, name) for name in names
        )
