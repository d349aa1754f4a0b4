"""`umons predict --output`."""

import csv
import importlib.util
import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from modeling_umons.cli import predict


DEADLINE = 300  # seconds; on idle cores none of what is waited for takes a tenth of it
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra ray)")


def write_texts(path: Path, number: int) -> Path:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows([f"r{i}", "so very glad " * (1 + i % 5)] for i in range(number))
    return path


def start(*arguments, cwd: Path | None = None) -> subprocess.Popen:
    command = [sys.executable, "-m", "modeling_umons", "predict", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment, cwd=cwd, **pipes)


def test_predict_table_prints_numbers_and_failures(model, clips, tmp_path, capsys):
    (tmp_path / "rows.csv").write_text(f"id,sentence,clip\na,so glad,\nb,,{clips[0]}\nc,,nowhere.mp4\n")
    output = tmp_path / "out.jsonl"
    assert predict.main([str(tmp_path / "rows.csv"), "--output", str(output), "--model", model]) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == f"3 inputs in {output} (text from `sentence`, files from `clip`), 1 failed."
    assert lines[3].split()[:2] == ["2", "nowhere.mp4"]
    assert err == ""  # no progress of short runs without a terminal
    assert (tmp_path / "out.failures.csv").exists()


def test_predict_folder_and_files_into_a_table(model, root, clips, tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for clip in clips:
        os.link(clip, folder / Path(clip).name)
    for inputs in ([str(folder)], clips):
        assert predict.main([*inputs, "--output", str(tmp_path / "out.csv"), "--model", model]) == 0
        with open(tmp_path / "out.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [Path(row["file"]).name for row in rows] == [Path(clip).name for clip in clips]
        assert {row["modalities"] for row in rows} == {"audio"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rows.csv"], "rows.csv is a table: pass --output predictions.csv"),
        (["rows.csv", "--output", "out.csv", "--json"], "--json and --output do not go together"),
        (["rows.csv", "b.csv", "--output", "out.csv"], "rows.csv is a table or folder, but several inputs are given"),
        (["--output", "out.csv"], "nothing to predict"),
        (["rows.csv", "--output", "out.csv", "--batch_size", "0"], "--batch_size is 0"),
        (["rows.csv", "--output", "out.csv", "--num_proc", "0"], "--num_proc is 0"),
        (["rows.csv", "--output", "out.csv", "--text_column", "txet"], "Did you mean text?"),
        (["rows.csv", "--output", "out.csv", "--chunk_length_s", "-1"], "pass a positive, finite number of seconds"),
    ],
)
def test_wrong_usage_exits_2(model, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_texts(tmp_path / "rows.csv", 2)
    assert predict.main([*arguments, "--model", model]) == 2
    assert message in capsys.readouterr().err


def test_table_options_need_an_output(capsys):
    with pytest.raises(SystemExit, match="2"):
        predict.main(["clip.mp4", "--num_workers", "2"])
    assert "--num_proc needs --output" in capsys.readouterr().err


def test_killed_runs_resume_with_every_row_once(model, tmp_path):
    """Kill a run of two processes and one of a single process at random moments after their first new part."""
    source, output = write_texts(tmp_path / "rows.csv", 1600), tmp_path / "out.parquet"
    work, rng = output.with_name("out.parquet.parts"), random.Random(0)
    arguments = [source, "--output", output, "--model", model, "--shard_size", 8, "--batch_size", 8]
    for num_proc in (2, 1):
        before = len(list(work.glob("part-*")))
        process = start(*arguments, "--num_proc", num_proc)
        deadline = time.monotonic() + DEADLINE
        while len(list(work.glob("part-*"))) == before:
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0, 0.3))
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.communicate()
        _, alive = psutil.wait_procs(workers, timeout=DEADLINE)
        assert not alive  # else they would go on writing
        assert not output.exists()
    process = start(*arguments)
    out, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, out
    assert pq.read_table(output, columns=["row", "id"]).to_pylist() == [{"row": i, "id": f"r{i}"} for i in range(1600)]
    assert not work.exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@needs_ray
def test_ray_equals_local_processes(model, tmp_path):
    """Relative paths are those of the command, also in the actors."""
    write_texts(tmp_path / "rows.csv", 40)
    options = ["rows.csv", "--model", os.path.relpath(model, tmp_path), "--shard_size", 10]
    for name, engine in (("local", ["--num_workers", 2]), ("ray", ["--engine", "ray", "--num_proc", 2])):
        process = start(*options, "--output", f"{name}.csv", *engine, cwd=tmp_path)
        out, _ = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, out
    assert (tmp_path / "ray.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()
