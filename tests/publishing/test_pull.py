"""Pushed repositories, loaded over HTTP in new processes with an empty cache, with the package and without it.

Each process takes seconds, so that one process loads all that it can.
"""

import json
import re
import shutil
import subprocess
import sys

import huggingface_hub
import pytest
import torch
from datasets import disable_progress_bars as disable_datasets_bars
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars
from local_hub import LocalHub
from remote_code import INSTALLED, NOT_INSTALLED
from safetensors.torch import load_file, save_file
from transformers import pipeline

from modeling_umons import UmonsConfig, UmonsForSequenceClassification, UmonsProcessor
from modeling_umons.data import MoseiBuilder, prepare_dataset
from modeling_umons.publishing.assemble import assemble_folder
from modeling_umons.publishing.plan import plan_push
from modeling_umons.publishing.push import push


DEADLINE = 240  # seconds
TASK = "multimodal-emotion-recognition"
FAULTY_REPOS = ("says-401", "says-500", "is-cut")
INPUTS = {"text": ["so very glad", "this is awful"]}
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

START = """
import json, sys
import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoProcessor, pipeline

torch.set_num_threads(1)
found = {}

def logits(repo, **options):
    processor = AutoProcessor.from_pretrained(repo, **OPTIONS, **options)
    model = AutoModelForSequenceClassification.from_pretrained(repo, **OPTIONS, **options).eval()
    with torch.no_grad():
        return model(**processor(text=["so very glad", "this is awful"], return_tensors="pt")).logits.tolist()

def answer(repo):
    return pipeline("multimodal-emotion-recognition", model=repo, **OPTIONS)({"text": "so very glad"})

def error(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except Exception as problem:
        return f"{type(problem).__name__}: {problem}"
"""
MINI = """
found["logits"], found["answer"] = logits("umons/mini"), answer("umons/mini")
"""
# A client without the package.
CLIENT = """
from datasets import load_dataset

exec(sys.argv[2])  # the example of the card
for name in ("AutoConfig", "AutoModel", "AutoTokenizer", "AutoFeatureExtractor"):
    loaded = getattr(transformers, name).from_pretrained("umons/mini", **OPTIONS)
    found[name] = [type(loaded).__module__.split(".")[0], type(loaded).__name__]
found["old"] = logits("umons/mini", revision=sys.argv[1])
found["branch"] = logits("umons/mini", revision="tries")
found["sharded"] = logits("umons/sharded")
found["labels"] = answer("umons/labels")
found["hidden"] = logits("umons/hidden")
found["hidden without token"] = error(AutoProcessor.from_pretrained, "umons/hidden", token=False, **OPTIONS)
found["no code"] = error(AutoModelForSequenceClassification.from_pretrained, "umons/no-code", **OPTIONS)
found["not trusted"] = error(AutoModelForSequenceClassification.from_pretrained, "umons/mini", trust_remote_code=False)
found["rows"] = [row["segment_id"] for row in load_dataset("umons/mosei", "emotion", split="train", streaming=True)]
"""
MAINTAINER = """
import evaluate

found["no code"] = logits("umons/no-code")
found["module"] = type(AutoModelForSequenceClassification.from_pretrained("umons/mini")).__module__
metric = evaluate.load("umons/metrics", "sentiment")
found["metric"] = metric.compute(predictions=[0.4, -1.2], references=[1.0, -0.5])["acc2_has0"]
"""
# A Hub with faults that end. Waiting before a retry takes no time.
FAULTY = """
import time
from urllib.request import Request, urlopen

time.sleep = lambda seconds: None
for name in sys.argv[2:]:
    found[name] = error(logits, f"umons/{name}")
urlopen(Request(sys.argv[1] + "/_mend", method="POST")).read()
for name in sys.argv[2:]:
    found[f"{name} later"] = logits(f"umons/{name}")
"""
END = "\njson.dump(found, sys.stdout)\n"


