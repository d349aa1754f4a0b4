"""Runs over the rows of an input, shard by shard: resumable; in this process, in several, or in actors of Ray.

A shard is a Parquet file that is written atomically, with the failures of its rows in its metadata. A run that is
killed therefore resumes with the missing shards, and no row is written twice.
"""

import csv
import io
import json
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ..utils.files import atomic_path, write_atomically
from ..utils.progress import Progress
from ..utils.tables import escape_formula
from ..utils.workers import CONTEXT, limit_threads, worker_pool


FAILURES_KEY = b"failures"  # in the metadata of a shard, so that both are written together
POLL_S = 0.2
MAX_LOSSES = 3  # actors of Ray that may die with the same shard, or before they have one

Failure = tuple[int, str, str]  # row, name of the input, reason
# Computes the table and the failures of some rows; calls its second argument with numbers of rows that are done.
Compute = Callable[[Sequence[int], Callable[[int], Any]], tuple[pa.Table, list[Failure]]]


@dataclass
class Shard:
    """A file to write, by its name below the output folder, and its rows of the input."""

    name: str
    rows: Sequence[int]


def plan_parts(num_rows: int, size: int) -> list[Shard]:
    """Plan shards of `size` rows, in the order of the input."""
    starts = range(0, num_rows, size)
    return [
        Shard(f"part-{number:06d}-of-{len(starts):06d}.parquet", range(start, min(start + size, num_rows)))
        for number, start in enumerate(starts)
    ]


@dataclass(frozen=True)
class Engine:
    """
    Processes that compute the shards.

    Attributes:
        name: "local" for processes of this machine, or "ray" for actors of a Ray cluster.
        num_proc: number of processes or actors; `None` is one for each GPU, or one.
        gpus_per_worker: GPUs of an actor of Ray, such as 0.25 for four actors on each GPU.

    Raises:
        ValueError: a number is too small, or Ray is started by a launcher.
    """

    name: str = "local"
    num_proc: int | None = None
    gpus_per_worker: float = 1.0

    def __post_init__(self):
        if self.name not in ("local", "ray"):
            raise ValueError(f"--engine is {self.name!r}; it must be 'local' or 'ray'.")
        if self.num_proc is not None and self.num_proc < 1:
            raise ValueError(f"--num_proc is {self.num_proc}; it must be at least 1.")
        if self.gpus_per_worker <= 0:
            raise ValueError(f"--gpus_per_worker is {self.gpus_per_worker:g}; it must be above 0.")
        if self.name == "ray" and _world_size() > 1:
            raise ValueError("Ray starts its own processes: start --engine ray once, without a launcher.")


class ShardWriter:
    """
    Writer of shards, in a process or an actor of Ray.

    Args:
        build: builds what computes the rows, from the number of this worker on its machine, which selects the GPU.
        shards: all shards.
        folder: output folder.
        number: number of this worker.
        on_rows: called with the number of rows that are done since the last call.
    """

    def __init__(
        self,
        build: Callable[[int], Compute],
        shards: list[Shard],
        folder: str,
        number: int = 0,
        on_rows: Callable[[int], Any] = lambda count: None,
    ):
        self.shards, self.folder, self.on_rows = shards, Path(folder), on_rows
        self.compute = build(number)

    def write(self, index: int) -> int:
        """Write a shard if it is missing, and return its number of rows."""
        shard = self.shards[index]
        if not (self.folder / shard.name).exists():  # an actor that was taken for dead may have written it
            self._write(shard)
        return len(shard.rows)

    def _write(self, shard: Shard) -> None:
        table, failures = self.compute(shard.rows, self.on_rows)
        schema = table.schema.with_metadata({**(table.schema.metadata or {}), FAILURES_KEY: json.dumps(failures)})
        path = self.folder / shard.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_output(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
            if len(table):  # `datasets` reads a file without row groups, but no row group without rows
                writer.write_table(table.cast(schema))


@contextmanager
def open_output(path: Path) -> Iterator[Path]:
    """Yield a temporary path as `atomic_path`. Raises OSError with the name of the file if it cannot be written."""
    try:
        with atomic_path(path) as temporary:
            yield temporary
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}. The same command resumes.") from error


