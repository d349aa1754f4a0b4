# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Segments of pipeline inputs: the words, audio and video frames of a range of time."""

import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from numbers import Real
from operator import itemgetter
from typing import Any, cast

import numpy as np
import torch
from transformers.utils import logging

from .feature_extraction_umons import is_silent, to_mono
from .media_umons import WHOLE_S, Clip, iter_windows, resample


logger = logging.get_logger(__name__)

# Keys of an input dict.
INPUT_NAMES = ("text", "words", "audio", "sampling_rate", "video", "segments", "speakers", "history", "speaker")
# Keys of a dict given as `audio` or `video`; the first two need a `sampling_rate`.
FILE_NAMES = ("array", "raw", "bytes", "path")
MAX_WORD_S = 1e6  # seconds, 11 days; no file is as long as a word with a later time says
MAX_EXCESS_S = 0.1  # seconds by which a segment may exceed the model's maximum: codecs pad
WINDOW_S = 10.0  # seconds of a file decoded at once for segments of given times


@dataclass
class Segment:
    """
    Inputs of one prediction.

    Attributes:
        text: transcript; `None` if unknown.
        words: words as given or transcribed, each with its `timestamp` (start, end) in seconds from the beginning of
            the file; `None` if unknown, empty without words or without their times.
        start, end: seconds from the beginning of the file; `None` for an input without audio and video.
        audio: mono float32 (num_samples,) in [-1, 1] at `sampling_rate` Hz; `None` if missing or silent.
        frames: uint8 (num_frames, height, width, 3), or `None`.
        is_silent: whether audio was dropped as silence.
        warnings: warnings about the segment, such as those of its transcription.
        result: entries of the segment's result, such as its `timestamp` and `speaker`.
    """

    text: str | None = None
    words: list[dict[str, Any]] | None = None
    start: float | None = None
    end: float | None = None
    audio: np.ndarray | None = None
    sampling_rate: int = 0
    frames: np.ndarray | None = None
    is_silent: bool = False
    warnings: list[dict[str, str]] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def duration(self) -> float:
        """Seconds of the segment; 0 for an input without audio and video."""
        return (self.end or 0.0) - (self.start or 0.0)


class History:
    """
    Previous utterances of segments: those of the input, and earlier segments that do not overlap.

    Args:
        utterances: utterances of the input with `text` and `speaker`, the oldest first.
        size: number of utterances, the latest ones.
    """

    def __init__(self, utterances: Sequence[dict[str, Any]], size: int):
        self.utterances = deque(({**utterance, "end": -math.inf} for utterance in utterances), maxlen=size)

    def before(self, segment: Segment) -> list[dict[str, Any]]:
        """Return the utterances before the beginning of a segment."""
        start = math.inf if segment.start is None else segment.start + 1e-3
        return [utterance for utterance in self.utterances if utterance["end"] <= start]

    def add(self, segment: Segment, speaker: str | None):
        """Add a segment, unless it has no text or overlaps with the latest utterance."""
        if segment.text and len(self.before(segment)) == len(self.utterances):
            end = -math.inf if segment.end is None else segment.end
            self.utterances.append({"speaker": speaker, "text": segment.text, "end": end})


# --- forms of input


