"""Inputs of batch prediction: tables, folders of clips, and data sets of `datasets`, of any number of rows.

Tables are copied to an Arrow file, which worker processes map into memory: a row takes none there before it is read.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Audio, Dataset, Value, Video, concatenate_datasets

from ..utils.suggest import did_you_mean, nearest
from .arguments import DataArguments
from .audio_files import refuse_address
from .clip_tables import MEDIA_SUFFIXES, TABLE_NAMES, list_clips
from .row_hash import ContentHash
from .rows import USUAL_COLUMNS, load_dataset_splits
from .sharding import open_output
from .tables import TABLE_SUFFIXES, read_rows


COPY_NAME = "input.arrow"
CHUNK = 4096  # rows of a table that are in memory at once
UNIQUE_COLUMNS = ("id", "utterance_id", "segment_id")  # a row has its own value of them
# Identifiers; some of them order the utterances of a conversation.
KEPT_COLUMNS = (*UNIQUE_COLUMNS, "video_id", "segment", "speaker", "split")
AUDIO_NAMES = ("audio", "wav", "audio_path")  # usual names of files whose pictures are not read
INTEGER = re.compile(r"0|-?[1-9]\d{0,17}")  # "007" stays text
TIME_COLUMNS = ("start", "end")
SCALARS: dict[type, pa.DataType] = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}


@dataclass(frozen=True)
class InputOptions:
    """
    Columns and rows to read.

    Attributes:
        text_column, audio_column, video_column: columns of texts, of files of which only the audio is used, and of
            files. By default those with a usual name.
        keep_columns: columns that are copied to the output; identifiers and names of files by default.
        split: the split to read; all by default.
        dataset_config_name: configuration of a data set.
    """

    text_column: str | None = None
    audio_column: str | None = None
    video_column: str | None = None
    keep_columns: tuple[str, ...] | None = None
    split: str | None = None
    dataset_config_name: str | None = None


@dataclass
class InputTable:
    """
    Rows to predict.

    Attributes:
        rows: a data set that is mapped into memory. Audio and video are not decoded.
        inputs: columns by input of the pipeline: "text", "audio", "video".
        kept: columns that are copied to the output.
        folder: folder of relative paths.
    """

    rows: Dataset
    inputs: dict[str, str]
    kept: list[str]
    folder: Path | None = None

    @property
    def has_files(self) -> bool:
        return bool({"audio", "video"} & self.inputs.keys())

    def read_files(self, index: int) -> dict[str, Any]:
        """
        Return the files of a row, paths or bytes, as "audio" and "video", and its range, seconds or `None`, as "start"
        and "end".

        Raises:
            ValueError: the range is not one of numbers, or a file is an address; FileNotFoundError: there is no such
                file.
        """
        columns = {name: self.inputs[name] for name in ("audio", "video") if name in self.inputs}
        times = [name for name in TIME_COLUMNS if columns and name in self.rows.column_names]
        row = self.rows.select_columns([*columns.values(), *times])[index]
        seconds = {name: _to_seconds(name, row[name]) for name in times}
        files = {name: self._locate(row[column]) for name, column in columns.items()}
        for name, file in files.items():
            if isinstance(file, str) and not Path(file).exists():
                refuse_address(row[columns[name]])
                raise FileNotFoundError(f"{file}: there is no such file.")
        return {**files, **seconds}

    def name(self, index: int) -> str:
        """Return the name of a row in messages: its file, or its first identifier."""
        for column in [self.inputs[name] for name in ("video", "audio") if name in self.inputs] + self.kept:
            value = self.rows.select_columns(column)[index][column]
            value = value["path"] if isinstance(value, dict) else value
            if value is not None and not isinstance(value, bytes):
                return str(value)
        return ""

    def fingerprint(self) -> str:
        """Return a hash of the columns that the results depend on, and of the sizes of the files."""
        columns = [*self.inputs.values(), *self.kept, *KEPT_COLUMNS, *TIME_COLUMNS]
        table = self.rows.select_columns(list(dict.fromkeys(c for c in columns if c in self.rows.column_names)))
        digest = ContentHash(table.with_format("arrow")[:0].schema)
        sizes = ContentHash(pa.schema({"bytes": pa.int64()}))
        for batch in table.with_format("arrow").iter(CHUNK):
            for part in batch.to_batches():
                digest.update(part)
            for column in (self.inputs[name] for name in ("audio", "video") if name in self.inputs):
                paths = [self._locate(value) for value in batch[column].to_pylist()]
                found = [Path(p).stat().st_size if isinstance(p, str) and Path(p).is_file() else None for p in paths]
                sizes.update(pa.record_batch({"bytes": pa.array(found, pa.int64())}))
        return digest.hexdigest()[:32] + sizes.hexdigest()[:32]

    def _locate(self, value: Any) -> str | bytes | None:
        """Return a value of a column of files as bytes or a path; addresses are not fetched."""
        if isinstance(value, dict):
            if value.get("bytes"):
                return value["bytes"]
            value = value.get("path")
        if value is None or value == "" or isinstance(value, bytes):
            return value or None
        return str((self.folder or Path()) / str(value))


def read_input_table(sources: Sequence[str], options: InputOptions, work: Path) -> InputTable:
    """
    Read the rows to predict.

    Args:
        sources: files, or one of: a table (.csv, .tsv, .jsonl, .parquet), a folder of clips, with or without a table
            metadata.csv, and a folder or Hub repository of `datasets`, also as `hf://datasets/USER/NAME`.
        options: columns and rows to read.
        work: folder for the copy of a table.

    Raises:
        OSError: an input does not exist; ValueError: it has no rows, no column of texts or files, or rows with the
            same identifier.
    """
    source = sources[0]
    if source.startswith("hf://"):
        source = _resolve_hub_path(source)
    path = Path(source)
    metadata = next((path / name for name in TABLE_NAMES if (path / name).is_file()), None)
    if len(sources) > 1 or path.suffix.lower() in MEDIA_SUFFIXES:
        rows, folder = Dataset.from_dict({"file": list(sources)}), Path.cwd()
    elif metadata is not None or (path.suffix.lower() in TABLE_SUFFIXES and not path.is_dir()):
        table = metadata or path
        rows, folder = _copy_table(table, options, work), table.parent.absolute()
    elif path.is_dir() and (clips := list_clips(path)):
        rows, folder = Dataset.from_dict({"file": clips}), path.absolute()
    elif path.is_file():
        raise ValueError(f"{source} is not a table ({', '.join(TABLE_SUFFIXES)}) and not a clip.")
    else:
        rows, folder = _load_dataset(source, options), None
    if not len(rows):
        raise ValueError(f"{source} has no rows: there is nothing to predict.")
    inputs = _find_inputs(source, rows, options)
    for name in inputs.keys() - {"text"}:
        feature = rows.features[inputs[name]]
        if isinstance(feature, (Audio, Video)):
            rows = rows.cast_column(inputs[name], type(feature)(decode=False))
    table = InputTable(rows, inputs, _find_kept(source, rows, inputs, options), folder)
    _check_identifiers(source, table)
    return table


def _resolve_hub_path(source: str) -> str:
    """Return the data set of `hf://datasets/USER/NAME`, or a downloaded file of `hf://datasets/USER/NAME/PATH`."""
    parts = source.removeprefix("hf://").removeprefix("datasets/").split("/", 2)
    if not source.startswith("hf://datasets/") or len(parts) < 2 or not all(parts):
        raise ValueError(f"{source} is not hf://datasets/USER/NAME or hf://datasets/USER/NAME/FILE.")
    if len(parts) == 2:
        return "/".join(parts)
    from huggingface_hub import hf_hub_download

    return hf_hub_download("/".join(parts[:2]), parts[2], repo_type="dataset")


def _load_dataset(source: str, options: InputOptions) -> Dataset:
    if source.startswith((".", "/")) and not Path(source).exists():
        raise FileNotFoundError(f"{source}: there is no such file or folder.")
    try:
        splits = load_dataset_splits(source, DataArguments(dataset_config_name=options.dataset_config_name))
    except (OSError, ValueError) as error:
        if Path(source).exists():
            raise
        raise OSError(f"{source} is not a file or folder here, and not a data set that loads: {error}") from error
    if options.split is not None:
        if options.split not in splits:
            raise ValueError(f"--split {options.split}: {source} has the splits {', '.join(splits)}.")
        splits = {options.split: splits[options.split]}
    parts = []
    for name, rows in splits.items():
        rows = rows.with_format(None)
        parts.append(rows if "split" in rows.column_names else rows.add_column("split", [name] * len(rows)))
    return concatenate_datasets(parts)


def _find_inputs(source: str, rows: Dataset, options: InputOptions) -> dict[str, str]:
    """Return the columns by input of the pipeline."""
    given = {name: getattr(options, f"{name}_column") for name in ("text", "audio", "video")}
    columns = rows.column_names
    for name, column in given.items():
        if column is not None and column not in columns:
            raise ValueError(
                f"--{name}_column {column}: {source} has no such column; its columns are {', '.join(columns)}."
                f"{did_you_mean(column, columns)}"
            )
    inputs = {name: column for name, column in given.items() if column is not None}
    by_lower = {name.lower(): name for name in columns}
    if "text" not in inputs:
        usual = [by_lower[name] for name in USUAL_COLUMNS["text_column"] if name in by_lower]
        usual = [column for column in usual if _is_scalar(rows.features[column])]
        inputs |= {"text": usual[0]} if usual else {}
    elif not _is_scalar(rows.features[inputs["text"]]):
        raise ValueError(f"--text_column {inputs['text']}: {source} has no texts in this column. Name another one.")
    if not {"audio", "video"} & inputs.keys():
        media = [name for name, feature in rows.features.items() if isinstance(feature, (Audio, Video))]
        usual = [by_lower[name] for name in USUAL_COLUMNS["audio_column"] if name in by_lower]
        for column in [*media, *usual][:1]:
            inputs["audio" if column.lower() in AUDIO_NAMES else "video"] = column
    if not inputs:
        near = {"--text_column": nearest("text", columns), "--video_column": nearest("file_name", columns)}
        hint = " ".join(f"{option} {column}" for option, column in near.items() if column) or "--text_column COLUMN"
        raise ValueError(
            f"{source} has no column of texts or files; its columns are {', '.join(columns)}. Name one, as in {hint}."
        )
    return inputs


def _find_kept(source: str, rows: Dataset, inputs: Mapping[str, str], options: InputOptions) -> list[str]:
    """Return the columns to copy to the output."""
    names = rows.column_names
    scalars = [name for name, feature in rows.features.items() if _is_scalar(feature)]
    if options.keep_columns is None:
        files = [inputs[name] for name in ("audio", "video") if name in inputs]
        return [n for n in scalars if n in (*KEPT_COLUMNS, *TIME_COLUMNS, *files) or n.endswith("_id")]
    for column in options.keep_columns:
        if column not in scalars:
            fact = "no such column" if column not in names else "no numbers or texts in this column"
            raise ValueError(f"--keep_columns {column}: {source} has {fact}.{did_you_mean(column, scalars)}")
    return list(dict.fromkeys(options.keep_columns))


def _is_scalar(feature: Any) -> bool:
    """Return whether a column has numbers or texts, not lists, bytes or media."""
    return isinstance(feature, Value) and "binary" not in feature.dtype


def _check_identifiers(source: str, table: InputTable) -> None:
    """Raise ValueError for rows with the same identifier."""
    for column in (name for name in UNIQUE_COLUMNS if name in table.kept):
        values = table.rows.select_columns(column).with_format("arrow")[:][column]
        counts = pc.value_counts(values.drop_null())
        repeated = counts.filter(pc.greater(counts.field("counts"), 1))
        if len(repeated):
            value = repeated[0]["values"]
            first = pc.index(values, value).as_py()
            second = first + 1 + pc.index(values.slice(first + 1), value).as_py()
            raise ValueError(
                f"{source}: rows {first} and {second} have the same {column}, {value.as_py()!r}: give each row its "
                f"own, or leave out {column} with --keep_columns."
            )


def _to_seconds(name: str, value: Any) -> float | None:
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r} is not a number of seconds") from None


# Copies of tables


def _copy_table(path: Path, options: InputOptions, work: Path) -> Dataset:
    """Copy the columns of single values and of encoded media to an Arrow file, which is mapped into memory."""
    is_parquet = path.suffix.lower() == ".parquet" and path.is_file()
    schema, batches = _open_parquet(path) if is_parquet else _open_text_table(path)
    work.mkdir(parents=True, exist_ok=True)
    with open_output(work / COPY_NAME) as temporary, pa.ipc.new_stream(temporary, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    rows = Dataset.from_file(str(work / COPY_NAME))
    if options.split is not None:
        if "split" not in rows.column_names:
            raise ValueError(f"--split {options.split}: {path} has no column `split`.")
        splits = rows.data.column("split").cast(pa.string())
        names = [name for name in splits.unique().to_pylist() if name is not None]
        if options.split not in names:
            raise ValueError(f"--split {options.split}: {path} has the splits {', '.join(names)}.")
        rows = rows.select(pc.indices_nonzero(pc.equal(splits, options.split)))
    return rows


def _open_parquet(path: Path) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a table: it cannot be read as Parquet ({error}).") from error
    fields = []
    for field in file.schema_arrow:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        is_media = pa.types.is_struct(kind) and {"bytes", "path"} <= {child.name for child in kind}
        if is_media or not pa.types.is_nested(kind):
            fields.append(field.with_type(kind))
    schema = pa.schema(fields)

    def read() -> Iterator[pa.RecordBatch]:
        with file:
            try:
                for batch in file.iter_batches(batch_size=256, columns=schema.names):
                    yield batch.select(schema.names).cast(schema)
            except (pa.ArrowException, OSError) as error:  # pyarrow raises OSError for damaged pages
                raise ValueError(f"{path} is not a table: it cannot be read as Parquet ({error}).") from error

    return schema, read()


def _open_text_table(path: Path) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Return the schema of CSV, TSV or JSON lines, found by reading it once, and its rows."""
    found: dict[str, set[type]] = {}
    find_type = _type_of_value if path.suffix.lower() == ".jsonl" else _type_of_cell
    for _, row in read_rows(path):
        for name, value in row.items():
            types = found.setdefault(name, set())
            if value is not None:
                types.add(find_type(value))
    # A column without values is one of texts.
    kinds = {name: _join_types(types) for name, types in found.items()}
    kept = {name: kind for name, kind in kinds.items() if kind is not None}
    schema = pa.schema({name: SCALARS[kind] for name, kind in kept.items()})

    def read() -> Iterator[pa.RecordBatch]:
        rows = (row for _, row in read_rows(path))
        while chunk := list(islice(rows, CHUNK)):
            columns = {name: [_convert(row.get(name), kind) for row in chunk] for name, kind in kept.items()}
            yield pa.RecordBatch.from_pydict(columns, schema)

    return schema, read()


def _type_of_cell(value: str) -> type:
    return int if INTEGER.fullmatch(value) else str


def _type_of_value(value: Any) -> type:
    if type(value) is int and not -(2**63) <= value < 2**63:
        return str
    return type(value)


def _join_types(types: set[type]) -> type | None:
    """Return the type of a column: text for mixed ones, `None` for lists and objects."""
    if types - SCALARS.keys():
        return None
    if types <= {int, float} and types:
        return float if float in types else int
    return types.pop() if len(types) == 1 else str


def _convert(value: Any, kind: Callable[[Any], Any]) -> Any:
    return None if value is None else kind(value)
