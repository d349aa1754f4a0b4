# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""What the layouts that are tables of text share."""

import csv
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..schema import SPLIT_NAMES, SPLITS


MAX_COUNT_DIGITS = 18  # int64 holds every number of as many


def read_csv(
    path: Path, columns: Sequence[str], key: str | Callable[[dict[str, str]], str] = "segment_id"
) -> dict[str, dict[str, str]]:
    """
    {key: row} of a CSV file, rows as text.

    Args:
        columns: those that the table must have.
        key: the column that names a row, or what makes the name of a row.

    Raises:
        OSError: the table is missing, or no text in UTF-8; ValueError: it lacks one of `columns`, two columns share a name,
        a row has more or fewer cells than the header, a row lacks its key, or two rows share one.
    """
    rows: dict[str, dict[str, str]] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
                raise ValueError(f"{path} lacks the column(s) {missing}; it has {reader.fieldnames}.")
            if twice := [name for name, number in Counter(reader.fieldnames).items() if name and number > 1]:
                raise ValueError(f"{path} has the column(s) {twice} more than once: leave one of each.")
            for row in reader:
                place = f"{path}, line {reader.line_num}"
                if None in row or None in row.values():
                    raise ValueError(
                        f"{place}: the row has another number of cells than the header, {len(reader.fieldnames)}; a cell "
                        "with a comma in it must stand in quotes."
                    )
                name = row[key] if isinstance(key, str) else key(row)
                if not name:
                    raise ValueError(f"{place}: the column {key} is empty.")
                if name in rows:
                    raise ValueError(
                        f"{place}: {key if isinstance(key, str) else 'segment'} {name!r} stands there twice."
                    )
                rows[name] = row
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such table.") from None
    except UnicodeDecodeError as error:
        raise OSError(f"{path} is no text in UTF-8 ({error}).") from None
    except csv.Error as error:
        raise ValueError(f"{path} cannot be read as CSV ({error}).") from None
    return rows


def by_split(path: Path, rows: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    """The keys of `rows` by their column `split`. Raises ValueError for a split of another name."""
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
    A number; `None` for an empty cell. Raises ValueError, naming the file and the segment, for any other text and for a
    number outside of `within`.
    """
    if not value:
        return None
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{path}, {name}: {what} is {value!r}, which is no number.")
    if not within[0] <= number <= within[1]:
        raise ValueError(f"{path}, {name}: {what} is {value}, outside of [{within[0]:g}, {within[1]:g}].")
    return number


def to_count(value: str, path: Path, name: str, what: str) -> int:
    """A whole number of at most 18 digits. Raises ValueError, naming the file and the segment, for any other text."""
    if not (value.isascii() and value.isdigit()):
        raise ValueError(f"{path}, {name}: {what} is {value!r}, which is no whole number.")
    if len(value) > MAX_COUNT_DIGITS:
        raise ValueError(f"{path}, {name}: {what} is {value:.30}, which has more than {MAX_COUNT_DIGITS} digits.")
    return int(value)
