# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Predictions of a model for the rows of a data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from ..data.collator import ArrowRows, UtteranceCollator
from ..data.conversations import ConversationRows, rows_for
from ..data.sampling import order_by_length


if TYPE_CHECKING:
    from datasets import Dataset


def predict_logits(
    model: torch.nn.Module, dataset: Dataset, collator: UtteranceCollator, batch_size: int, description: str = ""
) -> np.ndarray:
    """
    Compute the logits of all rows of a data set.

    Args:
        model: on its device, in evaluation mode.
        dataset: usable rows (see `rows.usable_rows`).
        collator: makes batches for this model, of rows or of conversations.
        batch_size: rows, or conversations, of a batch.
        description: label of the progress bar.

    Returns:
        (rows, num_labels) float32, in the order of the data set.
    """

    @torch.inference_mode()
    def predict(rows: ArrowRows | ConversationRows) -> np.ndarray:
        logits = []
        for batch in tqdm(
            torch.utils.data.DataLoader(rows, batch_size, collate_fn=collator), description, disable=None, leave=False
        ):
            inputs = {name: values.to(model.device) for name, values in batch.items() if name != "labels"}
            logits += model(**inputs).logits.float().cpu()  # one entry a row or conversation
        return torch.nn.utils.rnn.pad_sequence(logits, batch_first=True).numpy()

    return predict_in_row_order(predict, dataset, collator)


def predict_in_row_order(
    predict: Callable[[ArrowRows | ConversationRows], np.ndarray], dataset: Dataset, collator: UtteranceCollator
) -> np.ndarray:
    """
    Call `predict` with the rows sorted by length, or with the conversations; return its logits (rows, num_labels) in
    the order of the data set.
    """
    order = order_by_length(dataset, collator)
    rows = rows_for(collator, dataset.select(order))
    logits = predict(rows)
    return rows.in_row_order(logits) if isinstance(rows, ConversationRows) else logits[np.argsort(order)]
