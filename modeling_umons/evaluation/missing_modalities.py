"""How well a model does without its text, sound or pictures: the figures against the share of rows that lack one."""

from collections.abc import Callable
from typing import Any

import numpy as np
from datasets import Dataset, Features, Value, concatenate_datasets

from ..data.collator import ArrowRows, UtteranceCollator
from ..data.conversations import ConversationCollator
from ..data.sampling import row_lengths
from ..tasks.task import Task
from .metrics import task_metrics


SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
# What is drawn, by task.
HEADLINES = {"joint": ("mae", "emotion_ap"), "emotion": ("emotion_ap",), "sentiment": ("mae",)}
CLASS_HEADLINES = ("accuracy",)


def missing_curves(
    task: Task,
    predict: Callable[[Dataset], np.ndarray],
    rows: Dataset,
    logits: np.ndarray,
    collator: UtteranceCollator,
    seed: int,
) -> dict[str, Any] | None:
    """
    The headline figures of rows of which a share loses one modality at evaluation. Only rows that have another one can
    lose it; the others stay as they are and are counted. Answers of a row do not depend on other rows, so a model answers
    once more for each modality, and the curve takes of each row the one or the other answer.

    Args:
        task: what is predicted.
        predict: rows to logits (N, num_labels).
        rows: of a held-out split, all usable.
        logits: what `predict` gives for them.
        collator: knows the columns of the modalities.
        seed: draws the rows that lose a modality; those of a smaller share are among those of a larger one.

    Returns:
        `shares`, `rows`, and by modality `without`: how many rows can lose it (`can`), cannot (`alone`: it is all that
        they have, `lacking`: they do not have it), and the figures of each metric, a value for each share. `None` for a
        model of one modality, of conversations, in which rows are not apart, and where no row can lose anything.
    """
    columns = collator.modality_columns
    if len(columns) < 2 or isinstance(collator, ConversationCollator):
        return None
    has = {modality: _has(rows, name) for modality, name in columns.items()}
    number = sum(has.values())
    truth = task.label_array(rows.select_columns(list(task.columns)).with_format("arrow")[:])[0]
    metrics = HEADLINES.get(task.name, CLASS_HEADLINES)
    without = {}
    for modality, name in columns.items():
        can = np.flatnonzero(has[modality] & (number > 1))
        if not len(can):
            continue
        blind = predict(_emptied(rows.select(can), name))
        order = np.random.default_rng(seed).permutation(len(can))
        figures: dict[str, list[float | None]] = {metric: [] for metric in metrics}
        for share in SHARES:
            lost = order[: round(share * len(can))]
            mixed = logits.copy()
            mixed[can[lost]] = blind[lost]
            measured = task_metrics(task, truth, mixed)
            for metric, values in figures.items():
                values.append(measured.get(metric))
        without[modality] = {
            "can": len(can),
            "alone": int((has[modality] & (number == 1)).sum()),
            "lacking": int((~has[modality]).sum()),
            "metrics": {metric: values for metric, values in figures.items() if None not in values},
        }
    return {"shares": list(SHARES), "rows": len(rows), "without": without} if without else None


def describe_curves(curves: dict[str, Any]) -> str:
    """A sentence on which rows could lose what."""
    parts = []
    for modality, of in curves["without"].items():
        left = [f"{of[key]} that {words}" for key, words in (("alone", "have nothing else"), ("lacking", "lack it anyway")) if of[key]]  # fmt: skip
        parts.append(f"{of['can']} rows could lose the {modality}" + (f", not {' and '.join(left)}" if left else ""))
    return f"Of {curves['rows']} rows, {'; '.join(parts)}."


def _has(rows: Dataset, name: str) -> np.ndarray:
    """Which rows have something in a column, (N,) bool; of texts, words."""
    if rows.features[name] == Value("string"):
        return np.array([bool(text and text.strip()) for text in rows[name]], dtype=bool)
    return np.array(row_lengths(ArrowRows(rows), {"": name})) > 0


def _emptied(rows: Dataset, name: str) -> Dataset:
    """The rows without a value in this column."""
    empty = Dataset.from_dict({name: [None] * len(rows)}, features=Features({name: rows.features[name]}))
    return concatenate_datasets([rows.remove_columns(name).flatten_indices(), empty], axis=1)
