# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Feature extractor of the UMONS models: waveforms to log-mel frames."""

import math
from functools import lru_cache
from numbers import Integral, Number, Real

import numpy as np
import torch
from torch import nn
from transformers.audio_utils import mel_filter_bank
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature
from transformers.utils import PaddingStrategy, TensorType, logging

from .media_umons import MAX_PEAK, mix_channels, resample


logger = logging.get_logger(__name__)

SILENCE = 2.0**-15  # one 16-bit quantisation step
# Frame and hop of silence trimming: librosa's defaults, independent of the spectrogram's.
TRIM_FRAME_LENGTH = 2048
TRIM_HOP_LENGTH = 512
# Power of an RMS of 1e-5, the lower bound of a frame's level. A clip whose peak is below 1e-2 loses nothing at 60 dB.
TRIM_MIN_POWER = 1e-10
# Level normalisation: target RMS of the active frames (-20 dBFS), and its gates relative to the loudest frame (silence
# and noise) and to the mean power of the others (pauses; as the relative gate of ITU-R BS.1770).
TARGET_RMS = 0.1
LEVEL_FRAME_S = 0.05
SILENCE_GATE_DB = 40.0
PAUSE_GATE_DB = 10.0
BLOCK_SIZE = 64  # frames transformed at once: spectra that fit into the cache take half the time
MAX_SETTING = 2**20  # of sizes, rates and lengths: larger ones exhaust memory
# Integer samples: the value of silence and its distance to full scale.
PCM_SCALES = {"uint8": (128, 2**7), "int16": (0, 2**15), "int32": (0, 2**31)}


# The constants of the transform are cached outside of the class, so that using an extractor does not change what it
# saves, pickles or hashes to. They are float32 on the CPU whatever torch's default dtype and device are.
@lru_cache(maxsize=8)
def _hann_window(win_length: int) -> torch.Tensor:
    return torch.hann_window(win_length, dtype=torch.float32, device="cpu")


@lru_cache(maxsize=8)
def _mel_basis(n_fft: int, feature_size: int, sampling_rate: int) -> torch.Tensor:
    """Slaney mel filters from 0 Hz to half the sampling rate, `(n_fft // 2 + 1, feature_size)`."""
    filters = mel_filter_bank(
        num_frequency_bins=n_fft // 2 + 1,
        num_mel_filters=feature_size,
        min_frequency=0.0,
        max_frequency=sampling_rate / 2,
        sampling_rate=sampling_rate,
        norm="slaney",
        mel_scale="slaney",
    )
    return torch.from_numpy(filters.astype(np.float32))


def _is_count(value) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and 0 < int(value) <= MAX_SETTING


def to_mono(waveform, name: str) -> np.ndarray:
    """Check a waveform, called `name` in errors, and return it as a new float32 array `(num_samples,)`."""
    if isinstance(waveform, torch.Tensor):
        waveform = waveform.detach().cpu()
        waveform = waveform.float() if waveform.is_floating_point() else waveform  # NumPy has no bfloat16
    try:
        samples = np.asarray(waveform)
    except ValueError as error:
        raise ValueError(f"{name} has channels of unequal length; they must be equally long.") from error

    if samples.ndim not in (1, 2):
        raise ValueError(
            f"{name} has shape {samples.shape}; pass (num_samples,) or (num_channels, num_samples), and a batch"
            " as a list of waveforms."
        )
    if samples.size == 0:
        raise ValueError(f"{name} is empty; leave it out, or pass at least one sample.")
    if samples.dtype.kind != "f" and samples.dtype.name not in PCM_SCALES:
        raise ValueError(
            f"{name} has samples of type {samples.dtype}; pass floats in [-1, 1], or integers of type"
            f" {', '.join(PCM_SCALES)}."
        )

    zero, full_scale = PCM_SCALES.get(samples.dtype.name, (0, 1))
    mono = (samples.astype(np.float32, order="C") - np.float32(zero)) / np.float32(full_scale)
    if mono.ndim == 2:
        mono = mix_channels(np.moveaxis(mono, int(np.argmin(samples.shape)), 0))
    if not np.isfinite(mono).all():
        raise ValueError(f"{name} has NaN or infinite samples; repair or leave out the recording.")
    if (peak := np.abs(mono).max()) > MAX_PEAK:
        raise ValueError(
            f"{name} has samples up to {peak:g}; pass floats in [-1, 1], or integers of type {', '.join(PCM_SCALES)}."
        )
    return mono


