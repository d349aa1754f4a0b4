"""scripts/train.py as a user runs it, on a few rows of the sample."""

import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from transformers import AutoModelForSequenceClassification, AutoProcessor, pipeline

from modeling_umons import EMOTIONS


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


@pytest.fixture(scope="module")
def table(root, tmp_path_factory) -> Path:
    """Ten rows to train on, three of each held-out split, with a column of classes."""
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


def launch(root, *arguments) -> subprocess.CompletedProcess:
    """As the README says: through accelerate's launcher, from the root of the checkout."""
    command = [
        Path(sys.executable).with_name("accelerate"), "launch",
        "--config_file", "scripts/recipes/accelerate/one_process.yaml", "scripts/train.py", *map(str, arguments),
    ]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}
    environment.pop("PYTHONWARNINGS", None)
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done


def options(**values) -> list[str]:
    return [word for name, value in values.items() for word in (f"--{name}", *str(value).split())]


def check_folder(output: Path, modalities: list[str], num_labels: int):
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
    assert "metadata.csv: 10 train rows, 3 validation rows, 3 test rows." in card.text
    assert "- learning_rate: 0.001" in card.text
    assert "| | validation (3 rows) | constant | test (3 rows) | constant |" in card.text
    results = json.loads((output / "results.json").read_text(encoding="utf-8"))
    assert {name: split["rows"] for name, split in results.items()} == {"validation": 3, "test": 3}
    for split in results.values():
        assert set(split["model"]) == set(split["constant"])
    return results


# --- one run of each choice of modalities


@pytest.fixture(scope="module")
def trained(root, table, tmp_path_factory):
    """A model of text and sound, trained from a recipe; and what the run printed."""
    folder = tmp_path_factory.mktemp("joint")
    recipe = folder / "recipe.yaml"
    values = {**SMALL, "train_file": str(table), "task": "joint", "hidden_size": 999, "output_dir": "nowhere"}
    recipe.write_text(yaml.safe_dump(values), encoding="utf-8")
    done = launch(
        root, recipe, *options(hidden_size=16, output_dir=folder / "out")
    )  # the command line has the last word
    return folder / "out", recipe, done


def test_text_and_sound_from_a_recipe(trained):
    output, _, done = trained
    results = check_folder(output, ["text", "audio"], 7)
    assert {"mae", "acc7", "acc2_non0", "emotion_acc"} <= set(results["test"]["model"])
    lines = done.stdout.splitlines()
    epochs = [line for line in lines if line.startswith("epoch")]
    assert [line.split()[1] for line in epochs] == ["1.0", "2.0"]
    assert all("training loss" in line and "validation loss" in line and "mae" in line for line in epochs)
    assert any(line.startswith("test (3 rows)") and line.split()[-2:] == ["model", "constant"] for line in lines)
    assert "train: 10 rows, 0 with a problem" in done.stderr
    assert len(list(output.glob("checkpoint-*"))) <= 2


