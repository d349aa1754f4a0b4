# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Batches of a data set that is larger than memory: from Parquet files, shuffled, resumable, shared among processes."""

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch


# What a value takes in memory, whatever it takes in the file, where a few bytes may stand for a million equal values.
VALUE_BYTES = {"INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 4}

# Of a way to read some columns, which of the rows are of use. (num_rows,) bool.
UsableRows = Callable[[Callable[[list[str]], pa.Table]], np.ndarray]


class RowGroup(NamedTuple):
    file: str
    index: int  # in the file
    usable: np.ndarray | None  # the rows of it that are given; None for all
    size: int  # how many they are


class ParquetStream(torch.utils.data.IterableDataset):
    """
    Batches of rows from Parquet files, as `pa.Table`s for [`UtteranceCollator`]:
    `DataLoader(ParquetStream(files, columns=collator.columns), batch_size=None, collate_fn=collator)`.

    Order. Row groups, those of all files, are permuted; as many as have `window_rows` rows together (one at least) are
    read at once, and their rows permuted. Everything follows from `seed` and the epoch, which goes up by one at the end
    of a pass. Two windows are in memory at most.

    Processes. Of N rows in that order each of W processes gets ceil(N / W) in a row, one after another; the last ones go
    on with the first rows again, `num_repeated` (below W) in all. So every process gives the same number of batches,
    `len(stream)`, all full but the last, and the last is of one size everywhere.

    Resuming. `state_dict()` is what epoch it is and how many batches were given. After `load_state_dict` the next pass
    goes on with the batch that comes then; windows that were passed are not read. `DataLoader` adds nothing to it, but
    what reads ahead (`accelerate.prepare` does, by one batch) has got more than it has given.

    Args:
        files: paths (or one path) or URLs that `fsspec` opens, such as hf://.
        batch_size: rows of a batch, in each process.
        columns: those to read; all of the first file's by default.
        usable: tells the rows that can be used; the others are passed over. `UtteranceCollator.usable_rows` is one. It is
            asked once for each row group, at the start, and reads only the columns that it needs.
        shuffle: `False` gives the rows in the order of the files.
        seed: of the shuffling.
        window_rows: how many rows are shuffled at a time.
        rank, world_size: which process this is, of how many; by default as `torch.distributed`, `torchrun` or
            `accelerate launch` have it.
        max_row_group_bytes, max_row_group_rows: larger row groups are refused.

    Raises:
        OSError: a file is missing or damaged.
        ValueError: a file has other columns or types than the first one, or a row group is too large by what the file
            says of it, which is looked at before it is read (of texts that the file has once for many rows, when the
            row group is due); no row is usable.
    """

    def __init__(
        self,
        files: str | os.PathLike | Sequence[str | os.PathLike],
        batch_size: int = 32,
        *,
        columns: Sequence[str] | None = None,
        usable: UsableRows | None = None,
        shuffle: bool = True,
        seed: int = 0,
        window_rows: int = 1024,
        rank: int | None = None,
        world_size: int | None = None,
        max_row_group_bytes: int = 2**30,
        max_row_group_rows: int = 2**20,
    ):
        self.rank, self.world_size = find_rank() if rank is None or world_size is None else (rank, world_size)
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"The rank is {self.rank}, expected 0 to {self.world_size - 1} (`world_size` - 1).")
        if batch_size < 1 or window_rows < 1:
            raise ValueError(f"batch_size is {batch_size} and window_rows {window_rows}: each must be at least 1.")
        files = [files] if isinstance(files, (str, os.PathLike)) else files
        if not files or len(set(files)) < len(files):
            raise ValueError(f"The files are {list(files)}: give one at least, and none twice.")
        self.batch_size, self.shuffle, self.seed, self.window_rows = batch_size, shuffle, seed, window_rows

        self._metadata = {os.fspath(file): _read_metadata(os.fspath(file)) for file in files}
        schemas = {file: metadata.schema.to_arrow_schema() for file, metadata in self._metadata.items()}
        self.columns = _check_columns(schemas, columns)
        for file, metadata in self._metadata.items():
            _check_row_groups(file, metadata, self.columns, max_row_group_bytes, max_row_group_rows)
        self._max_bytes, self._measured = max_row_group_bytes, set()
        self._groups = [
            self._row_group(file, index, usable)
            for file, metadata in self._metadata.items()
            for index in range(metadata.num_row_groups)
        ]
        self.num_rows = sum(group.size for group in self._groups)
        if self.num_rows == 0:
            raise ValueError(f"No row of {len(self._metadata)} file(s) can be used; the first is {files[0]}.")
        self._share = math.ceil(self.num_rows / self.world_size)
        self.num_repeated = self._share * self.world_size - self.num_rows
        self._epoch, self._given, self._resumes = 0, 0, False

    @classmethod
    def from_dataset(
        cls,
        path: str,
        name: str | None = None,
        split: str = "train",
        columns: Sequence[str] | None = None,
        **options: Any,
    ) -> "ParquetStream":
        """
        The Parquet files of a data set that `datasets.load_dataset` finds: a folder or a repository of the Hub, its
        configuration `name`, its `split`. `columns` are those of the configuration where nothing else is said, and
        `options` those of the class. Raises ValueError where the data set is of other files or has no such split.
        """
        from datasets import load_dataset_builder

        config = load_dataset_builder(path, name).config
        files = config.data_files or {}
        if split not in files:
            raise ValueError(
                f"{path} has no split {split!r} in the configuration {config.name!r}, only {list(files)}."
            )
        if others := [file for file in files[split] if not file.endswith(".parquet")]:
            raise ValueError(f"{path} is no data set of Parquet files: {others[0]} belongs to the split {split!r}.")
        return cls(files[split], columns=columns or config.columns, **options)

    def __len__(self) -> int:
        """Batches of a whole pass, in each process."""
        return math.ceil(self._share / self.batch_size)

    def set_epoch(self, epoch: int):
        """Which pass the next one is. In the epoch it is in already the stream stays where it is."""
        if epoch != self._epoch:
            self._epoch, self._given, self._resumes = epoch, 0, False

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "batches": self._given, "stream": self._identity()}

    def load_state_dict(self, state: dict[str, Any]):
        """Raises ValueError for the state of a stream that gives other batches, and names what differs."""
        if missing := [name for name in ("epoch", "batches", "stream") if name not in state]:
            raise ValueError(f"The state lacks {missing}: pass what `state_dict` of a stream has returned.")
        identity, other = self._identity(), state["stream"]
        if was := {key: other.get(key) for key in identity if other.get(key) != identity[key]}:
            raise ValueError(
                f"The state is of a stream with {was}, this one has { {key: identity[key] for key in was} }: it can only "
                "go on where everything is as it was."
            )
        self._epoch, self._given, self._resumes = state["epoch"], state["batches"], True

    def _identity(self) -> dict[str, Any]:
        """What decides about the batches, besides the epoch and the rank."""
        names = ("num_rows", "batch_size", "shuffle", "seed", "window_rows", "world_size")
        digest = hashlib.sha256()
        for group in self._groups:
            # Not where the files are: they may be moved.
            digest.update(f"{os.path.basename(group.file)}\0{group.index}\0{group.size}\n".encode())
        return {**{name: getattr(self, name) for name in names}, "files": digest.hexdigest()}

    def __iter__(self) -> Iterator[pa.Table]:
        if torch.utils.data.get_worker_info() is not None:
            raise ValueError("A ParquetStream is read in the process that asks: give the DataLoader num_workers=0.")
        self._given, self._resumes = self._given if self._resumes else 0, False
        return self._batches(self._epoch)

    def _batches(self, epoch: int) -> Iterator[pa.Table]:
        skip = self._given * self.batch_size
        pieces, held = [], 0  # of the next batch
        for i, window in enumerate(self._windows(epoch)):
            order = np.arange(sum(stop - start for _, start, stop in window))
            if skip >= len(order):
                skip -= len(order)
                continue
            if self.shuffle:
                order = np.random.default_rng([self.seed, epoch, self.rank, i]).permutation(order)
            order, skip = order[skip:], 0
            # `take` from one chunk, since from several it would put them together each time.
            rows = pa.concat_tables([self._read(*piece) for piece in window]).combine_chunks()
            for part in np.split(order, range(self.batch_size - held, len(order), self.batch_size)):
                pieces.append(rows.take(part) if self.shuffle else rows.slice(part[0], len(part)))
                held += len(part)
                if held == self.batch_size:
                    self._given += 1
                    yield pa.concat_tables(pieces)
                    pieces, held = [], 0
        if pieces:
            self._given += 1
            yield pa.concat_tables(pieces)
        self._epoch, self._given = epoch + 1, 0

    def _windows(self, epoch: int) -> Iterator[list[tuple[RowGroup, int, int]]]:
        """The (row group, first row, row after the last) of this process, as many as are read at once."""
        order = np.arange(len(self._groups))
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(order)
        first = self.rank * self._share % self.num_rows
        last = first + self._share
        window, size = [], 0
        # After the last row comes the first again.
        for begin in (0, self.num_rows):
            for group in (self._groups[i] for i in order):
                start, stop = max(first - begin, 0), min(last - begin, group.size)
                begin += group.size
                if start >= stop:
                    continue
                if window and size + stop - start > self.window_rows:
                    yield window
                    window, size = [], 0
                window.append((group, start, stop))
                size += stop - start
        yield window

    def _read(self, group: RowGroup, start: int, stop: int) -> pa.Table:
        rows = self._read_columns(group.file, group.index, self.columns)
        return rows.slice(start, stop - start) if group.usable is None else rows.take(group.usable[start:stop])

    def _read_columns(self, file: str, index: int, columns: list[str]) -> pa.Table:
        if unknown := set(columns) - set(self.columns):
            raise ValueError(f"The column(s) {sorted(unknown)} are not among those that are read: {self.columns}.")
        metadata = self._metadata[file]
        try:
            if (file, index, *columns) not in self._measured:
                check_texts(file, metadata, index, columns, self._max_bytes)
                self._measured.add((file, index, *columns))
            with _open(file, metadata=metadata) as parquet:
                rows = parquet.read_row_group(index, columns=columns).select(columns)
        except (OSError, pa.ArrowException) as error:
            raise OSError(f"{file}, row group {index}, is damaged: {error}") from error
        if len(rows) != metadata.row_group(index).num_rows:
            said = metadata.row_group(index).num_rows
            raise OSError(
                f"{file}, row group {index}, is damaged: it has {len(rows)} rows of the {said} it says it has."
            )
        return pa.Table.from_arrays(rows.columns, columns)  # without what a file remarks of its columns

    def _row_group(self, file: str, index: int, usable: UsableRows | None) -> RowGroup:
        size = self._metadata[file].row_group(index).num_rows
        if usable is None or size == 0:
            return RowGroup(file, index, None, size)
        rows = np.flatnonzero(usable(lambda columns: self._read_columns(file, index, columns)))
        return RowGroup(file, index, None if len(rows) == size else rows, len(rows))


