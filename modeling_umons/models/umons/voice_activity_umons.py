# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Voice activity: when someone speaks in a recording, by the Silero model that faster-whisper contains."""

from collections import deque
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np


SAMPLING_RATE = 16_000
# The model processes audio that is slowed down by a third, which lowers its pitch: it hardly knows shouted speech.
SPEED = 0.75
FRAME = 384  # samples of one probability: 512 of the model
CONTEXT = 48  # samples before a frame that the model also processes: its 64
FRAME_S = FRAME / SAMPLING_RATE
# Linear interpolation between the samples of a frame, those of its context and the one before.
POSITIONS = SPEED * np.arange(1, round((CONTEXT + FRAME) / SPEED) + 1, dtype=np.float32)
LEFT = np.ceil(POSITIONS).astype(int) - 1
MIN_START = 0.5  # probability of speech in its first frame
MIN_CONTINUE = 0.2  # of speech in its other frames
MIN_PAUSE_S = 0.5
MIN_SPEECH_S = 0.15
MAX_SPEECH_S = 28.0  # longer speech is divided at its weakest frame; Whisper processes 30 s
# Seconds by which regions are moved: the probability rises after speech begins and falls after it ends. Set on
# recordings of RAVDESS, and on espeak-ng.
START_S = -0.05
END_S = -0.03


def import_whisper(name: str = "faster_whisper") -> Any:
    """Import a module of faster-whisper."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            'Voice activity and Whisper need faster-whisper: pip install "modeling-umons[transcribe]"'
        ) from error


@cache
def _load_session():
    return import_whisper("faster_whisper.vad").get_vad_model().session


class SpeechDetector:
    """
    Detector of speech in a stream of audio, in constant memory.

    ```python
    >>> detector = SpeechDetector()
    >>> regions = [region for block in blocks for region in detector.push(block)] + detector.flush()
    ```

    Args:
        min_pause_s: seconds without speech that end a region.

    Attributes:
        settled: seconds before which no further region begins.
    """

    def __init__(self, min_pause_s: float = MIN_PAUSE_S):
        self.min_pause_s = min_pause_s
        self.rest = np.zeros(0, np.float32)  # samples of an incomplete frame
        self.context = np.zeros(CONTEXT + 1, np.float32)
        self.state = [np.zeros((1, 1, 128), np.float32)] * 2
        self.num_frames = self.num_samples = 0
        self.start: int | None = None  # frame
        self.end = 0  # frame after the last one of speech
        self.probabilities: deque[float] = deque()  # of the current region
        self.last_end = 0.0  # seconds

    @property
    def settled(self) -> float:
        first = self.num_frames if self.start is None else self.start
        return max(self.last_end, first * FRAME_S + START_S)

    def push(self, samples: np.ndarray) -> list[tuple[float, float]]:
        """
        Process further audio.

        Args:
            samples: float32 (num_samples,) in [-1, 1] at 16 kHz.

        Returns:
            The regions of speech that are complete by now, (start, end) in seconds from the beginning of the stream.
        """
        self.num_samples += len(samples)
        samples = np.concatenate([self.rest, samples.astype(np.float32)])
        count = len(samples) // FRAME
        self.rest = samples[count * FRAME :]
        found = []
        for probability in self._run(samples[: count * FRAME].reshape(count, FRAME)):
            found += self._add(float(probability))
        return found

    def flush(self) -> list[tuple[float, float]]:
        """Return the region at the end of the stream, if it ends with speech."""
        length = self.num_samples / SAMPLING_RATE
        if len(self.rest):
            last = np.pad(self.rest, (0, FRAME - len(self.rest)))
            found = [region for p in self._run(last[None]) for region in self._add(float(p))]
        else:
            found = []
        found += self._close(self.end)
        return [(start, min(end, length)) for start, end in found]

    def _run(self, frames: np.ndarray) -> np.ndarray:
        """Return the probability of speech in each frame of (num_frames, FRAME) samples."""
        if len(frames) == 0:
            return np.zeros(0, np.float32)
        before = np.concatenate([self.context[None], frames[:-1, -len(self.context) :]])
        self.context = frames[-1, -len(self.context) :]
        known = np.concatenate([before, frames], axis=1)
        inputs = known[:, LEFT] + (POSITIONS - LEFT) * (known[:, LEFT + 1] - known[:, LEFT])
        h, c = self.state
        probabilities, h, c = _load_session().run(None, {"input": inputs.astype(np.float32), "h": h, "c": c})
        self.state = [h, c]
        return probabilities.reshape(-1)

    def _add(self, probability: float) -> list[tuple[float, float]]:
        """Process the probability of one frame, and return the region that it ends."""
        frame = self.num_frames
        self.num_frames += 1
        if self.start is None:
            if probability < MIN_START:
                return []
            self.start = frame
        self.probabilities.append(probability)
        if probability >= MIN_CONTINUE:
            self.end = frame + 1
        if (frame + 1 - self.end) * FRAME_S >= self.min_pause_s:
            return self._close(self.end)
        return self._divide() if (frame + 1 - self.start) * FRAME_S >= MAX_SPEECH_S else []

    def _divide(self) -> list[tuple[float, float]]:
        """End a long region at its weakest frame, in its second half, and continue after it."""
        first = len(self.probabilities) // 2
        weakest = first + int(np.argmin(list(self.probabilities)[first:]))
        start, end = self.start, self.end
        found = self._close(start + weakest, shift=0.0)
        if end > start + weakest:
            self.start, self.end = start + weakest, end
        return found

    def _close(self, end: int, shift: float = END_S) -> list[tuple[float, float]]:
        """End the current region at a frame, and return it unless it is too short."""
        start, self.start = self.start, None
        kept = 0 if start is None else end - start
        for _ in range(min(kept, len(self.probabilities))):
            self.probabilities.popleft()
        if end >= self.end:
            self.probabilities.clear()
        if start is None or kept * FRAME_S < MIN_SPEECH_S:
            return []
        first = max(self.last_end, start * FRAME_S + START_S)
        self.last_end = end * FRAME_S + shift
        return [(first, self.last_end)]


def find_speech(audio: np.ndarray) -> list[tuple[float, float]]:
    """Return the regions of speech in audio (num_samples,) at 16 kHz, (start, end) in seconds."""
    detector = SpeechDetector()
    return detector.push(audio) + detector.flush()
