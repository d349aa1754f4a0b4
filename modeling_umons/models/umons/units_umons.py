# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Units of a recording: windows, utterances, sentences, words and turns of speakers, each with its words."""

import itertools
import math
import re
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import numpy as np
from transformers.utils import logging

from .alignment_umons import align_text
from .input_checks_umons import make_warning
from .media_umons import Clip
from .segmentation_umons import Segment, iter_audio, order_words
from .transcription_umons import BLOCK_MARGIN_S, MAX_BLOCK_PAUSE_S, group_regions, share_words, transcribe_segment
from .voice_activity_umons import MIN_PAUSE_S, SAMPLING_RATE, SpeechDetector


logger = logging.get_logger(__name__)

GRANULARITIES = ("window", "utterance", "sentence", "word", "turn")
CONTEXT_S = 3.0  # seconds of its utterance from which a word is predicted
MAX_PAUSE_S = 1.5  # within a sentence
SENTENCE_END = re.compile(r"[.?!…。？！]+[\"'”’)\]]*$")  # noqa: RUF001
ABBREVIATION = re.compile(r"^(?:[A-Za-z]|(?:[A-Za-z]\.)+|Mr|Mrs|Ms|Dr|St|Prof|vs|e\.g|i\.e)\.$")

Unit = dict[str, Any]


def iter_units(
    inputs: dict[str, Any],
    granularity: str,
    *,
    transcriber: Callable | None = None,
    chunk_length_s: float | None = None,
    hop_length_s: float | None = None,
    read_windows: Callable[..., Generator[Clip]],
) -> Iterator[Unit]:
    """
    Yield the units of an input in order of time, in one pass and bounded memory.

    Args:
        inputs: dict of `segmentation_umons.INPUT_NAMES`.
        granularity: one of `GRANULARITIES`:

            - "window": `chunk_length_s` seconds every `hop_length_s` seconds, without an end.
            - "utterance": speech between pauses. One unit with the warning `no_speech` if there is none.
            - "sentence": the words up to a full stop, question mark or exclamation mark, or a long pause.
            - "word": a word. Its `context` are the `CONTEXT_S` seconds of its utterance around it, with their `text`.
            - "turn": each of the `speakers` of the input.
        transcriber: transcribes an input without `words`. Times of a given `text` are those of its transcript.
        read_windows: decoder of files, with the arguments of `media_umons.iter_windows`.

    Returns:
        Dicts with `timestamp` (start, end) in seconds, `text` and `words` if they are known, `speaker` with `speakers`
        in the input, and `warnings`.
    """
    has_words = any(inputs.get(name) is not None for name in ("text", "words")) or transcriber is not None
    if granularity in ("sentence", "word") and not has_words:
        raise ValueError(
            f"granularity={granularity!r} requires words: pass `transcriber` (`--transcriber`), or `words` in the "
            "input."
        )
    speakers = inputs.get("speakers")
    if granularity == "turn" and speakers is None:
        raise ValueError("granularity='turn' requires `speakers`, in the input or as an option (`--speakers`).")
    if granularity in ("window", "turn"):
        units = iter_windows(chunk_length_s, hop_length_s) if granularity == "window" else turns_of(speakers)
        if has_words:
            units = attach_words(units, iter_utterances(inputs, transcriber, read_windows))
    else:
        units = iter_utterances(inputs, transcriber, read_windows)
        if granularity == "sentence":
            units = iter_sentences(units)
        elif granularity == "word":
            units = iter_words(units)
    for unit in units:
        if speakers is not None and "speaker" not in unit:
            unit["speaker"] = find_speaker(unit["timestamp"], speakers)
        yield unit


def iter_windows(chunk_length_s: float, hop_length_s: float) -> Iterator[Unit]:
    """Yield windows without an end."""
    for index in itertools.count():
        start = index * hop_length_s
        yield {"timestamp": (start, start + chunk_length_s)}


