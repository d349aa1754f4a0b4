"""What a model is trained to say: for each task its labels, the kind of problem, and the label of a row."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..configuration_umons import EMOTIONS


TASKS = ("joint", "emotion", "sentiment", "sentiment-7", "sentiment-2", "classification")


def sentiment_class_7(sentiment: float) -> int:
    """Class 0 to 6 of a sentiment in [-3, 3], as UMONS and the CMU SDK cut it: -1.5 is of class -2, and only 0 of class 0."""
    if sentiment == 0:
        return 3
    return max(0, 3 + math.floor(sentiment)) if sentiment < 0 else min(6, 3 + math.ceil(sentiment))


def sentiment_class_2(sentiment: float) -> int:
    """0 for a negative sentiment, 1 for any other (UMONS' sentiment-2)."""
    return int(sentiment >= 0)


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

    def label(self, row: Mapping[str, Any]) -> list[float] | float | int | None:
        """The label of a row, as the model's `labels` want it; None where the row has none. An unknown part is NaN."""
        known = [None if row[column] is None or row[column] != row[column] else row[column] for column in self.columns]
        if all(value is None for value in known):
            return None
        if self.name == "classification":
            return self.labels.index(str(known[0]))
        if self.name in ("joint", "emotion"):
            # An emotion is present when its intensity is above 0.
            emotions = [math.nan if value is None else float(value > 0) for value in known[-len(EMOTIONS) :]]
            sentiment = [math.nan if known[0] is None else float(known[0])] if self.name == "joint" else []
            return sentiment + emotions
        return {"sentiment": float, "sentiment-7": sentiment_class_7, "sentiment-2": sentiment_class_2}[self.name](
            known[0]
        )

    def config_options(self) -> dict[str, Any]:
        """What `UmonsConfig` has to know of the task."""
        return {
            "problem_type": self.problem_type,
            "joint_sentiment": self.name == "joint",
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: i for i, label in enumerate(self.labels)},
        }


def make_task(name: str, label_column: str = "label", classes: Iterable[str] = ()) -> Task:
    """The task called `name`; `classification` needs the `classes` that stand in the label column."""
    labels, problem_type = {
        "joint": (("sentiment", *EMOTIONS), "multi_label_classification"),
        "emotion": (EMOTIONS, "multi_label_classification"),
        "sentiment": (("sentiment",), "regression"),
        "sentiment-7": (("-3", "-2", "-1", "0", "1", "2", "3"), "single_label_classification"),
        "sentiment-2": (("negative", "not negative"), "single_label_classification"),
        "classification": (tuple(sorted({str(c) for c in classes})), "single_label_classification"),
    }.get(name, (None, None))
    if labels is None:
        raise ValueError(f"There is no task {name!r}; there are {', '.join(TASKS)}.")
    if name == "classification" and len(labels) < 2:
        raise ValueError(
            f"Column {label_column!r} holds {len(labels)} class(es); a classification needs two at least."
        )
    return Task(name, labels, problem_type, label_column)
