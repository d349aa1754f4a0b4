"""Order of training rows: batches of rows of about the same length, and steps of several processes."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset
from torch.utils.data import BatchSampler, Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from .collator import HISTORY, SOUND, ArrowRows, UtteranceCollator
from .conversations import ConversationCollator


# Maximum batches of a stretch; an epoch has at least four stretches.
STRETCH = 200
CHARACTERS_PER_TOKEN = 4
FRAMES_TOGETHER = 6


class LengthGroups(Sampler[int]):
    """
    Sampler of batches with little padding: a batch has rows of about the same length, which are redrawn in each epoch.
    Each epoch is cut at random into four or more stretches, and rows of similar length in a stretch form a batch.
    Batches are in random order; one that is not full is the last. (`LengthGroupedSampler` of transformers repeats an
    order from long to short rows, so that training ends on short ones.)

    Args:
        batch_size: rows of a batch, accumulated ones included.
        lengths: of the rows.
        seed: the order depends only on it and the epoch, so that a run resumed within an epoch has the same order.
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


class EvenBatches(BatchSampler):
    """
    Batch sampler of several processes, `num_processes` batches a step, each row once in an epoch. (accelerate repeats
    rows in the last step, which then count twice.) The rows of the last step are divided evenly. If they are fewer
    than the processes, they join the step before.

    Args:
        sampler: order of the rows.
        batch_size: rows of a batch.
        num_processes: processes that train together.

    Raises:
        ValueError: there are fewer rows than processes.
    """

    def __init__(self, sampler: Sampler[int], batch_size: int, num_processes: int):
        super().__init__(sampler, batch_size, drop_last=False)
        self.num_processes = num_processes
        if len(sampler) < num_processes:
            raise ValueError(
                f"{num_processes} processes cannot share {len(sampler)} training rows: launch fewer processes."
            )

    def _count_steps(self) -> int:
        full, rest = divmod(len(self.sampler), self.batch_size * self.num_processes)
        return full + (rest >= self.num_processes or not full)

    def __len__(self) -> int:
        return self._count_steps() * self.num_processes

    def __iter__(self) -> Iterator[list[int]]:
        rows, num_steps = np.array(list(self.sampler)), self._count_steps()
        size = self.batch_size * self.num_processes
        for step in range(num_steps):
            stop = (step + 1) * size if step < num_steps - 1 else len(rows)
            for batch in np.array_split(rows[step * size : stop], self.num_processes):
                yield batch.tolist()


def row_lengths(
    rows: ArrowRows, columns: Mapping[str, str], max_lengths: Mapping[str, int] | None = None
) -> list[int]:
    """
    Return a number for each row by which rows are sorted by length (see [`combine_lengths`]). Only the offsets of
    features are read, so that a data set stays on disk.

    Args:
        rows: of a data set.
        columns: by modality, those of a collator. A token of text counts as `CHARACTERS_PER_TOKEN` characters.
        max_lengths: by modality, where a collator cuts. Waveforms count all samples.
    """
    dataset, lengths = rows.dataset, []
    for modality, name in columns.items():
        column = dataset.data.column(name)
        if modality == "text" and not _is_list(column.type):
            steps = pc.divide(pc.utf8_length(column), CHARACTERS_PER_TOKEN)
        elif _is_list(column.type):
            steps = pc.list_value_length(column)
        else:  # only nulls
            steps = pa.chunked_array([pa.nulls(len(column), pa.int32())])
        steps = pc.fill_null(steps, 0).to_numpy().astype(np.int64)
        limit = None if name == SOUND else (max_lengths or {}).get(modality)
        steps = steps.clip(max=limit)
        if modality == "text" and HISTORY in dataset.column_names:
            steps += _count_characters(dataset.data.column(HISTORY)) // CHARACTERS_PER_TOKEN
        if dataset._indices is not None:  # a selection of the rows of `data`
            steps = steps[dataset._indices.column(0).to_numpy()]
        lengths.append(steps)
    return combine_lengths(lengths).tolist()


def order_by_length(rows: Dataset, collator: UtteranceCollator) -> np.ndarray:
    """
    Return the numbers of the rows, the longest first, so that batches pad little and the one with the most memory is
    the first. Conversations have an order of their own, and keep that of the rows.
    """
    if isinstance(collator, ConversationCollator):
        return np.arange(len(rows))
    lengths = row_lengths(ArrowRows(rows), collator.modality_columns, collator.max_lengths)
    return np.argsort(lengths, kind="stable")[::-1]


def combine_lengths(lengths: Sequence[np.ndarray]) -> np.ndarray:
    """
    Combine lengths (rows,) by modality to one number for each row, (rows,), so that sorted rows are next to similar
    ones: first by the sum of all but the first modality in steps of `FRAMES_TOGETHER`, then by the first. Batches pad
    less than with the sum of all.
    """
    first, *others = lengths
    if not others:
        return first
    return np.sum(others, axis=0) // FRAMES_TOGETHER * (1 + first.max(initial=0)) + first


def _count_characters(history: pa.ChunkedArray) -> np.ndarray:
    """Return the number of characters of the previous utterances of each row, (rows,)."""
    utterances = history.combine_chunks()
    counts = pc.fill_null(pc.utf8_length(utterances.flatten().field("text")), 0)
    return np.bincount(pc.list_parent_indices(utterances), counts, len(history)).astype(np.int64)


def _is_list(type: pa.DataType) -> bool:
    return pa.types.is_list(type) or pa.types.is_large_list(type)
