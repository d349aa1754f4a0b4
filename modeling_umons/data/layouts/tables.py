# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""What the layouts that are tables of text share."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..columns import SPLIT_NAMES, SPLITS


def read_csv(path: Path, columns: Sequence[str], key: str = "segment_id") -> dict[str, dict[str, str]]:
    """
    {value of `key`: row} of a CSV file, rows as text. Raises OSError where it is missing or no text, and ValueError where
    it lacks one of `columns`, a row lacks its `key`, or two rows share one.
    """
    rows: dict[str, dict[str, str]] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
                raise ValueError(f"{path} lacks the column(s) {missing}; it has {reader.fieldnames}.")
            for row in reader:
                if not row[key]:
                    raise ValueError(f"{path}, line {reader.line_num}: the column {key} is empty.")
                if row[key] in rows:
                    raise ValueError(f"{path}, line {reader.line_num}: {key} {row[key]!r} stands there twice.")
                rows[row[key]] = row
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
            raise ValueError(f"{path}: {name} is of split {row['split']!r}; known are {', '.join(SPLIT_NAMES)}.")
        segments[split].append(name)
    return {split: names for split, names in segments.items() if names}


def to_number(value: str, path: Path, name: str, what: str) -> float | None:
    """A number; `None` for an empty cell. Raises ValueError, naming the file and the segment, for any other text."""
    if not value:
        return None
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{path}, {name}: {what} is {value!r}, which is no number.")
    return number
