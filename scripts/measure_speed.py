"""Measure the speed and memory of models: clips with their words, and a first prediction by the command line.

    python scripts/measure_speed.py hub/umons-base hub/umons-mini --data DATA --output docs/speed_of_models.json

DATA has the folder `ravdess`. CPU seconds of one thread are measured next to those on the clock, which other programs
change.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from modeling_umons.data.layouts.ravdess import STATEMENTS
from modeling_umons.utils.files import write_atomically


NUM_CLIPS = 24
NUM_ROUNDS = 2


def measure_throughput(model: str, files: list[str]) -> dict[str, float]:
    """Return seconds of sound per second and per CPU second, of files with words in batches of eight."""
    from modeling_umons.inference.loading import load_pipeline
    from modeling_umons.models.umons.media_umons import read_clip

    recognize = load_pipeline(model)
    recognize.read_windows = type(recognize).read_windows  # in this process, whose CPU time is measured
    rate = recognize.processor.feature_extractor.sampling_rate
    seconds = sum(len(read_clip(file, video=False, sampling_rate=rate).audio) / rate for file in files)
    inputs = [{"audio": file, "text": STATEMENTS[int(Path(file).stem.split("-")[4]) - 1]} for file in files]
    recognize(inputs[:8], batch_size=8)
    on_clock, of_cpu = [], []
    for _ in range(NUM_ROUNDS):
        start, cpu_start = time.perf_counter(), time.process_time()
        recognize(inputs, batch_size=8)
        on_clock.append(time.perf_counter() - start)
        of_cpu.append(time.process_time() - cpu_start)
    return {"sound_s": seconds, "times_real_time": seconds / min(on_clock), "per_cpu_second": seconds / min(of_cpu)}


def measure_first_prediction(model: str, file: str) -> dict[str, float]:
    """Return seconds, CPU seconds and peak memory of `umons predict` in a new process."""
    command = [sys.executable, "-m", "modeling_umons", "predict", file, "--text", STATEMENTS[0], "--model", model]
    found = []
    for _ in range(NUM_ROUNDS):
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} failed with exit status {process.returncode}.")
        found.append((time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024))
    names = ("seconds", "cpu_seconds", "peak_mib")
    return {name: statistics.median(values) for name, values in zip(names, zip(*found, strict=True), strict=True)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="folders of models")
    parser.add_argument("--data", type=Path, required=True, help="folder of the corpora")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write; other models in it are kept")
    arguments = parser.parse_args()
    report = json.loads(arguments.output.read_text(encoding="utf-8")) if arguments.output.is_file() else {}
    files = sorted(str(file) for file in (arguments.data / "ravdess").glob("actor_1[89]/*.flac"))[::3][:NUM_CLIPS]
    for model in arguments.models:
        measured = {
            "clips": measure_throughput(model, files),
            "first_prediction": measure_first_prediction(model, files[0]),
        }
        report[Path(model).name] = measured
        write_atomically(arguments.output, json.dumps(report, indent=2) + "\n")
        print(json.dumps(measured, indent=2))


if __name__ == "__main__":
    main()
