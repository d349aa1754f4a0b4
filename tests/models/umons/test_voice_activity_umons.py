"""Regions of speech."""

import itertools
import sys

import numpy as np
import pytest

from modeling_umons.models.umons import voice_activity_umons
from modeling_umons.models.umons.media_umons import read_clip
from modeling_umons.models.umons.voice_activity_umons import (
    MAX_SPEECH_S,
    SAMPLING_RATE,
    SpeechDetector,
    find_speech,
    import_whisper,
)


pytest.importorskip("faster_whisper")


@pytest.fixture(scope="module")
def talk(root) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Four clips with a second of silence before each and after the last, and the times of their speech."""
    silence, parts, times, position = np.zeros(SAMPLING_RATE, np.float32), [], [], 0
    for number in (0, 2, 3, 5):
        path = root / "hub" / "sample" / "clips" / f"{number:03d}.mp4"
        voice = read_clip(path, video=False, sampling_rate=SAMPLING_RATE).audio
        loud = np.flatnonzero(np.abs(voice) > 0.02)
        voice = voice[loud[0] : loud[-1]]
        position += len(silence)
        times.append((position / SAMPLING_RATE, (position + len(voice)) / SAMPLING_RATE))
        position += len(voice)
        parts += [silence, voice]
    return np.concatenate([*parts, silence]), times


def test_speech_is_found_between_pauses(talk):
    audio, times = talk
    found = find_speech(audio)
    assert len(found) == len(times)
    for (start, end), (first, last) in zip(found, times, strict=True):
        assert abs(start - first) < 0.25
        assert abs(end - last) < 0.25


@pytest.mark.parametrize("size", [160, 512, 4000, 50_000])
def test_chunks_give_the_same_regions(talk, size):
    audio, _ = talk
    detector, found = SpeechDetector(), []
    for first in range(0, len(audio), size):
        settled = detector.settled
        regions = detector.push(audio[first : first + size])
        assert all(start >= settled for start, _ in regions)
        found += regions
    assert sum(found + detector.flush(), ()) == pytest.approx(sum(find_speech(audio), ()))


def measure_recall(audio: np.ndarray) -> float:
    """Return the share of the time within 30 dB of the loudest frame that is in a region."""
    frames = audio[: len(audio) // 512 * 512].reshape(-1, 512)
    energy = (frames**2).mean(axis=1)
    is_loud, is_found = np.repeat(energy > energy.max() / 1000, 512), np.zeros(frames.size, bool)
    for start, end in find_speech(audio):
        is_found[max(0, round(start * SAMPLING_RATE)) : round(end * SAMPLING_RATE)] = True
    return is_found[is_loud].mean()


def test_high_voices_are_found(root):
    """Two voices whose pitch is 2.5 times as high."""
    for name in ("003.mp4", "005.mp4"):
        voice = read_clip(root / "hub" / "sample" / "clips" / name, video=False, sampling_rate=SAMPLING_RATE).audio
        high = np.interp(np.arange(0, len(voice) - 1, 2.5), np.arange(len(voice)), voice).astype(np.float32)
        assert measure_recall(high) > 0.9


@pytest.mark.shared
@pytest.mark.parametrize("name", ["14/03-01-05-02-02-01-14", "18/03-01-05-02-02-01-18", "06/03-01-05-02-02-02-06"])
def test_shouted_speech_is_found(shared, name):
    path = shared / "data" / "ravdess" / f"actor_{name}.flac"
    assert measure_recall(read_clip(path, video=False, sampling_rate=SAMPLING_RATE).audio) > 0.9


def test_sounds_without_speech_have_no_region():
    time = np.arange(5 * SAMPLING_RATE) / SAMPLING_RATE
    noise = np.random.default_rng(0).normal(0, 0.05, len(time)).astype(np.float32)
    for sound in (np.zeros_like(noise), noise, np.sin(2 * np.pi * 50 * time).astype(np.float32)):
        assert find_speech(sound) == []
    assert find_speech(np.zeros(0, np.float32)) == []


def test_speech_at_the_end_is_flushed(talk):
    audio, times = talk
    end = round((times[0][1] - 0.3) * SAMPLING_RATE)
    ((_, last),) = find_speech(audio[:end])
    assert last == pytest.approx(end / SAMPLING_RATE, abs=0.05)


def test_long_speech_is_divided_at_its_weakest_frame(monkeypatch):
    """A probability in place of the model: speech for 70 s, with weak frames at 20 s and 45 s."""
    probabilities = iter(0.6 if index in (833, 1875) else 0.9 for index in itertools.count())
    monkeypatch.setattr(SpeechDetector, "_run", lambda self, frames: np.array([next(probabilities) for _ in frames]))
    found = find_speech(np.zeros(70 * SAMPLING_RATE, np.float32))
    assert found[0] == (0, pytest.approx(20, abs=0.05))
    assert found[1] == (found[0][1], pytest.approx(45, abs=0.05))
    assert all(end - start <= MAX_SPEECH_S for start, end in found)
    assert found[-1][1] == pytest.approx(70, abs=0.05)


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(ImportError, match=r'pip install "modeling-umons\[transcribe\]"'):
        import_whisper()
    monkeypatch.setitem(sys.modules, "faster_whisper.vad", None)
    voice_activity_umons._load_session.cache_clear()
    with pytest.raises(ImportError, match="Voice activity and Whisper need faster-whisper"):
        find_speech(np.zeros(SAMPLING_RATE, np.float32))
