# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Decoding of untrusted files in a worker process with a deadline and a memory limit."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from .media_umons import Clip, iter_windows, read_clip
from .stream_decoding_umons import StreamDecoder


DTYPES = {"audio": np.float32, "frames": np.uint8, "frame_times": np.float64}
ERRORS = {kind.__name__: kind for kind in (OSError, FileNotFoundError, IsADirectoryError, ValueError, ImportError)}
# A package of the files of this folder only: the worker imports no torch, and this may be a copy on the Hub.
COMMAND = (
    "import sys, types; worker = sys.modules['worker'] = types.ModuleType('worker'); worker.__path__ = [sys.argv[1]]; "
    "from worker.decoding_umons import run; run(*map(int, sys.argv[2:]))"
)


class DecodingWorker:
    """
    Process that decodes files. It starts with the first file, and is killed and replaced if a file exceeds the limits.

    Nothing that it returns is unpickled. It may be used by several threads, one request at a time.

    Args:
        deadline_s: seconds for one window or clip.
        memory_mb: MiB that decoding may allocate, where the system can limit it.
    """

    def __init__(self, deadline_s: float = 300.0, memory_mb: int = 2048):
        self.deadline_s, self.memory_mb = deadline_s, memory_mb
        self.lock, self.keys = threading.Lock(), itertools.count()
        self.process: subprocess.Popen | None = None
        self.stop = lambda: None

    def read_clip(self, source: str | Path | bytes, **options: Any) -> Clip:
        """Decode a file or a range of it. Arguments and errors are those of [`~media_umons.read_clip`]."""
        with self.lock:
            return self._request(source, source, task="read_clip", options=options)

    def iter_windows(self, source: str | Path | bytes, window_s: float, **options: Any) -> Generator[Clip]:
        """Decode windows of a file. Arguments and errors are those of [`~media_umons.iter_windows`]."""
        key, process = next(self.keys), None
        try:
            for index in itertools.count():
                with self.lock:
                    self._start()
                    # The file is opened again if the worker was replaced because of another file.
                    opening = {} if process is self.process else {"window_s": window_s, "options": options}
                    sent, process = source if opening else None, self.process
                    clip = self._request(source, sent, task="next", key=key, index=index, **opening)
                if clip is None:
                    return
                yield clip
        finally:
            with self.lock:
                if process is not None and process is self.process:
                    with suppress(OSError):
                        self._request(source, None, task="close", key=key)

    def push(self, data: bytes, sampling_rate: int, is_last: bool = False) -> np.ndarray:
        """
        Decode the next piece of an audio file, see [`~stream_decoding_umons.StreamDecoder`]. A worker has one stream.
        """
        options = {"sampling_rate": sampling_rate, "is_last": is_last}
        with self.lock:
            return self._request("The stream", data, task="push", options=options).audio

    def close(self) -> None:
        """Kill the process, also while it decodes. The next file starts another one."""
        self.stop()

    def _start(self) -> None:
        if self.process is not None and self.process.poll() is None:
            return
        self.stop()
        limits = (str(math.ceil(self.deadline_s)), str(self.memory_mb))
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", COMMAND, str(Path(__file__).parent), *limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={
                **os.environ,
                "OPENBLAS_NUM_THREADS": "1",  # its threads would count as memory
                "MALLOC_ARENA_MAX": "2",
            },
        )
        self.stop = weakref.finalize(self, _stop, self.process)

    def _request(self, name: str | Path | bytes, source: str | Path | bytes | None, **request: Any) -> Clip | None:
        """Send a request, with the source if the worker does not have it, and return the clip of its reply."""
        self._start()
        name = f"<{len(name)} bytes>" if isinstance(name, bytes) else name
        process, data = self.process, source if isinstance(source, bytes) else b""
        request["path"] = None if source is None or isinstance(source, bytes) else str(source)
        timer = threading.Timer(self.deadline_s, process.kill)
        timer.start()
        is_answered = False
        try:
            _send(process.stdin, {**request, "num_bytes": len(data)}, data)
            reply = _receive(process.stdout)
            clip = _receive_clip(process.stdout, reply) if "shapes" in reply else None
            is_answered = True
            if reply.get("error", "OSError") not in ERRORS:
                raise OSError(f"{name} could not be decoded ({reply['error']}). Pass a smaller or undamaged file.")
            if "error" in reply:
                raise ERRORS[reply["error"]](reply["message"])
            return clip
        except (EOFError, BrokenPipeError) as error:
            raise OSError(
                f"{name}: decoding was stopped after {self.deadline_s:g} s or for lack of memory. Pass a smaller or "
                "undamaged file."
            ) from error
        finally:
            timer.cancel()
            if not is_answered:  # also after an interrupt: the next request would get this reply
                self.stop()


