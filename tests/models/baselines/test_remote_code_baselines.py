"""Saved folders load with `trust_remote_code` in a process without this package, also through `pipeline`."""

import json
import os
import subprocess
import sys

import pytest
from reference_baselines import make_model
from small_pipelines import TASK, make_processor
from transformers import pipeline

import modeling_umons


NAMES = {"tfn": "Tfn", "mfn": "Mfn", "graph_mfn": "GraphMfn", "multilogue_net": "MultilogueNet", "mult": "Mult"}
LOAD = """
import json, sys
from importlib.abc import MetaPathFinder

class NotInstalled(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "modeling_umons":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoProcessor, pipeline

torch.set_num_threads(1)
names, inputs = json.loads(sys.argv[1])
found = {}
for name in names:
    loaded = {}
    for auto_class in (AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoProcessor):
        loaded[auto_class.__name__] = auto_class.from_pretrained(name, trust_remote_code=True)
    loaded["AutoModelForSequenceClassification"].save_pretrained(f"{name}_again")
    recognize = pipeline("multimodal-emotion-recognition", model=name, trust_remote_code=True)
    loaded["pipeline"], loaded["its model"] = recognize, recognize.model
    classes = {key: [type(value).__module__.split(".")[0], type(value).__name__] for key, value in loaded.items()}
    found[name] = [classes, recognize(inputs)]
print(json.dumps(found))
"""


def test_saved_folder_loads_without_package_and_saves_again(root, tmp_path):
    inputs = [{"text": "so glad", "video": str(root / "hub" / "sample" / "clips" / "040.mp4")}, {"text": "so very"}]
    processor, expected = make_processor(), {}
    sizes = {"vocab_size": len(processor.tokenizer), "audio_feature_size": 80, "modalities": ["text", "audio"]}
    sizes |= {f"max_{modality}_length": 60 for modality in ("text", "audio")}
    for name, prefix in NAMES.items():
        model = make_model(
            getattr(modeling_umons, f"{prefix}ForSequenceClassification"), num_labels=7, joint_sentiment=True, **sizes
        )
        recognize = pipeline(TASK, model=model, processor=processor)
        recognize.save_pretrained(tmp_path / name)
        processor.save_pretrained(tmp_path / name)  # last, as training does
        expected[name] = recognize(inputs)

    result = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", LOAD, json.dumps([list(NAMES), inputs])],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,  # no terminal that could confirm remote code
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    for name, prefix in NAMES.items():
        classes, results = found[name]
        assert classes == {
            key: ["transformers_modules", class_name]
            for key, class_name in {
                "AutoConfig": f"{prefix}Config",
                "AutoModel": f"{prefix}Model",
                "AutoModelForSequenceClassification": f"{prefix}ForSequenceClassification",
                "AutoProcessor": "UmonsProcessor",
                "pipeline": "MultimodalEmotionPipeline",
                "its model": f"{prefix}ForSequenceClassification",
            }.items()
        }
        for answer, one in zip(results, expected[name], strict=True):
            assert answer["modalities"] == one["modalities"]
            scores = [{e["label"]: e["score"] for e in a["emotions"]} | {"": a["sentiment"]} for a in (answer, one)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-6)
        saved, again = ({path.name for path in (tmp_path / f"{name}{end}").iterdir()} for end in ("", "_again"))
        assert again <= saved
        assert {f"modeling_{name}.py", "configuration_baselines.py"} <= again
