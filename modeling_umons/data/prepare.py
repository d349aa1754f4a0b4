# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""From any layout to a folder of Parquet files that `datasets.load_dataset` reads and that can be pushed to the Hub."""

import csv
import hashlib
import json
import logging
import os
import shutil
import sys
import threading
import uuid
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import ClassLabel, Features
from huggingface_hub import DatasetCard, DatasetCardData
from tqdm import tqdm

from ..models.umons.configuration_umons import EMOTIONS
from ..tasks.labels import SENTIMENT_7
from .builders import ROWS_PER_TABLE, UtteranceBuilder, describe_error, read_rows
from .schema import CLASS_COLUMNS, FEATURE_COLUMNS, SPLITS


logger = logging.getLogger(__name__)

REPORT_NAME = "report.json"
FAILURES_NAME = "failures.csv"
LEFT_OUT_NAME = "left_out.csv"
CARD_MARK = "<!-- report -->"
# A row of MOSEI takes up to 140 kB: row groups of 36 MB, which is what a stream holds in memory, and files of 140 MB.
ROWS_PER_GROUP = 256
ROWS_PER_FILE = 1024
SHOWN_FAILURES = 20


class ContentHash:
    """
    A sha256 of rows in their order: of names, types, values and what is null, and of nothing else. Files, row groups,
    batches and compression do not matter.
    """

    def __init__(self, schema: pa.Schema):
        self._columns = {field.name: _ColumnHash(field.type) for field in schema}

    def update(self, batch: pa.RecordBatch) -> None:
        """Takes further rows."""
        for name, column in self._columns.items():
            column.update(batch.column(name))

    def hexdigest(self) -> str:
        """The hash of all rows so far."""
        text = "\n".join(f"{name} {column.digest()}" for name, column in self._columns.items())
        return hashlib.sha256(text.encode()).hexdigest()


class _ColumnHash:
    """One hash for what is null, one for lengths, one for values: each is the same however the rows are cut."""

    def __init__(self, kind: pa.DataType):
        self.kind, self.parts, self.children = kind, [hashlib.sha256() for _ in range(3)], []
        if pa.types.is_struct(kind):
            self.name = f"struct {[field.name for field in kind]}"
            self.children = [_ColumnHash(field.type) for field in kind]
        elif pa.types.is_fixed_size_list(kind):
            self.name, self.children = f"list of {kind.list_size}", [_ColumnHash(kind.value_type)]
        elif pa.types.is_list(kind):
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
            if pa.types.is_list(self.kind):
                lengths.update(pc.list_value_length(present).to_numpy().astype("<i8"))
            parts = [present.flatten()]
        else:
            parts = []
            if pa.types.is_string(self.kind):
                lengths.update(pc.binary_length(present).to_numpy().astype("<i8"))
                values.update("".join(present.to_pylist()).encode())
            else:
                values.update(np.ascontiguousarray(present.to_numpy(zero_copy_only=False)))
        for child, part in zip(self.children, parts, strict=True):
            child.update(part)

    def digest(self) -> str:
        return " ".join([self.name, *(part.hexdigest() for part in self.parts), *(c.digest() for c in self.children)])


def data_files(folder: str | Path) -> dict[str, list[Path]]:
    """{split: its Parquet files in their order} of a prepared folder."""
    files = {split: sorted((Path(folder) / "data").glob(f"{split}-*-of-*.parquet")) for split in SPLITS}
    return {split: paths for split, paths in files.items() if paths}


@contextmanager
def _open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """A file of a prepared folder; what is wrong with it, there or as it is read, is an OSError that names it."""
    try:
        with closing(pq.ParquetFile(path)) as file:
            yield file
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise OSError(
            f"{path} cannot be read, it is damaged or no Parquet ({error}): delete the folder to make it anew."
        ) from error


def content_hash(folder: str | Path) -> str:
    """The sha256 of all rows of a prepared folder, as its report.json has it. Raises OSError for a damaged file."""
    hashes = {}
    for split, paths in data_files(folder).items():
        digest = None
        for path in paths:
            with _open_parquet(path) as file:
                digest = digest or ContentHash(file.schema_arrow)
                for group in range(file.num_row_groups):
                    for batch in file.read_row_group(group, use_threads=False).to_batches():
                        digest.update(batch)
        hashes[split] = digest.hexdigest()
    return _hash_of_splits(hashes)


def _hash_of_splits(hashes: dict[str, str]) -> str:
    return hashlib.sha256("\n".join(f"{split} {value}" for split, value in hashes.items()).encode()).hexdigest()


