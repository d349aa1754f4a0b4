# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Decoding of video and audio files with PyAV: audio and frames in one pass, in bounded memory."""

import errno
import io
import math
import os
import struct
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


# Containers of one clip in one file. FFmpeg also opens playlists, image sequences and text art, through which an
# untrusted file could read other files or addresses.
CONTAINERS = (
    "3g2,3gp,aac,ac3,aiff,amr,asf,au,avi,caf,dv,eac3,flac,flv,h264,hevc,ivf,m4a,m4v,matroska,mj2,mov,mp2,mp3,mp4,mpeg,"
    "mpegts,mpegvideo,mxf,nut,obu,ogg,rm,w64,wav,webm,wtv,wv"
)
HTTP_TIMEOUT = 30.0  # seconds without a response
PREROLL = 1.0  # seconds decoded before a range, for codecs and the resampler to settle
UNINDEXED_PREROLL = 12.0  # the same where seeking may miss key frames: encoders set one at least every 10 s
JOINABLE = ("mpegts", "mpeg", "ogg")  # formats whose files can be concatenated: a time may then occur twice
MAX_GAP = 30.0  # seconds; a longer jump between two time stamps is an error in the file, not a pause
MAX_SKEW = 10.0  # seconds one stream may lag behind the other before it is considered ended
MAX_JITTER = 0.1  # seconds a time stamp may be off before audio is moved to it
SAMPLING_RATES = range(1_000, 1_000_001)  # Hz; other rates come from damaged headers and would exhaust memory
RANGE_TOLERANCE = 0.5  # seconds `end` may exceed the clip: annotated times are rounded
WHOLE_S = 120.0  # seconds read of a file that is not cut into windows: more than models use, and bounded
EPSILON = 1e-6  # seconds, against rounding at the edges of windows
# Budgets of decoding: fixed, and for each second decoded. Edit lists can repeat packets that decode to nothing, and a
# second can have 100,000 frames.
PACKETS, PACKETS_PER_S = 20_000, 10_000
PIXELS, PIXELS_PER_S = 4e9, 2e9  # 8K at 60 frames per second
MAX_FRAME_RATE = 1_000  # frames per second; of more, the others are skipped
MAX_PEAK = 10.0  # of float samples, which are in [-1, 1]; lossy codecs exceed it slightly
MAX_EXCESS = 2**20  # bytes that headers may declare beyond the end of the file, as those of truncated files do
MP4_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf", b"mvex", b"udta", b"dinf")


def import_av():
    """Return PyAV, or raise ImportError with the command that installs it."""
    try:
        import av
    except ImportError as error:
        raise ImportError(
            "Decoding video and audio files, and resampling audio, require PyAV: `pip install av`."
        ) from error
    return av


@dataclass
class Clip:
    """Decoded audio and frames of a range of a file.

    Attributes:
        audio: float32 (num_samples,), mono in [-1, 1] from the start of the range; `None` without audio.
        frames: uint8 (num_frames, height, width, 3), RGB; `None` without video.
        frame_times: float64 (num_frames,), seconds from the start of the range, increasing.
        duration: seconds. A stream that ends before the other is not padded.
        sampling_rate: rate of `audio`, in Hz.
        start: start of the range in the file, in seconds.
    """

    audio: np.ndarray | None
    frames: np.ndarray | None
    frame_times: np.ndarray
    duration: float
    sampling_rate: int
    start: float = 0.0