def normalize_input(inputs) -> dict[str, Any]:
    """
    Return any form of input as a dict of `INPUT_NAMES` without missing values, with files as `str` or `bytes`.

    Raises:
        ValueError: the input is invalid.
    """
    if isinstance(inputs, str) and not _is_file_or_url(inputs):
        raise ValueError(f"{inputs!r:.200} is neither a file nor a URL. To analyse text, pass {{'text': ...}}.")
    if _is_file(inputs := _unwrap_file(inputs)):
        return {"video": inputs}
    # A value of a `datasets.Audio` or `datasets.Video` column, or the waveform dict of speech pipelines.
    if _is_decoder(inputs) or (
        isinstance(inputs, Mapping) and set(FILE_NAMES) & set(inputs) and set(inputs) <= {*FILE_NAMES, "sampling_rate"}
    ):
        is_audio = hasattr(inputs, "get_all_samples") or (isinstance(inputs, Mapping) and "sampling_rate" in inputs)
        inputs = {"audio" if is_audio else "video": inputs}
    if not isinstance(inputs, Mapping):
        raise ValueError(
            f"An input must be a path, a URL, bytes, an open file, or a dict with any of {', '.join(INPUT_NAMES)}, "
            f"not {type(inputs).__name__}."
        )
    if unknown := sorted(set(inputs) - set(INPUT_NAMES)):
        raise ValueError(f"An input has no {unknown}: pass any of {', '.join(INPUT_NAMES)}.")
    inputs = {name: value for name, value in inputs.items() if not _is_missing(value)}
    for name in {"audio", "video"} & set(inputs):
        inputs.update(_unpack_media(name, inputs[name]))
    if not isinstance(inputs.get("text", ""), str):
        raise ValueError(f"`text` must be a string, not {type(inputs['text']).__name__}.")
    _check_characters("text", inputs.get("text", ""))
    if "words" in inputs:
        words = inputs["words"] if isinstance(inputs["words"], (list, tuple)) else [inputs["words"]]
        inputs["words"] = [_check_word(word) for word in words]
        _check_characters("words", " ".join(word["word"] for word in inputs["words"]))
    if "speakers" in inputs:
        inputs["speakers"] = [_check_turn(turn) for turn in inputs["speakers"]]
    if "segments" in inputs:
        inputs["segments"] = [_check_unit(unit) for unit in inputs["segments"]]
    if "history" in inputs:
        inputs["history"] = _read_history(inputs["history"])
    if not isinstance(inputs.get("speaker", ""), str):
        raise ValueError(f"`speaker` must be a string, not {type(inputs['speaker']).__name__}.")
    _check_characters("speaker", inputs.get("speaker", ""))
    return inputs


def is_dataset(inputs) -> bool:
    """Return whether inputs are a data set or a column of one: an iterable that is not itself an input or a list."""
    single = (str, bytes, bytearray, memoryview, Mapping, np.ndarray, torch.Tensor, list, tuple)
    is_open_file = hasattr(inputs, "read")
    return isinstance(inputs, Iterable) and not (isinstance(inputs, single) or is_open_file or _is_decoder(inputs))


def _is_missing(value: Any) -> bool:
    """Return whether a value is `None` or the NaN that tables have for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _unwrap_file(value: Any) -> Any:
    """Return a path of any type as `str`, binary data or an open file as `bytes`, and other values as they are."""
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if not callable(getattr(value, "read", None)):
        return value
    if hasattr(value, "seekable") and value.seekable():
        value.seek(0)  # as `read_clip`
    content = value.read()
    if not isinstance(content, bytes):
        raise ValueError(f"{value!r:.200} is open as text: open the file with mode 'rb'.")
    return content


def _check_characters(name: str, text: str):
    """Raise ValueError for lone surrogates, which tokenizers reject."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"`{name}` has the lone surrogate {text[error.start]!a} at position {error.start}: decode it from bytes "
            "with their encoding."
        ) from None


def _read_history(history) -> list[dict[str, str | None]]:
    """Return previous utterances, texts or {"text", "speaker"}, as dicts. Those without text are left out."""
    found = []
    for utterance in history if isinstance(history, (list, tuple)) else [history]:
        values = utterance if isinstance(utterance, Mapping) else {"text": utterance}
        read = {name: None if _is_missing(values.get(name)) else values.get(name) for name in ("speaker", "text")}
        if set(values) - set(read) or not all(isinstance(value, str | None) for value in read.values()):
            raise ValueError(
                f"`history` contains {utterance!r:.100}: an utterance must be a text, or a dict with `text` and "
                "`speaker`."
            )
        if read["text"] and read["text"].strip():
            found.append(read)
    _check_characters("history", " ".join(value for read in found for value in read.values() if value))
    return found


