"""Tests of scripts/check_gpu.py in tiny sizes on the CPU."""

import json
import runpy
from functools import partial

import pytest
import torch


@pytest.fixture
def run(run_script):
    return partial(run_script, "check_gpu.py")


@pytest.fixture(scope="module")
def script(root) -> dict:
    return runpy.run_path(str(root / "scripts" / "check_gpu.py"))


def test_check_gpu_writes_json_of_phases(run, tmp_path):
    phases = ("machine", "parity", "attention", "syncs", "training", "inference")
    process = run("--device", "cpu", "--small", *phases, "--output", tmp_path / "gpu.json")
    assert process.returncode == 0, process.stderr
    results = json.loads(process.stdout)
    assert list(results) == list(phases)
    assert json.loads((tmp_path / "gpu.json").read_text()) == results
    assert results["training"]["paper"]["batch 4"]["rows_per_s"] > 0


@pytest.mark.slow
def test_check_gpu_compiles_the_training_step(run):
    process = run("--device", "cpu", "--small", "compiled")
    assert process.returncode == 0, process.stderr
    assert "training of paper, compiled: " in process.stderr


def test_speed_is_printed_eager_and_compiled(script):
    eager = {"gflop_per_row": 9.9, "batch 512": {"rows_per_s": 9}, "batch 1024": {"rows_per_s": 12000, "mfu": 0.123}}
    compiled = {"paper, training": {"rows_per_s": 30000, "mfu": 0.3}}
    results = {"training": {"paper": eager}, "compiled": compiled}
    assert script["format_speed"](results).splitlines()[1:] == [
        "  training of paper, eager: 12,000 (12.3%)",
        "  training of paper, compiled: 30,000 (30.0%)",
    ]


def test_check_gpu_skips_phases_after_time_budget(run):
    process = run("--device", "cpu", "--small", "parity", "--time_budget", 1)
    assert json.loads(process.stdout) == {"parity": {"skipped": "--time_budget"}}


def test_failed_phase_is_reported_and_fails_the_run(script):
    settings = script["Settings"](device=torch.device("cpu"), small=True, deadline=float("inf"))
    script["PHASES"]["parity"] = (lambda settings: 1 / 0, 0)
    result = script["run_phase"](settings, "parity")
    assert result["error"].startswith("ZeroDivisionError")
    assert script["failures"]({"parity": result, "syncs": {"checks": {"paper": False}}}) == ["parity", "syncs: paper"]