def turns_of(speakers: Iterable[dict[str, Any]]) -> Iterator[Unit]:
    """Yield the turns of speakers in order of time."""
    for turn in sorted(speakers, key=lambda turn: turn["timestamp"]):
        yield {"timestamp": turn["timestamp"], "speaker": turn["speaker"]}


def find_speaker(timestamp: tuple[float, float], speakers: Iterable[dict[str, Any]]) -> str | None:
    """Return the speaker who speaks most of a range of time; `None` if nobody does."""
    seconds: dict[str, float] = {}
    for turn in speakers:
        overlap = min(timestamp[1], turn["timestamp"][1]) - max(timestamp[0], turn["timestamp"][0])
        if overlap > 0:
            seconds[turn["speaker"]] = seconds.get(turn["speaker"], 0.0) + overlap
    return max(seconds, key=seconds.__getitem__, default=None)


# --- utterances


def iter_utterances(
    inputs: dict[str, Any], transcriber: Callable | None, read_windows: Callable[..., Generator[Clip]]
) -> Iterator[Unit]:
    """Yield speech between pauses, with its words if they are known or can be transcribed."""
    words, text = inputs.get("words"), inputs.get("text")
    if inputs.get("audio") is None and inputs.get("video") is None:
        if not words or _range_of(words) is None:
            raise ValueError(
                "There is no audio and no word with its time to find utterances in: pass `audio`, `video` or `words`."
            )
        yield from _utterances_of_words(words)
        return
    blocks = iter_audio(inputs, SAMPLING_RATE, read_windows)
    if words is not None:
        yield from _share_given(words, _iter_speech(blocks))
        return
    utterances = _iter_speech(blocks) if transcriber is None else _transcribe_speech(blocks, transcriber)
    if text is None:
        yield from utterances
    else:
        yield from _align(text, list(utterances))


def _iter_speech(blocks: Iterator[np.ndarray]) -> Iterator[Unit]:
    """Yield the regions of speech in blocks of audio, or one unit of all if there is none."""
    detector, is_empty = SpeechDetector(), True
    for samples in itertools.chain(blocks, [None]):
        for region in detector.flush() if samples is None else detector.push(samples):
            is_empty = False
            yield {"timestamp": region, "warnings": []}
    if is_empty:
        yield _describe_no_speech(detector)


def _describe_no_speech(detector: SpeechDetector) -> Unit:
    warning = make_warning("no_speech", "No speech was found: nobody speaks, or too quietly.")
    return {"timestamp": (0.0, detector.num_samples / SAMPLING_RATE), "warnings": [warning], "has_speech": False}


def _transcribe_speech(blocks: Iterator[np.ndarray], transcriber: Callable) -> Iterator[Unit]:
    """Yield the regions of speech in blocks of audio with their transcribed words."""
    detector, audio, is_empty = SpeechDetector(), AudioBuffer(), True
    waiting: list[tuple[float, float]] = []
    for samples in itertools.chain(blocks, [None]):
        if samples is not None:
            audio.append(samples)
        for region in detector.flush() if samples is None else detector.push(samples):
            is_empty = False
            waiting.append(region)
            if len(group_regions(waiting)) > 1:
                yield from _transcribe_block(audio, waiting[:-1], transcriber)
                waiting = [region]
        if waiting and detector.settled - waiting[-1][1] > MAX_BLOCK_PAUSE_S:  # also bounds the memory in a pause
            yield from _transcribe_block(audio, waiting, transcriber)
            waiting = []
        audio.drop_before((waiting[0][0] if waiting else detector.settled) - BLOCK_MARGIN_S)
    if waiting:
        yield from _transcribe_block(audio, waiting, transcriber)
    if is_empty:
        yield _describe_no_speech(detector)