def _check_word(word) -> dict[str, Any]:
    try:
        text, (start, end) = word["word"], word["timestamp"]
        times = [None if time is None else float(time) for time in (start, end) if isinstance(time, Real | None)]
        if isinstance(text, str) and len(times) == 2 and all(t is None or 0 <= t <= MAX_WORD_S for t in times):
            known = {name: word[name] for name in ("confidence", "speaker") if name in word}
            return {"word": text, "timestamp": tuple(times), **known}
    except (KeyError, TypeError, ValueError):
        pass
    raise ValueError(
        f"`words` contains {word!r:.100}: a word must be {{'word': 'glad', 'timestamp': (start, end)}}, with seconds "
        f"from the beginning of the file, at most {MAX_WORD_S:g}."
    )


def _check_turn(turn) -> dict[str, Any]:
    try:
        if isinstance(turn["speaker"], str):
            return {"timestamp": _check_range(turn["timestamp"]), "speaker": turn["speaker"]}
    except (KeyError, TypeError, ValueError):
        pass
    raise ValueError(
        f"`speakers` contains {turn!r:.100}: a turn must be {{'speaker': 'A', 'timestamp': (start, end)}}, with "
        "seconds from the beginning of the file."
    )


def _check_unit(unit) -> dict[str, Any]:
    try:
        if not isinstance(unit, Mapping):
            return {"timestamp": _check_range(unit)}
        known = {name: unit[name] for name in ("text", "speaker") if unit.get(name) is not None}
        if unit.get("words") is not None:
            known["words"] = [_check_word(word) for word in unit["words"]]
        return {**known, "timestamp": _check_range(unit["timestamp"])}
    except (KeyError, TypeError, ValueError):
        pass
    raise ValueError(
        f"`segments` contains {unit!r:.100}: a segment must be (start, end) in seconds from the beginning of the "
        "file, or {'timestamp': (start, end), 'text': 'so glad'}; it may also have `words` and `speaker`."
    )


def _check_range(timestamp) -> tuple[float, float]:
    start, end = (float(time) for time in timestamp)
    if not 0 <= start < end <= MAX_WORD_S:
        raise ValueError
    return start, end


def _unpack_media(name: str, value: Any) -> dict[str, Any]:
    """Return any form of audio or video as entries of an input dict: a file, a waveform with its rate, or frames."""
    if _is_decoder(value):
        # Prefer the decoder's file: it is read in bounded memory, and that of a video has audio.
        encoded = getattr(value, "_hf_encoded", None) or {}
        if encoded.get("bytes") or (_is_file(encoded.get("path")) and os.path.exists(encoded["path"])):
            return {name: encoded.get("bytes") or encoded["path"]}
        if hasattr(value, "get_all_samples"):
            return {"audio": value["array"], "sampling_rate": value["sampling_rate"]}
        raise ValueError(f"`{name}` is a video decoder without a file: pass the file's path or bytes.")
    if isinstance(value, Mapping):
        for key in FILE_NAMES:
            if not _is_missing(value.get(key)):
                rate = {"sampling_rate": value.get("sampling_rate")} if key in ("array", "raw") else {}
                return {name: _unwrap_file(value[key]), **rate}
        raise ValueError(
            f"`{name}` is a dict of {sorted(value)}: it needs `array` and `sampling_rate`, `bytes` or `path`."
        )
    value = _unwrap_file(value)
    if _is_file(value) or isinstance(value, (list, tuple, np.ndarray, torch.Tensor)):
        return {name: value}
    contents = "a waveform" if name == "audio" else "frames"
    raise ValueError(f"`{name}` is a {type(value).__name__}: pass a path, a URL, bytes, an open file or {contents}.")


def _is_file(value: Any) -> bool:
    return isinstance(value, (str, bytes))


def _is_file_or_url(text: str) -> bool:
    return text.lower().startswith(("http://", "https://")) or os.path.exists(text)


