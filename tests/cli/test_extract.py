"""`umons extract`."""

import importlib.util
import os
import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest


DEADLINE = 120  # seconds; none of what is waited for takes half of it


def write_wav(path: Path) -> Path:
    samples = 0.5 * np.sin(2 * np.pi * 220 * np.arange(11025) / 22050)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 22050, 0, "NONE", ""))
        file.writeframes((samples * 2**15).astype("<i2").tobytes())
    return path


@pytest.fixture
def clips(tmp_path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("a.wav", "b.wav", "c.wav"):
        write_wav(folder / name)
    return folder


def command(root, *arguments) -> list[str]:
    return [str(root / "scripts" / "extract_features.py"), *map(str, arguments)]


def run(command: list[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    environment = environment or {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=DEADLINE, check=False)


@pytest.fixture
def main():
    """Call the command in this process; return its exit status."""
    from modeling_umons.cli import extract

    def call(*arguments) -> int:
        try:
            return extract.main([*map(str, arguments)])
        except SystemExit as end:
            return end.code

    return call


def video_ids(output: Path) -> list[str]:
    shards = sorted((output / "data").glob("*.parquet"))
    return [name for shard in shards for name in pq.read_table(shard)["video_id"].to_pylist()]


def test_extract_writes_all_rows(root, clips, tmp_path):
    done = run([sys.executable, *command(root, "--input", clips, "--output", tmp_path / "out")])
    assert done.returncode == 0, done.stderr
    assert f"3 rows in {tmp_path / 'out'}, 0 left out." in done.stdout
    assert done.stderr == ""  # no progress bar without a terminal
    assert video_ids(tmp_path / "out") == ["a", "b", "c"]


def test_failed_rows_exit_3(main, clips, tmp_path, capsys):
    for number in range(22):
        (clips / f"bad_{number:02d}.mp4").write_text("not a clip")
    assert main("--input", clips, "--output", tmp_path / "out") == 3
    table = capsys.readouterr().out.splitlines()
    assert table[0] == f"3 rows in {tmp_path / 'out'}, 22 left out."
    assert table[2].split() == ["row", "file", "reason"]
    assert table[3].split()[:2] == ["2", "bad_00.mp4"]  # after a.wav and b.wav
    assert sum("could not be opened" in line for line in table) == 20
    assert table[-1] == "... and 2 more in failures.csv"
    assert len((tmp_path / "out" / "failures.csv").read_text().splitlines()) == 23


def test_unreadable_input_exits_1(main, tmp_path, capsys):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.mp4").write_text("not a clip")
    assert main("--input", tmp_path / "bad", "--output", tmp_path / "out") == 1
    assert main("--input", tmp_path / "nowhere", "--output", tmp_path / "out") == 1
    assert "there is no such file or folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--modalities", "audio", "video"], "pass --tower_weights"),
        (["--modalities", "smell"], "invalid choice: 'smell'"),
        (["--num_proc", "0"], "--num_proc is 0"),
        (["--gpus_per_worker", "0"], "--gpus_per_worker is 0"),
    ],
)
def test_wrong_usage_exits_2(main, clips, tmp_path, capsys, options, message):
    assert main("--input", clips, "--output", tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err


def test_tower_adds_video(main, clips, tmp_path, capsys):
    (tmp_path / "tower.pt").write_text("not weights")
    assert main("--input", clips, "--output", tmp_path / "out", "--tower_weights", tmp_path / "tower.pt") == 1
    assert "is not a state dict" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_killed_run_resumes(root, commands, clips, tmp_path):
    """Kill the run with both workers busy: finished shards are kept, the others are written once."""
    for number in range(200):
        os.link(clips / "a.wav", clips / f"{number:03d}.wav")
    output = tmp_path / "out"
    arguments = ("--input", clips, "--output", output, "--shard_size", 4)

    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, *command(root, *arguments, "--num_proc", 2)], stdout=log, stderr=log
        )
    deadline = time.monotonic() + DEADLINE
    while not list((output / "data").glob("[!.]*")):
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        try:
            process.wait(timeout=0.05)
            pytest.fail("the run ended before it could be killed:\n" + (tmp_path / "log").read_text())
        except subprocess.TimeoutExpired:
            pass
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=DEADLINE)
    assert not alive  # else they would go on writing
    before = {path: path.stat().st_mtime_ns for path in (output / "data").glob("[!.]*")}
    assert 0 < len(before) < 51

    done = run(["python", *command(root, *arguments)], commands.environment)
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert video_ids(output) == [*(f"{number:03d}" for number in range(200)), "a", "b", "c"]
    assert len(list((output / "data").iterdir())) == 51  # no leftovers


def test_torchrun_splits_rows(root, commands, clips, tmp_path):
    """torchrun sets the same variables as `accelerate launch`."""
    launcher = ["python", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    arguments = ("--input", clips, "--output", tmp_path / "out", "--shard_size", 1)
    done = run([*launcher, *command(root, *arguments)], commands.environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 rows in") == 1
    assert video_ids(tmp_path / "out") == ["a", "b", "c"]


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra ray)")
def test_ray_runs_two_actors(root, main, clips, tmp_path):
    (clips / "bad.mp4").write_text("not a clip")
    options = ("--input", clips, "--shard_size", 1)
    assert main(*options, "--output", tmp_path / "local") == 3
    options = (*options, "--output", tmp_path / "ray", "--engine", "ray", "--num_proc", 2)
    done = run([sys.executable, *command(root, *options)])
    assert done.returncode == 3, done.stderr
    for name in ["failures.csv", "extraction.json", *(f"data/train-0000{i}-of-00004.parquet" for i in range(4))]:
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()


def test_missing_ray_is_named(main, clips, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main("--input", clips, "--output", tmp_path / "out", "--engine", "ray") == 2
    assert 'pip install "modeling-umons[ray]"' in capsys.readouterr().err
