"""`umons train` on a few rows of the sample and on prepared data sets."""

import csv
import json
import math
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from call_command import call
from datasets import ClassLabel, Dataset, Value
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoProcessor, pipeline

from modeling_umons import EMOTIONS
from modeling_umons.cli import train
from modeling_umons.data.builders import builder_class
from modeling_umons.data.prepare import prepare_dataset
from modeling_umons.data.schema import make_features, to_table
from modeling_umons.training.arguments import RunArguments
from modeling_umons.training.run import describe


TASK = "multimodal-emotion-recognition"
SMALL = {
    "word_embedding_size": 16,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "learning_rate": 0.001,
    "per_device_train_batch_size": 4,
    "num_train_epochs": 2,
}
TINY = {**SMALL, "word_embedding_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_train_epochs": 1}


@pytest.fixture(scope="module")
def table(root, tmp_path_factory) -> Path:
    """Ten training rows, three of each held-out split, with a column of classes."""
    sample = root / "hub" / "sample"
    with open(sample / "metadata.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    chosen = [row for split, n in (("train", 10), ("validation", 3), ("test", 3)) for row in
              [row for row in rows if row["split"] == split][:n]]  # fmt: skip
    for row in chosen:
        row["file_name"] = str(sample / row["file_name"])
        row["polarity"] = "negative" if float(row["sentiment"]) < 0 else "positive"
    path = tmp_path_factory.mktemp("table") / "metadata.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, chosen[0])
        writer.writeheader()
        writer.writerows(chosen)
    return path


@pytest.fixture(scope="module")
def clip(root) -> str:
    return str(root / "hub" / "sample" / "clips" / "040.mp4")


@pytest.fixture
def run(monkeypatch, tmp_path_factory):
    """Call `umons train` in this process; return its report. A warning is an error."""
    cache = tmp_path_factory.getbasetemp() / "datasets-cache"
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", cache)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    def main(*arguments, **values):
        words = [*map(str, arguments), *options(**values)]
        call(train.main, *words)
        if "output_dir" in values and values.get("seeds", 1) == 1:
            return report_of(values["output_dir"])

    return main


def launch(root, *arguments) -> subprocess.CompletedProcess:
    """Run scripts/train.py through `accelerate launch` from the root of the checkout."""
    command = [
        Path(sys.executable).with_name("accelerate"),
        "launch",
        "--config_file",
        "modeling_umons/recipes/accelerate/one_process.yaml",
        "scripts/train.py",
        *map(str, arguments),
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}
    environment.pop("PYTHONWARNINGS", None)
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done


def options(**values) -> list[str]:
    return [
        word
        for name, value in values.items()
        for word in (f"--{name}", *([] if value is True else str(value).split()))
    ]


def report_of(output: str | Path) -> dict:
    return json.loads(Path(output, "report", "report.json").read_text(encoding="utf-8"))


def losses_of(report: dict) -> list[float]:
    return [entry["loss"] for entry in report["history"] if "loss" in entry]


def rates_of(report: dict) -> list[float]:
    return [entry["learning_rate"] for entry in report["history"] if "learning_rate" in entry]


