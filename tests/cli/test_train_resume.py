"""scripts/train.py with killed and resumed runs, two processes, and full disks."""

import csv
import json
import random
import subprocess
from pathlib import Path

import pytest
from safetensors.torch import load_file

from modeling_umons.training.checkpoints import find_checkpoint, list_checkpoints


# The script, ended from outside by its own hand: with SIGKILL nothing is left to be tidied up.
KILLED_AT = """
import os, runpy, signal, sys
from transformers import TrainerCallback
from modeling_umons.training import trainer

class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == {step}:
            os.kill(os.getpid(), signal.SIGKILL)

start = trainer.UmonsTrainer.__init__

def start_and_kill(self, *arguments):
    start(self, *arguments)
    self.add_callback(Kill)

trainer.UmonsTrainer.__init__ = start_and_kill
sys.argv = {arguments}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
ROOT = Path(__file__).resolve().parents[2]
TWO_PROCESSES = "modeling_umons/recipes/accelerate/two_processes.yaml"
LAUNCHERS = {1: ["python"], 2: ["accelerate", "launch", "--quiet", "--config_file", TWO_PROCESSES]}


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """64 training and 16 validation rows: good words of a text minus its bad words."""
    path, words = tmp_path_factory.mktemp("words") / "table.csv", {"good": 1.0, "fine": 0.5, "bad": -1.0, "so": 0.0}
    random.seed(0)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "sentiment", "split"])
        for row in range(80):
            text = random.choices(list(words), k=3)
            writer.writerow([" ".join(text), sum(map(words.get, text)), "train" if row < 64 else "validation"])
    return path


@pytest.fixture
def joint_table(table, tmp_path) -> Path:
    """Table of `joint`: the first half has no sentiment, the second no emotions."""
    with open(table, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    del rows[59:64]  # the last of the steps of 8 rows has 3
    for i, row in enumerate(rows):
        value = float(row["sentiment"])
        emotions = {"happy": value > 0, "sad": value < 0, "anger": 0, "surprise": 0, "disgust": 0, "fear": 0}
        row |= {name: "" if i % 64 > 40 else int(present) for name, present in emotions.items()}
        row["sentiment"] = "" if i % 64 < 24 else value
    with open(tmp_path / "joint.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path / "joint.csv"


@pytest.fixture
def options(table) -> dict:
    return {
        "train_file": table,
        "task": "sentiment",
        "modalities": "text",
        "word_embedding_size": 8,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "hidden_dropout_prob": 0.1,
        "word_dropout": 0.1,
        "learning_rate": 0.01,
        "per_device_train_batch_size": 8,
        "num_train_epochs": 3,
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "logging_strategy": "steps",
        "eval_steps": 3,
        "save_steps": 3,
        "logging_steps": 3,
        "max_halvings": 1,
        "report_to": "none",
    }


def words_of(options: dict) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def run(commands, command: list) -> subprocess.CompletedProcess:
    environment = {**commands.environment, "ACCELERATE_USE_CPU": "true"}
    return subprocess.run(list(map(str, command)), cwd=ROOT, env=environment, capture_output=True, text=True)


def train(commands, options: dict, num_processes: int = 1) -> subprocess.CompletedProcess:
    return run(commands, [*LAUNCHERS[num_processes], "scripts/train.py", *words_of(options)])


def train_until_killed(commands, options: dict, step: int, folder: Path, num_processes: int = 1):
    script = folder / "killed.py"
    arguments = ["scripts/train.py", *words_of(options)]
    script.write_text(KILLED_AT.format(step=step, arguments=arguments))
    return run(commands, [*LAUNCHERS[num_processes], script])


def assert_same_weights(a: Path, b: Path):
    first, second = (load_file(folder / "model.safetensors") for folder in (a, b))
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)


def losses(output: Path) -> list[float]:
    history = json.loads((output / "report" / "report.json").read_text())["history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def check_that_it_goes_on(commands, folder: Path, options: dict, whole: Path, num_processes: int):
    """Kill a run after a step, resume it, and compare its files with those of an uninterrupted run."""
    options = {**options, "output_dir": folder / "killed"}
    killed = train_until_killed(commands, options, 11, folder, num_processes)
    assert killed.returncode != 0
    assert find_checkpoint(folder / "killed").name == "checkpoint-9"
    assert not (folder / "killed" / "report").exists()
    # As a kill in the middle of saving leaves it: a newer checkpoint that is not whole.
    (folder / "killed" / "checkpoint-12").mkdir()
    (folder / "killed" / "checkpoint-12" / "model.safetensors").write_bytes(b"part")

    resumed = train(commands, {**options, "resume_from_checkpoint": "last"}, num_processes)
    assert resumed.returncode == 0, resumed.stderr
    assert f"Resuming from {folder / 'killed' / 'checkpoint-9'}" in resumed.stderr
    assert_same_weights(whole, folder / "killed")
    for checkpoint in list_checkpoints(whole):
        assert_same_weights(checkpoint, folder / "killed" / checkpoint.name)
    assert losses(folder / "killed") == losses(whole)


def test_killed_run_resumes_bit_exactly(commands, tmp_path, options):
    whole = train(commands, {**options, "output_dir": tmp_path / "whole"})
    assert whole.returncode == 0, whole.stderr
    check_that_it_goes_on(commands, tmp_path, options, tmp_path / "whole", 1)


def test_loss_of_two_processes_is_mean_over_known_labels(commands, tmp_path, options, joint_table):
    options.update(
        task="joint",
        train_file=joint_table,
        num_train_epochs=1,
        logging_steps=1,
        hidden_dropout_prob=0,
        word_dropout=0,
    )
    options.update(attention_probs_dropout_prob=0, output_dir=tmp_path / "one")
    assert train(commands, options).returncode == 0
    options.update(output_dir=tmp_path / "two", per_device_train_batch_size=4)
    assert train(commands, options, num_processes=2).returncode == 0
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)


def test_two_processes_resume_and_match_one(commands, tmp_path, options):
    """Without dropout, two processes have the loss curve of one, up to the order of summation."""
    options.update(hidden_dropout_prob=0, attention_probs_dropout_prob=0, word_dropout=0)
    options["output_dir"] = tmp_path / "one"
    one = train(commands, options)
    assert one.returncode == 0, one.stderr
    assert "in 1 process(es)" in one.stderr
    options.update(output_dir=tmp_path / "two", per_device_train_batch_size=4)
    two = train(commands, options, num_processes=2)
    assert two.returncode == 0, two.stderr
    assert "in 2 process(es)" in two.stderr
    curve = losses(tmp_path / "one")
    assert len(curve) == 8
    assert curve[-1] < 0.5 * curve[0]
    assert losses(tmp_path / "two") == pytest.approx(curve, rel=1e-3)
    check_that_it_goes_on(commands, tmp_path, options, tmp_path / "two", 2)


def test_full_disk_keeps_last_checkpoint(commands, tmp_path, options):
    """Limit files to 16 kB: the optimizer of the second checkpoint does not fit, as on a full disk."""
    options.update(output_dir=tmp_path / "run", hidden_size=16)
    script = tmp_path / "limited.py"
    limit = "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += "class Limit(TrainerCallback):\n    def on_step_end(self, args, state, control, **kwargs):\n"
    limit += (
        "        if state.global_step == 5:\n            resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, 2**14))\n"
    )
    text = KILLED_AT.format(step=10**9, arguments=["scripts/train.py", *words_of(options)])
    text = text.replace("class Kill", limit + "\nclass Kill").replace("add_callback(Kill)", "add_callback(Limit)")
    script.write_text(text)
    done = run(commands, ["python", script])
    assert done.returncode == 1
    error = next(line for line in done.stderr.splitlines() if "error: " in line)
    assert "error: A checkpoint could not be written to " in error
    assert "resume with --resume_from_checkpoint last" in error
    assert find_checkpoint(tmp_path / "run").name == "checkpoint-3"
