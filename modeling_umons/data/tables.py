"""Reader of tables (CSV, TSV, JSON lines, Parquet), shared by clips, layouts and training data."""

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset
from datasets.table import InMemoryTable


TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
INTEGER = re.compile(r"[+-]?\d{1,18}")  # int64 holds every number of 18 digits
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
# Bytes that a value takes in memory. A Parquet file may store a million equal values in a few bytes.
VALUE_BYTES = {"INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 4}


def read_rows(
    path: str | Path,
    columns: Sequence[str] | None = None,
    max_bytes: float = math.inf,
    required: Sequence[str] = (),
) -> Iterator[tuple[str, dict[str, Any]]]:
    """
    Yield the place ("line 3", in Parquet "row 2") and the values of every row of a table. Empty cells are `None`;
    cells of CSV and TSV are text.

    Args:
        columns: columns to read from a Parquet file, those of them that it has; `None` reads all.
        max_bytes: maximum size in memory of the columns of a Parquet file.
        required: columns that the header of CSV and TSV must have.

    Raises:
        FileNotFoundError: there is no such file; ValueError: it is not a table, or a required column is missing. Both
            name the file, and the line if one line
        is at fault.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such table.")
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise ValueError(f"{path}: a table ends in {', '.join(TABLE_SUFFIXES)}.")
    try:
        if path.suffix.lower() == ".parquet":
            rows = read_parquet(path, columns, max_bytes).to_pylist()
            yield from ((f"row {number}", row) for number, row in enumerate(rows))
            return
        with open(path, encoding="utf-8-sig", newline=None if path.suffix.lower() == ".jsonl" else "") as file:
            yield from _read_jsonl(path, file) if path.suffix.lower() == ".jsonl" else _read_csv(path, file, required)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a table: it is not UTF-8 text ({error}). Save it as UTF-8.") from None
    except csv.Error as error:
        raise ValueError(f"{path} is not a table ({error}).") from None


def _read_csv(path: Path, file, required: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.DictReader(file, delimiter=delimiter, strict=True)
    if not reader.fieldnames:
        raise ValueError(f"{path} is not a table: its first line has no names of columns.")
    other = next((one for one in ",;\t|" if one != delimiter and one in reader.fieldnames[0]), None)
    if other is not None and len(reader.fieldnames) == 1:
        raise ValueError(f"{path} separates columns by {other!r}: save a .csv with commas, or a .tsv with tabs.")
    if duplicates := [name for name, count in Counter(reader.fieldnames).items() if name and count > 1]:
        raise ValueError(f"{path} has the column(s) {duplicates} more than once: keep one of each.")
    if missing := [name for name in required if name not in reader.fieldnames]:
        raise ValueError(f"{path} has no column(s) {missing}; its columns are {', '.join(reader.fieldnames)}.")
    for row in reader:
        # The line on which the row begins: a cell in quotes may contain line breaks.
        cells = [cell for value in row.values() for cell in (value if isinstance(value, list) else [value]) if cell]
        line = reader.line_num - sum(cell.count("\n") for cell in cells)
        if None in row or None in row.values():
            raise ValueError(
                f"{path}, line {line}: the row has another number of cells than the header, "
                f"{len(reader.fieldnames)}; put a cell that contains a comma into quotes."
            )
        yield f"line {line}", {name: value or None for name, value in row.items() if name}


def _read_jsonl(path: Path, file) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number} is not valid JSON ({getattr(error, 'msg', error)}).") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number} is not a JSON object: {line.strip()[:40]!r}.")
        yield f"line {number}", row


def read_parquet(path: str | Path, columns: Sequence[str] | None = None, max_bytes: float = math.inf) -> pa.Table:
    """
    Read a Parquet file; text in dictionaries is decoded. Arguments as in [`read_rows`].

    Raises:
        ValueError: the file is not Parquet, is damaged, or takes more than `max_bytes` in memory.
    """
    try:
        with pq.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if columns is None or name in columns]
            left = max_bytes
            for index in range(file.num_row_groups if max_bytes < math.inf else 0):
                left -= check_row_group(str(path), file.metadata, index, names, left)
            table = file.read(columns=names)
    except (pa.ArrowException, OSError) as error:  # pyarrow raises OSError for damaged pages
        raise ValueError(f"{path} is not a table: it cannot be read as Parquet ({error}).") from error
    fields = [field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
              for field in table.schema]  # fmt: skip
    return table.cast(pa.schema(fields, table.schema.metadata))


def read_table(path: str | Path, place_column: str | None = None) -> Dataset:
    """
    Read a table as a data set. Columns of CSV and TSV in which every cell is a number, or empty, are numbers. The
    column `place_column` is added: "table.csv, line 3", for messages.

    Raises:
        FileNotFoundError, ValueError: as [`read_rows`]; ValueError also if a column has values of several types.
    """
    if Path(path).suffix.lower() == ".parquet" and Path(path).is_file():
        table = Dataset(InMemoryTable(read_parquet(path)))
        places = [f"row {row}" for row in range(len(table))]
        return _add_places(table, path, places, place_column)
    rows = list(read_rows(path))
    places, rows = [place for place, _ in rows], [row for _, row in rows]
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values if Path(path).suffix.lower() == ".jsonl" else _parse_numbers(values))
        except (pa.ArrowException, OverflowError) as error:
            raise ValueError(
                f"{path} is not a table: the column {name} has values of several types ({error})."
            ) from error
    return _add_places(Dataset(InMemoryTable(pa.table(columns))), path, places, place_column)


def _add_places(table: Dataset, path: str | Path, places: list[str], column: str | None) -> Dataset:
    if column is None or not len(table):
        return table
    table = table.remove_columns(column) if column in table.column_names else table
    return table.add_column(column, [f"{Path(path).name}, {place}" for place in places])


def _parse_numbers(values: list[str | None]) -> list:
    """Return numbers if all values are numbers, else the values; NaN becomes `None`."""
    present = [value.strip() for value in values if value is not None]
    if present and all(map(INTEGER.fullmatch, present)):
        return [None if value is None else int(value) for value in values]
    is_number = [NUMBER.fullmatch(value) is not None for value in present]
    if any(is_number) and all(yes or NOT_FINITE.fullmatch(v) for yes, v in zip(is_number, present, strict=True)):
        numbers = [None if value is None else float(value) for value in values]
        return [None if number is None or math.isnan(number) else number for number in numbers]
    return values


def check_row_group(path: str, metadata: pq.FileMetaData, index: int, columns: Sequence[str], max_bytes: float) -> int:
    """
    Return an upper bound of the bytes that `columns` of a row group take in memory. Texts that the file stores once
    for many rows are read, each once, if the bound depends on them.

    Raises:
        ValueError: the row group takes more than `max_bytes`.
    """
    group, chunks, size = metadata.row_group(index), [], 0
    for i in range(group.num_columns):
        chunk = group.column(i)
        if any(chunk.path_in_schema == name or chunk.path_in_schema.startswith(f"{name}.") for name in columns):
            length = metadata.schema.column(i).length if chunk.physical_type == "FIXED_LEN_BYTE_ARRAY" else 1
            size += max(chunk.total_uncompressed_size, chunk.num_values * VALUE_BYTES.get(chunk.physical_type, length))
            # The encoding DELTA_LENGTH_BYTE_ARRAY stores each value in full.
            if chunk.physical_type == "BYTE_ARRAY" and "DELTA_LENGTH_BYTE_ARRAY" not in chunk.encodings:
                chunks.append(chunk)
    # No value is longer than everything that is stored: this bound is enough for most files.
    upper_bound = size + sum(chunk.num_values * chunk.total_uncompressed_size for chunk in chunks)
    if upper_bound <= max_bytes:
        return upper_bound
    # Values stored as differences cannot be read as a dictionary: the bound has to do.
    deltas = [chunk for chunk in chunks if "DELTA_BYTE_ARRAY" in chunk.encodings]
    size += sum(chunk.num_values * chunk.total_uncompressed_size for chunk in deltas)
    texts = [chunk.path_in_schema for chunk in chunks if "DELTA_BYTE_ARRAY" not in chunk.encodings]
    if texts and size <= max_bytes:
        with pq.ParquetFile(path, metadata=metadata, read_dictionary=texts) as file:
            rows = file.read_row_group(index, columns=texts)
        size += sum(_decoded_bytes(chunk) for column in rows.columns for chunk in column.chunks)
    if size > max_bytes:
        raise ValueError(
            f"{path}, row group {index}, takes {size} bytes or more when its texts are decoded, more than the "
            f"{max_bytes} bytes that are read: remove columns, or split the table."
        )
    return size


def _decoded_bytes(array: pa.Array) -> int:
    """Return the bytes that the values of dictionaries, also inside lists and structs, take when decoded."""
    if isinstance(array, pa.DictionaryArray):
        lengths = pc.binary_length(array.dictionary).cast(pa.int64())
        counts = np.bincount(array.indices.drop_null().to_numpy(), minlength=len(lengths))
        return int(np.dot(counts, lengths.fill_null(0).to_numpy()))
    if isinstance(array, pa.MapArray):
        return _decoded_bytes(array.keys) + _decoded_bytes(array.items)
    if isinstance(array, pa.StructArray):
        return sum(map(_decoded_bytes, array.flatten()))
    if isinstance(array, (pa.ListArray, pa.LargeListArray, pa.FixedSizeListArray)):
        return _decoded_bytes(array.flatten())
    return array.storage.nbytes if isinstance(array, pa.ExtensionArray) else array.nbytes
