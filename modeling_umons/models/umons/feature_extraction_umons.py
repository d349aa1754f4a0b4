# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Sound for UMONS: waveforms to log-mel frames."""

from fractions import Fraction
from functools import lru_cache
from numbers import Number

import numpy as np
import torch
from torch import nn
from transformers.audio_utils import mel_filter_bank
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature
from transformers.utils import PaddingStrategy, TensorType, logging


logger = logging.get_logger(__name__)

# Silence is judged on frames of this size and hop, librosa's defaults, whatever the spectrogram's own are.
TRIM_FRAME_LENGTH = 2048
TRIM_HOP_LENGTH = 512
# An RMS of 1e-5: what is quieter counts as this loud, so a clip whose peak is below 1e-2 loses nothing at 60 dB.
TRIM_MIN_POWER = 1e-10
# Integer samples: the value of silence, and how far full scale is from it.
PCM_SCALES = {"uint8": (128, 2**7), "int16": (0, 2**15), "int32": (0, 2**31)}


# The constants of the transform are kept beside the class, not on it: an extractor that has been used saves, pickles
# and hashes as before. They are float32 on the CPU whatever torch's default dtype and device.
@lru_cache(maxsize=8)
def _hann_window(win_length: int) -> torch.Tensor:
    return torch.hann_window(win_length, dtype=torch.float32, device="cpu")


@lru_cache(maxsize=8)
def _mel_basis(n_fft: int, feature_size: int, sampling_rate: int) -> torch.Tensor:
    """The Slaney mel filters from 0 Hz to half the sampling rate, `(n_fft // 2 + 1, feature_size)`."""
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


def to_mono(waveform, name: str) -> torch.Tensor:
    """Checks one waveform, called `name` in errors, and returns it as `(num_samples,)` float32 on the CPU."""
    if isinstance(waveform, torch.Tensor):
        waveform = waveform.detach().cpu()
        waveform = waveform.float() if waveform.is_floating_point() else waveform  # NumPy has no bfloat16
    try:
        samples = np.asarray(waveform)
    except ValueError as error:
        raise ValueError(f"{name} has channels of unequal length; they must be equally long.") from error

    if samples.ndim not in (1, 2):
        raise ValueError(
            f"{name} has shape {samples.shape}; give (num_samples,) or (num_channels, num_samples), and a batch"
            " as a list of waveforms."
        )
    if samples.size == 0:
        raise ValueError(f"{name} is empty; leave it out, or give at least one sample.")
    if samples.dtype.kind != "f" and samples.dtype.name not in PCM_SCALES:
        raise ValueError(
            f"{name} has samples of type {samples.dtype}; give floats in [-1, 1], or integers of type"
            f" {', '.join(PCM_SCALES)}."
        )

    zero, full_scale = PCM_SCALES.get(samples.dtype.name, (0, 1))
    # A copy in any case: torch warns of read-only memory, and refuses negative strides.
    mono = torch.from_numpy(samples.astype(np.float32, order="C"))
    mono = (mono - zero) / full_scale
    if mono.ndim == 2:
        mono = mono.mean(dim=int(np.argmin(samples.shape)))
    if not mono.isfinite().all():
        raise ValueError(f"{name} has NaN or infinite samples; repair or leave out the recording.")
    return mono


def resample(waveform: torch.Tensor, from_rate: float, to_rate: int) -> torch.Tensor:
    """A waveform `(num_samples,)` at another rate; rates in Hz."""
    if from_rate == to_rate:
        return waveform
    from torchaudio import functional

    # The filter grows with both sides of the ratio: gigabytes for an odd rate like 44056 Hz. A denominator of at
    # most 2000 is exact for the usual rates up to 192 kHz, and off by 3 ms in 12 s at worst for any up to 200 kHz.
    ratio = (Fraction(float(to_rate)) / Fraction(float(from_rate))).limit_denominator(2000)
    return functional.resample(waveform, orig_freq=ratio.denominator, new_freq=ratio.numerator)


