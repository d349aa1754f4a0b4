# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""scripts/train.py on two machines, with sharded models, and with another number of processes, on the CPU."""

import csv
import json
import os
import random
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import ClusterConfig
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from modeling_umons.training.checkpoints import find_checkpoint


RECIPES = Path("modeling_umons/recipes/accelerate")
# accelerate shards on accelerators only.
SHARDED_ON_CPU = """
import runpy, sys
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

start = AcceleratorState.__init__

def start_sharded(self, *arguments, **options):
    if not PartialState._shared_state:
        PartialState(True)
    if PartialState._shared_state["distributed_type"] == DistributedType.MULTI_CPU:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    start(self, *arguments, **options)

AcceleratorState.__init__ = start_sharded
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """24 training and 8 validation rows of three words."""
    path, words = tmp_path_factory.mktemp("words") / "table.csv", {"good": 1.0, "fine": 0.5, "bad": -1.0, "so": 0.0}
    random.seed(0)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "sentiment", "split"])
        for row in range(32):
            text = random.choices(list(words), k=3)
            writer.writerow([" ".join(text), sum(map(words.get, text)), "train" if row < 24 else "validation"])
    return path


@pytest.fixture(scope="module")
def options(table) -> dict:
    return {
        "train_file": table, "task": "sentiment", "modalities": "text", "word_embedding_size": 8, "hidden_size": 8,
        "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_dropout_prob": 0,
        "attention_probs_dropout_prob": 0, "learning_rate": 0.01, "per_device_train_batch_size": 4,
        "num_train_epochs": 2, "logging_strategy": "steps", "logging_steps": 1, "report_to": "none",
    }  # fmt: skip


@pytest.fixture(scope="module")
def one_process(root, tmp_path_factory, options) -> Path:
    """Output of one process with the same batches; its first epoch is kept."""
    output = tmp_path_factory.mktemp("one") / "run"
    script = words_of({**options, "per_device_train_batch_size": 8, "output_dir": output})
    check(start(root, [sys.executable, "scripts/train.py", *script]))
    return output


def words_of(options: dict) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def start(root, command: list) -> subprocess.Popen:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    environment.pop("PYTHONWARNINGS", None)
    command = list(map(str, command))
    return subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def launch(root, recipe: str | Path, script: list, **options) -> subprocess.Popen:
    launcher = Path(sys.executable).with_name("accelerate")
    return start(root, [launcher, "launch", "--quiet", "--config_file", recipe, *words_of(options), *script])


def check(process: subprocess.Popen) -> str:
    """Return the output of a process that must end well."""
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def losses(output: Path, name: str = "loss") -> list[float]:
    history = json.loads((output / "report" / "report.json").read_text())["history"]
    return [entry[name] for entry in history if name in entry]


def free_port() -> int:
    with closing(socket.socket()) as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def test_two_machines_match_one_process(root, tmp_path, options, one_process):
    """Two launches with a process each, which meet at an address."""
    script = ["scripts/train.py", *words_of({**options, "output_dir": tmp_path / "run"})]
    meeting = {"num_machines": 2, "num_processes": 2, "main_process_ip": "127.0.0.1", "main_process_port": free_port()}
    machines = [launch(root, RECIPES / "two_processes.yaml", script, machine_rank=rank, **meeting) for rank in (0, 1)]
    assert all("in 2 process(es)" in check(machine) for machine in machines)
    assert losses(tmp_path / "run") == pytest.approx(losses(one_process), rel=1e-4)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_run_resumes_with_another_number_of_processes(root, tmp_path, options, one_process, before, after):
    """Without dropout the steps are those of an uninterrupted run."""
    for num_processes, more in ((before, {"num_train_epochs": 1}), (after, {"resume_from_checkpoint": "last"})):
        run = {**options, "per_device_train_batch_size": 8 // num_processes, "output_dir": tmp_path / "run", **more}
        script = ["scripts/train.py", *words_of(run)]
        if num_processes == 1:
            output = check(start(root, [sys.executable, *script]))
        else:
            output = check(launch(root, RECIPES / "two_processes.yaml", script))
    assert f"processes (was {before}, is {after})" in output
    assert losses(tmp_path / "run") == pytest.approx(losses(one_process), rel=1e-4)


def launch_sharded(root, folder: Path, options: dict, mixed_precision: str, state_dict_type: str) -> subprocess.Popen:
    config = yaml.safe_load((root / RECIPES / "fsdp.yaml").read_text())
    config["mixed_precision"] = mixed_precision
    config["fsdp_config"]["fsdp_state_dict_type"] = state_dict_type
    (folder / "fsdp.yaml").write_text(yaml.safe_dump(config))
    (folder / "sharded.py").write_text(SHARDED_ON_CPU)
    script = [folder / "sharded.py", "scripts/train.py", *words_of({**options, "output_dir": folder / "run"})]
    return launch(root, folder / "fsdp.yaml", script)


def test_sharded_float32_run_resumes_and_matches_one_process(root, tmp_path, options, one_process):
    settings = ("no", "SHARDED_STATE_DICT")
    check(launch_sharded(root, tmp_path, {**options, "num_train_epochs": 1}, *settings))
    assert not (find_checkpoint(tmp_path / "run") / "model.safetensors").exists()
    output = check(launch_sharded(root, tmp_path, {**options, "resume_from_checkpoint": "last"}, *settings))
    assert "Resuming from" in output
    assert losses(tmp_path / "run") == pytest.approx(losses(one_process), rel=1e-4)
    # No comparison of weights: Adam turns rounding into steps for those without gradient, such as biases of keys.
    assert losses(tmp_path / "run", "eval_loss") == pytest.approx(losses(one_process, "eval_loss"), rel=1e-3)
    expected = load_file(one_process / "model.safetensors")
    assert load_file(tmp_path / "run" / "model.safetensors").keys() == expected.keys()


def test_sharded_bfloat16_run_saves_a_plain_model(root, tmp_path, options, one_process):
    check(launch_sharded(root, tmp_path, {**options, "num_train_epochs": 1}, "bf16", "FULL_STATE_DICT"))
    assert losses(tmp_path / "run") == pytest.approx(losses(one_process)[:3], rel=0.05)
    for folder in (tmp_path / "run", find_checkpoint(tmp_path / "run")):
        assert "FSDP" not in (folder / "config.json").read_text()
        assert {path.name for path in folder.glob("*.py")} <= {path.name for path in one_process.glob("*.py")}
        assert load_file(folder / "model.safetensors").keys() == load_file(one_process / "model.safetensors").keys()
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    # The files of a sharded checkpoint are of another format.
    resumed = words_of({**options, "output_dir": tmp_path / "run", "resume_from_checkpoint": "last"})
    process = launch(root, RECIPES / "two_processes.yaml", ["scripts/train.py", *resumed])
    output, _ = process.communicate()
    assert process.returncode != 0
    assert "differ in sharding (was FSDP, is None)" in output


@pytest.mark.parametrize("name", ["one_process", "two_processes", "fsdp", "deepspeed"])
def test_recipes_fit_schema_of_accelerate(root, name):
    config = ClusterConfig.from_yaml_file(root / RECIPES / f"{name}.yaml")
    types = {"one_process": "NO", "two_processes": "MULTI_GPU", "fsdp": "FSDP", "deepspeed": "DEEPSPEED"}
    assert config.distributed_type == types[name]
    assert config.num_processes == (1 if name == "one_process" else 2)
