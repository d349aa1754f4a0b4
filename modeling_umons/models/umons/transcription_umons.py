# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Transcription of segments: Whisper through faster-whisper, or any speech recognition pipeline."""

import itertools
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from transformers.utils import logging

from .input_checks_umons import Warnings, make_warning, split_words
from .media_umons import resample
from .segmentation_umons import Segment, assign_words, order_words
from .voice_activity_umons import SAMPLING_RATE, find_speech, import_whisper


logger = logging.get_logger(__name__)

DEFAULT_SIZE = "base"
TRANSCRIPTION_S = 30.0  # seconds transcribed at once: Whisper's window
DELAY_S = 0.08  # of Whisper's word times, measured on two voices of espeak-ng; the others are a test of it
MAX_BLOCK_PAUSE_S = 2.0  # in audio that is transcribed at once: Whisper invents words in longer ones
BLOCK_MARGIN_S = 0.2  # of audio around it
MARGIN_S = 0.25  # between a word and the speech that it belongs to
MIN_WORD_S = 0.02
MAX_PHRASE = 20  # words of a repeated phrase
MAX_REPEATS = {1: 7, 2: 5}  # by the number of its words, that people say; longer phrases are said 3 times
MIN_CONFIDENCE = 0.5  # mean of words; 0.3 to 0.45 for German by Whisper tiny.en, 0.6 to 0.9 for English
MIN_LANGUAGE = 0.6  # probability of another language than English


def load_transcriber(name: str) -> Callable:
    """
    Load a transcriber.

    Args:
        name: "whisper", which is multilingual Whisper base; "whisper-SIZE" for another one that faster-whisper knows,
            such as "whisper-tiny.en"; a folder with a Whisper model in the format of CTranslate2; or the folder or
            Hub id of a model for speech recognition pipelines.

    Raises:
        ValueError, OSError: there is no such model.
        ImportError: "whisper" needs faster-whisper (the extra `transcribe`).
    """
    if os.path.exists(os.path.join(name, "model.bin")):
        return WhisperTranscriber(name)
    if (name == "whisper" or name.startswith("whisper-")) and not os.path.isdir(name):
        return WhisperTranscriber(name.removeprefix("whisper").removeprefix("-") or DEFAULT_SIZE)
    from transformers import pipeline

    return pipeline("automatic-speech-recognition", model=name)


