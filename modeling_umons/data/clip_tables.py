"""Tables of clips, read from a folder of files, a table with file names, or a data set of `datasets`."""

import hashlib
import json
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Audio, Dataset, DatasetDict, Video, concatenate_datasets, load_dataset, load_from_disk
from datasets.exceptions import DatasetsError

from ..models.umons.configuration_umons import EMOTIONS
from ..tasks.labels import EMOTION_RANGE, SENTIMENT_RANGE
from .schema import SPLIT_NAMES
from .sharding import Shard
from .tables import TABLE_SUFFIXES, read_rows


logger = logging.getLogger(__name__)

MEDIA_SUFFIXES = (
    ".3gp", ".aac", ".ac3", ".aif", ".aiff", ".amr", ".au", ".avi", ".caf", ".flac", ".flv", ".m4a", ".m4v", ".mka",
    ".mkv", ".mov", ".mp2", ".mp3", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".oga", ".ogg", ".ogv", ".opus", ".ts",
    ".w64", ".wav", ".webm", ".wma", ".wmv",
)  # fmt: skip
TABLE_NAMES = tuple(f"metadata{suffix}" for suffix in TABLE_SUFFIXES)
TEXT_COLUMNS = ("text", "words")
COLUMNS = ("segment_id", "video_id", "segment", "start", "end", *TEXT_COLUMNS, "sentiment", "emotions", *EMOTIONS)

MAX_TABLE_BYTES = 2**28  # size in memory of the columns read from a .parquet

# `datasets` finds shards with these names in a folder, and their splits.
SHARD_NAME = "data/{split}-{index:05d}-of-{count:05d}.parquet"


@dataclass
class ClipTable:
    """
    Rows of an input, in its order.

    Attributes:
        rows: for each clip `file` (its name in messages), `size` (bytes, `None` for a missing file), `path` (of a file
            on disk), `split` and those of `COLUMNS` that the input has, unconverted.
        media: the data set with the audio or video, if it is not in files on disk.
        media_column: column of `media` with the audio or video.
        unlisted: names of clips in the folder that are in none of its tables.
    """

    rows: list[dict[str, Any]]
    media: Dataset | None = None
    media_column: str | None = None
    unlisted: list[str] = field(default_factory=list)

    def source(self, index: int) -> str | bytes:
        """Return the input of [`read_clip`] for a row. Raises ValueError if the row has no file."""
        if self.media is not None:
            value = self.media[index][self.media_column]
            source = value and (value["bytes"] or value["path"])
        else:
            source = self.rows[index]["path"]
        if not source:
            raise ValueError("the row names no file")
        return source

    def fingerprint(self) -> str:
        """Return a hash of all values of the rows, and of names and sizes of the files."""
        digest = hashlib.sha256()
        for row in self.rows:
            # Without the paths: a folder may be moved, or be mounted elsewhere on another machine.
            digest.update(json.dumps({**row, "path": None}, sort_keys=True, default=str).encode())
        return digest.hexdigest()


def read_clip_table(source: str | Path) -> ClipTable:
    """
    Read a folder of clips, a table, or a folder that `datasets` has saved or can load.

    A table (.csv, .tsv, .jsonl or .parquet, or a folder with a table named `metadata`) has a column `file_name`,
    relative to the table, and optionally `split` and `COLUMNS`; other columns are ignored. By default `video_id` is
    the file name without its suffix, and `segment` counts the rows of a `video_id`.

    In a folder without a table, the top folders are splits if every clip is in one named as a split (train, dev, test,
    ...). Each of them may have its own table.

    Raises:
        OSError: the input is missing or of another kind; ValueError: a table cannot be read, has no column
            `file_name`, has
        a name that is not text, is larger than `MAX_TABLE_BYTES`, or is in a folder where it is not read.
    """
    source = Path(source)
    table = next((source / name for name in TABLE_NAMES if (source / name).is_file()), None)
    if not source.exists():
        raise FileNotFoundError(f"{source}: there is no such file or folder.")
    if source.is_file():
        clips = ClipTable(_rows_of_table(source))
    elif table is not None:
        clips = _of_folder(source, _rows_of_table(table))
    elif rows := _rows_of_splits(source):
        clips = _of_folder(source, rows)
    else:
        clips = _of_dataset(source)
    if not clips.rows:
        raise OSError(f"{source} has no rows: there is nothing to do.")
    _name_segments(clips.rows)
    return clips