def test_the_folder_loads_by_pipeline(trained, clip):
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
print(json.dumps([recognize(inputs), recognize(sys.argv[2], segment_s=1.0, return_attention=True)]))
"""


def test_the_folder_loads_without_the_package(trained, clip, tmp_path):
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
    expected = recognize(clip, segment_s=1.0, return_attention=True)
    assert [tuple(s["timestamp"]) for s in segments] == [s["timestamp"] for s in expected]
    assert [s["sentiment"] for s in segments] == pytest.approx([s["sentiment"] for s in expected], abs=1e-5)


def test_a_run_goes_on_from_its_checkpoint(root, trained, tmp_path):
    output, recipe, _ = trained
    shutil.copytree(output, tmp_path / "out")
    checkpoint = max((tmp_path / "out").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    last = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    arguments = options(
        hidden_size=16, output_dir=tmp_path / "out", num_train_epochs=3, resume_from_checkpoint=checkpoint
    )
    done = launch(root, recipe, *arguments)
    epochs = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("epoch")]
    assert epochs == [f"{epoch:.1f}" for epoch in range(int(last["epoch"]) + 1, 4)]
    check_folder(tmp_path / "out", ["text", "audio"], 7)


def test_text(root, table, tmp_path):
    """A model of text opens no file of sound."""
    lines = table.read_text(encoding="utf-8").replace("clips/", "elsewhere/")
    (tmp_path / "metadata.csv").write_text(lines, encoding="utf-8")
    arguments = {**SMALL, "train_file": tmp_path / "metadata.csv", "task": "sentiment", "modalities": "text"}
    done = launch(root, *options(**arguments, output_dir=tmp_path / "out"))
    results = check_folder(tmp_path / "out", ["text"], 1)
    assert "emotion_acc" not in results["test"]["model"]
    assert "0 with a problem" in done.stderr
    result = pipeline(TASK, model=str(tmp_path / "out"))({"text": "I am so happy"})
    assert set(result) == {"sentiment", "modalities"}


def test_sound(root, table, tmp_path, clip):
    arguments = {**SMALL, "train_file": table, "task": "emotion", "modalities": "audio"}
    launch(root, *options(**arguments, output_dir=tmp_path / "out"))
    results = check_folder(tmp_path / "out", ["audio"], 6)
    assert "mae" not in results["test"]["model"]
    result = pipeline(TASK, model=str(tmp_path / "out"))(clip)
    assert result["modalities"] == ["audio"]
    assert len(result["emotions"]) == 6


# --- the rest in this process, where a warning is an error


@pytest.fixture
def run(root, monkeypatch):
    """Calls the script's `main` with arguments."""
    spec = importlib.util.spec_from_file_location("train_script", root / "scripts" / "train.py")
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "train_script", script)  # dataclasses look their module up
    spec.loader.exec_module(script)

    def main(*arguments):
        monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
        script.main()

    return main


def test_classes(run, table, tmp_path, clip):
    arguments = {**SMALL, "train_file": table, "task": "classification", "label_column": "polarity"}
    run(*options(**arguments, output_dir=tmp_path / "out"))
    results = check_folder(tmp_path / "out", ["text", "audio"], 2)
    assert set(results["test"]["model"]) == {"accuracy", "balanced_accuracy", "f1_weighted", "f1_macro"}
    result = pipeline(TASK, model=str(tmp_path / "out"))(clip)
    assert {entry["label"] for entry in result["labels"]} == {"negative", "positive"}


def test_goes_on_from_a_model_with_another_task(run, trained, table, tmp_path):
    arguments = {
        "model_name_or_path": trained[0], "train_file": table, "task": "sentiment-7", "learning_rate": 0.001,
        "num_train_epochs": 1, "output_dir": tmp_path / "out",
    }  # fmt: skip
    run(*options(**arguments))
    check_folder(tmp_path / "out", ["text", "audio"], 7)
    result = pipeline(TASK, model=str(tmp_path / "out"))({"text": "I am so happy"})
    assert {entry["label"] for entry in result["labels"]} == {"-3", "-2", "-1", "0", "1", "2", "3"}