def read_clip(
    source: str | Path | bytes | BinaryIO,
    *,
    start: float | None = None,
    end: float | None = None,
    sampling_rate: int = 22050,
    frame_rate: float | None = None,
    size: tuple[int, int] = (112, 112),
    audio: bool = True,
    video: bool = True,
    max_duration: float | None = None,
) -> Clip:
    """Decode a video or audio file, or a range of it.

    Args:
        source: path, http(s) URL, bytes of a file, or binary file object (read from its beginning and left open).
        start: seconds from the beginning of the file; `None` is the beginning.
        end: seconds from the beginning of the file; `None` is the end of the file.
        sampling_rate: rate of the mono audio, in Hz.
        frame_rate: frames per second to sample: at each 1 / `frame_rate` s from `start`, the frame with the nearest
            time stamp. `None` keeps every frame at its own time.
        size: (height, width) of the frames in pixels. The upright frame is resized without cropping; its aspect ratio
            is not kept.
        audio: whether to decode the audio.
        video: whether to decode the frames.
        max_duration: seconds to decode at most; `None` is no limit.

    Raises:
        ValueError: an argument is invalid, or the range is outside of the clip.
        OSError: the source cannot be opened, is not a media file, or nothing requested can be decoded.
        ImportError: PyAV is not installed.
    """
    window_s = math.inf if max_duration is None else max_duration
    windows = _iter_windows(source, window_s, start, end, sampling_rate, frame_rate, size, audio, video)
    with closing(windows):
        clip = next(windows, None)
    if clip is None:
        raise OSError(f"{_name(source)}: nothing could be decoded. Pass an undamaged file.")
    if clip.audio is None and clip.frames is None:
        raise OSError(
            f"{_name(source)}: no {_requested(audio, video)} could be decoded from {clip.start:g} s to "
            f"{clip.start + clip.duration:g} s. Pass another range or an undamaged file."
        )
    return clip


def iter_windows(
    source: str | Path | bytes | BinaryIO,
    window_s: float,
    *,
    sampling_rate: int = 22050,
    frame_rate: float | None = None,
    size: tuple[int, int] = (112, 112),
    audio: bool = True,
    video: bool = True,
) -> Generator[Clip]:
    """Decode consecutive windows of `window_s` seconds of a file of any length, in one pass and bounded memory.

    The last window may be shorter. A window in a gap of the file has neither audio nor frames. The source is opened at
    the first window and stays open until the iterator is exhausted or closed. Other arguments and errors are those of
    [`read_clip`].
    """
    return _iter_windows(source, window_s, None, None, sampling_rate, frame_rate, size, audio, video)


def _iter_windows(
    source, window_s, start, end, sampling_rate, frame_rate, size, audio, video
) -> Generator[Clip, None, None]:
    _check_arguments(window_s, start, end, sampling_rate, frame_rate, size, audio, video)
    first, last = start or 0.0, math.inf if end is None else end

    def generate():
        index, left, right = 0, first, min(first + window_s, last)
        with _open_at(source, first) as (container, can_seek):
            seek_to = first if can_seek else 0.0
            decoder = Decoder(container, _name(source), first, seek_to, sampling_rate, frame_rate, size, audio, video)
            for _ in decoder.run():
                while decoder.has_passed(right):
                    yield decoder.cut(left, right)
                    if right >= last:
                        return
                    index, left, right = index + 1, right, min(first + (index + 2) * window_s, last)
            decoder.check_range(start, end)
            while left < min(decoder.end, last) - EPSILON:
                yield decoder.cut(left, min(right, decoder.end))
                index, left, right = index + 1, right, min(first + (index + 2) * window_s, last)

    return generate()


def _check_arguments(window_s, start, end, sampling_rate, frame_rate, size, audio, video):
    for name, value in {"start": start, "end": end}.items():
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name}={value} is not a time in the clip: pass seconds from its beginning, at least 0.")
    if end is not None and end <= (start or 0.0) + EPSILON:
        raise ValueError(f"The range from start={start or 0.0} to end={end} is empty: `end` must be after `start`.")
    if not window_s > 0:
        raise ValueError(f"window_s={window_s} is not a window length: pass a positive number of seconds.")
    for name, value in {"sampling_rate": sampling_rate, "frame_rate": frame_rate}.items():
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name}={value} is not a rate: pass a positive number per second.")
    if len(size) != 2 or not all(isinstance(side, (int, np.integer)) and side > 0 for side in size):
        raise ValueError(f"size={size} must be (height, width), two positive integers.")
    if not (audio or video):
        raise ValueError("audio=False and video=False leave nothing to decode: set one to True.")


