"""Conversion of any layout to a folder of Parquet files that `datasets.load_dataset` reads and that the Hub takes."""

import csv
import hashlib
import json
import os
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import closing
from itertools import groupby, islice
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
from ..utils.files import atomic_path, scratch_path
from ..utils.tables import markdown_table
from ..utils.workers import worker_pool
from .builders import ROWS_PER_TABLE, UtteranceBuilder, describe_error, read_rows
from .row_hash import ContentHash
from .schema import CLASS_COLUMNS, FEATURE_COLUMNS, SPLITS


REPORT_NAME = "report.json"
FAILURES_NAME = "failures.csv"
LEFT_OUT_NAME = "left_out.csv"
CARD_MARK = "<!-- report -->"
# A row of MOSEI takes up to 140 kB: row groups of 36 MB, which a stream holds in memory, and files of 140 MB.
ROWS_PER_GROUP = 256
ROWS_PER_FILE = 1024
SHOWN_FAILURES = 20


def prepare_dataset(
    builder: UtteranceBuilder, output: str | Path, num_proc: int = 1, card: str | Path | None = None
) -> dict[str, Any]:
    """
    Write all segments of a source to `output`: data/{split}-00000-of-0000N.parquet with the columns of all
    configurations, README.md (a data set card in which each configuration is a view of these files) and report.json;
    if there are any, failures.csv (segments that cannot be read) and left_out.csv (segments in no split).

    The folder is written atomically. A folder that holds the same rows already is left unchanged.

    Args:
        builder: any configuration of the builder that reads the source.
        output: a folder that is empty, does not exist, or was written by this function.
        num_proc: worker processes.
        card: data set card to start from, with the report in the place of `<!-- report -->`; `None` writes a short
            one.

    Returns:
        the contents of report.json, and `failures`, a list of (split, segment, reason).

    Raises:
        ValueError: the source has no segment, or `output` holds something else; OSError: no segment can be read.
    """
    if num_proc < 1:
        raise ValueError(f"--num_proc is {num_proc}; it must be at least 1.")
    output = Path(os.path.realpath(output))
    is_new = _check_output(output)
    source, features = builder.source, builder.features_of(*builder.builder_configs)
    if not any(source.segments.values()):
        raise ValueError(f"{source.folder}: there is no segment in it (layout {builder.config.layout}).")
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(output) if is_new else scratch_path(output) as folder:
        (folder / "data").mkdir(parents=True)
        failures = _write_rows(builder, features, folder / "data", num_proc)
        if not data_files(folder):
            raise OSError(f"{source.folder}: no segment can be read; the first: {': '.join(failures[0][1:])}")
        report = _make_report(folder, builder, features, failures)
        (folder / REPORT_NAME).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        _write_csv(folder / FAILURES_NAME, ("split", "segment_id", "reason"), failures)
        _write_csv(folder / LEFT_OUT_NAME, ("segment_id", "reason"), list(source.left_out.items()))
        _write_card(folder, builder, report, failures, card)
        if not is_new and content_hash(output) != report["sha256"]:
            raise ValueError(f"{output} holds other rows than the source: choose a new folder as --output.")
    return {**report, "failures": failures}


def _check_output(output: Path) -> bool:
    """Return whether the output is still to be written. Raises ValueError for a folder with other files."""
    if output.is_symlink():
        raise ValueError(f"{output} is a link to itself: choose a new folder as --output.")
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file: choose a new folder as --output.")
    if not output.exists() or not any(output.iterdir()):
        if output.is_mount():
            raise ValueError(
                f"{output} is a mount point, which cannot be replaced: choose a folder in it as --output."
            )
        return True
    if not (output / REPORT_NAME).is_file() or not data_files(output):
        raise ValueError(f"{output} holds other files than a prepared data set: choose a new folder as --output.")
    return False


def _write_csv(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    if rows:
        with open(path, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows])


# Reading and writing rows


class _Rows(NamedTuple):
    """Rows of consecutive segments, and (split, segment, reason) of those that cannot be read."""

    split: str
    table: pa.Table
    failures: list[tuple[str, str, str]]