def _media_files(folder: Path) -> list[str]:
    """Return the names of clips below the folder, sorted as on every machine."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in MEDIA_SUFFIXES)
    visible = (file for file in files if not any(part.startswith(".") for part in file.parts))
    return sorted(file.as_posix() for file in visible if (folder / file).is_file())


def list_clips(folder: Path) -> list[str]:
    """Return the names of clips below a folder, and log what else is in it if there are any."""
    files = _media_files(folder)
    if files:
        warn_of_other_files(folder, {os.path.normpath((folder / file).absolute()) for file in files})
    return files


def _row_of_file(row: dict[str, Any], folder: Path, file: str | None) -> dict[str, Any]:
    path = str((folder / file).absolute()) if file else None
    size = os.path.getsize(path) if path and os.path.isfile(path) else None
    known = {name: row[name] for name in ("split", *COLUMNS) if name in row}
    return {**known, "file": str(file or ""), "size": size, "path": path}


def _of_folder(folder: Path, rows: list[dict[str, Any]]) -> ClipTable:
    listed = {os.path.normpath(row["path"]) for row in rows if row["path"]}
    unlisted = [file for file in _media_files(folder) if os.path.normpath((folder / file).absolute()) not in listed]
    warn_of_other_files(folder, listed)
    return ClipTable(rows, unlisted=unlisted)


def warn_of_other_files(folder: Path, listed: set[str], is_complete: bool = False) -> None:
    """
    Log the number of broken links, and of the files that are neither `listed` nor tables, by ending. Clips that are
    not listed count only if `is_complete`.
    """
    broken, endings = [], Counter()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        is_hidden = any(part.startswith(".") for part in name.parts)
        if is_hidden or path.is_dir() or os.path.normpath(path.absolute()) in listed:
            continue
        if path.is_symlink() and not path.exists():
            broken.append(name.as_posix())
        elif path.suffix.lower() not in (*(() if is_complete else MEDIA_SUFFIXES), *TABLE_SUFFIXES, ".md"):
            endings[path.suffix.lower() or "without ending"] += 1
    if broken:
        logger.warning("%s: %d broken link(s) are left out, such as %s.", folder, len(broken), broken[0])
    if endings:
        counts = ", ".join(f"{count} {ending}" for ending, count in endings.most_common())
        kind = "other files" if is_complete else "files that are not clips"
        logger.warning("%s: %s are left out: %s.", folder, kind, counts)


def _rows_of_splits(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a folder without a table at its top; none without clips and without tables in splits."""
    tables = [path for path in sorted(folder.rglob("metadata.*")) if path.name in TABLE_NAMES and path.is_file()]
    tables = {path.relative_to(folder): path for path in tables}
    tables = {name: path for name, path in tables.items() if not any(part.startswith(".") for part in name.parts)}
    of_split = {name.parts[0]: path for name, path in tables.items() if _is_in_split(name) and len(name.parts) == 2}
    files = _media_files(folder)
    if not files and not of_split:
        return []
    for name, path in tables.items():
        if path not in of_split.values():
            raise ValueError(
                f"{path}: tables are read at the top of {folder}, and in its folders named as splits "
                f"({', '.join(SPLIT_NAMES)}); {name} is neither. Move or remove it."
            )
    by_split = all(_is_in_split(Path(file)) for file in files)
    rows = []
    for part in sorted({*of_split, *(Path(file).parts[0] for file in files if _is_in_split(Path(file)))}):
        split = SPLIT_NAMES[part.lower()]
        if part in of_split:
            rows += [
                {**row, "split": row.get("split") or split, "file": f"{part}/{row['file']}" if row["file"] else ""}
                for row in _rows_of_table(of_split[part])
            ]
        elif by_split or of_split:
            own = [file for file in files if Path(file).parts[0] == part and len(Path(file).parts) > 1]
            rows += [_row_of_file({"split": split}, folder, file) for file in own]
    return rows if by_split or of_split else [_row_of_file({}, folder, file) for file in files]


def _is_in_split(file: Path) -> bool:
    return len(file.parts) > 1 and file.parts[0].lower() in SPLIT_NAMES


def _rows_of_table(path: Path) -> list[dict[str, Any]]:
    rows = []
    for place, row in read_rows(path, ("file_name", "split", *COLUMNS), MAX_TABLE_BYTES):
        _check_names(row, f"{path}, {place}")
        rows.append(row)
    if rows and not any("file_name" in row for row in rows):
        raise ValueError(f"{path} has no column `file_name`; its columns are {', '.join(rows[0])}.")
    return [_row_of_file(row, path.parent, row.get("file_name")) for row in rows]


def _check_names(row: dict[str, Any], place: str) -> None:
    """Raise ValueError for a name that is not text, or a split that cannot be part of the name of a file."""
    for name in ("file_name", "segment_id", "video_id", "split"):
        value = row.get(name)
        if not (value is None or isinstance(value, str) or (name != "file_name" and type(value) is int)):
            raise ValueError(f"{place}: {name} is {value!r:.80}, which is not text")
    if row.get("split") and not re.fullmatch(r"\w+(\.\w+)*", str(row["split"])):
        raise ValueError(f"{place}: split is {row['split']!r:.80}; use letters, digits and _ in names of splits.")


