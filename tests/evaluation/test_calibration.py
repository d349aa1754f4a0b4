"""Calibration: its fit on validation rows, its metrics, and how it reaches the configuration."""

import json
from dataclasses import replace

import numpy as np
import pytest
from call_command import call
from small_pipelines import make_pipeline

from modeling_umons import UmonsConfig
from modeling_umons.cli import evaluate
from modeling_umons.evaluation.calibration import (
    calibrate_splits,
    calibration_metrics,
    fit_calibration,
    write_calibration,
)
from modeling_umons.evaluation.report_tables import calibration_markdown
from modeling_umons.evaluation.splits import Split
from modeling_umons.tasks.task import make_task


JOINT = make_task("joint")


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def make_split(rows: int, seed: int = 0, temperature: float = 2.0, bias: float = -1.0, combination="text") -> Split:
    """Return rows whose true log-odds are `logit / temperature + bias`, and whose sentiment has an error of 0.5."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, (rows, 7)).astype(np.float32)
    truth = (random.random((rows, 7)) < sigmoid(logits / temperature + bias)).astype(np.float32)
    logits[:, 0] = random.uniform(-2, 2, rows)
    truth[:, 0] = np.clip(logits[:, 0] + random.normal(0, 0.5, rows), -3, 3)
    groups = tuple(f"video {row // 4}" for row in range(rows))
    return Split(truth, logits, groups=groups, modalities=(combination,) * rows)


def test_fit_finds_temperature_and_bias():
    calibration, notes = fit_calibration(JOINT, make_split(4000))
    assert notes == []
    entry = calibration["text"]
    assert entry["rows"] == 4000
    for label in JOINT.labels[1:]:
        assert entry["temperature"][label] == pytest.approx(2.0, rel=0.15)
        assert entry["bias"][label] == pytest.approx(-1.0, abs=0.15)
        assert 0 < entry["threshold"][label] < 1
    assert entry["sentiment_error"] == pytest.approx(1.645 * 0.5, rel=0.1)
    json.dumps(calibration, allow_nan=False)


def test_calibration_covers_unseen_rows():
    config = UmonsConfig(joint_sentiment=True)
    splits = {"validation": make_split(2000), "test": make_split(4000, seed=1)}
    raw = calibration_metrics(JOINT, splits["test"], [{}] * 4000)
    calibrated, metrics, _ = calibrate_splits(config, JOINT, splits, refit=True)
    assert min(raw["ece"].values()) > 0.1
    for name in ("validation", "test"):
        assert max(metrics[name]["ece"].values()) < 0.04
        assert metrics[name]["coverage"] == pytest.approx(0.9, abs=0.02)
        curve = metrics[name]["risk_coverage"]["acc2_non0"]
        assert curve[0] < curve[5] < curve[9]
    np.testing.assert_array_equal(calibrated["test"].logits[:, 0], splits["test"].logits[:, 0])
    assert "90 % interval" in "\n".join(calibration_markdown(metrics["test"]))
    # A loaded configuration gives the same scores, without a fit.
    again = UmonsConfig.from_dict(json.loads(config.to_json_string()))
    applied, _, _ = calibrate_splits(again, JOINT, {"test": splits["test"]}, refit=False)
    np.testing.assert_array_equal(applied["test"].logits, calibrated["test"].logits)


def test_validation_is_calibrated_out_of_fold():
    split = make_split(400)
    once = calibrate_splits(UmonsConfig(joint_sentiment=True), JOINT, {"validation": split}, refit=True)[0]
    changed = split.truth.copy()
    changed[:4, 1:] = 1 - changed[:4, 1:]  # the labels of the first video
    other = replace(split, truth=changed)
    twice = calibrate_splits(UmonsConfig(joint_sentiment=True), JOINT, {"validation": other}, refit=True)[0]
    np.testing.assert_array_equal(once["validation"].logits[:4], twice["validation"].logits[:4])
    assert not np.array_equal(once["validation"].logits, twice["validation"].logits)


def test_few_rows_are_not_calibrated():
    split = make_split(60)
    split = replace(split, modalities=("text",) * 51 + ("audio",) * 9)
    calibration, notes = fit_calibration(JOINT, split)
    assert list(calibration) == ["text"]
    assert notes == ["audio is not calibrated: it has 9 rows, and needs 50."]
    truth = split.truth.copy()
    truth[20:, 0] = np.nan
    calibration, notes = fit_calibration(JOINT, replace(split, truth=truth))
    assert "sentiment_error" not in calibration["text"]
    assert notes[1] == "text has no sentiment interval: 20 rows have a sentiment, and 50 are needed."


def test_logits_without_information_keep_their_order():
    split = make_split(400, temperature=-2.0)
    entry = fit_calibration(JOINT, split)[0]["text"]
    assert all(0 < temperature <= 20 for temperature in entry["temperature"].values())


@pytest.mark.parametrize("sharpness", [0.25, 1.0, 4.0])
def test_fit_finds_temperature_of_classes(sharpness):
    task = make_task("sentiment-7")
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (3000, 7))
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = np.array([random.choice(7, p=row) for row in scores])
    split = Split(truth, (logits * sharpness).astype(np.float32), modalities=("text",) * 3000)
    calibration, _ = fit_calibration(task, split)
    assert calibration["text"]["temperature"]["-3"] == pytest.approx(sharpness, rel=0.1)
    config = UmonsConfig(id2label=dict(enumerate(task.labels)))
    metrics = calibrate_splits(config, task, {"validation": split}, refit=True)[1]
    assert metrics["validation"]["ece"]["class"] < 0.05


def test_write_calibration_keeps_the_rest_of_the_configuration(tmp_path):
    config = UmonsConfig(joint_sentiment=True)
    config.save_pretrained(tmp_path)
    before = json.loads((tmp_path / "config.json").read_text())
    calibration, _ = fit_calibration(JOINT, make_split(100))
    write_calibration(tmp_path, calibration)
    after = json.loads((tmp_path / "config.json").read_text())
    assert after == {**before, "calibration": calibration}
    assert UmonsConfig.from_pretrained(tmp_path).calibration == calibration
    with pytest.raises(ValueError, match="--calibrate writes into the folder of the model"):
        write_calibration("umons/some-model", calibration)


def test_evaluate_refuses_to_calibrate_on_few_rows(tmp_path):
    make_pipeline(joint_sentiment=True).save_pretrained(tmp_path / "model")
    rows = [
        f"so very glad,{split},{i % 3 - 1},{i % 2},0,0,0,0,0" for split in ("validation", "test") for i in range(12)
    ]
    table = "\n".join(["text,split,sentiment,happy,sad,anger,surprise,disgust,fear", *rows])
    (tmp_path / "table.csv").write_text(table, encoding="utf-8")
    options = ("--model", tmp_path / "model", "--dataset", tmp_path / "table.csv", "--output", tmp_path / "out")
    with pytest.raises(SystemExit, match=r"--calibrate needs 50 rows .* in the validation split, which has 12 rows"):
        call(evaluate.main, *options, "--calibrate", "--num_bootstrap", 5)
    call(evaluate.main, *options, "--num_bootstrap", 5)
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "The model is not calibrated; `umons evaluate --calibrate` does it on a validation split." in report
