# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Words of a stream of audio, transcribed while it arrives."""

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from .feature_extraction_umons import is_silent
from .input_checks_umons import split_words
from .segmentation_umons import Segment
from .transcription_umons import transcribe_segment


MAX_CONTEXT_S = 8.0  # seconds transcribed again with each hop, while words settle
MAX_UNSETTLED_S = 16.0  # after which words settle that no second transcription confirms
PAUSE_CONTEXT_S = 1.0  # seconds kept of audio without words: a word may begin there


class LiveWords:
    """
    Words of a stream. A word settles when two successive transcriptions agree on it and on those before it
    (LocalAgreement-2 of Macháček et al., "Turning Whisper into Real-Time Transcription System", 2023).

    Args:
        transcriber: speech recognition that returns the times of words.
        rate: sampling rate of the stream in Hz.
        keep_s: seconds for which settled words are kept.
    """

    def __init__(self, transcriber: Callable, rate: int, keep_s: float):
        self.transcriber, self.rate, self.keep_s = transcriber, rate, keep_s
        self.first = 0  # position of the first sample that is still transcribed
        self.settled: deque[dict[str, Any]] = deque()
        self.tentative: list[dict[str, Any]] = []
        self.warnings: list[dict[str, str]] = []  # of the last transcription

    def update(self, audio: np.ndarray, end: int):
        """
        Transcribe the audio (num_samples,) from position `first` to `end`.

        Raises:
            ValueError: the transcriber returns no times.
        """
        segment = Segment("", [], self.first / self.rate, end / self.rate, audio, self.rate)
        if not is_silent(audio):
            transcribe_segment(segment, self.transcriber)
        if segment.text.strip() and not segment.words:
            raise ValueError("`transcriber` returns no times of words: live words require them.")
        self.warnings = [{name: warning[name] for name in ("code", "message")} for warning in segment.warnings]
        # Times differ between transcriptions: a word that has its middle in a settled one is the same.
        known = max(_middle(self.settled[-1]) + 1e-3, _end(self.settled[-1])) if self.settled else -1.0
        words = [word for word in segment.words if _middle(word) >= known]
        pairs = zip(words, self.tentative, strict=False)
        agreed = next(
            (i for i, (a, b) in enumerate(pairs) if not _is_same(a, b)), min(len(words), len(self.tentative))
        )
        self._settle(words, agreed, end)
        self._shorten(end)

    def between(self, start: float, end: float) -> list[dict[str, Any]]:
        """Return the words of [start, end) seconds, with times from its start."""
        words = [word for word in (*self.settled, *self.tentative) if start <= _middle(word) < end]
        return [
            {**word, "timestamp": tuple(None if t is None else max(0.0, t - start) for t in word["timestamp"])}
            for word in words
        ]

    def _settle(self, words: list[dict[str, Any]], number: int, end: int):
        self.settled.extend(words[:number])
        self.tentative = words[number:]
        while self.settled and _middle(self.settled[0]) < end / self.rate - self.keep_s:
            self.settled.popleft()

    def _shorten(self, end: int):
        """Drop audio whose words have settled, or that has none."""
        if end - self.first > MAX_UNSETTLED_S * self.rate:
            self._settle(self.tentative, len(self.tentative), end)
        if end - self.first <= MAX_CONTEXT_S * self.rate:
            return
        last = _end(self.settled[-1]) if self.settled else None
        if last is not None and last * self.rate > self.first:
            self.first = min(end, round(last * self.rate))
        elif not self.tentative:
            self.first = end - round(PAUSE_CONTEXT_S * self.rate)


def _times(word: dict[str, Any]) -> list[float]:
    return [time for time in word["timestamp"] if time is not None] or [0.0]


def _middle(word: dict[str, Any]) -> float:
    times = _times(word)
    return sum(times) / len(times)


def _end(word: dict[str, Any]) -> float:
    return _times(word)[-1]


def _is_same(word: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two words are the same, but for punctuation and case."""
    words, others = split_words(word["word"]), split_words(other["word"])
    return words == others if words or others else word["word"].strip() == other["word"].strip()


__all__ = ["LiveWords"]