class _SplitCounts:
    """What the report says of a split, counted batch by batch."""

    def __init__(self, features: Features):
        self.schema = features.arrow_schema
        self.hash = ContentHash(self.schema)
        self.num_segments, self.num_timed, self.seconds = 0, 0, 0.0
        self.videos: set[str] = set()
        self.missing = Counter(dict.fromkeys(("text", *FEATURE_COLUMNS, "sentiment", "emotions"), 0))
        self.emotions, self.sentiment_7 = Counter(), Counter()
        own = {name: kind for name, kind in features.items() if isinstance(kind, ClassLabel)}
        self.classes = {name: (kind, Counter()) for name, kind in own.items() if name not in CLASS_COLUMNS}

    def update(self, batch: pa.RecordBatch) -> None:
        if not batch.schema.equals(self.schema):
            raise ValueError(f"The file has the columns {batch.schema}, expected {self.schema}.")
        self.hash.update(batch)
        self.num_segments += batch.num_rows
        self.videos.update(batch.column("video_id").drop_null().to_pylist())
        seconds = pc.subtract(batch.column("end"), batch.column("start")).drop_null()
        self.num_timed += len(seconds)
        self.seconds += pc.sum(seconds).as_py() or 0.0
        for name in ("text", *FEATURE_COLUMNS, "sentiment"):
            self.missing[name] += batch.column(name).null_count
        emotions = [batch.column(name) for name in EMOTIONS]
        for name, column in zip(EMOTIONS, emotions, strict=True):
            self.emotions[name] += pc.sum(pc.greater(column, 0)).as_py() or 0
        self.missing["emotions"] += int(np.any([column.is_null() for column in emotions], axis=0).sum())
        if "sentiment_7" in batch.schema.names:
            self.sentiment_7.update(batch.column("sentiment_7").drop_null().to_pylist())
        for name, (kind, counter) in self.classes.items():
            counter.update(map(kind.int2str, batch.column(name).drop_null().to_pylist()))

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "segments": self.num_segments,
            "videos": len(self.videos),
            "hours": round(self.seconds / 3600, 4) if self.num_timed or not self.num_segments else None,
            "segments_without_times": self.num_segments - self.num_timed,
            "sentiment_7": {name: self.sentiment_7[i] for i, name in enumerate(SENTIMENT_7)},
            "emotions": {name: self.emotions[name] for name in EMOTIONS},
            "classes": {
                name: {value: counter[value] for value in kind.names} for name, (kind, counter) in self.classes.items()
            },
            "missing": dict(self.missing),
            "sha256": self.hash.hexdigest(),
        }