def _is_decoder(value: Any) -> bool:
    """Return whether `datasets.Audio` or `datasets.Video` decoded to this value."""
    return hasattr(value, "get_all_samples") or hasattr(value, "get_frame_at")


# --- segments


def iter_segments(
    inputs: dict[str, Any],
    chunk_length_s: float | None,
    *,
    audio: bool,
    video: bool,
    sampling_rate: int,
    frame_rate: float,
    size: tuple[int, int],
    min_length_s: float,
    read_windows: Callable[..., Generator[Clip]] = iter_windows,
    read_all: bool = False,
) -> Iterator[Segment]:
    """
    Cut an input into segments. If `chunk_length_s` is `None`, into one of its first two minutes; with `read_all`, each
    of the following two minutes is another segment, without text.

    Args:
        inputs: dict of `INPUT_NAMES`.
        chunk_length_s: length of a segment in seconds.
        audio, video: whether audio and video frames are needed.
        sampling_rate: rate of the segments' audio, in Hz.
        frame_rate: rate of the segments' frames, in Hz.
        size: (height, width) of the frames.
        min_length_s: a shorter last segment is dropped.
        read_windows: decoder of files, with the arguments of [`iter_windows`].
        read_all: whether a file is read to its end if `chunk_length_s` is `None`.
    """
    text, words = inputs.get("text"), inputs.get("words")
    if chunk_length_s is not None and text is not None and words is None:
        raise ValueError(
            "`text` cannot be cut into segments without the times of its words. Pass `words` with time stamps as "
            "well, pass `transcriber=` instead of `text`, or omit `chunk_length_s` and `return_timestamps`."
        )
    if words is not None and text is None:
        text = " ".join(word["word"] for word in words)
    queue = order_words(words or ())
    tracks = _open_tracks(
        inputs,
        chunk_length_s,
        audio=audio,
        video=video,
        sampling_rate=sampling_rate,
        frame_rate=frame_rate,
        size=size,
        read_windows=read_windows,
        read_all=read_all,
        has_text=text is not None,
    )
    if not tracks and chunk_length_s is not None:
        if not words:
            raise ValueError("There is no audio to cut into segments: omit `chunk_length_s` and `return_timestamps`.")
        tracks = [_iter_word_windows([time for time, _ in queue], chunk_length_s)]

    segment = None
    for index, clips in enumerate(zip_longest(*tracks)):
        following = _as_segment(_merge_clips([clip for clip in clips if clip is not None]))
        if index > 0 and following.duration < min(chunk_length_s or WHOLE_S, min_length_s) - 1e-3:
            break  # some milliseconds: codecs pad, and segments have a whole number of samples
        segment = following
        if chunk_length_s is None:
            if index == 0:
                segment.text, segment.words = text, words
            yield segment
            if not read_all:
                break
            continue
        if words is not None:
            assign_words(queue, segment)
        yield segment
    for track in tracks:
        track.close()
    if segment is None:  # text only, or video frames that the model does not use
        yield Segment(text, words)
    elif queue and words and chunk_length_s is not None:
        logger.warning(
            f"{len(queue)} of the {len(words)} words are dropped: their `timestamp` is after the end of the file at "
            f"{segment.end:.1f} s. Is it in seconds?"
        )


