"""Tests of explanations on texts: top words, and deletion and insertion curves, in reports."""

import json

import numpy as np
import pytest
from call_command import call
from small_pipelines import make_pipeline

from modeling_umons.cli import evaluate
from modeling_umons.evaluation.explanation_curves import measure_explanations


TEXTS = ["so very glad well known", "well known so glad dont", None, "glad", "dont very well so so glad"]


class Additive:
    """A pipeline whose sentiment is the sum of the weights of the words, with explanations that can be wrong."""

    weights = {"bad": -3.0, "good": 2.0, "fine": 1.0, "the": 0.0}

    def __init__(self, explained: dict[str, float]):
        self.explained = explained

    def __call__(self, inputs, return_explanations=False, **options):
        if isinstance(inputs, list):
            return [self(given) for given in inputs]
        words = inputs["text"].split()
        units = [{"word": word, "sentiment": self.explained[word]} for word in words]
        result = {"sentiment": sum(self.weights[word] for word in words)}
        return result | ({"explanations": {"text": units}} if return_explanations else {})


def test_right_explanations_are_as_good_as_the_best_words():
    texts = ["the good fine the", "good the bad the the"] * 3
    found = measure_explanations(Additive(Additive.weights), texts)
    assert found["texts"] == 6
    assert found["score"] == "sentiment"
    assert found["top_word"] == pytest.approx({"explanation": 2.5, "best": 2.5, "random": (0.75 + 1.0) / 2})
    assert found["agreement"] == 1.0
    for kind in ("deletion", "insertion"):
        assert found[kind]["explanation"] == pytest.approx(found[kind]["best"])
        ends = (2.0, 0.0) if kind == "deletion" else (0.0, 2.0)
        assert (found[kind]["random"][0], found[kind]["random"][-1]) == ends
    assert np.mean(found["deletion"]["explanation"]) < np.mean(found["deletion"]["random"])
    assert np.mean(found["insertion"]["explanation"]) > np.mean(found["insertion"]["random"])


def test_wrong_explanations_are_found():
    found = measure_explanations(Additive({"bad": 0.1, "good": 0.2, "fine": 0.1, "the": 5.0}), ["the good fine bad"])
    assert found["top_word"]["explanation"] == 0.0
    assert found["agreement"] == 0.0
    assert np.mean(found["deletion"]["explanation"]) >= np.mean(found["deletion"]["best"])


@pytest.mark.parametrize(
    ("options", "score"),
    [
        ({"joint_sentiment": True}, "sentiment"),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, "label"),
    ],
)
def test_pipelines_are_measured(options, score):
    recognize = make_pipeline(**options)
    found = measure_explanations(recognize, TEXTS)
    assert found["texts"] == 3
    assert found["score"] == score
    assert found["agreement"] == 1.0
    assert found["top_word"]["explanation"] == pytest.approx(found["top_word"]["best"], abs=1e-4)
    assert measure_explanations(recognize, [None, "glad"]) is None


def test_report_has_curves(tmp_path):
    model = tmp_path / "model"
    make_pipeline(joint_sentiment=True).save_pretrained(model)
    rows = [f"{text or 'so'},{i % 3 - 1},1,0,0,0,0,0" for i, text in enumerate(TEXTS)]
    table = "\n".join(["text,sentiment,happy,sad,anger,surprise,disgust,fear", *rows])
    (tmp_path / "table.csv").write_text(table, encoding="utf-8")
    options = ("--model", model, "--dataset", tmp_path / "table.csv", "--num_bootstrap", 5, "--explanations")
    call(evaluate.main, *options, "--output", tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["splits"]["test"]["explanations"]["texts"] == 3
    assert "explanations.png" in report["plots"]
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "deletion, explanation" in text
    assert "explain-metrics" in text
    (tmp_path / "short.csv").write_text("text,sentiment\nso glad,1\nso,0\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="--explanations needs a model with text, and texts of 4 to 25 words"):
        call(evaluate.main, "--model", model, "--dataset", tmp_path / "short.csv", "--output", tmp_path / "out",
             "--explanations", "--num_bootstrap", 5)  # fmt: skip