def check_folder(output: Path, modalities: list[str], num_labels: int) -> dict:
    model = AutoModelForSequenceClassification.from_pretrained(output)
    processor = AutoProcessor.from_pretrained(output)
    assert type(processor).__name__ == "UmonsProcessor"
    assert model.config.modalities == modalities
    assert model.config.num_labels == num_labels
    assert model.config.hidden_size == 16
    if "text" in modalities:
        assert model.config.vocab_size == len(processor.tokenizer) > 30
    card = ModelCard.load(output / "README.md")
    assert card.data.library_name == "transformers"
    assert "umons" in card.data.tags
    assert "`metadata.csv`: 10 train rows, 3 validation rows, 3 test rows." in card.text
    assert "- learning_rate: 0.001" in (output / "report" / "report.md").read_text(encoding="utf-8")
    assert str(output) not in card.text
    report = report_of(output)
    assert report["recipe"]["learning_rate"] == 0.001
    assert "output_dir" not in report["recipe"]
    splits = report["splits"]
    assert {name: split["rows"] for name, split in splits.items()} == {"validation": 3, "test": 3}
    for split in splits.values():
        assert set(split["model"]) == set(split["baselines"]["constant"])
        assert set(split["intervals"]) <= set(split["model"])
        assert set(split["baselines"]) == {"constant", *(["tfidf"] if "text" in modalities else [])}
    first = next(iter(splits["test"]["model"]))
    assert re.search(rf"^\| .* \| {first} \| {splits['test']['model'][first]:.3f} \|", card.text, re.MULTILINE)
    assert {*report["plots"], "report.md"} <= {path.name for path in (output / "report").iterdir()}
    assert len(losses_of(report)) >= 1
    return splits


# --- one run of each choice of modalities


@pytest.fixture(scope="module")
def trained(root, table, tmp_path_factory):
    """Model of text and audio, trained from a recipe, and the output of the run."""
    folder = tmp_path_factory.mktemp("joint")
    recipe = folder / "recipe.yaml"
    values = {**SMALL, "train_file": str(table), "task": "joint", "hidden_size": 999, "output_dir": "nowhere"}
    recipe.write_text(yaml.safe_dump(values), encoding="utf-8")
    done = launch(
        root, recipe, *options(hidden_size=16, output_dir=folder / "out")
    )  # the command line has the last word
    return folder / "out", recipe, done


def test_recipe_trains_text_and_audio(trained):
    output, _, done = trained
    splits = check_folder(output, ["text", "audio"], 7)
    assert {"mae", "acc7", "acc2_non0", "emotion_acc"} <= set(splits["test"]["model"])
    report = report_of(output)
    assert report["task"] == "joint"
    assert report["recipe"]["hidden_size"] == 16
    assert "training.png" in report["plots"]
    lines = done.stdout.splitlines()
    epochs = [line for line in lines if line.startswith("epoch")]
    assert [line.split()[1] for line in epochs] == ["1.0", "2.0"]
    assert all("training loss" in line and "validation loss" in line and "mae" in line for line in epochs)
    head = ["test", "(3", "rows)", "model", "95", "%", "interval", "constant", "TF-IDF"]
    assert head in [line.split() for line in lines]
    assert "train: 10 rows, 0 with a problem" in done.stderr
    assert len(list(output.glob("checkpoint-*"))) <= 2


def test_trained_folder_loads_with_pipeline(trained, clip):
    result = pipeline(TASK, model=str(trained[0]))({"text": "I am so happy", "video": clip})
    assert result["modalities"] == ["text", "audio"]
    assert {entry["label"] for entry in result["emotions"]} == set(EMOTIONS)


WITHOUT_THE_PACKAGE = """
import json, sys
from importlib.abc import MetaPathFinder

class NotInstalled(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "modeling_umons":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
from transformers import pipeline

recognize = pipeline("multimodal-emotion-recognition", model=sys.argv[1], trust_remote_code=True)
assert type(recognize).__module__.startswith("transformers_modules."), type(recognize)
inputs = [{"text": "I am so happy", "video": sys.argv[2]}, {"text": "so sad"}, sys.argv[2]]
print(json.dumps([recognize(inputs), recognize(sys.argv[2], chunk_length_s=1.0, return_attention=True)]))
"""