def cut_segments(
    inputs: dict[str, Any],
    units: Iterable[dict[str, Any]],
    *,
    audio: bool,
    video: bool,
    min_length_s: float,
    ends_with_file: bool = False,
    **media,
) -> Iterator[Segment]:
    """
    Cut an input into segments of given times, in one pass and in memory that is independent of its length.

    Args:
        inputs: dict of `INPUT_NAMES`.
        units: dicts with `timestamp` (start, end) in seconds, in order of their starts. Each may have `words` and
            `text`, by default the `words` of the input with the middle in its range; a `context`, the `timestamp`,
            `words` and `text` that it is predicted from; `speaker`; `warnings`; `has_speech`, without which its audio
            is left out.
        audio, video, min_length_s, media: see [`iter_segments`]. Audio shorter than `min_length_s` is left out.
        ends_with_file: whether units after the end of the file are expected.

    Raises:
        ValueError: a unit is not in order, or is after the end of the file.
    """
    text = inputs.get("text")
    words = None if inputs.get("words") is None else order_words(inputs["words"])
    tracks = _open_tracks(inputs, WINDOW_S, audio=audio, video=video, has_text=text is not None, **media)
    windows = (_merge_clips([clip for clip in clips if clip is not None]) for clips in zip_longest(*tracks))
    buffer: deque[Clip] = deque()
    before, file_end = 0.0, 0.0
    if not tracks:
        file_end = words[-1][0] + 1e-3 if ends_with_file and words else math.inf
    for index, unit in enumerate(units):
        start, end = unit.get("context", unit)["timestamp"]
        if start < before:
            raise ValueError(f"Segment {index} begins at {start:g} s, before the previous one: order them by start.")
        before = start
        if not unit.get("has_speech", True):
            segment = Segment(unit.get("text"), unit.get("words"), start, end, warnings=unit["warnings"])
            segment.result = {name: unit[name] for name in ("timestamp", "speaker") if name in unit}
            yield segment
            continue
        while file_end < end and (window := next(windows, None)) is not None:
            buffer.append(window)
            file_end = window.start + window.duration
        while buffer and buffer[0].start + buffer[0].duration <= start:
            buffer.popleft()
        if ends_with_file and index > 0 and start >= file_end - min_length_s:
            break
        if start >= file_end:
            raise ValueError(f"Segment {index}, {start:g} to {end:g} s, is after the end of the file, {file_end:g} s.")
        yield _cut_segment(buffer, unit, min(end, file_end), words, min_length_s if audio else 0.0)
    for track in tracks:
        track.close()


def _cut_segment(clips: Iterable[Clip], unit: dict[str, Any], end: float, words, min_length_s: float) -> Segment:
    """Return the segment of a unit from the clips that cover it. `end` is its last second within the file."""
    start = unit.get("context", unit)["timestamp"][0]
    segment = _as_segment(_join_clips(clips, start, end))
    if segment.audio is not None and len(segment.audio) < min_length_s * segment.sampling_rate - 1:
        segment.audio = None
        message = f"The segment of {end - start:.2f} s is too short for its audio to be used."
        segment.warnings.append({"code": "short_audio", "message": message})
    known = unit.get("context", unit)
    if words is not None and known.get("words") is None and known.get("text") is None:
        inside = [word for middle, word in words if start <= middle < end]
        known = {"words": inside}
    segment.text, segment.words = known.get("text"), known.get("words")
    if segment.text is None and segment.words is not None:
        segment.text = " ".join(word["word"] for word in segment.words)
    elif segment.text is not None and segment.words is None:
        segment.words = []
    segment.warnings += unit.get("warnings", [])
    segment.result = {name: unit[name] for name in ("timestamp", "speaker") if name in unit}
    if "context" in unit:
        of_context = {"timestamp": (start, end), "text": segment.text}
        segment.result.update(text=unit["text"], words=unit["words"], context=of_context)
    first, last = unit["timestamp"]
    segment.result["timestamp"] = (first, max(first, min(last, end) if "context" not in unit else last))
    return segment


