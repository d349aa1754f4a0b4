"""The recipes of the README and of docs/speed.md run as written."""

import argparse
import csv
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from local_hub import LocalHub
from safetensors import safe_open


ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "docs/speed.md")
BLOCKS = [
    (f"{document}-{i}-{language}", language, code)
    for document in DOCUMENTS
    for i, (language, code) in enumerate(
        re.findall(r"^```(bash|python)\n(.*?)^```", (ROOT / document).read_text(encoding="utf-8"), flags=re.M | re.S)
    )
]


def run(command: list[str], folder: Path, hub: LocalHub | None = None) -> str:
    # The commands of the environment that runs the tests, as `source .venv/bin/activate` gives them.
    environment = hub.environment() if hub else dict(os.environ)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout


def write_published_checkpoint(folder: Path):
    """`best.pkl` and `token_to_ix.pkl`, as the published code writes them."""
    with safe_open(ROOT / "tests/fixtures/model_la_sentiment7.safetensors", "pt") as file:
        weights = {n.removeprefix("weights."): file.get_tensor(n) for n in file.keys() if n.startswith("weights.")}  # noqa: SIM118
        args = json.loads(file.metadata()["args"]) | {"model": file.metadata()["model"]}
    torch.save({"state_dict": weights, "args": argparse.Namespace(**args)}, folder / "best.pkl")
    words = {f"word{i}": i for i in range(1, len(weights["embedding.weight"]))}
    (folder / "token_to_ix.pkl").write_bytes(pickle.dumps({"UNK": 1, **words}, protocol=4))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A checkout after `make demo` (cut short), with a published checkpoint in it."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("hub", "scripts", "modeling_umons"):
        (folder / name).symlink_to(ROOT / name)
    write_published_checkpoint(folder)
    run([sys.executable, "scripts/train.py", "modeling_umons/recipes/sample.yaml", "--num_train_epochs", "1"], folder)
    return folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Iterator[LocalHub]:
    """The Hub that the recipes push to and load from."""
    with LocalHub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.mark.parametrize(("language", "code"), [block[1:] for block in BLOCKS], ids=[block[0] for block in BLOCKS])
def test_recipe(checkout, hub, language, code):
    run([sys.executable, "-c", code] if language == "python" else ["bash", "-euc", code], checkout, hub)


def test_the_makefile_predicts_a_clip_that_was_held_out_with_its_own_words():
    table = (ROOT / "hub/sample/metadata.csv").read_text(encoding="utf-8")
    rows = {row["file_name"]: row for row in csv.DictReader(table.splitlines())}
    clip, text = re.search(r'predict hub/sample/(\S+) --text "([^"]+)"', (ROOT / "Makefile").read_text()).groups()
    assert rows[clip]["split"] == "test"
    assert rows[clip]["text"] == text


def test_the_picture_of_the_readme_is_there():
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert pictures
    assert all((ROOT / picture).is_file() for picture in pictures)
