"""A saved folder is enough: it loads in a new process in which this package is not installed."""

import json
import os
import subprocess
import sys

import torch
from reference_baselines import make_batch, make_model
from safetensors.torch import load_file, save_file

import modeling_umons


NAMES = {"tfn": "Tfn", "mfn": "Mfn", "graph_mfn": "GraphMfn"}
LOAD = """
import json, sys
from importlib.abc import MetaPathFinder

class NotInstalled(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "modeling_umons":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

torch.set_num_threads(1)
found = {}
batch = load_file("batch.safetensors")
for name in NAMES:
    classes = []
    for auto_class in (AutoConfig, AutoModel, AutoModelForSequenceClassification):
        loaded = auto_class.from_pretrained(name, trust_remote_code=True)
        classes.append([type(loaded).__module__.split(".")[0], type(loaded).__name__])
    with torch.no_grad():
        save_file({"logits": loaded.eval()(**batch).logits}, f"{name}.safetensors")
    loaded.save_pretrained(f"{name}_again")
    found[name] = classes
print(json.dumps(found))
"""


def test_loads_without_the_package_and_saves_again(tmp_path):
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums come in another order on several, and answers are compared to the last bit
    batch, expected = make_batch(), {}
    save_file(batch, tmp_path / "batch.safetensors")
    for name, prefix in NAMES.items():
        model = make_model(getattr(modeling_umons, f"{prefix}ForSequenceClassification"))
        model.save_pretrained(tmp_path / name)
        with torch.no_grad():
            expected[name] = model(**batch).logits
    torch.set_num_threads(num_threads)

    result = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", f"NAMES = {list(NAMES)}\n{LOAD}"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,  # nobody there to say yes to remote code
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    for name, prefix in NAMES.items():
        suffixes = ("Config", "Model", "ForSequenceClassification")
        assert found[name] == [["transformers_modules", f"{prefix}{suffix}"] for suffix in suffixes]
        assert torch.equal(load_file(tmp_path / f"{name}.safetensors")["logits"], expected[name])
        saved, again = ({path.name for path in (tmp_path / f"{name}{end}").iterdir()} for end in ("", "_again"))
        assert saved == again
        assert f"modeling_{name}.py" in saved