def _join_clips(clips: Iterable[Clip], start: float, end: float) -> Clip:
    """Return the audio and frames of [start, end) of consecutive clips; gaps of the audio are silent."""
    audio: np.ndarray | None = None
    frames: list[np.ndarray] = []
    times: list[np.ndarray] = []
    rate = num_samples = 0
    for clip in clips:
        if clip.audio is not None:
            rate = clip.sampling_rate
            first, last, offset = round(start * rate), round(end * rate), round(clip.start * rate)
            samples = clip.audio[max(0, first - offset) : max(0, last - offset)]
            if audio is None:
                audio = np.zeros(last - first, np.float32)
            position = max(0, offset - first)
            audio[position : position + len(samples)] = samples[: len(audio) - position]
            num_samples = max(num_samples, position + len(samples)) if len(samples) else num_samples
        if clip.frames is not None:
            inside = (clip.start + clip.frame_times >= start - 1e-6) & (clip.start + clip.frame_times < end - 1e-6)
            frames.append(np.asarray(clip.frames)[inside])
            times.append(clip.start + clip.frame_times[inside] - start)
    audio = None if audio is None or num_samples == 0 else audio[:num_samples]
    pictures = np.concatenate(frames) if frames else None
    return Clip(
        audio,
        pictures if pictures is not None and len(pictures) else None,
        np.concatenate(times) if times else np.zeros(0),
        end - start,
        rate,
        start,
    )


def _open_tracks(
    inputs: dict[str, Any],
    chunk_length_s: float | None,
    *,
    audio: bool,
    video: bool,
    sampling_rate: int,
    frame_rate: float,
    size: tuple[int, int],
    read_windows: Callable[..., Generator[Clip]] = iter_windows,
    read_all: bool = False,
    has_text: bool = False,
) -> list[Generator[Clip]]:
    """Return the windows of the audio and of the video of an input; see [`iter_segments`]."""
    tracks = []
    if audio:
        tracks += _audio_tracks(inputs, has_text, chunk_length_s, sampling_rate, read_windows, read_all)
    return tracks + _video_tracks(
        inputs, has_text, chunk_length_s, audio, video, sampling_rate, frame_rate, size, read_windows
    )


def iter_audio(
    inputs: dict[str, Any], sampling_rate: int, read_windows: Callable[..., Generator[Clip]]
) -> Iterator[np.ndarray]:
    """
    Yield the audio of an input as consecutive blocks of float32 (num_samples,), with silence in its gaps.

    Raises:
        ValueError: there is no audio.
    """
    tracks = _open_tracks(
        inputs,
        WINDOW_S,
        audio=True,
        video=False,
        sampling_rate=sampling_rate,
        frame_rate=1.0,
        size=(1, 1),
        read_windows=read_windows,
    )
    if not tracks:
        raise ValueError("There is no audio: pass `audio` or `video`, a file or a waveform.")
    for (clip,) in zip(*tracks, strict=True):
        size = round((clip.start + clip.duration) * sampling_rate) - round(clip.start * sampling_rate)
        samples = np.zeros(0, np.float32) if clip.audio is None else clip.audio
        yield np.pad(samples, (0, max(0, size - len(samples))))


def _audio_tracks(inputs, has_text, chunk_length_s, sampling_rate, read_windows, read_all) -> list[Generator[Clip]]:
    """Return the windows of `audio`, if it is given."""
    source = inputs.get("audio")
    if source is None:
        return []
    if not _is_file(source):
        return [_iter_waveform_windows(source, inputs.get("sampling_rate"), chunk_length_s, sampling_rate, read_all)]
    windows = read_windows(source, chunk_length_s or WHOLE_S, video=False, sampling_rate=sampling_rate)
    return [_allow_missing_audio(windows, source, read_windows) if has_text else windows]


def _video_tracks(
    inputs, has_text, chunk_length_s, audio, video, sampling_rate, frame_rate, size, read_windows
) -> list[Generator[Clip]]:
    """Return the windows of `video`, if it is given and needed. Its audio is used unless `audio` is given."""
    source = inputs.get("video")
    audio = audio and inputs.get("audio") is None
    if source is None or not (video or (audio and _is_file(source))):
        return []
    window_s = chunk_length_s or WHOLE_S
    if not _is_file(source):
        return [_iter_frame_windows(source, frame_rate, window_s)]
    windows = read_windows(
        source, window_s, audio=audio, video=video, sampling_rate=sampling_rate, frame_rate=frame_rate, size=size
    )
    return [_allow_missing_audio(windows, source, read_windows) if has_text else windows]


