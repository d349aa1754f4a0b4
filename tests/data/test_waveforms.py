"""Distortions of waveforms and their random draws."""

import numpy as np
import pytest

from modeling_umons.data.waveforms import (
    CODECS,
    NOISES,
    WaveformAugmentation,
    add_noise,
    change_gain,
    change_speed,
    code,
    cut_speech,
    limit_band,
    make_babble,
    make_noise,
    reverberate,
)
from modeling_umons.models.umons.feature_extraction_umons import measure_level


RATE = 16000


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def voice() -> np.ndarray:
    """Return one second of silence between two seconds of a tone of 220 Hz with harmonics."""
    time = np.arange(2 * RATE) / RATE
    tone = sum(np.sin(2 * np.pi * 220 * k * time) / k for k in range(1, 20))
    return np.concatenate([0.1 * tone, np.zeros(RATE), 0.1 * tone]).astype(np.float32)


def power_between(waveform: np.ndarray, low: float, high: float) -> float:
    power = np.square(np.abs(np.fft.rfft(waveform)))
    frequencies = np.fft.rfftfreq(len(waveform), 1 / RATE)
    return power[(frequencies >= low) & (frequencies < high)].sum()


@pytest.mark.parametrize("color", NOISES)
def test_noise_has_snr_of_active_speech(voice, rng, color):
    noise = make_noise(len(voice), color, rng)
    noisy = add_noise(voice, noise, 10.0, RATE)
    added = (noisy - voice).astype(np.float64)
    snr = 20 * np.log10(measure_level(voice, RATE) / np.sqrt(np.square(added).mean()))
    assert snr == pytest.approx(10, abs=0.1)
    octaves = [power_between(noise, low, 2 * low) for low in (500, 2000)]
    assert np.log2(octaves[0] / octaves[1]) == pytest.approx(2 * (NOISES[color] - 1), abs=0.3)


def test_babble_mixes_voices_at_equal_levels(rng):
    quiet, loud = 1e-4 * rng.standard_normal(RATE), rng.standard_normal(2 * RATE)
    babble = make_babble(RATE * 7, [quiet, loud], rng)
    assert len(babble) == RATE * 7
    assert np.sqrt(np.square(babble).mean()) == pytest.approx(np.sqrt(2), rel=0.1)


def test_gain_clips_at_full_scale(voice):
    np.testing.assert_allclose(change_gain(voice, -20), 0.1 * voice, rtol=1e-5)
    assert np.abs(change_gain(voice, 40)).max() == 1


def test_band_of_telephone(voice):
    narrow = limit_band(voice, 300, 3400, RATE)
    assert len(narrow) == len(voice)
    assert power_between(narrow, 0, 250) < 1e-3 * power_between(voice, 0, 250)
    assert power_between(narrow, 4000, 8000) < 1e-3 * power_between(voice, 4000, 8000)
    assert power_between(narrow, 400, 3000) == pytest.approx(power_between(voice, 400, 3000), rel=0.02)


@pytest.mark.parametrize("codec", CODECS)
def test_codecs_keep_length_and_sound(voice, codec):
    coded = code(voice, codec, RATE)
    assert len(coded) == len(voice)
    assert np.corrcoef(coded, limit_band(voice, 50, 3400 if codec == "g711" else 7000, RATE))[0, 1] > 0.9
    assert not np.array_equal(coded, voice)


def test_reverberation_fills_pauses_and_keeps_level(voice, rng):
    wet = reverberate(voice, 0.4, RATE, rng)
    assert np.square(wet, dtype=float).sum() == pytest.approx(np.square(voice, dtype=float).sum(), rel=1e-3)
    pause = slice(2 * RATE, 2 * RATE + RATE // 10)
    assert not voice[pause].any()
    assert np.abs(wet[pause]).max() > 0.01
    assert np.abs(wet[int(2.5 * RATE) : 3 * RATE]).max() < 1e-3


def test_speed_changes_length_and_pitch(voice):
    fast = change_speed(voice, 1.1, RATE)
    assert len(fast) == pytest.approx(len(voice) / 1.1, abs=2)
    assert power_between(fast[:RATE], 235, 250) > 100 * power_between(fast[:RATE], 210, 230)


def test_cuts_contain_speech(rng):
    waveform = np.zeros(10 * RATE, np.float32)
    waveform[5 * RATE : 5 * RATE + 1000] = 0.5
    for _ in range(20):
        cut = cut_speech(waveform, 0.5, RATE, rng)
        assert len(cut) == RATE // 2
        assert cut.any()
    assert cut_speech(waveform, 20.0, RATE, rng) is waveform


def test_augmentation_depends_on_draw_only(voice):
    augment = WaveformAugmentation(0.5, seed=3)
    draws = [augment(voice, draw, RATE, [voice[::-1]]) for draw in range(40)]
    assert 10 < sum(np.array_equal(x, voice) for x in draws) < 30
    for draw, expected in enumerate(draws):
        assert expected.dtype == np.float32
        assert np.isfinite(expected).all()
        assert len(expected) >= RATE // 2
        np.testing.assert_array_equal(augment(voice, draw, RATE, [voice[::-1]]), expected)
    other = WaveformAugmentation(0.5, seed=4)
    assert any(not np.array_equal(other(voice, draw, RATE), expected) for draw, expected in enumerate(draws))
    silence = np.zeros(RATE, np.float32)
    assert WaveformAugmentation(1.0)(silence, 0, RATE) is silence
