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
    Endless stream of the usable rows of a data set, each a `pa.Table`, for a `DataLoader` with `collate`. A pass has
    each row once.

    Each pass shuffles the files of the data set, and the rows by a buffer. Processes and their workers share the
    files, or, if these are fewer, the rows. The order depends only on the seed and the number of processes and
    workers, so that a resumed run reads the same rows.

    Args:
        rows: a data set that `datasets` streams.
        collator: selects the usable rows and their columns.
        seed: of the order.
        buffer_size: rows of the buffer.
        process_index, num_processes: this process, of those that train together.

    Raises:
        ValueError: the model is one of conversations, or a column of its inputs is missing.
    """

    def __init__(
        self,
        rows: IterableDataset,
        collator: UtteranceCollator,
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
        self.collator, self.seed, self.buffer_size = collator, seed, buffer_size
        self.process_index, self.num_processes = process_index, num_processes

    def __iter__(self) -> Iterator[pa.Table]:
        worker = torch.utils.data.get_worker_info()
        num_workers, worker_id = (worker.num_workers, worker.id) if worker else (1, 0)
        part, num_parts = self.process_index * num_workers + worker_id, self.num_processes * num_workers
        random = np.random.default_rng((self.seed, part))
        while True:
            buffer: list[pa.Table] = []
            for row in self._read_pass(random, part, num_parts):
                if len(buffer) < self.buffer_size:
                    buffer.append(row)
                    continue
                slot = random.integers(self.buffer_size)
                buffer[slot], row = row, buffer[slot]
                yield row
            random.shuffle(buffer)
            yield from buffer

    def collate(self, rows: list[pa.Table]) -> dict[str, torch.Tensor]:
        return self.collator(pa.concat_tables(rows))

    def _read_pass(self, random: np.random.Generator, part: int, num_parts: int) -> Iterator[pa.Table]:
        """Read the rows of this part once, in files of random order. Raises ValueError if there are none."""
        num_files = self.rows.num_shards
        shares_files = num_files >= num_parts
        files = np.arange(part, num_files, num_parts) if shares_files else np.arange(num_files)
        num_usable = 0
        for file in random.permutation(files).tolist():
            place = file  # the order of the files is not that of the other parts
            for table in self.rows.shard(num_files, file).iter(batch_size=CHUNK):
                is_mine = np.ones(len(table), dtype=bool)
                if not shares_files:
                    is_mine = (place + np.arange(len(table))) % num_parts == part
                place += len(table)
                is_usable = self.collator.usable_rows(table.select) & is_mine
                num_usable += int(is_usable.sum())
                for row in np.flatnonzero(is_usable).tolist():
                    yield table.take([row])  # a copy: a view would keep the whole chunk in memory
        if not num_usable:
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
