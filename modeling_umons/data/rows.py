"""Loading of tables and data sets of utterances, and selection of the rows that a model can use."""

import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import (
    Audio,
    ClassLabel,
    Dataset,
    DatasetBuilder,
    DatasetDict,
    Features,
    List,
    Value,
    concatenate_datasets,
    load_dataset_builder,
    load_from_disk,
)
from datasets.exceptions import DatasetsError

from ..models.umons.feature_extraction_umons import is_silent
from ..tasks.labels import class_name
from ..tasks.task import OWN_LABELS, Task, scale_advice
from ..utils.suggest import nearest
from .arguments import DataArguments
from .audio_files import end_worker, read_audio
from .clip_tables import warn_of_other_files
from .collator import HISTORY, SOUND, UtteranceCollator
from .conversations import ConversationCollator, add_history
from .schema import SPLIT_NAMES, SPLITS, TIME_COLUMNS, make_features
from .streams import open_stream, read_heads
from .tables import TABLE_SUFFIXES, read_table


logger = logging.getLogger(__name__)

ROWS_IN_MEMORY = 64  # decoded audio; half a minute takes two megabytes
# Columns that identify rows in reports, order them in a conversation, and give the times of words. They are kept.
IDENTITY_COLUMNS = (
    "segment_id", "video_id", "segment", "start", "source", "speaker", HISTORY, "gender", "intensity", "words",
    *TIME_COLUMNS,
)  # fmt: skip
PLACE_COLUMN = "_place"  # file and line of a row, for messages
GROUP_COLUMNS = ("video_id", "speaker")  # rows of one group are alike, and are held out together
ENOUGH_WORDS = 4  # equal texts of fewer words, such as "thank you", are no sign of a leak
# Usual names of columns, by the option that names them.
USUAL_COLUMNS = {
    "audio_column": ("file_name", "file", "filename", "path", "audio", "video", "clip", "wav", "audio_path"),
    "text_column": ("text", "sentence", "transcript", "transcription", "utterance", "content", "review", "comment",
                    "message", "tweet", "post", "body"),
    "label_columns": ("label", "emotion", "class", "category", "target"),
    "sentiment": ("sentiment", "stars", "rating", "score", "polarity", "valence"),
}  # fmt: skip
FEW_VALIDATION_ROWS = 20
SHOWN_CLASSES = 10


def load_splits(source: str | Path, data: DataArguments, split: str = "train") -> DatasetDict:
    """
    Load all splits of a table, or of a folder or Hub repository that `load_dataset` takes. Classes are names, and
    files are not decoded. A table without a column `split` is the split `split`. Other names of splits, such as dev,
    become those of `SPLITS`.

    Raises:
        OSError, ValueError: the data set cannot be read, or has no rows of `split`.
    """
    if Path(source).is_file() or Path(source).suffix in TABLE_SUFFIXES:
        table = load_table(source, data.audio_column, PLACE_COLUMN)
        if "split" not in table.column_names:
            logger.warning("%s has no column `split`: all %d rows are the %s split.", source, len(table), split)
        splits = split_by_column(table) if "split" in table.column_names else {split: table}
    else:
        loaded, splits = load_dataset_splits(source, data), {}
        for name, rows in loaded.items():
            name = SPLIT_NAMES.get(name.lower(), name)
            if name in splits:
                raise ValueError(f"{source} has several splits that mean {name!r}: rename or remove one.")
            splits[name] = undecoded(rows, data.audio_column)
    if not len(splits.get(split, ())):
        sizes = ", ".join(f"{name} ({len(rows)} rows)" for name, rows in splits.items())
        raise ValueError(f"{source} has no rows of the split {split!r}; its splits are {sizes}.")
    return DatasetDict({name: name_classes(rows, class_column(data)) for name, rows in splits.items()})


class FileAudio(Audio):
    """Audio column of files, which `datasets` stores without decoding, and therefore without torchcodec."""

    def encode_example(self, value: Any) -> dict[str, Any]:
        return {"bytes": None, "path": value} if isinstance(value, str) else dict(value)


