import errno
import gc
import io
import math
import os
import struct
import subprocess
import sys
import threading
import wave
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, HTTPServer

import av
import numpy as np
import pytest

from modeling_umons.models.umons import media_umons
from modeling_umons.models.umons.media_umons import iter_windows, read_clip


GRID = [f"grid_{name}.mpg" for name in ("bbaf2n", "brbk7n", "lbax4n", "lbbc2a", "lrwp9a", "lwbsza")]
CLIPS = ["avobjects_demo.mp4", "pyfeat_single_face.mp4", *GRID]


def tone(duration: float, rate: int) -> np.ndarray:
    """A sweep, so that a shifted part does not correlate with itself."""
    time = np.arange(round(duration * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * (200 * time + 10 * time**2))


def picture(number: int, height: int, width: int) -> np.ndarray:
    """Six bars, black or white, that spell the number of the frame (0 to 63, and again) in binary."""
    bars = np.array([255 * (number >> bit & 1) for bit in range(6)], dtype=np.uint8)
    row = bars[np.arange(width) * 6 // width]
    return np.broadcast_to(row[None, :, None], (height, width, 3)).copy()


def numbers(frames: np.ndarray) -> list[int]:
    """Return the numbers that `picture` wrote into the frames."""
    height, width = frames.shape[1:3]
    centres = ((np.arange(6) + 0.5) * width / 6).astype(int)
    return ((frames[:, height // 2, centres, 1] > 127) * 2 ** np.arange(6)).sum(axis=1).tolist()


def encode_sound(stream, samples: np.ndarray) -> list:
    """Packets of `samples`, float (channels, samples), in the frames the encoder wants."""
    rate, layout = stream.codec_context.sample_rate, stream.codec_context.layout.name
    frame = av.AudioFrame.from_ndarray(samples.astype(np.float32), format="fltp", layout=layout)
    frame.sample_rate, frame.pts = rate, 0
    resampler = av.AudioResampler(
        stream.codec_context.format.name, layout, rate, frame_size=stream.codec_context.frame_size or 1024
    )
    parts = [part for part in [*resampler.resample(frame), *resampler.resample(None)] if part is not None]
    return [packet for part in [*parts, None] for packet in stream.encode(part)]


def encode_pictures(stream, times: list[float] | None = None, num_frames: int = 0) -> list:
    """Packets of numbered pictures at `times` (in ms precision), or `num_frames` at the stream's rate."""
    packets = []
    for number in range(len(times) if times else num_frames):
        frame = av.VideoFrame.from_ndarray(picture(number, stream.height, stream.width))
        frame.pts = round(1000 * times[number]) if times else number
        frame.time_base = Fraction(1, 1000) if times else 1 / stream.average_rate
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def mux(container, packets: list) -> None:
    """Interleaved, as files are."""
    container.mux(sorted(packets, key=lambda packet: packet.dts * packet.time_base))


def make(
    container_format: str,
    video_codec: str | None = None,
    audio_codec: str | None = None,
    duration: float = 2.0,
    frame_rate: int = 25,
    size: tuple[int, int] = (48, 64),
    times: list[float] | None = None,
    audio_rate: int = 44100,
    layout: str = "mono",
    options: dict | None = None,
) -> bytes:
    """A file made by PyAV: numbered pictures at `times` (default: `frame_rate`), a sweep in every channel."""
    file = io.BytesIO()
    with av.open(file, "w", format=container_format) as container:
        pictures = sound = None
        if video_codec:
            pictures = container.add_stream(video_codec, rate=frame_rate, options=options or {})
            pictures.height, pictures.width = size
            pictures.pix_fmt = "yuv444p" if size[0] % 2 or size[1] % 2 else "yuv420p"
            if times:
                pictures.codec_context.time_base = Fraction(1, 1000)
        if audio_codec:
            sound = container.add_stream(audio_codec, rate=audio_rate, layout=layout)
        packets = encode_pictures(pictures, times, round(duration * frame_rate)) if pictures else []
        if sound:
            num_channels = sound.codec_context.layout.nb_channels
            packets += encode_sound(sound, np.tile(tone(duration, audio_rate), (num_channels, 1)))
        mux(container, packets)
    return file.getvalue()


@pytest.fixture(scope="module")
def small_clip() -> bytes:
    """2 s of 25 frames per second and sound."""
    return make("mp4", "libx264", "aac")


@pytest.fixture(scope="module")
def long_clip() -> bytes:
    """30 s in which a key frame comes every second."""
    return make("matroska", "mpeg4", "mp2", duration=30.0, frame_rate=10, options={"g": "10"})


def assert_same_sound(ours: np.ndarray, reference: np.ndarray, samples: int = 30, shift: int = 0) -> None:
    """The same length but for `samples`, the same content but for a shift of at most `shift` samples."""
    assert abs(len(ours) - len(reference)) <= samples
    length = min(len(ours), len(reference)) - shift
    inner = ours[shift:length]
    best = max(np.corrcoef(inner, reference[i : i + len(inner)])[0, 1] for i in range(2 * shift + 1))
    assert best > 0.99


def test_a_clip(small_clip):
    clip = read_clip(small_clip)
    assert clip.audio.dtype == np.float32
    assert clip.sampling_rate == 22050
    assert_same_sound(clip.audio[:44100], tone(2.0, 22050))
    assert clip.frames.shape == (50, 112, 112, 3)
    assert clip.frames.dtype == np.uint8
    assert numbers(clip.frames) == list(range(50))
    assert clip.frame_times.dtype == np.float64
    np.testing.assert_allclose(clip.frame_times, np.arange(50) / 25, atol=1e-9)
    assert clip.start == 0.0
    assert clip.duration == pytest.approx(2.0, abs=0.05)


def test_all_kinds_of_source_give_the_same(small_clip, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(small_clip)
    expected = read_clip(small_clip)
    with path.open("rb") as file:
        file.read(100)  # wherever it stands
        sources = [path, str(path), file, io.BytesIO(small_clip), bytearray(small_clip)]
        for source in sources:
            clip = read_clip(source)
            np.testing.assert_array_equal(clip.frames, expected.frames)
            np.testing.assert_array_equal(clip.audio, expected.audio)
        assert not file.closed


@pytest.mark.parametrize("size", [(48, 64), (33, 47), (240, 16)])
@pytest.mark.parametrize("wanted", [(112, 112), (31, 57)])
def test_sizes(size, wanted):
    frames = read_clip(make("matroska", "ffv1", size=size, duration=0.4), size=wanted).frames
    assert frames.shape == (10, *wanted, 3)
    assert numbers(frames) == list(range(10))


@pytest.mark.parametrize(
    ("container_format", "codec", "rate", "layout"),
    [
        ("wav", "pcm_s16le", 8000, "mono"),
        ("wav", "pcm_f32le", 22050, "mono"),
        ("wav", "pcm_s16le", 44100, "stereo"),
        ("wav", "pcm_s24le", 96000, "5.1"),
        ("flac", "flac", 48000, "stereo"),
        ("ogg", "libopus", 48000, "stereo"),
        ("mp3", "libmp3lame", 44100, "stereo"),
        ("ipod", "aac", 44100, "mono"),
        ("matroska", "ac3", 48000, "5.1"),
    ],
)
def test_sound_files(container_format, codec, rate, layout):
    clip = read_clip(make(container_format, None, codec, audio_rate=rate, layout=layout))
    assert clip.frames is None
    assert clip.frame_times.shape == (0,)
    reference = tone(2.0, 22050)
    assert clip.audio.dtype == np.float32
    assert len(clip.audio) == pytest.approx(len(reference), abs=0.06 * 22050)  # lossy codecs add to the end
    # FFmpeg 8.0 keeps the 256 samples with which AC-3 begins.
    assert_same_sound(clip.audio[: len(reference)], reference, samples=60, shift=128 if codec == "ac3" else 0)
    if layout != "5.1":  # the same in both channels: the mean is as loud (LAME takes 5 % off)
        assert np.sqrt(np.mean(clip.audio[: len(reference)] ** 2)) == pytest.approx(
            np.sqrt(np.mean(reference**2)), rel=0.06
        )
    assert np.abs(clip.audio).max() <= 1.0


def test_channels_are_averaged():
    file = io.BytesIO()
    with av.open(file, "w", format="wav") as container:
        stream = container.add_stream("pcm_f32le", rate=22050, layout="stereo")
        mux(container, encode_sound(stream, np.stack([np.full(4096, 0.75), np.full(4096, -0.25)])))
    np.testing.assert_allclose(read_clip(file.getvalue()).audio, 0.25, atol=1e-4)


def test_sampling_rate(small_clip):
    clip = read_clip(small_clip, sampling_rate=16000)
    assert clip.sampling_rate == 16000
    assert_same_sound(clip.audio[:32000], tone(2.0, 16000))


def test_silent_video_and_parts_that_are_not_wanted(small_clip):
    silent = read_clip(make("mp4", "libx264"))
    assert silent.audio is None
    assert len(silent.frames) == 50
    assert silent.duration == pytest.approx(2.0)
    assert read_clip(small_clip, audio=False).audio is None
    assert read_clip(small_clip, video=False).frames is None


def test_cover_art_is_no_video():
    file = io.BytesIO()
    with av.open(file, "w", format="mp3") as container:
        sound = container.add_stream("libmp3lame", rate=44100, layout="mono")
        cover = container.add_stream("png", rate=1, width=16, height=16, pix_fmt="rgb24")
        cover.disposition = av.stream.Disposition.attached_pic.value
        frame = av.VideoFrame.from_ndarray(picture(0, 16, 16))
        frame.pts = 0
        mux(container, [*cover.encode(frame), *cover.encode(None), *encode_sound(sound, tone(2.0, 44100)[None])])
    with av.open(io.BytesIO(file.getvalue())) as container:
        assert len(container.streams.video) == 1
    clip = read_clip(file.getvalue())
    assert clip.frames is None
    assert_same_sound(clip.audio[:44100], tone(2.0, 22050), samples=60)


@pytest.mark.parametrize(
    ("matrix", "corners"),
    [
        ((1, 0, 0, 1), "RGBK"),
        ((0, 1, -1, 0), "BRKG"),
        ((-1, 0, 0, -1), "KBGR"),
        ((0, -1, 1, 0), "GKRB"),
        ((-1, 0, 0, 1), "GRKB"),
        ((1, 0, 0, -1), "BKRG"),
        ((0, 1, 1, 0), "RBGK"),
        ((0, -1, -1, 0), "KGBR"),
    ],
)
def test_display_matrix_is_applied(matrix, corners):
    """All eight rotations and mirrorings, as players apply them."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, width=64, height=48, pix_fmt="yuv420p")
        image = np.zeros((48, 64, 3), np.uint8)  # red and green above blue and black
        image[:24, :32, 0] = image[:24, 32:, 1] = image[24:, :32, 2] = 255
        frame = av.VideoFrame.from_ndarray(image)
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = file.getvalue()
    # PyAV cannot write the display matrix: put it into the track's header.
    a, b, c, d = (value << 16 for value in matrix)
    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    at = data.index(upright, data.index(b"tkhd"))
    data = data[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[at + len(upright) :]
    frame = read_clip(data, size=(60, 40)).frames[0].astype(int)
    assert frame.shape == (60, 40, 3)
    pixels = [frame[y, x] for y in (15, 45) for x in (10, 30)]
    assert "".join("RGB"[pixel.argmax()] if pixel.max() > 127 else "K" for pixel in pixels) == corners


def test_variable_frame_rate():
    times = [0.0, 0.04, 0.08, 0.5, 0.54, 1.2, 1.24, 1.28]
    data = make("matroska", "mpeg4", times=times)
    clip = read_clip(data)
    np.testing.assert_allclose(clip.frame_times, times, atol=1e-3)
    sampled = read_clip(data, frame_rate=10.0)
    np.testing.assert_allclose(sampled.frame_times, np.arange(len(sampled.frames)) / 10)
    nearest = [int(np.argmin(np.abs(np.array(times) - time))) for time in sampled.frame_times]
    # 0.1 s is nearest to 0.08, and so on; the picture stands until the next frame comes.
    assert numbers(sampled.frames) == nearest


@pytest.mark.parametrize("frame_rate", [5.0, 12.5, 15.0, 25.0, 50.0])
def test_frames_are_sampled_at_a_rate(small_clip, frame_rate):
    clip = read_clip(small_clip, frame_rate=frame_rate)
    assert len(clip.frames) == 2 * frame_rate
    np.testing.assert_allclose(clip.frame_times, np.arange(2 * frame_rate) / frame_rate)
    assert np.abs(np.array(numbers(clip.frames))[:-1] / 25 - clip.frame_times[:-1]).max() <= 0.02 + 1e-6


def test_late_audio_keeps_its_time():
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        pictures = container.add_stream("mpeg4", rate=25, width=64, height=48, pix_fmt="yuv420p")
        sound = container.add_stream("pcm_s16le", rate=22050, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.full((1, 11025), 8192, np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 22050, 22050, Fraction(1, 22050)  # from 1.0 to 1.5 s
        mux(container, [*encode_pictures(pictures, num_frames=50), *sound.encode(frame), *sound.encode(None)])
    audio = read_clip(file.getvalue()).audio
    assert len(audio) == pytest.approx(33075, abs=60)
    assert (audio[:22000] == 0).all()
    np.testing.assert_allclose(audio[22100:33000], 0.25, atol=1e-3)


@pytest.mark.parametrize(
    ("container_format", "video_codec", "audio_codec", "layout"),
    [
        ("mp4", "libx264", "aac", "stereo"),
        ("matroska", "mpeg4", "libmp3lame", "mono"),
        ("mpegts", "libx264", "mp2", "stereo"),
        ("mpeg", "mpeg1video", "mp2", "mono"),
        ("webm", "libvpx", "libopus", "mono"),
        ("avi", "mpeg4", "mp2", "mono"),
        ("wav", None, "pcm_s16le", "stereo"),
        ("flac", None, "flac", "mono"),
        ("mp3", None, "libmp3lame", "mono"),
        ("ogg", None, "libopus", "mono"),
    ],
)
def test_a_range_is_that_part_of_the_whole(container_format, video_codec, audio_codec, layout):
    rate = 48000 if audio_codec == "libopus" else 44100
    data = make(container_format, video_codec, audio_codec, duration=20.0, layout=layout, audio_rate=rate)
    whole = read_clip(data)
    start, end = 13.13, 15.57
    part = read_clip(data, start=start, end=end)
    assert part.start == start
    assert part.duration == pytest.approx(end - start)
    reference = whole.audio[round(start * 22050) : round(end * 22050)]
    # Matroska's time stamps are rounded to 1 ms, and a range can only trust them.
    shift = 25 if container_format in ("matroska", "webm") else 0
    assert_same_sound(part.audio, reference, samples=1, shift=shift)
    if video_codec:
        inside = (whole.frame_times >= start) & (whole.frame_times < end)
        np.testing.assert_allclose(part.frame_times, whole.frame_times[inside] - start, atol=1e-6)
        np.testing.assert_array_equal(part.frames, whole.frames[inside])


def test_range_reads_nothing_before_it(long_clip):
    class Counting(io.BytesIO):
        num_read = 0

        def read(self, *args):
            data = super().read(*args)
            self.num_read += len(data)
            return data

    whole, part = Counting(long_clip), Counting(long_clip)
    read_clip(whole)
    read_clip(part, start=20.0, end=21.0)
    assert part.num_read < 0.6 * whole.num_read


def test_reading_stops_where_it_is_told_to(long_clip):
    clip, whole = read_clip(long_clip, max_duration=2.0), read_clip(long_clip)
    assert clip.duration == pytest.approx(2.0)
    assert np.array_equal(clip.audio, whole.audio[: len(clip.audio)])
    assert len(clip.audio) == pytest.approx(2.0 * clip.sampling_rate, abs=1)
    assert np.array_equal(clip.frames, whole.frames[: len(clip.frames)])
    assert read_clip(long_clip, max_duration=1e6).duration == whole.duration


def test_windows_are_the_ranges(long_clip):
    windows = list(iter_windows(long_clip, 4.0, frame_rate=15.0))
    assert [window.start for window in windows] == [0.0, 4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 28.0]
    assert [window.duration for window in windows[:-1]] == [4.0] * 7
    assert windows[-1].duration == pytest.approx(2.0, abs=0.05)
    whole = read_clip(long_clip, frame_rate=15.0)
    np.testing.assert_array_equal(np.concatenate([window.frames for window in windows]), whole.frames)
    np.testing.assert_array_equal(np.concatenate([window.audio for window in windows]), whole.audio)
    assert all(len(window.frames) == 60 for window in windows[:-1])
    assert all(0 <= window.frame_times.min() <= window.frame_times.max() < 4.0 for window in windows)
    third = read_clip(long_clip, start=8.0, end=12.0, frame_rate=15.0)
    np.testing.assert_array_equal(windows[2].frames, third.frames)


def test_windows_hold_no_more_than_they_need(long_clip):
    """The file is read as windows are asked for."""
    file = io.BytesIO(long_clip)
    windows = iter_windows(file, 2.0)
    positions = []
    for _ in range(3):
        next(windows)
        positions.append(file.tell())
    windows.close()
    assert 0 < positions[0] < positions[2] < 0.6 * len(long_clip)


def test_a_stream_that_ends_early_does_not_hold_windows_back():
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        pictures = container.add_stream("mpeg4", rate=5, width=64, height=48, pix_fmt="yuv420p")
        sound = container.add_stream("mp2", rate=44100, layout="mono")
        pictures_of_40_s = encode_pictures(pictures, num_frames=200)
        mux(container, [*pictures_of_40_s, *encode_sound(sound, tone(3.0, 44100)[None])])
    source = io.BytesIO(file.getvalue())
    windows = list(iter_windows(source, 5.0))
    # FFmpeg 8.0 lets the pictures begin after the padding of the sound, so that they end in a ninth window.
    assert [len(window.frames) for window in windows[:8]] == [25] * 8
    assert [window.audio is not None for window in windows] == [True] + [False] * (len(windows) - 1)


@pytest.mark.shared
@pytest.mark.parametrize("name", CLIPS)
def test_real_clips(shared, name):
    path = shared / "data" / "clips" / name
    with av.open(str(path)) as container:
        duration = container.duration / 1e6
        num_frames = sum(1 for _ in container.decode(video=0))
    clip = read_clip(path)
    assert clip.duration == pytest.approx(duration, abs=0.05)
    assert clip.frames.shape == (num_frames, 112, 112, 3)
    assert len(clip.audio) == pytest.approx(duration * 22050, abs=0.06 * 22050)
    assert clip.audio.std() > 1e-4
    assert (np.diff(clip.frame_times) > 0).all()
    start, end = 0.41 * duration, 0.77 * duration
    part = read_clip(path, start=start, end=end)
    inside = (clip.frame_times >= start) & (clip.frame_times < end)
    np.testing.assert_array_equal(part.frames, clip.frames[inside])
    reference = clip.audio[round(start * 22050) : round(end * 22050)]
    assert_same_sound(part.audio, reference, samples=1)


@pytest.mark.shared
def test_real_audio(shared):
    path = min((shared / "data" / "ravdess" / "actor_01").glob("*.flac"))
    with av.open(str(path)) as container:
        samples = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    clip = read_clip(path)
    assert clip.frames is None
    np.testing.assert_allclose(clip.audio, samples[0] / 32768, atol=1e-6)  # mono at 22,050 Hz already


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 20]  # the index of an mp4 is at its end


@pytest.mark.parametrize(
    ("make_source", "error", "message"),
    [
        (lambda tmp_path, clip: tmp_path / "none.mp4", FileNotFoundError, r"none\.mp4: there is no such file"),
        (
            lambda tmp_path, clip: "I am so happy today",
            FileNotFoundError,
            "I am so happy today: there is no such file",
        ),
        (lambda tmp_path, clip: "word " * 2000, OSError, "there is no such file"),
        (lambda tmp_path, clip: "ftp://host/clip.mp4", OSError, r"existing file or an http\(s\) URL"),
        (lambda tmp_path, clip: "http://127.0.0.1:9/clip.mp4", OSError, r"http://127\.0\.0\.1:9/clip\.mp4 could not"),
        (lambda tmp_path, clip: tmp_path, IsADirectoryError, "is a folder"),
        (lambda tmp_path, clip: b"", OSError, "<0 bytes> could not be opened as a video or audio file"),
        (lambda tmp_path, clip: bytes(range(256)) * 40, OSError, "<10240 bytes>"),
        (lambda tmp_path, clip: b"Happy words, no media.\n" * 50, OSError, "<1150 bytes> could not be opened"),
        (lambda tmp_path, clip: truncated(clip), OSError, "bytes> could not be opened"),
        (lambda tmp_path, clip: make("wav", None, "pcm_s16le")[:44], OSError, "bytes"),
        (lambda tmp_path, clip: 7, ValueError, "A int is not a media source"),
        (lambda tmp_path, clip: io.StringIO("text"), ValueError, "A StringIO is not a media source"),
    ],
)
def test_invalid_sources_raise(make_source, error, message, tmp_path, small_clip):
    with pytest.raises(error, match=message):
        read_clip(make_source(tmp_path, small_clip))


@pytest.mark.parametrize("name", ["notes.txt", "list.ffconcat", "list.m3u8"])
def test_playlists_and_text_raise(name, tmp_path, small_clip):
    """Text art, and lists of other files: FFmpeg opens them all by default."""
    (tmp_path / "clip.mp4").write_bytes(small_clip)
    texts = {
        "notes.txt": "Happy words, no media.\n" * 50,
        "list.ffconcat": "ffconcat version 1.0\nfile clip.mp4\n",
        "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nclip.mp4\n#EXT-X-ENDLIST\n",
    }
    (tmp_path / name).write_text(texts[name])
    with pytest.raises(OSError, match=f"{name} could not be opened"):
        read_clip(tmp_path / name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": -1.0}, "start=-1.0 is not a time"),
        ({"start": math.nan}, "start=nan is not a time"),
        ({"end": math.inf}, "end=inf is not a time"),
        ({"start": 1.0, "end": 1.0}, "from start=1.0 to end=1.0 is empty"),
        ({"start": 1.5, "end": 0.5}, "`end` must be after `start`"),
        ({"end": 0.0}, "is empty"),
        ({"start": 2.5}, r"<\d+ bytes> ends at 2\.\d+ s: start=2\.5 lies outside"),
        ({"start": 100.0, "end": 101.0}, "start=100.0 lies outside"),
        ({"start": 1.0, "end": 9.0}, r"<\d+ bytes> ends at 2\.\d+ s: end=9\.0 lies outside"),
        ({"sampling_rate": 0}, "sampling_rate=0 is not a rate"),
        ({"frame_rate": -5.0}, "frame_rate=-5.0 is not a rate"),
        ({"frame_rate": math.inf}, "frame_rate=inf is not a rate"),
        ({"size": (0, 112)}, "two positive integers"),
        ({"size": (112,)}, "two positive integers"),
        ({"audio": False, "video": False}, "nothing to decode"),
    ],
)
def test_invalid_arguments_raise(small_clip, options, message):
    with pytest.raises(ValueError, match=message):
        read_clip(small_clip, **options)


def test_end_rounded_up_is_accepted(small_clip):
    assert read_clip(small_clip, start=1.0, end=2.2).duration == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("window_s", [0, -1.0, math.nan])
def test_invalid_windows_raise_before_iteration(small_clip, window_s):
    with pytest.raises(ValueError, match="is not a window length"):
        iter_windows(small_clip, window_s)


def test_missing_stream_raises():
    with pytest.raises(OSError, match="contains no audio that can be decoded"):
        read_clip(make("mp4", "libx264"), video=False)
    with pytest.raises(OSError, match="contains no video that can be decoded"):
        read_clip(make("flac", None, "flac"), audio=False)


def test_an_address_that_answers(small_clip):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/clip.mp4" else 404)
            self.send_header("Content-Length", str(len(small_clip) if self.path == "/clip.mp4" else 0))
            self.end_headers()
            if self.path == "/clip.mp4":
                self.wfile.write(small_clip)

        def log_message(self, *args): ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        try:
            clip = read_clip(f"{address}/clip.mp4")
            with pytest.raises(OSError, match=rf"{address}/none\.mp4 could not be opened .*404"):
                read_clip(f"{address}/none.mp4")
        finally:
            server.shutdown()
            thread.join()
    np.testing.assert_array_equal(clip.frames, read_clip(small_clip).frames)


def test_a_partly_corrupt_file_gives_what_decodes():
    data = make("matroska", "mpeg4", "mp2", duration=10.0, options={"g": "10"})
    damaged = bytearray(data)
    middle = slice(len(data) * 4 // 10, len(data) * 5 // 10)
    damaged[middle] = bytes(np.random.default_rng(0).integers(0, 256, middle.stop - middle.start, dtype=np.uint8))
    clip = read_clip(bytes(damaged))
    assert len(clip.frames) > 100
    assert len(clip.audio) > 4 * 22050
    half = read_clip(data[: len(data) // 2])
    assert 100 < len(half.frames) < 150
    np.testing.assert_array_equal(half.frames[:100], read_clip(data).frames[:100])


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are counted in /proc, which Linux has")
def test_files_are_closed(small_clip, tmp_path):
    path, broken = tmp_path / "clip.mp4", tmp_path / "broken.mp4"
    path.write_bytes(small_clip)
    broken.write_bytes(small_clip[: len(small_clip) // 2])

    def is_open() -> bool:
        links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        return not {str(path), str(broken)}.isdisjoint(os.readlink(link) for link in links if os.path.lexists(link))

    read_clip(path)
    assert not is_open()
    read_clip(path, end=0.5)
    assert not is_open()
    with pytest.raises(OSError, match="could not be opened"):
        read_clip(broken)
    with pytest.raises(ValueError, match="outside"):
        read_clip(path, start=100.0)
    assert not is_open()
    windows = iter_windows(path, 0.5)
    assert not is_open()
    next(windows)
    assert is_open()
    windows.close()
    assert not is_open()
    windows = iter_windows(path, 0.5)
    next(windows)
    del windows
    gc.collect()
    assert not is_open()


def test_import_does_not_load_av(root):
    code = (
        "import sys; sys.path.insert(0, 'modeling_umons/models/umons'); import media_umons; "
        "assert 'av' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


@pytest.mark.parametrize(
    ("budget", "options"),
    [("PACKETS", {"video": False}), ("PACKETS", {"audio": False}), ("PIXELS", {"audio": False, "frame_rate": 5.0})],
)
def test_file_over_its_budget_raises(small_clip, monkeypatch, budget, options):
    monkeypatch.setattr(media_umons, budget, 1)
    monkeypatch.setattr(media_umons, f"{budget}_PER_S", 1)
    with pytest.raises(OSError, match=r"<\d+ bytes>: \d+ packets contain \d\.\d\d s"):
        read_clip(small_clip, **options)


def test_frames_above_the_maximum_rate_are_skipped(monkeypatch):
    monkeypatch.setattr(media_umons, "MAX_FRAME_RATE", 5)
    frame_times = read_clip(make("mp4", "libx264")).frame_times
    np.testing.assert_allclose(frame_times, np.arange(10) / 5, atol=1e-6)


def test_declared_counts_beyond_the_file_raise(small_clip):
    data = bytearray(small_clip)
    at = data.index(b"stsz") + 12
    data[at : at + 4] = struct.pack(">I", 60_000_000)
    with pytest.raises(OSError, match=rf"<{len(data)} bytes> has {len(data)} bytes and declares 60\d+ samples"):
        read_clip(bytes(data))


@pytest.mark.parametrize("container_format", ["wav", "aiff"])
def test_declared_chunk_beyond_the_file_raises(container_format):
    data = make(container_format, None, "pcm_s16be" if container_format == "aiff" else "pcm_s16le")
    size = struct.pack(">I" if container_format == "aiff" else "<I", 0x7FFF_FFF0)
    data += b"NAME" + size if container_format == "aiff" else b"LIST" + size + b"INFOISFT" + size
    with pytest.raises(OSError, match=r"declares 2147483632 of '(NAME|ISFT)'"):
        read_clip(data + bytes(16))


def test_invalid_seek_returns_an_error_code(tmp_path):
    path = tmp_path / "clip.bin"
    path.write_bytes(bytes(10))
    with path.open("rb") as file:
        assert media_umons._QuietFile(file).seek(-5) == -errno.EINVAL
        assert media_umons._QuietFile(file).seek(3) == 3


def encode_wav(channels: np.ndarray, layout: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="wav") as container:
        mux(container, encode_sound(container.add_stream("pcm_f32le", rate=22050, layout=layout), channels))
    return file.getvalue()


def test_channels_in_antiphase_do_not_cancel():
    left = tone(1.0, 22050)
    np.testing.assert_allclose(read_clip(encode_wav(np.stack([left, -left]), "stereo")).audio, left, atol=1e-4)


def test_surround_is_the_mean_of_its_channels():
    channels = np.random.default_rng(0).uniform(-0.5, 0.5, (6, 22050)).astype(np.float32)
    np.testing.assert_allclose(read_clip(encode_wav(channels, "5.1")).audio, channels.mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("value", [math.nan, 1e38, 20_000.0])
def test_samples_out_of_range_raise(value):
    samples = tone(1.0, 22050).astype(np.float32)
    samples[9000] = value
    with pytest.raises(OSError, match=r"bytes>: the samples are NaN or above 10"):
        read_clip(encode_wav(samples[None], "mono"))


@pytest.mark.parametrize("delay", [0.02, 0.09])
def test_slightly_late_audio_keeps_its_time(delay):
    file, rate = io.BytesIO(), 22050
    with av.open(file, "w", format="matroska") as container:
        pictures = container.add_stream("mpeg4", rate=25, width=64, height=48, pix_fmt="yuv420p")
        sound = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.full((1, rate), 8192, np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, round(delay * rate), Fraction(1, rate)
        mux(container, [*encode_pictures(pictures, num_frames=50), *sound.encode(frame), *sound.encode(None)])
    audio = read_clip(file.getvalue()).audio
    assert np.flatnonzero(audio > 0.1)[0] == pytest.approx(delay * rate, abs=30)


@pytest.mark.parametrize(("container_format", "codec"), [("mpegts", "mp2"), ("ogg", "libopus")])
@pytest.mark.parametrize("start", [15.0, 25.0])
def test_range_of_joined_files_is_that_part_of_the_whole(container_format, codec, start):
    part = make(container_format, None, codec, duration=20.0, audio_rate=48000)
    whole = read_clip(part + part, sampling_rate=48000).audio
    found = read_clip(part + part, start=start, end=start + 1.0, sampling_rate=48000).audio
    assert_same_sound(found, whole[round(48000 * start) : round(48000 * (start + 1.0))], samples=1, shift=48)


def test_range_of_adpcm_with_a_wrong_byte_rate_is_that_part_of_the_whole():
    data = bytearray(make("wav", None, "adpcm_ms", duration=20.0))
    at = data.index(b"fmt ") + 16
    data[at : at + 4] = struct.pack("<I", 2 * struct.unpack("<I", data[at : at + 4])[0])
    whole = read_clip(bytes(data)).audio
    found = read_clip(bytes(data), start=8.0, end=9.0).audio
    np.testing.assert_array_equal(found, whole[8 * 22050 : 9 * 22050])


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.75), (0.1, 0.123456), (1 / 3, 2 / 3), (0.9, 1.0)])
def test_edges_of_a_range_are_those_samples(start, end):
    rate = 8000
    pcm = np.arange(1, rate + 1, dtype=np.int16)
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(rate)
        written.writeframes(pcm.astype("<i2").tobytes())
    clip = read_clip(file.getvalue(), start=start, end=end, sampling_rate=rate)
    expected = pcm[round(start * rate) : round(end * rate)]
    np.testing.assert_array_equal(np.round(clip.audio * 2**15), expected)
    windows = iter_windows(file.getvalue(), 0.0999, sampling_rate=rate)
    np.testing.assert_array_equal(np.round(np.concatenate([one.audio for one in windows]) * 2**15), pcm)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 3, [1, 2, 3]),
        (1, 5, [2, 3]),  # the end is not padded
        (1, 6, [2, 3, 0, 0, 4]),
        (2, 5, [3]),
        (3, 5, None),
        (0, 4, [1, 2, 3]),
        (4, 6, [0, 4]),
        (5, 9, [4, 5]),
        (7, 9, None),
    ],
)
def test_cut_returns_the_samples_of_the_range(start, end, expected):
    audio = make_track().cut(start, end)
    assert (None if audio is None else audio.tolist()) == expected


def test_cut_keeps_the_samples_after_the_range():
    track = make_track()
    assert track.cut(0, 6).tolist() == [1, 2, 3, 0, 0, 4]
    assert track.cut(6, 9).tolist() == [5]


def make_track() -> media_umons._AudioTrack:
    track = media_umons._AudioTrack(None, "a", None, sampling_rate=1)
    track.chunks = [(0, np.float32([1, 2, 3])), (5, np.float32([4, 5]))]
    return track
