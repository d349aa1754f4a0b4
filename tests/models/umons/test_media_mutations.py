# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""
Damaged files, and files that are not what their name says: `read_clip` gives a clip or an error in words. All are read
in one process of its own, which is this file run as a script, so that a crash, a hang or a leak there is seen here.
"""

import io
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest


FORMATS = {
    "mp4": ("mp4", "libx264", "aac"),
    "mpg": ("mpeg", "mpeg1video", "mp2"),
    "webm": ("webm", "libvpx", "libopus"),
    "mkv": ("matroska", "mpeg4", "libmp3lame"),
    "ts": ("mpegts", "mpeg2video", "mp2"),
    "flv": ("flv", "flv", "libmp3lame"),
    "avi": ("avi", "mpeg4", "mp2"),
    "mp3": ("mp3", None, "libmp3lame"),
    "wav": ("wav", None, "pcm_s16le"),
    "flac": ("flac", None, "flac"),
}
SEEDS = range(30)
# Mutations are read in each of these ways in turn, other files as a whole.
OPTIONS = ({}, {"frame_rate": 15.0}, {"start": 0.3, "end": 0.8})
DEADLINE = 20  # seconds for one file, of which a sound one takes 0.02
MAX_GROWTH = 8  # MB of resident memory over the second half; a clip left behind with each file would make some 200


def flip_bits(data: np.ndarray, rng) -> np.ndarray:
    places = rng.integers(0, len(data), max(4, len(data) // 500))
    data[places] ^= (1 << rng.integers(0, 8, len(places))).astype(np.uint8)
    return data


def overwrite_header(data: np.ndarray, rng) -> np.ndarray:
    data[rng.integers(0, 400, 4)] = rng.integers(0, 256, 4)
    return data


def truncate(data: np.ndarray, rng) -> np.ndarray:
    return flip_bits(data, rng)[: rng.integers(1, len(data))]


def splice(data: np.ndarray, rng) -> np.ndarray:
    """Three blocks are copied to where they do not belong, which moves what follows."""
    for _ in range(3):
        first, place = rng.integers(0, len(data), 2)
        data = np.insert(data, place, data[first : first + rng.integers(1, 4000)])
    return data


def cut_out(data: np.ndarray, rng) -> np.ndarray:
    first = rng.integers(0, len(data))
    return np.delete(data, slice(first, first + rng.integers(1, len(data) // 4)))


MUTATIONS = (flip_bits, overwrite_header, truncate, splice, cut_out)


def encode(container_format: str, video_codec: str | None, audio_codec: str) -> bytes:
    """1 s of noise in colour and in sound."""
    import av

    rng, file = np.random.default_rng(0), io.BytesIO()
    with av.open(file, "w", format=container_format) as container:
        pictures = container.add_stream(video_codec, rate=25, width=64, height=48) if video_codec else None
        rate = 48000 if audio_codec == "libopus" else 44100
        sound = container.add_stream(audio_codec, rate=rate, layout="mono")
        packets = []
        for _ in range(25 if pictures else 0):
            small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            packets += pictures.encode(av.VideoFrame.from_ndarray(small.repeat(8, axis=0).repeat(8, axis=1)))
        samples = rng.normal(0, 3000, (1, rate)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        context = sound.codec_context
        resampler = av.AudioResampler(context.format.name, "mono", rate, frame_size=context.frame_size or 1024)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            packets += sound.encode(part) if part is not None else []
        packets += sound.encode(None) + (pictures.encode(None) if pictures else [])
        container.mux(sorted(packets, key=lambda packet: packet.dts * packet.time_base))
    return file.getvalue()


def write_strangers(folder: Path) -> None:
    """Files that are not clips, with names of clips."""
    from PIL import Image

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    for name in ("png", "jpeg", "gif", "webp", "bmp"):
        picture.save(folder / f"stranger_{name}.mp4", format=name)
    (folder / "stranger_random.mp4").write_bytes(np.random.default_rng(1).bytes(100_000))
    (folder / "stranger_zeros.mp4").write_bytes(bytes(100_000))
    (folder / "stranger_empty.mp4").write_bytes(b"")
    (folder / "stranger_text.mp4").write_text("Happy words, no media.\n" * 500)
    (folder / "stranger_text.wav").write_text("RIFF and WAVE are words, too.\n" * 500)
    (folder / "stranger_table.mpg").write_text("text,sentiment\nhello,1.0\n" * 500)


@pytest.fixture(scope="module")
def records(root, tmp_path_factory) -> dict[str, dict]:
    """Return outcome and memory of the process afterwards by file name, in the order of reading."""
    folder = tmp_path_factory.mktemp("mutations")
    names = []
    for index, (suffix, codecs) in enumerate(FORMATS.items()):
        data = encode(*codecs)
        (folder / f"whole.{suffix}").write_bytes(data)
        for tenth in range(1, 10):
            (folder / f"tenths{tenth}.{suffix}").write_bytes(data[: len(data) * tenth // 10])
        for seed in SEEDS:
            mutate = MUTATIONS[seed % len(MUTATIONS)]
            mutated = mutate(np.frombuffer(data, np.uint8).copy(), np.random.default_rng([index, seed]))
            (folder / f"{mutate.__name__}{seed}.{suffix}").write_bytes(mutated.tobytes())
    write_strangers(folder)
    names = sorted(path.name for path in folder.iterdir())
    np.random.default_rng(0).shuffle(names)  # the two halves are alike
    (folder / "names.json").write_text(json.dumps(names))

    process = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "error", __file__, str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
    )
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    next_name = names[len(lines)] if len(lines) < len(names) else "the end"
    assert process.returncode == 0, f"exit {process.returncode} at {next_name}: {process.stderr[-3000:]}"
    assert process.stderr == ""
    assert [line["name"] for line in lines] == names
    return {line["name"]: line for line in lines}


def of(records: dict[str, dict], *prefixes: str) -> dict[str, dict]:
    return {name: record for name, record in records.items() if name.startswith(prefixes)}


def test_mutations_end_in_a_clip_or_an_error(records):
    mutated = of(records, *(mutate.__name__ for mutate in MUTATIONS))
    assert len(mutated) == 300
    assert {record["kind"] for record in mutated.values()} <= {"Clip", "OSError", "ValueError"}
    kinds = Counter(record["kind"] for record in mutated.values())
    assert min(kinds["Clip"], kinds["OSError"]) > 20  # the damage is neither too small to matter nor always fatal


def test_errors_are_in_words(records):
    for name, record in records.items():
        if record["kind"] != "Clip":
            assert name in record["message"]
            # A start that lies behind what is left of a file is the argument's fault.
            assert record["kind"] == "OSError" or "lies outside" in record["message"], record


def test_clips_are_sound(records):
    for record in records.values():
        if record["kind"] == "Clip":
            assert record["is_sound"], record
            assert 0 < record["duration"] < 60, record


def test_whole_files_are_read_whole(records):
    for suffix, (_, video_codec, _) in FORMATS.items():
        record = records[f"whole.{suffix}"]
        assert record["duration"] == pytest.approx(1.0, abs=0.1)
        assert record["num_frames"] == (25 if video_codec else 0)
        assert record["num_samples"] == pytest.approx(22050, abs=0.1 * 22050)


def test_truncated_at_every_tenth(records):
    assert len(of(records, "tenths")) == 9 * len(FORMATS)
    for suffix in FORMATS:
        parts = [records[f"tenths{tenth}.{suffix}"] for tenth in range(1, 10)]
        lengths = [part.get("duration", 0.0) for part in parts]
        assert lengths == sorted(lengths)
        if suffix == "mp4":  # its index is at its end
            assert {part["kind"] for part in parts} == {"OSError"}
        else:
            assert lengths[-1] > 0.5


def test_files_of_another_kind(records):
    strangers = of(records, "stranger")
    assert len(strangers) == 11
    for record in strangers.values():
        assert record["kind"] == "OSError"
        assert "could not be opened as a video or audio file" in record["message"]


def test_no_file_takes_long(records):
    assert max(record["seconds"] for record in records.values()) < DEADLINE


@pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"), reason="open files and memory are read in /proc, as Linux has it"
)
def test_nothing_leaks(records):
    held = list(records.values())
    # The first file loads PyAV, which may keep something open.
    assert {record["open_files"] for record in held[1:]} == {held[0]["open_files"]}
    middle, end = held[len(held) // 2]["resident_mb"], held[-1]["resident_mb"]
    assert end - middle < MAX_GROWTH


def read_all(folder: Path) -> None:
    """The process that reads: a line of JSON for each file, written before the next is touched."""
    import faulthandler
    import gc
    import time

    from modeling_umons.models.umons.media_umons import read_clip

    for number, name in enumerate(json.loads((folder / "names.json").read_text())):
        faulthandler.dump_traceback_later(DEADLINE, exit=True)
        is_mutation = name.startswith(tuple(mutate.__name__ for mutate in MUTATIONS))
        options = OPTIONS[number % len(OPTIONS)] if is_mutation else {}
        began = time.perf_counter()
        try:
            clip = read_clip(folder / name, **options)
        except (OSError, ValueError) as error:
            kind = "ValueError" if isinstance(error, ValueError) else "OSError"
            record = {"kind": kind, "message": str(error)}
        else:
            record = {"kind": "Clip", **describe(clip)}
            del clip
        record |= {"name": name, "seconds": time.perf_counter() - began}
        faulthandler.cancel_dump_traceback_later()
        gc.collect()
        if os.path.isdir("/proc/self/fd"):
            record["open_files"] = len(os.listdir("/proc/self/fd"))
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            record["resident_mb"] = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        print(json.dumps(record), flush=True)


def describe(clip) -> dict:
    audio = np.zeros(0, np.float32) if clip.audio is None else clip.audio
    frames = np.zeros((0, 112, 112, 3), np.uint8) if clip.frames is None else clip.frames
    is_sound = (
        len(audio) + len(frames) > 0
        and audio.dtype == np.float32
        and bool(np.isfinite(audio).all())
        and frames.dtype == np.uint8
        and frames.shape == (len(clip.frame_times), 112, 112, 3)
        and bool((np.diff(clip.frame_times) > 0).all())
        and bool(((clip.frame_times >= 0) & (clip.frame_times < clip.duration)).all())
    )
    return {
        "is_sound": is_sound,
        "duration": clip.duration,
        "num_frames": len(frames),
        "num_samples": len(audio),
    }


if __name__ == "__main__":
    read_all(Path(sys.argv[1]))
