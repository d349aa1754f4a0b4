"""Initialisation of the first linear layer for standardised audio and video features."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from ..data.collator import SOUND, ArrowRows, UtteranceCollator
from .encoders import encoders_of


CHUNK_ROWS = 1000
WAVEFORMS = 64  # transformed at once


@torch.no_grad()
def standardize_front_ends(model: PreTrainedModel, rows: Dataset, collator: UtteranceCollator) -> None:
    """
    Fold the mean and standard deviation of each audio and video feature over the training rows into the weights of the
    first linear layer: W (x - mean) / std + b.

    The architecture is unchanged; training starts as with standardised features, so that features of small variance
    are not dominated by others. Models that normalise their features (TFN) and outputs of encoders are left unchanged.
    """
    for modality, column in collator.modality_columns.items():
        is_encoded = column == SOUND and "audio" in encoders_of(model)
        if modality == "text" or is_encoded or (parameters := _first_linear(model, modality)) is None:
            continue
        weight, bias = parameters
        mean, std = feature_statistics(rows, column, collator)
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


def feature_statistics(rows: Dataset, column: str, collator: UtteranceCollator) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean and standard deviation (D,), float64, over all frames of a column; 1 for constant features."""
    count, total, squares = 0, 0.0, 0.0
    for frames in _read_frames(rows, column, collator):
        count, total, squares = count + len(frames), total + frames.sum(axis=0), squares + (frames**2).sum(axis=0)
    mean = total / max(count, 1)
    std = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0))
    return mean, np.where(std > 1e-6, std, 1.0)


def _read_frames(rows: Dataset, column: str, collator: UtteranceCollator) -> Iterator[np.ndarray]:
    """Yield the frames (N, D), float64, of a column of features, or of the features of a column of waveforms."""
    table = ArrowRows(rows.select_columns(column))
    num_rows = WAVEFORMS if column == SOUND else CHUNK_ROWS
    for start in range(0, len(rows), num_rows):
        values = table[start : start + num_rows][column]
        if column == SOUND:
            batch = collator.prepare_sound(values)
            yield batch["input_features"][batch["input_features_mask"].bool()].double().numpy()
            continue
        size = rows.features[column].feature.length
        for chunk in values.chunks:
            yield pa.ListArray.flatten(chunk).flatten().to_numpy().reshape(-1, size).astype(np.float64)
