"""`umons evaluate` on models with known predictions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from call_command import call
from datasets import Dataset, DatasetDict

from modeling_umons import (
    EMOTIONS,
    UmonsConfig,
    UmonsFeatureExtractor,
    UmonsForSequenceClassification,
    UmonsProcessor,
    UmonsVideoProcessor,
    build_tokenizer,
)
from modeling_umons.cli import evaluate
from modeling_umons.tasks.task import make_task


TEXTS = ["what a lovely day", "an awful day", "nothing new today", "so much fun", "boring and slow"]


def save_model(folder: Path, task, answer: list[float], modalities=("text",)) -> str:
    """Save a model with constant logits."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(sorted({word for text in TEXTS for word in text.split()}))
    config = UmonsConfig(
        modalities=list(modalities), vocab_size=len(tokenizer), word_embedding_size=8, hidden_size=8,
        intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, **task.config_options(),
    )  # fmt: skip
    model = UmonsForSequenceClassification(config)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor(answer))
    model.save_pretrained(folder)
    UmonsProcessor(tokenizer, UmonsFeatureExtractor(), UmonsVideoProcessor()).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    sentiment = make_task("sentiment")
    return {
        **{name: save_model(folder / name, sentiment, [value]) for name, value in
           {"low": -0.5, "middle": 0.25, "high": 1.0}.items()},
        "classes": save_model(folder / "classes", make_task("classification", "mood", ["calm", "cross"]), [0.0, 2.0]),
        "emotion": save_model(folder / "emotion", make_task("emotion"), [-1.0, 1.0, -1.0, -1.0, -1.0, -1.0]),
        "sound": save_model(folder / "sound", sentiment, [0.5], ["audio"]),
    }  # fmt: skip


def make_rows(size: int, shift: int = 0) -> dict[str, list]:
    values = [(i + shift) % 7 - 3.0 for i in range(size)]
    return {
        "segment_id": [f"s{i}" for i in range(size)],
        "video_id": [f"v{i // 3}" for i in range(size)],
        "text": [TEXTS[i % len(TEXTS)] for i in range(size)],
        "sentiment": values,
        **{emotion: [float((i + k) % 3 == 0) for i in range(size)] for k, emotion in enumerate(EMOTIONS)},
        "mood": [("calm", "cross")[i % 2] for i in range(size)],
    }


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """Twenty training rows, ten of validation and twelve of test, the last of which has no word."""
    parts = [(name, Dataset.from_dict(make_rows(size, shift)).to_pandas()) for name, size, shift in
             (("train", 20, 0), ("valid", 10, 2), ("test", 12, 4))]  # fmt: skip
    import pandas as pd

    frame = pd.concat([part.assign(split=name) for name, part in parts])
    frame.iloc[-1, frame.columns.get_loc("text")] = None
    path = tmp_path_factory.mktemp("table") / "rows.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Call `umons evaluate`; return its report."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path.parent / f"{tmp_path.name}-cache")

    def evaluate_models(*models, dataset, output=tmp_path / "report.json", **options):
        words = [
            word
            for name, value in options.items()
            for word in (f"--{name}", *(value if isinstance(value, list) else [] if value is True else [value]))
        ]
        arguments = ["--model", *models, "--dataset", dataset, "--output", output, "--num_bootstrap", 20, *words]
        call(evaluate.main, *arguments)
        path = output if output.suffix == ".json" else output / "report.json"
        return json.loads(path.read_text(encoding="utf-8"))

    return evaluate_models


def test_unknown_group_raises_before_prediction(run, models, table, monkeypatch):
    monkeypatch.setattr("modeling_umons.evaluation.scoring.predict_logits", lambda *_: pytest.fail("predicted"))
    with pytest.raises(SystemExit, match="--group_by speaker: there is no such column"):
        run(models["low"], dataset=table, split="test", group_by=["speaker"])


def test_groups_are_those_of_predicted_rows(run, models, table):
    groups = run(models["low"], dataset=table, split="test", group_by=["mood"])["splits"]["test"]["by_column"]["mood"]
    assert groups["left_out"] == 11  # fewer than ten of each mood