class DecodingPool:
    """
    Several `DecodingWorker`s, so that a slow file does not delay the others. Each starts with its first file.

    Args:
        size: number of workers.
        limits: arguments of the workers.
    """

    def __init__(self, size: int, **limits: Any):
        self.workers = [DecodingWorker(**limits) for _ in range(size)]
        self.num_files = dict.fromkeys(self.workers, 0)
        self.lock = threading.Lock()

    def iter_windows(self, source: str | Path | bytes, window_s: float, **options: Any) -> Generator[Clip]:
        """Decode windows of a file in the worker with the fewest files in progress."""
        with self.lock:
            worker = min(self.workers, key=self.num_files.__getitem__)
            self.num_files[worker] += 1
        try:
            yield from worker.iter_windows(source, window_s, **options)
        finally:
            with self.lock:
                self.num_files[worker] -= 1

    def close(self) -> None:
        """Kill the processes, also while they decode."""
        for worker in self.workers:
            worker.close()


def _stop(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        with suppress(OSError):  # a request that was not sent
            stream.close()


def _send(stream, header: dict[str, Any], *parts) -> None:
    stream.write(json.dumps(header).encode() + b"\n")
    for part in parts:
        stream.write(part)
    stream.flush()


def _receive(stream) -> dict[str, Any]:
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    return json.loads(line)


def _receive_clip(stream, reply: dict[str, Any]) -> Clip:
    arrays = {}
    for name, shape in reply.pop("shapes").items():
        arrays[name] = None if shape is None else np.empty(shape, DTYPES[name])
        if shape is not None and stream.readinto(arrays[name].reshape(-1).view(np.uint8)) != arrays[name].nbytes:
            raise EOFError
    return Clip(**arrays, **reply)


# In the worker


def run(deadline_s: int, memory_mb: int) -> None:
    """Answer the requests on standard input until it is closed."""
    import av  # noqa: F401  (before memory is limited)

    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing but replies is written to standard output
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    _limit_memory(memory_mb * 2**20)
    open_files: dict[Any, Any] = {}
    with suppress(EOFError, BrokenPipeError):
        while True:
            request = _receive(requests)
            data = requests.read(request["num_bytes"])
            if hasattr(signal, "alarm"):
                signal.alarm(deadline_s + 5)  # ends the process if its parent is gone
            clip = None
            try:
                clip, reply = _answer(request, data, open_files), {}
            except Exception as error:
                reply = {"error": type(error).__name__, "message": str(error)}
            if clip is None:
                _send(replies, reply)
            else:
                _send_clip(replies, clip)
            if hasattr(signal, "alarm"):
                signal.alarm(0)


def _answer(request: dict[str, Any], data: bytes, open_files: dict[Any, Any]) -> Clip | None:
    source, key = request["path"] or data, request.get("key")
    if request["task"] == "push":
        rate = request["options"]["sampling_rate"]
        if "stream" not in open_files:
            open_files["stream"] = StreamDecoder(rate)
        samples = open_files["stream"].push(data, request["options"]["is_last"])
        return Clip(samples, None, np.zeros(0), len(samples) / rate, rate)
    if request["task"] == "read_clip":
        return read_clip(source, **request["options"])
    if request["task"] == "close":
        open_files.pop(key).close()
        return None
    if "options" in request:
        open_files[key] = iter_windows(source, request["window_s"], **request["options"])
        for _ in range(request["index"]):
            next(open_files[key])
    return next(open_files[key], None)


def _send_clip(stream, clip: Clip) -> None:
    arrays = {name: getattr(clip, name) for name in DTYPES}
    header = {name: getattr(clip, name) for name in ("duration", "sampling_rate", "start")}
    shapes = {name: None if array is None else array.shape for name, array in arrays.items()}
    parts = [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays.values() if array is not None]
    _send(stream, {**header, "shapes": shapes}, *parts)


def _limit_memory(num_bytes: int) -> None:
    """Limit the memory that the process allocates from now on, on systems that can."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + num_bytes,) * 2)


__all__ = ["DecodingPool", "DecodingWorker"]
