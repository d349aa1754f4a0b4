"""Training rows from a stream: data sets that are read while a model is trained, and are never on the disk."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, IterableDataset, load_dataset_builder

from .collator import UtteranceCollator
from .conversations import ConversationCollator
from .schema import SPLIT_NAMES


CHUNK = 256  # rows that are read at once
POSITION = "stream_position"  # key of batches


class Position(NamedTuple):
    """Place where a part of a stream continues: after `batch` batches of the window of rows that starts at `row`."""

    epoch: int = 0
    file: int = 0  # in the order of the epoch
    chunk: int = 0  # of the file
    row: int = 0  # of the usable rows of the chunk
    batch: int = 0
    num_batches: int = 0  # of all windows until here


class RowStream(torch.utils.data.IterableDataset):
    """
    Endless stream of batches of usable rows for `DataLoader(stream, batch_size=None, collate_fn=stream.collate)`. A
    pass has each row once.

    Each pass shuffles the files of the data set, and the rows in windows of `buffer_size`. Processes and their workers
    share the files, or, if these are fewer, the rows. The order depends only on the seed and the number of processes
    and workers.

    `state_dict` is the position after the last recorded batch. A stream that loads it yields an empty batch for each
    earlier one, because `Trainer` skips as many, and then the batches that would have followed. It reads again only
    the current file, up to the current window. (The state of `datasets` itself loses the rows of its shuffle buffer.)

    Args:
        rows: a data set that `datasets` streams.
        collator: selects the usable rows and their columns, and converts batches to tensors.
        batch_size: rows of a batch.
        seed: of the order.
        buffer_size: rows that are shuffled at a time; windows end with a chunk of 256 rows or a pass.
        process_index, num_processes: this process, of those that train together.
        num_workers: of the `DataLoader`.

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
        num_workers: int = 0,
    ):
        if isinstance(collator, ConversationCollator):
            raise ValueError("--streaming does not support models of conversations; remove it.")
        if missing := sorted(set(collator.columns) - set(rows.column_names or collator.columns)):
            raise ValueError(
                f"--streaming requires the columns {', '.join(missing)}: extract features first (`umons extract`)."
            )
        self.rows = rows.select_columns(list(collator.columns)).with_format("arrow")
        self.collator, self.batch_size, self.seed, self.buffer_size = collator, batch_size, seed, buffer_size
        self.process_index, self.num_processes, self.num_workers = process_index, num_processes, num_workers
        self.positions: dict[int, Position] = {}  # by part

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch that was recorded, for JSON."""
        return {**self._options(), "positions": {str(part): list(place) for part, place in self.positions.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a position. Raises ValueError if it is of a stream of another order."""
        for name, value in self._options().items():
            if state[name] != value:
                raise ValueError(
                    f"The stream of the checkpoint was read with --{name} {state[name]}, not {value}: resume with "
                    f"--{name} {state[name]}."
                )
        self.positions = {int(part): Position(*place) for part, place in state["positions"].items()}

    def _options(self) -> dict[str, int]:
        """Return the options on which the order depends."""
        return {
            "num_processes": self.num_processes,
            "dataloader_num_workers": self.num_workers,
            "per_device_train_batch_size": self.batch_size,
            "streaming_buffer": self.buffer_size,
            "seed": self.seed,
        }

    def record(self, batch: dict[str, Any]) -> None:
        """Remove the position from a batch, and make it that of the stream."""
        part, *place = batch.pop(POSITION)
        self.positions[part] = Position(*place)

    def collate(self, item: tuple[tuple[int, ...], pa.Table] | None) -> dict[str, Any]:
        """Convert rows to a batch with their position; skipped batches are empty."""
        return {} if item is None else {**self.collator(item[1]), POSITION: item[0]}

    def __iter__(self) -> Iterator[tuple[tuple[int, ...], pa.Table] | None]:
        worker = torch.utils.data.get_worker_info()
        num_workers, worker_id = (worker.num_workers, worker.id) if worker else (1, 0)
        part, num_parts = self.process_index * num_workers + worker_id, self.num_processes * num_workers
        place, size = self.positions.get(part, Position()), self.batch_size
        yield from itertools.repeat(None, place.num_batches)
        first, num_batches = place.batch, place.num_batches
        for start, window in self._read_windows(place, part, num_parts):
            for batch in range(first, len(window) // size):
                num_batches += 1
                place = start._replace(batch=batch + 1, num_batches=num_batches)
                yield (part, *place), window.slice(batch * size, size)
            first = 0

    def _read_windows(self, start: Position, part: int, num_parts: int) -> Iterator[tuple[Position, pa.Table]]:
        """
        Read shuffled windows of whole batches, with their first positions. Rows of an incomplete batch are in the next
        window, first if that is in the next pass.
        """
        pending: list[tuple[Position, pa.Table]] = []
        num_old = 0  # pending rows of the last pass
        for place, table in self._read_chunks(start, part, num_parts):
            if len(table):
                pending.append((place, table))
            num_rows = sum(len(table) for _, table in pending)
            is_end = place.chunk < 0
            if num_rows >= self.buffer_size or is_end:
                num_used = num_rows // self.batch_size * self.batch_size
                if num_used:
                    first = pending[0][0]
                    random = np.random.default_rng((self.seed, part, *first[:4]))
                    window = _shuffle_rows(pending, num_used, num_old, random)
                    pending = _drop_rows(pending, num_used)  # before the window is used, to free memory
                    yield first, window
                if is_end or num_used:
                    num_old = num_rows - num_used if is_end else 0

    def _read_chunks(self, start: Position, part: int, num_parts: int) -> Iterator[tuple[Position, pa.Table]]:
        """
        Read the usable rows of this part chunk by chunk, from a position on. A pass reads the files in random order
        and ends with an empty table of chunk -1. Raises ValueError without rows.
        """
        num_files = self.rows.num_shards
        shares_files = num_files >= num_parts
        files = np.arange(part, num_files, num_parts) if shares_files else np.arange(num_files)
        for epoch in itertools.count(start.epoch):
            order = np.random.default_rng((self.seed, part, epoch)).permutation(files).tolist()
            num_rows = 0
            for number in range(start.file, len(order)):
                place = order[number]  # the order of the files is not that of the other parts
                for chunk, table in enumerate(self.rows.shard(num_files, order[number]).iter(batch_size=CHUNK)):
                    is_mine = np.ones(len(table), dtype=bool)
                    if not shares_files:
                        is_mine = (place + np.arange(len(table))) % num_parts == part
                    place += len(table)
                    if chunk < start.chunk:
                        continue
                    usable = np.flatnonzero(self.collator.usable_rows(table.select) & is_mine)[start.row :]
                    num_rows += len(usable)
                    is_whole = len(usable) == len(table)  # then no copy
                    yield Position(epoch, number, chunk, start.row), table if is_whole else table.take(usable)
                    start = Position()
                start = Position()
            if not num_rows:
                raise ValueError(
                    f"The stream has no usable row for process part {part} of {num_parts}: train with fewer processes "
                    "or workers (--dataloader_num_workers)."
                )
            yield Position(epoch, chunk=-1), table.slice(0, 0)


def _shuffle_rows(
    tables: list[tuple[Position, pa.Table]], num_rows: int, num_first: int, random: np.random.Generator
) -> pa.Table:
    """Shuffle the first rows of tables with positions: the first `num_first` of them, then the others."""
    rows = pa.concat_tables([table for _, table in tables]).slice(0, num_rows).combine_chunks()
    order = [random.permutation(num_first), num_first + random.permutation(num_rows - num_first)]
    return rows.take(np.concatenate(order))


def _drop_rows(tables: list[tuple[Position, pa.Table]], num_rows: int) -> list[tuple[Position, pa.Table]]:
    """Remove the first rows of consecutive tables with positions."""
    rest = []
    for place, table in tables:
        num_dropped = min(num_rows, len(table))
        num_rows -= num_dropped
        if num_dropped < len(table):
            rest.append((place._replace(row=place.row + num_dropped), table.slice(num_dropped)))
    return rest


def open_stream(
    source: str | Path, config_name: str | None, columns: Collection[str] | None = None
) -> Mapping[str, IterableDataset]:
    """
    Open the splits of a folder or Hub repository, by their names in `SPLITS`, without downloading it. Other `columns`
    of Parquet files are not read; the default reads all.
    """
    builder = load_dataset_builder(str(source), config_name)
    if columns is not None and hasattr(builder.config, "columns"):
        builder.config.columns = list(columns)
    splits = builder.as_streaming_dataset()
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
