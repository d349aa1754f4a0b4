"""Loading of tables and data sets of utterances, and selection of the rows that a model can use."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value, concatenate_datasets, load_dataset
from datasets.exceptions import DatasetsError

from ..models.umons.feature_extraction_umons import is_silent
from ..models.umons.media_umons import WHOLE_S, read_clip
from ..tasks.task import Task
from .arguments import DataArguments
from .collator import SOUND, UtteranceCollator
from .conversations import ConversationCollator
from .schema import SPLIT_NAMES, SPLITS, make_features
from .tables import TABLE_SUFFIXES, read_table


logger = logging.getLogger(__name__)

ROWS_IN_MEMORY = 64  # decoded audio; half a minute takes two megabytes
# Columns that identify rows in reports, order them in a conversation, and give the times of words. They are kept.
IDENTITY_COLUMNS = ("segment_id", "video_id", "segment", "start", "source", "speaker", "words")


def load_splits(source: str | Path, data: DataArguments, split: str = "train") -> DatasetDict:
    """
    Load all splits of a table, or of a folder or Hub repository that `load_dataset` takes. Classes are names, and
    files are not decoded. A table without a column `split` is the split `split`. Other names of splits, such as dev,
    become those of `SPLITS`.

    Raises:
        OSError, ValueError: the data set cannot be read, or has no rows of `split`.
    """
    if Path(source).is_file() or Path(source).suffix in TABLE_SUFFIXES:
        table = load_table(source, data.audio_column)
        if "split" not in table.column_names:
            logger.warning("%s has no column `split`: all %d rows are the %s split.", source, len(table), split)
        splits = split_by_column(table) if "split" in table.column_names else {split: table}
    else:
        try:
            loaded = load_dataset(str(source), data.dataset_config_name)
        except DatasetsError as error:
            raise ValueError(f"{source} cannot be loaded: {error}") from error
        splits = {}
        for name, rows in loaded.items():
            name = SPLIT_NAMES.get(name.lower(), name)
            if name in splits:
                raise ValueError(f"{source} has several splits that mean {name!r}: rename or remove one.")
            splits[name] = undecoded(rows, data.audio_column)
    if not len(splits.get(split, ())):
        sizes = ", ".join(f"{name} ({len(rows)} rows)" for name, rows in splits.items())
        raise ValueError(f"{source} has no rows of the split {split!r}; its splits are {sizes}.")
    return DatasetDict({name: name_classes(rows, data.label_column) for name, rows in splits.items()})


def load_training_splits(data: DataArguments, seed: int) -> DatasetDict:
    """
    Load the rows of train, validation and, if there is one, test. Without a validation split, a share of the training
    rows is held out, drawn by `seed`.

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
        splits.update(hold_out(splits["train"], data.validation_share, seed))
    if not len(splits["validation"]):
        raise ValueError(f"There are no rows of the split 'validation': { {k: len(v) for k, v in splits.items()} }.")
    return splits


def load_table(path: str | Path, audio_column: str) -> Dataset:
    """
    Load a table (.csv, .tsv, .jsonl or .parquet). Relative paths in `audio_column` are relative to the table's folder.

    Raises:
        FileNotFoundError: there is no such table; ValueError: the file is not a table.
    """
    table = read_table(path)
    if audio_column in table.column_names:
        files = [None if file is None else str(Path(path).parent / str(file)) for file in table[audio_column]]
        table = table.remove_columns(audio_column).add_column(audio_column, files).select_columns(table.column_names)
    return table


def split_by_column(dataset: Dataset) -> DatasetDict:
    """Split a data set by its column `split`. Raises ValueError for an unknown name."""
    rows: dict[str, list[int]] = {}
    for i, name in enumerate(dataset["split"]):
        if str(name).lower() not in SPLIT_NAMES:
            raise ValueError(f"Row {i} of the table is of the split {name!r}; use one of {', '.join(SPLIT_NAMES)}.")
        rows.setdefault(SPLIT_NAMES[str(name).lower()], []).append(i)
    return DatasetDict({name: dataset.select(rows[name]) for name in SPLITS if name in rows})


