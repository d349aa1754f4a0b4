"""Packages that umons-mini requires: torch and transformers for text, av for audio, torchvision for video."""

import shutil
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from remote_code import run

from modeling_umons.publishing.assemble import assemble_folder


# Runs first in a process that simulates an environment without the packages `HIDDEN`.
HIDE = """
import json
import sys

class Visible:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Visible(finder) for finder in sys.meta_path if hasattr(finder, "find_spec")]
OPTIONS = {"trust_remote_code": True}

def error_of(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except ImportError as error:
        return str(error)
"""
TEXT = """
import numpy as np
import transformers

names = ("AutoConfig", "AutoModel", "AutoModelForSequenceClassification", "AutoTokenizer", "AutoProcessor",
         "AutoFeatureExtractor")
loaded = {name: getattr(transformers, name).from_pretrained("saved", **OPTIONS) for name in names}
processor = loaded["AutoProcessor"]
inputs = processor(text="what a wonderful day", return_tensors="pt")
logits = loaded["AutoModelForSequenceClassification"](**inputs).logits
recognize = transformers.pipeline("multimodal-emotion-recognition", model="saved", **OPTIONS)
result = recognize({"text": "what a wonderful day"})
assert abs(result["sentiment"] - logits[0, 0].item()) < 1e-4
tone = np.sin(np.arange(22050) / 10)
assert recognize({"audio": tone, "sampling_rate": 22050})["modalities"] == ["audio"]
processor.save_pretrained("saved_again")
"""
WITHOUT_AV = """
print(json.dumps([
    error_of(recognize, "clip.mp4"),
    error_of(recognize, {"audio": tone, "sampling_rate": 16000}),
    error_of(processor, text="so glad", videos=np.zeros((16, 32, 32, 3), np.uint8)),
]))
"""
WITH_AV = """
print(json.dumps([
    recognize({"text": "what a wonderful day", "video": "clip.mp4"})["modalities"],
    recognize({"audio": tone, "sampling_rate": 16000})["modalities"],
    error_of(processor, text="so glad", videos=np.zeros((16, 32, 32, 3), np.uint8)),
]))
"""


def modules_to_hide(*packages: str) -> list[str]:
    """Installed top-level modules that neither the packages nor their dependencies provide."""
    visible, queue = set(), list(packages)
    while queue:
        name = canonicalize_name(queue.pop())
        if name in visible:
            continue
        visible.add(name)
        try:
            requirements = [Requirement(line) for line in requires(name) or ()]
        except PackageNotFoundError:  # the requirement is for another platform
            continue
        queue += [r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    modules = packages_distributions().items()
    hidden = [module for module, names in modules if not visible & {canonicalize_name(name) for name in names}]
    return [*hidden, "modeling_umons"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, root):
    folder = tmp_path_factory.mktemp("requirements")
    assemble_folder(root / "hub" / "umons-mini", folder / "saved")
    shutil.copy(root / "hub" / "sample" / "clips" / "000.mp4", folder / "clip.mp4")
    return folder


def test_text_needs_torch_and_transformers_only(folder):
    hidden = modules_to_hide("torch", "transformers")
    assert {"av", "torchvision", "PIL", "scipy"} <= set(hidden)
    file_error, rate_error, video_error = run(folder, f"HIDDEN = {hidden}", HIDE, TEXT, WITHOUT_AV)
    assert "pip install av" in file_error
    assert "pip install av" in rate_error
    assert "pip install torchvision" in video_error


def test_audio_needs_av_only(folder):
    hidden = modules_to_hide("torch", "transformers", "av")
    in_clip, in_array, video_error = run(folder, f"HIDDEN = {hidden}", HIDE, TEXT, WITH_AV)
    assert in_clip == ["text", "audio"]
    assert in_array == ["audio"]
    assert "pip install torchvision" in video_error
