"""Robustness to missing modalities: metrics as a share of the rows loses its text, audio or video."""

from collections.abc import Callable
from typing import Any

import numpy as np
from datasets import Dataset, Features, Value, concatenate_datasets

from ..data.collator import ArrowRows, UtteranceCollator
from ..data.conversations import ConversationCollator
from ..data.sampling import row_lengths
from ..tasks.task import Task
from .metrics import headline_metrics, task_metrics


SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
METRICS = ("mae", "emotion_ap", "accuracy", "ap_macro", "ccc")


def missing_curves(
    task: Task,
    predict: Callable[[Dataset], np.ndarray],
    rows: Dataset,
    logits: np.ndarray,
    collator: UtteranceCollator,
    seed: int,
) -> dict[str, Any] | None:
    """
    Compute metrics on rows of which a share loses one modality at evaluation.

    Only rows with another modality can lose one; the others are left unchanged and counted. Predictions of a row do
    not depend on other rows, so the model is run once for each modality, and each point of a curve combines the
    predictions with and without it.

    Args:
        task: the task.
        predict: function from rows to logits (N, num_labels).
        rows: usable rows of a held-out split.
        logits: predictions for `rows`.
        collator: the collator, which knows the columns of the modalities.
        seed: seed of the random order in which rows lose a modality.

    Returns:
        `shares`; `rows`, their number; and `without`, by modality: `droppable`, the number of rows that can lose it,
        `only`, of rows with no other modality, `absent`, of rows without it, and `metrics`, a value for each share.
        `None` for models of one modality and of conversations, and if no row can lose a modality.
    """
    columns = collator.modality_columns
    if len(columns) < 2 or isinstance(collator, ConversationCollator):
        return None
    has = {modality: is_present(rows, name) for modality, name in columns.items()}
    num_modalities = sum(has.values())
    truth = task.label_array(rows.select_columns(list(task.columns)).with_format("arrow")[:])[0]
    names = [metric for metric in headline_metrics(task.name) if metric in METRICS]
    without = {}
    for modality, column in columns.items():
        droppable = np.flatnonzero(has[modality] & (num_modalities > 1))
        if not len(droppable):
            continue
        logits_without = predict(_without_column(rows.select(droppable), column))
        order = np.random.default_rng(seed).permutation(len(droppable))
        metrics: dict[str, list[float | None]] = {name: [] for name in names}
        for share in SHARES:
            dropped = order[: round(share * len(droppable))]
            mixed = logits.copy()
            mixed[droppable[dropped]] = logits_without[dropped]
            scores = task_metrics(task, truth, mixed)
            for name, values in metrics.items():
                values.append(scores.get(name))
        without[modality] = {
            "droppable": len(droppable),
            "only": int((has[modality] & (num_modalities == 1)).sum()),
            "absent": int((~has[modality]).sum()),
            "metrics": {name: values for name, values in metrics.items() if None not in values},
        }
    return {"shares": list(SHARES), "rows": len(rows), "without": without} if without else None


def describe_curves(curves: dict[str, Any]) -> str:
    """Return a sentence on how many rows can lose each modality."""
    parts = []
    for modality, curve in curves["without"].items():
        reasons = (("only", "have no other modality"), ("absent", "do not have it"))
        others = " and ".join(f"{curve[key]} that {reason}" for key, reason in reasons if curve[key])
        parts.append(f"{curve['droppable']} can lose the {modality}" + (f" (not {others})" if others else ""))
    return f"Of {curves['rows']} rows, {'; '.join(parts)}."


def is_present(rows: Dataset, column: str) -> np.ndarray:
    """Return which rows have features or words in a column, (N,) bool."""
    if rows.features[column] == Value("string"):
        return np.array([bool(text and text.strip()) for text in rows[column]], dtype=bool)
    return np.array(row_lengths(ArrowRows(rows), {"": column})) > 0


def _without_column(rows: Dataset, column: str) -> Dataset:
    """Set a column of the rows to null."""
    empty = Dataset.from_dict({column: [None] * len(rows)}, features=Features({column: rows.features[column]}))
    return concatenate_datasets([rows.remove_columns(column).flatten_indices(), empty], axis=1)
