"""Decoding in a worker process."""

import io
import sys
import wave

import numpy as np
import pytest

from modeling_umons.models.umons import decoding_umons
from modeling_umons.models.umons.decoding_umons import DecodingPool, DecodingWorker
from modeling_umons.models.umons.media_umons import iter_windows, read_clip


@pytest.fixture(scope="module")
def worker():
    worker = DecodingWorker(deadline_s=20.0)
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def clip(root):
    return root / "hub" / "sample" / "clips" / "000.mp4"


def make_wav(duration: float) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(8000)
        written.writeframes(np.arange(round(8000 * duration), dtype="<i2").tobytes())
    return file.getvalue()


def assert_equal(clip, expected):
    for name in ("audio", "frames", "frame_times", "duration", "sampling_rate", "start"):
        np.testing.assert_array_equal(getattr(clip, name), getattr(expected, name))


def test_clips_equal_those_of_read_clip(worker, clip):
    options = {"start": 0.5, "end": 1.5, "frame_rate": 5.0, "size": (24, 32)}
    found = worker.read_clip(clip, **options)
    assert_equal(found, read_clip(clip, **options))
    assert found.audio.flags.writeable
    assert_equal(worker.read_clip(clip.read_bytes(), video=False), read_clip(clip, video=False))


def test_windows_equal_those_of_iter_windows(worker, clip):
    expected = list(iter_windows(clip, 0.5, frame_rate=5.0))
    # Two files in turn, of which one is not read to its end.
    other = worker.iter_windows(make_wav(3.0), 1.0)
    next(other)
    found = list(worker.iter_windows(str(clip), 0.5, frame_rate=5.0))
    assert next(other).start == 1.0
    other.close()
    assert len(found) == len(expected) > 2
    for ours, theirs in zip(found, expected, strict=True):
        assert_equal(ours, theirs)


@pytest.mark.parametrize(
    ("source", "options", "error"),
    [("none.mp4", {}, FileNotFoundError), (b"no media", {}, OSError), (make_wav(1.0), {"start": 9.0}, ValueError)],
)
def test_errors_are_those_of_read_clip(worker, source, options, error):
    with pytest.raises(error) as expected:
        read_clip(source, **options)
    with pytest.raises(error) as found:
        worker.read_clip(source, **options)
    assert (found.type, str(found.value)) == (expected.type, str(expected.value))


def test_overrun_kills_the_worker_and_spares_other_files():
    worker = DecodingWorker(deadline_s=20.0)
    data = make_wav(3.0)
    windows = worker.iter_windows(data, 1.0)
    first, process = next(windows), worker.process
    worker.deadline_s = 0.05
    with pytest.raises(OSError, match=r"<\d+ bytes>: decoding was stopped after 0.05 s"):
        worker.read_clip(make_wav(600.0), sampling_rate=900_000)
    assert process.poll() is not None
    worker.deadline_s = 20.0
    for ours, theirs in zip([first, *windows], iter_windows(data, 1.0), strict=True):
        assert_equal(ours, theirs)
    worker.close()


def test_reply_of_an_interrupted_request_is_not_that_of_the_next(worker, monkeypatch):
    def interrupt(stream):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(decoding_umons, "_receive", interrupt)
        with pytest.raises(KeyboardInterrupt):
            worker.read_clip(make_wav(1.0))
    assert worker.read_clip(make_wav(2.0)).duration == 2.0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited on Linux only")
def test_memory_is_limited():
    worker = DecodingWorker(deadline_s=20.0, memory_mb=64)
    with pytest.raises(OSError, match=r"<\d+ bytes>"):
        worker.read_clip(make_wav(600.0), sampling_rate=100_000)
    assert len(worker.read_clip(make_wav(1.0)).audio) == 22050
    worker.close()


def test_pool_gives_a_file_to_the_worker_with_the_fewest(clip):
    pool = DecodingPool(2, deadline_s=20.0)
    first, second = (pool.iter_windows(make_wav(3.0), 1.0) for _ in range(2))
    assert next(first).start == next(second).start == 0.0
    processes = [worker.process for worker in pool.workers]
    assert len({process.pid for process in processes}) == 2
    second.close()
    assert len(list(pool.iter_windows(str(clip), 0.5))) == 6  # in the second: the first has a file
    assert list(pool.num_files.values()) == [1, 0]
    assert [clip.start for clip in first] == [1.0, 2.0]
    pool.close()
    assert all(process.poll() is not None for process in processes)
