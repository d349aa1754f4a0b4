"""Grouping of rows into conversations, batches of conversations, and the previous utterances of rows."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch

from .collator import HISTORY, ArrowRows, UtteranceCollator


if TYPE_CHECKING:
    from datasets import Dataset


logger = logging.getLogger(__name__)

MAX_UTTERANCES = 50
HISTORY_TYPE = pa.list_(pa.struct({"speaker": pa.string(), "text": pa.string()}))


class ConversationRows(torch.utils.data.Dataset):
    """
    Data set of `datasets` whose items are conversations: `pa.Table`s of the rows of one `video_id`, ordered by
    `segment`, then `start`, then row; nulls come last. Conversations are in the order of their first row. Rows that
    are missing leave no gap. A row without a `video_id`, or without both `segment` and `start`, is a conversation of
    its own: sorted recordings, perhaps by their class, do not follow each other. A row that is in the data set several
    times, by its `segment_id`, is in as many conversations.

    Args:
        dataset: the rows.
        max_utterances: longer conversations are cut into pieces of this length, the last one of what is left.
    """

    def __init__(self, dataset: Dataset, max_utterances: int = MAX_UTTERANCES):
        if max_utterances < 1:
            raise ValueError(f"max_utterances is {max_utterances}: it must be at least 1.")
        self.dataset = dataset.with_format("arrow")
        self.conversations = [
            conversation[start : start + max_utterances]
            for conversation in _group(dataset)
            for start in range(0, len(conversation), max_utterances)
        ]

    def __len__(self) -> int:
        return len(self.conversations)

    def __getitem__(self, index: int) -> pa.Table:
        """Return the rows of one conversation."""
        return self.dataset[self.conversations[index]]

    def __getitems__(self, indices: Sequence[int]) -> list[pa.Table]:
        """Return several conversations, looked up at once: a DataLoader calls this for a batch."""
        conversations = [self.conversations[index] for index in indices]
        table = self.dataset[[row for conversation in conversations for row in conversation]]
        stops = np.cumsum([len(conversation) for conversation in conversations])
        return [
            table.slice(stop - len(conversation), len(conversation))
            for conversation, stop in zip(conversations, stops.tolist(), strict=True)
        ]

    def in_row_order(self, values: np.ndarray) -> np.ndarray:
        """Convert values (conversations, U, ...) to (rows, ...), in the order of the data set."""
        rows = np.concatenate([np.array(conversation) for conversation in self.conversations])
        ordered = np.empty((len(rows), *values.shape[2:]), dtype=values.dtype)
        ordered[rows] = np.concatenate(
            [value[: len(conversation)] for value, conversation in zip(values, self.conversations, strict=True)]
        )
        return ordered


def _group(dataset: Dataset) -> list[list[int]]:
    """Return the row numbers of each conversation."""
    order = list(zip(_values(dataset, "segment"), _values(dataset, "start"), strict=True))
    groups: dict[object, list[int]] = {}
    copies: Counter[str] = Counter()
    for row, (video, name) in enumerate(
        zip(_values(dataset, "video_id"), _values(dataset, "segment_id"), strict=True)
    ):
        copy = copies[name]
        if name is not None:
            copies[name] += 1
        is_alone = video is None or order[row] == (None, None)
        groups.setdefault(row if is_alone else (video, copy), []).append(row)

    def place(row: int) -> list[tuple[bool, float]]:
        return [(value is None, 0 if value is None else value) for value in order[row]]

    return [sorted(group, key=place) for group in groups.values()]


class ConversationCollator(UtteranceCollator):
    """
    Pad conversations (items of [`ConversationRows`]) to the longest of them, and utterances as [`UtteranceCollator`].
    The arguments are the same, and:

    Args:
        max_utterances: maximum length of conversations in [`rows_for`].
    """

    def __init__(self, *args, max_utterances: int = MAX_UTTERANCES, **kwargs):
        super().__init__(*args, **kwargs)
        self.max_utterances = max_utterances

    def __call__(self, conversations: Sequence[pa.Table]) -> dict[str, torch.Tensor]:
        """
        Returns:
            the batch of `UtteranceCollator` with the axes (C, U), conversations and utterances, in place of (B,).
            Padding is zero, in `labels` -100 for classes and NaN otherwise. Also `utterance_mask` (C, U) int64, and
            with a column `speaker`, `speaker_ids` (C, U) int64.

        Raises:
            ValueError: as `UtteranceCollator`.
        """
        table = pa.concat_tables(conversations)
        flat = super().__call__(table)
        flat["utterance_mask"] = torch.ones(len(table), dtype=torch.long)
        if "speaker" in table.column_names:
            speakers = table["speaker"].combine_chunks().dictionary_encode(null_encoding="encode")
            flat["speaker_ids"] = torch.tensor(speakers.indices.to_numpy(), dtype=torch.long)
        lengths = torch.tensor([len(conversation) for conversation in conversations])
        is_utterance = torch.arange(int(lengths.max())) < lengths[:, None]
        return {name: _unflatten(name, values, is_utterance) for name, values in flat.items()}


def _unflatten(name: str, values: torch.Tensor, is_utterance: torch.BoolTensor) -> torch.Tensor:
    """Convert (utterances, ...) to (C, U, ...)."""
    padding = 0
    if name == "labels":
        padding = torch.nan if values.is_floating_point() else -100
    padded = values.new_full((*is_utterance.shape, *values.shape[1:]), padding)
    padded[is_utterance] = values
    return padded


def add_history(dataset: Dataset, size: int, text_column: str = "text") -> Dataset:
    """
    Add the column `history`: the `size` previous utterances of the same conversation, the oldest first, each with
    `speaker` and `text`. Conversations are those of [`ConversationRows`]; rows without text are skipped. An existing
    column `history`, of texts or of {speaker, text}, is kept. With the size 0 the data set is returned unchanged.

    Raises:
        ValueError: the column `history` has another type.
    """
    if size < 1:
        return dataset
    if HISTORY in dataset.column_names:
        return _check_history(dataset)
    texts, speakers = (_values(dataset, name) for name in (text_column, "speaker"))
    found: list[list[dict[str, str | None]]] = [[] for _ in texts]
    for conversation in _group(dataset):
        before: deque[dict[str, str | None]] = deque(maxlen=size)
        for row in conversation:
            found[row] = list(before)
            if texts[row]:
                speaker = None if speakers[row] is None else str(speakers[row])
                before.append({"speaker": speaker, "text": str(texts[row])})
    if not any(found):
        logger.warning(
            "No row has previous utterances, which the model takes: add a column %s, or %s.", HISTORY,
            "`video_id` with `segment` or `start`",
        )  # fmt: skip
    return _with_history(dataset, found)


def _with_history(dataset: Dataset, history: list) -> Dataset:
    from datasets import Dataset, concatenate_datasets

    column = Dataset(pa.table({HISTORY: pa.array(history, HISTORY_TYPE)}))
    return concatenate_datasets([dataset.flatten_indices(), column], axis=1)


def _check_history(dataset: Dataset) -> Dataset:
    """Return the data set with a column `history` of {speaker, text}."""
    kind = dataset.data.column(HISTORY).type
    item = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else None
    if item is not None and pa.types.is_string(item):
        found = [[{"speaker": None, "text": text} for text in row or ()] for row in _values(dataset, HISTORY)]
        return _with_history(dataset.remove_columns(HISTORY), found)
    if item is None or not pa.types.is_struct(item) or "text" not in {field.name for field in item}:
        raise ValueError(
            f"The column {HISTORY} is of the type {kind}, expected a list of texts, or of objects with `text` and "
            "`speaker`: rename it to have the history read from `video_id` and `segment`."
        )
    return dataset


def _values(dataset: Dataset, name: str) -> list:
    """Return a column as a list; `None` in each row if the data set lacks it."""
    if name not in dataset.column_names:
        return [None] * len(dataset)
    return dataset.select_columns(name).with_format("arrow")[:][name].to_pylist()


def rows_for(collator: UtteranceCollator, dataset: Dataset) -> ArrowRows | ConversationRows:
    """Wrap a data set as rows or conversations, whichever the collator takes."""
    if isinstance(collator, ConversationCollator):
        return ConversationRows(dataset, collator.max_utterances)
    return ArrowRows(dataset)