class UmonsFeatureExtractor(SequenceFeatureExtractor):
    r"""
    Turns waveforms into the log-mel frames that UMONS reads, after the recipe of TBJE (Delbrouck et al., "A
    Transformer-based joint-encoding for Emotion Recognition and Sentiment Analysis", 2020).

    A waveform is mixed down to mono, resampled, freed of silence at both ends (as `librosa.effects.trim` does), and
    pre-emphasised, `y[t] - 0.97 y[t - 1]`. The magnitude spectrum `S` of Hann-windowed frames, centred on their hop,
    zero-padded at the edges, gives mel bands `m = S @ mel` (Slaney scale and norm) and features
    `clip((20 log10(max(1e-5, m)) - 20 + 100) / 100, 1e-8, 1)`. One frame in `frame_stride` is kept, and only those
    are computed: by default one every 0.1995 s, 60 of which cover 11.97 s.

    Args:
        feature_size (`int`, *optional*, defaults to 80):
            Number of mel bands.
        sampling_rate (`int`, *optional*, defaults to 22050):
            Rate the features are computed at, in Hz; input at another rate is resampled to it.
        padding_value (`float`, *optional*, defaults to 0.0):
            Value of the features in padded frames.
        n_fft (`int`, *optional*, defaults to 2048):
            Size of the Fourier transform, in samples.
        hop_length (`int`, *optional*, defaults to 275):
            Distance between frames, in samples, before one in `frame_stride` is kept.
        win_length (`int`, *optional*, defaults to 1102):
            Length of the Hann window, in samples; at most `n_fft`.
        preemphasis (`float`, *optional*, defaults to 0.97):
            Share of the previous sample that is taken off each sample; 0 for none.
        trim_db (`float`, *optional*, defaults to 60.0):
            Leading and trailing sound this many dB below the loudest frame, or quieter, is trimmed as silence.
        frame_stride (`int`, *optional*, defaults to 16):
            One frame of this many is kept.
        max_length (`int`, *optional*, defaults to 60):
            Number of kept frames after which a clip is cut.
        delta_lags (`list[int]`, *optional*):
            Not in TBJE, whose audio frames know nothing of what comes between them. With it a kept frame is the mean of
            the `frame_stride` frames that begin with it, followed, for each lag `l`, by the mean of `|x[t + l] - x[t]|`
            over the same frames: how much the sound changes within `l` hops. A frame then has `frame_size` values.

    Raises:
        ValueError: a size or lag that is not positive, or a window longer than the Fourier transform.
    """

    model_input_names = ["input_features", "input_features_mask"]
    _auto_class = "AutoFeatureExtractor"  # saving copies the code, so that the folder loads without this package

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

        positive = ("sampling_rate", "n_fft", "hop_length", "win_length", "trim_db", "frame_stride", "max_length")
        for name in positive:
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be positive.")
        if any(lag < 1 for lag in delta_lags or ()):
            raise ValueError(f"`delta_lags` is {delta_lags}; lags are 1 frame at least.")
        if feature_size < 2:
            raise ValueError(f"`feature_size` is {feature_size}; give at least 2 mel bands.")
        if win_length > n_fft:
            raise ValueError(f"`win_length` is {win_length}, longer than `n_fft` ({n_fft}); it must fit inside it.")

    @property
    def frame_duration(self) -> float:
        """Seconds from one kept frame to the next. Frame `i` is centred on `offset + i * frame_duration`."""
        return self.frame_stride * self.hop_length / self.sampling_rate

    @property
    def frame_size(self) -> int:
        """Values in a frame, which the model calls `audio_feature_size`."""
        return self.feature_size * (1 + len(self.delta_lags or ()))

    def __call__(
        self,
        audio: np.ndarray | torch.Tensor | list[float] | list[np.ndarray] | list[torch.Tensor] | list[list[float]],
        sampling_rate: int | None = None,
        padding: bool | str | PaddingStrategy = True,
        max_length: int | None = None,
        truncation: bool = True,
        pad_to_multiple_of: int | None = None,
        return_offsets: bool = False,
        return_tensors: str | TensorType | None = None,
    ) -> BatchFeature:
        """
        Log-mel features of one waveform or of a list of them.

        Args:
            audio (`np.ndarray`, `torch.Tensor`, `list[float]`, or a list of these):
                One waveform, or a list (or tuple) with one waveform per row of the batch. A waveform is
                `(num_samples,)`, or `(num_channels, num_samples)` or its transpose, of which the shorter axis is taken
                for the channels and averaged; so a batch is always a list, never a 2-D array. Samples are floats in
                [-1, 1], or integers of type int16, int32 or uint8, which are scaled to it.
            sampling_rate (`int`, *optional*):
                Rate of all the waveforms, in Hz; if not given, `self.sampling_rate`, with a logged warning.
            padding (`bool`, `str` or [`~utils.PaddingStrategy`], *optional*, defaults to `True`):
                `True` or `"longest"` pads to the longest of the batch, `"max_length"` to `max_length` frames, `False`
                not at all.
            max_length (`int`, *optional*):
                Number of frames to cut and to pad to; `self.max_length` if not given.
            truncation (`bool`, *optional*, defaults to `True`):
                Whether to cut what is longer than `max_length` frames.
            pad_to_multiple_of (`int`, *optional*):
                Pads to the next multiple of this number of frames, which may exceed `max_length`.
            return_offsets (`bool`, *optional*, defaults to `False`):
                Whether to add `offsets`: trimming the leading silence makes frame 0 start that much later.
            return_tensors (`str` or [`~utils.TensorType`], *optional*):
                `"pt"` for PyTorch tensors; NumPy arrays otherwise.

        Returns:
            [`BatchFeature`] with
            - **input_features** -- `(batch_size, num_frames, frame_size)` float32, in [1e-8, 1] (changes in [0, 1]) where
              not padded.
            - **input_features_mask** -- `(batch_size, num_frames)` int64, 1 for a frame, 0 for padding.
            - **offsets** -- `(batch_size,)` float32, seconds trimmed from the start; with `return_offsets=True`.

        Raises:
            ValueError: a waveform that is empty, has NaN or infinite samples, more than two dimensions or samples of
                another type (the message says which of the batch); a sampling rate that is not positive or is absurdly
                high; a `max_length` that is not positive.
        """
        if sampling_rate is None:
            logger.warning(
                f"No `sampling_rate` was passed to `{self.__class__.__name__}`: the audio is taken to be at"
                f" {self.sampling_rate} Hz, and if it is not, its features are wrong. Pass the rate with the audio."
            )
            sampling_rate = self.sampling_rate
        if not 1 <= sampling_rate <= 1000 * self.sampling_rate:
            raise ValueError(
                f"`sampling_rate` is {sampling_rate} Hz; it must be between 1 and {1000 * self.sampling_rate}."
            )
        max_length = self.max_length if max_length is None else max_length
        if max_length < 1:
            raise ValueError(f"`max_length` is {max_length} frames; it must be at least 1.")

        is_batched = isinstance(audio, (list, tuple)) and len(audio) > 0 and not isinstance(audio[0], Number)
        features, offsets = [], []
        for index, waveform in enumerate(audio if is_batched else [audio]):
            waveform = to_mono(waveform, f"Waveform {index} of the batch")
            waveform = resample(waveform, sampling_rate, self.sampling_rate)
            start, end = self._non_silent_span(waveform)
            # One clip at a time, so that its values are the same, to the last bit, in any batch.
            features.append(self._log_mel(waveform[start:end], max_length if truncation else None).numpy())
            offsets.append(start / self.sampling_rate)

        data = {
            "input_features": features,
            # `pad` knows the mask by this name only
            "attention_mask": [np.ones(len(frames), dtype=np.int64) for frames in features],
        }
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

    def _non_silent_span(self, waveform: torch.Tensor) -> tuple[int, int]:
        """First sample, and one past the last, of what `librosa.effects.trim` would leave of `(num_samples,)`."""
        num_samples = waveform.shape[0]
        num_frames = 1 + num_samples // TRIM_HOP_LENGTH
        hops_per_frame = TRIM_FRAME_LENGTH // TRIM_HOP_LENGTH

        # Frames overlap by whole hops: sum the energy of each hop once, in float64, and add up those of a frame.
        padded = nn.functional.pad(waveform, (TRIM_FRAME_LENGTH // 2, TRIM_FRAME_LENGTH // 2))
        hops = padded[: (num_frames + hops_per_frame - 1) * TRIM_HOP_LENGTH].view(-1, TRIM_HOP_LENGTH)
        energy = torch.linalg.vector_norm(hops, dim=1, dtype=torch.float64).square()
        power = energy.unfold(0, hops_per_frame, 1).sum(dim=1) / TRIM_FRAME_LENGTH

        power = power.clamp(min=TRIM_MIN_POWER)
        loud = (power > power.max() * 10 ** (-self.trim_db / 10)).nonzero()
        return int(loud[0]) * TRIM_HOP_LENGTH, min(num_samples, (int(loud[-1]) + 1) * TRIM_HOP_LENGTH)

    def _log_mel(self, waveform: torch.Tensor, max_frames: int | None) -> torch.Tensor:
        """Features of a trimmed waveform `(num_samples,)`: `(num_frames, frame_size)` float32."""
        if not self.delta_lags:
            return self._mel_frames(waveform, self.frame_stride, max_frames)
        end = None if max_frames is None else max_frames * self.frame_stride
        frames = self._mel_frames(waveform, 1, end and end + max(self.delta_lags))
        later = (torch.arange(len(frames)) + lag for lag in self.delta_lags)  # at the end, what there is
        changes = [(frames[at.clamp(max=len(frames) - 1)] - frames).abs() for at in later]
        values = torch.cat([frames, *changes], dim=1)[:end]
        # The last window has fewer frames, and `ceil_mode` divides by as many.
        return nn.functional.avg_pool1d(values.T[None], self.frame_stride, ceil_mode=True)[0].T.contiguous()

    def _mel_frames(self, waveform: torch.Tensor, stride: int, max_frames: int | None) -> torch.Tensor:
        """One log-mel frame in `stride`: `(num_frames, feature_size)`."""
        waveform = torch.cat([waveform[:1], waveform[1:] - self.preemphasis * waveform[:-1]])

        # A window shorter than the transform stands in the middle of it, between zeros. Magnitudes do not depend on
        # where the zeros are, so cut out what the window covers and let `rfft` append them.
        left = self.n_fft // 2 - (self.n_fft - self.win_length) // 2
        padded = nn.functional.pad(waveform, (left, self.win_length - left))
        frames = padded.unfold(0, self.win_length, self.hop_length * stride)[:max_frames]
        magnitudes = torch.fft.rfft(frames * _hann_window(self.win_length), n=self.n_fft).abs()

        mel = magnitudes @ _mel_basis(self.n_fft, self.feature_size, self.sampling_rate)
        decibels = 20 * torch.log10(mel.clamp(min=1e-5))
        return ((decibels - 20 + 100) / 100).clamp(1e-8, 1)


__all__ = ["UmonsFeatureExtractor"]
