"""Distillation through labels (Hinton et al., 2015): a table whose labels are partly those of a teacher."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset

from ..data.arguments import DataArguments
from ..data.rows import load_splits, make_collator
from ..inference.loading import load_model
from ..inference.logits import predict_logits
from ..tasks.task import Task, task_of
from ..utils.files import atomic_path


def soften_labels(labels: np.ndarray, logits: np.ndarray, weight: float) -> np.ndarray:
    """
    Return labels of sentiment and emotions, (N, num_labels), mixed with the predictions of a teacher.

    Args:
        labels: sentiment and probabilities; NaN is unknown, and becomes the teacher's.
        logits: the teacher's sentiment and logits of emotions.
        weight: share of the teacher in known labels, from 0 to 1.
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"The weight of the teacher is {weight}; it must be from 0 to 1 (`--weight`).")
    predicted = np.concatenate([np.clip(logits[:, :1], -3, 3), 1 / (1 + np.exp(-logits[:, 1:]))], axis=1)
    return np.where(np.isnan(labels), predicted, (1 - weight) * labels + weight * predicted).astype(np.float32)


def distill(source: str, teacher: str, output: str | Path, weight: float = 0.7, batch_size: int = 128) -> int:
    """
    Write the data set `source` with labels of its training split that are mixed with a teacher's predictions.

    Args:
        source: data set of texts, prepared by the layout `mini`.
        teacher: model of the task `joint-neutral`: a folder or Hub id.
        output: folder to write, which must not exist.
        weight: see [`soften_labels`].
        batch_size: rows of a batch.

    Returns:
        The number of training rows.

    Raises:
        OSError, ValueError: the data or the model cannot be read, or the model is of another task.
    """
    if Path(output).exists():
        raise FileExistsError(f"{output} exists: remove it, or choose another folder (`--output`).")
    model, processor = load_model(teacher)
    task = task_of(model.config)
    if not task.has_probabilities:
        raise ValueError(f"{teacher} is a model of {', '.join(task.labels)}; the teacher requires {'neutral'!r}.")
    splits = load_splits(source, DataArguments(dataset_name=source))
    collator = make_collator(processor, model.config, task, splits["train"].column_names)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = predict_logits(model, splits["train"], collator, batch_size, "teacher")
    splits["train"] = _with_labels(splits["train"], task, logits, weight)
    with atomic_path(output) as folder:
        folder.mkdir()
        for name, rows in splits.items():
            (folder / "data").mkdir(exist_ok=True)
            pq.write_table(rows.with_format("arrow")[:], folder / "data" / f"{name}-00000-of-00001.parquet")
    return len(splits["train"])


def _with_labels(rows: Dataset, task: Task, logits: np.ndarray, weight: float) -> Dataset:
    labels, _ = task.label_array(rows.select_columns(list(task.columns)).with_format("arrow")[:])
    softened = soften_labels(labels, logits, weight)
    table = rows.with_format("arrow")[:]
    for name, values in zip(task.columns, softened.T, strict=True):
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.float32()))
    return Dataset(table, rows.info)
