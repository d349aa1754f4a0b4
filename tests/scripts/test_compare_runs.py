"""Two runs are compared on the same rows, by the mean of their seeds."""

import runpy
from pathlib import Path

import pytest
import torch
from small_pipelines import WORDS, make_model, make_processor

from modeling_umons.data.arguments import DataArguments


ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def compare(root):
    return runpy.run_path(str(root / "scripts" / "compare_runs.py"))["compare"]


@pytest.fixture
def runs(tmp_path):
    """Folders of two runs of two seeds; all sentiments of the second are 0.5 higher."""
    for name, shift in (("low", 0.0), ("high", 0.5)):
        for seed in (1, 2):
            model = make_model(modalities=["text"], num_labels=1, id2label={0: "sentiment"}, problem_type="regression")
            with torch.no_grad():
                model.classifier.bias += shift + 0.25 * (seed - 1)
            model.save_pretrained(tmp_path / name / f"seed-{seed}")
            make_processor().save_pretrained(tmp_path / name / f"seed-{seed}")
    return [tmp_path / "low", tmp_path / "high"]


@pytest.fixture
def table(tmp_path):
    """Table whose sentiments are above all predictions: an error then falls by what is added to the prediction."""
    splits = ("train", "validation")
    lines = [f"v{i // 2},{WORDS[i % 6]} {WORDS[(i + 1) % 6]},{splits[i % 2]},3" for i in range(24)]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["video_id,text,split,sentiment", *lines]) + "\n")
    return str(path)


def test_difference_is_that_of_the_mean_scores(compare, runs, table):
    report = compare(table, runs, "validation", DataArguments())
    assert (report["rows"], report["groups"]) == (12, 12)
    for score, low, high in (report["low"]["mae"], report["high"]["mae"]):
        assert low <= score <= high
    for name in ("low", "high"):
        assert report[name]["mae"][0] == pytest.approx(sum(report[f"{name}_seeds"]["mae"]) / 2)
    # The same rows are drawn for both runs: a constant difference has no interval.
    assert report["difference"]["mae"] == pytest.approx([-0.5] * 3, abs=1e-5)


def test_run_without_model_raises(compare, runs, table, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing has no model; name folders of `umons train --output_dir`"):
        compare(table, [runs[0], tmp_path / "nothing"], "validation", DataArguments())
