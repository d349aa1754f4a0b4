"""
Process that opens mutated inputs with a memory limit and a deadline for each.

    python tests/fuzz/worker.py DOOR FIRST LAST [FOLDER]

It prints a line of JSON for each seed from FIRST to LAST - 1. With a single seed, this reproduces a failure: the input
remains in FOLDER.
"""

import faulthandler
import json
import logging
import os
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import numpy as np


DEADLINE = 30  # seconds for one input
MEMORY = 3 * 2**30  # bytes that the process may allocate after its start


def limit_memory() -> None:
    """Limit the memory that is allocated from now on, on systems that can."""
    try:
        import resource
    except ImportError:
        return
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY,) * 2)


def attempt(door, rng: np.random.Generator) -> dict:
    """Open one mutated input, and describe the result."""
    path = door.write(door.names[rng.integers(0, len(door.names))], rng)
    began = time.perf_counter()
    faulthandler.dump_traceback_later(DEADLINE, exit=True)
    try:
        door.open(path)
        outcome, message = "opened", ""
    except Exception as error:
        message = str(error)
        is_refused = isinstance(error, (OSError, ValueError)) and door.is_named(path, message)
        outcome = "refused" if is_refused else "unnamed" if isinstance(error, (OSError, ValueError)) else "traceback"
        message = message[-500:] if is_refused else traceback.format_exc()[-3000:]
    finally:
        faulthandler.cancel_dump_traceback_later()
    seconds = round(time.perf_counter() - began, 3)
    return {"file": path.name, "outcome": outcome, "seconds": seconds, "message": message, **describe_process()}


def describe_process() -> dict:
    """Return the number of open files and the memory of this process, 0 where the system does not tell."""
    if not os.path.isdir("/proc/self/fd"):
        return {"open_files": 0, "resident_mb": 0.0}
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {"open_files": len(os.listdir("/proc/self/fd")), "resident_mb": pages * os.sysconf("SC_PAGE_SIZE") / 2**20}


def main(name: str, first: int, last: int, folder: Path) -> None:
    sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]
    from doors import DOORS

    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print progress
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    door = DOORS[name](folder)
    for original in door.names:  # it imports everything
        door.open(door.write(original, None))
    limit_memory()
    for seed in range(first, last):
        rng = np.random.default_rng([list(DOORS).index(name), seed])
        print(json.dumps({"seed": seed, **attempt(door, rng)}), file=results, flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path([*sys.argv, temporary][4]))