def _requested(audio: bool, video: bool) -> str:
    return " or ".join(["audio"] * audio + ["video"] * video)


def _name(source) -> str:
    """Return the source's name for messages."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes>"
    return str(source if isinstance(source, (str, Path)) else getattr(source, "name", source))


@contextmanager
def open_media(source, containers: str = CONTAINERS):
    """Yield the open container; close it, and the file unless the caller opened it."""
    av = import_av()
    with _binary_file(source) as file:
        if not isinstance(file, str):
            file = _QuietFile(file)
            if file.seekable():
                _check_declared_sizes(file, _name(source))
        try:
            container = av.open(
                file,
                container_options={"format_whitelist": containers},
                timeout=HTTP_TIMEOUT if isinstance(file, str) else None,
                # Tags need not be UTF-8. PyAV 19 decodes them on access only.
                **({"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}),
            )
        except (av.FFmpegError, OSError) as error:  # OSError: FFmpeg seeks in an empty file object
            raise OSError(
                f"{_name(source)} could not be opened as a video or audio file ({error.strerror}). Pass a complete "
                "file, such as mp4, mkv, webm, mpg, wav, flac, mp3 or ogg."
            ) from error
        with container:
            yield container


@contextmanager
def _open_at(source, first: float):
    """Yield the open container, and whether seeking to `first` can be trusted."""
    with open_media(source) as container:
        codecs = [stream.codec_context.name for stream in container.streams.audio if stream.codec_context]
        # Positions in compressed audio follow from a byte rate that may be wrong.
        can_seek = container.format.name not in ("wav", "w64") or all(name.startswith("pcm_") for name in codecs)
        if container.format.name not in JOINABLE or not _seek(container, first, (container.start_time or 0) / 1e6):
            yield container, can_seek
            return
    with open_media(source) as container:
        can_seek = _is_continuous(container, first)
    with open_media(source) as container:
        yield container, can_seek


def _seek(container, first: float, origin: float) -> bool:
    """Seek to shortly before `first`; return False if the file is to be decoded from its beginning."""
    target = first - (UNINDEXED_PREROLL if container.format.name in ("mpeg", "mpegts") else PREROLL)
    if target <= 0:
        return False
    try:
        container.seek(int((target + origin) * 1e6))
    except import_av().FFmpegError:  # not seekable
        return False
    return True


def _is_continuous(container, first: float) -> bool:
    """Return True if time stamps increase up to `first`, and a seek does not land behind it: files may be joined."""
    origin, stream = (
        (container.start_time or 0) / 1e6,
        container.streams.best("audio") or container.streams.best("video"),
    )
    last = 0.0
    with suppress(import_av().FFmpegError):
        for packet in container.demux(stream):
            if packet.dts is None:
                continue
            time = float(packet.dts * packet.time_base) - origin
            if not -MAX_JITTER <= time - last <= MAX_GAP:
                return False
            last = time
            if time >= first:
                _seek(container, first, origin)
                landed = next(container.demux(stream))
                return None not in (landed.pos, packet.pos) and landed.pos <= packet.pos
    return False


@contextmanager
def _binary_file(source):
    """Yield a URL unchanged, and anything else as a binary file, so that FFmpeg never interprets a name."""
    if isinstance(source, str) and source.lower().startswith(("http://", "https://")):
        yield source
    elif isinstance(source, (str, Path)):
        if os.path.isdir(source):
            raise IsADirectoryError(f"{source} is a folder: pass a video or audio file in it.")
        if not os.path.exists(source):
            raise FileNotFoundError(f"{source}: there is no such file. Pass an existing file or an http(s) URL.")
        with open(source, "rb") as file:
            yield file
    elif isinstance(source, (bytes, bytearray, memoryview)):
        with io.BytesIO(source) as file:
            yield file
    elif hasattr(source, "read") and not isinstance(source, io.TextIOBase):
        if hasattr(source, "seekable") and source.seekable():
            source.seek(0)
        yield source
    else:
        raise ValueError(
            f"A {type(source).__name__} is not a media source: pass a path, an http(s) URL, bytes or a binary file."
        )


class _QuietFile:
    """A binary file that returns an error code for an invalid seek: PyAV would print the traceback of an exception."""

    def __init__(self, file):
        self.file, self.read, self.tell = file, file.read, getattr(file, "tell", lambda: 0)

    def seekable(self) -> bool:
        return hasattr(self.file, "seekable") and self.file.seekable()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self.file.seek(offset, whence)
        except (OSError, ValueError):
            return -errno.EINVAL


def _check_declared_sizes(file, name: str) -> None:
    """Raise OSError if headers declare more than the file can hold: FFmpeg would allocate memory for it."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"FORM") and head[8:] in (b"WAVE", b"AVI ", b"AIFF", b"AIFC"):
        _check_chunks(file, name, 12, size, "<" if head[:4] in (b"RIFF", b"RF64") else ">")
    elif (num_entries := _count_index_entries(file, name, 0, size, {})) > size + MAX_EXCESS:
        raise OSError(f"{name} has {size} bytes and declares {num_entries} samples. Pass an undamaged file.")
    file.seek(0)


