"""scripts/train.py on two machines, with sharded models, and with another number of processes, on the CPU."""

import csv
import json
import random
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import ClusterConfig
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification
from warm_commands import WarmCommands

from modeling_umons import EMOTIONS
from modeling_umons.data.schema import make_features, to_table
from modeling_umons.training.checkpoints import find_checkpoint


HAS_DEEPSPEED = find_spec("deepspeed") is not None
ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "modeling_umons" / "recipes" / "accelerate"
WORDS = {"good": 1.0, "fine": 0.5, "bad": -1.0, "so": 0.0}
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
# accelerate turns DeepSpeed off on CPUs. Without a threshold ZeRO 3 shards the parameters of small models too.
DEEPSPEED_ON_CPU = """
import runpy, sys
import deepspeed, transformers.training_args
from accelerate.state import PartialState
from accelerate.utils import DistributedType

initialize = deepspeed.initialize

def initialize_without_threshold(**options):
    options["config_params"]["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    return initialize(**options)

deepspeed.initialize = initialize_without_threshold
sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # takes a minute to compile
transformers.training_args.is_torch_bf16_gpu_available = lambda: True
PartialState._prepare_backend = lambda *arguments, **options: ("gloo", DistributedType.MULTI_GPU)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
UPLOAD = """
import sys
from huggingface_hub import HfApi

