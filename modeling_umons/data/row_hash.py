"""Hash of the rows of a data set, independent of files, row groups, batches and compression."""

import hashlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset


def hash_rows(rows: Dataset, columns: Iterable[str]) -> list[str]:
    """Return a hash of each row: of its values in `columns`, of which missing ones and nulls do not count."""
    names = [name for name in columns if name in rows.column_names]
    table = rows.select_columns(names).with_format("arrow")[:]
    hashes = [hashlib.sha256() for _ in range(len(rows))]
    for name in sorted(names):
        for row, value in enumerate(table[name]):
            if value.is_valid:
                hashes[row].update(name.encode() + b"\0" + _value_bytes(value))
    return [content.hexdigest()[:16] for content in hashes]


def _value_bytes(value: pa.Scalar) -> bytes:
    """Return the bytes of a text, a number, or a list of any depth."""
    if not isinstance(value, pa.ListScalar):
        return str(value.as_py()).encode()
    values = value.values
    while not pa.types.is_primitive(values.type):
        values = values.flatten()
    return values.to_numpy(zero_copy_only=False).tobytes()


class ContentHash:
    """sha256 of rows in their order: of names, types, values and nulls of the columns, and of nothing else."""

    def __init__(self, schema: pa.Schema):
        self._columns = {field.name: _ColumnHash(field.type) for field in schema}

    def update(self, batch: pa.RecordBatch) -> None:
        """Add further rows."""
        for name, column in self._columns.items():
            column.update(batch.column(name))

    def hexdigest(self) -> str:
        """Return the hash of all rows so far."""
        text = "\n".join(f"{name} {column.digest()}" for name, column in self._columns.items())
        return hashlib.sha256(text.encode()).hexdigest()


class _ColumnHash:
    """Hashes of nulls, of lengths and of values: each is the same wherever the rows are cut into batches."""

    def __init__(self, kind: pa.DataType):
        self.kind, self.parts, self.children = kind, [hashlib.sha256() for _ in range(3)], []
        if pa.types.is_struct(kind):
            self.name = f"struct {[field.name for field in kind]}"
            self.children = [_ColumnHash(field.type) for field in kind]
        elif pa.types.is_fixed_size_list(kind):
            self.name, self.children = f"list of {kind.list_size}", [_ColumnHash(kind.value_type)]
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            self.name, self.children = "list", [_ColumnHash(kind.value_type)]
        else:
            self.name = str(kind)

    def update(self, array: pa.Array) -> None:
        is_null, lengths, values = self.parts
        is_null.update(array.is_null().to_numpy(zero_copy_only=False))
        present = array.drop_null() if array.null_count else array
        if pa.types.is_struct(self.kind):
            parts = present.flatten()
        elif self.children:
            if not pa.types.is_fixed_size_list(self.kind):
                lengths.update(pc.list_value_length(present).to_numpy().astype("<i8"))
            parts = [present.flatten()]
        else:
            parts = []
            if pa.types.is_string(self.kind) or pa.types.is_large_string(self.kind):
                lengths.update(pc.binary_length(present).to_numpy().astype("<i8"))
                values.update("".join(present.to_pylist()).encode())
            elif pa.types.is_binary(self.kind) or pa.types.is_large_binary(self.kind):
                lengths.update(pc.binary_length(present).to_numpy().astype("<i8"))
                values.update(b"".join(present.to_pylist()))
            elif not pa.types.is_null(self.kind):
                values.update(np.ascontiguousarray(present.to_numpy(zero_copy_only=False)))
        for child, part in zip(self.children, parts, strict=True):
            child.update(part)

    def digest(self) -> str:
        return " ".join([self.name, *(part.hexdigest() for part in self.parts), *(c.digest() for c in self.children)])
