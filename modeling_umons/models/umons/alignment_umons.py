# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Times of the words of a given text, from transcribed words and from when someone speaks."""

import difflib
import itertools
from typing import Any

import numpy as np

from .input_checks_umons import Warnings, make_warning, split_words


MIN_MATCHED = 0.5  # share of the words that were transcribed as they are in the text

Words = list[dict[str, Any]]


def align_text(text: str, heard: Words, regions: list[tuple[float, float]]) -> tuple[Words, Warnings]:
    """
    Return the words of a text with their times in a recording.

    A word that was transcribed has the times of its transcript. Others share the speech between their neighbours in
    proportion to their letters.

    Args:
        text: transcript of the recording.
        heard: transcribed words with `timestamp`; empty without a transcriber.
        regions: speech, (start, end) in seconds.

    Returns:
        The words, and the warning `estimated_times` if most of the times are estimates.
    """
    words = text.split()
    times: list[tuple[float, float] | None] = [None] * len(words)
    plain, known = ([_simplify(word) for word in found] for found in (words, [word["word"] for word in heard]))
    matcher = difflib.SequenceMatcher(None, plain, known, autojunk=False)
    for block in matcher.get_matching_blocks():
        for i in range(block.size):
            start, end = heard[block.b + i]["timestamp"]
            if start is not None and end is not None:
                times[block.a + i] = (start, end)
    matched = sum(time is not None for time in times)
    for is_known, group in itertools.groupby(range(len(words)), key=lambda i: times[i] is not None):
        if not is_known:
            indices = list(group)
            before = times[indices[0] - 1] if indices[0] > 0 else None
            after = times[indices[-1] + 1] if indices[-1] + 1 < len(words) else None
            start = regions[0][0] if before is None else before[1]
            end = regions[-1][1] if after is None else after[0]
            for i, time in zip(indices, _spread([words[i] for i in indices], start, end, regions), strict=True):
                times[i] = time
    aligned = [{"word": word, "timestamp": time} for word, time in zip(words, times, strict=True)]
    if matched >= MIN_MATCHED * len(words):
        return aligned, []
    message = f"The times of {len(words) - matched} of the {len(words)} words are estimates: " + (
        "the transcript differs from the text." if heard else "pass `transcriber`, which finds most of them."
    )
    return aligned, [make_warning("estimated_times", message)]


def _simplify(word: str) -> str:
    return "".join(split_words(word)) or word.lower()


def _spread(
    words: list[str], start: float, end: float, regions: list[tuple[float, float]]
) -> list[tuple[float, float]]:
    """Return times for words in the speech between `start` and `end`, in proportion to their letters."""
    inside = [(max(start, first), min(end, last)) for first, last in regions if first < end and last > start]
    inside = inside or [(start, max(start, end))]
    spoken = np.concatenate([[0.0], np.cumsum([last - first for first, last in inside])])
    borders = np.cumsum([0, *(len(word) + 1 for word in words)])
    borders = borders / borders[-1] * spoken[-1]
    found = []
    for first, last in itertools.pairwise(borders):
        # A border between two regions is the start of the next word and the end of the last one.
        begin = min(int(np.searchsorted(spoken, first, "right")) - 1, len(inside) - 1)
        finish = max(int(np.searchsorted(spoken, last, "left")) - 1, 0)
        found.append(
            (
                float(inside[begin][0] + first - spoken[begin]),
                float(inside[finish][0] + last - spoken[finish]),
            )
        )
    return found
