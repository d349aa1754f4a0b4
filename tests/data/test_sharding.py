"""Scheduling of shards on Ray, with actors that die. `test_ray_cluster.py` has the same on a cluster."""

import csv
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_umons.data import sharding
from modeling_umons.data.sharding import Engine, plan_parts, write_failures, write_shards


TWO_ACTORS = Engine("ray", num_proc=2)


class ActorError(Exception):
    pass


class TaskError(Exception):
    def __init__(self, cause: Exception):
        self.cause = cause


class FakeActor:
    def __init__(self, ray: "FakeRay", number: int, worker):
        self.ray, self.number, self.worker = ray, number, worker

    def __getattr__(self, name: str):
        return SimpleNamespace(remote=lambda *arguments: self.ray.call(self, name, arguments))


class FakeRay:
    """Ray in one process: `faults` maps (number of the actor, shard or "start") to "dies" or "waits"."""

    exceptions = SimpleNamespace(RayTaskError=TaskError, RayActorError=ActorError)

    def __init__(self, faults: dict):
        self.faults, self.num_actors, self.results = faults, 0, {}
        self.cluster, self.reserved = {"CPU": 2.0}, {}
        self.blocked, self.killed = set(), []  # calls that never end, and actors

    def remote(self, **resources):
        self.reserved = resources
        return lambda worker: SimpleNamespace(remote=lambda *arguments: self.start(worker, arguments))

    def start(self, worker, arguments) -> FakeActor:
        self.num_actors += 1
        return FakeActor(self, self.num_actors - 1, worker(*arguments))

    def call(self, actor: FakeActor, name: str, arguments) -> int:
        key = len(self.results)
        fault = self.faults.get((actor.number, "start" if name == "start" else arguments[0]))
        if fault is None:
            try:
                self.results[key] = getattr(actor.worker, name)(*arguments)
            except ValueError as error:
                self.results[key] = TaskError(error)
        else:
            self.results[key] = ActorError("dead") if fault == "dies" else None
        if fault == "waits":
            self.blocked.add(key)
        return key

    def wait(self, calls: list[int]):
        (first, *_) = [call for call in calls if call not in self.blocked]
        return [first], []

    def get(self, call: int):
        result = self.results[call]
        if isinstance(result, Exception):
            raise result
        return result

    def put(self, value):
        return value

    def kill(self, actor: FakeActor) -> None:
        self.killed.append(actor.number)

    def cluster_resources(self) -> dict:
        return self.cluster


def compute(rows, on_rows, bad_row: int | None = None):
    if bad_row in rows:
        raise ValueError("of all things")
    return pa.table({"row": list(rows)}), []


def build(number: int, bad_row: int | None = None):
    return partial(compute, bad_row=bad_row)


def run(monkeypatch, folder: Path, faults: dict, engine: Engine = TWO_ACTORS, num_gpus: int = 0, **options) -> FakeRay:
    ray = FakeRay(faults)
    ray.cluster["GPU"] = num_gpus
    monkeypatch.setattr(sharding, "_connect_to_ray", lambda: ray)
    monkeypatch.setattr(sharding, "limit_threads", lambda: None)
    shards = plan_parts(10, 3)
    assert write_shards(partial(build, **options), shards, folder, engine, label="test", uses_gpu=num_gpus > 0)
    assert [row for shard in shards for row in pq.read_table(folder / shard.name)["row"].to_pylist()] == list(
        range(10)
    )
    return ray


def test_shard_of_a_dead_actor_goes_to_another(monkeypatch, tmp_path):
    assert run(monkeypatch, tmp_path, {(0, 0): "dies", (1, 1): "dies"}).num_actors == 4


def test_actor_that_does_not_start_leaves_its_shards_to_others(monkeypatch, tmp_path):
    ray = run(monkeypatch, tmp_path, {(0, 0): "dies", (2, "start"): "waits"})
    assert ray.killed == [2]


def test_actors_that_die_with_the_same_shard_raise(monkeypatch, tmp_path):
    with pytest.raises(OSError, match=r"4 actors died, perhaps for lack of memory: use a smaller --num_proc\. dead"):
        run(monkeypatch, tmp_path, {(actor, 2): "dies" for actor in range(20)})


def test_error_of_a_shard_raises_its_cause(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="of all things"):
        run(monkeypatch, tmp_path, {}, bad_row=5)


def test_fractions_of_gpus_are_reserved_by_as_many_actors(monkeypatch, tmp_path):
    ray = run(monkeypatch, tmp_path, {}, Engine("ray", gpus_per_worker=0.5), num_gpus=1)
    assert ray.num_actors == 2
    assert ray.reserved == {"num_cpus": 1, "num_gpus": 0.5}


def test_failures_are_written_without_formulas(tmp_path):
    write_failures(tmp_path / "failures.csv", [(0, "=1+1.wav", "silent"), (1, "a.wav", "@b: missing")])
    with open(tmp_path / "failures.csv", encoding="utf-8", newline="") as file:
        assert list(csv.reader(file))[1:] == [["0", "'=1+1.wav", "silent"], ["1", "a.wav", "'@b: missing"]]