def _iter_waveform_windows(waveform, rate, chunk_length_s, sampling_rate, read_all) -> Generator[Clip]:
    """Cut a waveform into the windows that a file of the same samples is cut into."""
    if isinstance(rate, (np.ndarray, torch.Tensor)) and rate.ndim == 0:
        rate = rate.item()
    if isinstance(rate, bool) or not isinstance(rate, Real) or not 1 <= cast(float, rate) < math.inf:
        raise ValueError(
            f"`audio` is a waveform and its `sampling_rate` is {rate!r:.50}: pass its rate in Hz, a number."
        )
    rate, waveform = cast(float, rate), to_mono(waveform, "The waveform")
    if chunk_length_s is None and not read_all:
        # One second more than is used, so that the resampler does not end there.
        waveform = waveform[: math.ceil((WHOLE_S + 1) * rate)]
    waveform = resample(waveform, rate, sampling_rate)
    duration, window_s = len(waveform) / sampling_rate, chunk_length_s or WHOLE_S
    for index in range(math.ceil((duration - 1e-6) / window_s)):
        start, end = index * window_s, min((index + 1) * window_s, duration)
        part = waveform[round(start * sampling_rate) : round(end * sampling_rate)]
        yield Clip(part, None, np.zeros(0), end - start, sampling_rate, start)


def _iter_frame_windows(frames, frame_rate: float, window_s: float) -> Generator[Clip]:
    frames = frames if isinstance(frames, (np.ndarray, torch.Tensor)) else np.stack([np.asarray(f) for f in frames])
    if frames.ndim != 4 or len(frames) == 0:
        raise ValueError(f"`video` has shape {tuple(frames.shape)}: frames must be (num_frames, height, width, 3).")
    step = max(1, round(window_s * frame_rate))
    for first in range(0, len(frames), step):
        part = frames[first : first + step]
        yield Clip(None, part, np.arange(len(part)) / frame_rate, len(part) / frame_rate, 0, first / frame_rate)


def _iter_word_windows(times: list[float], window_s: float) -> Generator[Clip]:
    """Yield the windows without media that have words at these increasing times."""
    end = 0.0
    for time in times:
        if time >= end:
            start = int(time / window_s) * window_s
            end = start + window_s
            yield Clip(None, None, np.zeros(0), window_s, 0, start)


def _allow_missing_audio(clips: Generator[Clip], source, read_windows) -> Generator[Clip]:
    """Yield the clips; none for a readable video without audio, as there is text to predict from."""
    try:
        yield from clips
    except OSError:
        with closing(read_windows(source, 1.0, audio=False)) as windows:
            if next(windows, None) is None:
                raise


def _merge_clips(clips: list[Clip]) -> Clip:
    """Return the audio of one clip and the frames of another one of the same range."""
    with_audio = next((clip for clip in clips if clip.audio is not None), clips[0])
    with_frames = next((clip for clip in clips if clip.frames is not None), clips[0])
    start, end = clips[0].start, max(clip.start + clip.duration for clip in clips)
    return replace(
        with_audio, frames=with_frames.frames, frame_times=with_frames.frame_times, start=start, duration=end - start
    )


def _as_segment(clip: Clip) -> Segment:
    """Return a clip as a segment without silent audio."""
    segment = Segment(None, None, clip.start, clip.start + clip.duration, clip.audio, clip.sampling_rate, clip.frames)
    if segment.audio is not None and is_silent(segment.audio):
        segment.audio, segment.is_silent = None, True
    return segment


def order_words(words: Iterable[dict[str, Any]]) -> deque[tuple[float, dict[str, Any]]]:
    """Return the words by their middle in seconds. A word without times keeps its place after the word before it."""
    middles = [
        sum(times) / len(times) if (times := [time for time in word["timestamp"] if time is not None]) else None
        for word in words
    ]
    last = next((middle for middle in middles if middle is not None), 0.0)
    ordered = [(last := last if middle is None else middle, word) for middle, word in zip(middles, words, strict=True)]
    return deque(sorted(ordered, key=itemgetter(0)))


