#!/usr/bin/env python
"""Measure live predictions: latency, simultaneous streams of a server, and memory over hours.

    python scripts/benchmark_live.py latency load memory --output docs/benchmarks/live.json
    python scripts/benchmark_live.py latency --model umons-base --transcriber FOLDER --hop_length_s 1
    python scripts/benchmark_live.py load --num_streams 20 --seconds 30

parts:
  latency  seconds from the last sample of a hop to its event, one stream, one thread; also in seconds of the CPU,
           which other programs on the machine do not change
  load     the same at the clients of `umons serve`, with all streams in real time, and the cores that the server uses
  memory   resident memory after each simulated hour, as fast as the model allows

The audio are the sample clips, repeated. A row is added to the JSON list of --output for each part.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from websockets.asyncio.client import connect

from modeling_umons.inference.loading import load_pipeline, load_transcriber
from modeling_umons.models.umons.media_umons import read_clip
from modeling_umons.utils.files import atomic_path


ROOT = Path(__file__).resolve().parents[1]
RATE = 16_000
CHUNK_S = 0.1  # seconds per message, as of a browser


def read_speech(seconds: float) -> np.ndarray:
    """Return int16 (num_samples,) of the sample clips, repeated."""
    clips = sorted((ROOT / "hub" / "sample" / "clips").glob("*.mp4"))[:20]
    audio = np.concatenate([read_clip(clip, video=False, sampling_rate=RATE).audio for clip in clips])
    samples = np.round(audio * 32767).astype(np.int16)
    return np.resize(samples, round(seconds * RATE))


def summarize(latencies: list[float]) -> dict[str, float]:
    p50, p95 = np.percentile(latencies, [50, 95])
    return {"num_events": len(latencies), "p50_ms": round(1000 * p50, 1), "p95_ms": round(1000 * p95, 1)}


def measure_latency(arguments: argparse.Namespace) -> dict:
    """Push hop by hop, and time each push with a full window."""
    torch.set_num_threads(1)
    recognize = load_pipeline(arguments.model, pack=True)
    options = {}
    if arguments.transcriber is not None:
        options["transcriber"] = load_transcriber(arguments.transcriber)
    stream = recognize.live(RATE, hop_length_s=arguments.hop_length_s, **options)
    size, latencies, cpu = round(arguments.hop_length_s * RATE), [], []
    samples = read_speech(arguments.seconds + stream.chunk_length_s)
    for first in range(0, len(samples), size):
        began, cpu_began = time.perf_counter(), time.process_time()
        events = stream.push(samples[first : first + size])
        if events and stream.duration > stream.chunk_length_s:
            latencies.append(time.perf_counter() - began)
            cpu.append(time.process_time() - cpu_began)
    return {**summarize(latencies), **{f"cpu_{name}": value for name, value in summarize(cpu).items() if "ms" in name}}


def measure_load(arguments: argparse.Namespace) -> dict:
    """Start a server and its clients."""
    umons = Path(sys.executable).with_name("umons")
    command = [umons, "serve", "--port", "0", "--max_streams", str(arguments.num_streams)]
    command += ["--model", arguments.model] if arguments.model else []
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().strip().rpartition(" ")[2]
        if not url:
            raise SystemExit("The server did not start.")
        address = url.replace("http", "ws").replace("/predict", "/stream")
        process = psutil.Process(server.pid)
        before, began = process.cpu_times(), time.perf_counter()
        found = asyncio.run(_run_clients(f"{address}?sampling_rate={RATE}", arguments))
        after, seconds = process.cpu_times(), time.perf_counter() - began
        cores = (after.user + after.system - before.user - before.system) / seconds
        expected = arguments.num_streams * int(arguments.seconds / arguments.hop_length_s)
        counts = {"num_streams": arguments.num_streams, "num_expected": expected, "cores_used": round(cores, 2)}
        return {**counts, **summarize(found)}
    finally:
        server.terminate()
        server.wait(30)
        server.stdout.close()


async def _run_clients(url: str, arguments: argparse.Namespace) -> list[float]:
    samples = read_speech(arguments.seconds).astype("<i2")
    url = f"{url}&hop_length_s={arguments.hop_length_s}"
    delays = np.random.default_rng(0).uniform(0, arguments.hop_length_s, arguments.num_streams)
    clients = [_run_client(url, samples, delay) for delay in delays]
    return [latency for of_client in await asyncio.gather(*clients) for latency in of_client]


async def _run_client(url: str, samples: np.ndarray, delay: float) -> list[float]:
    """Send the samples in real time, and return the seconds from the last sample of each event to the event."""
    await asyncio.sleep(delay)
    size, latencies = round(CHUNK_S * RATE), []
    async with connect(url, proxy=None, compression=None) as socket:
        await socket.recv()
        began = time.perf_counter()

        async def receive():
            async for message in socket:
                event = json.loads(message)
                if event["type"] == "error":
                    raise SystemExit(f"The server ended a stream: {event['message']}")
                if event["type"] == "prediction":
                    end = -(-event["timestamp"][1] // CHUNK_S) * CHUNK_S  # its last sample is sent with its message
                    latencies.append(time.perf_counter() - began - end)

        receiver = asyncio.create_task(receive())
        for index in range(0, len(samples), size):
            # A message is sent when its last sample is recorded.
            await asyncio.sleep(max(0.0, began + (index + size) / RATE - time.perf_counter()))
            await socket.send(samples[index : index + size].tobytes())
        await socket.send('{"type": "end"}')
        await receiver
    return latencies


def measure_memory(arguments: argparse.Namespace) -> dict:
    """Push hours of audio, and read the memory after each."""
    torch.set_num_threads(1)
    recognize, process = load_pipeline(arguments.model, pack=True), psutil.Process()
    stream = recognize.live(RATE, hop_length_s=arguments.memory_hop_length_s)
    samples, resident = read_speech(60.0), []
    for _ in range(arguments.hours):
        for _ in range(60):
            stream.push(samples)
        resident.append(round(process.memory_info().rss / 2**20, 1))
        print(f"hour {len(resident)}: {resident[-1]} MiB", file=sys.stderr, flush=True)
    return {"hours": arguments.hours, "hop_length_s": arguments.memory_hop_length_s, "resident_mib": resident}


PARTS = {"latency": measure_latency, "load": measure_load, "memory": measure_memory}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=list(PARTS), metavar="PART", help="latency, load or memory")
    parser.add_argument("--model", default="umons-mini", help="folder or name (default: umons-mini)")
    parser.add_argument("--transcriber", help="speech recognition model, for latency")
    parser.add_argument("--hop_length_s", type=float, default=0.5, help="seconds between events (default: 0.5)")
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds of audio (default: 60)")
    parser.add_argument("--num_streams", type=int, default=20, help="streams of load (default: 20)")
    parser.add_argument("--hours", type=int, default=8, help="simulated hours of memory (default: 8)")
    parser.add_argument(
        "--memory_hop_length_s", type=float, default=6.0, help="seconds between events of memory (default: 6)"
    )
    parser.add_argument("--output", type=Path, help="JSON file to which rows are added")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    rows = []
    for part in arguments.parts:
        settings = {"model": arguments.model, "transcriber": arguments.transcriber is not None}
        settings |= {"hop_length_s": arguments.hop_length_s, "num_cores": len(os.sched_getaffinity(0))}
        rows.append({"part": part, **settings, **PARTS[part](arguments)})
        print(json.dumps(rows[-1]), flush=True)
    if arguments.output is not None:
        before = json.loads(arguments.output.read_text()) if arguments.output.exists() else []
        with atomic_path(arguments.output) as path:
            path.write_text(json.dumps([*before, *rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
