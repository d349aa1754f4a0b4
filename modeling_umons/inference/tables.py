"""Batch prediction of tables, folders and data sets into a table: resumable; in several processes, or on Ray."""

import csv
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from .. import __version__
from ..data.builders import describe_error
from ..data.collator import HISTORY
from ..data.conversations import add_history
from ..data.input_tables import InputOptions, InputTable, read_input_table
from ..data.sharding import (
    Engine,
    Failure,
    check_record,
    open_output,
    plan_parts,
    read_failures,
    refuse_launcher,
    write_failures,
    write_shards,
)
from ..models.umons.decoding_umons import DecodingWorker
from ..utils.hub_files import DEFAULT_MODEL, find_model
from .loading import load_pipeline, load_transcriber
from .plots import entries_of


RECORD_NAME = "prediction.json"
# Rows between two saves: an interrupted run computes at most these again.
TEXTS_PER_SHARD, FILES_PER_SHARD = 1024, 64
CALLS_PER_BATCH = 8  # batches of one call of the pipeline
LISTS = ("modalities", "warnings")  # columns of lists, joined by "+" in CSV


@dataclass(frozen=True)
class PredictionSettings:
    """
    Settings that determine the predictions.

    Attributes:
        model: a folder, Hub id, `umons-base` or `umons-mini`.
        trust_remote_code: let a model of another package execute its code.
        options: options of the pipeline. With `granularity`, `chunk_length_s` or `hop_length_s`, a row of the output
            is a segment.
        transcriber: a speech recognition model for files without texts.
        batch_size: rows or segments of a batch.
        shard_size: rows between two saves; 1,024 texts or 64 files by default.
    """

    model: str | None = None
    trust_remote_code: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    transcriber: str | None = None
    batch_size: int = 32
    shard_size: int | None = None

    def __post_init__(self):
        for name in ("batch_size", "shard_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"--{name} is {getattr(self, name)}; it must be at least 1.")

    @property
    def has_segments(self) -> bool:
        """Return whether a row of the output is a segment of an input."""
        names = ("granularity", "chunk_length_s", "hop_length_s")
        return any(self.options.get(name) is not None for name in names)

    def load_pipeline(self, number: int = 0):
        """Load the pipeline, on the GPU of worker `number` if there are GPUs. Raises ValueError for wrong options."""
        recognize = load_pipeline(self.model, self.trust_remote_code, pack=True)
        recognize._sanitize_parameters(**self.options)
        if recognize.device.type == "cuda":
            recognize.device = torch.device("cuda", number % torch.cuda.device_count())
            recognize.model.to(recognize.device)
        return recognize

    def record(self, table: InputTable) -> dict[str, Any]:
        """Return everything that the predictions depend on, as JSON."""
        return {
            "version": __version__,
            "input": f"{len(table.rows)} rows, sha256 {table.fingerprint()}",
            "columns": {**table.inputs, "kept": table.kept},
            "model": _fingerprint_model(self.model or DEFAULT_MODEL),
            "transcriber": self.transcriber,
            "options": {name: value for name, value in self.options.items() if value is not None},
            "shard_size": self.shard_size or (FILES_PER_SHARD if table.has_files else TEXTS_PER_SHARD),
        }


def _fingerprint_model(name: str) -> str:
    """Return a hash of the files of a model, or the name of a Hub repository with its commit."""
    folder = Path(find_model(name))
    if not folder.is_dir():
        from transformers import PreTrainedConfig

        return f"{name} {PreTrainedConfig.get_config_dict(name)[0].get('_commit_hash')}"
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix != ".md":
            with open(path, "rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return f"sha256 {digest.hexdigest()}"


# Rows


class OutputColumns:
    """
    Columns of the output.

    Args:
        recognize: the pipeline.
        table: the input.
        settings: of the prediction.

    Raises:
        ValueError: a column of the input that is kept has the name of one of the results.
    """

    def __init__(self, recognize, table: InputTable, settings: PredictionSettings):
        config, times = recognize.model.config, {"start": pa.float64(), "end": pa.float64()}
        first: dict[str, pa.DataType] = {"row": pa.int64()}
        results: dict[str, pa.DataType] = {"modalities": pa.list_(pa.string())}
        if settings.has_segments:
            results |= {"segment_index": pa.int64(), **times}
        if getattr(config, "joint_sentiment", False) or not recognize.labels:
            results["sentiment"] = pa.float64()
            if getattr(config, "calibration", None):
                results |= {"sentiment_low": pa.float64(), "sentiment_high": pa.float64()}
        last = {"label": pa.string(), "confidence": pa.float64(), "warnings": pa.list_(pa.string())}
        last |= {"text": pa.string()} if settings.transcriber else {}
        last["error"] = pa.string()
        taken = {*first, *results, *last}
        self.kept = [name for name in table.kept if not (settings.has_segments and name in times)]
        if clash := sorted(taken & set(self.kept)):
            raise ValueError(f"--keep_columns {clash[0]}: the output has its own column {clash[0]}. Leave it out.")
        self.scores = _name_scores(recognize.labels, taken | set(self.kept))
        kinds = pa.schema({name: table.rows.features[name].pa_type for name in self.kept})
        scores = dict.fromkeys(self.scores.values(), pa.float64())
        self.schema = pa.schema([*pa.schema(first), *kinds, *pa.schema({**results, **scores, **last})])

    def to_row(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return the columns of a result of the pipeline, without those that are kept of the input."""
        low, high = result.get("sentiment_interval", (None, None))
        start, end = result.get("timestamp", (None, None))
        row = {name: result.get(name) for name in ("sentiment", "label", "confidence", "text", "error")}
        row |= {"sentiment_low": low, "sentiment_high": high, "start": start, "end": end}
        row |= {"modalities": result.get("modalities", [])}
        row |= {"warnings": [warning["code"] for warning in result.get("warnings", ())]}
        row |= {self.scores[entry["label"]]: entry["score"] for entry in entries_of(result)}
        return {name: value for name, value in row.items() if name not in self.kept}


def _name_scores(labels: Sequence[str], taken: set[str]) -> dict[str, str]:
    """Return a column for each label; `score_` precedes a label that is another column."""
    names: dict[str, str] = {}
    for label in labels:
        name = label
        while name in taken or name in names.values():
            name = f"score_{name}"
        names[label] = name
    return names


class RowPredictor:
    """
    Predictor of the rows of a shard.

    Args:
        table: the input.
        settings: of the prediction.
        number: number of this worker on its machine, which selects the GPU.
    """

    def __init__(self, table: InputTable, settings: PredictionSettings, number: int = 0):
        self.table, self.settings = table, settings
        self.recognize = settings.load_pipeline(number)
        names = [HISTORY, "speaker"] if getattr(self.recognize.model.config, "context_size", 0) else []
        self.history_columns = [name for name in names if name in table.rows.column_names]
        self.columns = OutputColumns(self.recognize, table, settings)
        self.options = {**settings.options, "on_error": "return"}
        if settings.transcriber is not None:
            self.options["transcriber"] = load_transcriber(settings.transcriber)

    @cached_property
    def decoder(self) -> DecodingWorker:
        """Decoder of ranges of files."""
        return DecodingWorker()

    def __call__(self, rows: Sequence[int], on_rows: Callable[[int], Any]) -> tuple[pa.Table, list[Failure]]:
        """Return the predictions of rows in their order, and the failures."""
        columns = [*filter(None, [self.table.inputs.get("text")]), *self.columns.kept]
        given = self.table.rows.select_columns(list(dict.fromkeys(columns)))[rows] if columns else {}
        text_column = self.table.inputs.get("text")
        texts = dict(zip(rows, given[text_column], strict=True)) if text_column is not None else {}
        # Texts of similar length make batches with little padding.
        order = sorted(rows, key=lambda row: len(str(texts.get(row) or "")))
        results: dict[int, list[dict[str, Any]]] = {}
        size = self.settings.batch_size * CALLS_PER_BATCH
        for part in (order[first : first + size] for first in range(0, len(order), size)):
            results |= self._predict(part, texts)
            on_rows(len(part))
        table, failures = [], []
        for position, row in enumerate(rows):
            kept = {"row": row, **{name: given[name][position] for name in self.columns.kept}}
            for segment, result in enumerate(results[row]):
                table.append({**kept, "segment_index": segment, **self.columns.to_row(result)})
                if "error" in result:
                    failures.append((row, self.table.name(row), result["error"]))
        return pa.Table.from_pylist(table, self.columns.schema), failures

    def _predict(self, rows: Sequence[int], texts: dict[int, Any]) -> dict[int, list[dict[str, Any]]]:
        """Predict rows; after an unexpected error, one by one."""
        results: dict[int, list[dict[str, Any]]] = {}
        passed: list[int] = []  # rows that have reached the pipeline, in the order of its results

        def make_inputs() -> Iterator[dict[str, Any]]:
            for row in rows:
                try:
                    inputs = self._make_input(row, texts.get(row))
                except Exception as error:  # whatever a damaged file does to its decoder: the others are still wanted
                    results[row] = [{"error": describe_error(error)}]
                else:
                    passed.append(row)
                    yield inputs

        try:
            predicted = self.recognize(make_inputs(), batch_size=self.settings.batch_size, **self.options)
            for position, result in enumerate(predicted):
                self._add(results, passed[position], result)
        except Exception as error:
            if len(rows) == 1:
                return {rows[0]: [{"error": describe_error(error)}]}
            for row in rows:
                if row not in results:
                    results |= self._predict([row], texts)
        return results

    def _add(self, results: dict[int, list[dict[str, Any]]], row: int, result: Any) -> None:
        """Add a result, or the results of the segments with times from the beginning of the file."""
        segments = result if isinstance(result, list) else [result]
        results[row] = segments or [{"modalities": []}]  # an input without speech has a row too
        offset = self._offsets.pop(row, 0.0)
        for segment in results[row]:
            if offset and "timestamp" in segment:
                segment["timestamp"] = tuple(offset + time for time in segment["timestamp"])

    @cached_property
    def _offsets(self) -> dict[int, float]:
        """Map rows of the current batch to the beginnings of their ranges, in seconds."""
        return {}

    def _make_input(self, row: int, text: Any) -> dict[str, Any]:
        """Return the input of the pipeline. Raises ValueError for a row without any."""
        inputs: dict[str, Any] = {} if text is None else {"text": str(text)}
        if self.table.has_files:
            files = self.table.read_files(row)
            start, end = files.pop("start", None), files.pop("end", None)
            files = {name: file for name, file in files.items() if file is not None}
            if files and (start is not None or end is not None):
                self._offsets[row] = start or 0.0
                files = self._decode(files, start, end)
            inputs |= files
        if inputs and self.history_columns:
            inputs |= self.table.rows.select_columns(self.history_columns)[row]
        if not inputs:
            columns = " and ".join(f"`{column}`" for column in self.table.inputs.values())
            raise ValueError(f"The row has nothing in {columns}.")
        return inputs

    def _decode(self, files: dict[str, str | bytes], start: float | None, end: float | None) -> dict[str, Any]:
        """Decode a range of the files of a row."""
        config, processor = self.recognize.model.config, self.recognize.processor
        has_pictures = any(getattr(config, name, None) is not None for name in ("video_tower", "video_encoder"))
        size = processor.video_processor.size
        inputs: dict[str, Any] = {}
        for name, file in files.items():
            clip = self.decoder.read_clip(
                file,
                start=start,
                end=end,
                sampling_rate=processor.feature_extractor.sampling_rate,
                video=has_pictures and name == "video",
                frame_rate=processor.video_processor.frame_rate,
                size=(size["height"], size["width"]),
            )
            if clip.audio is not None and "audio" not in inputs:
                inputs |= {"audio": clip.audio, "sampling_rate": clip.sampling_rate}
            if clip.frames is not None:
                inputs["video"] = clip.frames
        return inputs


# Tables


@dataclass
class PredictionReport:
    """Numbers of input rows and of those that failed, (row, file, reason) of these, and the columns of the inputs."""

    num_rows: int
    num_failed: int
    failures: list[Failure]
    inputs: dict[str, str]


def predict_table(
    sources: Sequence[str],
    output: str | Path,
    settings: PredictionSettings,
    input_options: InputOptions | None = None,
    engine: Engine | None = None,
) -> PredictionReport:
    """
    Predict all rows of an input, and write a row for each, or for each of its segments, in the order of the input.

    ```python
    >>> predict_table(["clips.csv"], "predictions.parquet", PredictionSettings("umons-mini"))
    ```

    Rows that are done are kept in the folder `<output>.parts` until the output is written, atomically, so that the
    same call resumes an interrupted run. Rows that failed have an `error`, and are also in `<output>.failures.csv`.

    Args:
        sources: inputs of [`~modeling_umons.data.input_tables.read_input_table`].
        output: a file ending in .parquet, .csv or .jsonl.
        settings: of the prediction.
        input_options: columns and rows to read.
        engine: processes that predict; one process for each GPU, or one, by default.

    Raises:
        ValueError: the input or the output is not usable, an interrupted run had other settings, or a launcher has
            started several processes; OSError: a file cannot be read or written.
    """
    refuse_launcher("Prediction of tables")
    output = Path(output).absolute()
    check_output(output, sources)
    work = output.with_name(f"{output.name}.parts")
    with _removed_after_errors(work):
        table = read_input_table(sources, input_options or InputOptions(), work)
        recognize = settings.load_pipeline()
        OutputColumns(recognize, table, settings)  # errors of the model appear here, once
        record, has_parts = settings.record(table), any(work.glob("[!.]*.parquet"))
        remedy = "delete that folder to start again, or choose another --output"
        check_record(work / RECORD_NAME, record, "predictions", remedy, has_other_files=has_parts)
    shards = plan_parts(len(table.rows), record["shard_size"])
    if "text" in table.inputs:
        table.rows = add_history(table.rows, getattr(recognize.model.config, "context_size", 0), table.inputs["text"])
    build = partial(RowPredictor, table, settings)
    write_shards(build, shards, work, engine or Engine(), label="Prediction")
    failures, failures_path = read_failures(work, shards), name_failures(output)
    if failures:
        write_failures(failures_path, failures)
    else:
        failures_path.unlink(missing_ok=True)
    _join_parts([work / shard.name for shard in shards], output)
    _remove_folder(work)
    return PredictionReport(len(table.rows), len({row for row, _, _ in failures}), failures, table.inputs)


@contextmanager
def _removed_after_errors(work: Path) -> Iterator[None]:
    """Remove a new folder, which has at most the copy of a table, if a run fails before its first row."""
    is_new = not work.exists()
    try:
        yield
    except BaseException:
        if is_new:
            shutil.rmtree(work, ignore_errors=True)
        raise


def check_output(output: Path, sources: Sequence[str]) -> None:
    """Raise ValueError or OSError for an output that cannot be written, or that is an input."""
    if output.suffix not in WRITERS:
        raise ValueError(f"--output {output}: the suffix must be one of {', '.join(WRITERS)}.")
    if output.is_dir():
        raise IsADirectoryError(f"--output {output} is a folder: name a file in it.")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"--output {output}: there is no folder {output.parent}. Create its folder first.")
    for source in sources:
        for path in (output, name_failures(output)):
            if Path(source).resolve() == path.resolve():
                raise ValueError(f"--output {output} would replace the input {source}: choose another file.")


def name_failures(output: Path) -> Path:
    """Return the path of the table of failures."""
    return output.with_name(f"{output.stem}.failures.csv")


def _join_parts(parts: list[Path], output: Path) -> None:
    """Write the rows of all parts to the output, atomically."""
    schema = pq.read_schema(parts[0]).remove_metadata()
    with open_output(output) as temporary:
        WRITERS[output.suffix](temporary, schema, (pq.read_table(part).cast(schema) for part in parts))


def _remove_folder(work: Path) -> None:
    """Remove the parts and, last of all, their record: a run that is killed meanwhile resumes."""
    for path in [path for path in work.iterdir() if path.name != RECORD_NAME]:
        path.unlink()
    (work / RECORD_NAME).unlink()
    work.rmdir()


def _write_parquet(path: Path, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
    with pq.ParquetWriter(path, schema) as writer:
        for table in tables:
            writer.write_table(table)


def _write_csv(path: Path, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, schema.names, lineterminator="\n")
        writer.writeheader()
        for table in tables:
            writer.writerows(map(_to_cells, table.to_pylist()))


def _to_cells(row: dict[str, Any]) -> dict[str, Any]:
    joined = {name: "+".join(row[name] or ()) for name in LISTS}
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in (row | joined).items()}


def _write_jsonl(path: Path, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for table in tables:
            rows = (json.dumps(row, ensure_ascii=False, default=str) for row in table.to_pylist())  # dates are texts
            file.writelines(f"{row}\n" for row in rows)


WRITERS = {".parquet": _write_parquet, ".csv": _write_csv, ".jsonl": _write_jsonl}