class WhisperTranscriber:
    """
    Whisper with the times and confidences of words. It is called as a speech recognition pipeline is.

    Words outside of speech, which Whisper invents, and phrases that it repeats in a loop are dropped, with a warning.

    ```python
    >>> transcriber = WhisperTranscriber("tiny.en")
    >>> transcriber({"raw": samples, "sampling_rate": 16_000})
    {'text': 'so glad', 'chunks': [{'text': ' so', 'timestamp': (0.1, 0.3), 'confidence': 0.9}, ...], 'warnings': []}
    ```

    Args:
        model: size or folder of a model that faster-whisper loads.
        options: arguments of `faster_whisper.WhisperModel.transcribe`, such as `language` and `beam_size`.

    Raises:
        ImportError: faster-whisper is not installed.
        OSError: there is no such model.
    """

    def __init__(self, model: str, **options: Any):
        whisper = import_whisper()
        try:
            self.model = whisper.WhisperModel(model, compute_type="int8")
        except (RuntimeError, ValueError, OSError) as error:
            raise OSError(f"No Whisper model can be loaded from {model!r}: {error}") from error
        self.feature_extractor = self.model.feature_extractor  # with the sampling rate
        self.options = {"condition_on_previous_text": False, "beam_size": 5, **options}

    def __call__(self, inputs: dict[str, Any], return_timestamps: str = "word") -> dict[str, Any]:
        """
        Transcribe audio.

        Args:
            inputs: `raw`, float32 (num_samples,) in [-1, 1], and its `sampling_rate` in Hz.
            return_timestamps: "word", as of speech recognition pipelines.

        Returns:
            The `text`; its words as `chunks` with `text`, `timestamp` (start, end) in seconds and `confidence` from 0
            to 1; and `warnings` with `code`, `message` and `timestamp`.
        """
        audio = resample(np.asarray(inputs["raw"], np.float32), inputs["sampling_rate"], SAMPLING_RATE)
        regions = find_speech(audio)
        if not regions:
            return {"text": "", "chunks": [], "warnings": []}
        words: list[dict[str, Any]] = []
        warnings: list[dict[str, Any]] = []
        for block in group_regions(regions):
            of_block, found = self._transcribe_block(audio, block)
            words += of_block
            warnings += found
        return {"text": "".join(word["text"] for word in words).strip(), "chunks": words, "warnings": warnings}

    def _transcribe_block(self, audio: np.ndarray, regions: list[tuple[float, float]]) -> tuple[list, Warnings]:
        """Return the words in regions of speech without long pauses between them, and warnings."""
        first = max(0, round((regions[0][0] - BLOCK_MARGIN_S) * SAMPLING_RATE))
        last = round((regions[-1][1] + BLOCK_MARGIN_S) * SAMPLING_RATE)
        segments, info = self.model.transcribe(audio[first:last], word_timestamps=True, **self.options)
        offset = first / SAMPLING_RATE - DELAY_S
        found = [
            [
                {
                    "text": word.word,
                    "timestamp": tuple(max(0.0, float(time) + offset) for time in (word.start, word.end)),
                    "confidence": round(float(word.probability), 3),
                }
                for word in segment.words or ()
            ]
            for segment in segments
        ]
        spoken, warnings = drop_invented(found, regions)
        words: list[dict[str, Any]] = []
        # A phrase that is repeated after a pause is spoken again; loops are in uninterrupted speech.
        for _, group in itertools.groupby(spoken, key=lambda word: _find_region(word["timestamp"], regions)):
            kept, repeated = drop_repetitions(list(group))
            words += kept
            warnings += repeated
        for word in words:
            word["timestamp"] = limit_to_speech(word["timestamp"], regions)
        if words and info.language != "en" and info.language_probability >= MIN_LANGUAGE:
            message = f"The speech is in another language than English: {info.language}."
            warnings.append({**make_warning("other_language", message), "timestamp": (regions[0][0], regions[-1][1])})
        confidence = sum(word["confidence"] for word in words) / max(1, len(words))
        if words and confidence < MIN_CONFIDENCE:
            message = f"Whisper is unsure of the words, with a mean confidence of {confidence:.2f}."
            warnings.append({**make_warning("uncertain_words", message), "timestamp": (regions[0][0], regions[-1][1])})
        return words, warnings