def _write_rows(builder: UtteranceBuilder, features: Features, folder: Path, num_proc: int) -> list:
    """Write all segments; return (split, segment, reason) of those that cannot be read."""
    failures = []
    total = sum(map(len, builder.source.segments.values()))
    with tqdm(total=total, unit="segment", desc="segments", disable=None) as bar:
        for split, results in groupby(_read_all(builder, features, num_proc), key=lambda rows: rows.split):
            files = []
            while some := list(islice(results, max(1, ROWS_PER_FILE // ROWS_PER_TABLE))):
                table = pa.concat_tables([rows.table for rows in some])
                failures += [failure for rows in some for failure in rows.failures]
                bar.update(table.num_rows + sum(len(rows.failures) for rows in some))
                if table.num_rows:  # `datasets` cannot read a row group without rows
                    files.append(folder / f"{split}-{len(files):05d}")
                    write_parquet(table, files[-1])
            for path in files:
                path.rename(f"{path}-of-{len(files):05d}.parquet")
    return failures


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table whose nested columns are features."""
    # Numbers of features are all different: a dictionary, bounds and compression cost time and gain little.
    columns = [field.name for field in table.schema if not pa.types.is_nested(field.type)]
    pq.write_table(
        table,
        path,
        row_group_size=ROWS_PER_GROUP,
        compression=dict.fromkeys(columns, "zstd"),
        use_dictionary=columns,
        write_statistics=columns,
    )


def _read_all(builder: UtteranceBuilder, features: Features, num_proc: int) -> Iterator[_Rows]:
    """Yield all segments in their order, read in this process or in workers."""
    chunks = iter([
        (split, ids[start : start + ROWS_PER_TABLE])
        for split, ids in builder.source.segments.items()
        for start in range(0, len(ids), ROWS_PER_TABLE)
    ])  # fmt: skip
    if num_proc == 1:
        yield from (_read(builder, features, *chunk) for chunk in chunks)
        return
    with worker_pool(num_proc, _set_builder, builder, features) as pool:
        # Only as many chunks as keep the workers busy: rows that are not written yet are held in memory.
        waiting = deque(pool.submit(_read_in_worker, *chunk) for chunk in islice(chunks, 4 * num_proc))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(_read_in_worker, *chunk) for chunk in islice(chunks, 1))


def _set_builder(builder: UtteranceBuilder, features: Features) -> None:
    global _builder_and_features
    _builder_and_features = builder, features


def _read_in_worker(split: str, segment_ids: list[str]) -> _Rows:
    return _read(*_builder_and_features, split, segment_ids)


def _read(builder: UtteranceBuilder, features: Features, split: str, segment_ids: list[str]) -> _Rows:
    failures = []

    def on_bad_row(segment_id: str, error: Exception) -> None:
        failures.append((split, segment_id, describe_error(error)))

    return _Rows(split, read_rows(builder.source, split, segment_ids, features, on_bad_row), failures)


def data_files(folder: str | Path) -> dict[str, list[Path]]:
    """Return {split: its Parquet files in their order} of a prepared folder."""
    files = {split: sorted((Path(folder) / "data").glob(f"{split}-*-of-*.parquet")) for split in SPLITS}
    return {split: paths for split, paths in files.items() if paths}


def _read_batches(paths: list[Path]) -> Iterator[pa.RecordBatch]:
    for path in paths:
        try:
            with closing(pq.ParquetFile(path)) as file:
                for group in range(file.num_row_groups):
                    yield from file.read_row_group(group, use_threads=False).to_batches()
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise OSError(
                f"{path} is damaged or not Parquet ({error}): delete the folder and prepare it again."
            ) from error


def content_hash(folder: str | Path) -> str:
    """Return the sha256 of all rows of a prepared folder, as in its report.json. Raises OSError for a damaged file."""
    hashes = {}
    for split, paths in data_files(folder).items():
        batches = _read_batches(paths)
        first = next(batches)
        rows = ContentHash(first.schema)
        rows.update(first)
        for batch in batches:
            rows.update(batch)
        hashes[split] = rows.hexdigest()
    return _hash_of_splits(hashes)


def _hash_of_splits(hashes: dict[str, str]) -> str:
    return hashlib.sha256("\n".join(f"{split} {value}" for split, value in hashes.items()).encode()).hexdigest()


# Report


def _make_report(folder: Path, builder: UtteranceBuilder, features: Features, failures: list) -> dict[str, Any]:
    """Return the contents of report.json. Splits without rows are in it if official, or if rows cannot be read."""
    not_read = Counter(split for split, _, _ in failures)
    files, splits, videos = data_files(folder), {}, Counter()
    for split in SPLITS:
        official = builder.OFFICIAL_COUNTS.get(split)
        if split not in files and split not in not_read and official is None:
            continue
        counts, of_split = _count(files.get(split, []), features)
        videos.update(of_split)
        splits[split] = {**counts, "not_read": not_read[split]}
        if official is not None:
            splits[split] |= {"official": official, "difference": _difference(splits[split], official)}
    return {
        "data_set": builder.PRETTY_NAME,
        "layout": builder.config.layout,
        "options": {name: str(value) for name, value in builder.config.options.items()},
        "sha256": _hash_of_splits({split: splits[split]["sha256"] for split in splits if split in files}),
        "splits": splits,
        "videos_in_several_splits": sum(number > 1 for number in videos.values()),
        "num_not_read": len(failures),
        "num_left_out": len(builder.source.left_out),
    }


def _count(paths: list[Path], features: Features) -> tuple[dict[str, Any], set[str]]:
    """Return the counts of a split, and its videos."""
    schema, batches = features.arrow_schema, []
    rows, missing = ContentHash(schema), Counter()
    feature_columns = [name for name in FEATURE_COLUMNS if name in schema.names]
    columns = [name for name in schema.names if name not in (*feature_columns, "audio")]
    for batch in _read_batches(paths):
        rows.update(batch)
        missing.update({name: batch.column(name).null_count for name in feature_columns})
        batches.append(batch.select(columns))
    table = pa.Table.from_batches(batches, pa.schema([schema.field(name) for name in columns]))
    seconds = pc.subtract(table["end"], table["start"]).drop_null()
    emotions = [table[name] for name in EMOTIONS]
    has_no_emotions = np.any([column.is_null().to_numpy() for column in emotions], axis=0)
    own = {name: kind for name, kind in features.items() if isinstance(kind, ClassLabel) and name not in CLASS_COLUMNS}
    sentiments = _value_counts(table, "sentiment_7") if "sentiment_7" in columns else Counter()
    videos = set(table["video_id"].drop_null().to_pylist())
    return {
        "segments": len(table),
        "videos": len(videos),
        "hours": round((pc.sum(seconds).as_py() or 0) / 3600, 4) if len(seconds) or not len(table) else None,
        "segments_without_times": len(table) - len(seconds),
        "sentiment_7": {name: sentiments[i] for i, name in enumerate(SENTIMENT_7)},
        "emotions": {name: pc.sum(pc.greater(table[name], 0)).as_py() or 0 for name in EMOTIONS},
        "classes": {
            name: {value: _value_counts(table, name)[i] for i, value in enumerate(kind.names)}
            for name, kind in own.items()
        },
        "missing": {
            "text": table["text"].null_count,
            **{name: missing[name] for name in feature_columns},
            "sentiment": table["sentiment"].null_count,
            "emotions": int(has_no_emotions.sum()),
        },
        "sha256": rows.hexdigest(),
    }, videos


def _value_counts(table: pa.Table, name: str) -> Counter:
    return Counter(table[name].drop_null().to_pylist())


def _difference(counts: dict[str, Any], official: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _difference(counts[name], number) if isinstance(number, dict) else counts[name] - number
        for name, number in official.items()
    }


def format_report(report: dict[str, Any], failures: list[tuple[str, str, str]]) -> str:
    """Format the report as Markdown, for the card and the screen."""
    splits = report["splits"]
    lines = _size_table(splits)
    for name, title in (
        ("sentiment_7", "Segments of each class of sentiment:"),
        ("emotions", "Segments in which an emotion is present; a segment may have several:"),
    ):
        if any(any(record[name].values()) for record in splits.values()):
            lines += [title, "", *_class_table(splits, name)]
    for name in next(iter(splits.values()))["classes"]:
        rows = [[split, *record["classes"][name].values()] for split, record in splits.items()]
        classes = next(iter(splits.values()))["classes"][name]
        lines += [f"Segments of each class of `{name}`:", "", *_table(["split", *classes], rows)]
    parts = list(next(iter(splits.values()))["missing"])
    rows = [[split, *record["missing"].values()] for split, record in splits.items()]
    lines += ["Segments without:", "", *_table(["split", *parts], rows)]
    if report["videos_in_several_splits"]:
        lines += [f"{report['videos_in_several_splits']:,} videos are in more than one split.", ""]
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
    return [*markdown_table(header, rows, align=True).splitlines(), ""]


# Card


def card_configs(builder: UtteranceBuilder, splits: list[str], content: str | None = None) -> list[dict[str, Any]]:
    """
    Return the `configs:` of a data set card: each configuration is a selection of columns of the same files.
    `datasets` looks up its cache by the card and not by the files, so the hash of the content is in it.
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
    heading = f"## What is in this copy\n\nMade by `umons prepare` from the layout `{report['layout']}`.\n\n"
    if CARD_MARK not in card.text:
        raise ValueError(f"{template} has no line {CARD_MARK}, the place of the report.")
    card.text = card.text.replace(CARD_MARK, heading + format_report(report, failures))
    (folder / "README.md").write_text(str(card), encoding="utf-8")


def _size_category(num_rows: int) -> str:
    bounds = [(10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M")]
    return next((name for bound, name in bounds if num_rows < bound), "1M<n<10M")
