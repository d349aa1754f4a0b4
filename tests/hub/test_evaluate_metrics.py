"""hub/metrics, loaded by `evaluate` from the folder."""

import importlib.util
import sys

import evaluate
import numpy as np
import pytest
from huggingface_hub import RepoCard

from modeling_umons import EMOTIONS
from modeling_umons.evaluation.bootstrap import bootstrap_intervals
from modeling_umons.evaluation.metrics import task_metrics
from modeling_umons.tasks.task import make_task


@pytest.fixture(scope="module")
def load(root, tmp_path_factory):
    """Load a configuration, without files in the user's caches."""
    cache, path = tmp_path_factory.mktemp("evaluate"), list(sys.path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluate.loading.init_hf_modules", lambda _=None: str(cache))
        patch.syspath_prepend(cache)
        patch.chdir(root)
        yield lambda configuration, **options: evaluate.load(
            "hub/metrics", configuration, cache_dir=str(cache), **options
        )
    sys.path[:] = path
    for name in [name for name in sys.modules if name.startswith("evaluate_modules")]:
        del sys.modules[name]


@pytest.fixture
def random():
    return np.random.default_rng(0)


WIDTHS = {
    "joint": 7, "joint-neutral": 8, "emotion": 6, "sentiment": 1, "sentiment-2": 2, "sentiment-7": 7,
    "classification": 4,
}  # fmt: skip
NUMBERS = ("joint", "joint-neutral", "emotion", "sentiment")


def rows(random, name, size=40):
    """Return (labels, logits); a tenth of the labels is unknown."""
    width = {"joint": 7, "joint-neutral": 8, "emotion": 6, "sentiment": 1, "sentiment-2": 2, "sentiment-7": 7}.get(
        name, 4
    )
    logits = random.normal(size=(size, width) if width > 1 else size)
    truth = random.uniform(-3, 3, logits.shape) if name in NUMBERS else None
    truth = random.integers(0, width, size).astype(float) if truth is None else truth
    truth[random.uniform(size=truth.shape) < 0.1] = np.nan
    return truth, logits


@pytest.mark.parametrize("name", WIDTHS)
def test_scores_equal_those_of_the_package(load, random, name):
    truth, logits = rows(random, name)
    task = make_task(name, classes="abcd")
    expected = task_metrics(task, truth, logits)
    metric = load(name)
    assert metric.compute(predictions=logits, references=truth) == expected
    # Batches of lists, with None for unknown labels.
    unknown_is_none = np.where(np.isnan(truth), None, truth).tolist()
    for start in range(0, len(truth), 16):
        metric.add_batch(
            predictions=logits[start : start + 16].tolist(), references=unknown_is_none[start : start + 16]
        )
    assert metric.compute() == expected
    # One by one.
    for prediction, reference in zip(logits.tolist(), unknown_is_none, strict=True):
        metric.add(prediction=prediction, reference=reference)
    assert metric.compute() == expected


@pytest.mark.parametrize("name", ["sentiment-7", "sentiment-2", "classification"])
def test_predicted_classes_score_as_logits(load, random, name):
    truth, logits = rows(random, name)
    expected = task_metrics(make_task(name, classes="abcd"), truth, logits)
    metric = load(name)
    assert metric.compute(predictions=logits.argmax(axis=1), references=truth) == pytest.approx(expected)
    if name == "classification":
        # Numbers of classes are names.
        assert metric.compute(predictions=10**12 + logits.argmax(axis=1), references=10**12 + truth) == pytest.approx(
            expected
        )
        assert metric.compute(predictions=[5, 5], references=[5, None])["accuracy"] == 1.0


def test_thresholds_and_intervals_equal_those_of_the_package(load, random):
    truth, logits = rows(random, "joint")
    task, thresholds, videos = make_task("joint"), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [f"v{n // 4}" for n in range(40)]
    results = load("joint").compute(
        predictions=logits, references=truth, thresholds=thresholds, num_samples=30, groups=videos, seed=3
    )
    assert results.pop("confidence_intervals") == bootstrap_intervals(task, truth, logits, videos, 30, 3, thresholds)
    assert results == task_metrics(task, truth, logits, thresholds)


def test_segment_without_labels_is_ignored(load):
    results = load("emotion").compute(predictions=[[1.0] * 6, [-1.0] * 6], references=[None, [0, 0, 0, 0, 0, 2]])
    assert results["emotion_acc"] == pytest.approx(5 / 6)
    assert load("sentiment").compute(predictions=[1.0], references=[None]) == {}


def test_description_names_all_metrics(load):
    metric = load("sentiment")
    # The example of the documentation.
    results = metric.compute(predictions=[0.4, -1.2, 2.1], references=[1.0, -0.5, float("nan")])
    assert (results["acc2_has0"], results["acc7"]) == (1.0, 0.5)
    assert "(1.0, 0.5)" in metric.inputs_description
    assert "sentiment and emotion" in metric.description
    assert "challengehml" in metric.citation
    for name in {*task_metrics(make_task("sentiment"), np.arange(3.0), np.arange(3.0)), "emotion_acc", "_auroc"}:
        assert name in metric.inputs_description, name


def test_card_names_all_metrics(root):
    card = RepoCard.load(root / "hub" / "metrics" / "README.md")
    assert {"evaluate", "metric"} <= set(card.data.tags)
    assert card.data.sdk == "static"
    truth = np.random.default_rng(0).integers(0, 2, (20, 7)).astype(float)
    for name in task_metrics(make_task("joint"), truth, truth - 0.5):
        emotion, _, metric = name.partition("_")
        assert f"`<emotion>_{metric}`" in card.text if emotion in EMOTIONS else f"`{name}`" in card.text, name


@pytest.mark.parametrize(
    ("name", "predictions", "references", "options", "words"),
    [
        ("emotion", [[0.0] * 5], [[0.0] * 5], {}, "don't match the expected format"),
        ("sentiment", [1.0, 2.0], [1.0], {}, "Mismatch in the number"),
        ("sentiment", [float("nan")], [1.0], {}, "not finite"),
        ("sentiment", [1.0], [1.0], {"thresholds": [0.0]}, "require emotions"),
        ("sentiment", [1.0], [1.0], {"groups": ["a"]}, "requires a bootstrap"),
        ("sentiment-7", [7], [6], {}, r"contain \[7.0\]; expected classes: 0 to 6"),
        ("sentiment-7", [[0.0, 1.0]], [1], {}, "2 logits; expected 7"),
        ("sentiment-2", [1], [2], {}, "logits for the classes 0 to 1"),
        ("classification", [float("nan"), 1], [0, 1], {}, "expected classes: numbers"),
    ],
)
def test_invalid_input_raises(load, name, predictions, references, options, words):
    metric = load(name, keep_in_memory=True)  # a file would stay locked
    with pytest.raises(ValueError, match=words):
        metric.compute(predictions=predictions, references=references, **options)


def test_missing_configuration_raises(load):
    with pytest.raises(ValueError, match="available: joint, joint-neutral, emotion, sentiment"):
        load(None)


def test_missing_package_raises(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "modeling_umons.evaluation.bootstrap", None)
    spec = importlib.util.spec_from_file_location("metric_alone", root / "hub" / "metrics" / "metrics.py")
    with pytest.raises(ImportError, match="pip install"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