class AudioBuffer:
    """The end of a stream of audio at `SAMPLING_RATE`."""

    def __init__(self):
        self.first, self.samples = 0, np.zeros(0, np.float32)

    @property
    def end(self) -> float:
        """Seconds from the beginning of the stream to the end of the buffer."""
        return (self.first + len(self.samples)) / SAMPLING_RATE

    def append(self, samples: np.ndarray):
        self.samples = np.concatenate([self.samples, samples])

    def drop_before(self, time: float):
        count = min(max(0, int(time * SAMPLING_RATE) - self.first), len(self.samples))
        self.first, self.samples = self.first + count, self.samples[count:]

    def cut(self, start: float, end: float) -> Segment:
        first = max(self.first, round(start * SAMPLING_RATE))
        samples = self.samples[first - self.first : max(0, round(end * SAMPLING_RATE) - self.first)]
        start = first / SAMPLING_RATE
        return Segment(
            start=start, end=start + len(samples) / SAMPLING_RATE, audio=samples, sampling_rate=SAMPLING_RATE
        )


def _transcribe_block(audio: AudioBuffer, regions: list[tuple[float, float]], transcriber: Callable) -> Iterator[Unit]:
    """Yield regions of speech of at most `TRANSCRIPTION_S` with their words."""
    whole = audio.cut(regions[0][0] - BLOCK_MARGIN_S, regions[-1][1] + BLOCK_MARGIN_S)
    transcribe_segment(whole, transcriber)
    has_times = bool(whole.words) or not whole.text.strip()
    # A pause belongs to the region that is nearer: words are seldom timed exactly.
    borders = [(before[1] + after[0]) / 2 for before, after in itertools.pairwise(regions)]
    parts = [Segment(start=start, end=end) for (start, _), end in zip(regions, [*borders, math.inf], strict=True)]
    if has_times:
        share_words(whole, parts)
    else:
        parts = [audio.cut(start - BLOCK_MARGIN_S, end + BLOCK_MARGIN_S) for start, end in regions]
        for part in parts:
            transcribe_segment(part, transcriber)
    for region, part in zip(regions, parts, strict=True):
        yield {"timestamp": region, "text": part.text, "words": part.words, "warnings": part.warnings}


def _align(text: str, utterances: list[Unit]) -> Iterator[Unit]:
    """Yield utterances with the words of a given text in place of transcribed ones."""
    heard = [word for utterance in utterances for word in utterance.get("words") or ()]
    words, warnings = align_text(text, heard, [utterance["timestamp"] for utterance in utterances])
    dropped = ("invented_words", "repeated_words")  # of the transcript
    for utterance in utterances:
        utterance["warnings"] = [warning for warning in utterance["warnings"] if warning["code"] not in dropped]
    utterances[0]["warnings"] += warnings
    yield from _share_given(words, iter(utterances))


def _share_given(words: list[dict[str, Any]], units: Iterator[Unit]) -> Iterator[Unit]:
    """Assign given words to the utterance that is nearest to their middle."""
    queue = order_words(words)
    unit = next(units)
    while unit is not None:
        following = next(units, None)
        end = math.inf if following is None else (unit["timestamp"][1] + following["timestamp"][0]) / 2
        inside = []
        while queue and queue[0][0] < end:
            inside.append(queue.popleft()[1])
        yield _with_words(unit, inside)
        unit = following


def _utterances_of_words(words: list[dict[str, Any]]) -> Iterator[Unit]:
    """Yield stretches of words without pauses between them."""
    unit: list[dict[str, Any]] = []
    last = -math.inf
    for middle, word in order_words(words):
        start, end = (middle if time is None else time for time in word["timestamp"])
        if unit and start - last >= MIN_PAUSE_S:
            yield _with_words({"timestamp": _range_of(unit), "warnings": []}, unit)
            unit = []
        unit.append(word)
        last = max(last, end)
    yield _with_words({"timestamp": _range_of(unit), "warnings": []}, unit)


def _with_words(unit: Unit, words: list[dict[str, Any]]) -> Unit:
    return {**unit, "words": words, "text": " ".join(word["word"] for word in words)}