def _of_dataset(folder: Path) -> ClipTable:
    """Read a data set; audio and video stay encoded, for PyAV to decode them row by row."""
    try:
        saved = (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()
        dataset = load_from_disk(folder) if saved else load_dataset(str(folder))
    except (OSError, ValueError, DatasetsError) as error:
        raise OSError(f"{folder} contains no clips, no table metadata.csv and no data set of `datasets`.") from error
    if isinstance(dataset, DatasetDict):
        for name, part in dataset.items():
            if "split" not in part.column_names:
                dataset[name] = part.add_column("split", [name] * len(part))
        dataset = concatenate_datasets([part.with_format(None) for part in dataset.values()])
    dataset = dataset.with_format(None)
    media_column = next((n for n, feature in dataset.features.items() if isinstance(feature, (Audio, Video))), None)
    kept = [name for name in ("split", "file_name", *COLUMNS) if name in dataset.column_names]
    rows = dataset.select_columns(kept).to_list()
    for index, row in enumerate(rows):
        _check_names(row, f"{folder}, row {index}")
    if media_column is None:
        if "file_name" not in kept:
            raise ValueError(
                f"The data set {folder} has no column of audio or video and no `file_name`; its columns are "
                f"{', '.join(dataset.column_names)}."
            )
        return _of_folder(folder, [_row_of_file(row, folder, row["file_name"]) for row in rows])

    media = dataset.select_columns(media_column)
    media = media.cast_column(media_column, type(dataset.features[media_column])(decode=False))
    for index, (row, value) in enumerate(zip(rows, media[media_column], strict=True)):
        file = row.pop("file_name", None) or (value and value["path"]) or f"row {index}"
        content = value and (value["bytes"] or value["path"])
        on_disk = isinstance(content, str) and os.path.isfile(content)
        size = len(content) if isinstance(content, bytes) else os.path.getsize(content) if on_disk else None
        row |= {"file": os.path.basename(file), "size": size, "path": None}
    return ClipTable(rows, media, media_column)


def _name_segments(rows: list[dict[str, Any]]) -> None:
    """Fill in missing `video_id`, `segment` and `segment_id`, in the form of MOSEI: `video[3]`."""
    counts = Counter()
    for row in rows:
        if row.get("video_id") is None:
            row["video_id"] = os.path.splitext(row["file"])[0]
        if row.get("segment") is None:
            row["segment"] = counts[row["video_id"]]
        counts[row["video_id"]] += 1
        if row.get("segment_id") is None:
            row["segment_id"] = f"{row['video_id']}[{row['segment']}]"


def typed_columns(row: dict[str, Any], with_text: bool) -> dict[str, Any]:
    """
    Convert the values of the columns that are not extracted to their types; missing values are `None`.

    Raises:
        ValueError: a value is not of its type, or out of its range. The message names the column and the value.
    """
    emotions = _parsed(row, "emotions")
    if emotions is not None and not isinstance(emotions, dict):
        if not isinstance(emotions, (list, tuple)) or len(emotions) != len(EMOTIONS):
            raise ValueError(f"emotions={emotions!r} must be {len(EMOTIONS)} numbers: {', '.join(EMOTIONS)}")
        emotions = dict(zip(EMOTIONS, emotions, strict=True))
    emotions = emotions or {}
    columns = {name: None if row.get(name) is None else str(row[name]) for name in ("segment_id", "video_id")}
    segment = _number(row, "segment", (0, 2**53))
    if segment is not None and not segment.is_integer():
        raise ValueError(f"segment={row['segment']!r} is not a whole number")
    columns["segment"] = None if segment is None else int(segment)
    columns |= {name: _number(row, name) for name in ("start", "end")}
    columns["sentiment"] = _number(row, "sentiment", SENTIMENT_RANGE)
    for name in EMOTIONS:
        columns[name] = _number(row if row.get(name) is not None else emotions, name, EMOTION_RANGE)
    columns |= {"text": None, "words": None}
    if with_text:
        columns["text"] = None if row.get("text") is None else str(row["text"])
        words = _parsed(row, "words")
        if words is not None:
            try:
                columns["words"] = [
                    {"word": str(word["word"]), "start": _number(word, "start"), "end": _number(word, "end")}
                    for word in words
                ]
            except (TypeError, KeyError, AttributeError):
                raise ValueError("words must be a list of {word, start, end}") from None
    return columns


def _parsed(row: dict[str, Any], name: str) -> Any:
    """Return a list or dict, which is JSON in a .csv."""
    value = row.get(name)
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError(f"{name}={value!r} is not JSON") from None


def _number(row: dict[str, Any], name: str, within: Sequence[float] = (-math.inf, math.inf)) -> float | None:
    value = row.get(name)
    if value is None or (isinstance(value, float) and math.isnan(value)):  # a missing value of pandas
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name}={value!r} is not a number") from None
    if not math.isfinite(number):
        raise ValueError(f"{name}={value!r} is not a finite number")
    if not within[0] <= number <= within[1]:
        raise ValueError(f"{name}={value!r} is outside of [{within[0]:g}, {within[1]:g}]")
    return number


def plan_shards(clips: ClipTable, shard_size: int) -> list[Shard]:
    """Plan shards of `shard_size` rows by split ("train" by default), in the order of the input."""
    rows_of: dict[str, list[int]] = {}
    for index, row in enumerate(clips.rows):
        split = str(row.get("split") or "train")
        rows_of.setdefault(split, []).append(index)
    shards = []
    for split, rows in rows_of.items():
        parts = [rows[first : first + shard_size] for first in range(0, len(rows), shard_size)]
        shards += [
            Shard(SHARD_NAME.format(split=split, index=i, count=len(parts)), part) for i, part in enumerate(parts)
        ]
    return shards
