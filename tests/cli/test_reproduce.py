"""`umons reproduce` on pickles of the published implementation."""

import json
import pickle

import numpy as np
import pytest
from call_command import call

from modeling_umons.cli import reproduce
from modeling_umons.tasks.paper import ABLATIONS, ablations_of
from modeling_umons.training import reproduce as module


OPTIONS = [
    "--word_embedding_size", "8", "--hidden_size", "8", "--intermediate_size", "8", "--num_hidden_layers", "1",
    "--num_attention_heads", "2", "--num_train_epochs", "1", "--report_to", "none",
]  # fmt: skip


@pytest.fixture
def mosei(tmp_path):
    """Folder of pickles with text, audio and labels of 8 training, 4 validation and 4 test segments."""
    folder, random = tmp_path / "MOSEI", np.random.default_rng(0)
    folder.mkdir()
    for split, size in (("train", 8), ("valid", 4), ("test", 4)):
        ids = [f"{split}{number // 2}[{number % 2}]" for number in range(size)]
        parts = {
            "sentences": [["so", "glad"] if number % 2 else ["very", "sad"] for number in range(size)],
            "mels": list(random.normal(size=(size, 3, 80))),
            "sentiment": [2.0 if number % 2 else -2.0 for number in range(size)],
            "emotion": [np.eye(6)[number % 2] for number in range(size)],
        }
        for name, values in parts.items():
            (folder / f"{split}_{name}.p").write_bytes(pickle.dumps(dict(zip(ids, values, strict=True))))
    return folder


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


def test_interrupted_reproduction_resumes_to_the_same_table(mosei, tmp_path, monkeypatch):
    output = tmp_path / "out"
    arguments = [mosei, "--output_dir", output, "--seeds", "2", "--tasks", "sentiment-2", "emotion", "--combinations"]
    arguments += ["L", "L+A", "L+A+V", *OPTIONS]
    evaluate, calls = module.evaluate_models, []

    def interrupt(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        evaluate(*args)

    monkeypatch.setattr(module, "evaluate_models", interrupt)
    with pytest.raises(SystemExit):
        call(reproduce.main, *arguments)
    assert len(json.loads((output / "reproduction.json").read_text())["cells"]) == 1
    call(reproduce.main, *arguments)
    table = (output / "reproduction.md").read_text(encoding="utf-8")
    assert len(calls) == 5  # the evaluation of the first cell is kept
    call(reproduce.main, *arguments)
    assert (output / "reproduction.md").read_text(encoding="utf-8") == table
    assert len(calls) == 5
    # A run that was trained further is evaluated again.
    (output / "emotion" / "L" / "seed-1" / "report" / "report.json").touch()
    call(reproduce.main, *arguments)
    assert len(calls) == 6

    content = json.loads((output / "reproduction.json").read_text())
    cells = {(cell["task"], cell["combination"]): cell for cell in content["cells"]}
    assert list(cells) == [(task, names) for task in ("sentiment-2", "emotion") for names in ("L", "L+A")]
    for task, metric in (("sentiment-2", "acc2_has0"), ("emotion", "emotion_acc")):
        cell = cells[task, "L+A"]
        assert len(cell["validation"][metric]["values"]) == len(cell["test"][metric]["values"]) == 2
        assert metric in cell["ensemble"]
        assert cell["published"]["ensemble"] > 0.8
    assert cells["emotion", "L"]["published"] is None
    assert len(content["left_out"]) == 2
    assert "sentiment-2 from L+A+V: the data have no video_features of train" in table
    assert "Delbrouck et al." in table
    assert str(tmp_path) not in table.replace(str(mosei), "")
    assert (output / "reproduction.png").stat().st_size > 1000


def test_models_and_ablations_without_test_inputs_are_scored_on_validation(mosei, tmp_path):
    (mosei / "test_sentences.p").unlink()
    output = tmp_path / "out"
    arguments = ["--seeds", "1", "--tasks", "sentiment-2", "--combinations", "L", "--models", "umons", "tfn"]
    call(reproduce.main, mosei, "--output_dir", output, *arguments, "--ablations", *OPTIONS)
    content = json.loads((output / "reproduction.json").read_text())
    ablations = ["use_glimpses=false", "use_outer_residual=false", "legacy_masking=true"]  # of a single modality
    rows = [(cell["model"], cell["ablation"]) for cell in content["cells"]]
    assert rows == [("umons", None), ("tfn", None), *(("umons", option) for option in ablations)]
    for cell in content["cells"]:
        assert cell["ensemble_split"] == "validation"
        assert "test" not in cell
        assert cell["ensemble"]["acc2_has0"] == cell["validation"]["acc2_has0"]["mean"]
    for cell, option in zip(content["cells"][2:], ablations, strict=True):
        name, value = option.split("=")
        config = json.loads((output / "sentiment-2" / f"L-{option}" / "config.json").read_text())
        assert config[name] is (value == "true")
        assert cell["runs"] == [f"sentiment-2/L-{option}"]
    assert content["left_out"] == ["Test scores of sentiment-2 from L: the data have no text of test."]
    table = (output / "reproduction.md").read_text(encoding="utf-8")
    assert "| sentiment-2 | L | umons, use_glimpses=false |" in table
    assert "scored on validation" in table
    assert f"`{' '.join(OPTIONS)}`" in table
    assert "Self-MM" in table


def test_ablations_are_those_of_the_modalities():
    assert ablations_of("L") == ["use_glimpses=false", "use_outer_residual=false", "legacy_masking=true"]
    assert ablations_of("L+A") == list(ABLATIONS)
    assert "guide=audio" not in ablations_of("A")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lerning_rate", "1"], "Unknown option --lerning_rate; see `--help`. Did you mean --learning_rate"),
        (["--combinations", "V"], "has the data of none of the cells. sentiment-2 from V: the data have no video"),
        (["--max_halvings", "-1"], "--max_halvings is -1"),
    ],
)
def test_wrong_options_raise_before_training(mosei, tmp_path, words, message):
    with pytest.raises(SystemExit, match=message):
        call(reproduce.main, mosei, "--output_dir", tmp_path / "out", *words)


def test_unknown_layout_raises(tmp_path):
    with pytest.raises(SystemExit, match="has no files of a layout of CMU-MOSEI; name it with --layout"):
        call(reproduce.main, tmp_path, "--output_dir", tmp_path / "out")