def _check_chunks(file, name: str, position: int, size: int, byte_order: str) -> None:
    """Check the chunks of a RIFF or AIFF file, but for the media, of which a truncated file has less than declared."""
    while position + 8 <= size:
        file.seek(position)
        if len(head := file.read(8)) < 8:
            break
        kind, length = struct.unpack(f"{byte_order}4sI", head)
        if kind == b"LIST" and file.read(4) != b"movi":
            position += 12  # to the chunks in the list
            continue
        if kind not in (b"data", b"LIST", b"SSND") and position + length > size + MAX_EXCESS:
            raise _too_large(name, size, kind, length)
        position += 8 + length + length % 2


def _count_index_entries(file, name: str, start: int, end: int, track: dict[str, int], depth: int = 0) -> int:
    """Return the entries of FFmpeg's index of an mp4 file: the samples of its tracks, once for each edit."""
    num_entries = 0
    while start + 8 <= end and depth < 10:
        file.seek(start)
        if len(head := file.read(32)) < 8:
            break
        length, kind = struct.unpack(">I4s", head[:8])
        header = 16 if length == 1 else 8
        length = int.from_bytes(head[8:16]) if length == 1 else length or end - start
        if length < header:
            break
        if (depth > 0 or kind == b"moov") and start + length > end + MAX_EXCESS:
            raise _too_large(name, end, kind, length)
        numbers = struct.unpack(">4I", head[header : header + 16].ljust(16, b"\0"))
        if kind in MP4_CONTAINERS:
            inner = {} if kind == b"trak" else track
            num_entries += _count_index_entries(file, name, start + header, min(start + length, end), inner, depth + 1)
            if kind == b"trak" and not (inner.get("is_audio") and inner.get("is_pcm")):  # PCM is indexed by chunks
                num_entries += inner.get("num_samples", 0) * max(1, inner.get("num_edits", 1))
        elif kind in (b"stsz", b"stz2"):
            track["num_samples"] = max(numbers[2], track.get("num_samples", 0))
        elif kind == b"elst":
            track["num_edits"] = numbers[1]
        elif kind == b"stts":
            track["is_pcm"] = numbers[1] == 1 and numbers[3] == 1
        elif kind == b"hdlr" and depth == 3:  # moov, trak, mdia
            track["is_audio"] = numbers[2].to_bytes(4) == b"soun"
        elif kind == b"trun":
            num_entries += numbers[1]
        start += length
    return num_entries


