# Copyright 2026 The modeling_umons authors.
#
# Licensed under the MIT License (the "License"); you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     https://opensource.org/license/mit
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""What a pipeline is given, as segments: the words, sound and pictures of a stretch of time."""

import math
import os
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import zip_longest
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from .media_umons import WHOLE_S, Clip, iter_windows


logger = logging.get_logger(__name__)

# What a dict of inputs may hold.
INPUT_NAMES = ("text", "words", "audio", "sampling_rate", "video")
# What a dict in the place of `audio` or `video` may hold, beside the `sampling_rate` of the first two.
FILE_NAMES = ("array", "raw", "bytes", "path")
SILENCE = 2.0**-15  # the smallest step of 16-bit sound: what stays below it is silent
STRETCH_S = 30.0  # seconds that a transcriber hears at once, as long as Whisper's window


@dataclass
class Segment:
    """
    Attributes:
        text: what is said in it; `None` where nobody has told.
        words: as given or heard, each with its `timestamp` (start, end) in seconds from the beginning of the file; `None`
            where nobody has told, empty where there is none, or a transcriber knows no times.
        start, end: seconds from the beginning of the file; `None` for words alone.
        audio: (samples,) in [-1, 1] at `sampling_rate` Hz, or `None`, as where it `is_silent`.
        frames: uint8 (num_frames, height, width, 3), or `None`.
    """

    text: str | None = None
    words: list[dict[str, Any]] | None = None
    start: float | None = None
    end: float | None = None
    audio: np.ndarray | None = None
    sampling_rate: int | None = None
    frames: np.ndarray | None = None
    is_silent: bool = False


def as_dict(inputs) -> dict[str, Any]:
    """Any form of input as a dict of `INPUT_NAMES`, without what is `None`. Raises ValueError for what is no input."""
    if isinstance(inputs, (str, Path, bytes)):
        if isinstance(inputs, str) and not _is_file_or_url(inputs):
            raise ValueError(f"{inputs!r:.200} is neither a file nor a URL. To analyse words, pass {{'text': ...}}.")
        return {"video": inputs}
    # A column of `datasets.Audio` or `datasets.Video` alone, or the waveform that speech pipelines take.
    if _is_decoder(inputs) or (
        isinstance(inputs, dict) and set(FILE_NAMES) & set(inputs) and set(inputs) <= {*FILE_NAMES, "sampling_rate"}
    ):
        is_sound = hasattr(inputs, "get_all_samples") or (isinstance(inputs, dict) and "sampling_rate" in inputs)
        inputs = {"audio" if is_sound else "video": inputs}
    if not isinstance(inputs, dict):
        raise ValueError(
            f"An input is a path, a URL, bytes, or a dict with any of {', '.join(INPUT_NAMES)}, not {type(inputs).__name__}."
        )
    if unknown := sorted(set(inputs) - set(INPUT_NAMES)):
        raise ValueError(f"An input has no {unknown}: pass any of {', '.join(INPUT_NAMES)}.")
    inputs = {name: value for name, value in inputs.items() if value is not None}
    for name in ("audio", "video"):
        inputs.update(_from_datasets(name, inputs.get(name)))
    if not isinstance(inputs.get("text", ""), str):
        raise ValueError(f"`text` must be a string, not {type(inputs['text']).__name__}.")
    _check_characters("text", inputs.get("text", ""))
    if "words" in inputs:
        words = inputs["words"] if isinstance(inputs["words"], (list, tuple)) else [inputs["words"]]
        inputs["words"] = [_as_word(word) for word in words]
        _check_characters("words", " ".join(word["word"] for word in inputs["words"]))
    return inputs


def _check_characters(name: str, text: str):
    """Raises ValueError for halves of characters, which tokenizers refuse."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"`{name}` has {text[error.start]!a} as character {error.start}, which is half of one: decode it from bytes "
            "with the encoding that they are in."
        ) from None


