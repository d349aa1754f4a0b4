"""A start for the linear front ends that sees every feature on the same scale."""

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset

from ..data.collator import ArrowRows, UtteranceCollator
from ..modeling_umons import UmonsForSequenceClassification


ROWS = 1000  # read at a time


@torch.no_grad()
def standardize_front_ends(model: UmonsForSequenceClassification, rows: Dataset, collator: UtteranceCollator) -> None:
    """
    Folds the mean and the standard deviation of each audio and video feature over the training rows into the weights of
    the front end: W (x - mean) / std + b. The model stays what it was, a linear map; it starts where standardised
    features would have had it start. Bins that hardly change, and how they change, would else be drowned by loud ones.
    """
    for modality, column in collator.modality_columns.items():
        if modality == "text":
            continue
        mean, std = feature_statistics(rows, column)
        front_end = model.base_model.front_ends[modality]
        front_end.weight.div_(torch.from_numpy(std).to(front_end.weight))
        front_end.bias.sub_(front_end.weight @ torch.from_numpy(mean).to(front_end.weight))


def feature_statistics(rows: Dataset, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (D,), float64, over all frames of a column. A constant feature has the deviation 1."""
    table, count = ArrowRows(rows.select_columns(column)), 0
    total = squares = np.zeros(rows.features[column].feature.length)
    for start in range(0, len(rows), ROWS):
        for chunk in table[start : start + ROWS][column].chunks:
            frames = pa.ListArray.flatten(chunk).flatten().to_numpy().reshape(-1, len(total)).astype(np.float64)
            count, total, squares = count + len(frames), total + frames.sum(axis=0), squares + (frames**2).sum(axis=0)
    mean = total / max(count, 1)
    std = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0))
    return mean, np.where(std > 1e-6, std, 1.0)
