"""From a table of utterances, or a data set of `datasets`, to what a model reads: word ids, log-mel frames, labels."""

from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, Features, List, Value

from ..data.columns import SPLIT_NAMES
from ..media import WHOLE_S, read_clip
from .tasks import Task


READERS = {".csv": "read_csv", ".tsv": "read_table", ".parquet": "read_parquet", ".jsonl": "read_json"}


def read_table(path: str | Path, audio_column: str) -> Dataset:
    """
    A table (.csv, .tsv, .jsonl or .parquet) of which the files in `audio_column`, unless their paths are absolute, are
    looked up beside the table. Raises OSError for a table that is not there and ValueError for one that is none.
    """
    import pandas as pd
    import pyarrow as pa

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such table.")
    if path.suffix not in READERS:
        raise ValueError(f"{path}: a table ends in {', '.join(READERS)}.")
    options = {"dtype_backend": "numpy_nullable"}  # whole numbers stay whole in a column with empty cells
    if path.suffix in (".csv", ".tsv"):
        # Words such as "nan" and "null" are words; only an empty cell lacks its value.
        options |= {"keep_default_na": False, "na_values": [""], "low_memory": False}
    if path.suffix == ".jsonl":
        options |= {"lines": True, "dtype": False}  # no guessing: values are of the types they are written in
    try:
        frame = getattr(pd, READERS[path.suffix])(path, **options)
        if audio_column in frame:
            files = frame[audio_column]
            frame[audio_column] = [None if pd.isna(file) else str(path.parent / str(file)) for file in files]
        return Dataset.from_pandas(frame.astype(object).where(frame.notna(), None), preserve_index=False)
    except (ValueError, pa.ArrowException) as error:
        raise ValueError(f"{path} cannot be read as a table: {error}") from error


def split_table(dataset: Dataset, validation_share: float, seed: int) -> DatasetDict:
    """Splits by the column `split` where there is one; else holds out `validation_share` of the rows, drawn by `seed`."""
    if "split" not in dataset.column_names:
        held_out = dataset.train_test_split(validation_share, seed=seed)
        return DatasetDict(train=held_out["train"], validation=held_out["test"])
    rows: dict[str, list[int]] = {}
    for i, name in enumerate(dataset["split"]):
        if str(name).lower() not in SPLIT_NAMES:
            raise ValueError(f"Row {i} of the table is of split {name!r}; known are {', '.join(SPLIT_NAMES)}.")
        rows.setdefault(SPLIT_NAMES[str(name).lower()], []).append(i)
    return DatasetDict({name: dataset.select(rows[name]) for name in ("train", "validation", "test") if name in rows})


def undecoded(dataset: Dataset, audio_column: str) -> Dataset:
    """Sound and video columns as `datasets` has them, but left as paths or bytes: PyAV reads them."""
    feature = dataset.features.get(audio_column)
    return dataset.cast_column(audio_column, type(feature)(decode=False)) if hasattr(feature, "decode") else dataset


def _source(value: Any) -> str | bytes:
    return value if isinstance(value, (str, bytes)) else value["bytes"] or value["path"]