def test_evaluate_writes_report(run, models, table, tmp_path, capsys):
    report = run(models["low"], dataset=table, split="test")
    truth = np.array(make_rows(12, 4)["sentiment"])[:-1]  # the row without a word cannot be used
    assert list(report["splits"]) == ["test"]
    figures = report["splits"]["test"]
    assert (figures["rows"], figures["groups"]) == (11, 4)
    assert figures["model"]["mae"] == pytest.approx(np.abs(truth + 0.5).mean())
    assert figures["model"]["acc2_has0"] == pytest.approx((truth < 0).mean())
    assert figures["baselines"]["constant"]
    assert figures["baselines"]["tfidf"]
    assert any("chosen on validation" in note for note in figures["notes"])
    assert "members" not in figures
    assert {"report.json", "report.md", "sentiment.png", "confusion.png"} == {file.name for file in tmp_path.iterdir()}
    out = capsys.readouterr().out
    assert "test (11 rows in 4 groups)" in out
    assert "ensemble" not in report["about"]


def test_ensemble_takes_best_on_validation(run, models, table, tmp_path):
    names = [models["high"], models["low"], models["middle"]]
    report = run(*names, dataset=table, split="test", output=tmp_path / "out")
    validation = np.array(make_rows(10, 2)["sentiment"])
    answers = dict(zip(names, (1.0, -0.5, 0.25), strict=True))
    order = sorted(names, key=lambda name: np.abs(validation - answers[name]).mean())
    means = [np.mean([answers[name] for name in order[:size]]) for size in (1, 2, 3)]
    size = 1 + int(np.argmin([np.abs(validation - mean).mean() for mean in means]))
    assert list(report["splits"]) == ["validation", "test"]
    figures = report["splits"]["test"]
    truth = np.array(make_rows(12, 4)["sentiment"])[:-1]
    assert figures["model"]["mae"] == pytest.approx(np.abs(truth - means[size - 1]).mean(), abs=1e-6)
    for name in names:
        assert figures["members"][name]["mae"] == pytest.approx(np.abs(truth - answers[name]).mean(), abs=1e-6)
    assert "chosen on validation" in report["about"]["ensemble"]
    assert "Single models:" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def test_ensemble_without_validation_takes_all(run, models, tmp_path):
    """Without training rows there are no baselines."""
    table = tmp_path / "rows.jsonl"
    Dataset.from_dict(make_rows(9)).to_json(table)
    report = run(models["low"], models["high"], dataset=table, split="test")
    truth = np.array(make_rows(9)["sentiment"])
    figures = report["splits"]["test"]
    assert figures["model"]["mae"] == pytest.approx(np.abs(truth - 0.25).mean())
    assert "the logits of all 2 models" in report["about"]["ensemble"]
    assert figures["baselines"] == {}
    assert any("no training rows" in note for note in figures["notes"])


def test_validation_split_does_not_choose_ensemble(run, models, table):
    report = run(models["low"], models["high"], dataset=table, split="validation")
    assert "the logits of all 2 models" in report["about"]["ensemble"]
    assert list(report["splits"]) == ["validation"]


def test_train_split_has_no_baselines(run, models, table):
    figures = run(models["low"], dataset=table, split="train")["splits"]["train"]
    assert figures["rows"] == 20
    assert figures["baselines"] == {}


def test_parquet_folder_with_class_labels(run, models, tmp_path):
    """Parquet shards with `ClassLabel` columns and other column names."""
    data = tmp_path / "data"
    for name, size in (("train", 20), ("validation", 8), ("test", 12)):
        rows = Dataset.from_dict(make_rows(size)).rename_columns({"text": "words_said"}).class_encode_column("mood")
        data.mkdir(exist_ok=True)
        rows.to_parquet(data / f"{name}-00000.parquet")
    report = run(
        models["classes"], dataset=data, split="test", text_column="words_said", label_columns=["mood"], batch_size=5
    )
    figures = report["splits"]["test"]
    assert report["labels"] == ["calm", "cross"]
    assert figures["model"]["accuracy"] == 0.5
    assert "tfidf" in figures["baselines"]


