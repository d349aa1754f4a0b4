"""Padding of Arrow rows to batches of model inputs, through views of the Arrow buffers and without Python lists."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ..models.umons.configuration_umons import INPUT_NAMES
from ..models.umons.tokenization_umons import encode_history, find_word_times


if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from ..models.umons.processing_umons import UmonsProcessor
    from ..tasks.task import Task


logger = logging.getLogger(__name__)

# Column of waveforms, for an audio encoder and for augmentation: one channel of float32 at the extractor's rate.
SOUND = "audio_values"
# Column of the previous utterances of a conversation, a list of {speaker, text}.
HISTORY = "history"
# Column of the numbers of draws, for augmentation of waveforms.
DRAW = "draw"
# Minimum length of padded waveforms: encoders that mask spans in training (SpecAugment) need it.
MIN_SOUND_S = 0.5
# Columns of the inputs of models without an audio encoder.
MODALITY_COLUMNS = {"text": "text", "audio": "audio_features", "video": "video_features"}


class ArrowRows(torch.utils.data.Dataset):
    """
    Data set of `datasets` whose rows are `pa.Table`s, for `DataLoader(ArrowRows(dataset), batch_size=32, shuffle=True,
    collate_fn=UtteranceCollator(...))`, or for `Trainer` with `remove_unused_columns=False`. Rows are looked up in the
    memory-mapped table, so worker processes receive indices and not data.
    """

    def __init__(self, dataset: Dataset):
        self.dataset = dataset.with_format("arrow")

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int | slice | Sequence[int]) -> pa.Table:
        """Return the table of one row, or of several."""
        return self.dataset[[index] if isinstance(index, int) else index]

    # A DataLoader calls this for a batch, and its `collate_fn` with the result.
    __getitems__ = __getitem__


class DrawnRows(ArrowRows):
    """
    Rows with the column `draw`, a number that is different for each row and epoch: random numbers of augmentation
    depend on it only, so that they are the same in resumed runs and with any number of workers.
    """

    def __init__(self, dataset: Dataset):
        super().__init__(dataset)
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers that persist see its changes

    def set_epoch(self, epoch: int) -> None:
        self.epoch.fill_(epoch)

    def __getitem__(self, index: int | slice | Sequence[int]) -> pa.Table:
        rows = np.atleast_1d(np.arange(len(self))[index])
        draws = int(self.epoch) * len(self) + rows
        return super().__getitem__(rows.tolist()).append_column(DRAW, pa.array(draws, pa.int64()))

    __getitems__ = __getitem__


class UtteranceCollator:
    """
    Pad the rows of a `pa.Table` to the longest of them. Every modality of the model is in every batch, as padding of
    length 1 if no row has it, so that all processes of a distributed run use the same parameters.

    Args:
        modalities: any of text, audio and video.
        tokenizer: tokenizer of the column `text`; without one, text is the column `input_ids`, a list of int64.
        task: task whose columns have the labels, if the table has no column `labels`.
        max_lengths: maximum words, frames and clips by modality (`config.length_limit`); longer sequences are cut.
            Text is also cut at the `model_max_length` of the tokenizer.
        audio_size, video_size: sizes of the model's `input_features` and `video_features`.
        reads_word_times: whether the model takes `word_times`, `audio_times` and `video_times`, from the columns
            `words`, `audio_times` and `video_times` of the table.
        audio_processor: for a model that is trained on waveforms, its `UmonsProcessor`: batches have the model's audio
            input, made of the column `audio_values`.
        waveform_augmentation: a [`WaveformAugmentation`], or a function with its arguments, of the waveforms of rows
            with the column `draw` ([`DrawnRows`]).
        input_names: names of the model inputs by modality (`config.sequence_name`), where they are not
            `input_features` and `video_features`.
        context_size: number of previous utterances that the model takes, from the column `history`.
        max_context_length: maximum number of their tokens (`config.max_context_length`).
    """

    def __init__(
        self,
        modalities: Sequence[str],
        tokenizer: PreTrainedTokenizerBase | None = None,
        task: Task | None = None,
        max_lengths: Mapping[str, int] | None = None,
        audio_size: int = 80,
        video_size: int = 512,
        reads_word_times: bool = False,
        audio_processor: UmonsProcessor | None = None,
        input_names: Mapping[str, str] | None = None,
        waveform_augmentation: Callable[..., np.ndarray] | None = None,
        context_size: int = 0,
        max_context_length: int = 0,
    ):
        if not modalities or not set(modalities) <= {"text", "audio", "video"}:
            raise ValueError(f"The modalities are {list(modalities)}, expected any of text, audio, video.")
        text = "text" if tokenizer is not None else "input_ids"
        audio = "audio_features" if audio_processor is None else SOUND
        names = {**MODALITY_COLUMNS, "text": text, "audio": audio}
        self.modality_columns = {
            modality: names[modality] for modality in ("text", "audio", "video") if modality in modalities
        }
        self.reported_cuts: set[str] = set()  # columns whose long rows have been reported
        self.tokenizer = tokenizer
        self.task = task
        self.max_lengths = dict(max_lengths or {})
        self.sizes = {"audio": audio_size, "video": video_size}
        self.audio_processor = audio_processor
        self.waveform_augmentation = waveform_augmentation
        self.input_names = {**INPUT_NAMES, **(input_names or {})}
        self.context_size, self.max_context_length = context_size, max_context_length
        self.reads_word_times = reads_word_times and tokenizer is not None and "text" in modalities

    @property
    def columns(self) -> list[str]:
        """Columns that are read; a column `labels` replaces those of the task."""
        history = [HISTORY] if self.context_size else []
        return [*self.modality_columns.values(), *history, *(self.task.columns if self.task else ())]

    def usable_rows(self, read: Callable[[list[str]], pa.Table]) -> np.ndarray:
        """
        Return which rows have a label of `task` and input in at least one modality; the others cannot be in a batch.

        Args:
            read: returns the columns with these names, of all rows. Features are read only if some rows have no input
                in the modalities before them, text first.

        Returns:
            (num_rows,) bool.
        """
        usable = None
        for name in self.modality_columns.values():
            table = read([name])
            has_steps = self._has_tokens(table) if name == "text" else _has_items(_column(table, name))
            usable = has_steps if usable is None else usable | has_steps
            if usable.all():
                break
        return usable & self.task.label_array(read(list(self.task.columns)))[1] if self.task else usable

    def __call__(self, table: pa.Table) -> dict[str, torch.Tensor]:
        """
        Returns:
            `input_ids` (B, T_text) and `attention_mask` int64; with a `context_size`, `history_ids` (B, T_context) and
            `history_mask` int64; `input_features` (B, T_audio, audio_size) float32 and
            `input_features_mask` int64, or with a `audio_processor` what [`prepare_waveforms`] returns;
            `video_features` (B, T_video, video_size) float32 and `video_features_mask` int64; with `reads_word_times`,
            `word_times` (B, T_text, 2), `audio_times` (B, T_audio) and `video_times` (B, T_video) float32 of the
            columns that the table has; `labels` (B,) or (B, num_labels), int64 for classes and else float32. A
            row without a modality has a mask of zeros there.

        Raises:
            ValueError: a column is missing or of another type or feature size, or a row has no label.
        """
        batch = {}
        for modality, name in self.modality_columns.items():
            column = self._tokenize(table) if name == "text" else _column(table, name)
            if name == SOUND:
                batch |= self.prepare_sound(column, table[DRAW].to_pylist() if DRAW in table.column_names else None)
                continue
            values = self.input_names[modality]
            mask = "attention_mask" if modality == "text" else f"{values}_mask"
            batch[values], batch[mask] = self._pad(modality, name, column)
        if self.context_size:
            batch |= self._read_history(table)
        if self.reads_word_times and "words" in table.column_names:
            batch |= self._read_times(table, batch)
        # A task may itself read a column of this name, such as the lists of GoEmotions.
        if "labels" in table.column_names and (self.task is None or "labels" not in self.task.columns):
            batch["labels"] = _labels(table["labels"])
        elif self.task is not None:
            labels, is_known = self.task.label_array(table)
            _check_all_known(is_known, ", ".join(self.task.columns))
            batch["labels"] = torch.from_numpy(labels)
        return batch

    def _read_history(self, table: pa.Table) -> dict[str, torch.Tensor]:
        """Return the ids of the previous utterances, padded to the longest, and their mask."""
        speakers = table["speaker"].to_pylist() if "speaker" in table.column_names else [None] * len(table)
        limits = (self.context_size, self.max_context_length)
        ids = [
            torch.tensor(encode_history(self.tokenizer, history or [], speaker, *limits), dtype=torch.long)
            for history, speaker in zip(_column(table, HISTORY).to_pylist(), speakers, strict=True)
        ]
        lengths = torch.tensor([len(row) for row in ids])
        padded = torch.nn.utils.rnn.pad_sequence([*ids, torch.zeros(1, dtype=torch.long)], batch_first=True)[:-1]
        return {"history_ids": padded, "history_mask": (torch.arange(padded.shape[1]) < lengths[:, None]).long()}

    def _read_times(self, table: pa.Table, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the times of words and frames, in seconds from the beginning of the segment; NaN if unknown."""
        starts = table["start"].to_pylist() if "start" in table.column_names else [None] * len(table)
        starts = [start or 0.0 for start in starts]
        words = [
            row and [
                (word["word"], *(None if word[key] is None else word[key] - start for key in ("start", "end")))
                for word in row
            ]
            for row, start in zip(table["words"].to_pylist(), starts, strict=True)
        ]  # fmt: skip
        times = {"word_times": find_word_times(self.tokenizer, batch["input_ids"], words)}
        for modality, column in self.modality_columns.items():
            name = f"{modality}_times"
            if modality != "text" and column != SOUND and name in table.column_names:
                num_frames = batch[self.input_names[modality]].shape[1]
                times[name] = torch.full((len(table), num_frames), torch.nan)
                for out, row, start in zip(times[name], table[name].to_pylist(), starts, strict=True):
                    row = torch.tensor(row or [], dtype=torch.float64)[:num_frames] - start
                    out[: len(row)] = row
        return times

    def _has_tokens(self, table: pa.Table) -> np.ndarray:
        """Return which texts have tokens, (num_rows,) bool."""
        column = _column(table, "text")
        if self.tokenizer.unk_token_id is None or not pa.types.is_string(column.type):
            return _has_items(self._tokenize(table))
        # Any word has a token, if only that of unknown words; tokenization takes longer than all else.
        has_tokens = pc.fill_null(pc.match_substring_regex(column, "[A-Za-z]"), False).to_numpy().copy()
        others = np.flatnonzero(~has_tokens)
        has_tokens[others] = _has_items(self._tokenize(table.take(others)))
        return has_tokens

    def _tokenize(self, table: pa.Table) -> pa.ChunkedArray:
        column = _column(table, "text")
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise ValueError(f"The column text is of the type {column.type}, expected string.")
        texts = column.to_pylist()
        # A missing text has no ids, not even of special tokens; tokenizers refuse an empty batch.
        encoded = iter(self._encode([text for text in texts if text is not None]))
        ids = [None if text is None else next(encoded) for text in texts]
        return pa.chunked_array([pa.array(ids, pa.list_(pa.int64()))])

    def _encode(self, texts: list[str]) -> list[list[int]]:
        options: dict[str, Any] = {"truncation": True, "max_length": self.max_lengths.get("text")}
        return self.tokenizer(texts, return_attention_mask=False, **options)["input_ids"] if texts else []

    def prepare_sound(self, column: pa.ChunkedArray, draws: list[int] | None = None) -> dict[str, torch.Tensor]:
        """Return the audio input of the model and its mask, both zero in rows without audio."""
        from ..models.umons.processing_umons import prepare_waveforms

        pieces = [np.empty(0, np.float32)] * len(column)
        if column.null_count < len(column):
            pieces = [piece for chunk in column.chunks for piece in _pieces(chunk, SOUND)]
        is_augmented = self.waveform_augmentation is not None and draws is not None
        if is_augmented:
            pieces = self._augment(pieces, draws)
        # The last row, removed afterwards, sets the minimum length of the others.
        silence = np.zeros(round(MIN_SOUND_S * self.audio_processor.feature_extractor.sampling_rate), np.float32)
        # Augmentation changes speed and cuts, so that the times of words do not apply.
        has_times = self.reads_word_times and not is_augmented
        batch = prepare_waveforms(self.audio_processor, [*pieces, silence], "pt", has_times)
        return {name: values[:-1] for name, values in batch.items()}

    def _augment(self, pieces: list[np.ndarray], draws: list[int]) -> list[np.ndarray]:
        """Distort the waveforms of a batch, which are also each other's babble."""
        rate, augmented = self.audio_processor.feature_extractor.sampling_rate, []
        for i, (piece, draw) in enumerate(zip(pieces, draws, strict=True)):
            voices = [other for j, other in enumerate(pieces) if j != i and len(other)]
            augmented.append(self.waveform_augmentation(piece, draw, rate, voices) if len(piece) else piece)
        return augmented

    def _pad(self, modality: str, name: str, column: pa.ChunkedArray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return values (B, T) or (B, T, size) and their mask (B, T), with T at least 1."""
        size = self.sizes.get(modality)
        if column.null_count == len(column):  # without audio the column may have any size
            pieces = [np.empty(0 if size is None else (0, size), dtype=np.float32)] * len(column)
        else:
            _check_type(column.type, name, size)
            pieces = [piece for chunk in column.chunks for piece in _pieces(chunk, name)]
        limit = self.max_lengths.get(modality)
        lengths = np.array([len(piece) for piece in pieces], dtype=np.int64)
        if limit is not None and lengths.max(initial=0) > limit and name not in self.reported_cuts:
            self.reported_cuts.add(name)
            logger.warning(
                "%s has rows of more than %d steps, such as %d: the model does not use the later ones.",
                name, limit, lengths.max(),
            )  # fmt: skip
        lengths = lengths.clip(max=limit)
        length = max(1, lengths.max(initial=1))
        # A copy of each row is as fast as a scatter by a mask, which needs an index as large as the batch.
        if size is None:
            values = torch.full((len(pieces), length), getattr(self.tokenizer, "pad_token_id", None) or 0)
        else:
            values = torch.zeros(len(pieces), length, size)
        for row, piece in zip(values.numpy(), pieces, strict=True):
            row[: len(piece)] = piece[:length]
        if size is not None and not torch.isfinite(values).all():  # models check it on CPUs only
            rows = (~torch.isfinite(values)).flatten(1).any(dim=1).nonzero().flatten().tolist()
            raise ValueError(
                f"The column {name} has NaN or infinite values in row(s) {rows} of the batch: remove or repair these "
                "rows."
            )
        return values, torch.from_numpy((np.arange(length) < lengths[:, None]).astype(np.int64))


def _has_items(lists: pa.ChunkedArray) -> np.ndarray:
    """Return which lists are neither null nor empty, (num_rows,) bool."""
    return pc.fill_null(pc.greater(pc.list_value_length(lists), 0), False).to_numpy()


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise ValueError(f"The table has no column {name!r}; its columns are {', '.join(table.column_names)}.")
    return table[name]


def _check_type(type: pa.DataType, name: str, size: int | None):
    step = type.value_type if pa.types.is_list(type) or pa.types.is_large_list(type) else pa.null()
    if size is None:
        if not pa.types.is_integer(step):
            raise ValueError(f"The column {name} is of the type {type}, expected a list of int64.")
    elif not pa.types.is_fixed_size_list(step) or not pa.types.is_floating(step.value_type):
        raise ValueError(f"The column {name} is of the type {type}, expected a list of lists of {size} float32.")
    elif step.list_size != size:
        raise ValueError(
            f"Features in the column {name} have the size {step.list_size}, but those of the model have {size}."
        )


def _pieces(chunk: pa.ListArray, name: str) -> list[np.ndarray]:
    """Return the sequence of each row, (T,) or (T, size), as views; empty if the row is null."""
    if len(chunk) == 0:
        return []
    offsets = chunk.offsets.to_numpy()
    steps = chunk.values.slice(offsets[0], offsets[-1] - offsets[0])
    is_flat = not pa.types.is_fixed_size_list(steps.type)
    values = steps if is_flat else steps.flatten()
    if steps.null_count or values.null_count:
        raise ValueError(f"The column {name} has null inside a sequence: only a whole row may be null.")
    values = values.to_numpy().reshape(len(steps) if is_flat else (len(steps), steps.type.list_size))
    starts, stops = offsets[:-1] - offsets[0], offsets[1:] - offsets[0]
    if chunk.null_count:  # a null row may have values, which do not count
        stops = np.where(chunk.is_null(), starts, stops)
    return [values[start:stop] for start, stop in zip(starts, stops, strict=True)]


def _labels(column: pa.ChunkedArray) -> torch.Tensor:
    """Return labels (B,) or (B, num_labels), int64 if they are whole numbers, else float32 with NaN for null."""
    _check_all_known(column.is_valid().to_numpy(), "labels")
    labels = column.combine_chunks()
    is_list = pa.types.is_nested(labels.type)
    values = labels.flatten() if is_list else labels
    dtype = np.int64 if pa.types.is_integer(values.type) else np.float32
    values = torch.from_numpy(values.to_numpy(zero_copy_only=False).astype(dtype))
    return values.reshape(len(labels), -1) if is_list else values


def _check_all_known(is_known: np.ndarray, columns: str):
    if not is_known.all():
        rows = np.flatnonzero(~is_known).tolist()
        raise ValueError(f"Row(s) {rows} of the batch have no label in {columns}: remove them before batching.")
