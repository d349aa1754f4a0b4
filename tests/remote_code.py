"""Code for new processes in which the package is not installed."""

import json
import os
import shutil
import subprocess
import sys

import torch
from safetensors.torch import load_file


# Runs first in a process that simulates a machine without the package.
NOT_INSTALLED = """
import sys
from importlib.abc import MetaPathFinder

class NotInstalled(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "modeling_umons":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
OPTIONS = {"trust_remote_code": True}
"""
INSTALLED = """
import modeling_umons
OPTIONS = {}
"""
# Loads every part of the folder through the Auto classes.
LOAD = """
import json
import torch
import transformers
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)
loaded = {name: getattr(transformers, name).from_pretrained("saved", **OPTIONS) for name in AUTO_CLASSES}
print(json.dumps({name: [type(value).__module__, type(value).__name__] for name, value in loaded.items()}))
"""
ANSWER = """
question = load_file("question.safetensors")
inputs = loaded["AutoProcessor"](
    text=["So very glad", None],
    audio=list(question["waveforms"]),
    sampling_rate=22050,
    return_tensors="pt",
)
model = loaded["AutoModelForSequenceClassification"].eval()
with torch.no_grad():
    save_file({**inputs, "logits": model(**inputs).logits}, "answer.safetensors")
"""
SAVE = """
loaded["AutoModelForSequenceClassification"].save_pretrained("saved_again")
loaded["AutoProcessor"].save_pretrained("saved_again")
"""

OURS = {
    "AutoConfig": "UmonsConfig",
    "AutoModel": "UmonsModel",
    "AutoModelForSequenceClassification": "UmonsForSequenceClassification",
    "AutoProcessor": "UmonsProcessor",
    "AutoFeatureExtractor": "UmonsFeatureExtractor",
    "AutoVideoProcessor": "UmonsVideoProcessor",
}


def run(folder, *code: str) -> dict[str, list[str]]:
    """Run `code` in `folder`, in a process with an empty environment, and return the JSON that it prints."""
    shutil.rmtree(folder / "cache", ignore_errors=True)
    environment = {"PATH": os.environ["PATH"], "HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", "\n".join(code)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,  # no terminal to confirm remote code
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def check_answer(folder):
    answer, expected = load_file(folder / "answer.safetensors"), load_file(folder / "expected.safetensors")
    assert answer.keys() == expected.keys()
    for name in expected:
        assert torch.equal(answer[name], expected[name]), name
    (folder / "answer.safetensors").unlink()
