"""hub/endpoint, copied into a model's repository and called as the Inference Toolkit does."""

import base64
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_pipelines import WORDS, make_model, make_processor

from modeling_umons import TfnConfig, TfnForSequenceClassification
from modeling_umons.publishing.assemble import assemble_folder


@pytest.fixture(scope="module")
def repository(root, tmp_path_factory) -> Path:
    """A model and its handler, as a push assembles them."""
    folder = tmp_path_factory.mktemp("endpoint") / "repository"
    assemble_folder(root / "hub" / "umons-mini", folder, endpoint=root / "hub" / "endpoint")
    return folder


@pytest.fixture(scope="module")
def handler(repository):
    """Load the handler as the toolkit does: the folder is in `sys.path`, and the class gets the folder."""
    sys.path.insert(0, str(repository))
    try:
        spec = importlib.util.spec_from_file_location("handler", repository / "handler.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module.EndpointHandler(str(repository))
    finally:
        sys.path.remove(str(repository))
        sys.modules.pop("request_handling", None)


@pytest.fixture(scope="module")
def clip(root) -> bytes:
    return (root / "hub" / "sample" / "clips" / "000.mp4").read_bytes()


def call(handler, inputs, **parameters):
    found = handler({"inputs": inputs, "parameters": parameters} if parameters else {"inputs": inputs})
    return json.loads(json.dumps(found, allow_nan=False))


def test_handler_predicts_each_form_of_input(handler, clip):
    encoded = base64.b64encode(clip).decode()
    expected = call(handler, clip)  # audio/* and video/* arrive as bytes
    assert list(expected) == ["sentiment", "label", "confidence", "emotions", "modalities", "warnings"]
    assert expected["modalities"] == ["audio"]
    assert call(handler, {"video": encoded}) == expected
    assert call(handler, {"audio": f"data:video/mp4;base64,{encoded}"})["sentiment"] == pytest.approx(
        expected["sentiment"]
    )
    assert call(handler, "so glad")["modalities"] == ["text"]
    both = call(handler, {"text": "what a wonderful day", "video": encoded}, top_k=2)
    assert both["modalities"] == ["text", "audio"]
    assert len(both["emotions"]) == 2
    (segment,) = call(handler, clip, return_timestamps=True)
    assert segment["timestamp"][0] == 0
    assert "attention" in call(handler, {"text": "so glad"}, return_attention=True)


def test_handler_returns_a_list_for_a_list(handler, clip):
    first, failed, third = call(
        handler, [{"text": "so glad"}, {"video": "AAAA"}, {"video": base64.b64encode(clip).decode()}]
    )
    assert first["modalities"] == ["text"]
    assert list(failed) == ["error"]
    assert third["modalities"] == ["audio"]


@pytest.mark.parametrize("kind", ["classes", "baseline"])
def test_handler_serves_other_models(handler, clip, kind, tmp_path):
    torch.manual_seed(0)
    if kind == "classes":
        model = make_model(id2label={0: "calm", 1: "cross", 2: "glad"})
    else:
        model = TfnForSequenceClassification(
            TfnConfig(vocab_size=2 + len(WORDS), word_embedding_size=12, num_labels=1)
        )
    model.eval().save_pretrained(tmp_path)
    make_processor().save_pretrained(tmp_path)
    found = call(type(handler)(str(tmp_path)), {"text": "so glad", "video": base64.b64encode(clip).decode()})
    if kind == "classes":
        assert {entry["label"] for entry in found["labels"]} == {"calm", "cross", "glad"}
    else:
        assert isinstance(found["sentiment"], float)
    assert found["modalities"] == ["text", "audio"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("http://127.0.0.1:8080/", "URLs are not fetched"),
        ({"video": "http://169.254.169.254/latest/meta-data/"}, "URLs are not fetched"),
        ({"video": "file:///etc/passwd"}, "URLs are not fetched"),
        ({"video": "config.json"}, "not valid base64"),
        ({"video": base64.b64encode(b"not a clip" * 9).decode()}, "could not be opened"),
        ({"text": "..."}, "word"),
    ],
    ids=["local", "metadata", "file", "path", "no_media", "no_words"],
)
def test_handler_refuses_with_a_message_for_the_client(handler, repository, inputs, message):
    """The toolkit responds with the message of the exception."""
    with pytest.raises(ValueError, match=r".") as caught:
        handler({"inputs": inputs})
    assert message in str(caught.value)
    assert str(repository) not in str(caught.value)


def test_request_without_inputs_raises(handler):
    with pytest.raises(ValueError, match="inputs"):
        handler({})


# The package is not installed in an endpoint.
WITHOUT_THE_PACKAGE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "modeling_umons":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hidden())
sys.path.insert(0, sys.argv[1])
import json
from handler import EndpointHandler
handler = EndpointHandler(sys.argv[1])
print(json.dumps(handler({"inputs": [{"text": "so glad"}, open(sys.argv[2], "rb").read()]})))
"""


def test_handler_needs_only_its_folder(repository, root, tmp_path):
    clip = root / "hub" / "sample" / "clips" / "000.mp4"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_PACKAGE, str(repository), str(clip)],
        capture_output=True, text=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [found["modalities"] for found in json.loads(done.stdout)] == [["text"], ["audio"]]


def test_requirements_match_the_package(root):
    metadata = (root / "pyproject.toml").read_text(encoding="utf-8")
    lines = (root / "hub" / "endpoint" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    for line in lines:
        assert line.startswith("#") or f'"{line}"' in metadata