class _SplitWriter:
    """Writes tables of one split to files of `ROWS_PER_FILE` rows in groups of `ROWS_PER_GROUP`, and counts them."""

    def __init__(self, folder: Path, split: str, features: Features):
        self.path, self.schema, self.counts = folder / split, features.arrow_schema, _SplitCounts(features)
        self.pending, self.num_pending, self.num_groups = [], 0, 0
        self.writer: pq.ParquetWriter | None = None

    def write(self, table: pa.Table) -> None:
        self.pending.append(table)
        self.num_pending += table.num_rows
        while self.num_pending >= ROWS_PER_GROUP:
            self._write_group(ROWS_PER_GROUP)

    def close(self) -> None:
        if self.num_pending:  # `datasets` cannot read a row group without rows
            self._write_group(self.num_pending)
        self._close_file()

    def _write_group(self, num_rows: int) -> None:
        rows = pa.concat_tables(self.pending)
        group, rest = rows.slice(0, num_rows).combine_chunks(), rows.slice(num_rows)
        self.pending, self.num_pending = [rest], rest.num_rows
        if self.num_groups % (ROWS_PER_FILE // ROWS_PER_GROUP) == 0:
            self._close_file()
            # Numbers of features are all different: a dictionary, bounds and compression cost time and gain little.
            columns = [field.name for field in self.schema if not pa.types.is_nested(field.type)]
            self.writer = pq.ParquetWriter(
                f"{self.path}-{self.num_groups:08d}",
                self.schema,
                compression=dict.fromkeys(columns, "zstd"),
                use_dictionary=columns,
                write_statistics=columns,
            )
        self.num_groups += 1
        self.writer.write_table(group)
        for batch in group.to_batches():
            self.counts.update(batch)

    def _close_file(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None


class _Rows(NamedTuple):
    """A few segments that were read: (split, segment, reason) of those that could not be stand in `failures`."""

    split: str
    table: pa.Table
    failures: list[tuple[str, str, str]]
    num_segments: int


def _read(builder: UtteranceBuilder, features: Features, split: str, segment_ids: list[str]) -> _Rows:
    failures = []

    def on_bad_row(segment_id: str, error: Exception) -> None:
        failures.append((split, segment_id, describe_error(error)))

    table = read_rows(builder.source, split, segment_ids, features, on_bad_row)
    return _Rows(split, table, failures, len(segment_ids))


def _start_worker(builder: UtteranceBuilder, features: Features) -> None:
    """Keeps what this process needs for each call, and has the process end with its parent, however that ends."""
    global _worker

    def end_with_parent():
        parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    if "torch" in sys.modules:  # what extracts features: the processes share the cores
        sys.modules["torch"].set_num_threads(1)
    _worker = (builder, features)


def _read_in_worker(split: str, segment_ids: list[str]) -> _Rows:
    return _read(*_worker, split, segment_ids)


def _read_all(builder: UtteranceBuilder, features: Features, num_proc: int) -> Iterator[_Rows]:
    """All segments in their order, read in this process or in others."""
    chunks = [
        (split, ids[start : start + ROWS_PER_TABLE])
        for split, ids in builder.source.segments.items()
        for start in range(0, len(ids), ROWS_PER_TABLE)
    ]
    if num_proc == 1 or len(chunks) == 1:
        yield from (_read(builder, features, *chunk) for chunk in chunks)
        return
    # A fork of a process with threads, as torch and pyarrow have them, may hang.
    pool = ProcessPoolExecutor(min(num_proc, len(chunks)), get_context("spawn"), _start_worker, (builder, features))
    waiting, left = deque(), iter(chunks)
    try:
        while True:
            # No more at a time than keeps the workers busy: what is read and not written yet is held in memory.
            waiting.extend(pool.submit(_read_in_worker, *chunk) for chunk in islice(left, 4 * num_proc - len(waiting)))
            if not waiting:
                return
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise OSError("A worker process died, perhaps for want of memory: try a smaller --num_proc.") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _write_all(
    builder: UtteranceBuilder, features: Features, folder: Path, num_proc: int
) -> tuple[dict[str, _SplitCounts], list[tuple[str, str, str]]]:
    """Writes all segments; returns the counts of each split, and (split, segment, reason) of what cannot be read."""
    writers: dict[str, _SplitWriter] = {}
    failures = []
    num_segments = sum(map(len, builder.source.segments.values()))
    try:
        with tqdm(total=num_segments, unit="segment", desc="segments") as bar:
            for rows in _read_all(builder, features, num_proc):
                if rows.table.num_rows:
                    if rows.split not in writers:
                        writers[rows.split] = _SplitWriter(folder, rows.split, features)
                    writers[rows.split].write(rows.table)
                failures += rows.failures
                bar.update(rows.num_segments)
    finally:
        for writer in writers.values():
            writer.close()
    for split in writers:
        paths = sorted(folder.glob(f"{split}-*"))
        for number, path in enumerate(paths):
            path.rename(folder / f"{split}-{number:05d}-of-{len(paths):05d}.parquet")
    return {split: writer.counts for split, writer in writers.items()}, failures


def prepare_dataset(
    builder: UtteranceBuilder, output: str | Path, num_proc: int = 1, card: str | Path | None = None
) -> dict[str, Any]:
    """
    Writes all segments of a source to `output`: data/{split}-00000-of-0000N.parquet with the columns of all
    configurations, README.md (a data set card in which each configuration is a view of these files) and report.json;
    where there is something to say, failures.csv (segments that cannot be read) and left_out.csv (those in no split).

    The folder appears whole or not at all. It is left as it is when it holds the same rows already.

    Args:
        builder: any configuration of the builder that reads the source.
        output: a folder that is empty, does not exist, or was written by this function.
        num_proc: worker processes.
        card: a data set card to start from, with the report in the place of `<!-- report -->`; else a short one is made.

    Returns:
        what report.json has, and `failures`, a list of (split, segment, reason).

    Raises:
        ValueError: the source has no segment, or `output` holds something else; OSError: no segment can be read.
    """
    if num_proc < 1:
        raise ValueError(f"--num_proc is {num_proc}; it must be at least 1.")
    output = Path(os.path.realpath(output))  # a link cannot be replaced by a folder, what it leads to can
    is_new = _check_output(output)
    source, features = builder.source, builder.features_of(*builder.builder_configs)
    if not any(source.segments.values()):
        raise ValueError(f"{source.folder}: there is no segment in it (layout {builder.config.layout}).")
    output.parent.mkdir(parents=True, exist_ok=True)
    for leftover in output.parent.glob(f".{output.name}.*.part"):
        logger.warning("%s is of a run that goes on, or was killed; in the second case it can be deleted.", leftover)
    # A sibling whose name begins with a dot becomes the output by a rename.
    folder = output.parent / f".{output.name}.{uuid.uuid4().hex}.part"
    (folder / "data").mkdir(parents=True)
    try:
        counts, failures = _write_all(builder, features, folder / "data", num_proc)
        if not counts:
            raise OSError(f"{source.folder}: no segment can be read; the first: {': '.join(failures[0][1:])}")
        report = _make_report(builder, features, counts, failures)
        (folder / REPORT_NAME).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        _write_csv(folder / FAILURES_NAME, ("split", "segment_id", "reason"), failures)
        _write_csv(folder / LEFT_OUT_NAME, ("segment_id", "reason"), list(source.left_out.items()))
        _write_card(folder, builder, report, failures, card)
        if is_new:
            os.replace(folder, output)
        elif content_hash(output) != report["sha256"]:
            raise ValueError(f"{output} holds other rows than the source gives: choose a new folder as --output.")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {**report, "failures": failures}


def _check_output(output: Path) -> bool:
    """Whether the output is to be made; `False` where there is one already. Refuses a folder with other things."""
    if output.is_symlink():
        raise ValueError(f"{output} is a link that leads back to itself: choose a new folder as --output.")
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file: choose a new folder as --output.")
    if not output.exists() or not any(output.iterdir()):
        if output.is_mount():
            raise ValueError(
                f"{output} is a mount point, which cannot be replaced: choose a folder in it as --output."
            )
        return True
    if not (output / REPORT_NAME).is_file() or not data_files(output):
        raise ValueError(f"{output} holds other things than a prepared data set: choose a new folder as --output.")
    return False


def _write_csv(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    if rows:
        with open(path, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows])


def _make_report(
    builder: UtteranceBuilder, features: Features, counts: dict[str, _SplitCounts], failures: list
) -> dict[str, Any]:
    """What report.json has: a split without rows too, where some of it cannot be read or it is an official one."""
    not_read = Counter(split for split, _, _ in failures)
    splits = {}
    for split in SPLITS:
        official = builder.OFFICIAL_COUNTS.get(split)
        if split not in counts and split not in not_read and official is None:
            continue
        count = counts.get(split) or _SplitCounts(features)
        splits[split] = {**count.record(), "not_read": not_read[split]}
        if official is not None:
            splits[split] |= {"official": official, "difference": _difference(splits[split], official)}
    return {
        "data_set": builder.PRETTY_NAME,
        "layout": builder.config.layout,
        "options": {name: str(value) for name, value in builder.config.options.items()},
        "sha256": _hash_of_splits({split: splits[split]["sha256"] for split in splits if split in counts}),
        "splits": splits,
        "videos_in_several_splits": sum(
            number > 1 for number in Counter(video for count in counts.values() for video in count.videos).values()
        ),
        "num_not_read": len(failures),
        "num_left_out": len(builder.source.left_out),
    }


def _difference(counts: dict[str, Any], official: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _difference(counts[name], number) if isinstance(number, dict) else counts[name] - number
        for name, number in official.items()
    }


def format_report(report: dict[str, Any], failures: list[tuple[str, str, str]]) -> str:
    """The report in Markdown, for the card and the screen."""
    splits = report["splits"]
    lines = _size_table(splits)
    for name, what in (
        ("sentiment_7", "Segments of each class of sentiment:"),
        ("emotions", "Segments in which an emotion is present; there may be several in one:"),
    ):
        if any(any(record[name].values()) for record in splits.values()):
            lines += [what, "", *_class_table(splits, name)]
    for name in next(iter(splits.values()))["classes"]:
        rows = [[split, *record["classes"][name].values()] for split, record in splits.items()]
        classes = next(iter(splits.values()))["classes"][name]
        lines += [f"Segments of each class of `{name}`:", "", *_table(["split", *classes], rows)]
    parts = list(next(iter(splits.values()))["missing"])
    rows = [[split, *record["missing"].values()] for split, record in splits.items()]
    lines += ["Segments without:", "", *_table(["split", *parts], rows)]
    if report["videos_in_several_splits"]:
        lines += [f"{report['videos_in_several_splits']:,} videos stand in more than one split.", ""]
    if report["num_left_out"]:
        lines += [f"{report['num_left_out']:,} segments of the source are in no split: {LEFT_OUT_NAME}.", ""]
    if failures:
        lines += [f"{len(failures):,} segments could not be read: {FAILURES_NAME}.", ""]
        lines += [f"- {split}, {name}: {reason}" for split, name, reason in failures[:SHOWN_FAILURES]]
        lines += ["- ..."] * (len(failures) > SHOWN_FAILURES) + [""]
    return "\n".join([*lines, f"Content (all rows in their order): sha256 {report['sha256']}"])


def _size_table(splits: dict[str, dict[str, Any]]) -> list[str]:
    has_official = any("official" in record for record in splits.values())
    header, rows = ["split"], [[split] for split in splits]
    for name in ("segments", "videos"):
        header += [name, *(["official", "difference"] if has_official else [])]
        for row, record in zip(rows, splits.values(), strict=True):
            row.append(record[name])
            if has_official:
                row += [record["official"][name], f"{record['difference'][name]:+,}".replace("+0", "0")]
    for row, record in zip(rows, splits.values(), strict=True):
        row.append(_hours(record))
    return _table([*header, "hours"], rows)


def _hours(record: dict[str, Any]) -> str:
    if record["hours"] is None:
        return "unknown"
    unknown = record["segments_without_times"]
    return f"{record['hours']:.2f}" + (f" ({unknown:,} unknown)" if unknown else "")


def _class_table(splits: dict[str, dict[str, Any]], name: str) -> list[str]:
    rows = []
    for split, record in splits.items():
        rows.append([split, *record[name].values()])
        if name in record.get("official", {}):
            rows.append([f"{split}, official", *record["official"][name].values()])
    return _table(["split", *next(iter(splits.values()))[name]], rows)


def _table(header: list[str], rows: list[list[Any]]) -> list[str]:
    """A table in Markdown whose columns stand one below the other on a screen too."""
    cells = [header, *([f"{value:,}" if isinstance(value, int) else value for value in row] for row in rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    first, *others = widths
    rule = f"|{'-' * (first + 2)}|" + "".join(f"{'-' * (width + 1)}:|" for width in others)
    lines = [
        f"| {row[0]:{first}} |" + "".join(f" {text:>{width}} |" for text, width in zip(row[1:], others, strict=True))
        for row in cells
    ]
    return [lines[0], rule, *lines[1:], ""]


def card_configs(builder: UtteranceBuilder, splits: list[str], content: str | None = None) -> list[dict[str, Any]]:
    """
    The `configs:` of a data set card: each configuration is a choice of columns of the same files. What `datasets` has in
    its cache it finds by what the card says and not by the files: the hash of the content tells it when they change.
    """
    return [
        {
            "config_name": name,
            **({} if content is None else {"description": f"content sha256 {content}"}),
            **({"default": True} if name == builder.DEFAULT_CONFIG_NAME else {}),
            "data_files": [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits],
            "columns": list(builder.features_of(name)),
        }
        for name in builder.builder_configs
    ]


def _write_card(folder: Path, builder: UtteranceBuilder, report: dict, failures: list, template: str | Path | None):
    if template is None:
        data = DatasetCardData(pretty_name=builder.PRETTY_NAME, license=builder.LICENSE, language=["en"])
        text = f"---\n{data.to_yaml()}\n---\n\n# {builder.PRETTY_NAME}\n\n{builder.info.description}\n\n{CARD_MARK}\n"
    else:
        text = Path(template).read_text(encoding="utf-8")
    card = DatasetCard(text)
    num_rows = sum(record["segments"] for record in report["splits"].values())
    splits = [split for split, record in report["splits"].items() if record["segments"]]
    card.data["configs"] = card_configs(builder, splits, report["sha256"])
    card.data["size_categories"] = [_size_category(num_rows)]
    heading = f"## What is in this copy\n\nMade by `prepare_mosei.py` from the layout `{report['layout']}`.\n\n"
    if CARD_MARK not in card.text:
        raise ValueError(f"{template} has no line {CARD_MARK}, which tells where the report goes.")
    card.text = card.text.replace(CARD_MARK, heading + format_report(report, failures))
    (folder / "README.md").write_text(str(card), encoding="utf-8")


def _size_category(num_rows: int) -> str:
    bounds = [(10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M")]
    return next((name for bound, name in bounds if num_rows < bound), "1M<n<10M")