def iter_segments(
    inputs: dict[str, Any],
    chunk_length_s: float | None,
    *,
    listens: bool,
    looks: bool,
    shortest_s: float,
    frame_rate: float,
    size: tuple[int, int],
) -> Iterator[Segment]:
    """
    Cuts an input into segments; one, of its first two minutes, where `chunk_length_s` is `None`.

    Args:
        inputs: a dict of `INPUT_NAMES`.
        chunk_length_s: seconds of a segment.
        listens, looks: whether sound and pictures are wanted.
        shortest_s: a rest at the end that is shorter is dropped.
        frame_rate: of the frames, in Hz.
        size: of the frames, (height, width).
    """
    text, words = inputs.get("text"), inputs.get("words")
    if chunk_length_s is not None and text is not None and words is None:
        raise ValueError(
            "`text` cannot be cut into segments, as nothing says when its words are spoken: pass `words` with their "
            "time stamps beside it, or `transcriber=` instead of it, or leave `chunk_length_s` and `return_timestamps` out."
        )
    if words is not None and text is None:
        text = " ".join(word["word"] for word in words)
    tracks = _tracks(inputs, text, chunk_length_s or WHOLE_S, listens, looks, frame_rate, size)
    if not tracks and chunk_length_s is not None:
        if not words:
            raise ValueError(
                "There is no sound to cut into segments: leave `chunk_length_s` and `return_timestamps` out."
            )
        tracks = [_cut_time(max(_middle(word) for word in words), chunk_length_s)]

    queue = deque(sorted(words or (), key=_middle))
    index = segment = None
    for index, clips in enumerate(zip_longest(*tracks)):
        following = _join([clip for clip in clips if clip is not None])
        if index > 0 and following.end - following.start < min(chunk_length_s, shortest_s) - 1e-3:
            break  # a rest of some milliseconds: codecs pad, and segments are of whole samples
        segment = following
        if segment.audio is not None and np.abs(segment.audio).max(initial=0) < SILENCE:
            segment.audio, segment.is_silent = None, True
        if chunk_length_s is None:
            segment.text, segment.words = text, words
            yield segment
            for track in tracks:
                track.close()
            return
        if words is not None:
            _deal(queue, segment)
        yield segment
    if index is None:  # words alone, or pictures where only sound counts
        yield Segment(text, words)
    elif queue:
        logger.warning(
            f"{len(queue)} of the {len(words)} words are left out, as they are spoken after the end of the file, at "
            f"{segment.end:.1f} s: is the `timestamp` of words in seconds?"
        )


def transcribe(segments: Iterator[Segment], transcriber) -> Iterator[Segment]:
    """
    Fills in the words of segments, and when each is spoken if the transcriber can tell.

    Cuts fall into words. So one that can tell hears half a minute at once, and its words are dealt out to the segments
    they are spoken in; one that cannot hears each segment alone.
    """
    knows_times = True
    for stretch in _stretches(segments):
        heard = [segment for segment in stretch if segment.audio is not None]
        if knows_times and len(heard) > 1:
            whole = _join_sound(heard)
            _listen(whole, transcriber)
            knows_times = bool(whole.words) or not whole.text.strip()
            queue = deque(whole.words)
            heard[-1].end, end = math.inf, heard[-1].end  # what is late belongs to the last one
            for segment in heard:
                _deal(queue, segment, " " if " " in whole.text.strip() else "")
            heard[-1].end = end
        if not knows_times or len(heard) == 1:
            for segment in heard:
                _listen(segment, transcriber)
        yield from stretch


def _stretches(segments: Iterator[Segment]) -> Iterator[list[Segment]]:
    stretch = []
    for segment in segments:
        if stretch and segment.end - stretch[0].start > STRETCH_S:
            yield stretch
            stretch = []
        stretch.append(segment)
    yield stretch


def _join_sound(segments: list[Segment]) -> Segment:
    start, rate = segments[0].start, segments[0].sampling_rate
    first = [round((segment.start - start) * rate) for segment in segments]
    audio = np.zeros(first[-1] + len(segments[-1].audio), np.float32)
    for offset, segment in zip(first, segments, strict=True):
        audio[offset : offset + len(segment.audio)] = segment.audio
    return Segment(start=start, end=segments[-1].end, audio=audio, sampling_rate=rate)


def _listen(segment: Segment, transcriber):
    sound = {"raw": segment.audio, "sampling_rate": segment.sampling_rate}
    try:
        heard = transcriber(dict(sound), return_timestamps="word")  # a copy: pipelines empty what they are given
    except ValueError as error:
        logger.warning_once(f"The transcriber gives words without time stamps: {error}")
        heard = transcriber(dict(sound))
    segment.text = heard["text"]
    segment.words = [
        {
            "word": chunk["text"].strip(),
            "timestamp": tuple(
                None if time is None else round(segment.start + float(time), 3) for time in chunk["timestamp"]
            ),
        }
        for chunk in heard.get("chunks", [])
    ]


def _deal(queue: deque, segment: Segment, separator: str = " "):
    """Moves the words that are spoken before the end of a segment from the queue to it."""
    segment.words = []
    while queue and _middle(queue[0]) < segment.end:
        segment.words.append(queue.popleft())
    segment.text = separator.join(word["word"] for word in segment.words)


def _middle(word: dict[str, Any]) -> float:
    """When a word is spoken, in seconds; at once where its time is not known."""
    times = [time for time in word["timestamp"] if time is not None]
    return sum(times) / len(times) if times else 0.0


def _as_word(word) -> dict[str, Any]:
    try:
        text, (start, end) = word["word"], word["timestamp"]
        times = [None if time is None else float(time) for time in (start, end) if isinstance(time, Real | None)]
        if isinstance(text, str) and len(times) == 2 and all(t is None or 0 <= t < math.inf for t in times):
            return {"word": text, "timestamp": tuple(times)}
    except (KeyError, TypeError, ValueError):
        pass
    raise ValueError(
        f"`words` holds {word!r:.100}: a word is {{'word': 'glad', 'timestamp': (start, end)}}, with seconds from the "
        "beginning of the file."
    )


