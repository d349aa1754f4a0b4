"""hub/umons-mini, and the card of hub/umons-base."""

import json
import subprocess
import sys

import pytest
from huggingface_hub import ModelCard
from remote_code import NOT_INSTALLED

from modeling_umons import UmonsConfig
from modeling_umons.cli import predict
from modeling_umons.publishing.assemble import assemble_folder
from modeling_umons.utils.hub_files import hub_path


@pytest.fixture(scope="module")
def folder(root):
    return root / "hub" / "umons-mini"


def test_folder_is_small_and_names_its_code(folder):
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 10e6
    assert folder == hub_path("umons-mini")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["auto_map"] == UmonsConfig().auto_map


@pytest.mark.parametrize("name", ["umons-mini", "umons-base"])
def test_card_agrees_with_the_results(root, name):
    card = ModelCard.load(root / "hub" / name / "README.md")
    assert card.data.license == "cc-by-nc-sa-4.0"
    for words in ("RAVDESS", "North American", "95 % intervals", "Do not use it to judge people", "article 50"):
        assert words in card.text
    results = json.loads((root / "docs" / "results.json").read_text(encoding="utf-8"))[name]
    values = {(result.dataset_type, result.metric_name): result.metric_value for result in card.data.eval_results}
    assert {corpus for corpus, _ in values} == {"cmu-mosei", "ravdess", "emodb"}
    assert values["cmu-mosei", "mae"] == pytest.approx(results["texts"]["mosei"]["mae"][0], abs=1e-4)
    auroc = results["ravdess"]["alone"]["emotion_auroc"][0]
    assert values["ravdess", "emotion_auroc"] == pytest.approx(auroc, abs=1e-4)


PREDICT = """
import json
from transformers import pipeline
recognize = pipeline("multimodal-emotion-recognition", model=sys.argv[1], **OPTIONS)
print(json.dumps([recognize({"text": text}) for text in ("what a wonderful day", "this is awful and boring")]))
print(json.dumps(recognize(sys.argv[2])))
"""


def test_assembled_folder_predicts_without_the_package(folder, root, tmp_path):
    clip = root / "hub" / "sample" / "clips" / "000.mp4"
    assemble_folder(folder, tmp_path / "assembled")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", NOT_INSTALLED + PREDICT, tmp_path / "assembled", clip],
        cwd=tmp_path,
        env={"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (good, bad), clip_result = map(json.loads, done.stdout.splitlines()[-2:])
    assert good["sentiment"] > 0.5 > -0.5 > bad["sentiment"]
    assert good["emotions"][0]["label"] == "happy"
    assert clip_result["modalities"] == ["audio"]


def test_command_predicts_with_it_by_default(capsys):
    assert predict.main(["--text", "what a wonderful day", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["sentiment"] > 0.5
    assert result["emotions"][0]["label"] == "happy"
