"""The order of rows in training where those of about the same length make up a batch."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from .collator import SOUND, ArrowRows, UtteranceCollator
from .conversations import ConversationCollator


# An epoch is cut into four stretches of rows at least, and no stretch is of more batches than this.
STRETCH = 200
CHARACTERS_PER_TOKEN = 4
FRAMES_TOGETHER = 6


class LengthGroups(Sampler[int]):
    """
    Little of a batch is padding: it is of rows of about the same length, which are drawn anew in each epoch. Batches come
    in any order; one that is not full is the last. How random that is: an epoch is cut at random into four stretches or
    more, and a row meets those of its stretch that are about as long. (`LengthGroupedSampler` has the long rows first and
    the short ones last, over and over, and what a model then learns last is that of the short ones.)

    Args:
        batch_size: rows of a batch, accumulated ones included.
        lengths: of the rows.
        seed: the order is drawn from it and the epoch alone, so that a run that goes on within an epoch sees the same.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int):
        self.batch_size, self.lengths, self.seed, self.epoch = batch_size, lengths, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        stretch = max(1, min(STRETCH, len(self.lengths) // (4 * self.batch_size)))
        rows = get_length_grouped_indices(self.lengths, self.batch_size, stretch, generator=generator)
        batches = [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]
        num_full = len(rows) // self.batch_size
        for batch in [*torch.randperm(num_full, generator=generator).tolist(), *range(num_full, len(batches))]:
            yield from batches[batch]


def row_lengths(
    rows: ArrowRows, columns: Mapping[str, str], max_lengths: Mapping[str, int] | None = None
) -> list[int]:
    """
    How long each row is, as a number to sort by (see [`combine_lengths`]). Of features only the offsets are read: a data
    set on disk stays there.

    Args:
        rows: of a data set.
        columns: by modality, as a collator has them. Of text, a token is taken for `CHARACTERS_PER_TOKEN` characters.
        max_lengths: by modality, where a collator cuts; of sound itself, samples are counted, and all of them.
    """
    dataset, lengths = rows.dataset, []
    for modality, name in columns.items():
        column = dataset.data.column(name)
        if modality == "text" and not _is_list(column.type):
            steps = pc.divide(pc.utf8_length(column), CHARACTERS_PER_TOKEN)
        elif _is_list(column.type):
            steps = pc.list_value_length(column)
        else:  # of nothing but null
            steps = pa.chunked_array([pa.nulls(len(column), pa.int32())])
        steps = pc.fill_null(steps, 0).to_numpy().astype(np.int64)
        if dataset._indices is not None:  # a choice of the rows that `data` holds
            steps = steps[dataset._indices.column(0).to_numpy()]
        limit = None if name == SOUND else (max_lengths or {}).get(modality)
        lengths.append(steps.clip(max=limit))
    return combine_lengths(lengths).tolist()


def order_by_length(rows: Dataset, collator: UtteranceCollator) -> np.ndarray:
    """
    Numbers of the rows, the longest first, so that batches in this order pad little and what takes most memory comes at
    once. The order of the rows themselves where they are to be conversations, which have their own.
    """
    if isinstance(collator, ConversationCollator):
        return np.arange(len(rows))
    lengths = row_lengths(ArrowRows(rows), collator.modality_columns, collator.max_lengths)
    return np.argsort(lengths, kind="stable")[::-1]


def combine_lengths(lengths: Sequence[np.ndarray]) -> np.ndarray:
    """
    By modality (rows,), to one number of each row, (rows,): rows sorted by it lie beside others like them. That is the sum
    of all but the first in steps of `FRAMES_TOGETHER`, then the first: batches pad less than by the sum of all.
    """
    first, *others = lengths
    if not others:
        return first
    return np.sum(others, axis=0) // FRAMES_TOGETHER * (1 + first.max(initial=0)) + first


def _is_list(type: pa.DataType) -> bool:
    return pa.types.is_list(type) or pa.types.is_large_list(type)
