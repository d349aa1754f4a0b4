"""Decoding of the audio files of tables in a worker process with a deadline and a memory limit."""

import os
from functools import cache
from typing import Any

import numpy as np

from ..models.umons.decoding_umons import DecodingWorker
from ..models.umons.media_umons import WHOLE_S


def read_audio(value: str | bytes | dict[str, Any], sampling_rate: int) -> np.ndarray:
    """
    Decode the first `WHOLE_S` seconds of an audio file.

    Args:
        value: path, bytes of the file, or value of a column of `Audio(decode=False)`.
        sampling_rate: rate of the result, in Hz.

    Returns:
        (num_samples,) float32, mono.

    Raises:
        OSError, ValueError: the file cannot be decoded within the limits of [`DecodingWorker`], or is an address.
    """
    source = value if isinstance(value, (str, bytes)) else value["bytes"] or value["path"]
    if isinstance(source, str):
        refuse_address(source)
    worker = _worker_of(os.getpid())
    return worker.read_clip(source, video=False, sampling_rate=sampling_rate, max_duration=WHOLE_S).audio


def refuse_address(value: Any) -> None:
    """Raise ValueError for a value of a column of files that is an address."""
    name = str(value.get("path") if isinstance(value, dict) else value)
    if "://" in name:
        raise ValueError(f"{name} is an address: download the file, and give its path. Tables download nothing.")


def end_worker() -> None:
    """End the decoding process of this process. The next file starts another one."""
    _worker_of(os.getpid()).close()


@cache
def _worker_of(process_id: int) -> DecodingWorker:
    """Return the worker of a process: a forked process would share the pipes of its parent's worker."""
    return DecodingWorker()
