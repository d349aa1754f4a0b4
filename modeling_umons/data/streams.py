"""Training rows from a stream: data sets that are read while a model is trained, and are never on the disk."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, IterableDataset, load_dataset

from .collator import UtteranceCollator
from .conversations import ConversationCollator
from .schema import SPLIT_NAMES


logger = logging.getLogger(__name__)

CHUNK = 256  # rows that are read at once


class RowStream(torch.utils.data.IterableDataset):
    """
    Endless stream of batches of usable rows, `pa.Table`s, for `DataLoader(stream, batch_size=None,
    collate_fn=collator)`. A pass has each row once.

    Each pass shuffles the files of the data set, and the rows in windows of `buffer_size`. Processes and their workers
    share the files, or, if these are fewer, the rows. The order depends only on the seed and the number of processes
    and workers, so that a resumed run reads the same rows.

    Args:
        rows: a data set that `datasets` streams.
        collator: selects the usable rows and their columns.
        batch_size: rows of a batch.
        seed: of the order.
        buffer_size: rows that are shuffled at a time; windows end with a chunk of 256 rows or a file.
        process_index, num_processes: this process, of those that train together.

    Raises:
        ValueError: the model is one of conversations, or a column of its inputs is missing.
    """

    def __init__(
        self,
        rows: IterableDataset,
        collator: UtteranceCollator,
        batch_size: int,
        seed: int,
        buffer_size: int,
        process_index: int = 0,
        num_processes: int = 1,
    ):
        if isinstance(collator, ConversationCollator):
            raise ValueError("--streaming does not support models of conversations; remove it.")
        if missing := sorted(set(collator.columns) - set(rows.column_names or collator.columns)):
            raise ValueError(
                f"--streaming requires the columns {', '.join(missing)}: extract features first (`umons extract`)."
            )
        self.rows = rows.select_columns(list(collator.columns)).with_format("arrow")
        self.collator, self.batch_size, self.seed, self.buffer_size = collator, batch_size, seed, buffer_size
        self.process_index, self.num_processes = process_index, num_processes

    def __iter__(self) -> Iterator[pa.Table]:
        worker = torch.utils.data.get_worker_info()
        num_workers, worker_id = (worker.num_workers, worker.id) if worker else (1, 0)
        part, num_parts = self.process_index * num_workers + worker_id, self.num_processes * num_workers
        random, size = np.random.default_rng((self.seed, part)), self.batch_size
        rest: list[pa.Table] = []
        while True:
            for window in self._read_pass(random, part, num_parts):
                rows = pa.concat_tables([*rest, window.take(random.permutation(len(window)))])
                stop = len(rows) // size * size
                yield from (rows.slice(start, size) for start in range(0, stop, size))
                rest = [rows.slice(stop)]

    def _read_pass(self, random: np.random.Generator, part: int, num_parts: int) -> Iterator[pa.Table]:
        """Read the rows of this part once, window by window, files in random order. Raises ValueError without rows."""
        num_files = self.rows.num_shards
        shares_files = num_files >= num_parts
        files = np.arange(part, num_files, num_parts) if shares_files else np.arange(num_files)
        window: list[pa.Table] = []
        num_rows = num_read = 0
        for file in random.permutation(files).tolist():
            place = file  # the order of the files is not that of the other parts
            for table in self.rows.shard(num_files, file).iter(batch_size=CHUNK):
                is_mine = np.ones(len(table), dtype=bool)
                if not shares_files:
                    is_mine = (place + np.arange(len(table))) % num_parts == part
                place += len(table)
                usable = np.flatnonzero(self.collator.usable_rows(table.select) & is_mine)
                window.append(table.take(usable))
                num_rows, num_read = num_rows + len(usable), num_read + len(usable)
                if num_rows >= self.buffer_size:
                    yield pa.concat_tables(window).combine_chunks()
                    window, num_rows = [], 0
        if num_rows:
            yield pa.concat_tables(window).combine_chunks()
        if not num_read:
            raise ValueError(
                f"The stream has no usable row for process part {part} of {num_parts}: train with fewer processes or "
                "workers (--dataloader_num_workers)."
            )


def open_stream(source: str | Path, config_name: str | None) -> Mapping[str, IterableDataset]:
    """Open the splits of a folder or Hub repository, by their names in `SPLITS`, without downloading it."""
    splits = load_dataset(str(source), config_name, streaming=True)
    return {SPLIT_NAMES.get(name.lower(), name): rows for name, rows in splits.items()}


def read_heads(splits: Mapping[str, IterableDataset], num_train: int) -> dict[str, Dataset]:
    """Read the first `num_train` rows of the training split, and all rows of the others, into memory."""
    heads = {}
    for name, rows in splits.items():
        rows = rows.take(num_train) if name == "train" else rows
        tables = list(rows.with_format("arrow").iter(batch_size=CHUNK))
        if not tables:
            continue
        table = pa.concat_tables(tables)
        heads[name] = Dataset(table if rows.features is None else table.cast(rows.features.arrow_schema))
    return heads