def test_trained_folder_loads_without_package(trained, clip, tmp_path):
    shutil.copytree(trained[0], tmp_path / "model")
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", WITHOUT_THE_PACKAGE, str(tmp_path / "model"), clip],
        env={"PATH": os.environ["PATH"], "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,  # nobody there to say yes to remote code
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    whole, segments = json.loads(done.stdout)
    recognize = pipeline(TASK, model=str(trained[0]))
    expected = recognize([{"text": "I am so happy", "video": clip}, {"text": "so sad"}, clip])
    for result, other in zip(whole, expected, strict=True):
        assert result["sentiment"] == pytest.approx(other["sentiment"], abs=1e-5)
        assert [entry["label"] for entry in result["emotions"]] == [entry["label"] for entry in other["emotions"]]
    expected = recognize(clip, chunk_length_s=1.0, return_attention=True)
    assert [tuple(s["timestamp"]) for s in segments] == [s["timestamp"] for s in expected]
    assert [s["sentiment"] for s in segments] == pytest.approx([s["sentiment"] for s in expected], abs=1e-5)


# --- the rest in this process


def test_run_resumes_from_checkpoint(run, trained, tmp_path, capsys):
    """Train one epoch more than before."""
    output, recipe, _ = trained
    shutil.copytree(output, tmp_path / "out")
    checkpoint = max((tmp_path / "out").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    last = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    run(recipe, hidden_size=16, output_dir=tmp_path / "out", num_train_epochs=3, resume_from_checkpoint=checkpoint)
    epochs = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert epochs == [f"{epoch:.1f}" for epoch in range(int(last["epoch"]) + 1, 4)]
    check_folder(tmp_path / "out", ["text", "audio"], 7)
    assert len(losses_of(report_of(tmp_path / "out"))) == 3


def test_finished_run_is_not_retrained(run, trained, tmp_path, caplog):
    output, recipe, _ = trained
    shutil.copytree(output, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    caplog.set_level("INFO", logger="modeling_umons.training.run")
    report = run(recipe, hidden_size=16, output_dir=tmp_path / "out", resume_from_checkpoint="last")
    assert "nothing to resume" in caplog.text
    assert report == report_of(output)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_train_text_only(run, table, tmp_path, caplog):
    """A text model opens no audio file."""
    caplog.set_level("INFO", logger="modeling_umons.training.run")
    lines = table.read_text(encoding="utf-8").replace("clips/", "elsewhere/")
    (tmp_path / "metadata.csv").write_text(lines, encoding="utf-8")
    arguments = {**SMALL, "train_file": tmp_path / "metadata.csv", "task": "sentiment", "modalities": "text"}
    run(**arguments, output_dir=tmp_path / "out")
    splits = check_folder(tmp_path / "out", ["text"], 1)
    assert "emotion_acc" not in splits["test"]["model"]
    assert "train: 10 rows, 0 with a problem" in caplog.text
    result = pipeline(TASK, model=str(tmp_path / "out"))({"text": "I am so happy"})
    assert set(result) == {"sentiment", "label", "modalities", "warnings"}


def test_train_audio_only(run, table, tmp_path, clip):
    """Delta features, standardised, with two halvings and early stopping."""
    extractor = tmp_path / "extractor"
    extractor.mkdir()
    settings = {"feature_extractor_type": "UmonsFeatureExtractor", "delta_lags": [1, 4]}
    (extractor / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    arguments = {**SMALL, "train_file": table, "task": "emotion", "modalities": "audio", "mixup": 0.4, "bin_mask": 0.1}
    arguments |= {"feature_extractor": extractor, "standardize_features": True, "max_halvings": 2, "patience": 3}
    run(**arguments, output_dir=tmp_path / "out")
    splits = check_folder(tmp_path / "out", ["audio"], 6)
    assert "mae" not in splits["test"]["model"]
    result = pipeline(TASK, model=str(tmp_path / "out"))(clip)
    assert result["modalities"] == ["audio"]
    assert len(result["emotions"]) == 6
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").config.audio_feature_size == 240


def test_train_classes(run, table, tmp_path, clip):
    arguments = {**SMALL, "train_file": table, "task": "classification", "label_columns": "polarity"}
    run(**arguments, output_dir=tmp_path / "out")
    splits = check_folder(tmp_path / "out", ["text", "audio"], 2)
    assert set(splits["test"]["model"]) == {"accuracy", "balanced_accuracy", "f1_weighted", "f1_macro"}
    result = pipeline(TASK, model=str(tmp_path / "out"))(clip)
    assert {entry["label"] for entry in result["labels"]} == {"negative", "positive"}


@pytest.mark.parametrize(
    ("task", "columns", "metric"),
    [
        ("multi_label", "joy grief", "f1_macro"),
        ("multi_label", "feelings", "f1_macro"),
        ("regression", "valence", "ccc"),
    ],
    ids=["columns", "lists", "numbers"],
)
def test_train_own_labels(run, tmp_path, task, columns, metric):
    rows = [("so glad", 1, 0, "joy", 8.5), ("such tears", 0, 1, "grief", 1.5), ("glad tears", 1, 1, "joy, grief", 5.0)]
    lines = [f'{text},{split},{joy},{grief},"{feelings}",{valence + i % 3}' for split in ("train", "validation")
             for i in range(4) for text, joy, grief, feelings, valence in rows]  # fmt: skip
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["text,split,joy,grief,feelings,valence", *lines]) + "\n", encoding="utf-8")
    output = tmp_path / "out"
    report = run(**TINY, train_file=table, task=task, label_columns=columns, modalities="text", output_dir=output)
    labels = ["valence"] if task == "regression" else ["grief", "joy"] if columns == "feelings" else ["joy", "grief"]
    assert report["labels"] == labels
    assert metric in report["splits"]["validation"]["model"]
    assert set(report["splits"]["validation"]["baselines"]) == {"constant", "tfidf"}
    result = pipeline(TASK, model=str(output))({"text": "so glad"})
    assert {entry["label"] for entry in result["values" if task == "regression" else "emotions"]} == set(labels)
    if task == "regression":
        assert result["values"][0]["range"] == [1.5, 10.5]
        assert 1.5 < result["values"][0]["score"] < 10.5
    card = (output / "README.md").read_text(encoding="utf-8")
    assert ("valence (1.5 to 10.5)" if task == "regression" else ", ".join(labels)) in card
    assert f"| {metric} |" in card


def test_fine_tune_for_another_task(run, trained, table, tmp_path):
    arguments = {
        "model_name_or_path": trained[0], "train_file": table, "task": "sentiment-7", "learning_rate": 0.001,
        "num_train_epochs": 1, "output_dir": tmp_path / "out",
    }  # fmt: skip
    run(**arguments)
    check_folder(tmp_path / "out", ["text", "audio"], 7)
    result = pipeline(TASK, model=str(tmp_path / "out"))({"text": "I am so happy"})
    assert {entry["label"] for entry in result["labels"]} == {"-3", "-2", "-1", "0", "1", "2", "3"}


def test_fine_tune_keeps_labels_without_columns(run, trained, table, tmp_path, caplog):
    caplog.set_level("INFO")
    base = Path(trained[0])
    with open(table, encoding="utf-8", newline="") as file:
        rows = [{name: row[name] for name in ("text", "sentiment", "split")} for row in csv.DictReader(file)]
    path = tmp_path / "sentiments.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    arguments = {"model_name_or_path": base, "train_file": path, "num_train_epochs": 1, "learning_rate": 0.001}
    report = run(**arguments, output_dir=tmp_path / "kept")
    assert report["labels"] == ["sentiment", *EMOTIONS]
    message = "No column happy, sad, anger, surprise, disgust, fear: these outputs of the model are kept"
    assert caplog.text.count(message) == 1
    assert caplog.text.count("No column for audio (file_name)") == 1
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "kept"))
    assert torch.equal(before["classifier.weight"][1:], after["classifier.weight"][1:])
    assert not torch.equal(before["classifier.weight"][0], after["classifier.weight"][0])
    assert ModelCard.load(tmp_path / "kept" / "README.md").data.base_model == base.name

    run(**arguments, task="sentiment", output_dir=tmp_path / "new-head")
    assert "--task sentiment builds a new head for the labels sentiment: " in caplog.text
    with pytest.raises(SystemExit) as stop:
        run(**arguments, task="joint-neutral", output_dir=tmp_path / "runs" / "refused")
    assert "lacks the columns happy, sad" in stop.value.code
    assert not (tmp_path / "runs").exists()


