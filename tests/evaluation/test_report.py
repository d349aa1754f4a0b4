"""Tests of results, reports, ensembles and summaries of seeds."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image

from modeling_umons import EMOTIONS, UmonsConfig
from modeling_umons.evaluation.calibration import calibration_curve
from modeling_umons.evaluation.ensemble import average_logits, choose_ensemble
from modeling_umons.evaluation.metrics import constant_metrics, emotion_metrics, task_metrics, tune_thresholds
from modeling_umons.evaluation.report import print_results, to_json, write_report
from modeling_umons.evaluation.results import measure
from modeling_umons.evaluation.seeds import combine, summarize_seeds
from modeling_umons.evaluation.splits import Split
from modeling_umons.tasks.losses import TaskLoss
from modeling_umons.tasks.task import make_task, task_of


WORDS = {-1: ["awful", "boring", "slow"], 1: ["lovely", "bright", "fun"]}
HISTORY = [
    {"loss": 2.0, "learning_rate": 1e-3, "epoch": 1.0},
    {"eval_loss": 2.1, "epoch": 1.0},
    {"loss": 1.5, "learning_rate": 5e-4, "epoch": 2.0},
    {"eval_loss": 1.9, "epoch": 2.0},
]


def make_rows(size: int, seed: int = 0) -> Dataset:
    """Create utterances of two sources, five in each video, whose words depend on their labels."""
    random = np.random.default_rng(seed)
    sentiment = random.integers(-3, 4, size).astype(float)
    rows = {
        "segment_id": [str(i) for i in range(size)],
        "video_id": [f"video {i // 5}" for i in range(size)],
        "source": [("MOSI", "MOSEI")[i // 5 % 2] for i in range(size)],
        "text": [" ".join(random.choice(WORDS[1 if s > 0 else -1], 3)) for s in sentiment],
        "sentiment": sentiment,
        "mood": [("calm", "cross", "merry")[i % 3] for i in range(size)],
    }
    rows |= {emotion: (sentiment * (-1) ** i > 0.5).astype(float) for i, emotion in enumerate(EMOTIONS)}
    return Dataset.from_dict(rows)


def make_split(task, size: int = 40, seed: int = 0, noise: float = 1.0, rows: Dataset | None = None) -> Split:
    rows = make_rows(size, seed) if rows is None else rows
    truth = Split.of(task, rows).truth
    random = np.random.default_rng(100 + seed)
    if task.problem_type == "single_label_classification":
        signal = np.eye(len(task.labels))[truth]
    else:
        signal = truth.reshape(len(truth), -1)
    return Split.of(task, rows, signal + noise * random.normal(size=signal.shape))


JOINT = make_task("joint")
TASKS = [make_task(name) for name in ("joint", "emotion", "sentiment", "sentiment-7", "sentiment-2")]
TASKS.append(make_task("classification", "mood", ["calm", "cross", "merry"]))


@pytest.fixture(scope="module")
def joint():
    """Training split, held-out splits and their results."""
    train = Split.of(JOINT, make_rows(60, 7))
    splits = {"validation": make_split(JOINT, 30, 1), "test": make_split(JOINT, 40, 2)}
    return train, splits, measure(JOINT, train, splits, tune=True, num_bootstrap=50)


# --- Split and task_of


def test_split_reads_present_columns():
    rows = make_rows(10)
    split = Split.of(JOINT, rows)
    assert len(split) == 10
    assert split.truth.shape == (10, 7)
    assert split.groups == tuple(rows["video_id"])
    assert split.texts == tuple(rows["text"])
    assert split.take(np.array([3, 1])).segment_ids == ("3", "1")
    bare = Split.of(make_task("sentiment"), rows.select_columns("sentiment"))
    assert (bare.texts, bare.segment_ids, bare.groups, bare.sources) == (None, None, None, None)
    assert bare.truth.shape == (10,)


def test_split_requires_labels_and_logits_of_all_rows():
    task = make_task("sentiment")
    with pytest.raises(ValueError, match=r"1 row\(s\) have no label, the first one is row 1"):
        Split.of(task, Dataset.from_dict({"sentiment": [1.0, None]}))
    with pytest.raises(ValueError, match="`logits` has 3 rows, but the data set has 2"):
        Split.of(task, Dataset.from_dict({"sentiment": [1.0, 2.0]}), np.zeros((3, 1)))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_task_of_configuration(task):
    columns = task.columns if task.name == "classification" else ()
    assert task_of(UmonsConfig(**task.config_options()), columns) == task


def test_task_of_keeps_order_of_classes():
    config = UmonsConfig(problem_type="single_label_classification", id2label={0: "z", 1: "a"})
    assert task_of(config, "mood").labels == ("z", "a")


def test_task_of_rejects_unknown_labels():
    config = SimpleNamespace(id2label={0: "joy", 1: "fear"}, problem_type=None)
    with pytest.raises(ValueError, match=r"labels joy, fear .* which match no task"):
        task_of(config)


# --- measure


def test_measure_computes_task_metrics(joint):
    train, splits, results = joint
    test = splits["test"]
    result = results["test"]
    assert list(results) == ["validation", "test"]
    assert (result["rows"], result["groups"]) == (40, 8)
    assert result["model"] == task_metrics(JOINT, test.truth, test.logits)
    assert result["baselines"]["constant"] == constant_metrics(JOINT, train.truth, test.truth)
    assert set(result["baselines"]["tfidf"]) == set(result["model"])
    assert result["baselines"]["tfidf"]["acc2_non0"] == 1.0  # fully determined by the words
    for metric, (low, high) in result["intervals"].items():
        assert low <= high, metric
    low, high = result["intervals"]["mae"]
    assert low < result["model"]["mae"] < high
    assert any("samples of whole groups (videos, dialogues or speakers)" in note for note in result["notes"])


def test_measure_evaluates_sources_separately(joint):
    _, splits, results = joint
    sources = results["test"]["sources"]
    assert list(sources) == ["MOSEI", "MOSI"]
    rows = np.array([source == "MOSI" for source in splits["test"].sources])
    assert sources["MOSI"]["rows"] == rows.sum() == 20
    assert sources["MOSI"]["groups"] == 4
    expected = task_metrics(JOINT, splits["test"].truth[rows], splits["test"].logits[rows])
    assert sources["MOSI"]["model"] == expected
    assert set(sources["MOSI"]["baselines"]) == {"constant", "tfidf"}
    assert set(sources["MOSI"]["baselines_tuned"]) == {"tfidf"}


def test_thresholds_are_tuned_on_validation(joint):
    _, splits, results = joint
    thresholds = tune_thresholds(splits["validation"].truth[:, 1:], splits["validation"].logits[:, 1:])
    result = results["test"]
    assert "model_tuned" not in results["validation"]
    assert list(result["thresholds"].values()) == thresholds.tolist()
    expected = emotion_metrics(splits["test"].truth[:, 1:], splits["test"].logits[:, 1:], EMOTIONS, thresholds)
    assert result["model_tuned"]["emotion_f1_macro"] == expected["emotion_f1_macro"]
    assert not {"mae", "emotion_ap", "fear_auroc"} & set(result["model_tuned"])  # independent of thresholds
    assert set(result["intervals_tuned"]) == set(result["model_tuned"])


def test_thresholds_require_validation():
    test = make_split(make_task("emotion"))
    result = measure(make_task("emotion"), None, {"test": test}, tune=True, num_bootstrap=10)["test"]
    assert "model_tuned" not in result
    assert result["baselines"] == {}
    assert any("Thresholds were not tuned" in note for note in result["notes"])
    assert any("no training rows" in note for note in result["notes"])


def test_validation_without_logits_tunes_tfidf():
    task = make_task("sentiment")
    train = Split.of(task, make_rows(60, 7))
    splits = {"validation": Split.of(task, make_rows(20, 1)), "test": make_split(task)}
    results = measure(task, train, splits, num_bootstrap=10)
    assert list(results) == ["test"]
    assert any("chosen on validation" in note for note in results["test"]["notes"])


def test_measure_without_text_and_groups():
    task = make_task("sentiment")
    rows = make_rows(12).select_columns("sentiment")
    result = measure(task, Split.of(task, rows), {"test": make_split(task, rows=rows)}, num_bootstrap=10)["test"]
    assert set(result["baselines"]) == {"constant"}
    assert result["groups"] is None
    assert "There is no TF-IDF baseline because the training rows have no text." in result["notes"]
    assert any("samples of single rows" in note for note in result["notes"])
    assert "sources" not in result


def test_rows_without_group_are_groups_of_their_own():
    task = make_task("sentiment")
    rows = make_rows(10).remove_columns("video_id").add_column("video_id", ["a"] * 4 + [None] * 6)
    result = measure(task, None, {"test": make_split(task, rows=rows)}, num_bootstrap=10)["test"]
    assert result["groups"] == 7


def test_one_group_has_no_intervals():
    task = make_task("sentiment")
    result = measure(task, None, {"test": make_split(task, size=5)}, num_bootstrap=10)["test"]
    assert result["intervals"] == {}
    assert any("There are no intervals" in note for note in result["notes"])


# --- files


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_report_of_task(task, tmp_path):
    (tmp_path / "calibration.png").write_bytes(b"earlier")
    train = Split.of(task, make_rows(60, 7))
    splits = {"validation": make_split(task, 30, 1), "test": make_split(task, 40, 2)}
    results = measure(task, train, splits, num_bootstrap=20)
    report = write_report(tmp_path, task, results, splits, HISTORY, {"learning_rate": 1e-3, "modalities": ["text"]})
    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert written["task"] == task.name
    assert written["splits"]["test"]["model"] == pytest.approx(results["test"]["model"])
    assert written["history"] == HISTORY
    expected = {
        "joint": {"sentiment", "confusion", "precision_recall", "calibration"},
        "emotion": {"precision_recall", "calibration"},
        "sentiment": {"sentiment", "confusion"},
    }.get(task.name, {"confusion", "calibration"}) | {"training"}  # fmt: skip
    assert {file.stem for file in tmp_path.glob("*.png")} == expected
    assert set(report["plots"]) == {f"{name}.png" for name in expected}
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "## test (40 rows in 8 groups)" in text
    assert "### test, MOSI (20 rows in 4 groups)" in text
    assert "| metric | model | 95 % interval | constant | TF-IDF |" in text
    assert "- modalities: text" in text
    for file in report["plots"]:
        assert f"]({file})" in text
        with Image.open(tmp_path / file) as image:
            assert image.width == 1008
            assert len(image.convert("L").getcolors()) > 10  # not empty
    assert not list(tmp_path.glob(".*"))


def test_report_table_has_measured_scores(tmp_path, joint):
    _, splits, results = joint
    write_report(tmp_path, JOINT, results, splits)
    lines = (tmp_path / "report.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("## test (40 rows in 8 groups)")
    row = next(line for line in lines[start:] if line.startswith("| mae |"))
    result = results["test"]
    low, high = result["intervals"]["mae"]
    constant, tfidf = result["baselines"]["constant"]["mae"], result["baselines"]["tfidf"]["mae"]
    expected = f"| mae | {result['model']['mae']:.3f} | {low:.3f} to {high:.3f} | {constant:.3f} | {tfidf:.3f} |"
    assert row.startswith(expected)
    assert any(line.startswith("Thresholds of logits: happy ") for line in lines)


def test_report_of_rows_without_plots(tmp_path):
    truth = np.array([[0.5, 0, np.nan, 1, 0, 0, 0]], dtype=np.float32)
    splits = {"test": Split(truth, np.zeros((1, 7)))}
    write_report(tmp_path, JOINT, measure(JOINT, None, splits), splits, about={"models": ["a", "b"]})
    assert "- models: a, b" in (tmp_path / "report.md").read_text(encoding="utf-8")
    unknown = {"test": Split(np.full((2, 7), np.nan), np.zeros((2, 7)))}
    report = write_report(tmp_path, JOINT, measure(JOINT, None, unknown, num_bootstrap=5), unknown)
    assert report["plots"] == []
    assert not list(tmp_path.glob("*.png"))


def test_json_has_no_nan():
    assert json.loads(to_json({"a": np.float32("nan"), "b": [np.int64(1), float("inf")], 3: (True, None)})) == {
        "a": None, "b": [1, None], "3": [True, None],
    }  # fmt: skip


def test_print_results_prints_overall_metrics(joint, capsys):
    print_results(joint[2])
    lines = capsys.readouterr().out.splitlines()
    head = next(line for line in lines if line.startswith("test (40 rows in 8 groups)"))
    for title in ("model", "95 % interval", "constant", "TF-IDF", "model, tuned"):
        assert title in head
    assert not any(line.startswith("fear_") for line in lines)
    assert f"{joint[2]['test']['model']['corr']:.3f}" in next(line for line in lines[::-1] if line.startswith("corr"))


def test_many_rows_are_drawn_as_density(tmp_path):
    truth = np.tile(np.linspace(-3, 3, 25), 80).astype(np.float32)
    splits = {"test": Split(truth, truth[:, None] * 0.5)}
    report = write_report(tmp_path, make_task("sentiment"), measure(make_task("sentiment"), None, splits), splits)
    assert report["plots"] == ["sentiment.png", "confusion.png"]


def test_calibration_of_known_values():
    said, true, counts, error = calibration_curve(
        np.array([0.1, 0.15, 0.95, 1.0]), np.array([False, True, True, True])
    )
    assert counts.tolist() == [2, 2]
    assert said == pytest.approx([0.125, 0.975])
    assert true == pytest.approx([0.5, 1.0])
    assert error == pytest.approx((2 * 0.375 + 2 * 0.025) / 4)


# --- ensembles


def test_average_of_probabilities():
    random = np.random.default_rng(0)
    members = [random.normal(size=(5, 7)) for _ in range(3)]
    emotions = average_logits(make_task("emotion"), [member[:, 1:] for member in members], "probabilities")
    sigmoid = np.mean([1 / (1 + np.exp(-member[:, 1:])) for member in members], axis=0)
    np.testing.assert_allclose(1 / (1 + np.exp(-emotions)), sigmoid)
    joint = average_logits(JOINT, members, "probabilities")
    np.testing.assert_allclose(joint[:, 1:], emotions)
    np.testing.assert_allclose(joint[:, 0], np.mean(members, axis=0)[:, 0])
    classes = average_logits(make_task("sentiment-7"), members, "probabilities")
    softmax = np.mean([np.exp(member) / np.exp(member).sum(axis=1, keepdims=True) for member in members], axis=0)
    np.testing.assert_allclose(np.exp(classes), softmax)
    np.testing.assert_allclose(average_logits(JOINT, members), np.mean(members, axis=0))
    assert np.isfinite(average_logits(make_task("emotion"), [np.full((1, 6), 900.0)] * 2, "probabilities")).all()
    with pytest.raises(ValueError, match="'votes'"):
        average_logits(JOINT, members, "votes")


def test_ensemble_size_is_chosen_on_validation():
    task, truth = make_task("sentiment"), np.array([1.0, 2.0, -1.0])
    members = {"c": truth[:, None] + 3, "a": truth[:, None] + 0.5, "b": truth[:, None] - 0.6}
    ensemble = choose_ensemble(task, members, truth)
    assert ensemble.order == ("a", "b", "c")
    assert ensemble.members == ("a", "b")
    assert ensemble.member_scores == pytest.approx((0.5, 0.6, 3))
    assert ensemble.ensemble_scores == pytest.approx((0.5, 0.05, 2.9 / 3))
    assert "the logits of 2 of 3 models (a, b)" in ensemble.describe()
    np.testing.assert_allclose(ensemble.logits(task, members), truth[:, None] - 0.05)
    everyone = choose_ensemble(task, members)
    assert everyone.members == ("c", "a", "b")
    assert "the logits of all 3 models" in everyone.describe()


def test_ensemble_maximises_accuracy():
    task, truth = make_task("sentiment-2"), np.array([0, 1, 1])
    right, wrong = np.eye(2)[truth], np.eye(2)[1 - truth]
    assert choose_ensemble(task, {"wrong": wrong, "right": right}, truth).members == ("right",)


def test_joint_ensemble_is_chosen_by_loss():
    split = make_split(JOINT)
    ensemble = choose_ensemble(JOINT, {"noise": -split.logits, "signal": split.logits}, split.truth)
    assert (ensemble.metric, ensemble.order) == ("loss", ("signal", "noise"))
    loss = TaskLoss(JOINT)(torch.from_numpy(split.logits), torch.from_numpy(split.truth)).item()
    assert ensemble.member_scores[0] == pytest.approx(loss)


def test_combine_rejects_different_rows():
    task = make_task("sentiment")
    members = {"a": {"test": make_split(task, seed=1)}, "b": {"test": make_split(task, seed=2)}}
    with pytest.raises(ValueError, match="b and a have different rows in the split test"):
        combine(task, members)


# --- seeds


def test_summarize_seeds_has_mean_deviation_and_ensemble(tmp_path):
    task = make_task("sentiment")
    train = Split.of(task, make_rows(60, 7))
    rows = {"validation": make_rows(30, 1), "test": make_rows(40, 2)}
    reports, members = {}, {}
    for seed in (5, 6, 7):
        members[seed] = {name: make_split(task, seed=seed, rows=split) for name, split in rows.items()}
        reports[seed] = {"splits": measure(task, train, members[seed], num_bootstrap=20)}
    summary = summarize_seeds(tmp_path, task, reports, members, train)
    values = [reports[seed]["splits"]["test"]["model"]["mae"] for seed in reports]
    mae = summary["splits"]["test"]["model"]["mae"]
    assert mae["values"] == values
    assert mae["mean"] == pytest.approx(np.mean(values))
    assert mae["std"] == pytest.approx(np.std(values, ddof=1))
    assert set(summary["splits"]["test"]["sources"]) == {"MOSI", "MOSEI"}
    combined, about = combine(task, {f"seed {seed}": splits for seed, splits in members.items()})
    expected = task_metrics(task, combined["test"].truth, combined["test"].logits)
    assert summary["ensemble"]["splits"]["test"]["model"] == expected
    assert summary["ensemble"]["about"] == about
    written = json.loads((tmp_path / "seeds.json").read_text(encoding="utf-8"))
    assert written["seeds"] == [5, 6, 7]
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert f"| mae | {mae['mean']:.3f} ± {mae['std']:.3f} | {expected['mae']:.3f} |" in text
    assert about in text
    with Image.open(tmp_path / "seeds.png") as image:
        assert len(image.convert("L").getcolors()) > 10


def test_seeds_with_different_rows_have_no_ensemble(tmp_path):
    task = make_task("sentiment")
    members = {seed: {"validation": make_split(task, seed=seed)} for seed in (1, 2)}
    reports = {seed: {"splits": measure(task, None, splits, num_bootstrap=10)} for seed, splits in members.items()}
    summary = summarize_seeds(tmp_path, task, reports, members)
    assert summary["ensemble"]["splits"] == {}
    assert "seed 2 and seed 1 have different rows in the split validation" in summary["ensemble"]["about"]
    assert "mae" in summary["splits"]["validation"]["model"]
    assert summarize_seeds(tmp_path, task, {1: reports[1]})["splits"]["validation"]["model"]["mae"]["std"] is None