def write_shards(
    build: Callable[[int], Compute],
    shards: list[Shard],
    folder: Path,
    engine: Engine,
    *,
    label: str,
    unit: str = "row",
    uses_gpu: bool = True,
) -> bool:
    """
    Write the missing shards. Under a launcher that sets RANK and WORLD_SIZE, the ranks share them.

    Args:
        build: builds what computes the rows, from the number of the worker. It is pickled.
        shards: all shards.
        folder: output folder.
        engine: processes that compute the shards.
        label, unit: names of the work and of a row in the progress.
        uses_gpu: whether workers compute on GPUs.

    Returns:
        Whether this is the only or first rank, for which all shards are there.
    """
    rank = int(os.environ.get("RANK", 0))
    mine = range(rank, len(shards), _world_size())
    pending = [i for i in mine if not (folder / shards[i].name).exists()]
    total = sum(len(shards[i].rows) for i in mine)
    done = total - sum(len(shards[i].rows) for i in pending)
    if pending:
        run = _run_ray if engine.name == "ray" else _run_local
        with Progress(label, total, done, unit, is_shown=rank == 0) as progress:
            run(build, shards, str(folder), pending, engine, progress, uses_gpu)
    if rank > 0:
        return False
    while not all((folder / shard.name).exists() for shard in shards):
        time.sleep(POLL_S)  # other ranks are still running; a launcher ends this one if they die
    return True


def check_record(path: Path, record: dict[str, Any], content: str, remedy: str, has_other_files: bool) -> None:
    """
    Write everything that the shards depend on for later runs, or compare it with that of an earlier run.

    Args:
        path: JSON file in the output folder.
        record: JSON values.
        content: name of the content of the folder, for messages.
        remedy: how to proceed with a folder of another run.
        has_other_files: whether the folder has files, which must not be there before the record is written.

    Raises:
        ValueError: the folder has other files, or shards of other settings; the message names them.
    """
    record = json.loads(json.dumps(record, default=str))
    if not path.is_file():
        if has_other_files:
            raise ValueError(f"{path.parent} holds other files than {content}: {remedy}.")
        write_atomically(path, json.dumps(record, indent=2) + "\n")
    earlier = json.loads(path.read_text(encoding="utf-8"))
    if differing := [name for name in {**earlier, **record} if earlier.get(name) != record.get(name)]:
        changes = "; ".join(_describe_change(name, earlier.get(name), record.get(name)) for name in differing)
        raise ValueError(
            f"{path.parent} holds {content} of a run with other settings ({changes}): resume it with the same "
            f"settings, or {remedy}."
        )