def hold_out(dataset: Dataset, share: float, seed: int) -> DatasetDict:
    """
    Hold out `share` of the rows as validation, drawn by `seed`. With a column `video_id`, whole videos are held out,
    because rows of one video are alike.
    """
    videos = dataset["video_id"] if "video_id" in dataset.column_names else ()
    # A row with an unknown video is a group of its own.
    groups = [("row", i) if video is None else video for i, video in enumerate(videos)]
    names = list(dict.fromkeys(groups))
    if len(names) < 2:
        held_out = dataset.train_test_split(share, seed=seed)
        return DatasetDict(train=held_out["train"], validation=held_out["test"])
    drawn = np.random.default_rng(seed).permutation(len(names))[: max(1, round(share * len(names)))]
    drawn = {names[i] for i in drawn}
    is_held_out = np.array([group in drawn for group in groups])
    return DatasetDict(
        train=dataset.select(np.flatnonzero(~is_held_out)), validation=dataset.select(np.flatnonzero(is_held_out))
    )


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
    dataset, problems = _rename_text(dataset, data.text_column), {}
    names = {**collator.modality_columns, "text": data.text_column}
    if is_trained:
        dataset = with_missing_labels(with_missing_inputs(dataset, collator, data), collator.task)
    if (audio := collator.modality_columns.get("audio")) and audio not in dataset.column_names:
        _check_columns(dataset, [data.audio_column])
        names["audio"] = data.audio_column
        dataset, problems = _add_audio(dataset, audio, processor, data)
    _check_columns(dataset, collator.columns)
    kept = [name for name in (*IDENTITY_COLUMNS, *collator.columns, *more_columns) if name in dataset.column_names]
    dataset = dataset.select_columns(list(dict.fromkeys(kept)))

    def read(columns: list[str]) -> pa.Table:
        return dataset.select_columns(columns).with_format("arrow")[:]

    has_label = _labels_of(collator.task, read(list(collator.task.columns)))
    is_usable = collator.usable_rows(read)
    inputs = ", ".join(names[modality] for modality in collator.modality_columns)
    for row in np.flatnonzero(~is_usable).tolist():
        if not has_label[row]:
            problems[row] = f"row {row}: no label in {', '.join(collator.task.columns)}"
        else:
            problems.setdefault(row, f"row {row}: no input in {inputs}")
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
            _check_columns(dataset, [data.audio_column])
            dataset, _ = _add_audio(dataset, name, processor, data)
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


def _labels_of(task: Task, table: pa.Table) -> np.ndarray:
    """Return which rows have a label, (rows,) bool. Raises ValueError that names the row."""
    try:
        return task.label_array(table)[1]
    except ValueError:
        for index, row in enumerate(table.to_pylist()):
            try:
                task.label(row)
            except ValueError as error:
                raise ValueError(f"Row {index} of the table: {error}") from error
        raise


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
    logger.info("Missing column(s) %s: treated as empty in all rows.", ", ".join(sorted(names)))
    types = {**make_features(*sizes.values()), SOUND: List(Value("float32"))}
    empty = {name: [None] * len(dataset) for name in sorted(names)}
    empty = Dataset.from_dict(empty, features=Features({name: types[name] for name in empty}))
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
    processor, config, task: Task | None, columns: Collection[str] = ("audio_features",)
) -> UtteranceCollator:
    """
    Build the collator of [`usable_rows`] for a model with this configuration. If `columns`, those of the table, have
    no `audio_features`, batches of a model with an audio encoder have waveforms.
    """
    has_encoder = "audio" in config.modalities and getattr(config, "audio_encoder", None) is not None
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
        audio_processor=processor if has_encoder and (SOUND in columns or "audio_features" not in columns) else None,
        input_names=None if sequence_name is None else {name: sequence_name(name) for name in config.modalities},
    )


def name_classes(dataset: Dataset, column: str) -> Dataset:
    """Replace the class numbers of a `ClassLabel` column by class names, as in tables."""
    feature = dataset.features.get(column)
    if not isinstance(feature, ClassLabel):
        return dataset
    names = [None if value is None else feature.int2str(value) for value in dataset[column]]
    return dataset.remove_columns(column).add_column(column, names)


def _check_columns(dataset: Dataset, names: list[str]) -> None:
    if missing := [name for name in names if name not in dataset.column_names]:
        raise ValueError(f"The table has no column {missing}; its columns are {dataset.column_names}.")


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
    Add the column of audio features that the processor computes of the files, or of waveforms if it is `audio_values`;
    null without sound. Return also {row: problem} of files that cannot be read.
    """
    extractor, is_sound = processor.feature_extractor, column == SOUND
    most = round(processor.max_duration * extractor.sampling_rate) if is_sound else None

    def decode(row: dict[str, Any], index: int) -> dict[str, Any]:
        value, decoded = row[data.audio_column], {column: None, "problem": None}
        if value is not None:
            source = value if isinstance(value, (str, bytes)) else value["bytes"] or value["path"]
            try:
                clip = read_clip(source, video=False, sampling_rate=extractor.sampling_rate, max_duration=WHOLE_S)
                if is_silent(clip.audio):
                    raise ValueError(f"{column} is null: the audio is silent")
                if is_sound:
                    decoded[column] = clip.audio[:most]
                else:
                    decoded[column] = extractor(clip.audio, sampling_rate=clip.sampling_rate)["input_features"][0]
            except (OSError, ValueError) as error:
                decoded["problem"] = f"row {index}: {error}"
        return decoded

    files = dataset.select_columns(data.audio_column)
    features = files.features.copy()
    values = List(Value("float32")) if is_sound else List(List(Value("float32"), length=extractor.frame_size))
    features.update({column: values, "problem": Value("string")})
    decoded = files.map(
        decode,
        with_indices=True,
        features=features,
        writer_batch_size=ROWS_IN_MEMORY,
        num_proc=data.preprocessing_num_proc,
        desc=column,
    )
    problems = {row: problem for row, problem in enumerate(decoded["problem"]) if problem is not None}
    return concatenate_datasets([dataset.flatten_indices(), decoded.select_columns(column)], axis=1), problems