def find_rank() -> tuple[int, int]:
    """(rank, world size) of this process, as `torch.distributed` or the launcher's environment has it; else (0, 1)."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def _open(file: str, **options: Any) -> pq.ParquetFile:
    if "://" not in file:
        return pq.ParquetFile(file, **options)
    from fsspec.core import url_to_fs

    filesystem, path = url_to_fs(file)
    return pq.ParquetFile(path, filesystem=filesystem, **options)


def _read_metadata(file: str) -> pq.FileMetaData:
    try:
        with _open(file) as parquet:
            return parquet.metadata
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{file}: there is no such file.") from error
    except (OSError, pa.ArrowException) as error:
        raise OSError(f"{file} cannot be read as Parquet: {error}") from error


def _check_columns(schemas: dict[str, pa.Schema], columns: Sequence[str] | None) -> list[str]:
    """The columns to read, which are in each file and of one type."""
    first, expected = next(iter(schemas.items()))
    columns = list(expected.names if columns is None else columns)
    for file, schema in schemas.items():
        for name in columns:
            if schema.get_field_index(name) < 0:
                raise ValueError(f"{file} has no column {name!r} (or two); its columns are {', '.join(schema.names)}.")
            if schema.field(name).type != expected.field(name).type:
                raise ValueError(
                    f"{file}: the column {name} is of the type {schema.field(name).type}, but of {expected.field(name).type} "
                    f"in {first}."
                )
    return columns


def _check_row_groups(file: str, metadata: pq.FileMetaData, columns: list[str], max_bytes: int, max_rows: int):
    for index in range(metadata.num_row_groups):
        group, size = metadata.row_group(index), stored_bytes(metadata, index, columns)
        if group.num_rows > max_rows or size > max_bytes:
            raise ValueError(
                f"{file}, row group {index}, has {group.num_rows} rows of {size} bytes in all, which is more than the "
                f"{max_rows} rows or {max_bytes} bytes that are read at once: write it in smaller row groups, or pass "
                "`max_row_group_rows` or `max_row_group_bytes`."
            )


def _chunks(
    metadata: pq.FileMetaData, index: int, columns: Sequence[str]
) -> Iterator[tuple[pq.ColumnChunkMetaData, int]]:
    """Of a row group the chunks that belong to `columns`, nested ones too, and what a value of each takes at least."""
    group = metadata.row_group(index)
    for i in range(group.num_columns):
        chunk = group.column(i)
        if any(chunk.path_in_schema == name or chunk.path_in_schema.startswith(f"{name}.") for name in columns):
            length = metadata.schema.column(i).length if chunk.physical_type == "FIXED_LEN_BYTE_ARRAY" else 1
            yield chunk, VALUE_BYTES.get(chunk.physical_type, length)


def stored_bytes(metadata: pq.FileMetaData, index: int, columns: Sequence[str]) -> int:
    """What `columns` of a row group take in memory, but for texts that the file has once for many rows."""
    return sum(max(c.total_uncompressed_size, c.num_values * size) for c, size in _chunks(metadata, index, columns))


def check_texts(file: str, metadata: pq.FileMetaData, index: int, columns: Sequence[str], max_bytes: int) -> int:
    """
    What `columns` of a row group take in memory, where a text that the file has once may stand in many rows; too high
    where it is below `max_bytes` anyway. The texts are read as the file has them to learn it, each once.

    Raises:
        OSError: the row group is damaged; ValueError: it takes more than `max_bytes`.
    """
    size = stored_bytes(metadata, index, columns)
    # No value is longer than all that is stored. That much is enough for most.
    texts = [chunk for chunk, _ in _chunks(metadata, index, columns) if chunk.physical_type == "BYTE_ARRAY"]
    texts = [chunk for chunk in texts if "DELTA_LENGTH_BYTE_ARRAY" not in chunk.encodings]  # has each value in full
    most = size + sum(chunk.num_values * chunk.total_uncompressed_size for chunk in texts)
    if most <= max_bytes:
        return most
    # Values as what they add to the one before can be put into no dictionary: the bound has to do.
    size += sum(c.num_values * c.total_uncompressed_size for c in texts if "DELTA_BYTE_ARRAY" in c.encodings)
    paths = [chunk.path_in_schema for chunk in texts if "DELTA_BYTE_ARRAY" not in chunk.encodings]
    if paths and size <= max_bytes:
        with _open(file, metadata=metadata, read_dictionary=paths) as parquet:
            rows = parquet.read_row_group(index, columns=paths)
        size += sum(_text_bytes(chunk) for column in rows.columns for chunk in column.chunks)
    if size > max_bytes:
        raise ValueError(
            f"{file}, row group {index}, takes {size} bytes or more when its texts are decoded, which is more than the "
            f"{max_bytes} bytes that are read at once: write it in smaller row groups."
        )
    return size


def _text_bytes(array: pa.Array) -> int:
    """What the values of dictionaries take in full, wherever in lists and structs they are."""
    if isinstance(array, pa.DictionaryArray):
        lengths = pc.binary_length(array.dictionary).cast(pa.int64())
        counts = np.bincount(array.indices.drop_null().to_numpy(), minlength=len(lengths))
        return int(np.dot(counts, lengths.fill_null(0).to_numpy()))
    if isinstance(array, pa.MapArray):
        return _text_bytes(array.keys) + _text_bytes(array.items)
    if isinstance(array, pa.StructArray):
        return sum(map(_text_bytes, array.flatten()))
    if isinstance(array, (pa.ListArray, pa.LargeListArray, pa.FixedSizeListArray)):
        return _text_bytes(array.flatten())
    return array.storage.nbytes if isinstance(array, pa.ExtensionArray) else array.nbytes
