#!/usr/bin/env python
"""Measure training from a stream and with two processes, on CPUs. The result is one JSON.

    python scripts/measure_scale.py --output docs/benchmarks/scale.json
    python scripts/measure_scale.py speed --rounds 7

phases:
  memory   resident memory while a million rows are streamed from Parquet files, once
  speed    rows per CPU second of batches of the paper's features from a stream, relative to rows on the disk
  scaling  rows/s of `umons train` with two processes, relative to twice those of one process with one thread

Rounds of both sides alternate; the result has each round and the medians. Requires `modeling-umons[train]` and psutil.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from datasets import load_dataset
from torch.utils.data import DataLoader

from modeling_umons import build_tokenizer
from modeling_umons.data.collator import ArrowRows, UtteranceCollator
from modeling_umons.data.prepare import write_parquet
from modeling_umons.data.schema import make_features, to_table
from modeling_umons.data.streams import RowStream, open_stream
from modeling_umons.tasks.task import make_task
from modeling_umons.utils.files import write_atomically


ROOT = Path(__file__).resolve().parent.parent
WORDS = [f"w{i}" for i in range(2000)]
BATCH_SIZE = 32
NUM_SAMPLES = 20  # of the resident memory
NUM_TRAINED = 192  # rows of an epoch of `scaling`
# A quarter of the paper's widths: epochs take seconds. Computation and gradients shrink by the same factor.
SIZES = {"hidden_size": 128, "intermediate_size": 256}


def write_files(folder: Path, sizes: dict[str, int], num_steps: int, num_values: int) -> None:
    """Write a Parquet file of each size, by name, of random rows of up to `num_steps` words and frames."""
    (folder / "data").mkdir(parents=True)
    for name, num_rows in sizes.items():
        random = np.random.default_rng(len(name))
        rows = [
            {
                "segment_id": str(i),
                "text": " ".join(random.choice(WORDS, num_steps)),
                "audio_features": random.random((num_steps - i % (num_steps // 2), num_values), dtype=np.float32),
                "sentiment": random.uniform(-3, 3),
            }
            for i in range(num_rows)
        ]
        write_parquet(to_table(rows, make_features(num_values)), folder / "data" / f"{name}.parquet")


def make_collator(num_values: int) -> UtteranceCollator:
    return UtteranceCollator(["text", "audio"], build_tokenizer(WORDS), make_task("sentiment"), audio_size=num_values)


def open_batches(folder: Path, num_values: int) -> Iterator[dict[str, torch.Tensor]]:
    """Read batches of the training files as `umons train --streaming true` does."""
    collator = make_collator(num_values)
    stream = RowStream(
        open_stream(folder, None, collator.columns)["train"], collator, BATCH_SIZE, seed=0, buffer_size=10_000
    )
    return iter(DataLoader(stream, batch_size=None, collate_fn=stream.collate))


def measure_memory(settings: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory() as name:
        num_files, size = 20, settings.rows // 20
        first = {"train-00": size}
        write_files(Path(name), first, num_steps=8, num_values=4)
        data = Path(name, "data")
        for number in range(1, num_files):
            os.link(data / "train-00.parquet", data / f"train-{number:02d}.parquet")
        batches, process = open_batches(Path(name), 4), psutil.Process()
        num_batches, resident = settings.rows // BATCH_SIZE, []
        began = time.perf_counter()
        for number in range(num_batches):
            next(batches)
            if (number + 1) % (num_batches // NUM_SAMPLES) == 0:
                resident.append(round(process.memory_info().rss / 1e6, 1))
        seconds = time.perf_counter() - began
    half = len(resident) // 2
    growth = statistics.median(resident[half:]) - statistics.median(resident[:half])
    return {
        "rows": num_batches * BATCH_SIZE,
        "rows_per_s": round(settings.rows / seconds),
        "resident_mb": resident,
        "growth_of_second_half_mb": round(growth, 1),
    }


def count_rate(batches: Iterator[Any], num_batches: int) -> float:
    """Return the rows per second of CPU time."""
    began = time.process_time()
    for _ in itertools.islice(batches, num_batches):
        pass
    return num_batches * BATCH_SIZE / (time.process_time() - began)


def measure_speed(settings: argparse.Namespace) -> dict:
    """A round of each side is one pass over 8,192 rows of 60 words and 31 to 60 frames of 80 values."""
    num_rows, num_batches = 8192, 8192 // BATCH_SIZE
    with tempfile.TemporaryDirectory() as name:
        write_files(Path(name), dict.fromkeys(("train-0", "train-1"), num_rows // 2), num_steps=60, num_values=80)
        rows = load_dataset(name, split="train", cache_dir=f"{name}/cache")
        on_disk = DataLoader(ArrowRows(rows), BATCH_SIZE, shuffle=True, collate_fn=make_collator(80))
        streamed = open_batches(Path(name), 80)

        def compare() -> tuple[float, float]:
            return count_rate(streamed, num_batches), count_rate(iter(on_disk), num_batches)

        compare()  # warm-up
        return summarize("streamed", "on_disk", [compare() for _ in range(settings.rounds)], factor=1)


def train(folder: Path, num_processes: int) -> float:
    """Return the training rows/s of the second epoch of a model of `SIZES`."""
    output = folder / f"run-{num_processes}"
    options = {
        "dataset_name": folder / "rows", "task": "sentiment", "modalities": "text audio", "num_train_epochs": 2,
        "per_device_train_batch_size": BATCH_SIZE, "max_halvings": 0, "report_to": "none", "output_dir": output,
        **SIZES,
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", *str(value).split())]
    config = ROOT / "modeling_umons" / "recipes" / "accelerate" / "two_processes.yaml"
    launcher = [Path(sys.executable).with_name("accelerate"), "launch", "--quiet", "--config_file", config]
    command = [*(launcher if num_processes > 1 else [sys.executable]), ROOT / "scripts" / "train.py", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
    subprocess.run(list(map(str, command)), env=environment, check=True, stdout=subprocess.DEVNULL)
    report = json.loads((output / "report" / "report.json").read_text())
    return NUM_TRAINED / [entry["epoch_seconds"] for entry in report["history"] if "epoch_seconds" in entry][-1]


def measure_scaling(settings: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory() as name:
        write_files(Path(name, "rows"), {"train-0": NUM_TRAINED, "validation-0": 8}, num_steps=60, num_values=80)
        rounds = [(train(Path(name), 2), train(Path(name), 1)) for _ in range(settings.rounds)]
    return {**SIZES, **summarize("two_processes", "one_process", rounds, factor=2)}


def summarize(name: str, baseline: str, rounds: list[tuple[float, float]], factor: int) -> dict:
    """Return rates and the ratios of the first to `factor` times the second."""
    ratios = [round(first / (factor * second), 3) for first, second in rounds]
    return {
        f"{name}_rows_per_s": [round(first, 1) for first, _ in rounds],
        f"{baseline}_rows_per_s": [round(second, 1) for _, second in rounds],
        "ratios": ratios,
        "median_ratio": statistics.median(ratios),
    }


PHASES: dict[str, Callable[[argparse.Namespace], dict]] = {
    "memory": measure_memory,
    "speed": measure_speed,
    "scaling": measure_scaling,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("phases", nargs="*", metavar="phase", help="phases to run (default: all)")
    add("--rounds", type=int, default=5, help="rounds of speed and scaling (default: %(default)s)")
    add("--rows", type=int, default=1_000_000, help="rows of memory (default: %(default)s)")
    add("--output", type=Path, help="file of the JSON; phases that are not run keep their results")
    settings = parser.parse_args()
    if unknown := sorted(set(settings.phases) - set(PHASES)):
        parser.error(f"unknown phase(s) {', '.join(unknown)}; choose from {', '.join(PHASES)}")
    torch.set_num_threads(1)
    is_kept = settings.output is not None and settings.output.exists()
    results = json.loads(settings.output.read_text()) if is_kept else {}
    results["machine"] = {"cores": psutil.cpu_count(), "python": platform.python_version(), "torch": torch.__version__}
    for name in settings.phases or PHASES:
        load = round(os.getloadavg()[0], 1)
        results[name] = {**PHASES[name](settings), "load_before": load}
        print(json.dumps({name: results[name]}), file=sys.stderr, flush=True)
        if settings.output is not None:
            write_atomically(settings.output, json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