def _too_large(name: str, size: int, kind: bytes, length: int) -> OSError:
    declared = kind.decode("latin-1")
    return OSError(f"{name} has {size} bytes and declares {length} of {declared!r}. Pass an undamaged file.")


class _Clock:
    """Converts the time stamps of a stream to seconds from the beginning of the file.

    A stamp that is missing, decreases or jumps by more than `MAX_GAP` is replaced by the end of the previous frame.
    """

    def __init__(self, origin: float, expected: float | None, max_jitter: float):
        self.offset = -origin
        self.expected = expected  # None after a seek: the first stamp gives the position
        self.last = -math.inf
        self.max_jitter = max_jitter

    def time(self, stamp: float | None, duration: float) -> float | None:
        """Return the time of a frame, or `None` if it is unknown."""
        time = None if stamp is None or not math.isfinite(stamp) else stamp + self.offset
        jitter = self.max_jitter if self.last > -math.inf else 0.0  # the first stamp is that of audio that starts late
        if self.expected is not None:
            if time is not None and abs(time - self.expected) > MAX_GAP:
                self.offset += self.expected - time
                time = self.expected
            elif time is None or time <= self.last or abs(time - self.expected) <= jitter:
                time = self.expected
        if time is not None:
            self.last, self.expected = time, time + duration
        return time


def _time(frame, stream) -> float | None:
    """Return the time stamp of a frame in seconds. The last frames of a stream have no time base in PyAV 16."""
    time_base = frame.time_base or stream.time_base
    return None if frame.pts is None or time_base is None else float(frame.pts * time_base)


class _AudioTrack:
    """Resampled mono audio on the timeline of the file."""

    def __init__(self, stream, name: str, clock: _Clock, sampling_rate: int):
        self.stream, self.name, self.clock, self.sampling_rate = stream, name, clock, sampling_rate
        self.resampler: Any = None
        self.input_format: tuple[str, str, int] | None = None
        self.chunks: list[tuple[int, np.ndarray]] = []  # (position in samples from the beginning of the file, samples)
        self.position = 0
        self.started = False

    @property
    def end(self) -> float:
        return self.position / self.sampling_rate if self.started else 0.0

    progress = end

    def add(self, frame) -> None:
        if frame.sample_rate not in SAMPLING_RATES:
            return
        expected = self.clock.expected if self.started else None
        time = self.clock.time(_time(frame, self.stream), frame.samples / frame.sample_rate)
        if time is None:
            return
        input_format = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self.resampler is None or time != expected or input_format != self.input_format:
            self.flush()
            self.resampler = _create_resampler(self.sampling_rate)
            self.input_format = input_format
            self.position = round(time * self.sampling_rate)
            self.started = True
        samples = mix_channels(_to_float(frame))
        if not np.abs(samples).max(initial=0) <= MAX_PEAK:  # also NaN
            if self.stream.codec_context.name.startswith("pcm_"):
                raise OSError(f"{self.name}: the samples are NaN or above {MAX_PEAK:g}. Pass floats in [-1, 1].")
            samples = np.zeros_like(samples)  # damaged
        resampler, self.resampler = self.resampler, None  # dropped if this frame raises
        self._append(resampler.resample(_mono_frame(samples, frame.sample_rate)))
        self.resampler = resampler

    def flush(self) -> None:
        if self.resampler is not None:
            self._append(self.resampler.resample(None))
            self.resampler = None

    def _append(self, frames) -> None:
        for frame in frames:
            if frame is None:  # a pass-through resampler returns the flushing None
                continue
            samples = frame.to_ndarray().reshape(-1)
            self.chunks.append((self.position, samples))
            self.position += len(samples)

    def cut(self, start: float, end: float) -> np.ndarray | None:
        """Remove and return the samples of [start, end); gaps are silent, and the end is not padded."""
        first, last = round(start * self.sampling_rate), round(end * self.sampling_rate)
        inside = [(position, samples) for position, samples in self.chunks if first < position + len(samples)]
        self.chunks = [(position, samples) for position, samples in inside if position + len(samples) > last]
        inside = [(position, samples) for position, samples in inside if position < last]
        if not inside:
            return None
        audio = np.zeros(min(last, max(position + len(samples) for position, samples in inside)) - first, np.float32)
        for position, samples in inside:
            samples = samples[max(0, first - position) : last - position]
            offset = max(0, position - first)
            audio[offset : offset + len(samples)] = samples
        return audio