def load_dataset_splits(source: str | Path, data: DataArguments) -> Mapping[str, Dataset]:
    """Load the splits of a data set of `datasets`. Raises ValueError with the cause if it cannot be loaded."""
    if data.streaming:
        return read_heads(open_stream(source, data.dataset_config_name), data.streaming_buffer)
    if any(Path(source, name).is_file() for name in ("dataset_dict.json", "state.json")):
        saved = load_from_disk(str(source))
        return saved if isinstance(saved, DatasetDict) else {"train": saved}
    try:
        builder = load_dataset_builder(str(source), data.dataset_config_name)
        if getattr(builder, "BASE_FEATURE", None) is Audio:
            builder.BASE_FEATURE = FileAudio
        builder.download_and_prepare()
        loaded = builder.as_dataset()
    except (DatasetsError, ValueError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = "" if cause is error else f" ({type(cause).__name__}: {cause})"
        raise ValueError(f"{source} cannot be loaded: {error}{reason}") from error
    _check_class_names(builder, class_column(data))
    if getattr(builder, "BASE_FEATURE", None) is FileAudio and Path(source).is_dir():
        column = builder.BASE_COLUMN_NAME
        paths = (row["path"] for rows in loaded.values() for row in undecoded(rows, column)[column])
        warn_of_other_files(Path(source), {os.path.normpath(path) for path in paths}, is_complete=True)
    return loaded


def _check_class_names(builder: DatasetBuilder, column: str) -> None:
    """
    Check that the class names of a column are equal in all local Parquet files: `datasets` reads the class numbers of
    every file with the names of the first one. Raises ValueError if they differ.
    """
    if not isinstance((builder.info.features or {}).get(column), ClassLabel):
        return
    names: dict[tuple[str, ...], str] = {}
    for file in (str(file) for files in (builder.config.data_files or {}).values() for file in files):
        if Path(file).suffix == ".parquet" and Path(file).is_file():
            feature = Features.from_arrow_schema(pq.read_schema(file)).get(column)
            if isinstance(feature, ClassLabel):
                names.setdefault(tuple(feature.names), file)
    if len(names) > 1:
        found = "; ".join(f"{', '.join(classes)} in {Path(file).name}" for classes, file in names.items())
        raise ValueError(
            f"The classes of {column!r} differ between files: {found}. Save the column as text, or with the same "
            "names in the same order."
        )


def load_training_splits(data: DataArguments, seed: int) -> DatasetDict:
    """
    Load the rows of train, validation and, if there is one, test. Without a validation split, a share of the training
    rows is held out, drawn by `seed`. Rows that are also in another split are reported.

    Raises:
        OSError, ValueError: a table cannot be read, or train or validation has no rows.
    """
    if (data.train_file is None) == (data.dataset_name is None):
        raise ValueError("Pass the training data as either --train_file or --dataset_name.")
    files = {"validation": data.validation_file, "test": data.test_file}
    files = {split: file for split, file in files.items() if file is not None}
    if data.dataset_name is not None and files:
        raise ValueError(
            "--validation_file and --test_file belong to --train_file; --dataset_name has its own splits."
        )
    splits = load_splits(data.train_file or data.dataset_name, data)
    if files and "split" in splits["train"].column_names:
        raise ValueError(
            f"{data.train_file} has a column `split`, so validation and test rows would be trained on: leave out "
            "--validation_file and --test_file, or the column."
        )
    splits.update({split: load_splits(file, data, split)[split] for split, file in files.items()})
    if "validation" not in splits:
        if data.streaming:
            raise ValueError(f"--streaming requires a validation split, which {data.dataset_name} has not.")
        if not 0 < data.validation_share < 1:
            raise ValueError(
                f"--validation_share is {data.validation_share:g}; it must be above 0 and below 1. The best epoch is "
                "chosen on validation rows: pass --validation_file, or a column `split`, to choose them yourself."
            )
        column = class_column(data) if data.task == "classification" else None
        splits.update(hold_out(splits["train"], data.validation_share, seed, column))
    if not len(splits["validation"]):
        raise ValueError(f"There are no rows of the split 'validation': { {k: len(v) for k, v in splits.items()} }.")
    if len(splits["validation"]) < FEW_VALIDATION_ROWS:
        logger.warning(
            "Only %d validation row(s): the best epoch and the scores are uncertain. Add rows to the validation "
            "split; without one, --validation_share (%g) of the rows is held out.",
            len(splits["validation"]), data.validation_share,
        )  # fmt: skip
    for column in (data.text_column, "video_id", data.audio_column):
        for problem in find_leaks(splits, column, ENOUGH_WORDS if column == data.text_column else 0):
            # Rows of one video are alike. Speakers may say the same sentence, and one file may have several labels.
            if column == "video_id" and not data.allow_overlap:
                raise ValueError(f"{problem} Pass --allow_overlap to train on these splits.")
            logger.warning("%s", problem)
    return splits


def class_column(data: DataArguments) -> str:
    """Return the column of classes."""
    return data.label_columns[0] if data.label_columns else "label"


def find_leaks(splits: Mapping[str, Dataset], column: str, num_words: int = 0) -> Iterator[str]:
    """Yield a message for each split with values of `column`, of `num_words` or more, that are in another split."""
    seen: set[str] = set()
    for name in (name for name in SPLITS if name in splits and column in splits[name].column_names):
        values = splits[name].select_columns(column).with_format("arrow")[:][column]
        if not (pa.types.is_string(values.type) or pa.types.is_integer(values.type)):
            continue
        values = [" ".join(str(value).lower().split()) for value in values.to_pylist() if value is not None]
        values = [value for value in values if len(value.split()) >= num_words]
        if shared := sum(value in seen for value in values):
            yield (
                f"{name}: {shared} rows have a {column} that is also in another split; metrics on such rows are too "
                "high."
            )
        seen.update(values)


def load_table(path: str | Path, audio_column: str, place_column: str | None = None) -> Dataset:
    """
    Load a table (.csv, .tsv, .jsonl or .parquet). Relative paths in `audio_column` are relative to the table's folder.
    For `place_column` see [`read_table`].

    Raises:
        FileNotFoundError: there is no such table; ValueError: the file is not a table.
    """
    table = read_table(path, place_column)
    if audio_column in table.column_names:
        # An address remains one, and is refused when the file is read.
        files = [
            file if file is None or "://" in str(file) else str(Path(path).parent / str(file))
            for file in table[audio_column]
        ]
        table = table.remove_columns(audio_column).add_column(audio_column, files).select_columns(table.column_names)
    return table


def split_by_column(dataset: Dataset) -> DatasetDict:
    """Split a data set by its column `split`. Raises ValueError for an unknown name."""
    rows: dict[str, list[int]] = {}
    for i, name in enumerate(dataset["split"]):
        split = SPLIT_NAMES.get(str(name).strip().lower())
        if split is None:
            place = dataset[PLACE_COLUMN][i] if PLACE_COLUMN in dataset.column_names else f"Row {i} of the table"
            raise ValueError(f"{place} is of the split {name!r}; use one of {', '.join(SPLIT_NAMES)}.")
        rows.setdefault(split, []).append(i)
    return DatasetDict({name: dataset.select(rows[name]) for name in SPLITS if name in rows})


def hold_out(dataset: Dataset, share: float, seed: int, label_column: str | None = None) -> DatasetDict:
    """
    Hold out `share` of the rows as validation, drawn by `seed`. With a column `video_id` or `speaker`, all rows of a
    video or speaker are held out together, because they are alike. Otherwise, with a `label_column`, each class keeps
    its share; a class of one row stays in train. Raises ValueError for less than two rows.
    """
    if len(dataset) < 2:
        raise ValueError(f"The table has {len(dataset)} row(s): training and validation need at least one each.")
    rng = np.random.default_rng(seed)
    if PLACE_COLUMN not in dataset.column_names:  # messages name the rows as they were numbered before
        dataset = dataset.add_column(PLACE_COLUMN, [f"train, row {row}" for row in range(len(dataset))])
    for column in (column for column in GROUP_COLUMNS if column in dataset.column_names):
        # A row of an unknown group is a group of its own.
        groups = [("row", i) if group is None else group for i, group in enumerate(dataset[column])]
        names = list(dict.fromkeys(groups))
        if 1 < len(names) < len(groups):
            count = min(len(names) - 1, max(1, round(share * len(names))))
            drawn = {names[i] for i in rng.permutation(len(names))[:count]}
            how, is_held_out = f"grouped by {column}", np.array([group in drawn for group in groups])
            break
    else:
        if label_column is None or label_column not in dataset.column_names:
            count = min(len(dataset) - 1, math.ceil(share * len(dataset)))
            how, splits = "at random", dataset.train_test_split(count, seed=seed)
            splits = DatasetDict(train=splits["train"], validation=splits["test"])
            _log_hold_out(splits, how, seed)
            return splits
        how = f"stratified by {label_column}"
        is_held_out = _draw_by_class([class_name(label) for label in dataset[label_column]], share, rng)
    splits = DatasetDict(
        train=dataset.select(np.flatnonzero(~is_held_out)), validation=dataset.select(np.flatnonzero(is_held_out))
    )
    _log_hold_out(splits, how, seed)
    return splits


def _draw_by_class(labels: list[str], share: float, rng: np.random.Generator) -> np.ndarray:
    """Draw `share` of the rows of each class, at least one of a class of several rows. Returns (rows,) bool."""
    is_drawn = np.zeros(len(labels), dtype=bool)
    for label in dict.fromkeys(labels):
        rows = rng.permutation([row for row, name in enumerate(labels) if name == label])
        is_drawn[rows[: min(len(rows) - 1, max(1, round(share * len(rows))))]] = True
    return is_drawn


def _log_hold_out(splits: DatasetDict, how: str, seed: int) -> None:
    held_out, all_rows = len(splits["validation"]), sum(map(len, splits.values()))
    logger.info("Held out %d of %d training rows as validation, %s, seed %d.", held_out, all_rows, how, seed)


def undecoded(dataset: Dataset, audio_column: str) -> Dataset:
    """Cast a column of audio or video to paths and bytes, for PyAV."""
    feature = dataset.features.get(audio_column)
    return dataset.cast_column(audio_column, type(feature)(decode=False)) if hasattr(feature, "decode") else dataset


def usable_rows(
    dataset: Dataset,
    collator: UtteranceCollator,
    processor,
    data: DataArguments,
    is_trained: bool = False,
    more_columns: Sequence[str] = (),
) -> tuple[Dataset, list[str]]:
    """
    Select the rows with a label and with input in at least one modality. Audio files are decoded here, once, to the
    features of the model, or to waveforms for an audio encoder; features in the table are kept. For a model that
    `is_trained`, the table may lack some of its inputs and labels.

    Returns:
        the rows, with the columns of `collator`, `more_columns` and `IDENTITY_COLUMNS`; and a line with the reason for
        each row that is left out and each file that cannot be read.

    Raises:
        ValueError: a column is missing, or a label is not valid.
    """
    if is_trained:
        dataset = with_missing_labels(dataset, collator.task)
    check_columns(dataset, collator.task, collator.modality_columns, data, is_trained)
    dataset, problems, places = _rename_text(dataset, data.text_column), {}, _places(dataset)
    names = {**collator.modality_columns, "text": data.text_column}
    if is_trained:
        dataset = with_missing_inputs(dataset, collator, data)
    dataset = add_history(dataset, collator.context_size)
    has_label = read_labels(dataset, collator.task)  # before files are decoded
    if (audio := collator.modality_columns.get("audio")) and audio not in dataset.column_names:
        names["audio"] = data.audio_column
        dataset, problems = _add_audio(dataset, audio, processor, data)
    kept = [name for name in (*IDENTITY_COLUMNS, *collator.columns, *more_columns) if name in dataset.column_names]
    dataset = dataset.select_columns(list(dict.fromkeys(kept)))

    def read(columns: list[str]) -> pa.Table:
        return dataset.select_columns(columns).with_format("arrow")[:]

    is_usable = collator.usable_rows(read)
    inputs = ", ".join(names[modality] for modality in collator.modality_columns)
    for row in np.flatnonzero(~is_usable).tolist():
        if not has_label[row]:
            missing = collator.task.missing(dataset[row])
            problems[row] = f"{places[row]}: no label in {', '.join(missing)}"
        else:
            problems.setdefault(row, f"{places[row]}: no input in {inputs}")
    return dataset.select(np.flatnonzero(is_usable)), [problems[row] for row in sorted(problems)]


def rows_for_all(
    dataset: Dataset,
    collators: Sequence[UtteranceCollator],
    processors: Sequence,
    data: DataArguments,
    is_trained: bool = False,
) -> tuple[Dataset, list[str]]:
    """
    Select the rows that the models of all `collators` can use, as [`usable_rows`], so that all are trained and tested
    on the same rows. The first one reads all modalities.
    """
    first = collators[0]
    # A model with an audio encoder reads waveforms, others read features of the same files.
    more = {name: processor for collator, processor in zip(collators, processors, strict=True)
            for name in collator.modality_columns.values() if name not in first.modality_columns.values()}  # fmt: skip
    for name, processor in more.items():
        if name not in dataset.column_names:
            check_columns(dataset, first.task, {"audio": name}, data, is_trained)
            dataset, _ = _add_audio(dataset, name, processor, data)
    dataset = add_history(dataset, max(collator.context_size for collator in collators), data.text_column)
    dataset, problems = usable_rows(dataset, first, processors[0], data, is_trained, list(more))

    def read(columns: list[str]) -> pa.Table:
        return dataset.select_columns(columns).with_format("arrow")[:]

    is_usable = np.ones(len(dataset), dtype=bool)
    # Tokenizers differ in which texts have no words.
    for collator in {(*c.modality_columns, id(c.tokenizer)): c for c in collators}.values():
        if collator.modality_columns != first.modality_columns or collator.tokenizer is not first.tokenizer:
            is_usable &= collator.usable_rows(read)
    if lost := int((~is_usable).sum()):
        problems.append(f"{lost} row(s) have no input of one of the models, and are left out for all")
        dataset = dataset.select(np.flatnonzero(is_usable))
    return dataset, problems


def read_labels(dataset: Dataset, task: Task, name: str = "table") -> np.ndarray:
    """Return which rows have a label, (rows,) bool. Raises ValueError that names the row."""
    table = dataset.select_columns(list(task.columns)).with_format("arrow")[:]
    try:
        return task.label_array(table)[1]
    except ValueError:
        has_places = PLACE_COLUMN in dataset.column_names
        sentiments = table[task.sentiment_column].to_pylist() if task.sentiment_column else ()
        advice = scale_advice(task, sentiments)
        for index, row in enumerate(table.to_pylist()):
            try:
                task.label(row)
            except ValueError as error:
                place = dataset[index][PLACE_COLUMN] if has_places else f"Row {index} of the {name}"
                is_sentiment = str(error).startswith(f"{task.sentiment_column} ")
                raise ValueError(f"{place}: {error}{advice if is_sentiment else ''}") from error
        raise


def read_ranges(dataset: Dataset, task: Task) -> tuple[tuple[float, float], ...]:
    """
    Return the lowest and highest value of each label of a `regression`: its `label_range`, or those of the rows.

    Raises:
        ValueError: a label has fewer than two values.
    """
    if task.label_range is not None:
        return (task.label_range,) * len(task.labels)
    values = task.label_array(dataset.select_columns(list(task.columns)).with_format("arrow")[:])[0]
    ranges = []
    for label, column in zip(task.labels, values.T, strict=True):
        known = column[~np.isnan(column)]
        if not len(known) or known.min() == known.max():
            raise ValueError(
                f"The training rows have fewer than two values of {label}: remove it from --label_columns."
            )
        ranges.append((float(known.min()), float(known.max())))
    return tuple(ranges)


def report_labels(splits: Mapping[str, Dataset], task: Task) -> None:
    """
    Log the counts of the classes of each split, and warn of classes that are probably mistakes.

    Raises:
        ValueError: all sentiments are in [-1, 1], which is probably their scale.
    """
    column = task.sentiment_column
    if column in splits["train"].column_names and (advice := scale_advice(task, splits["train"][column])):
        raise ValueError(
            f"All values of {column} are in [-1, 1], but models and metrics expect [-3, 3].{advice} If it is on the "
            "scale [-3, 3], pass --label_range -3 3."
        )
    if task.name != "classification":
        return
    for name, rows in splits.items():
        counts = Counter(class_name(label) for label in rows[task.columns[0]] if label is not None)
        logger.info("%s: %s", name, ", ".join(f"{label} {counts[label]}" for label in task.labels))
    by_lower: dict[str, list[str]] = {}
    for label in task.labels:
        by_lower.setdefault(label.casefold(), []).append(label)
    for variants in (labels for labels in by_lower.values() if len(labels) > 1):
        logger.warning("The classes %s differ only in upper and lower case.", ", ".join(variants))
    _report_rare_classes(splits, task)


def _report_rare_classes(splits: Mapping[str, Dataset], task: Task) -> None:
    """Warn of classes with one row or without validation rows, with the class that is spelt most like them."""
    counts, problems = {}, []
    for name in ("train", "validation"):
        labels = splits[name][task.columns[0]] if name in splits else ()
        counts[name] = Counter(class_name(label) for label in labels if label is not None)
    for label in task.labels:
        if counts["train"][label] + counts["validation"][label] == 1:
            problem = "1 row"
        elif counts["train"][label] and not counts["validation"][label]:
            problem = "no validation row"
        else:
            continue
        similar = nearest(label, [other for other in task.labels if other != label and not other.isdigit()])
        problems.append(f"{label}: {problem}" + (f"; similar: {similar}" if similar else ""))
    for problem in problems[:SHOWN_CLASSES]:
        logger.warning("Class %s", problem)
    if len(problems) > SHOWN_CLASSES:
        logger.warning("%d more classes have 1 row or no validation row.", len(problems) - SHOWN_CLASSES)


def check_learnable(dataset: Dataset, task: Task) -> None:
    """Check that training rows have a value of each label that is present or absent. Raises ValueError."""
    if task.name not in ("joint", "multi_label"):
        return
    values = task.label_array(dataset.select_columns(list(task.columns)).with_format("arrow")[:])[0]
    unknown = [label for label, is_empty in zip(task.labels, np.isnan(values).all(axis=0), strict=True) if is_empty]
    if unknown:
        remedy = "--task sentiment" if task.name == "joint" and "sentiment" not in unknown else "--label_columns"
        raise ValueError(
            f"No training row has a value of {', '.join(unknown)}, which the model could not learn ({remedy})."
        )


def log_missing_inputs(dataset: Dataset, collator: UtteranceCollator, data: DataArguments) -> None:
    """Log the columns of modalities that a table lacks."""
    names = {"text": data.text_column, "audio": data.audio_column}
    missing = [
        f"{modality} ({names.get(modality, column)})"
        for modality, column in collator.modality_columns.items()
        if not {names.get(modality), column} & set(dataset.column_names)
    ]
    if missing:
        logger.info("No column for %s: treated as missing in all rows.", ", ".join(missing))


def with_missing_inputs(dataset: Dataset, collator: UtteranceCollator, data: DataArguments) -> Dataset:
    """Add an empty column for each missing modality, if at least one is present."""
    wanted = set(collator.modality_columns.values())
    of_files = {"audio_features", SOUND} if data.audio_column in dataset.column_names else set()
    missing = wanted - set(dataset.column_names) - of_files
    return _with_empty(dataset, missing, collator.sizes) if missing < wanted else dataset


def with_missing_labels(dataset: Dataset, task: Task) -> Dataset:
    """Add an empty column for each missing label of the task `joint`, if at least one is present."""
    missing = set(task.columns) - set(dataset.column_names)
    return _with_empty(dataset, missing, {}) if task.name == "joint" and missing < set(task.columns) else dataset


def _with_empty(dataset: Dataset, names: set[str], sizes: dict[str, int]) -> Dataset:
    if not names:
        return dataset
    types = {**make_features(*sizes.values(), neutral=Value("float32")), SOUND: List(Value("float32"))}
    empty = {name: [None] * len(dataset) for name in sorted(names)}
    empty = Dataset.from_dict(empty, features=Features({name: types.get(name, Value("float32")) for name in empty}))
    return concatenate_datasets([dataset.flatten_indices(), empty], axis=1)


def repeat_sources(rows: Dataset, repeat: list[str]) -> Dataset:
    """Repeat the rows of some sources, such as `["ravdess=4"]`. Raises ValueError for an unknown source."""
    if not repeat:
        return rows
    if "source" not in rows.column_names:
        raise ValueError(f"--repeat requires a column `source`; the columns are {rows.column_names}.")
    sources, times = np.array(rows["source"]), np.ones(len(rows), dtype=int)
    for item in repeat:
        name, _, count = item.partition("=")
        if not count.isdigit() or int(count) < 1:
            raise ValueError(f"--repeat {item}: expected the name of a source and a number, such as ravdess=4.")
        if not (sources == name).any():
            raise ValueError(
                f"--repeat {item}: no row has this source; the sources are {', '.join(sorted(set(sources)))}."
            )
        times[sources == name] = int(count)
    return rows.select(np.repeat(np.arange(len(rows)), times))


def make_collator(
    processor,
    config,
    task: Task | None,
    columns: Collection[str] = ("audio_features",),
    waveform_augmentation: Callable[..., np.ndarray] | None = None,
) -> UtteranceCollator:
    """
    Build the collator of [`usable_rows`] for a model with this configuration. If `columns`, those of the table, have
    no `audio_features`, batches of a model with an audio encoder or with augmentation are made of waveforms.

    Raises:
        ValueError: `waveform_augmentation` is given for features, or for a model without audio or of conversations.
    """
    has_audio = "audio" in config.modalities
    has_waveforms = has_audio and (SOUND in columns or "audio_features" not in columns)
    has_encoder = has_audio and getattr(config, "audio_encoder", None) is not None
    if waveform_augmentation is not None and (not has_waveforms or getattr(config, "takes_conversations", False)):
        raise ValueError(
            "--waveform_augmentation requires a model of utterances with audio, and a table of audio files without "
            "the column `audio_features`, such as that of `umons prepare --keep_audio`."
        )
    is_sound = has_waveforms and (has_encoder or waveform_augmentation is not None)
    sequence_name = getattr(config, "sequence_name", None)
    kind = ConversationCollator if getattr(config, "takes_conversations", False) else UtteranceCollator
    return kind(
        config.modalities,
        processor.tokenizer,
        task,
        {modality: config.length_limit(modality) for modality in config.modalities},
        config.audio_feature_size,
        config.video_feature_size,
        reads_word_times=getattr(config, "alignment", None) == "words",
        audio_processor=processor if is_sound else None,
        input_names=None if sequence_name is None else {name: sequence_name(name) for name in config.modalities},
        context_size=getattr(config, "context_size", 0),
        max_context_length=getattr(config, "max_context_length", 0),
        **({"waveform_augmentation": waveform_augmentation} if is_sound else {}),
    )


def name_classes(dataset: Dataset, column: str) -> Dataset:
    """Replace the class numbers of a column of `ClassLabel`, or of lists of it, by class names, as in tables."""
    feature = dataset.features.get(column)
    if isinstance(feature, ClassLabel):
        names = [None if value is None or value < 0 else feature.int2str(value) for value in dataset[column]]
    elif isinstance(feature, List) and isinstance(feature.feature, ClassLabel):
        names = [None if values is None else feature.feature.int2str(values) for values in dataset[column]]
    else:
        return dataset
    return dataset.remove_columns(column).add_column(column, names)


def check_columns(
    dataset: Dataset,
    task: Task | None,
    modality_columns: Mapping[str, str],
    data: DataArguments,
    is_trained: bool = False,
    name: str = "table",
) -> None:
    """
    Check that a table has the columns of the labels and of the inputs. A model that `is_trained` requires one input.

    Raises:
        ValueError: columns are missing; the message lists all of them, with the nearest columns and the options.
    """
    columns, missing, advice = dataset.column_names, [], []
    inputs = {modality: ("text_column", data.text_column, []) if column == "text" else
              ("audio_column", data.audio_column, [column]) if modality == "audio" else (None, column, [])
              for modality, column in modality_columns.items()}  # fmt: skip
    found = [modality for modality, (_, column, others) in inputs.items() if {column, *others} & set(columns)]
    if not (is_trained and found):
        wanted = {modality: inputs[modality][:2] for modality in inputs if modality not in found}
        missing += [column for _, column in wanted.values()]
        options = {modality: _advise(columns, *pair) for modality, pair in wanted.items()}
        advice += options.values()
        usable = [modality for modality in inputs if modality in found or options[modality]]
        if 0 < len(usable) < len(inputs) and not is_trained:
            advice.append(f"--modalities {' '.join(usable)}")
    labels = [column for column in (task.columns if task else ()) if column not in columns]
    if labels:
        missing += labels
        advice += _advise_labels(columns, task)
    if missing:
        advice = [text for text in advice if text]
        remedy = f" Possible options: {'; '.join(advice)}." if advice else ""
        names = ", ".join(column for column in columns if column != PLACE_COLUMN)
        plural = "s" * (len(missing) > 1)
        raise ValueError(f"The {name} lacks the column{plural} {', '.join(missing)}; it has {names}.{remedy}")


def _advise(columns: Sequence[str], option: str | None, column: str) -> str:
    """Return the option with the column that probably replaces a missing one; empty if there is none."""
    usual = USUAL_COLUMNS.get(option, ())
    found = nearest(column, columns) or _first_known(columns, usual)
    return f"--{option} {found}" if option is not None and found is not None else ""


def _first_known(columns: Sequence[str], usual: Sequence[str]) -> str | None:
    """Return the first of the usual names that is a column, in any case; `None` if none is."""
    by_lower = {name.lower(): name for name in columns}
    return next((by_lower[name] for name in usual if name in by_lower), None)


def _advise_labels(columns: Sequence[str], task: Task) -> Iterator[str]:
    """Yield the options that probably make up for missing columns of labels."""
    sentiment = _first_known(columns, USUAL_COLUMNS["sentiment"])
    is_usual = sentiment == "sentiment"
    if task.name.startswith("sentiment") and sentiment is not None:
        yield f"--label_columns {sentiment}"
        return
    if task.name == "classification":
        yield _advise(columns, "label_columns", *task.columns)
        return
    similar = [column if column in columns else nearest(column, columns) for column in task.columns]
    if None not in similar:
        yield f"--label_columns {' '.join(map(str, similar))}"
    if task.name not in OWN_LABELS:
        label = _first_known(columns, USUAL_COLUMNS["label_columns"])
        if label is not None:
            yield f"--task classification --label_columns {label}"
        elif sentiment is not None:
            yield "--task sentiment" if is_usual else f"--task sentiment --label_columns {sentiment}"
        yield f"--label_columns with the columns of {', '.join(task.columns)}"


def _places(dataset: Dataset) -> list[str]:
    """Return the place of each row in its file, for messages."""
    has_places = PLACE_COLUMN in dataset.column_names
    return dataset[PLACE_COLUMN][:] if has_places else [f"row {row}" for row in range(len(dataset))]


def _rename_text(dataset: Dataset, column: str) -> Dataset:
    """Rename the column of texts to `text`, and cast it to strings."""
    if column not in dataset.column_names:
        return dataset.remove_columns("text") if "text" in dataset.column_names else dataset
    if column != "text":
        dataset = dataset.remove_columns("text") if "text" in dataset.column_names else dataset
        dataset = dataset.rename_column(column, "text")
    return dataset if dataset.features["text"] == Value("string") else dataset.cast_column("text", Value("string"))


def _add_audio(dataset: Dataset, column: str, processor, data: DataArguments) -> tuple[Dataset, dict[int, str]]:
    """
    Add the column of audio features that the processor computes of the files and `audio_times`, or of waveforms if it
    is `audio_values`; null without sound. Return also {row: problem} of files that cannot be read.
    """
    extractor, is_sound = processor.feature_extractor, column == SOUND
    # Twice the span of log-mel features, because leading silence is trimmed.
    seconds = processor.max_duration * (2 if processor.audio_frame_duration is None else 1)
    most = round(seconds * extractor.sampling_rate)
    if is_sound:
        added = {column: List(Value("float32"))}
    else:
        frames = List(List(Value("float32"), length=extractor.frame_size))
        added = {column: frames, "audio_times": List(Value("float64"))}
    dataset = dataset.remove_columns([name for name in added if name in dataset.column_names])

    def decode(row: dict[str, Any]) -> dict[str, Any]:
        value, decoded = row[data.audio_column], dict.fromkeys((*added, "problem"))
        if value is not None:
            try:
                audio = read_audio(value, extractor.sampling_rate)
                if is_silent(audio):
                    raise ValueError(f"{column} is null: the audio is silent")
                if is_sound:
                    decoded[column] = audio[:most]
                else:
                    frames, times = extractor.extract_with_times(audio, extractor.sampling_rate)
                    decoded |= {column: frames, "audio_times": (row.get("start") or 0.0) + times}
            except (OSError, ValueError) as error:
                decoded["problem"] = str(error)
        return decoded

    files = dataset.select_columns([name for name in (data.audio_column, "start") if name in dataset.column_names])
    features = files.features.copy()
    features.update({**added, "problem": Value("string")})
    decoded = files.map(
        decode,
        features=features,
        writer_batch_size=ROWS_IN_MEMORY,
        num_proc=data.preprocessing_num_proc,
        desc=column,
    )
    end_worker()
    places, found = _places(dataset), decoded["problem"]
    problems = {row: f"{places[row]}: {problem}" for row, problem in enumerate(found) if problem is not None}
    return concatenate_datasets([dataset.flatten_indices(), decoded.select_columns(list(added))], axis=1), problems
