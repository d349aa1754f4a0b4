"""Distortions of waveforms: for augmentation in training, and to measure the robustness of a model.

Waveforms are (num_samples,) float32 in [-1, 1]. A distortion with random numbers takes a generator, and depends on
nothing else.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..models.umons.feature_extraction_umons import is_silent, measure_level
from ..models.umons.media_umons import import_av, read_clip, resample


# Slopes of the power spectrum over frequency: 1 / f ** slope.
NOISES = {"white": 0.0, "pink": 1.0, "brown": 2.0}
BABBLE_VOICES = 5
TELEPHONE_BAND = (300.0, 3400.0)
# Codecs by name: container, encoder, sampling rate, bit rate.
CODECS = {
    "mp3": ("mp3", "libmp3lame", 16000, 32000),
    "opus": ("ogg", "libopus", 16000, 16000),
    "g711": ("wav", "pcm_mulaw", 8000, 64000),
}


def change_gain(waveform: np.ndarray, gain_db: float) -> np.ndarray:
    """Change the level by `gain_db`; samples beyond full scale are clipped, as by a recorder."""
    return (waveform * np.float32(10 ** (gain_db / 20))).clip(-1, 1)


def add_noise(waveform: np.ndarray, noise: np.ndarray, snr_db: float, sampling_rate: int) -> np.ndarray:
    """Add `noise` of the same length at `snr_db` below the level of the active speech, measured as its own RMS."""
    power = np.sqrt(np.square(noise, dtype=np.float64).mean())
    if is_silent(waveform) or power == 0:
        return waveform
    scale = measure_level(waveform, sampling_rate) * 10 ** (-snr_db / 20) / power
    return (waveform + scale * noise).astype(np.float32)


def make_noise(num_samples: int, color: str, rng: np.random.Generator) -> np.ndarray:
    """Return noise (num_samples,) of a colour of `NOISES`."""
    spectrum = np.fft.rfft(rng.standard_normal(_fast_size(num_samples)))
    frequencies = np.maximum(np.arange(len(spectrum)), 1)
    return np.fft.irfft(spectrum * frequencies ** (-NOISES[color] / 2))[:num_samples]


def make_babble(num_samples: int, voices: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Return the sum (num_samples,) of up to `BABBLE_VOICES` of `voices` at equal RMS, each repeated from anywhere."""
    babble = np.zeros(num_samples)
    for i in rng.permutation(len(voices))[:BABBLE_VOICES]:
        voice = voices[i].astype(np.float64)
        start = rng.integers(len(voice))
        babble += np.resize(np.roll(voice, -start), num_samples) / max(np.sqrt(np.square(voice).mean()), 1e-9)
    return babble