def extract(
    dataset: Dataset,
    processor,
    task: Task,
    modalities: list[str],
    text_column: str,
    audio_column: str,
    num_proc: int | None,
) -> tuple[Dataset, list[str]]:
    """
    Word ids and log-mel frames of each row, null where a row lacks them, and its label.

    Returns:
        the rows that have a label and something to look at, with the columns `input_ids`, `input_features` and
        `labels`; and one line for each of the others and for each file that could not be read, which says why.
    """
    wanted = {"text": text_column, "audio": audio_column}
    if not set(modalities) <= set(wanted):
        raise ValueError(f"Training reads {' and '.join(wanted)}, but the model's modalities are {list(modalities)}.")
    missing = [c for c in (*(wanted[m] for m in modalities), *task.columns) if c not in dataset.column_names]
    if missing:
        raise ValueError(f"The table has no column {missing}; its columns are {dataset.column_names}.")

    def features_of(row: dict[str, Any], index: int) -> dict[str, Any]:
        item = {"input_ids": None, "input_features": None, "labels": None, "problem": None}
        try:
            item["labels"] = task.label(row)
        except ValueError as error:
            raise ValueError(f"Row {index} of the table: {error}") from error
        if "text" in modalities and row[text_column] is not None:
            item["input_ids"] = processor.tokenizer(str(row[text_column]), truncation=True)["input_ids"] or None
        if "audio" in modalities and row[audio_column] is not None:
            try:
                clip = read_clip(_source(row[audio_column]), video=False, max_duration=WHOLE_S)
                frames = processor.feature_extractor(clip.audio, sampling_rate=clip.sampling_rate)["input_features"][0]
                item["input_features"] = frames
            except (OSError, ValueError) as error:
                item["problem"] = f"row {index}: {error}"
        if item["labels"] is None:
            item["problem"] = f"row {index}: no label in {', '.join(task.missing(row))}"
        elif item["input_ids"] is None and item["input_features"] is None:
            item["problem"] = item["problem"] or f"row {index}: nothing in {', '.join(wanted[m] for m in modalities)}"
            item["labels"] = None  # which tells below that the row is of no use
        return item

    label = Value("int64" if task.problem_type == "single_label_classification" else "float32")
    if task.problem_type == "multi_label_classification":
        label = List(label)
    features = Features(
        {
            "input_ids": List(Value("int64")),
            "input_features": List(List(Value("float32"), length=processor.feature_extractor.feature_size)),
            "labels": label,
            "problem": Value("string"),
        }
    )
    extracted = dataset.map(
        features_of,
        with_indices=True,
        features=features,
        remove_columns=dataset.column_names,
        num_proc=num_proc,
        desc="features",
    )
    problems = [problem for problem in extracted["problem"] if problem is not None]
    usable = [i for i, label in enumerate(extracted["labels"]) if label is not None]
    return extracted.select(usable).remove_columns("problem"), problems


class Collator:
    """
    Pads rows of [`extract`] to the longest of the batch. Every modality of the model is in every batch, as padding where
    no row has it, so that each process of a distributed run computes with the same parameters.

    Returns a dict of tensors: `input_ids` and `attention_mask` (B, T_text) int64; `input_features` (B, T_audio, mel bins)
    float32 and `input_features_mask` (B, T_audio) int64; `labels` (B,) or (B, num_labels).
    """

    def __init__(self, modalities: list[str], feature_size: int):
        self.modalities = modalities
        self.feature_size = feature_size

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        import torch

        batch = {"labels": torch.tensor([row["labels"] for row in rows])}
        if "text" in self.modalities:
            ids, mask = self._pad([np.asarray(row["input_ids"] or [], dtype=np.int64) for row in rows])
            batch.update(input_ids=ids, attention_mask=mask)
        if "audio" in self.modalities:
            nothing = np.zeros((0, self.feature_size), dtype=np.float32)
            frames = [nothing if row["input_features"] is None else np.asarray(row["input_features"], dtype=np.float32) for row in rows]  # fmt: skip
            features, mask = self._pad(frames)
            batch.update(input_features=features, input_features_mask=mask)
        return batch

    @staticmethod
    def _pad(sequences: list[np.ndarray]):
        import torch

        length = max(1, *(len(sequence) for sequence in sequences)) if sequences else 1
        padded = np.zeros((len(sequences), length, *sequences[0].shape[1:]), dtype=sequences[0].dtype)
        mask = np.zeros((len(sequences), length), dtype=np.int64)
        for i, sequence in enumerate(sequences):
            padded[i, : len(sequence)], mask[i, : len(sequence)] = sequence, 1
        return torch.from_numpy(padded), torch.from_numpy(mask)