def assign_words(queue: deque, segment: Segment, separator: str = " ", until: float | None = None):
    """Move the words spoken before the end of a segment, or `until` then, from the queue to the segment."""
    segment.words = []
    while queue and queue[0][0] < (segment.end if until is None else until):
        segment.words.append(queue.popleft()[1])
    segment.text = separator.join(word["word"] for word in segment.words)


# --- parts


def split_segment(
    segment: Segment, max_duration: float, frame_rate: float, split_text: Callable[[str], list[str]]
) -> list[tuple[Segment, float]]:
    """
    Cut a segment that is longer than the model processes into parts.

    Parts of audio and frames are equally long. Each has the words of its time, or, without the times of words, the
    whole text. A text that is itself too long is cut, and its parts are assigned to those of the audio in order.

    Args:
        segment: the segment.
        max_duration: maximum duration of a part in seconds.
        frame_rate: rate of the frames in Hz.
        split_text: function that cuts a text into parts that the model processes.

    Returns:
        The parts with their weights, in seconds, or in words if there is a single part of audio or none. Silent parts
        are left out.
    """
    parts = _split_time(segment, max_duration, frame_rate)
    words = segment.words or ()
    if len(parts) > 1 and any(time is not None for word in words for time in word["timestamp"]):
        queue = order_words(words)
        for part in parts:
            assign_words(queue, part, until=math.inf if part is parts[-1] else part.end)
        texts = [split_text(part.text or "") for part in parts]
        pieces = [replace(part, text=text) for part, own in zip(parts, texts, strict=True) for text in own]
        weights = [p.duration / len(own) for p, own in zip(parts, texts, strict=True) for _ in own]
    else:
        cut: Sequence[str | None] = [None] if segment.text is None else split_text(segment.text)
        if len(cut) == 1:
            cut = [*cut] * len(parts)
        # A part after the last one has the audio of the last, and takes no further time.
        pieces = [
            replace(parts[min(i, len(parts) - 1)], text=cut[i] if i < len(cut) else None)
            for i in range(max(len(parts), len(cut)))
        ]
        if len(parts) == 1:
            weights = [float(max(1, len((piece.text or "").split()))) for piece in pieces]
        else:
            weights = [part.duration for part in pieces]
        for piece in pieces[len(parts) :]:
            piece.start = piece.end
    found = [
        (piece, weight)
        for piece, weight in zip(pieces, weights, strict=True)
        if piece.audio is not None or piece.frames is not None or (piece.text or "").strip()
    ]
    return found or [(segment, 1.0)]


def _split_time(segment: Segment, max_duration: float, frame_rate: float) -> list[Segment]:
    """Cut the audio and the frames of a segment into parts of the same duration, at most `max_duration` seconds."""
    durations = [0.0]
    if segment.audio is not None:
        durations.append(len(segment.audio) / segment.sampling_rate)
    if segment.frames is not None:
        durations.append(len(segment.frames) / frame_rate)
    count = max(1, math.ceil((max(durations) - MAX_EXCESS_S) / max_duration))
    if count == 1:
        return [replace(segment)]
    step, start, parts = max(durations) / count, segment.start or 0.0, []
    for index in range(count):
        first, last = index * step, (index + 1) * step
        part = replace(segment, start=start + first, end=start + last)
        if segment.audio is not None:
            rate = segment.sampling_rate
            part.audio = segment.audio[round(first * rate) : round(last * rate)]
            part.audio = None if is_silent(part.audio) else part.audio
        if segment.frames is not None:
            frames = segment.frames[round(first * frame_rate) : round(last * frame_rate)]
            part.frames = frames if len(frames) else None
        parts.append(part)
    return parts