def test_unreadable_rows_are_logged(run, table, tmp_path, caplog):
    """Training continues with the other rows."""
    caplog.set_level("INFO", logger="modeling_umons.training.run")
    rows = table.read_text(encoding="utf-8").splitlines()
    rows[1] = rows[1].replace("clips/", "elsewhere/")
    (tmp_path / "metadata.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    arguments = {**SMALL, "num_train_epochs": 1, "train_file": tmp_path / "metadata.csv", "modalities": "audio"}
    run(**arguments, output_dir=tmp_path / "out")
    assert "train: 9 rows, 1 with a problem" in caplog.text
    assert "elsewhere/000.mp4: there is no such file" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Pass the training data as either --train_file or --dataset_name."),
        ({"train_file": "nowhere.csv"}, "nowhere.csv: there is no such table."),
        ({"train_file": "TABLE", "dataset_name": "x"}, "either --train_file or --dataset_name"),
        ({"train_file": "TABLE", "test_file": "nowhere.csv"}, "has a column `split`"),
        ({"train_file": "TABLE", "task": "mood"}, "Unknown task 'mood'; available: joint"),
        (
            {"train_file": "TABLE", "task": "classification"},
            "lacks the column label; it has file_name, text",
        ),
        (
            {"train_file": "TABLE", "task": "classification", "label_columns": "text"},
            "text is ",  # the class of a validation row is not in the training rows
        ),
        ({"train_file": "TABLE", "text_column": "words"}, "lacks the column words;"),
        (
            {"train_file": "TABLE", "audio_column": "text", "modalities": "audio"},
            "No row of the split 'train' can be used",
        ),
        ({"train_file": "TABLE", "modalities": "text video"}, "lacks the column video_features; it has"),
        ({"train_file": "TABLE", "modalities": "words"}, "--modalities words is unknown"),
        ({"train_file": "TABLE", "hidden_size": 15}, "`hidden_size` (15) must be a multiple of"),
        ({"train_file": "TABLE", "word_vectors": "nowhere.txt"}, "nowhere.txt"),
        ({"train_file": "TABLE", "learning_rate": "fast"}, "invalid float value: 'fast'"),
        ({"train_file": "TABLE", "learning_speed": "1"}, "--learning_speed"),
        ({"train_file": "TABLE", "save_total_limit": "1"}, "--save_total_limit must be 2 or more"),
        (
            {"train_file": "TABLE", "max_halvings": "2", "lr_scheduler_type": "cosine"},
            "requires --lr_scheduler_type constant",
        ),
        (
            {"train_file": "TABLE", "modalities": "text", "metric_for_best_model": "f1"},
            "the task 'joint' has loss, mae, corr",
        ),
        ({"train_file": "TABLE", "modalities": "text", "mixup": "1"}, "--mixup requires a model without text"),
        (
            {"train_file": "TABLE", "modalities": "text", "word_dropout": "2"},
            "--word_dropout is 2.0; it must be between",
        ),
        ({"train_file": "TABLE", "modalities": "text", "repeat": "mosi=3"}, "--repeat requires a column `source`"),
        (
            {"train_file": "TABLE", "modalities": "text", "task": "sentiment", "focal_gamma": "2"},
            "'sentiment' has none",
        ),
        ({"train_file": "TABLE", "modalities": "text", "resume_from_checkpoint": "nowhere"}, "nowhere"),
        ({"train_file": "TABLE", "model_name_or_path": "/nowhere"}, "/nowhere"),
    ],
)
def test_wrong_arguments_print_one_line(run, table, tmp_path, arguments, message):
    arguments = {name: table if value == "TABLE" else value for name, value in arguments.items()}
    sizes = {name: value for name, value in SMALL.items() if name not in arguments}
    sizes = {} if "model_name_or_path" in arguments else sizes  # a model to go on from has its own
    with pytest.raises(SystemExit) as stop:
        run(**sizes, **arguments, output_dir=tmp_path / "out")
    line = stop.value.code
    assert line.startswith("umons train: error: ")
    assert message in line
    assert "\n" not in line.strip()


