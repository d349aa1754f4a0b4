"""Predictions of a model for the rows of a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from ..data.collator import ArrowRows, UtteranceCollator
from ..data.conversations import ConversationCollator, ConversationRows, rows_for
from ..data.sampling import order_by_length
from ..data.sharding import Engine, Failure, plan_parts, refuse_launcher, write_shards
from .loading import load_model


if TYPE_CHECKING:
    from datasets import Dataset


ROWS_PER_PART = 1024


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


class LogitPredictor:
    """
    Predictor of the logits of the rows of a shard.

    Args:
        name: folder or Hub id of the model.
        dataset, collator, batch_size: as in [`predict_logits`].
        number: number of this worker on its machine, which selects the GPU.
    """

    def __init__(self, name: str, dataset: Dataset, collator: UtteranceCollator, batch_size: int, number: int = 0):
        self.dataset, self.collator, self.batch_size = dataset, collator, batch_size
        num_gpus = torch.cuda.device_count()
        self.model = load_model(name)[0].to(f"cuda:{number % num_gpus}" if num_gpus else "cpu")

    def __call__(self, rows: Sequence[int], on_rows: Callable[[int], Any]) -> tuple[pa.Table, list[Failure]]:
        """Return the table of the logits of rows; no row fails."""
        logits = predict_logits(self.model, self.dataset.select(rows), self.collator, self.batch_size)
        on_rows(len(rows))
        return pa.table({"logits": list(logits)}), []


def predict_logits_in_parts(
    name: str, dataset: Dataset, collator: UtteranceCollator, batch_size: int, engine: Engine, folder: Path
) -> np.ndarray:
    """
    Compute the logits of all rows of a data set in several processes, or on a Ray cluster.

    Args:
        name: folder or Hub id of the model.
        dataset, collator, batch_size: as in [`predict_logits`].
        engine: processes that compute.
        folder: folder for the parts, which all machines share; they are removed.

    Returns:
        (rows, num_labels) float32, in the order of the data set.

    Raises:
        ValueError: the model is one of conversations, which are longer than a part, or a launcher has started several
            processes.
    """
    refuse_launcher("Evaluation with --num_proc")
    if isinstance(collator, ConversationCollator):
        raise ValueError(f"{name} is a model of conversations: leave out --num_proc and --engine.")
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".logits-", dir=folder) as work:
        parts = plan_parts(len(dataset), ROWS_PER_PART)
        build = partial(LogitPredictor, name, dataset, collator, batch_size)
        write_shards(build, parts, Path(work), engine, label=Path(name).name)
        logits = [pq.read_table(Path(work, part.name))["logits"].to_pylist() for part in parts]
    return np.concatenate([np.array(rows, np.float32) for rows in logits])


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
