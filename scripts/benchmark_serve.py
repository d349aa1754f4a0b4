#!/usr/bin/env python
"""Measure `umons serve`: requests per second and latency, with requests answered in batches and one by one.

    python scripts/benchmark_serve.py
    python scripts/benchmark_serve.py --seconds 5 --rounds 7 --output docs/benchmarks

Two servers of the same model run, one with batches and one without. Clients keep their connections and send the next
request when the last is answered. Each round asks for everything once, of the servers in turns, so that what else the machine
does falls on all alike. Figures are medians over the rounds; the ratio is the median of each round's own, with the least and the
most of them beside it. It takes less than two minutes. A Markdown table goes to the screen, and with --output to
<folder>/serve.md.
"""

import argparse
import http.client
import json
import os
import platform
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import transformers


ROOT = Path(__file__).resolve().parent.parent
CLIP = ROOT / "hub" / "sample" / "clips" / "000.mp4"
SERVERS = {"batches": 8, "one by one": 1}  # max_batch_size of each


@contextmanager
def serving(model: str | None, max_batch_size: int):
    """A server in a process of its own; yields its host and port."""
    command = [sys.executable, "-m", "modeling_umons.cli.main", "serve", "--port", "0"]
    command += ["--max_batch_size", str(max_batch_size), *(["--model", model] if model else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            line = process.stdout.readline()
            if "answers at http://" not in line:
                raise OSError("`umons serve` did not start: its message is above.")
            yield line.split("http://")[1].partition("/")[0]
        finally:
            process.terminate()


def load(address: str, headers: dict[str, str], body: bytes, num_clients: int, seconds: float) -> dict[str, float]:
    """Requests per second, and latencies in ms, of so many clients at once."""
    latencies, failures, start = [], [], threading.Barrier(num_clients + 1)

    def send_on():
        connection = http.client.HTTPConnection(address, timeout=60)
        try:
            connection.connect()
            start.wait()
            end = time.perf_counter() + seconds
            while (began := time.perf_counter()) < end:
                connection.request("POST", "/predict", body, headers)
                response = connection.getresponse()
                answer = response.read()
                if response.status != 200:
                    raise OSError(f"status {response.status}: {answer[:200]!r}")
                latencies.append(time.perf_counter() - began)
        except (OSError, http.client.HTTPException, threading.BrokenBarrierError) as error:
            failures.append(error)
            start.abort()
        finally:
            connection.close()

    clients = [threading.Thread(target=send_on) for _ in range(num_clients)]
    for client in clients:
        client.start()
    try:
        start.wait()
        began = time.perf_counter()
    finally:
        for client in clients:
            client.join()
    if failures:
        raise OSError(f"{len(failures)} of {num_clients} clients failed, the first with: {failures[0]}")
    p50, p95 = np.percentile(latencies, [50, 95]) * 1000
    return {"rate": len(latencies) / (time.perf_counter() - began), "p50": p50, "p95": p95}


def mean_batch(address: str) -> float:
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("GET", "/metrics")
    found = json.loads(connection.getresponse().read())["mean_batch_size"]
    connection.close()
    return found


def measure(addresses: dict[str, str], arguments: argparse.Namespace) -> list[str]:
    """Rows of the table, one for each kind of request and number of clients."""
    text = json.dumps({"inputs": {"text": "The carpet in that hostel was filthy and disgusting."}}).encode()
    requests = {
        "text": ({"Content-Type": "application/json"}, text),
        "clip of 3 s": ({"Content-Type": "video/mp4"}, CLIP.read_bytes()),
    }
    loads = [(kind, num_clients) for kind in requests for num_clients in arguments.clients]
    found = {(*load_of, name): [] for load_of in loads for name in addresses}
    for i in range(-1, arguments.rounds):  # the first does not count
        for kind, num_clients in loads:
            for name in list(addresses)[:: 1 if i % 2 else -1]:
                seconds = arguments.seconds if i >= 0 else 0.3
                figures = load(addresses[name], *requests[kind], num_clients, seconds)
                if i >= 0:
                    found[kind, num_clients, name].append(figures)
    return [
        as_row(kind, num_clients, [found[kind, num_clients, name] for name in addresses])
        for kind, num_clients in loads
    ]


def as_row(kind: str, num_clients: int, found: list[list[dict[str, float]]]) -> str:
    """A row of the table, of the figures of each server's rounds."""
    cells = [kind, str(num_clients)]
    for rounds in found:
        middle = {key: float(np.median([one[key] for one in rounds])) for key in rounds[0]}
        cells += [f"{middle['rate']:.0f}", f"{middle['p50']:.1f}", f"{middle['p95']:.1f}"]
    with_batches, without = ([one["rate"] for one in rounds] for rounds in found)
    ratios = np.divide(with_batches, without)
    cells.append(f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})")
    return f"| {' | '.join(cells)} |"


def report(rows: list[str], batch: float, machine: str, arguments: argparse.Namespace) -> str:
    columns = ["Request", "Clients"]
    for name in SERVERS:
        columns += [f"{name}: per second", "p50 ms", "p95 ms"]
    lines = [
        "# Requests to `umons serve`",
        "",
        f"{machine}. Medians of {arguments.rounds} round(s) of {arguments.seconds:g} s; in brackets the least and the most.",
        "",
        f"| {' | '.join([*columns, 'Times the rate'])} |",
        f"|{'---|' * (len(columns) + 1)}",
        *rows,
        "",
        f"- Batches: up to {SERVERS['batches']} segments, of requests that wait up to 5 ms for others on their way; {batch:.1f} in the mean of the run. "
        "One by one: a server with `--max_batch_size 1`. They are asked in turns.",
        f"- The clip is `{CLIP.relative_to(ROOT)}`, sent as it is; text is JSON of one sentence.",
        "- Clients share the machine with the server, and send their next request when the last is answered.",
    ]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder or Hub repository (default: hub/umons-mini)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32], help="at once (default: 1 8 32)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load in a round (default: 3)")
    parser.add_argument("--rounds", type=int, default=3, help="that count (default: 3)")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where serve.md goes")
    arguments = parser.parse_args()
    machine = (
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f} at the start; {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}"
    )
    with (
        serving(arguments.model, SERVERS["batches"]) as first,
        serving(arguments.model, SERVERS["one by one"]) as second,
    ):
        rows = measure(dict(zip(SERVERS, (first, second), strict=True)), arguments)
        text = report(rows, mean_batch(first), machine, arguments)
    print(text)
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "serve.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
