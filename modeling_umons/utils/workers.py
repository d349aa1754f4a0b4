"""Pools of worker processes that end with their parent and compute on one thread each."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any


# A fork of a process with threads, which torch and pyarrow start, may hang.
CONTEXT = get_context("spawn")


@contextmanager
def worker_pool(num_proc: int, initializer: Callable, *arguments: Any) -> Iterator[ProcessPoolExecutor]:
    """
    Yield a pool of `num_proc` processes, each of which calls `initializer(*arguments)` first. Pending calls are
    cancelled at the end of the block.

    Raises:
        OSError: a worker process died.
    """
    pool = ProcessPoolExecutor(num_proc, CONTEXT, _start_worker, (initializer, *arguments))
    try:
        yield pool
    except BrokenProcessPool as error:
        raise OSError("A worker process died, perhaps for lack of memory: use a smaller --num_proc.") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(initializer: Callable, *arguments: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    limit_threads()
    initializer(*arguments)


def _end_with_parent() -> None:
    """Exit when the parent process does, even if it is killed."""
    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def limit_threads(num_threads: int = 1) -> None:
    """Set the CPU threads of torch, if it is imported: worker processes share the cores."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(num_threads)
