"""Mutated inputs at every door: each is opened or refused with a message that names it, in bounded time and memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


WORKER = Path(__file__).with_name("worker.py")
COUNTS = {
    "media": 300, "tables": 150, "csd": 80, "pickles": 120, "checkpoints": 80, "resumed_runs": 12, "word_vectors": 100,
    "model_folders": 120, "requests": 100,
}  # fmt: skip
FIRST_SEED = int(os.environ.get("FUZZ_SEED", "0"))
MAX_DEATHS = 3  # of the worker, after which the others are not tried
MAX_GROWTH = 8  # MB of resident memory over the second half of the media; a leak of each clip would make some 150


def run_worker(door: str, first: int, last: int, folder: Path) -> tuple[list[dict], str]:
    """Return a result for each seed until the worker ends, and its messages if it dies."""
    folder.mkdir()
    process = subprocess.run(
        [sys.executable, WORKER, door, str(first), str(last), str(folder)], capture_output=True, text=True
    )
    results = [json.loads(line) for line in process.stdout.splitlines()]
    return results, process.stderr[-5000:] if process.returncode else ""


@pytest.mark.parametrize("door", COUNTS)
def test_mutated_inputs_are_opened_or_refused(door, tmp_path):
    seed, last = FIRST_SEED, FIRST_SEED + COUNTS[door]
    results, failures = [], []
    while seed < last and len(failures) < MAX_DEATHS:
        found, death = run_worker(door, seed, last, tmp_path / str(seed))
        results += found
        seed += len(found)
        if death or seed < last:
            failures.append({"seed": seed, "outcome": "crash or hang", "message": death})
            seed += 1
    failures += [result for result in results if result["outcome"] not in ("opened", "refused")]
    report = "\n".join(f"{failure['outcome']} at seed {failure['seed']}: {failure['message']}" for failure in failures)
    assert not failures, f"{report}\nTo repeat one: python {WORKER} {door} SEED SEED+1 FOLDER"
    assert any(result["outcome"] == "refused" for result in results)  # the worker opens the originals first
    if door == "media" and results[0]["open_files"]:
        assert len({result["open_files"] for result in results}) == 1
        assert results[-1]["resident_mb"] - results[len(results) // 2]["resident_mb"] < MAX_GROWTH