def _create_resampler(sampling_rate: int):
    return import_av().AudioResampler("flt", "mono", sampling_rate)


def _to_float(frame) -> np.ndarray:
    """Return the samples of an audio frame as float32 (num_channels, num_samples), full scale being 1."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind == "f":
        return samples.astype(np.float32, order="C")
    full_scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
    zero = full_scale if samples.dtype.kind == "u" else 0.0
    return ((samples - zero) / full_scale).astype(np.float32, order="C")


def mix_channels(samples: np.ndarray) -> np.ndarray:
    """
    Return the mean of the channels, (num_channels, num_samples) to (num_samples,).

    Channels in antiphase cancel: if less than 1 % of the first one remains, the first one is returned.
    """
    mean = samples.mean(axis=0)
    if np.abs(mean).max(initial=0) < 0.01 * np.abs(samples[0]).max(initial=0):
        return samples[0].copy()
    return mean


def _mono_frame(samples: np.ndarray, sampling_rate: int):
    frame = import_av().AudioFrame.from_ndarray(np.ascontiguousarray(samples)[None], "flt", "mono")
    frame.sample_rate = sampling_rate
    return frame


class Resampler:
    """Resamples mono float32 audio that arrives in chunks, exactly as [`read_clip`] resamples that of files.

    Args:
        from_rate: rate of the chunks in Hz, rounded to an integer.
        to_rate: rate of the result in Hz.

    Raises:
        ValueError: `from_rate` is not a rate in Hz.
    """

    def __init__(self, from_rate: float, to_rate: int):
        low, high = SAMPLING_RATES.start, SAMPLING_RATES.stop - 1
        if not low <= from_rate <= high:
            raise ValueError(f"sampling_rate={from_rate} is not between {low} and {high}: pass the rate in Hz.")
        self.from_rate = round(from_rate)
        self._resampler = None if self.from_rate == to_rate else _create_resampler(to_rate)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Return the samples (num_samples,) at the new rate that a chunk completes: it is about 1 ms behind."""
        if self._resampler is None or not len(samples):
            return samples
        return self._join(self._resampler.resample(_mono_frame(samples, self.from_rate)))

    def flush(self) -> np.ndarray:
        """Return the last samples. The resampler is then used up."""
        return np.zeros(0, np.float32) if self._resampler is None else self._join(self._resampler.resample(None))

    @staticmethod
    def _join(frames) -> np.ndarray:
        parts = [frame.to_ndarray().reshape(-1) for frame in frames if frame is not None]
        return np.concatenate([np.zeros(0, np.float32), *parts])


def resample(samples: np.ndarray, from_rate: float, to_rate: int) -> np.ndarray:
    """Resample mono float32 samples (num_samples,) at once, see [`Resampler`].

    Fewer samples than the filter needs, about 1 ms, give silence.
    """
    resampler = Resampler(from_rate, to_rate)
    if resampler.from_rate == to_rate:
        return samples
    resampled = np.concatenate([resampler.push(samples), resampler.flush()])
    return resampled if len(resampled) else np.zeros(1, np.float32)