def _range_of(words: list[dict[str, Any]]) -> tuple[float, float] | None:
    times = [time for word in words for time in word["timestamp"] if time is not None]
    return (min(times), max(times)) if times else None


# --- other units


def iter_sentences(utterances: Iterable[Unit]) -> Iterator[Unit]:
    """Yield the sentences of utterances, also across short pauses. An utterance without words is a unit of its own."""
    words: list[dict[str, Any]] = []
    warnings: list[dict[str, str]] = []
    whole, last = (0.0, 0.0), 0.0

    def end_sentence() -> Iterator[Unit]:
        nonlocal words, warnings
        if words:
            yield _with_words({"timestamp": _range_of(words) or whole, "warnings": warnings}, words)
        words, warnings = [], []

    for utterance in utterances:
        whole = utterance["timestamp"]
        _check_times(utterance)
        if whole[0] - last > MAX_PAUSE_S or not utterance.get("words"):
            yield from end_sentence()
        last = whole[1]
        if not utterance.get("words"):
            yield utterance
            continue
        warnings += utterance["warnings"]
        for word in utterance["words"]:
            words.append(word)
            if SENTENCE_END.search(word["word"]) and not ABBREVIATION.match(word["word"]):
                yield from end_sentence()
    yield from end_sentence()


def iter_words(utterances: Iterable[Unit]) -> Iterator[Unit]:
    """Yield the words of utterances, each with the context that it is predicted from."""
    for utterance in utterances:
        start, end = utterance["timestamp"]
        _check_times(utterance)
        words = utterance.get("words")
        if not words:
            yield utterance
            continue
        start, end = min(start, _range_of(words)[0]), max(end, _range_of(words)[1])
        ordered = order_words(words)
        middles, ordered = [middle for middle, _ in ordered], [word for _, word in ordered]
        for index, (middle, word) in enumerate(zip(middles, ordered, strict=True)):
            # As long at the ends of the utterance as within it.
            first = max(start, min(middle - CONTEXT_S / 2, end - CONTEXT_S))
            last = min(end, first + CONTEXT_S)
            inside = ordered[bisect_left(middles, first) : bisect_left(middles, last)]
            times = tuple(middle if time is None else time for time in word["timestamp"])
            yield {
                "timestamp": times,
                "words": [word],
                "text": word["word"],
                "context": _with_words({"timestamp": (first, last)}, inside),
                "warnings": utterance["warnings"] if index == 0 else [],
            }


def _check_times(utterance: Unit):
    if utterance.get("text") and not (utterance["words"] and _range_of(utterance["words"])):
        raise ValueError(
            "Segments other than utterances require the times of words, which neither `words` nor the transcriber "
            "have: pass `words` with `timestamp`, `transcriber='whisper'`, or granularity='utterance'."
        )


def attach_words(units: Iterable[Unit], utterances: Iterator[Unit]) -> Iterator[Unit]:
    """Yield units of increasing start with the words of utterances that have their middle in them."""
    words: list[tuple[float, dict[str, Any]]] = []
    warnings: list[dict[str, str]] = []
    covered, last_end, missed = 0.0, 0.0, []
    for unit in units:
        start, end = unit["timestamp"]
        while covered < end and (utterance := next(utterances, None)) is not None:
            covered = utterance["timestamp"][0]
            _check_times(utterance)
            words += order_words(utterance.get("words") or ())
            warnings += [warning for warning in utterance["warnings"] if warning["code"] != "no_speech"]
        missed += [word["word"] for middle, word in words if last_end <= middle < start]
        words = [(middle, word) for middle, word in words if middle >= start]
        inside = [word for middle, word in words if middle < end]
        last_end = max(last_end, end)
        yield {**_with_words(unit, inside), "warnings": warnings}
        warnings = []
    if missed:
        logger.warning(f"{len(missed)} words are in no segment, and are dropped: {' '.join(missed)!r:.200}")
