"""Assembly of folders as the Hub holds them."""

import os
import re
import subprocess
import sys
from importlib.machinery import PathFinder

import pytest
from small_pipelines import make_model, make_processor
from transformers import pipeline

from modeling_umons import TfnConfig, TfnForSequenceClassification
from modeling_umons.publishing.assemble import assemble_folder


@pytest.fixture(scope="module")
def mini(root, tmp_path_factory):
    """umons-mini as a repository of the Hub holds it."""
    folder = tmp_path_factory.mktemp("assembled") / "umons-mini"
    assert assemble_folder(root / "hub" / "umons-mini", folder) == []
    return folder


def test_hub_folders_hold_neither_links_nor_package_code(root):
    assert not [path for path in (root / "hub").rglob("*") if path.is_symlink()]
    assert not list((root / "hub" / "umons-mini").rglob("*.py"))


def test_assembled_folder_adds_the_code_that_save_pretrained_adds(root, mini, tmp_path):
    recognize = pipeline("multimodal-emotion-recognition", model=str(root / "hub" / "umons-mini"))
    recognize.save_pretrained(tmp_path)
    recognize.processor.save_pretrained(tmp_path)
    saved = {path.name: path.read_bytes() for path in tmp_path.glob("*.py")}
    assert {path.name: path.read_bytes() for path in mini.glob("*.py")} == saved
    assert "modeling_tbje.py" in saved


def test_endpoint_code_is_added(root, tmp_path):
    endpoint = root / "hub" / "endpoint"
    assemble_folder(root / "hub" / "umons-mini", tmp_path / "repository", endpoint)
    names = {path.name for path in (tmp_path / "repository").iterdir()}
    assert {"handler.py", "request_handling.py", "requirements.txt", "modeling_tbje.py"} <= names
    card = (tmp_path / "repository" / "README.md").read_text(encoding="utf-8")
    assert card == (root / "hub" / "umons-mini" / "README.md").read_text(encoding="utf-8")
    with pytest.raises(OSError, match=r"no handler\.py"):
        assemble_folder(root / "hub" / "umons-mini", tmp_path / "other", root / "hub" / "sample")


def test_code_in_the_folder_stays(mini, tmp_path):
    own = tmp_path / "own"
    assemble_folder(mini, own)
    (own / "modeling_tbje.py").write_text("class UmonsModel: ...\n")
    (own / "media_umons.py").unlink()
    assemble_folder(own, tmp_path / "again")
    assert (tmp_path / "again" / "modeling_tbje.py").read_text() == "class UmonsModel: ...\n"
    assert not (tmp_path / "again" / "media_umons.py").exists()


def test_large_files_are_linked_if_wanted(mini, tmp_path, monkeypatch):
    monkeypatch.setattr("modeling_umons.publishing.assemble.LINKED_SIZE", 1 << 20)
    assemble_folder(mini, tmp_path / "linked", link_large_files=True)
    linked = [path.name for path in (tmp_path / "linked").iterdir() if path.is_symlink()]
    assert linked == ["model.safetensors"]
    assert (tmp_path / "linked" / "model.safetensors").read_bytes() == (mini / "model.safetensors").read_bytes()


def test_links_are_refused_and_leftovers_are_ignored(mini, tmp_path):
    folder = tmp_path / "run"
    assemble_folder(mini, folder)
    leftovers = ("checkpoint-7/optimizer.pt", "__pycache__/x.pyc", ".cache/x", "training_args.bin", "report/.x.part")
    for name in leftovers:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\0")
    ignored = assemble_folder(folder, tmp_path / "clean")
    assert ignored == [".cache", "__pycache__", "checkpoint-7", "report/.x.part", "training_args.bin"]
    assert not any((tmp_path / "clean" / name).exists() for name in leftovers)
    (folder / "key.txt").symlink_to("/etc/hostname")
    with pytest.raises(OSError, match=r"key\.txt is a symbolic link to /etc/hostname: replace it by a copy"):
        assemble_folder(folder, tmp_path / "linked")


@pytest.fixture(params=["umons", "tfn", "pipeline", "assembled", "endpoint"])
def written(request, root, mini, tmp_path):
    """A folder that the package writes."""
    if request.param == "assembled":
        return mini
    if request.param == "endpoint":
        assemble_folder(mini, tmp_path, root / "hub" / "endpoint")
    elif request.param == "tfn":
        TfnForSequenceClassification(TfnConfig(vocab_size=9, word_embedding_size=4)).save_pretrained(tmp_path)
    elif request.param == "umons":
        make_model().save_pretrained(tmp_path)
    else:
        task = "multimodal-emotion-recognition"
        pipeline(task, model=make_model(), processor=make_processor()).save_pretrained(tmp_path)
    make_processor().save_pretrained(tmp_path) if request.param != "endpoint" else None
    return tmp_path


def test_written_folders_do_not_shadow_packages(written):
    """A Python that starts in the folder finds the folder's files first."""
    names = [path.stem for path in written.glob("*.py")]
    assert names
    assert PathFinder.find_spec("modeling_umons", [str(written)]) is None
    assert not set(names) & set(sys.stdlib_module_names)


@pytest.mark.parametrize("is_installed", [True, False], ids=["package", "no_package"])
def test_card_example_runs_in_the_folder(mini, is_installed, tmp_path):
    """`import modeling_umons` and the example of the card, with the folder as the current one."""
    card = (mini / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", card, re.MULTILINE | re.DOTALL)
    assert "trust_remote_code=True" in code
    code = code.replace('model="umons-mini"', 'model="."')
    if is_installed:
        code = "import modeling_umons\n" + code.replace("    trust_remote_code=True,\n", "")
    else:
        code = "import sys\nsys.modules['modeling_umons'] = None\n" + code
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=mini, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