class _VideoTrack:
    """Upright RGB frames of one size, all or sampled at a rate."""

    def __init__(self, stream, clock: _Clock, first: float, frame_rate: float | None, size: tuple[int, int]):
        self.stream, self.clock, self.first, self.frame_rate, self.size = stream, clock, first, frame_rate, size
        self.reformatter = import_av().video.reformatter.VideoReformatter()
        self.frames: list[tuple[float, np.ndarray]] = []
        self.num_sampled = 0
        self.previous: tuple[float, Any] | None = None  # time and frame
        self.end = self.progress = 0.0

    def add(self, frame) -> None:
        duration = self._duration(frame)
        time = self.clock.time(_time(frame, self.stream), duration)
        if time is None:
            return
        self.end = time + duration
        if self.previous is not None and time < self.previous[0] + 1 / MAX_FRAME_RATE - EPSILON:
            return
        if self.frame_rate is None:
            self.progress = time
            if time >= self.first - EPSILON:
                self.frames.append((time, self._to_rgb(frame)))
        else:
            # A sample takes the nearer of the previous frame and this one. Nothing is sampled before the first frame.
            before = time - 0.5 / self.frame_rate if self.previous is None else (self.previous[0] + time) / 2
            self._sample_until(before)
        self.previous = (time, frame)

    def flush(self) -> None:
        self._sample_until(self.end - EPSILON)

    def _sample_until(self, end: float) -> None:
        """Repeat the previous frame for all samples up to `end`."""
        if self.frame_rate is None:
            return
        rgb = None
        while (time := self.first + self.num_sampled / self.frame_rate) < end:
            if self.previous is not None:
                rgb = self._to_rgb(self.previous[1]) if rgb is None else rgb
                self.frames.append((time, rgb))
            self.num_sampled += 1
            self.progress = time

    def _duration(self, frame) -> float:
        """Return the seconds of a frame: its own duration, the stream's, or 1/25 s if neither is plausible."""
        own = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
        nominal = 1 / float(self.stream.average_rate) if self.stream.average_rate else 0.0
        return next((duration for duration in (own, nominal) if 0 < duration <= MAX_GAP), 0.04)

    def _to_rgb(self, frame) -> np.ndarray:
        matrix = frame.side_data.get("DISPLAYMATRIX")
        # The upright frame has pixel (x, y) at (a x + c y, b x + d y).
        a, b, _, c, d = (1, 0, 0, 0, 1) if matrix is None else struct.unpack("=5i", bytes(matrix)[:20])
        is_turned = abs(b) > abs(a)
        height, width = self.size[::-1] if is_turned else self.size
        rgb = self.reformatter.reformat(frame, width=width, height=height, format="rgb24").to_ndarray()
        if is_turned:
            rgb, a, d = rgb.swapaxes(0, 1), c, b
        return rgb[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]

    def cut(self, start: float, end: float) -> tuple[np.ndarray | None, np.ndarray]:
        """Remove and return the frames of [start, end) and their times from `start`."""
        inside = [(time, rgb) for time, rgb in self.frames if start - EPSILON <= time < end - EPSILON]
        self.frames = [(time, rgb) for time, rgb in self.frames if time >= end - EPSILON]
        times = np.array([max(0.0, time - start) for time, _ in inside], dtype=np.float64)
        return np.stack([rgb for _, rgb in inside]) if inside else None, times


