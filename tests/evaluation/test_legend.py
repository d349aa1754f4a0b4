"""Definitions of metrics: complete, equal in the documentation, and printed by `umons explain-metrics`."""

import numpy as np
import pytest
from call_command import call

from modeling_umons.cli import explain_metrics
from modeling_umons.evaluation.legend import SECTIONS, explain_metric
from modeling_umons.evaluation.metrics import task_metrics
from modeling_umons.tasks.task import make_task


TASKS = [
    make_task("joint"), make_task("joint-neutral"), make_task("emotion"), make_task("sentiment"),
    make_task("sentiment-7"), make_task("sentiment-2"), make_task("multi_label", ["a", "b"]),
    make_task("regression", ["valence", "arousal"]), make_task("classification", "mood", ["high", "low"]),
]  # fmt: skip


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_metric_is_defined(task):
    random = np.random.default_rng(0)
    logits = random.normal(size=(40, len(task.labels)))
    truth = (random.random(logits.shape) < 0.5).astype(float)
    if task.problem_type == "single_label_classification":
        truth = random.integers(len(task.labels), size=40)
    names = task_metrics(task, truth, logits[:, 0] if task.name == "sentiment" and truth.ndim == 1 else logits)
    assert len(names) >= 3
    for name in names:
        assert explain_metric(name), name


@pytest.mark.parametrize("section", SECTIONS)
def test_documentation_has_the_same_definitions(section, root):
    rows = [f"| `{name}` | {definition} |" for name, definition in SECTIONS[section].items()]
    table = "\n".join(["| Name | Definition |", "|---|---|", *rows])
    assert table in (root / "docs" / "metrics.md").read_text(encoding="utf-8")


def test_command_prints_definitions(capsys):
    call(explain_metrics.main, "acc2_non0", "anger_f1_macro")
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "acc2_non0: accuracy of negative against positive, only segments whose label is not 0",
        "anger_f1_macro: mean of the F1 of presence and absence (<emotion>_f1_macro)",
    ]
    call(explain_metrics.main)
    assert "expected calibration error" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"There is no metric 'acc2_non'. Did you mean acc2_non0\?"):
        call(explain_metrics.main, "acc2_non")
