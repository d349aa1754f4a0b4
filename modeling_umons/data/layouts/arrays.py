"""Helpers of the layouts that are files of arrays."""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...models.umons.configuration_umons import EMOTIONS
from ...tasks.labels import EMOTION_RANGE, SENTIMENT_RANGE


def split_id(segment_id: str, pattern: str = r"(.+)\[([0-9]{1,9})\]") -> tuple[str, int] | None:
    """Parse `video[3]`, or another `pattern`, to (video id, number of the segment); `None` for any other text."""
    match = re.fullmatch(pattern, segment_id)
    return None if match is None else (match[1], int(match[2]))


def to_frames(array: Any, where: str, size: int | None = None) -> np.ndarray | None:
    """
    Convert frames to float32 (T, D); `None` if T is 0.

    Values that are not finite become 0, as is customary for COVAREP, whose logarithms of silence are -inf.

    Args:
        array: numbers, (T, D).
        where: file and key, for the message.
        size: required D; `None` allows any.

    Raises:
        ValueError: it is not an array of numbers with these dimensions.
    """
    expected = f"numbers of shape (frames, {'values' if size is None else size})"
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{where} is a {type(array).__name__}, expected {expected}.")
    fits = array.ndim == 2 and array.shape[1] > 0 and size in (None, array.shape[1])
    if array.dtype.kind not in "fiu" or not fits:
        raise ValueError(f"{where} has the shape {array.shape} and the dtype {array.dtype}, expected {expected}.")
    if len(array) == 0:
        return None
    with np.errstate(over="ignore"):  # what float32 cannot hold is not finite either
        frames = array.astype(np.float32)
    frames[~np.isfinite(frames)] = 0
    return frames


def to_scalar(value: Any, where: str, within: tuple[float, float] = (-math.inf, math.inf)) -> float:
    """Convert a number of Python or numpy to float. Raises ValueError if it is not one, not finite or not `within`."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number)):
        raise ValueError(f"{where} is {value if value is None else f'a {type(value).__name__}'}, expected a number.")
    if not (math.isfinite(value) and within[0] <= value <= within[1]):
        expected = f"a number from {within[0]:g} to {within[1]:g}" if math.isfinite(within[0]) else "a finite number"
        raise ValueError(f"{where} is {value}, expected {expected}.")
    return float(value)


def to_sentiment(value: Any, where: str) -> float:
    """Convert a sentiment in [-3, 3]. Raises ValueError for anything else."""
    return to_scalar(value, where, SENTIMENT_RANGE)


def to_emotions(values: Any, where: str) -> dict[str, float]:
    """Convert the six intensities in [0, 3] to {emotion: number}. Raises ValueError for anything else."""
    if isinstance(values, np.ndarray):
        # The shape first: rows without values take no memory in an array, but much in a list.
        values = values.tolist() if values.shape == (len(EMOTIONS),) else None
    if not isinstance(values, Sequence) or isinstance(values, (str, bytes)) or len(values) != len(EMOTIONS):
        raise ValueError(f"{where} is not the {len(EMOTIONS)} numbers of {', '.join(EMOTIONS)}.")
    return {
        name: to_scalar(value, f"{where}, {name}", EMOTION_RANGE) for name, value in zip(EMOTIONS, values, strict=True)
    }