class Decoder:
    """One pass over an open container, from shortly before `first`."""

    def __init__(self, container, name, first, seek_to, sampling_rate, frame_rate, size, audio, video):
        self.container, self.name, self.sampling_rate = container, name, sampling_rate
        origin = (container.start_time or 0) / 1e6
        expected = None if _seek(container, seek_to, origin) else 0.0
        self.audio = self.video = None
        if audio and (stream := _audio_stream(container)):
            self.audio = _AudioTrack(stream, name, _Clock(origin, expected, MAX_JITTER), sampling_rate)
        if video and (stream := _video_stream(container)):
            stream.thread_type = "AUTO"
            self.video = _VideoTrack(stream, _Clock(origin, expected, 0.0), first, frame_rate, size)
        self.tracks = [track for track in (self.audio, self.video) if track is not None]
        self.num_packets = self.num_pixels = 0
        self.first_end = None  # end of the first frame decoded, in seconds
        if not self.tracks:
            raise OSError(f"{name} contains no {_requested(audio, video)} that can be decoded: pass another file.")

    def run(self) -> Iterator[None]:
        """Decode, yielding after each packet. Damaged parts are skipped."""
        by_stream = {track.stream.index: track for track in self.tracks}
        for packet in self._packets():
            if packet.stream_index in by_stream:
                self._decode(by_stream[packet.stream_index], packet)
            self._check_budget()
            yield
        for track in self.tracks:
            self._decode(track, None)
            with suppress(import_av().FFmpegError):
                track.flush()

    def _packets(self):
        av = import_av()
        try:
            yield from self.container.demux()  # packets of all streams, as all count
        except (av.InvalidDataError, av.EOFError, IndexError):
            pass  # the rest of the file is damaged or missing; IndexError: a stream appeared
        except (av.FFmpegError, OSError) as error:
            raise OSError(f"{self.name}: reading stopped ({error.strerror}). Check the file or connection.") from error

    def _decode(self, track, packet) -> None:
        av = import_av()
        with suppress(av.FFmpegError):
            for frame in track.stream.decode(packet):
                with suppress(av.FFmpegError):
                    track.add(frame)
                if track is self.video:
                    self.num_pixels += frame.width * frame.height

    def _check_budget(self) -> None:
        """Raise OSError for a file that takes far more work than its duration."""
        self.num_packets += 1
        if self.first_end is None and self.end > 0:
            self.first_end = self.end
        seconds = 0.0 if self.first_end is None else self.end - self.first_end
        if self.num_packets > PACKETS + PACKETS_PER_S * seconds or self.num_pixels > PIXELS + PIXELS_PER_S * seconds:
            raise OSError(
                f"{self.name}: {self.num_packets} packets contain {seconds:.2f} s. Convert it to another format."
            )

    @property
    def end(self) -> float:
        """End of the decoded part, in seconds from the beginning of the file."""
        return max(track.end for track in self.tracks)

    def has_passed(self, time: float) -> bool:
        progress = [track.progress for track in self.tracks]
        return min(progress) >= time or max(progress) >= time + MAX_SKEW

    def check_range(self, start: float | None, end: float | None) -> None:
        """Raise unless the file, decoded to its end, covers the range."""
        start = start or 0.0
        clip_end = max(self.end, (self.container.duration or 0) / 1e6)
        if start > 0 and start >= clip_end - EPSILON:
            raise ValueError(f"{self.name} ends at {clip_end:.2f} s: start={start} lies outside of it.")
        if self.end <= start + EPSILON:
            raise OSError(f"{self.name}: nothing could be decoded after {start:g} s. Pass an undamaged file.")
        if end is not None and end > self.end + RANGE_TOLERANCE:
            raise ValueError(f"{self.name} ends at {self.end:.2f} s: end={end} lies outside of it.")

    def cut(self, start: float, end: float) -> Clip:
        audio = self.audio.cut(start, end) if self.audio else None
        frames, frame_times = self.video.cut(start, end) if self.video else (None, np.zeros(0))
        return Clip(audio, frames, frame_times, end - start, self.sampling_rate, start)


def _audio_stream(container):
    streams = [stream for stream in container.streams.audio if stream.codec_context is not None]
    best = container.streams.best("audio")
    return best if best in streams else next(iter(streams), None)


def _video_stream(container):
    attached_pic = import_av().stream.Disposition.attached_pic
    streams = [
        stream
        for stream in container.streams.video
        if stream.codec_context is not None and not stream.disposition & attached_pic  # cover art
    ]
    best = container.streams.best("video")
    return best if best in streams else next(iter(streams), None)
