"""Wheel and sdist: built, installed into an environment of its own, and used from an empty folder."""

import csv
import email
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import modeling_umons


OFFLINE = {"HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}

NOT_SOURCE = (".git", ".venv", ".*_cache", "*.egg-info", "__pycache__", "build", "dist", "hf_bar", "runs", "site")


def run(*command, folder: Path) -> str:
    environment = {**os.environ, **OFFLINE}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(root, tmp_path_factory) -> Path:
    """Folder of the sdist, and of the wheel that is built from it."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    # A build writes into its source.
    shutil.copytree(root, source, ignore=shutil.ignore_patterns(*NOT_SOURCE), dirs_exist_ok=True)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", output, source, folder=output)
    return output


@pytest.fixture(scope="module")
def wheel(built) -> Path:
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def bin_folder(wheel, tmp_path_factory) -> Path:
    """Scripts of an environment with the wheel, which finds the requirements in the environment of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    paths = {name: Path(sysconfig.get_path(name, "venv", {"base": str(folder)})) for name in ("purelib", "scripts")}
    requirements = sysconfig.get_path("purelib")
    (paths["purelib"] / "requirements.pth").write_text(f"import site; site.addsitedir({requirements!r})\n")
    python = paths["scripts"] / Path(sys.executable).name
    options = ["--no-deps", "--no-index", "--ignore-installed"]
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel, folder=folder)
    return paths["scripts"]


@pytest.fixture
def umons(bin_folder, tmp_path):
    """Run the installed command in an empty folder."""
    return lambda *arguments: run(bin_folder / "umons", *arguments, folder=tmp_path)


def test_wheel_contains_everything_but_the_checkout(wheel, root):
    names = zipfile.ZipFile(wheel).namelist()
    files = {name.removeprefix("modeling_umons/") for name in names if name.startswith("modeling_umons/")}
    assert {
        "py.typed", "data/official_splits.json", "publishing/model_card.md", "recipes/emotion.yaml",
        "recipes/accelerate/fsdp.yaml", "hub/umons-mini/model.safetensors", "hub/umons-mini/LICENSE",
        "hub/mosei/README.md", "hub/endpoint/handler.py",
    } <= files  # fmt: skip
    code = {path.relative_to(root / "modeling_umons").as_posix() for path in (root / "modeling_umons").rglob("*.py")}
    assert code == {name for name in files if name.endswith(".py") and not name.startswith("hub/")}
    assert not [name for name in names if not name.startswith(("modeling_umons/", "modeling_umons-"))]


def test_metadata_describes_the_package(wheel, root):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = email.message_from_bytes(archive.read(name))
        licenses = [name for name in archive.namelist() if ".dist-info/licenses/" in name]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert metadata["Name"] == "modeling-umons"
    assert metadata["Version"] == modeling_umons.__version__
    assert metadata["Author"] == "The modeling_umons authors"
    assert metadata["License-Expression"] == "MIT AND CC-BY-NC-SA-4.0"
    assert len(licenses) == 2
    assert metadata["Keywords"].split(",") == project["keywords"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().strip()
    assert set(metadata.get_all("Provides-Extra")) == set(project["optional-dependencies"])
    # `all` names every extra for users, directly or through another extra, but `deepspeed`: accelerate imports that in
    # each training where it is installed.
    extras = set(project["optional-dependencies"]["all"][0].partition("[")[2].rstrip("]").split(","))
    assert extras == set(project["optional-dependencies"]) - {"all", "data", "deepspeed", "dev", "docs", "evaluate"}


def test_sdist_contains_what_the_tests_need(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "Makefile", "pyproject.toml", "setup.py", "README.md", "LICENSE", "tests/conftest.py", "tests/call_command.py",
        "tests/fixtures/model_la_sentiment2.safetensors", "hub/sample/metadata.csv", "hub/sample/clips/000.mp4",
        "hub/umons-mini/model.safetensors", "scripts/train.py", "docs/encoders.md", "examples/01_predict.py",
    } <= names  # fmt: skip
    assert not [name for name in names if name.endswith(".pyc") or "/hf_bar/" in name]


def test_installed_package_is_not_the_checkout(bin_folder, tmp_path, root):
    code = "import modeling_umons; print(modeling_umons.__file__)"
    location = run(bin_folder / Path(sys.executable).name, "-c", code, folder=tmp_path).strip()
    assert not Path(location).is_relative_to(root)


def test_installed_command_prints_version_and_recipes(umons):
    assert umons("--version") == f"modeling-umons {modeling_umons.__version__}\n"
    recipes = umons("train", "--list_recipes")
    assert "  emotion  " in recipes
    launch_file = recipes.splitlines()[-1].strip()
    assert launch_file.endswith("two_processes.yaml")
    assert "distributed_type" in Path(launch_file).read_text()


def test_installed_command_predicts_with_umons_mini(umons):
    (result,) = json.loads(umons("predict", "--text", "what a wonderful day", "--json"))
    assert result["sentiment"] > 0
    assert result["emotions"][0]["label"] == "happy"


def test_installed_command_trains_and_evaluates(umons, tmp_path):
    splits = 10 * ["train"] + 3 * ["validation"] + 3 * ["test"]
    with open(tmp_path / "my.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "sentiment", "split"])
        for i, split in enumerate(splits):
            writer.writerow([f"a {'good' if i % 2 else 'bad'} film number {i}", 2 * (i % 2) - 1, split])
    sizes = ["--word_embedding_size=8", "--hidden_size=8", "--intermediate_size=8", "--num_hidden_layers=1"]
    umons(
        "train",
        "sentiment",
        "--label_range",
        "-3",
        "3",
        "--train_file",
        "my.csv",
        "--modalities",
        "text",
        "--num_train_epochs=1",
        "--max_halvings=0",
        "--patience=0",
        "--output_dir=run",
        "--report_to=none",
        *sizes,
    )
    assert "umons" in (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    umons("evaluate", "--model", "run", "--dataset", "my.csv", "--num_bootstrap", "20", "--output", "report.json")
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["splits"]["test"]["rows"] == 3