def _tracks(inputs, text, window_s, listens, looks, frame_rate, size) -> list[Iterator[Clip]]:
    """What is heard and seen of an input, each in windows."""
    sound, video = inputs.get("audio"), inputs.get("video")
    tracks = []
    if sound is not None and listens:
        if _is_file(sound):
            heard = iter_windows(sound, window_s, video=False)
            tracks.append(heard if text is None else _silent_is_no_error(heard, sound))
        else:
            tracks.append(_cut_waveform(sound, inputs.get("sampling_rate"), window_s))
    # The sound of a clip is used unless other sound is given.
    hears_clip = listens and sound is None
    if video is not None and not _is_file(video) and looks:
        tracks.append(_cut_frames(video, frame_rate, window_s))
    elif video is not None and _is_file(video) and (looks or hears_clip):
        met = iter_windows(video, window_s, audio=hears_clip, video=looks, frame_rate=frame_rate, size=size)
        tracks.append(met if text is None else _silent_is_no_error(met, video))

    return tracks


def _join(clips: list[Clip]) -> Segment:
    heard = next((clip for clip in clips if clip.audio is not None), clips[0])
    seen = next((clip.frames for clip in clips if clip.frames is not None), None)
    end = max(clip.start + clip.duration for clip in clips)
    return Segment(None, None, clips[0].start, end, heard.audio, heard.sampling_rate, seen)


def _cut_time(last: float, window_s: float) -> Iterator[Clip]:
    """Empty windows up to the one with the last word in it."""
    for index in range(int(last / window_s) + 1):
        yield Clip(None, None, np.zeros(0), window_s, 0, index * window_s)


def _cut_waveform(sound, rate: float | None, window_s: float) -> Iterator[Clip]:
    if isinstance(rate, bool) or not isinstance(rate, Real) or not 0 < rate < math.inf:
        raise ValueError(
            f"`audio` is a waveform and its `sampling_rate` is {rate!r:.50}: give it in Hz beside it, as a number."
        )
    rate = int(rate) if rate == int(rate) else float(rate)  # plain: times are reckoned with it, and go to JSON
    sound = _mono(sound)
    step = max(1, round(window_s * rate))
    for first in range(0, len(sound), step):
        part = sound[first : first + step]
        yield Clip(part, None, np.zeros(0), len(part) / rate, rate, first / rate)


def _cut_frames(frames, frame_rate: float, window_s: float) -> Iterator[Clip]:
    frames = frames if isinstance(frames, (np.ndarray, torch.Tensor)) else np.stack([np.asarray(f) for f in frames])
    if frames.ndim != 4 or len(frames) == 0:
        raise ValueError(f"`video` has shape {tuple(frames.shape)}: frames are (num_frames, height, width, 3).")
    step = max(1, round(window_s * frame_rate))
    for first in range(0, len(frames), step):
        part = frames[first : first + step]
        yield Clip(None, part, np.arange(len(part)) / frame_rate, len(part) / frame_rate, 0, first / frame_rate)


def _mono(sound) -> np.ndarray:
    from .feature_extraction_umons import to_mono

    return to_mono(sound, "The waveform").numpy()


def _silent_is_no_error(clips: Iterator[Clip], source) -> Iterator[Clip]:
    """The clips; nothing for a readable clip of pictures alone, where there is text to go on with."""
    try:
        yield from clips
    except OSError:
        with closing(iter_windows(source, 1.0, audio=False)) as windows:
            if next(windows, None) is None:
                raise


def _is_file(value: Any) -> bool:
    return isinstance(value, (str, Path, bytes))


def _is_file_or_url(text: str) -> bool:
    return text.lower().startswith(("http://", "https://")) or os.path.exists(text)  # a long text is no error to it


def _is_decoder(value: Any) -> bool:
    """Whether it is what `datasets.Audio` or `datasets.Video` decode to."""
    return hasattr(value, "get_all_samples") or hasattr(value, "get_frame_at")


def _from_datasets(name: str, value: Any) -> dict[str, Any]:
    """What `datasets.Audio` and `datasets.Video` give, in this pipeline's words: decoded, or left undecoded."""
    if _is_decoder(value):
        # The file they keep is read in bounded memory, and has the sound of a video.
        encoded = getattr(value, "_hf_encoded", None) or {}
        if encoded.get("bytes") or (_is_file(encoded.get("path")) and os.path.exists(encoded["path"])):
            return {name: encoded.get("bytes") or encoded["path"]}
        if hasattr(value, "get_all_samples"):
            return {"audio": value["array"], "sampling_rate": value["sampling_rate"]}
        raise ValueError(f"`{name}` is a video decoder that does not know its file: pass the file's path or bytes.")
    if not isinstance(value, dict):
        return {}
    for key in FILE_NAMES:
        if value.get(key) is not None:
            return (
                {name: value[key], "sampling_rate": value.get("sampling_rate")}
                if key in ("array", "raw")
                else {name: value[key]}
            )
    raise ValueError(
        f"`{name}` is a dict of {sorted(value)}: it needs `array` and `sampling_rate`, `bytes` or `path`."
    )
