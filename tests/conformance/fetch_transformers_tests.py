"""Lays out transformers' common tests, from the source distribution of the release that is installed.

transformers publishes them with its source (Apache License 2.0) and does not install them. They are fetched when they
are first needed, and never committed. `python tests/conformance/fetch_transformers_tests.py` does it by hand.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path


HERE = Path(__file__).resolve().parent

# The source distribution has the test mixins only. What they import besides, and expect to find around them (after a
# change here, delete `hf_bar`):
COMPLEMENT = {
    "tests/__init__.py": "",
    "tests/exporters/__init__.py": "",
    "tests/generation/__init__.py": "",
    "tests/utils/__init__.py": "",
    # Bases that only matter for models that are exported to other formats, or that generate.
    "tests/exporters/test_export.py": "class ExportTesterMixin: ...\n",
    "tests/generation/test_utils.py": "class GenerationTesterMixin: ...\n",
    # Settings that every configuration must take and keep, none at its default.
    "tests/utils/test_configuration_utils.py": """\
config_common_kwargs = {
    "return_dict": False,
    "output_hidden_states": True,
    "output_attentions": True,
    "dtype": "float16",
    "chunk_size_feed_forward": 3,
    "is_encoder_decoder": True,
    "architectures": ["SomeModel"],
    "id2label": {0: "first", 1: "second"},
    "label2id": {"first": 0, "second": 1},
    "problem_type": "regression",
}
""",
    "tests/utils/tiny_model_summary.json": "{}",  # tiny models on the Hub, none of them ours
    "src/transformers/__init__.py": "",  # imported for its side effect of giving the installed transformers
    # Files of Hugging Face's own test bucket, which our tests do not use, by the addresses they have.
    "utils/fetch_hub_objects_for_ci.py": "def url_to_local_path(url, return_url_if_not_found=True):\n    return url\n",
}


def lay_out(parent: Path = HERE / "hf_bar") -> Path:
    """The folder whose `tests` are transformers' own, of the installed release; fetched if it is not there yet.

    Raises:
        OSError: the source distribution cannot be fetched.
    """
    name = f"transformers-{version('transformers')}"
    folder = parent / name
    if folder.is_dir():
        return folder
    parent.mkdir(exist_ok=True)
    # Whole or not at all: built elsewhere, and moved into place by one rename.
    with tempfile.TemporaryDirectory(dir=parent) as temporary:
        new = Path(temporary) / "new"
        with tarfile.open(_download(name, Path(temporary))) as archive:
            members = [member for member in archive if member.name.startswith(f"{name}/tests/")]
            archive.extractall(temporary, members, filter="data")
        (Path(temporary) / name).rename(new)
        for path, content in COMPLEMENT.items():
            (new / path).parent.mkdir(parents=True, exist_ok=True)
            (new / path).write_text(content, encoding="utf-8")
        try:
            os.rename(new, folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    return folder


def _download(name: str, folder: Path) -> Path:
    options = ["--quiet", "--retries=1", "--timeout=15", "--no-deps", "--no-build-isolation"]
    options += ["--no-binary=transformers", f"--dest={folder}", name.replace("-", "==")]
    command = [sys.executable, "-m", "pip", "download", *options]
    result = subprocess.run(command, capture_output=True, text=True)
    archive = folder / f"{name}.tar.gz"
    if result.returncode != 0 or not archive.is_file():
        said = (result.stderr.strip() or "nothing was downloaded").splitlines()[-1]
        raise OSError(f"The source distribution of {name} cannot be fetched: {said}")
    return archive


if __name__ == "__main__":
    print(lay_out())
