"""Extraction, prediction and evaluation on a Ray cluster of three nodes on loopback, one of which is killed."""

import csv
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from modeling_umons import EMOTIONS
from modeling_umons.inference.logits import ROWS_PER_PART
from modeling_umons.utils.hub_files import UMONS_MINI


DEADLINE = 240  # seconds; none of what is waited for takes half of it
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra ray)"),
]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def is_actor(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return "_RayWriter" in " ".join(process.cmdline())
    return False


class Cluster:
    """A head and two workers of `ray start`, with one CPU each: two actors leave one CPU for a restart."""

    def __init__(self, folder: str):
        self.folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        self.environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "RAY_ADDRESS": self.address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": uuid.uuid4().hex,
        }
        port = self.address.partition(":")[2]
        head = ["--head", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false"]
        self.nodes: list[psutil.Process] = []
        self.options = [head, [f"--address={self.address}"], [f"--address={self.address}"]]

    def __enter__(self) -> "Cluster":
        try:
            for options in self.options:
                self.start_node(*options)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error) -> None:
        for node in reversed(self.nodes):
            self.kill(node)

    def start_node(self, *options: str) -> None:
        """Start a node, and wait until it belongs to the cluster."""
        command = [
            Path(sys.executable).with_name("ray"), "start", "--block", "--node-ip-address=127.0.0.1", "--num-cpus=1",
            "--num-gpus=0", f"--object-store-memory={80 * 2**20}", "--disable-usage-stats", *options,
        ]  # fmt: skip
        log = Path(self.folder, f"node-{time.monotonic_ns()}.log")
        with open(log, "w") as file:
            self.nodes.append(psutil.Popen(command, stdout=file, stderr=file, env=self.environment))
        node = self.nodes[-1]
        self.wait_for(lambda: "Ray runtime started" in log.read_text(), node, log)

    def busy_nodes(self) -> list[psutil.Process]:
        """Return the worker nodes that run an actor."""
        return [node for node in self.nodes[1:] if any(map(is_actor, node.children(recursive=True)))]

    @staticmethod
    def wait_for(condition: Callable[[], Any], process: subprocess.Popen | psutil.Popen, log: Path) -> None:
        """Wait until a condition holds. Fail with the log if the process has ended."""
        deadline = time.monotonic() + DEADLINE
        while not condition() and process.poll() is None:
            assert time.monotonic() < deadline
            with suppress(subprocess.TimeoutExpired, psutil.TimeoutExpired):
                process.wait(0.2)
        assert process.poll() is None, log.read_text()

    @staticmethod
    def kill(node: psutil.Process) -> None:
        """Kill a node with all its processes, as a machine that fails."""
        processes = [node, *node.children(recursive=True)] if is_alive(node) else []
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, timeout=DEADLINE)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    folder = tempfile.mkdtemp(prefix="ray")  # the paths of sockets are limited to 107 bytes
    with Cluster(folder) as cluster:
        yield cluster
    shutil.rmtree(folder, ignore_errors=True)


def run_and_kill_node(cluster: Cluster, command: list, parts: Callable[[], list]) -> None:
    """Run a command on two actors, kill a worker node with an actor after the first parts, and replace it."""
    log = Path(cluster.folder, f"{command[0]}.log")
    with open(log, "w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "modeling_umons", *map(str, command), "--engine", "ray", "--num_proc", "2"],
            stdout=file,
            stderr=file,
            env=cluster.environment,
        )
    try:
        cluster.wait_for(parts, process, log)
        node = cluster.busy_nodes()[0]
        cluster.kill(node)
        cluster.nodes.remove(node)
        process.wait(DEADLINE)
        assert process.returncode == 0, log.read_text()
    finally:
        process.kill()
    cluster.start_node(f"--address={cluster.address}")


def write_texts(path: Path, number: int) -> Path:
    """Write a table of texts with labels of the sentiment and the emotions."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "sentiment", *EMOTIONS])
        for i in range(number):
            writer.writerow([f"r{i}", f"so {'sad' if i % 3 else 'glad'} number {i}", -1 if i % 3 else 1, *[i % 2] * 6])
    return path


def test_prediction_survives_a_killed_node(cluster, tmp_path):
    source, output = write_texts(tmp_path / "rows.csv", 6000), tmp_path / "out.parquet"
    work = output.with_name("out.parquet.parts")
    command = ["predict", source, "--output", output, "--model", UMONS_MINI, "--shard_size", 100]
    run_and_kill_node(cluster, command, lambda: list(work.glob("part-*")))
    rows = pq.read_table(output, columns=["row", "id", "error"]).to_pylist()
    assert rows == [{"row": i, "id": f"r{i}", "error": None} for i in range(6000)]


def test_extraction_survives_a_killed_node(cluster, root, tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(400):
        os.link(root / "hub" / "sample" / "clips" / f"{number % 120:03d}.mp4", folder / f"{number:03d}.mp4")
    command = ["extract", "--input", folder, "--output", tmp_path / "out", "--shard_size", 8]
    data = tmp_path / "out" / "data"
    run_and_kill_node(cluster, command, lambda: list(data.glob("train-*")))
    names = [name for path in sorted(data.iterdir()) for name in pq.read_table(path)["video_id"].to_pylist()]
    assert names == [f"{number:03d}" for number in range(400)]


def test_evaluation_survives_a_killed_node(cluster, tmp_path):
    source = write_texts(tmp_path / "rows.csv", 8 * ROWS_PER_PART)
    options = ["evaluate", "--model", UMONS_MINI, "--dataset", source, "--split", "test", "--num_bootstrap", 10]
    run_and_kill_node(
        cluster, [*options, "--output", tmp_path / "ray"], lambda: list(tmp_path.glob("ray/.logits-*/part-*"))
    )
    subprocess.run(
        [sys.executable, "-m", "modeling_umons", *map(str, options), "--output", tmp_path / "one"], check=True
    )
    ray, one = (json.loads((tmp_path / name / "report.json").read_text())["splits"] for name in ("ray", "one"))
    assert ray["test"]["rows"] == 8 * ROWS_PER_PART
    assert ray == one