def load_in_process(hub, folder, *code, offline=False, arguments=()) -> dict:
    """Run code in a new process whose cache is `folder`, and return what it found."""
    environment = {
        **hub.environment(),
        "HF_HOME": str(folder / "home"),
        **({"HF_HUB_OFFLINE": "1"} if offline else {}),
    }
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*code[:1], START, *code[1:], END]), *arguments],
        cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def local_logits(folder) -> list:
    """Return the logits of a folder's model."""
    processor = UmonsProcessor.from_pretrained(folder)
    model = UmonsForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(**processor(**INPUTS, return_tensors="pt")).logits.tolist()


def push_folder(folder, repo_id, **options):
    with plan_push(folder, repo_id) as plan:
        return push(plan, **options)


def save(folder, model, processor, **options):
    """Save a folder as training does. `options` are those of the weights."""
    pipeline(TASK, model=model, processor=processor).save_pretrained(folder)
    if options:
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder, **options)
    processor.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n\n# A model\n")


@pytest.fixture(scope="module")
def pushed(root, tmp_path_factory):
    """A Hub with all repositories, and the folders that were pushed."""
    base = tmp_path_factory.mktemp("pull")
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with LocalHub(base / "hub") as hub, pytest.MonkeyPatch.context() as patch:
        for name, value in {"ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": True}.items():
            patch.setattr(huggingface_hub.constants, name, value)
        patch.setenv("HF_TOKEN", "hf_test")
        disable_progress_bars()
        disable_datasets_bars()
        fill(hub, root, base)
        yield hub, base
        enable_progress_bars()
    torch.set_num_threads(num_threads)


def fill(hub, root, base):
    mini = root / "hub" / "umons-mini"
    processor = UmonsProcessor.from_pretrained(mini)

    # Two commits of one model, and one on a branch.
    tries, old = base / "tries", base / "old"
    for number, folder in enumerate((old, tries)):
        assemble_folder(mini, folder)
        weights = load_file(folder / "model.safetensors")
        weights["classifier.bias"] = weights["classifier.bias"] + number + 1
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (base / "commit").write_text(push_folder(old, "umons/mini").commit)
    push_folder(mini, "umons/mini")
    push_folder(tries, "umons/mini", revision="tries")

    model = UmonsForSequenceClassification.from_pretrained(mini)
    save(base / "sharded", model, processor, max_shard_size="2MB")
    push_folder(base / "sharded", "umons/sharded")
    assert sum(name.endswith(".safetensors") for name in hub.head("model", "umons/sharded")[1]) > 1

    torch.manual_seed(0)
    labels = {0: "calm", 1: "angry", 2: "amused"}
    config = UmonsConfig(
        modalities=["text"], vocab_size=len(processor.tokenizer), word_embedding_size=8, hidden_size=8,
        intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, problem_type="single_label_classification",
        id2label=labels, label2id={label: number for number, label in labels.items()},
    )  # fmt: skip
    save(base / "labels", UmonsForSequenceClassification(config), processor)
    push_folder(base / "labels", "umons/labels")
    push_folder(base / "labels", "umons/hidden", private=True)
    for name in FAULTY_REPOS:
        push_folder(base / "labels", f"umons/{name}")

    # A model that was uploaded without code.
    bare = base / "bare"
    shutil.copytree(base / "labels", bare, ignore=shutil.ignore_patterns("*.py"))
    for path in bare.glob("*.json"):
        content = json.loads(path.read_text())
        if isinstance(content, dict) and content.keys() & {"auto_map", "custom_pipelines"}:
            path.write_text(
                json.dumps({k: v for k, v in content.items() if k not in ("auto_map", "custom_pipelines")})
            )
    api = huggingface_hub.HfApi(endpoint=hub.endpoint, token="hf_test")
    api.create_repo("umons/no-code")
    api.upload_folder(folder_path=bare, repo_id="umons/no-code")

    tables = base / "tables"
    tables.mkdir()
    lines = ["segment_id,video_id,segment,split,start,end,sentiment,happy,sad,anger,surprise,disgust,fear"]
    lines += [
        f"{s}[{i}],{s},{i},{s},{i},{i + 1},1,1,0,0.5,0,0,0" for i, s in enumerate(("train", "train", "valid", "test"))
    ]
    (tables / "labels.csv").write_text("\n".join(lines) + "\n")
    builder = MoseiBuilder(layout="labels", data_dir=str(tables), cache_dir=str(base / "cache"))
    prepare_dataset(builder, base / "mosei")
    push_folder(base / "mosei", "umons/mosei")
    push_folder(root / "hub" / "metrics", "umons/metrics")


