"""Tests of the curves of missing modalities."""

import numpy as np
import pytest
from datasets import Dataset

from modeling_umons import EMOTIONS, build_tokenizer
from modeling_umons.data.collator import UtteranceCollator
from modeling_umons.data.conversations import ConversationCollator
from modeling_umons.data.schema import make_features, to_table
from modeling_umons.evaluation.missing_modalities import SHARES, describe_curves, missing_curves
from modeling_umons.evaluation.report import write_report
from modeling_umons.evaluation.results import measure
from modeling_umons.evaluation.splits import Split
from modeling_umons.tasks.task import make_task


FRAME = 3
FRAMES = np.ones((2, FRAME), dtype=np.float32)


def make_rows(texts: list[str | None], has_sound: list[bool]) -> Dataset:
    rows = [
        {
            "segment_id": str(i),
            "text": text,
            "audio_features": FRAMES if sound else None,
            "sentiment": 2.0,
            **{name: float((i + j) % 2) for j, name in enumerate(EMOTIONS)},
        }
        for i, (text, sound) in enumerate(zip(texts, has_sound, strict=True))
    ]
    return Dataset(to_table(rows, make_features(FRAME)))


def predict_from_text(rows: Dataset) -> np.ndarray:
    """Predict rows with text correctly, and rows without text with an error of 1."""
    return np.array([[2.0 if text else 1.0] for text in rows["text"]], dtype=np.float32)


def collator_of(modalities=("text", "audio"), kind=UtteranceCollator, task="sentiment"):
    return kind(modalities, build_tokenizer(["good"]), make_task(task), audio_size=FRAME)


def curves_of(rows: Dataset, predict=predict_from_text, seed: int = 0, **options):
    return missing_curves(make_task("sentiment"), predict, rows, predict(rows), collator_of(**options), seed)


def test_error_grows_with_share_of_rows_without_text():
    curves = curves_of(make_rows(["good"] * 8, [True] * 8))
    assert curves["shares"] == list(SHARES)
    assert curves["without"]["text"]["metrics"]["mae"] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert curves["without"]["audio"]["metrics"]["mae"] == [0.0] * 5
    assert describe_curves(curves) == "Of 8 rows, 8 can lose the text; 8 can lose the audio."


def test_rows_of_one_modality_are_unchanged():
    rows = make_rows(["good", "good", None, " ", "good", "good"], [True, False, True, True, True, True])
    asked = []

    def predict(rows: Dataset) -> np.ndarray:
        asked.append((list(rows["text"]), [sound is not None for sound in rows["audio_features"]]))
        return predict_from_text(rows)

    curves = missing_curves(make_task("sentiment"), predict, rows, predict_from_text(rows), collator_of(), 0)
    assert asked == [([None] * 3, [True] * 3), (["good"] * 3, [False] * 3)]
    text, sound = curves["without"]["text"], curves["without"]["audio"]
    assert (text["droppable"], text["only"], text["absent"]) == (3, 1, 2)
    assert (sound["droppable"], sound["only"], sound["absent"]) == (3, 2, 1)
    assert "3 can lose the text (not 1 that have no other modality and 2 that do not have it)" in describe_curves(
        curves
    )


def test_seed_selects_rows():
    rows = make_rows(["good"] * 40, [True] * 40)
    lost = np.arange(40, dtype=np.float32)[:, None] ** 2

    def predict(rows: Dataset) -> np.ndarray:
        return lost[: len(rows)] if rows["text"][0] is None else predict_from_text(rows)

    one, same, other = (curves_of(rows, predict, seed)["without"]["text"]["metrics"]["mae"] for seed in (0, 0, 1))
    assert one == same
    assert one[1] != other[1]
    assert one[-1] == other[-1]


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        (make_rows(["good"], [True]), {"modalities": ("text",)}),
        (make_rows(["good"], [True]), {"kind": ConversationCollator}),
        (make_rows(["good", None], [False, True]), {}),
    ],
    ids=["one modality", "conversations", "no second modality"],
)
def test_missing_curves_returns_none(rows, options):
    assert curves_of(rows, **options) is None


@pytest.mark.parametrize("task", ["sentiment", "emotion", "joint", "sentiment-7"])
def test_report_has_missing_modality_curves(tmp_path, task):
    task = make_task(task)
    rows = make_rows(["good"] * 6, [True] * 6)

    def predict(rows: Dataset) -> np.ndarray:
        value = 1.0 if rows["text"][0] else -1.0
        return np.full((len(rows), len(task.labels)), value, dtype=np.float32)

    split = Split.of(task, rows, predict(rows))
    results = measure(task, None, {"test": split}, num_bootstrap=10)
    results["test"]["missing_modalities"] = missing_curves(
        task, predict, rows, split.logits, collator_of(task=task.name), 0
    )
    report = write_report(tmp_path, task, results, {"test": split})
    assert "missing_modalities.png" in report["plots"]
    assert (tmp_path / "missing_modalities.png").stat().st_size > 5000
    assert "6 can lose the text" in (tmp_path / "report.md").read_text(encoding="utf-8")
    # A later report without curves removes the plot.
    del results["test"]["missing_modalities"]
    assert "missing_modalities.png" not in write_report(tmp_path, task, results, {"test": split})["plots"]
    assert not (tmp_path / "missing_modalities.png").exists()
