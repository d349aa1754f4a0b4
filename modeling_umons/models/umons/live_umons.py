# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Predictions of audio that arrives in chunks, as from a microphone, in bounded memory."""

import math
from collections.abc import Callable, Iterator
from numbers import Real
from typing import Any

import numpy as np

from .feature_extraction_umons import to_mono
from .input_checks_umons import check_sampling_rate
from .live_words_umons import LiveWords
from .media_umons import SAMPLING_RATES, WHOLE_S, Resampler


MIN_HOP_S = 0.05
SEGMENT = {"chunk_length_s": WHOLE_S}  # as one segment: silence is then a result, not an error
BLOCK_S = 1.0  # seconds of a chunk that are processed at once, so that long ones take no memory


class LiveStream:
    """
    Predicts audio that arrives in chunks. Made by [`MultimodalEmotionPipeline.live`], for one stream each.

    ```python
    >>> stream = recognize.live(sampling_rate=16000)
    >>> for chunk in microphone:  # arrays (num_samples,)
    ...     for event in stream.push(chunk):
    ...         print(event["timestamp"], event["label"], event["is_final"])
    >>> stream.flush()  # the last events
    ```

    The stream is cut into windows of `chunk_length_s`. Every `hop_length_s` of a window gives a partial event, of the
    last `chunk_length_s` seconds, and its end gives a final one, of the window. An event is the result of the pipeline
    for its samples, with their `timestamp` (start, end) in seconds from the beginning of the stream and `is_final`.
    The final events are those of `recognize(audio, chunk_length_s=chunk_length_s)` for the whole stream, in whatever
    chunks it arrived. With a `transcriber`, the words of partial events may still change.

    Args:
        pipeline: a `MultimodalEmotionPipeline` of a model with audio.
        sampling_rate: rate of the chunks in Hz.
        hop_length_s: seconds between events.
        chunk_length_s: seconds of audio in a prediction; the model's maximum by default.
        transcriber: speech recognition, as of the pipeline. It transcribes each hop.
        only_latest: leave out the partial events that a chunk itself makes obsolete: a stream that is late catches up.
        predict: function of an input of the pipeline that returns its results as one `SEGMENT`; the pipeline with
            `options` by default.
        options: options of the pipeline for each event.

    Raises:
        ValueError: the model has no audio, or an option is out of range.
    """

    def __init__(
        self,
        pipeline,
        sampling_rate: float | None = None,
        *,
        hop_length_s: float = 0.5,
        chunk_length_s: float | None = None,
        transcriber: Callable | None = None,
        only_latest: bool = False,
        predict: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        **options,
    ):
        if "audio" not in pipeline.model.config.modalities:
            raise ValueError("The model has no audio: live predictions require a model with the modality 'audio'.")
        self.rate = pipeline.processor.feature_extractor.sampling_rate
        self.chunk_length_s = pipeline.processor.max_duration if chunk_length_s is None else chunk_length_s
        _check_seconds("chunk_length_s", self.chunk_length_s, 2 * MIN_HOP_S, WHOLE_S)
        _check_seconds("hop_length_s", hop_length_s, MIN_HOP_S, self.chunk_length_s)
        sampling_rate = self.rate if sampling_rate is None else sampling_rate
        if (
            isinstance(sampling_rate, bool)
            or not isinstance(sampling_rate, Real)
            or sampling_rate > SAMPLING_RATES[-1]
        ):
            raise ValueError(f"`sampling_rate` is {sampling_rate!r:.50}: pass the rate of the chunks in Hz.")
        self.resampler = Resampler(sampling_rate, self.rate)
        self.hop_length_s, self.only_latest = hop_length_s, only_latest
        self.min_length_s = min(self.chunk_length_s, pipeline.min_length_s)
        self.warnings = check_sampling_rate(sampling_rate)
        self.words = None
        if transcriber is not None and "text" in pipeline.model.config.modalities:
            self.words = LiveWords(transcriber, self.rate, self.chunk_length_s)
        pipeline._sanitize_parameters(**options)  # raises ValueError for unknown ones
        self.predict = predict or (lambda inputs: pipeline(inputs, **SEGMENT, **options))
        self.samples, self.first = np.zeros(0, np.float32), 0  # kept samples, and the position of the first of them
        self.added: list[np.ndarray] = []  # samples after these
        self.num_received = 0  # samples in chunks
        self.end = 0  # position after the last sample
        self.num_windows = self.num_hops = 0  # completed windows, and hops of the present one
        self.is_flushed = False

    @property
    def duration(self) -> float:
        """Seconds of audio that arrived."""
        return self.num_received / self.resampler.from_rate

    def push(self, chunk) -> list[dict[str, Any]]:
        """
        Add a chunk, and return the events that it completes.

        Args:
            chunk: audio (num_samples,) or (num_channels, num_samples): floats in [-1, 1], or int16, int32 or uint8.

        Raises:
            ValueError: the chunk is not audio, and is left out; a prediction failed, and the stream continues after
                it; or the stream is flushed.
        """
        return list(self.iter_events(chunk))

    def iter_events(self, chunk) -> Iterator[dict[str, Any]]:
        """Yield the events of [`~LiveStream.push`] as soon as they are predicted."""
        if self.is_flushed:
            raise ValueError("The stream is flushed: make a new one for more audio.")
        if np.size(chunk) == 0:
            return
        samples = to_mono(chunk, "The chunk")
        self.num_received += len(samples)
        step = max(1, round(BLOCK_S * self.resampler.from_rate))
        for first in range(0, len(samples), step):
            self._add(self.resampler.push(samples[first : first + step]))
            try:
                yield from self._predict_due()
            except ValueError:
                self._add(self.resampler.push(samples[first + step :]))  # the stream continues after the chunk
                raise

    def flush(self) -> list[dict[str, Any]]:
        """
        End the stream, and return the events of its remaining samples.

        A remainder shorter than one audio frame of the model gives no event, unless the stream has no other samples.
        """
        if self.is_flushed:
            return []
        self.is_flushed = True
        self._add(self.resampler.flush())
        events = list(self._predict_due())
        start = self._window_end(self.num_windows)
        length_s = (self.end - start) / self.rate
        if length_s >= self.min_length_s - 1e-3 or (length_s > 0 and self.num_windows == 0):
            events.append(self._predict(start, self.end, is_final=True))
        return events

    def _window_end(self, number: int) -> int:
        """Return the position of the first sample after `number` windows."""
        return round(number * self.chunk_length_s * self.rate)

    def _next_end(self) -> tuple[int, bool]:
        """Return the position at which the next event is due, and whether it is the end of a window."""
        hop = (self.num_hops + 1) * self.hop_length_s
        if hop <= self.chunk_length_s - self.hop_length_s / 2:  # a shorter last hop is joined to the one before it
            return self._window_end(self.num_windows) + round(hop * self.rate), False
        return self._window_end(self.num_windows + 1), True

    def _add(self, samples: np.ndarray):
        self.added.append(samples)
        self.end += len(samples)

    def _predict_due(self) -> Iterator[dict[str, Any]]:
        """Yield the events that are due, and forget the samples that no later one has."""
        # The resampler is behind by about 1 ms.
        arrived = (self.duration - 0.01) * self.rate
        while (due := self._next_end())[0] <= self.end:
            end, is_final = due
            if is_final:
                start = self._window_end(self.num_windows)
                self.num_windows, self.num_hops = self.num_windows + 1, 0
            else:
                start = max(0, end - round(self.chunk_length_s * self.rate))
                self.num_hops += 1
            if is_final or not self.only_latest or self._next_end()[0] > arrived:
                yield self._predict(start, end, is_final)
            self._forget(end)

    def _forget(self, end: int):
        keep = max(0, end - round(self.chunk_length_s * self.rate) - 1)
        if self.words is not None:
            keep = min(keep, self.words.first)
        # A copy, so that the samples before it are freed.
        self.samples, self.first = self._cut(keep, self.end).copy(), keep

    def _predict(self, start: int, end: int, is_final: bool) -> dict[str, Any]:
        inputs = {"audio": self._cut(start, end), "sampling_rate": self.rate}
        seconds, warnings = start / self.rate, self.warnings
        if self.words is not None:
            self.words.update(self._cut(self.words.first, end), end)
            inputs["words"] = self.words.between(seconds, end / self.rate)
            warnings = warnings + self.words.warnings
        results = self.predict(inputs)
        event = results[0] if isinstance(results, list) else results  # an error
        if "words" in event:
            event["words"] = [{**word, "timestamp": _shift(word["timestamp"], seconds)} for word in event["words"]]
        if "warnings" in event:
            event["warnings"] = [*warnings, *event["warnings"]]
        return {**event, "timestamp": (round(seconds, 3), round(end / self.rate, 3)), "is_final": is_final}

    def _cut(self, start: int, end: int) -> np.ndarray:
        """Return the samples from one position to another."""
        if self.added:
            self.samples, self.added = np.concatenate([self.samples, *self.added]), []
        return self.samples[start - self.first : end - self.first]


def _shift(times: tuple[float | None, float | None], seconds: float) -> tuple[float | None, ...]:
    return tuple(None if time is None else round(time + seconds, 3) for time in times)


def _check_seconds(name: str, value: Any, low: float, high: float):
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= value <= high or math.isnan(value):
        raise ValueError(f"`{name}` is {value!r:.50}: pass {low:g} to {high:g} seconds.")


__all__ = ["LiveStream"]