def test_repositories_load_without_the_package_and_from_the_cache(pushed, root, tmp_path):
    hub, base = pushed
    mini = root / "hub" / "umons-mini"
    card = hub.content("model", "umons/mini", "README.md").decode()
    (example,) = re.findall(r"^```python\n(.*?)^```", card, re.MULTILINE | re.DOTALL)
    assert 'model="umons/mini"' in example
    found = load_in_process(
        hub, tmp_path, NOT_INSTALLED, MINI, CLIENT, arguments=[(base / "commit").read_text(), example]
    )
    assert found["AutoConfig"] == ["transformers_modules", "UmonsConfig"]
    assert found["AutoModel"] == ["transformers_modules", "UmonsModel"]
    assert found["AutoFeatureExtractor"] == ["transformers_modules", "UmonsFeatureExtractor"]
    assert found["AutoTokenizer"][0] == "transformers"
    expected = local_logits(mini)
    assert found["logits"] == expected == found["sharded"]
    answer = pipeline(TASK, model=str(mini))({"text": "so very glad"})
    assert found["answer"] == json.loads(json.dumps(answer))  # tuples are lists in JSON
    assert found["old"] == local_logits(base / "old") != expected
    assert found["branch"] == local_logits(base / "tries") != expected
    assert found["labels"] == pipeline(TASK, model=str(base / "labels"))({"text": "so very glad"})
    assert all(label in json.dumps(found["labels"]) for label in ("calm", "angry", "amused"))
    assert found["hidden"] == local_logits(base / "labels")
    assert "umons/hidden" in found["hidden without token"]
    assert "model type `umons`" in found["no code"]
    assert "trust_remote_code=True" in found["not trusted"]
    assert found["rows"] == ["train[0]", "train[1]"]

    # The same from the cache.
    hub.fail(r".", 500)
    number = len(hub.requests)
    again = load_in_process(hub, tmp_path, NOT_INSTALLED, MINI, offline=True)
    hub.mend()
    assert again == {name: found[name] for name in ("logits", "answer")}
    assert len(hub.requests) == number


def test_package_runs_no_code_of_repositories(pushed, root, tmp_path):
    hub, base = pushed
    found = load_in_process(hub, tmp_path, INSTALLED, MINI, MAINTAINER)
    assert found["module"] == "modeling_umons.models.umons.modeling_tbje"
    assert found["logits"] == local_logits(root / "hub" / "umons-mini")
    assert found["no code"] == local_logits(base / "labels")
    assert found["metric"] == 1.0
    assert not list((tmp_path / "home" / "modules" / "transformers_modules").glob("umons*"))


def test_faults_of_the_hub_are_errors_and_leave_nothing_behind(pushed, tmp_path):
    hub, base = pushed
    hub.fail(r"/says-401/", 401, message="Invalid credentials")
    hub.fail(r"/says-500/", 500)
    hub.fail(r"/is-cut/resolve/.*safetensors", "cut")
    found = load_in_process(hub, tmp_path, INSTALLED, FAULTY, arguments=[hub.endpoint, *FAULTY_REPOS])
    assert "umons/says-401" in found["says-401"]
    assert found["says-500"].startswith(f"OSError: We couldn't connect to '{hub.endpoint}'")
    assert found["is-cut"].split(":")[0] in ("RemoteProtocolError", "OSError", "ReadError")
    assert [found[f"{name} later"] for name in FAULTY_REPOS] == [local_logits(base / "labels")] * 3