def _describe_change(name: str, before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        return ", ".join(_describe_change(f"{name}.{key}", before.get(key), now.get(key)) for key in keys)
    return f"{name} was {before}, is {now}"


def read_failures(folder: Path, shards: list[Shard]) -> list[Failure]:
    """Read the failures of all shards, in the order of the input."""
    failures: list[Failure] = []
    for shard in shards:
        metadata = pq.read_metadata(folder / shard.name).metadata
        failures += [(row, name, reason) for row, name, reason in json.loads(metadata[FAILURES_KEY])]
    return sorted(failures, key=lambda failure: failure[0])


def write_failures(path: Path, failures: Iterable[Failure]) -> None:
    """Write the failures to a CSV file, atomically. Names of files are escaped as [`escape_formula`] does."""
    table = io.StringIO(newline="")
    rows = [(row, escape_formula(file), escape_formula(reason)) for row, file, reason in failures]
    csv.writer(table).writerows([("row", "file", "reason"), *rows])
    write_atomically(path, table.getvalue())


def refuse_launcher(work: str) -> None:
    """Raise ValueError if a launcher has started several processes, of which each would do the same."""
    if _world_size() > 1:
        raise ValueError(f"{work} starts its own processes (--num_proc, --engine ray): start it without a launcher.")


def _world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


# Engines: this process, local workers, Ray


def _run_local(
    build, shards, folder: str, pending: list[int], engine: Engine, progress: Progress, uses_gpu: bool
) -> None:
    local_rank, is_ranked = int(os.environ.get("LOCAL_RANK", 0)), _world_size() > 1
    num_gpus = torch.cuda.device_count() if uses_gpu and not is_ranked else 0
    num_proc = min(engine.num_proc or max(1, num_gpus), len(pending))
    if num_proc == 1:
        if is_ranked:
            limit_threads()
        writer = ShardWriter(build, shards, folder, local_rank, progress.update)
        for shard in pending:
            writer.write(shard)
        return
    num_started, num_done = CONTEXT.Value("q", local_rank * num_proc), CONTEXT.Value("q", 0)
    with worker_pool(num_proc, _build_writer, build, shards, folder, num_started, num_done) as pool:
        waiting = {pool.submit(_write_shard, shard) for shard in pending}
        first = progress.done
        while waiting:
            finished, waiting = wait(waiting, timeout=POLL_S, return_when=FIRST_COMPLETED)
            progress.update(first + num_done.value - progress.done)
            for future in finished:
                future.result()


def _build_writer(build, shards, folder, num_started, num_done) -> None:
    global _writer

    def count(rows: int):
        with num_done.get_lock():
            num_done.value += rows

    with num_started.get_lock():
        number = num_started.value
        num_started.value += 1
    _writer = ShardWriter(build, shards, folder, number, on_rows=count)


def _write_shard(shard: int) -> None:
    _writer.write(shard)


class _RayWriter:
    """Actor that writes shards on one thread, in the folder of the command, for relative paths."""

    def __init__(self, working_directory: str):
        with suppress(OSError):  # a machine that shares the files by absolute paths only
            os.chdir(working_directory)

    def start(self, *arguments: Any) -> None:
        """Build the writer."""
        limit_threads()
        self.writer = ShardWriter(*arguments)

    def write(self, shard: int) -> int:
        """Write a shard; see [`ShardWriter`]."""
        return self.writer.write(shard)


def _connect_to_ray():
    """Connect to the cluster of RAY_ADDRESS, or start one on this machine. Raises ValueError without Ray."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        remedy = 'pip install "modeling-umons[ray]"'
        raise ValueError(f"--engine ray needs Ray, which is not installed: {remedy}.") from error

    if not ray.is_initialized():
        local = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        ray.init(logging_level="warning", **({} if "RAY_ADDRESS" in os.environ else local))
    return ray


def _run_ray(
    build, shards, folder: str, pending: list[int], engine: Engine, progress: Progress, uses_gpu: bool
) -> None:
    """
    Run actors on all GPUs of the cluster, or `num_proc` on CPUs. Several machines must share the files.

    The shard of an actor that dies, perhaps with its machine, goes to another one. An actor gets shards when it has
    started: if its replacement finds no free resources, the others write all of them.

    Raises:
        OSError: a shard was lost with `MAX_LOSSES` actors.
    """
    ray = _connect_to_ray()
    num_gpus = int(ray.cluster_resources().get("GPU", 0)) if uses_gpu else 0
    num_actors = min(engine.num_proc or max(1, int(num_gpus / engine.gpus_per_worker)), len(pending))
    new_actor = ray.remote(num_cpus=1, num_gpus=engine.gpus_per_worker if num_gpus else 0)(_RayWriter).remote
    arguments = [ray.put(argument) for argument in (build, shards, folder)]
    waiting, losses = deque(pending), Counter[int | None]()
    calls: dict[Any, tuple[Any, int | None]] = {}  # by their references: actors with their shards, `None` at the start

    def start_actor() -> None:
        actor = new_actor(os.getcwd())
        calls[actor.start.remote(*arguments)] = (actor, None)

    try:
        for _ in range(num_actors):
            start_actor()
        while waiting or any(shard is not None for _, shard in calls.values()):
            (call,), _ = ray.wait(list(calls))
            actor, shard = calls.pop(call)
            try:
                rows = ray.get(call)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayActorError as error:
                losses[shard] += 1
                if losses[shard] > MAX_LOSSES:
                    raise OSError(
                        f"{losses[shard]} actors died, perhaps for lack of memory: use a smaller --num_proc. {error}"
                    ) from error
                if shard is not None:
                    waiting.appendleft(shard)
                start_actor()
                continue
            if shard is not None:
                progress.update(rows)
            if waiting:
                shard = waiting.popleft()
                calls[actor.write.remote(shard)] = (actor, shard)
    finally:
        for actor, _ in calls.values():
            ray.kill(actor)
