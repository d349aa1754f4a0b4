"""Helpers of the layouts that are tables of text."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..schema import SPLIT_NAMES, SPLITS
from ..tables import read_rows


MAX_COUNT_DIGITS = 18  # int64 holds every number of 18 digits


def read_csv(
    path: Path, columns: Sequence[str], key: str | Callable[[dict[str, str]], str] = "segment_id"
) -> dict[str, dict[str, str]]:
    """
    Read a CSV file as {key: row}. Values are text, empty cells are "".

    Args:
        columns: columns that the table must have.
        key: column that identifies a row, or function that returns the identifier of a row.

    Raises:
        FileNotFoundError: there is no such table; ValueError: it is not a table, a column is missing, or a row has no
            key
        or that of an earlier row.
    """
    rows: dict[str, dict[str, str]] = {}
    for place, values in read_rows(path, required=columns):
        row = {name: value or "" for name, value in values.items()}
        name = row[key] if isinstance(key, str) else key(row)
        if not name:
            raise ValueError(f"{path}, {place}: the column {key} is empty.")
        if name in rows:
            raise ValueError(
                f"{path}, {place}: the {key if isinstance(key, str) else 'segment'} {name!r} is a duplicate."
            )
        rows[name] = row
    return rows


def by_split(path: Path, rows: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    """Return {split: keys of rows} by the column `split`. Raises ValueError for an unknown name."""
    segments: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name, row in rows.items():
        split = SPLIT_NAMES.get(row["split"].lower())
        if split is None:
            raise ValueError(f"{path}, {name}: its split is {row['split']!r}; known are {', '.join(SPLIT_NAMES)}.")
        segments[split].append(name)
    return {split: names for split, names in segments.items() if names}


def to_number(
    value: str, path: Path, name: str, what: str, within: tuple[float, float] = (-math.inf, math.inf)
) -> float | None:
    """
    Convert a cell to a number, an empty one to `None`. Raises ValueError with the file and the segment for other text
    and for a number outside of `within`.
    """
    if not value:
        return None
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{path}, {name}: {what} is {value!r}, which is not a number.")
    if not within[0] <= number <= within[1]:
        raise ValueError(f"{path}, {name}: {what} is {value}, outside of [{within[0]:g}, {within[1]:g}].")
    return number


def to_count(value: str, path: Path, name: str, what: str) -> int:
    """Convert a cell to a whole number of at most 18 digits. Raises ValueError for other text."""
    if not (value.isascii() and value.isdigit()):
        raise ValueError(f"{path}, {name}: {what} is {value!r}, which is not a whole number.")
    if len(value) > MAX_COUNT_DIGITS:
        raise ValueError(f"{path}, {name}: {what} is {value:.30}, which has more than {MAX_COUNT_DIGITS} digits.")
    return int(value)