def test_names_what_it_cannot_read(run, table, tmp_path, caplog):
    """And goes on with the rest."""
    caplog.set_level("INFO", logger="train")
    rows = table.read_text(encoding="utf-8").splitlines()
    rows[1] = rows[1].replace("clips/", "elsewhere/")
    (tmp_path / "metadata.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    arguments = {**SMALL, "num_train_epochs": 1, "train_file": tmp_path / "metadata.csv", "modalities": "audio"}
    run(*options(**arguments, output_dir=tmp_path / "out"))
    assert "train: 9 rows, 1 with a problem" in caplog.text
    assert "elsewhere/000.mp4: there is no such file" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Say what to train on: either --train_file or --dataset_name."),
        ({"train_file": "nowhere.csv"}, "nowhere.csv: there is no such table."),
        ({"train_file": "TABLE", "dataset_name": "x"}, "either --train_file or --dataset_name"),
        ({"train_file": "TABLE", "test_file": "nowhere.csv"}, "nowhere.csv: there is no such table."),
        ({"train_file": "TABLE", "task": "mood"}, "no task 'mood'; there are joint"),
        ({"train_file": "TABLE", "task": "classification"}, "no column 'label'; its columns are ['file_name', 'text'"),
        (
            {"train_file": "TABLE", "task": "classification", "label_column": "text"},
            "text is ",  # a validation row is of a class that no training row has
        ),
        ({"train_file": "TABLE", "text_column": "words"}, "no column ['words']"),
        ({"train_file": "TABLE", "audio_column": "text", "modalities": "audio"}, "No row of the split 'train' can be used"),
        ({"train_file": "TABLE", "modalities": "text video"}, "Training reads text and audio"),
        ({"train_file": "TABLE", "modalities": "words"}, "it must name at least one of ['text', 'audio', 'video']"),
        ({"train_file": "TABLE", "hidden_size": 15}, "`hidden_size` (15) must be a multiple of"),
        ({"train_file": "TABLE", "word_vectors": "nowhere.txt"}, "nowhere.txt"),
        ({"train_file": "TABLE", "learning_rate": "fast"}, "invalid float value: 'fast'"),
        ({"train_file": "TABLE", "learning_speed": "1"}, "--learning_speed"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_one_line_in_words(run, table, tmp_path, arguments, message):
    arguments = {name: table if value == "TABLE" else value for name, value in arguments.items()}
    sizes = {name: value for name, value in SMALL.items() if name not in arguments}
    with pytest.raises(SystemExit) as stop:
        run(*options(**sizes, **arguments, output_dir=tmp_path / "out"))
    line = stop.value.code  # printed on stderr, and the exit status is 1
    assert line.startswith("error: ")
    assert message in line
    assert "\n" not in line.strip()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("hiden_size: 16\nlearning_rate: 1e-3\n", "has option(s) ['hiden_size'] that nothing reads"),
        ("- text\n", "is no recipe"),
        ("", "is no recipe"),
        ("task: [joint\n", "is no YAML"),
        ("modalities: text audio\n", "`modalities` is ['text audio']"),
        ("hidden_size: 16.5\n", "invalid int value: '16.5'"),
        ("hidden_size: [16, 32]\n", "['32']"),
    ],
)
def test_wrong_recipes(run, table, tmp_path, recipe, message):
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "recipe.yaml", *options(train_file=table, output_dir=tmp_path / "out"))
    assert stop.value.code.startswith("error: ")
    assert message in stop.value.code


def test_a_missing_recipe(run):
    with pytest.raises(SystemExit, match=r"error: .*nowhere\.yaml"):
        run("nowhere.yaml")


def test_an_error_reaches_the_shell(root):
    done = subprocess.run(
        [sys.executable, "scripts/train.py", "--train_file", "nowhere.csv"], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "error: nowhere.csv: there is no such table.\n"


def test_help_reads_like_a_manual(run, capsys):
    with pytest.raises(SystemExit) as stop:
        run("--help")
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: train.py [recipe.yaml] [--options]\n\nTrain a UMONS model on a table")
    for words in ("--train_file", "--task", "--modalities", "--word_vectors", "--hidden_size"):
        assert words in out


def test_recipes_hold_options_of_every_kind(run, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    lines = ["modalities: [audio]", "learning_rate: 1e-3", "use_cpu: true", "load_best_model_at_end: false",
             "max_steps: -1", "test_file: null", "validation_share: 0.5"]  # fmt: skip
    recipe.write_text("\n".join(lines), encoding="utf-8")
    parse = sys.modules["train_script"].parse_arguments
    data, model, arguments = parse([str(recipe)])
    assert model.modalities == ["audio"]
    assert (arguments.learning_rate, arguments.max_steps) == (1e-3, -1)
    assert (arguments.use_cpu, arguments.load_best_model_at_end) == (True, False)
    assert (data.test_file, data.validation_share) == (None, 0.5)
    _, model, arguments = parse([str(recipe), "--modalities", "text", "audio", "--learning_rate", "0.1"])
    assert model.modalities == ["text", "audio"]
    assert arguments.learning_rate == 0.1


def test_the_recipe_of_the_sample_names_only_what_is_read(root, run):
    """It is complete but for what makes a run long."""
    recipe = yaml.safe_load((root / "scripts" / "recipes" / "sample.yaml").read_text(encoding="utf-8"))
    assert (root / recipe["train_file"]).is_file()
    script = sys.modules["train_script"]
    data, model, arguments = script.parse_arguments([str(root / "scripts" / "recipes" / "sample.yaml")])
    for name, value in recipe.items():
        (owner,) = [part for part in (data, model, arguments) if hasattr(part, name)]
        assert getattr(owner, name) == value
