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

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .media import WHOLE_S, Clip, iter_windows


# What a dict of inputs may hold.
INPUT_NAMES = ("text", "audio", "sampling_rate", "video")


@dataclass
class Segment:
    """
    Attributes:
        text: what is said in it; `None` where nobody has told.
        words: what a transcriber heard, word by word; `None` where none listened, empty where it knows no times.
        start, end: seconds from the beginning of the file; `None` for words alone.
        audio: (samples,) in [-1, 1] at `sampling_rate` Hz, or `None`.
        frames: uint8 (num_frames, height, width, 3), or `None`.
    """

    text: str | None = None
    words: list[dict[str, Any]] | None = None
    start: float | None = None
    end: float | None = None
    audio: np.ndarray | None = None
    sampling_rate: int | None = None
    frames: np.ndarray | None = None


def as_dict(inputs) -> dict[str, Any]:
    """Any form of input as a dict of `INPUT_NAMES`, without what is `None`. Raises ValueError for what is no input."""
    if isinstance(inputs, (str, Path, bytes)):
        if isinstance(inputs, str) and not _is_file_or_url(inputs):
            raise ValueError(f"{inputs!r:.200} is neither a file nor a URL. To analyse words, pass {{'text': ...}}.")
        return {"video": inputs}
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
    return inputs


def iter_segments(
    inputs: dict[str, Any],
    segment_s: float | None,
    *,
    listens: bool,
    looks: bool,
    shortest_s: float,
    frame_rate: float,
    size: tuple[int, int],
) -> Iterator[Segment]:
    """
    Cuts an input into segments; one, of its first two minutes, where `segment_s` is `None`.

    Args:
        inputs: a dict of `INPUT_NAMES`.
        segment_s: seconds of a segment.
        listens, looks: whether sound and pictures are wanted.
        shortest_s: a rest at the end that is shorter is dropped.
        frame_rate: of the frames, in Hz.
        size: of the frames, (height, width).
    """
    text, sound, video = inputs.get("text"), inputs.get("audio"), inputs.get("video")
    if segment_s is not None and text is not None:
        raise ValueError(
            "`text` cannot be cut into segments, as nothing says when its words are spoken: pass `transcriber=` "
            "instead of `text`, or leave `segment_s` and `return_timestamps` out."
        )
    window_s = segment_s or WHOLE_S
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

    if not tracks and segment_s is not None:
        raise ValueError("There is no sound to cut into segments: leave `segment_s` and `return_timestamps` out.")
    index = None
    for index, clips in enumerate(zip_longest(*tracks)):
        segment = _join(text, [clip for clip in clips if clip is not None])
        if index > 0 and segment.end - segment.start < min(window_s, shortest_s) - 1e-3:
            return  # a rest of some milliseconds: codecs pad, and segments are of whole samples
        yield segment
        if segment_s is None:
            for track in tracks:
                track.close()
            return
    if index is None:  # words alone, or pictures where only sound counts
        yield Segment(text)


def _join(text: str | None, clips: list[Clip]) -> Segment:
    heard = next((clip for clip in clips if clip.audio is not None), clips[0])
    seen = next((clip.frames for clip in clips if clip.frames is not None), None)
    end = max(clip.start + clip.duration for clip in clips)
    return Segment(text, None, clips[0].start, end, heard.audio, heard.sampling_rate, seen)


def _cut_waveform(sound, rate: float | None, window_s: float) -> Iterator[Clip]:
    if rate is None or not rate > 0:
        raise ValueError(f"`audio` is a waveform and its `sampling_rate` is {rate}: give it in Hz beside it.")
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


def _from_datasets(name: str, value: Any) -> dict[str, Any]:
    """What `datasets.Audio` and `datasets.Video` give, in this pipeline's words: decoded, or left undecoded."""
    if not isinstance(value, dict):
        is_decoder = hasattr(value, "get_all_samples")
        return {"audio": value["array"], "sampling_rate": value["sampling_rate"]} if is_decoder else {}
    for key in ("array", "raw"):
        if value.get(key) is not None:
            return {name: value[key], "sampling_rate": value.get("sampling_rate")}
    for key in ("bytes", "path"):
        if value.get(key) is not None:
            return {name: value[key]}
    raise ValueError(
        f"`{name}` is a dict of {sorted(value)}: it needs `array` and `sampling_rate`, `bytes` or `path`."
    )