HfApi().create_repo("umons/words", repo_type="dataset")
HfApi().upload_folder(repo_id="umons/words", repo_type="dataset", folder_path=sys.argv[1])
"""


def make_rows() -> list[dict]:
    """Return 26 training and 8 validation rows of three words with labels of `joint`, a fifth of which is unknown."""
    drawn = random.Random(0)
    rows = []
    for i in range(34):
        text = drawn.choices(list(WORDS), k=3)
        values = {"sentiment": sum(map(WORDS.get, text)), **{name: float(name[0] in "hs") for name in EMOTIONS}}
        labels = {name: None if drawn.random() < 0.2 else value for name, value in values.items()}
        rows.append({"text": " ".join(text), **labels, "split": "train" if i < 26 else "validation"})
    return rows


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    path, rows = tmp_path_factory.mktemp("words") / "table.csv", make_rows()
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def options(table) -> dict:
    return {
        "train_file": table, "modalities": "text", "word_embedding_size": 8, "hidden_size": 8,
        "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_dropout_prob": 0,
        "attention_probs_dropout_prob": 0, "learning_rate": 0.01, "per_device_train_batch_size": 4,
        "num_train_epochs": 2, "logging_strategy": "steps", "logging_steps": 1, "report_to": "none",
    }  # fmt: skip


@pytest.fixture(scope="module")
def one_process(commands, tmp_path_factory, options) -> Path:
    """Output of one process with the same batches; its first epoch is kept."""
    output = tmp_path_factory.mktemp("one") / "run"
    script = words_of({**options, "per_device_train_batch_size": 8, "output_dir": output})
    check(launch(commands, RECIPES / "one_process.yaml", ["scripts/train.py", *script]))
    return output


@pytest.fixture
def hub_commands(local_hub) -> Iterator[WarmCommands]:
    with WarmCommands(local_hub.environment()) as commands:
        yield commands


def words_of(options: dict) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def start(commands, command: list, **variables: str) -> subprocess.Popen:
    environment = {**commands.environment, **(variables or {"ACCELERATE_USE_CPU": "true"})}
    command = list(map(str, command))
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def launch(
    commands, recipe: str | Path, script: list, variables: dict[str, str] | None = None, **options
) -> subprocess.Popen:
    command = ["accelerate", "launch", "--quiet", "--config_file", recipe, *words_of(options), *script]
    return start(commands, command, **variables or {})


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


def test_two_machines_match_one_process(commands, tmp_path, options, one_process):
    """Two launches with a process each, which meet at an address; a step of 8 rows is two batches in each, or one."""
    batches = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    script = ["scripts/train.py", *words_of({**options, **batches, "output_dir": tmp_path / "run"})]
    meeting = {"num_machines": 2, "num_processes": 2, "main_process_ip": "127.0.0.1", "main_process_port": free_port()}
    machines = [
        launch(commands, RECIPES / "two_processes.yaml", script, machine_rank=rank, **meeting) for rank in (0, 1)
    ]
    assert all("in 2 process(es)" in check(machine) for machine in machines)
    assert losses(tmp_path / "run") == pytest.approx(losses(one_process), rel=1e-6)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_run_resumes_with_another_number_of_processes(commands, tmp_path, options, one_process, before, after):
    """Without dropout the steps are those of an uninterrupted run."""
    for num_processes, more in ((before, {"num_train_epochs": 1}), (after, {"resume_from_checkpoint": "last"})):
        run = {**options, "per_device_train_batch_size": 8 // num_processes, "output_dir": tmp_path / "run", **more}
        script = ["scripts/train.py", *words_of(run)]
        if num_processes == 1:
            output = check(start(commands, ["python", *script]))
        else:
            output = check(launch(commands, RECIPES / "two_processes.yaml", script))
    assert f"processes (was {before}, is {after})" in output
    assert losses(tmp_path / "run") == pytest.approx(losses(one_process), rel=1e-4)


def test_two_processes_stream_from_the_hub(hub_commands, tmp_path, options, local_hub):
    """Both parts of a run read over HTTP and leave no file of the data set on the disk."""
    for split in ("train", "validation"):
        rows = [{"segment_id": str(i), **row} for i, row in enumerate(make_rows()) if row.pop("split") == split]
        Dataset(to_table(rows, make_features())).to_parquet(tmp_path / "words" / "data" / f"{split}.parquet")
    check(start(hub_commands, ["python", "-c", UPLOAD, tmp_path / "words"]))
    run = {**options, "dataset_name": "hf://datasets/umons/words", "streaming": "true", "output_dir": tmp_path / "run"}
    run |= dict.fromkeys(("save_strategy", "eval_strategy"), "steps") | dict.fromkeys(("save_steps", "eval_steps"), 10)
    del run["train_file"], run["num_train_epochs"]
    check(start_two(hub_commands, {**run, "max_steps": 10}))
    output = check(start_two(hub_commands, {**run, "max_steps": 20, "resume_from_checkpoint": "last"}))
    assert "Resuming from" in output
    found = losses(tmp_path / "run")
    assert len(found) == 20
    assert found[-1] < 0.8 * found[0]
    assert any("parquet" in path for _, path in local_hub.requests)
    cache = Path(hub_commands.environment["HF_HOME"])
    assert not [*cache.rglob("*.parquet"), *cache.rglob("*.arrow")]


def start_two(commands, options: dict) -> subprocess.Popen:
    return launch(commands, RECIPES / "two_processes.yaml", ["scripts/train.py", *words_of(options)])


def launch_sharded(
    commands, folder: Path, options: dict, mixed_precision: str, state_dict_type: str
) -> subprocess.Popen:
    config = yaml.safe_load((RECIPES / "fsdp.yaml").read_text())
    config["mixed_precision"] = mixed_precision
    config["fsdp_config"]["fsdp_state_dict_type"] = state_dict_type
    (folder / "fsdp.yaml").write_text(yaml.safe_dump(config))
    (folder / "sharded.py").write_text(SHARDED_ON_CPU)
    script = [folder / "sharded.py", "scripts/train.py", *words_of({**options, "output_dir": folder / "run"})]
    return launch(commands, folder / "fsdp.yaml", script)


def test_sharded_float32_run_resumes_and_matches_one_process(commands, tmp_path, options, one_process):
    settings = ("no", "SHARDED_STATE_DICT")
    check(launch_sharded(commands, tmp_path, {**options, "num_train_epochs": 1}, *settings))
    assert not (find_checkpoint(tmp_path / "run") / "model.safetensors").exists()
    output = check(launch_sharded(commands, tmp_path, {**options, "resume_from_checkpoint": "last"}, *settings))
    assert "Resuming from" in output
    assert losses(tmp_path / "run") == pytest.approx(losses(one_process), rel=1e-4)
    # No comparison of weights: Adam turns rounding into steps for those without gradient, such as biases of keys.
    assert losses(tmp_path / "run", "eval_loss") == pytest.approx(losses(one_process, "eval_loss"), rel=1e-3)
    expected = load_file(one_process / "model.safetensors")
    assert load_file(tmp_path / "run" / "model.safetensors").keys() == expected.keys()


def test_sharded_bfloat16_run_saves_a_plain_model(commands, tmp_path, options, one_process):
    check(launch_sharded(commands, tmp_path, {**options, "num_train_epochs": 1}, "bf16", "FULL_STATE_DICT"))
    assert losses(tmp_path / "run") == pytest.approx(losses(one_process)[:4], rel=0.05)
    for folder in (tmp_path / "run", find_checkpoint(tmp_path / "run")):
        assert "FSDP" not in (folder / "config.json").read_text()
        assert {path.name for path in folder.glob("*.py")} <= {path.name for path in one_process.glob("*.py")}
        assert load_file(folder / "model.safetensors").keys() == load_file(one_process / "model.safetensors").keys()
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    # The files of a sharded checkpoint are of another format.
    resumed = words_of({**options, "output_dir": tmp_path / "run", "resume_from_checkpoint": "last"})
    process = launch(commands, RECIPES / "two_processes.yaml", ["scripts/train.py", *resumed])
    output, _ = process.communicate()
    assert process.returncode != 0
    assert "differ in sharding (was FSDP, is None)" in output


def launch_deepspeed(commands, folder: Path, stage: int, options: dict) -> subprocess.Popen:
    config = yaml.safe_load((RECIPES / "deepspeed.yaml").read_text())
    config["deepspeed_config"]["zero_stage"] = stage
    (folder / "deepspeed.yaml").write_text(yaml.safe_dump(config))
    (folder / "sharded.py").write_text(DEEPSPEED_ON_CPU)
    script = [folder / "sharded.py", "scripts/train.py", *words_of({**options, "output_dir": folder / "run"})]
    variables = {"ACCELERATE_TORCH_DEVICE": "cpu", "DS_ACCELERATOR": "cpu"}
    return launch(commands, folder / "deepspeed.yaml", script, variables)


@pytest.fixture(scope="module")
def fine_tuned(commands, tmp_path_factory, options, one_process) -> tuple[dict, Path]:
    """Options of fine-tuning, which starts from equal weights (ZeRO 3 draws others), and its output in one process."""
    output = tmp_path_factory.mktemp("tuned") / "run"
    run = {
        name: value
        for name, value in options.items()
        if not name.endswith(("size", "layers", "heads", "prob", "modalities"))
    }
    run |= {"model_name_or_path": one_process, "max_halvings": 0, "per_device_train_batch_size": 8}
    check(start(commands, ["python", "scripts/train.py", *words_of({**run, "output_dir": output})]))
    return {**run, "per_device_train_batch_size": 4}, output


@pytest.mark.skipif(not HAS_DEEPSPEED, reason="requires deepspeed, the extra `deepspeed`")
@pytest.mark.parametrize(("stage", "bf16", "tolerance"), [(1, "false", 1e-4), (2, "true", 0.05), (3, "false", 1e-4)])
def test_deepspeed_run_matches_one_process(commands, tmp_path, fine_tuned, stage, bf16, tolerance):
    """Runs in float32 resume in the middle; the last step of those in bfloat16 differs (below)."""
    run, reference = {**fine_tuned[0], "bf16": bf16}, fine_tuned[1]
    check(launch_deepspeed(commands, tmp_path, stage, {**run, "num_train_epochs": 1}))
    if bf16 == "false":
        output = check(launch_deepspeed(commands, tmp_path, stage, {**run, "resume_from_checkpoint": "last"}))
        assert "Resuming from" in output
    for name in ("loss", "eval_loss") if bf16 == "false" else ("loss",):
        found = losses(tmp_path / "run", name)
        assert found == pytest.approx(losses(reference, name)[: len(found)], rel=tolerance)
    weights, expected = (load_file(folder / "model.safetensors") for folder in (tmp_path / "run", reference))
    assert {name: value.shape for name, value in weights.items()} == {n: v.shape for n, v in expected.items()}
    assert {value.dtype for value in weights.values()} == {torch.float32}


@pytest.mark.skipif(not HAS_DEEPSPEED, reason="requires deepspeed, the extra `deepspeed`")
def test_deepspeed_bfloat16_run_resumes_exactly(commands, tmp_path, fine_tuned):
    """The reference is in bfloat16: in the last step of an epoch, rounding changes the sign of an L1 gradient."""
    run = {**fine_tuned[0], "bf16": "true"}
    (tmp_path / "whole").mkdir()
    check(launch_deepspeed(commands, tmp_path / "whole", 2, run))
    check(launch_deepspeed(commands, tmp_path, 2, {**run, "num_train_epochs": 1}))
    check(launch_deepspeed(commands, tmp_path, 2, {**run, "resume_from_checkpoint": "last"}))
    for name in ("loss", "eval_loss"):
        assert losses(tmp_path / "run", name) == losses(tmp_path / "whole" / "run", name)


@pytest.mark.parametrize("name", ["fsdp", "deepspeed"])
def test_sharding_that_accelerate_ignores_is_refused(commands, tmp_path, options, name):
    """On a CPU accelerate would train whole models without a word; DeepSpeed must also be installed."""
    script = ["scripts/train.py", *words_of({**options, "output_dir": tmp_path / "run"})]
    variables = {"ACCELERATE_USE_CPU": "true", f"ACCELERATE_USE_{name.upper()}": "true"}
    process = start(commands, ["python", *script], **variables)
    output, _ = process.communicate()
    assert process.returncode != 0
    message = f"asks for {name.upper()}, which accelerate ignores without GPUs"
    if name == "deepspeed" and not HAS_DEEPSPEED:
        message = 'the package deepspeed is not installed: pip install "modeling-umons[deepspeed]"'
    assert message in output


@pytest.mark.parametrize("name", ["one_process", "two_processes", "fsdp", "deepspeed"])
def test_recipes_fit_schema_of_accelerate(name):
    config = ClusterConfig.from_yaml_file(RECIPES / f"{name}.yaml")
    types = {"one_process": "NO", "two_processes": "MULTI_GPU", "fsdp": "FSDP", "deepspeed": "DEEPSPEED"}
    assert config.distributed_type == types[name]
    assert config.num_processes == (1 if name == "one_process" else 2)