def group_regions(regions: list[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Return regions of speech in blocks that Whisper processes at once: at most 30 s, without long pauses."""
    blocks: list[list[tuple[float, float]]] = []
    for start, end in regions:
        is_new = not blocks or end - blocks[-1][0][0] > TRANSCRIPTION_S - 2 * BLOCK_MARGIN_S
        if is_new or start - blocks[-1][-1][1] > MAX_BLOCK_PAUSE_S:
            blocks.append([])
        blocks[-1].append((start, end))
    return blocks


def drop_invented(
    segments: list[list[dict[str, Any]]], regions: list[tuple[float, float]]
) -> tuple[list[dict[str, Any]], Warnings]:
    """Return the words of segments that are in a region of speech at least in part, and a warning about the others."""
    kept, dropped = [], []
    for words in segments:
        spoken = any(
            start - MARGIN_S <= word["timestamp"][1] and word["timestamp"][0] <= end + MARGIN_S
            for word in words
            for start, end in regions
        )
        (kept if spoken else dropped).extend(words)
    if not dropped:
        return kept, []
    text = "".join(word["text"] for word in dropped).strip()
    message = f"The transcriber returned words where nobody speaks; they were dropped: {text!r:.80}."
    return kept, [_at(dropped, "invented_words", message)]


def limit_to_speech(timestamp: tuple[float, float], regions: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the part of the time of a word that is speech, if there is one: Whisper includes pauses next to it."""
    start, end = timestamp
    first, last = _find_region(timestamp, regions)
    limited = max(start, first), min(end, last)
    return limited if limited[1] - limited[0] >= MIN_WORD_S else timestamp


def _find_region(timestamp: tuple[float, float], regions: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the region that includes most of a word, or is nearest to it."""
    return max(regions, key=lambda region: min(timestamp[1], region[1]) - max(timestamp[0], region[0]))


def drop_repetitions(words: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Warnings]:
    """
    Return the words with one copy of each phrase that is repeated more often than people do, and warnings.

    Args:
        words: dicts with `text` and `timestamp`.
    """
    plain = ["".join(split_words(word["text"])) or word["text"].strip() for word in words]
    kept, warnings, index = [], [], 0
    while index < len(words):
        size, count = _find_repetition(plain, index)
        if count:
            loop = words[index : index + size * count]
            text = "".join(word["text"] for word in loop[:size]).strip()
            message = f"The transcriber repeated {text!r:.80} {count} times; one of them was kept."
            warnings.append(_at(loop, "repeated_words", message))
            kept += loop[:size]
            index += size * count
        else:
            kept.append(words[index])
            index += 1
    return kept, warnings


def _find_repetition(words: list[str], first: int) -> tuple[int, int]:
    """Return the length and the number of a phrase that is repeated too often from `first` on; zeros without one."""
    for size in range(1, min(MAX_PHRASE, (len(words) - first) // 2) + 1):
        count = 1
        phrase = words[first : first + size]
        while words[first + count * size : first + (count + 1) * size] == phrase:
            count += 1
        if count > MAX_REPEATS.get(size, 3):
            return size, count
    return 0, 0


def _at(words: list[dict[str, Any]], code: str, message: str) -> dict[str, Any]:
    return {**make_warning(code, message), "timestamp": (words[0]["timestamp"][0], words[-1]["timestamp"][1])}


# --- segments


def transcribe(segments: Iterator[Segment], transcriber) -> Iterator[Segment]:
    """
    Fill in the words of segments, with their times if the transcriber returns them.

    Segment boundaries can split words. A transcriber that returns times therefore processes `TRANSCRIPTION_S` at once,
    and each word is assigned to the segment of its midpoint. Any other transcriber processes each segment separately.
    """
    has_times = True
    for block in _iter_blocks(segments):
        with_audio = [segment for segment in block if segment.audio is not None]
        if has_times and len(with_audio) > 1:
            whole = _concatenate_audio(with_audio)
            transcribe_segment(whole, transcriber)
            has_times = bool(whole.words) or not whole.text.strip()
            share_words(whole, with_audio)
        if not has_times or len(with_audio) == 1:
            for segment in with_audio:
                transcribe_segment(segment, transcriber)
        yield from block


def share_words(whole: Segment, parts: list[Segment]):
    """Assign the words of a segment and its warnings to the parts of their times."""
    queue, warnings = order_words(whole.words), list(whole.warnings)
    for part in parts:
        end = math.inf if part is parts[-1] else part.end  # late words belong to the last part
        assign_words(queue, part, " " if " " in whole.text.strip() else "", until=end)
        part.warnings += [warning for warning in warnings if sum(warning["timestamp"]) / 2 < end]
        warnings = [warning for warning in warnings if sum(warning["timestamp"]) / 2 >= end]


def _iter_blocks(segments: Iterator[Segment]) -> Iterator[list[Segment]]:
    block = []
    for segment in segments:
        if block and segment.end - block[0].start > TRANSCRIPTION_S:
            yield block
            block = []
        block.append(segment)
    yield block


def _concatenate_audio(segments: list[Segment]) -> Segment:
    start, rate = segments[0].start, segments[0].sampling_rate
    offsets = [round((segment.start - start) * rate) for segment in segments]
    audio = np.zeros(offsets[-1] + len(segments[-1].audio), np.float32)
    for offset, segment in zip(offsets, segments, strict=True):
        audio[offset : offset + len(segment.audio)] = segment.audio
    return Segment(start=start, end=segments[-1].end, audio=audio, sampling_rate=rate)


def transcribe_segment(segment: Segment, transcriber):
    """
    Set the text and words of a segment and the warnings of the transcriber.

    Audio is resampled here: speech pipelines would need torchaudio for it.
    """
    rate = getattr(getattr(transcriber, "feature_extractor", None), "sampling_rate", segment.sampling_rate)
    audio = {"raw": resample(segment.audio, segment.sampling_rate, rate), "sampling_rate": rate}
    try:
        output = transcriber(dict(audio), return_timestamps="word")  # a copy: speech pipelines empty their input
    except ValueError as error:
        logger.warning_once(f"The transcriber returns words without time stamps: {error}")
        output = transcriber(dict(audio))
    segment.text = output["text"]
    segment.words = [
        {
            "word": chunk["text"].strip(),
            "timestamp": _shift(chunk["timestamp"], segment.start),
            **({"confidence": chunk["confidence"]} if "confidence" in chunk else {}),
        }
        for chunk in output.get("chunks", [])
    ]
    segment.warnings += [
        {**warning, "timestamp": _shift(warning["timestamp"], segment.start)} for warning in output.get("warnings", [])
    ]


def _shift(times, start: float) -> tuple[float | None, ...]:
    return tuple(None if time is None else round(start + float(time), 3) for time in times)