def reverberate(waveform: np.ndarray, seconds: float, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """
    Add the reverberation of a small room: an impulse, and noise of the same energy that decays exponentially, by 60 dB
    in `seconds` (RT60). The level of the waveform is kept.
    """
    num_taps = max(1, round(seconds * sampling_rate))
    tail = rng.standard_normal(num_taps) * 10 ** (-3 * np.arange(num_taps) / num_taps)
    response = tail / np.sqrt(np.square(tail).sum())
    response[0] = 1.0
    size = _fast_size(len(waveform) + num_taps)
    product = np.fft.rfft(waveform, size) * np.fft.rfft(response, size)
    wet = np.fft.irfft(product, size)[: len(waveform)]
    scale = np.sqrt(np.square(waveform, dtype=np.float64).sum() / max(np.square(wet).sum(), 1e-12))
    return (scale * wet).astype(np.float32)


def limit_band(waveform: np.ndarray, low: float, high: float, sampling_rate: int) -> np.ndarray:
    """Keep the frequencies from `low` to `high`, in Hz, with slopes of a sixth of an octave."""
    size = _fast_size(len(waveform))
    frequencies = np.fft.rfftfreq(size, 1 / sampling_rate)
    octaves = np.log2(np.maximum(frequencies, 1e-9)[None] / np.array([[low], [high]]))
    rise = (6 * octaves[0]).clip(-1, 0) + 1
    fall = 1 - (6 * octaves[1]).clip(0, 1)
    return np.fft.irfft(np.fft.rfft(waveform, size) * rise * fall)[: len(waveform)].astype(np.float32)


def _fast_size(num_samples: int) -> int:
    """Return the next power of two, a size of fast Fourier transforms."""
    return 2 ** (num_samples - 1).bit_length() if num_samples > 1 else 2


def code(waveform: np.ndarray, codec: str, sampling_rate: int) -> np.ndarray:
    """Encode and decode with a codec of `CODECS`. Raises ImportError without PyAV."""
    av = import_av()
    container_format, encoder, rate, bit_rate = CODECS[codec]
    samples = (resample(waveform, sampling_rate, rate).clip(-1, 1) * 32767).astype(np.int16)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container_format) as container:
        stream = container.add_stream(encoder, rate=rate, layout="mono")
        stream.bit_rate = bit_rate
        converter = av.AudioResampler(stream.format, stream.layout, rate, stream.codec_context.frame_size or None)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = rate
        for part in [*converter.resample(frame), *converter.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    decoded = read_clip(buffer.getvalue(), video=False, sampling_rate=sampling_rate).audio
    return np.pad(decoded, (0, max(0, len(waveform) - len(decoded))))[: len(waveform)]


def change_speed(waveform: np.ndarray, factor: float, sampling_rate: int) -> np.ndarray:
    """Play `factor` times as fast, with pitch and formants `factor` times as high (Ko et al., Interspeech 2015)."""
    return resample(waveform, round(factor * sampling_rate), sampling_rate)


def cut_speech(waveform: np.ndarray, seconds: float, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Cut `seconds` around a moment that is not silent, anywhere in the waveform."""
    size = round(seconds * sampling_rate)
    if size >= len(waveform) or is_silent(waveform):
        return waveform
    loud = np.flatnonzero(np.abs(waveform) > 0.1 * np.abs(waveform).max())
    start = int(rng.choice(loud)) - int(rng.integers(size))
    start = min(max(start, 0), len(waveform) - size)
    return waveform[start : start + size]


@dataclass(frozen=True)
class WaveformAugmentation:
    """
    Random distortions of training waveforms, by a number of the draw: the same number gives the same waveform, in any
    process and batch.

    Attributes:
        probability: share of the draws that are distorted.
        seed: seed of the run.
    """

    probability: float
    seed: int = 0

    def __call__(
        self, waveform: np.ndarray, draw: int, sampling_rate: int, voices: Sequence[np.ndarray] = ()
    ) -> np.ndarray:
        """
        Return the waveform of a draw: speed by up to 10 %, a cut of 0.5 to 5 s, reverberation of 0.1 to 0.5 s, noise
        or babble at 0 to 30 dB SNR, a gain of -30 to +10 dB, the band of the telephone, and a codec, each with a
        probability of its own.

        Args:
            waveform: (num_samples,) float32; a silent one is returned unchanged.
            draw: number of the draw.
            sampling_rate: in Hz.
            voices: other waveforms, for babble.
        """
        rng = np.random.default_rng([self.seed, draw])
        if is_silent(waveform) or rng.random() >= self.probability:
            return waveform
        if rng.random() < 0.5:
            waveform = change_speed(waveform, rng.uniform(0.9, 1.1), sampling_rate)
        if rng.random() < 0.3:
            waveform = cut_speech(waveform, rng.uniform(0.5, 5.0), sampling_rate, rng)
        if rng.random() < 0.3:
            waveform = reverberate(waveform, rng.uniform(0.1, 0.5), sampling_rate, rng)
        if rng.random() < 0.6:
            kind = rng.choice([*NOISES, "babble"] if len(voices) else list(NOISES))
            is_babble = kind == "babble"
            length = len(waveform)
            noise = make_babble(length, voices, rng) if is_babble else make_noise(length, kind, rng)
            waveform = add_noise(waveform, noise, rng.uniform(0, 30), sampling_rate)
        waveform = change_gain(waveform, rng.uniform(-30, 10))
        if rng.random() < 0.25:
            waveform = limit_band(waveform, *TELEPHONE_BAND, sampling_rate)
        if rng.random() < 0.2:
            waveform = code(waveform, rng.choice(list(CODECS)), sampling_rate)
        return waveform