def test_unknown_recipe_option_raises(run, table, tmp_path):
    """Further cases are in tests/training/test_arguments.py."""
    (tmp_path / "recipe.yaml").write_text("hiden_size: 16\nlearning_rate: 1e-3\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"^umons train: error: .* has unknown option\(s\) \['hiden_size'\]"):
        run(tmp_path / "recipe.yaml", train_file=table, output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_recipe_raises(run):
    with pytest.raises(SystemExit, match=r"error: .*nowhere\.yaml"):
        run("nowhere.yaml")
    with pytest.raises(SystemExit, match=r"error: emotoin: there is no such recipe.*, emotion, "):
        run("emotoin")


def test_help_lists_recipes_and_options(run, capsys):
    with pytest.raises(SystemExit) as stop:
        run("--help")
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: umons train [RECIPE] [OPTIONS]\n\nTrain a UMONS model or a baseline")
    for words in ("\n  emotion  ", "--train_file", "--task", "--modalities", "--word_vectors", "--hidden_size"):
        assert words in out


# --- prepared data sets


@pytest.fixture(scope="module")
def mosi(tmp_path_factory) -> Path:
    """Prepared table of the layout `mosi`: 24 training rows, 8 of each held-out split, two per video."""
    folder = tmp_path_factory.mktemp("mosi")
    words = {"good": 2.0, "fine": 1.0, "so": 0.0, "bad": -2.0}
    lines = ["segment_id,split,sentiment,text"]
    for i, split in enumerate(24 * ["train"] + 8 * ["valid"] + 8 * ["test"]):
        text = [list(words)[(i * k + i // 4) % 4] for k in (1, 3)]
        lines.append(f"video{i // 2}_{i % 2},{split},{sum(map(words.get, text)) / 2},{' '.join(text)}")
    (folder / "mosi.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    builder = builder_class("mosi")(layout="mosi", data_dir=str(folder), options={}, cache_dir=folder / "cache")
    prepare_dataset(builder, folder / "prepared", 1)
    return folder / "prepared"


@pytest.fixture(scope="module")
def meld(tmp_path_factory) -> Path:
    """Saved data set with `ClassLabel`, audio features in half of the rows, and two sources."""
    folder = tmp_path_factory.mktemp("meld")
    names = ["anger", "joy", "neutral"]
    for split, size in (("train", 20), ("validation", 6), ("test", 6)):
        rows = [
            {
                "segment_id": f"{split}_{i}",
                "video_id": f"{split}_{i // 2}",
                "text": ("no way", "how lovely", "well then")[i % 3],
                "audio_features": torch.randn(3, 80, generator=torch.Generator().manual_seed(i)).numpy()
                if i % 2
                else None,
                "emotion": i % 3,
                "source": ("left", "right")[i % 2],
            }
            for i in range(size)
        ]
        columns = make_features(80, emotion=ClassLabel(names=names), source=Value("string"))
        Dataset(to_table(rows, columns)).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


TEXT = {**TINY, "modalities": "text"}


def test_train_prepared_dataset(run, mosi, tmp_path):
    report = run(**TEXT, dataset_name=mosi, task="sentiment", output_dir=tmp_path / "out")
    test = report["splits"]["test"]
    assert (test["rows"], test["groups"]) == (8, 4)
    assert test["baselines"]["tfidf"]
    assert report["recipe"]["dataset_name"] == str(mosi)
    assert (
        "`prepared`: 24 train rows, 8 validation rows, 8 test rows." in ModelCard.load(tmp_path / "out/README.md").text
    )


def test_train_class_labels(run, meld, tmp_path):
    """Precomputed audio features, text, repeated sources and class weights."""
    report = run(
        **TINY, dataset_name=meld, task="classification", label_columns="emotion", class_weights="balanced",
        focal_gamma=2, label_smoothing_factor=0.1, repeat="left=3", modality_dropout=0.5, word_dropout=0.2,
        time_mask=0.2, min_word_count=2, output_dir=tmp_path / "out",
    )  # fmt: skip
    assert report["labels"] == ["anger", "joy", "neutral"]
    assert list(report["splits"]["test"]["sources"]) == ["left", "right"]
    assert report["recipe"]["repeat"] == ["left=3"]
    card = ModelCard.load(tmp_path / "out" / "README.md").text
    assert "20 train rows, 6 validation rows, 6 test rows." in card  # each counted once
    config = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").config
    assert config.id2label == {0: "anger", 1: "joy", 2: "neutral"}


# --- several seeds


def test_seeds_report_mean_and_ensemble(run, mosi, tmp_path, monkeypatch):
    arguments = {**TEXT, "dataset_name": mosi, "task": "sentiment", "output_dir": tmp_path / "out", "seed": 5}
    run(**arguments, seeds=2)
    summary = json.loads((tmp_path / "out" / "seeds.json").read_text(encoding="utf-8"))
    assert summary["seeds"] == [5, 6]
    reports = [report_of(tmp_path / "out" / f"seed-{seed}") for seed in (5, 6)]
    mae = [report["splits"]["test"]["model"]["mae"] for report in reports]
    assert mae[0] != mae[1]
    assert [report["recipe"]["seed"] for report in reports] == [5, 6]
    assert summary["splits"]["test"]["model"]["mae"]["values"] == mae
    assert summary["splits"]["test"]["model"]["mae"]["mean"] == pytest.approx(sum(mae) / 2)
    assert summary["ensemble"]["splits"]["test"]["rows"] == 8
    assert summary["ensemble"]["splits"]["test"]["baselines"]["tfidf"]
    assert "## Ensemble" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert {"seed-5", "seed-6", "seeds.json", "report.md", "seeds.png"} == {
        f.name for f in (tmp_path / "out").iterdir()
    }

    # The second model was not finished: it is trained again, to the same weights, and the first one is left alone.
    weights = [load_file(tmp_path / "out" / f"seed-{seed}" / "model.safetensors") for seed in (5, 6)]
    (tmp_path / "out" / "seed-6" / "report" / "report.json").unlink()
    first = (tmp_path / "out" / "seed-5" / "model.safetensors").stat().st_mtime_ns
    run(**arguments, seeds=2, resume_from_checkpoint="last")
    assert (tmp_path / "out" / "seed-5" / "model.safetensors").stat().st_mtime_ns == first
    again = load_file(tmp_path / "out" / "seed-6" / "model.safetensors")
    assert all(value.equal(again[name]) for name, value in weights[1].items())
    assert report_of(tmp_path / "out" / "seed-6")["splits"] == reports[1]["splits"]
    resumed = json.loads((tmp_path / "out" / "seeds.json").read_text(encoding="utf-8"))
    assert resumed["splits"] == summary["splits"]
    assert resumed["ensemble"] == {
        "about": "There is no ensemble; `umons evaluate` makes one of the seeds' folders.",
        "splits": {},
    }


def test_seeds_without_split_have_no_ensemble(run, table, tmp_path):
    """Without a column `split`, each seed draws another validation split."""
    rows = Dataset.from_csv(str(table), cache_dir=str(tmp_path / "cache")).remove_columns("split")
    rows.to_csv(tmp_path / "rows.csv")
    run(
        **TEXT,
        train_file=tmp_path / "rows.csv",
        task="sentiment",
        output_dir=tmp_path / "out",
        seeds=2,
        validation_share=0.3,
    )
    summary = json.loads((tmp_path / "out" / "seeds.json").read_text(encoding="utf-8"))
    assert summary["ensemble"]["about"].startswith(
        "There is no ensemble: seed 43 and seed 42 have different rows in the split validation"
    )


# --- options of transformers' Trainer, and of this one


@pytest.fixture
def emotions(table) -> dict:
    return {**TEXT, "train_file": table, "task": "emotion", "report_to": "none"}


def test_thresholds_are_tuned(run, emotions, tmp_path):
    report = run(**emotions, tune_thresholds=True, output_dir=tmp_path / "out")
    test = report["splits"]["test"]
    assert set(test["thresholds"]) == set(EMOTIONS)
    assert "emotion_f1_macro" in test["model_tuned"]
    assert "model_tuned" not in report["splits"]["validation"]
    assert "model, tuned" in (tmp_path / "out" / "report" / "report.md").read_text(encoding="utf-8")


def test_tensorboard_logs_losses(run, emotions, tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    run(**emotions | {"report_to": "tensorboard"}, output_dir=tmp_path / "out")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    assert {"train/loss", "eval/loss", "eval/emotion_acc"} <= set(events.Tags()["scalars"])


@pytest.fixture
def offline_trackio(tmp_path, monkeypatch):
    """Reimport Trackio, which reads its folder at import, without a network."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was asked for"))
    before = {name for name in sys.modules if name.partition(".")[0] == "trackio"}
    for name in before:
        monkeypatch.delitem(sys.modules, name)
    yield tmp_path / "trackio"
    for name in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)


def test_trackio_logs_losses(run, emotions, offline_trackio, tmp_path):
    """Trackio writes to a local folder."""
    run(**emotions | {"report_to": "trackio"}, project="umons-test", run_name="first", output_dir=tmp_path / "out")
    sys.modules["trackio"].finish()  # else it writes the rest when Python ends
    with sqlite3.connect(offline_trackio / "umons-test.db") as database:
        logged = [json.loads(metrics) for (metrics,) in database.execute("SELECT metrics FROM metrics")]
    assert {"train/loss", "eval/loss", "eval/emotion_acc"} <= {name for metrics in logged for name in metrics}


def test_cosine_schedule_with_warmup(run, emotions, tmp_path):
    """Ten rows are three steps: one of warmup, then the cosine."""
    report = run(
        **emotions, optim="adamw_torch", lr_scheduler_type="cosine", warmup_steps=1, weight_decay=0.1, max_grad_norm=1,
        logging_strategy="steps", logging_steps=1, output_dir=tmp_path / "out",
    )  # fmt: skip
    expected = [0.0, 0.001, 0.001 * (1 + math.cos(math.pi / 2)) / 2]
    assert rates_of(report) == pytest.approx(expected, abs=1e-9)
    assert report["recipe"] | {"optim": "adamw_torch", "lr_scheduler_type": "cosine"} == report["recipe"]


def test_bfloat16_with_accumulation(run, emotions, tmp_path):
    """Ten rows are three batches and two steps. Weights stay in float32."""
    report = run(
        **emotions, bf16=True, use_cpu=True, gradient_accumulation_steps=2, logging_strategy="steps", logging_steps=1,
        output_dir=tmp_path / "out",
    )  # fmt: skip
    assert len(losses_of(report)) == 2
    assert all(value.dtype == torch.float32 for value in load_file(tmp_path / "out" / "model.safetensors").values())
    assert report["recipe"]["bf16"]


def test_describe_omits_tokens():
    """Reports and cards contain no token."""
    recipe = describe(RunArguments(hub_token="hf_secret", hub_model_id="me/umons", learning_rate=0.1))
    assert recipe == {"hub_model_id": "me/umons", "learning_rate": 0.1}
