"""Initialisation of the first linear layer for standardised audio and video features."""

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from ..data.collator import SOUND, ArrowRows, UtteranceCollator


CHUNK_ROWS = 1000


@torch.no_grad()
def standardize_front_ends(model: PreTrainedModel, rows: Dataset, collator: UtteranceCollator) -> None:
    """
    Fold the mean and standard deviation of each audio and video feature over the training rows into the weights of the
    first linear layer: W (x - mean) / std + b.

    The architecture is unchanged; training starts as with standardised features, so that features of small variance
    are not dominated by others. Models that normalise their features (TFN) and outputs of encoders are left unchanged.
    """
    for modality, column in collator.modality_columns.items():
        if modality == "text" or column == SOUND or (parameters := _first_linear(model, modality)) is None:
            continue
        weight, bias = parameters
        mean, std = feature_statistics(rows, column)
        weight.div_(torch.from_numpy(std).to(weight))
        bias.sub_(weight @ torch.from_numpy(mean).to(weight))


def _first_linear(model: PreTrainedModel, modality: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return weight (D_out, D) and bias of the first linear layer; `None` for models that normalise their features."""
    model = model.base_model
    if hasattr(model, "front_ends"):  # UMONS, Multilogue-Net
        return model.front_ends[modality].weight, model.front_ends[modality].bias
    if hasattr(model, "lstms"):  # MFN, Graph-MFN
        cell = model.lstms.cells[model.config.modalities.index(modality)]
        return cell.weight_ih, cell.bias_ih
    return None


def feature_statistics(rows: Dataset, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean and standard deviation (D,), float64, over all frames of a column; 1 for constant features."""
    table, count = ArrowRows(rows.select_columns(column)), 0
    total = squares = np.zeros(rows.features[column].feature.length)
    for start in range(0, len(rows), CHUNK_ROWS):
        for chunk in table[start : start + CHUNK_ROWS][column].chunks:
            frames = pa.ListArray.flatten(chunk).flatten().to_numpy().reshape(-1, len(total)).astype(np.float64)
            count, total, squares = count + len(frames), total + frames.sum(axis=0), squares + (frames**2).sum(axis=0)
    mean = total / max(count, 1)
    std = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0))
    return mean, np.where(std > 1e-6, std, 1.0)
