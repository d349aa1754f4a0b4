# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Times of word ids, from the words and times of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import torch


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def word_times(table: pa.Table, tokenizer: PreTrainedTokenizerFast, input_ids: torch.LongTensor) -> torch.Tensor:
    """
    Return the times of the ids, each those of its word.

    Args:
        table: rows with a column `words` (see `schema.make_features`), whose times are seconds of the recording, and
            optionally `start`, the second at which the segment begins there.
        tokenizer: tokenizer of the ids.
        input_ids: (B, T), of the same rows.

    Returns:
        (B, T, 2) float32, start and end in seconds from the beginning of the segment; NaN if unknown: in padding, in
        rows without times, and in rows whose words differ from the text.
    """
    times = torch.full((*input_ids.shape, 2), torch.nan)
    starts = table["start"].to_pylist() if "start" in table.column_names else [None] * len(table)
    rows = [(i, words) for i, words in enumerate(table["words"].to_pylist()) if _has_times(words)]
    if not rows:
        return times
    encoded = tokenizer(
        [[word["word"] for word in words] for _, words in rows], is_split_into_words=True, truncation=True
    )
    for number, (row, words) in enumerate(rows):
        ids = encoded["input_ids"][number][: input_ids.shape[1]]
        if input_ids[row, : len(ids)].tolist() != ids:
            continue  # other words than the text
        start = starts[row] or 0.0
        for place, index in enumerate(encoded.word_ids(number)[: len(ids)]):
            word = None if index is None else words[index]
            if word is not None and word["start"] is not None and word["end"] is not None:
                times[row, place] = torch.tensor([word["start"] - start, word["end"] - start])
    return times


def _has_times(words: Sequence[dict] | None) -> bool:
    return bool(words) and any(word["start"] is not None and word["end"] is not None for word in words)