def test_thresholds_are_tuned_on_probabilities(run, models, table):
    report = run(models["emotion"], dataset=table, split="test", tune_thresholds=True, average="probabilities")
    figures = report["splits"]["test"]
    rows = make_rows(12, 4)
    sad = np.array(rows["sad"])[:-1]
    assert figures["model"]["sad_acc"] == pytest.approx(sad.mean())
    assert list(figures["thresholds"]) == list(EMOTIONS)
    assert "emotion_f1_macro" in figures["model_tuned"]


def test_models_share_usable_rows(run, models, root, tmp_path, caplog):
    """Audio of three clips; one row has no text, another no audio."""
    clips = root / "hub" / "sample" / "clips"
    rows = {
        "file_name": [str(clips / "000.mp4"), str(clips / "001.mp4"), str(clips / "002.mp4"), None],
        "text": [TEXTS[0], None, TEXTS[1], TEXTS[2]],
        "sentiment": [1.0, 2.0, -1.0, 3.0],
        "segment_id": ["a", "b", "c", "d"],
    }
    Dataset.from_dict(rows).to_json(tmp_path / "rows.jsonl")
    figures = run(models["low"], models["sound"], dataset=tmp_path / "rows.jsonl")["splits"]["test"]
    assert figures["rows"] == 2
    assert figures["model"]["mae"] == pytest.approx((1 + 1) / 2)  # the mean of -0.5 and 0.5 is 0
    assert {name: of["mae"] for name, of in figures["members"].items()} == {models["low"]: 1.0, models["sound"]: 1.0}
    assert "no input in text" in caplog.text


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["low", "classes"], {}, "low has sentiment with the labels sentiment, and "),
        (["nowhere"], {}, "--model nowhere: no model can be loaded from there"),
        (["low"], {"dataset": "nowhere.csv"}, "nowhere.csv"),
        (
            ["low"],
            {"split": "dev-2"},
            "no rows of the split 'dev-2'; its splits are train (20 rows), validation (10 rows), test",
        ),
        (["classes"], {"label_columns": ["tone"]}, "lacks the column tone; it has"),
        (["low"], {"text_column": "words"}, "The split test lacks the column words"),
    ],
)
def test_wrong_arguments_print_one_line(run, models, table, monkeypatch, names, options, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SystemExit) as stop:
        run(*(models.get(name, name) for name in names), **{"dataset": table, **options})
    line = stop.value.code
    assert line.startswith("umons evaluate: error: ")
    assert message in line
    assert "\n" not in line.strip()


def test_damaged_model_raises(run, models, table, tmp_path):
    import shutil

    broken = shutil.copytree(models["low"], tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(SystemExit, match="no model can be loaded from there"):
        run(broken, dataset=table)


def test_foreign_model_type_raises(run, table, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(SystemExit, match="its type is 'bert'; expected umons or tfn"):
        run(tmp_path, dataset=table)


def test_batch_size_must_be_positive(run, models, table, capsys):
    with pytest.raises(SystemExit) as stop:
        run(models["low"], dataset=table, batch_size=0)
    assert stop.value.code == 2
    assert "'0' is not a whole number of at least 1" in capsys.readouterr().err


def test_saved_dataset_is_evaluated(run, models, tmp_path):
    DatasetDict(test=Dataset.from_dict(make_rows(4))).save_to_disk(tmp_path / "saved")
    assert run(models["low"], dataset=tmp_path / "saved")["splits"]["test"]["rows"] == 4


def test_two_processes_equal_one(run, models, table, tmp_path):
    one = run(models["low"], models["high"], dataset=table, split="test")
    two = run(models["low"], models["high"], dataset=table, split="test", output=tmp_path / "two", num_proc=2)
    assert one["splits"] == two["splits"]
    assert not [path for path in (tmp_path / "two").iterdir() if path.name.startswith(".")]


def test_workers_of_several_launched_processes_are_refused(run, models, table, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="starts its own processes"):
        run(models["low"], dataset=table, split="test", num_proc=2)
