"""The README and the documentation run as written."""

import argparse
import csv
import json
import pickle
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from local_hub import LocalHub
from safetensors import safe_open
from warm_commands import WarmCommands


ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
# Blocks marked `shell` are not run: they install something, serve until stopped, or need data that is not here.
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", flags=re.M | re.S)


def read_blocks(document: str) -> list[tuple[str, str]]:
    return BLOCK.findall((ROOT / document).read_text(encoding="utf-8"))


def run(commands: WarmCommands, command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, env=commands.environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout


def write_published_checkpoint(folder: Path) -> None:
    """Write `best.pkl` and `token_to_ix.pkl` in the format of the published code."""
    with safe_open(ROOT / "tests/fixtures/model_la_sentiment7.safetensors", "pt") as file:
        weights = {n.removeprefix("weights."): file.get_tensor(n) for n in file.keys() if n.startswith("weights.")}  # noqa: SIM118
        args = json.loads(file.metadata()["args"]) | {"model": file.metadata()["model"]}
    torch.save({"state_dict": weights, "args": argparse.Namespace(**args)}, folder / "best.pkl")
    words = {f"word{i}": i for i in range(1, len(weights["embedding.weight"]))}
    (folder / "token_to_ix.pkl").write_bytes(pickle.dumps({"UNK": 1, **words}, protocol=4))


@pytest.fixture(scope="module")
def commands(tmp_path_factory) -> Iterator[WarmCommands]:
    """Commands whose Hub is a local one, which pushes go to."""
    with LocalHub(tmp_path_factory.mktemp("hub")) as hub, WarmCommands(hub.environment()) as commands:
        yield commands


@pytest.fixture(scope="module")
def checkout(commands, tmp_path_factory) -> Path:
    """A checkout after a short `make demo`, with a published checkpoint in it."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("examples", "hub", "modeling_umons", "scripts", "model_card.md"):
        (folder / name).symlink_to(ROOT / name)
    write_published_checkpoint(folder)
    run(commands, ["umons", "train", "sample", "--num_train_epochs", "1"], folder)
    return folder


@pytest.mark.parametrize("document", [document for document in DOCUMENTS if read_blocks(document)])
def test_document_runs_as_written(checkout, commands, document):
    for language, code in read_blocks(document):
        command = ["python", "-c", code] if language == "python" else ["bash", "-euc", code]
        output = run(commands, command, checkout)
        # A comment right below a `print` is its output.
        expected = re.findall(r"^print\(.*\n# (.*)$", code, flags=re.M) if language == "python" else []
        assert [line for line in output.splitlines() if line in expected] == expected


def test_readme_shows_the_output_of_its_command(checkout, commands):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    command, shown = re.search(r"```bash\n(umons predict .*?)```.*?```\n(.*?)```", text, flags=re.S).groups()
    assert [line.rstrip() for line in run(commands, ["bash", "-euc", command], checkout).splitlines()] == [
        line.rstrip() for line in shown.splitlines()
    ]


def test_makefile_predicts_a_held_out_clip_with_its_own_words():
    table = (ROOT / "hub/sample/metadata.csv").read_text(encoding="utf-8")
    rows = {row["file_name"]: row for row in csv.DictReader(table.splitlines())}
    clip, text = re.search(r'predict hub/sample/(\S+) --text "([^"]+)"', (ROOT / "Makefile").read_text()).groups()
    assert rows[clip]["split"] != "train"
    assert rows[clip]["text"] == text


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files(document):
    text = BLOCK.sub("", (ROOT / document).read_text(encoding="utf-8"))
    folder = (ROOT / document).parent
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not (folder / link).exists()]
    assert not missing


def test_index_and_navigation_have_every_page():
    index, navigation = (ROOT / "docs/index.md").read_text(encoding="utf-8"), (ROOT / "mkdocs.yml").read_text()
    pages = [path.name for path in (ROOT / "docs").glob("*.md") if path.name != "index.md"]
    assert not [page for page in pages if f"]({page})" not in index or f": {page}\n" not in navigation]
