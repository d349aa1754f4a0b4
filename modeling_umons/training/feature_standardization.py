"""A start for the first linear map of sound and video that sees every feature on the same scale."""

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from ..data.collator import SOUND, ArrowRows, UtteranceCollator


ROWS = 1000  # read at a time


@torch.no_grad()
def standardize_front_ends(model: PreTrainedModel, rows: Dataset, collator: UtteranceCollator) -> None:
    """
    Folds the mean and the standard deviation of each audio and video feature over the training rows into the weights of
    the linear map that reads them: W (x - mean) / std + b. The model stays what it was; it starts where standardised
    features would have had it start. Bins that hardly change, and how they change, would else be drowned by loud ones.
    A model that normalises its features itself (TFN) is left alone, and so is what an encoder makes of sound.
    """
    for modality, column in collator.modality_columns.items():
        if modality == "text" or column == SOUND or (parameters := _first_map(model, modality)) is None:
            continue
        weight, bias = parameters
        mean, std = feature_statistics(rows, column)
        weight.div_(torch.from_numpy(std).to(weight))
        bias.sub_(weight @ torch.from_numpy(mean).to(weight))


def _first_map(model: PreTrainedModel, modality: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Weight (D_out, D) and bias of what reads the features first; `None` where they are normalised there."""
    model = model.base_model
    if hasattr(model, "front_ends"):  # UMONS, Multilogue-Net
        return model.front_ends[modality].weight, model.front_ends[modality].bias
    if hasattr(model, "lstms"):  # MFN, Graph-MFN
        cell = model.lstms.cells[model.config.modalities.index(modality)]
        return cell.weight_ih, cell.bias_ih
    return None


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