def is_silent(waveform: np.ndarray) -> bool:
    """Return whether audio in [-1, 1] stays below one 16-bit quantisation step, and is thus a missing modality."""
    return bool(np.abs(waveform).max(initial=0) < SILENCE)


def measure_level(waveform: np.ndarray, sampling_rate: int) -> float:
    """
    Measure the RMS of the active frames of a waveform (num_samples,) that is not silent. Silence in it does not
    change the result.
    """
    size = round(LEVEL_FRAME_S * sampling_rate)
    samples = np.pad(waveform.astype(np.float64), (0, -len(waveform) % size))
    power = np.square(samples).reshape(-1, size).mean(axis=1)
    power = power[power > power.max() * 10 ** (-SILENCE_GATE_DB / 10)]
    power = power[power >= power.mean() * 10 ** (-PAUSE_GATE_DB / 10)]
    return float(np.sqrt(power.mean()))


def normalize_level(waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
    """
    Scale a waveform (num_samples,) to -20 dBFS, the level of its active frames ([`measure_level`]), so that the level
    of the recording does not matter. A silent waveform is returned unchanged.
    """
    if is_silent(waveform):
        return waveform
    return (waveform * (TARGET_RMS / measure_level(waveform, sampling_rate))).astype(np.float32)


class UmonsFeatureExtractor(SequenceFeatureExtractor):
    r"""
    Extracts log-mel frames from waveforms with the recipe of TBJE (Delbrouck et al., "A Transformer-based
    joint-encoding for Emotion Recognition and Sentiment Analysis", 2020).

    A waveform is mixed down to mono, resampled with PyAV, trimmed of silence at both ends (as `librosa.effects.trim`),
    and pre-emphasised, `y[t] - 0.97 y[t - 1]`. The magnitude spectrum `S` of Hann-windowed frames, centred on their
    hop and zero-padded at the edges, gives mel bands `m = S @ mel` (Slaney scale and norm) and features
    `clip((20 log10(max(1e-5, m)) - 20 + 100) / 100, 1e-8, 1)`. One frame in `frame_stride` is kept, and only those
    are computed: by default one every 0.1995 s, 60 of which cover 11.97 s. Audio that stays below one 16-bit
    quantisation step is a missing modality: it has one frame of padding.

    Args:
        feature_size (`int`, *optional*, defaults to 80):
            Number of mel bands.
        sampling_rate (`int`, *optional*, defaults to 22050):
            Sampling rate of the features, in Hz; input at another rate is resampled to it.
        padding_value (`float`, *optional*, defaults to 0.0):
            Value of the features in padded frames.
        n_fft (`int`, *optional*, defaults to 2048):
            Size of the Fourier transform, in samples.
        hop_length (`int`, *optional*, defaults to 275):
            Distance between frames, in samples, before one in `frame_stride` is kept.
        win_length (`int`, *optional*, defaults to 1102):
            Length of the Hann window, in samples; at most `n_fft`.
        preemphasis (`float`, *optional*, defaults to 0.97):
            Pre-emphasis coefficient; 0 disables it.
        trim_db (`float`, *optional*, defaults to 60.0):
            Leading and trailing audio at least this many dB below the loudest frame is trimmed as silence.
        frame_stride (`int`, *optional*, defaults to 16):
            One frame in this many is kept.
        max_length (`int`, *optional*, defaults to 60):
            Number of kept frames to which a clip is truncated.
        delta_lags (`list[int]`, *optional*):
            Adds changes over time to the frames; not in TBJE. A kept frame is then the mean of the `frame_stride`
            frames that begin with it, followed, for each lag `l`, by the mean of `|x[t + l] - x[t]|` over the same
            frames. It has `frame_size` values.
        normalize_level (`bool`, *optional*, defaults to `False`):
            Scale each waveform to the same level of speech before trimming, so that the features do not depend on the
            level of the recording; not in TBJE. [`UmonsProcessor`] reads this attribute of any feature extractor.

    Raises:
        ValueError: a size or lag is not positive, or the window is longer than the Fourier transform.
    """

    model_input_names = ["input_features", "input_features_mask"]
    # `save_pretrained` copies the code, so that the folder loads without this package.
    _auto_class = "AutoFeatureExtractor"  # type: ignore[assignment]

    def __init__(
        self,
        feature_size: int = 80,
        sampling_rate: int = 22050,
        padding_value: float = 0.0,
        n_fft: int = 2048,
        hop_length: int = 275,
        win_length: int = 1102,
        preemphasis: float = 0.97,
        trim_db: float = 60.0,
        frame_stride: int = 16,
        max_length: int = 60,
        delta_lags: list[int] | None = None,
        normalize_level: bool = False,
        **kwargs,
    ):
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.win_length = win_length
        self.preemphasis = preemphasis
        self.trim_db = trim_db
        self.frame_stride = frame_stride
        self.max_length = max_length
        self.delta_lags = delta_lags
        self.normalize_level = normalize_level

        self._check_settings()

    def _check_settings(self):
        counts = ("feature_size", "sampling_rate", "n_fft", "hop_length", "win_length", "frame_stride", "max_length")
        for name in counts:
            if not _is_count(getattr(self, name)):
                raise ValueError(
                    f"`{name}` is {getattr(self, name)!r:.80}; it must be an integer from 1 to {MAX_SETTING}."
                )
        for name in ("preemphasis", "trim_db", "padding_value"):
            value = getattr(self, name)
            if not isinstance(value, Real) or not math.isfinite(value) or (name == "trim_db" and value <= 0):
                number = "a positive, finite number" if name == "trim_db" else "a finite number"
                raise ValueError(f"`{name}` is {value!r:.80}; it must be {number}.")
        lags = self.delta_lags
        if lags is not None and not (isinstance(lags, (list, tuple)) and all(map(_is_count, lags))):
            raise ValueError(f"`delta_lags` is {lags!r:.80}; it must be a list of lags of at least 1 frame.")
        if self.feature_size < 2:
            raise ValueError(f"`feature_size` is {self.feature_size}; it must be at least 2 mel bands.")
        if self.win_length > self.n_fft:
            raise ValueError(
                f"`win_length` is {self.win_length}, longer than `n_fft` ({self.n_fft}); it must fit inside it."
            )

    @property
    def frame_duration(self) -> float:
        """Seconds from one kept frame to the next. Frame `i` is centred on `offset + i * frame_duration`."""
        return self.frame_stride * self.hop_length / self.sampling_rate

    def extract_with_times(self, waveform, sampling_rate: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the features (num_frames, frame_size) of one waveform and the middles (num_frames,) in seconds."""
        batch = self([waveform], sampling_rate=sampling_rate, return_offsets=True)
        frames = batch["input_features"][0]
        return frames, self.frame_times(len(frames), batch["offsets"][0])

    def frame_times(self, num_frames: int, offset: float = 0.0) -> np.ndarray:
        """Return the middles (num_frames,) of the first kept frames in seconds. `offset` is the start of frame 0."""
        # With `delta_lags`, a kept frame is the mean of the frames of its stride.
        middle = (self.frame_stride - 1) / 2 * self.hop_length / self.sampling_rate if self.delta_lags else 0.0
        return offset + middle + np.arange(num_frames) * self.frame_duration

    @property
    def frame_size(self) -> int:
        """Number of values in a frame: `audio_feature_size` of the model."""
        return self.feature_size * (1 + len(self.delta_lags or ()))

    def __call__(
        self,
        raw_speech: np.ndarray
        | torch.Tensor
        | list[float]
        | list[np.ndarray]
        | list[torch.Tensor]
        | list[list[float]],
        sampling_rate: int | None = None,
        padding: bool | str | PaddingStrategy = True,
        max_length: int | None = None,
        truncation: bool = True,
        pad_to_multiple_of: int | None = None,
        return_offsets: bool = False,
        return_tensors: str | TensorType | None = None,
    ) -> BatchFeature:
        """
        Extract the log-mel features of one or several waveforms.

        Args:
            raw_speech (`np.ndarray`, `torch.Tensor`, `list[float]`, or a list of these):
                One waveform `(num_samples,)`, or a batch: a list (or tuple) of waveforms, or an array
                `(batch_size, num_samples)`. A waveform in a list may have channels, `(num_channels, num_samples)` or
                its transpose; the shorter axis is averaged. Samples are floats in [-1, 1], or integers of type int16,
                int32 or uint8, which are scaled to that range.
            sampling_rate (`int`, *optional*):
                Sampling rate of all the waveforms, in Hz; defaults to `self.sampling_rate`, with a logged warning.
            padding (`bool`, `str` or [`~utils.PaddingStrategy`], *optional*, defaults to `True`):
                `True` or `"longest"` pads to the longest of the batch, `"max_length"` to `max_length` frames; `False`
                does not pad.
            max_length (`int`, *optional*):
                Number of frames to truncate and to pad to; defaults to `self.max_length`.
            truncation (`bool`, *optional*, defaults to `True`):
                Whether to truncate to `max_length` frames.
            pad_to_multiple_of (`int`, *optional*):
                Pads to the next multiple of this number of frames, which may exceed `max_length`.
            return_offsets (`bool`, *optional*, defaults to `False`):
                Whether to return `offsets`, the start of frame 0 in each waveform: leading silence is trimmed.
            return_tensors (`str` or [`~utils.TensorType`], *optional*):
                `"pt"` for PyTorch tensors; NumPy arrays otherwise.

        Returns:
            [`BatchFeature`] with
            - **input_features** -- `(batch_size, num_frames, frame_size)` float32, in [1e-8, 1] (changes in [0, 1])
              where not padded.
            - **input_features_mask** -- `(batch_size, num_frames)` int64, 1 for a frame, 0 for padding and in rows of
              silence.
            - **offsets** -- `(batch_size,)` float32, seconds trimmed from the start; with `return_offsets=True`.

        Raises:
            ValueError: a waveform is empty, has NaN or infinite samples, more than two dimensions or samples of
                another type (the message names its index in the batch); the sampling rate is not positive or absurdly
                high; `max_length` is not positive.
            ImportError: resampling is needed and PyAV is not installed.
        """
        if sampling_rate is None:
            logger.warning(
                f"No `sampling_rate` was passed to `{self.__class__.__name__}`. The audio is assumed to be at"
                f" {self.sampling_rate} Hz; if it is not, its features are wrong. Pass `sampling_rate` with the audio."
            )
            sampling_rate = self.sampling_rate
        if not 1 <= sampling_rate <= 1000 * self.sampling_rate:
            raise ValueError(
                f"`sampling_rate` is {sampling_rate} Hz; it must be between 1 and {1000 * self.sampling_rate}."
            )
        max_length = self.max_length if max_length is None else max_length
        if max_length < 1:
            raise ValueError(f"`max_length` is {max_length} frames; it must be at least 1.")

        features, masks, offsets = [], [], []
        for index, waveform in enumerate(as_batch(raw_speech)):
            mono = to_mono(waveform, f"Waveform {index} of the batch")
            mono = resample(mono, sampling_rate, self.sampling_rate)
            # One clip at a time: its values are then bit-identical in any batch.
            frames, start = self._extract(torch.from_numpy(mono), max_length if truncation else None)
            features.append(frames)
            masks.append(np.full(len(frames), not is_silent(mono), dtype=np.int64))
            offsets.append(start / self.sampling_rate)

        # `pad` handles the mask under this name only.
        data: dict[str, list] = {"input_features": features, "attention_mask": masks}
        if return_offsets:
            data["offsets"] = offsets
        batch = self.pad(
            BatchFeature(data),
            padding=padding,
            max_length=max_length,
            pad_to_multiple_of=pad_to_multiple_of,
            return_attention_mask=True,
            return_tensors=return_tensors,
        )
        batch["input_features_mask"] = batch.pop("attention_mask")
        return batch

    def _extract(self, waveform: torch.Tensor, max_frames: int | None) -> tuple[np.ndarray, int]:
        """Return the features `(num_frames, frame_size)` of a waveform `(num_samples,)`, and their first sample."""
        if is_silent(waveform.numpy()):
            return np.full((1, self.frame_size), self.padding_value, dtype=np.float32), 0
        if self.normalize_level:
            waveform = torch.from_numpy(normalize_level(waveform.numpy(), self.sampling_rate))
        start, end = self._non_silent_span(waveform)
        return self._log_mel(waveform[start:end], max_frames).numpy(), start

    def _non_silent_span(self, waveform: torch.Tensor) -> tuple[int, int]:
        """Return the first sample, and one past the last, that `librosa.effects.trim` keeps of `(num_samples,)`."""
        num_samples = waveform.shape[0]
        num_frames = 1 + num_samples // TRIM_HOP_LENGTH
        hops_per_frame = TRIM_FRAME_LENGTH // TRIM_HOP_LENGTH

        # Frames overlap by whole hops: compute the energy of each hop once, in float64, and add up those of a frame.
        padded = nn.functional.pad(waveform, (TRIM_FRAME_LENGTH // 2, TRIM_FRAME_LENGTH // 2))
        hops = padded[: (num_frames + hops_per_frame - 1) * TRIM_HOP_LENGTH].view(-1, TRIM_HOP_LENGTH)
        energy = torch.linalg.vector_norm(hops, dim=1, dtype=torch.float64).square()
        power = energy.unfold(0, hops_per_frame, 1).sum(dim=1) / TRIM_FRAME_LENGTH

        power = power.clamp(min=TRIM_MIN_POWER)
        loud = (power > power.max() * 10 ** (-self.trim_db / 10)).nonzero()
        return int(loud[0]) * TRIM_HOP_LENGTH, min(num_samples, (int(loud[-1]) + 1) * TRIM_HOP_LENGTH)

    def _log_mel(self, waveform: torch.Tensor, max_frames: int | None) -> torch.Tensor:
        """Compute the features `(num_frames, frame_size)`, float32, of a trimmed waveform `(num_samples,)`."""
        if not self.delta_lags:
            return self._mel_frames(waveform, self.frame_stride, max_frames)
        end = None if max_frames is None else max_frames * self.frame_stride
        frames = self._mel_frames(waveform, 1, end and end + max(self.delta_lags))
        later = (torch.arange(len(frames)) + lag for lag in self.delta_lags)  # clamped to the last frame
        changes = [(frames[at.clamp(max=len(frames) - 1)] - frames).abs() for at in later]
        values = torch.cat([frames, *changes], dim=1)[:end]
        # The last window may have fewer frames: `ceil_mode` divides by the number it has.
        return nn.functional.avg_pool1d(values.T[None], self.frame_stride, ceil_mode=True)[0].T.contiguous()

    def _mel_frames(self, waveform: torch.Tensor, stride: int, max_frames: int | None) -> torch.Tensor:
        """Compute one log-mel frame in `stride`: `(num_frames, feature_size)`."""
        waveform = torch.cat([waveform[:1], waveform[1:] - self.preemphasis * waveform[:-1]])

        # A window shorter than the transform is centred in it, between zeros. Magnitudes do not depend on where the
        # zeros are, so cut out the samples in the window and let `rfft` append them.
        left = self.n_fft // 2 - (self.n_fft - self.win_length) // 2
        padded = nn.functional.pad(waveform, (left, self.win_length - left))
        frames = padded.unfold(0, self.win_length, self.hop_length * stride)[:max_frames]
        window, basis = _hann_window(self.win_length), _mel_basis(self.n_fft, self.feature_size, self.sampling_rate)
        blocks = (torch.fft.rfft(block * window, n=self.n_fft).abs() @ basis for block in frames.split(BLOCK_SIZE))
        mel = torch.cat(list(blocks))
        decibels = 20 * torch.log10(mel.clamp(min=1e-5))
        return ((decibels - 20 + 100) / 100).clamp(1e-8, 1)


def as_batch(raw_speech) -> list:
    """Return waveforms as a list: arrays of two dimensions or more, and lists of waveforms, are batches."""
    if isinstance(raw_speech, (np.ndarray, torch.Tensor)):
        return list(raw_speech) if raw_speech.ndim > 1 else [raw_speech]
    is_batch = isinstance(raw_speech, (list, tuple)) and len(raw_speech) > 0 and not isinstance(raw_speech[0], Number)
    return list(raw_speech) if is_batch else [raw_speech]


__all__ = ["UmonsFeatureExtractor"]
