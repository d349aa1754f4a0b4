"""Tasks: their labels, and the label of a row."""

import math

import pytest

from modeling_umons import EMOTIONS, UmonsConfig
from modeling_umons.training.tasks import TASKS, make_task, sentiment_class_2, sentiment_class_7


ROW = {"sentiment": 1.0, "happy": 0.66, "sad": 0, "anger": 0.0, "surprise": 3, "disgust": 0.0, "fear": 0.0}
NOTHING = dict.fromkeys(ROW)


@pytest.mark.parametrize(
    ("sentiment", "expected"),
    [
        # a < -2 | -2 <= a < -1 | -1 <= a < 0 | 0 | 0 < a <= 1 | 1 < a <= 2 | a > 2
        (-3.0, -3), (-2.01, -3), (-2.0, -2), (-1.99, -2), (-1.01, -2), (-1.0, -1), (-0.99, -1), (-1e-9, -1),
        (0.0, 0), (-0.0, 0),
        (1e-9, 1), (0.99, 1), (1.0, 1), (1.01, 2), (1.99, 2), (2.0, 2), (2.01, 3), (3.0, 3),
        (-3.2, -3), (-7.5, -3), (3.2, 3), (7.5, 3),  # predictions go beyond the scale
    ],
)  # fmt: skip
def test_sentiment_class_7_at_every_boundary(sentiment, expected):
    assert sentiment_class_7(sentiment) - 3 == expected
    assert make_task("sentiment-7").labels[sentiment_class_7(sentiment)] == str(expected)


@pytest.mark.parametrize(("sentiment", "expected"), [(-3, 0), (-1e-9, 0), (0, 1), (-0.0, 1), (1e-9, 1), (3, 1)])
def test_sentiment_class_2(sentiment, expected):
    assert sentiment_class_2(sentiment) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("joint", [1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]),
        ("emotion", [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]),
        ("sentiment", 1.0),
        ("sentiment-7", 4),
        ("sentiment-2", 1),
    ],
)
def test_labels_of_a_row(name, expected):
    task = make_task(name)
    assert task.label(ROW) == expected
    assert task.label({column: str(value) for column, value in ROW.items()}) == expected
    assert task.label(NOTHING) is None
    assert task.label(dict.fromkeys(ROW, math.nan)) is None
    assert task.missing(NOTHING) == list(task.columns)
    assert task.missing(ROW) == []


def test_a_row_that_is_known_in_part():
    row = {**ROW, "sentiment": None, "fear": math.nan}
    joint = make_task("joint").label(row)
    assert math.isnan(joint[0])
    assert math.isnan(joint[-1])
    assert joint[1:-1] == [1.0, 0.0, 0.0, 1.0, 0.0]
    # A model of emotions alone has the stock loss, which knows no unknown label.
    assert make_task("emotion").label(row) is None
    assert make_task("emotion").missing(row) == ["fear"]
    assert make_task("emotion").label({**ROW, "sentiment": None}) is not None
    assert make_task("sentiment").label({**NOTHING, "sentiment": -2}) == -2.0


@pytest.mark.parametrize(("name", "column"), [("joint", "fear"), ("emotion", "happy"), ("sentiment-7", "sentiment")])
def test_a_cell_that_is_no_number(name, column):
    with pytest.raises(ValueError, match=f"{column} is 'very', which is no number"):
        make_task(name).label({**ROW, column: "very"})


def test_classes():
    task = make_task("classification", "mood", [2, "calm", "angry", 2, "calm"])
    assert task.labels == ("2", "angry", "calm")
    assert task.columns == ("mood",)
    assert [task.label({"mood": value}) for value in ("angry", 2, None, math.nan)] == [1, 0, None, None]
    with pytest.raises(ValueError, match=r"mood is 'sad', a class that no training row has.*2, angry, calm"):
        task.label({"mood": "sad"})


@pytest.mark.parametrize("name", TASKS)
def test_configurations(name):
    task = make_task(name, classes=["a", "b"])
    config = UmonsConfig(**task.config_options())
    assert config.num_labels == len(task.labels)
    assert [config.id2label[i] for i in range(config.num_labels)] == list(task.labels)
    assert config.label2id == {label: i for i, label in enumerate(task.labels)}
    assert config.problem_type == task.problem_type
    assert config.joint_sentiment == (name == "joint")
    if name in ("joint", "emotion"):
        assert task.labels[-6:] == EMOTIONS


def test_unknown_tasks():
    with pytest.raises(ValueError, match="no task 'mood'; there are joint, emotion, sentiment"):
        make_task("mood")
    for classes in ([], ["calm"]):
        with pytest.raises(ValueError, match=rf"'mood' holds {len(classes)} class"):
            make_task("classification", "mood", classes)
