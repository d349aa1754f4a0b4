"""Tests of the tasks and of the label of a row."""

import math
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from modeling_umons import EMOTIONS, UmonsConfig
from modeling_umons.tasks.labels import sentiment_class_2, sentiment_class_7
from modeling_umons.tasks.task import OWN_LABELS, TASKS, make_task, scale_advice, task_of, with_listed_labels


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
def test_sentiment_class_7_at_boundaries(sentiment, expected):
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
def test_label_of_a_row(name, expected):
    task = make_task(name)
    assert task.label(ROW) == expected
    assert task.label({column: str(value) for column, value in ROW.items()}) == expected
    assert task.label(NOTHING) is None
    assert task.label(dict.fromkeys(ROW, math.nan)) is None
    assert task.missing(NOTHING) == list(task.columns)
    assert task.missing(ROW) == []


def test_label_of_a_partly_known_row():
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
def test_label_raises_for_text(name, column):
    with pytest.raises(
        ValueError, match=f"{column} is 'very', which is not a number. Leave the cells of unknown labels empty"
    ):
        make_task(name).label({**ROW, column: "very"})


def test_make_task_sorts_classes():
    task = make_task("classification", "mood", [2, "calm", "angry", 2, "calm"])
    assert task.labels == ("2", "angry", "calm")
    assert task.columns == ("mood",)
    assert [task.label({"mood": value}) for value in ("angry", 2, None, math.nan)] == [1, 0, None, None]
    with pytest.raises(ValueError, match=r"mood is 'sad', which is not a class of the training rows.*2, angry, calm"):
        task.label({"mood": "sad"})


@pytest.mark.parametrize("name", TASKS)
def test_config_options_of_task(name):
    task = make_task(name, ["c", "d"] if name in OWN_LABELS else (), classes=["a", "b"])
    config = UmonsConfig(**task.config_options())
    assert config.num_labels == len(task.labels)
    assert [config.id2label[i] for i in range(config.num_labels)] == list(task.labels)
    assert config.label2id == {label: i for i, label in enumerate(task.labels)}
    assert config.problem_type == task.problem_type
    assert config.joint_sentiment == name.startswith("joint")
    assert task.emotions == {
        "joint": EMOTIONS, "joint-neutral": (*EMOTIONS, "neutral"), "emotion": EMOTIONS, "multi_label": ("c", "d"),
    }.get(name, ())  # fmt: skip


def test_joint_neutral_labels_are_probabilities():
    task = make_task("joint-neutral")
    row = {"sentiment": None, **dict.fromkeys(EMOTIONS, 0.0), "happy": 2.0, "sad": 0.25, "neutral": None}
    label = task.label(row)
    assert label[1:3] == [1.0, 0.25]
    assert math.isnan(label[0])
    assert math.isnan(label[-1])


def test_make_task_rejects_unknown_task():
    with pytest.raises(ValueError, match="Unknown task 'mood'; available: joint, joint-neutral, emotion"):
        make_task("mood")
    for classes in ([], ["calm"]):
        with pytest.raises(ValueError, match=rf"'mood' contains {len(classes)} class"):
            make_task("classification", "mood", classes)


@pytest.mark.parametrize(
    ("name", "column", "value", "message"),
    [
        ("sentiment", "sentiment", math.inf, "sentiment is inf, which is not a finite number"),
        ("sentiment-7", "sentiment", "-inf", "sentiment is '-inf', which is not a finite number"),
        ("sentiment-2", "sentiment", 3.5, r"sentiment is 3.5, which is outside of \[-3, 3\]"),
        ("joint", "sentiment", 1e38, r"outside of \[-3, 3\]"),
        ("emotion", "fear", -1, r"fear is -1, which is outside of \[0, 3\]"),
        ("joint", "happy", 4.0, r"happy is 4.0, which is outside of \[0, 3\]"),
    ],
)
def test_label_out_of_range_raises(name, column, value, message):
    row = {**ROW, column: value}
    task = make_task(name)
    with pytest.raises(ValueError, match=message):
        task.label(row)
    with pytest.raises(ValueError, match=message):
        task.label_array(pa.table({key: pa.array([None, cell]) for key, cell in row.items()}))


def test_classes_are_stripped_and_sorted_as_numbers():
    assert make_task("classification", "x", ["sad ", "sad", " glad", "  "]).labels == ("glad", "sad")
    assert make_task("classification", "x", ["c\u0327a", "\u00e7a", "sad"]).labels == ("sad", "\u00e7a")  # NFC
    task = make_task("classification", "x", [str(i) for i in range(12)])
    assert task.labels == tuple(str(i) for i in range(12))
    assert [task.label({"label": value, "x": value}) for value in (10.0, "10.0", " 10 ", 10, "", None)] == [
        10, 10, 10, 10, None, None,
    ]  # fmt: skip
    assert make_task("classification", "x", [0.5, -1, 3.0]).labels == ("-1", "0.5", "3")
    assert make_task("classification", "x", ["nan", "2", "10"]).labels == ("10", "2", "nan")


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        ([1, 5, 4], r"scale \[1, 5\], pass --label_range 1 5"),
        ([0, 97.5], r"scale \[0, 100\], pass --label_range 0 100"),
        (["-1", "0.4", None], r"scale \[-1, 1\], pass --label_range -1 1"),
        ([0, 0.4], r"scale \[0, 1\], pass --label_range 0 1"),
        ([-3, 3, 1], "^$"),
        ([1, 1], "^$"),
        ([-500, 3], "^$"),
    ],
)
def test_scale_advice(values, advice):
    assert re.search(advice, scale_advice(make_task("sentiment"), values))
    assert scale_advice(make_task("sentiment", label_range=[-3, 3]), values) == ""


def test_unknown_names_suggest_nearest():
    with pytest.raises(ValueError, match="Did you mean classification"):
        make_task("clasification")
    with pytest.raises(ValueError, match="Did you mean angry"):
        make_task("classification", "mood", ["angry", "calm"]).label({"mood": "angri"})


def assert_label_array(task, rows: dict[str, list]):
    """Compare `label_array` with `label` of each row, in one chunk and in several."""
    table = pa.table(rows)
    expected = [task.label(row) for row in table.to_pylist()]
    for some in (table, pa.concat_tables([table.slice(0, 2), table.slice(2)])):
        labels, is_known = task.label_array(some)
        assert is_known.tolist() == [label is not None for label in expected]
        assert labels.dtype == (np.int64 if task.problem_type == "single_label_classification" else np.float32)
        wanted = np.array([label for label in expected if label is not None], dtype=labels.dtype)
        np.testing.assert_array_equal(labels[is_known], wanted.reshape(-1, *labels.shape[1:]))
        missing = labels[~is_known]
        assert (missing == -100).all() if labels.dtype == np.int64 else np.isnan(missing).any(axis=-1).all()


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.string()])
@pytest.mark.parametrize("name", [name for name in TASKS if name != "classification" and name not in OWN_LABELS])
def test_label_array_equals_labels_of_rows(name, kind):
    sentiment = [-3, -2.5, -2, -1e-3, 0, -0.0, 1e-3, 1, 1.5, 3, 2.2, -1.7, None, math.nan, None, 0.66]
    emotions = {emotion: [(i + j) % 4 * 0.33 for i in range(16)] for j, emotion in enumerate(EMOTIONS)}
    emotions["fear"][3], emotions["fear"][4] = None, math.nan
    emotions["neutral"] = [0.5] * 16
    for values in emotions.values():
        values[14] = None  # nothing is known of this row
    columns = {"sentiment": sentiment, **emotions}
    if pa.types.is_string(kind):
        columns = {key: [None if v is None else str(v) for v in values] for key, values in columns.items()}
    columns = {key: pa.array(values, kind) for key, values in columns.items()}
    assert_label_array(make_task(name), columns)
    nothing = {key: pa.nulls(2, kind) for key in columns}
    assert_label_array(make_task(name), nothing)


def test_label_array_parses_numbers_that_arrow_does_not():
    columns = {"sentiment": [" 1.5 ", "-2", None]}
    assert_label_array(make_task("sentiment-7"), columns)
    assert_label_array(make_task("sentiment"), {"sentiment": pa.nulls(2)})
    assert_label_array(make_task("sentiment-2"), {"sentiment": [1, 0, -1, None]})
    with pytest.raises(ValueError, match="sentiment is 'very', which is not a number"):
        make_task("sentiment").label_array(pa.table({"sentiment": ["1", "very"]}))
    with pytest.raises(ValueError, match=r"sentiment is \[1.0\], which is not a number"):
        make_task("sentiment").label_array(pa.table({"sentiment": [[1.0]]}))


@pytest.mark.parametrize(
    "values", [["calm", None, "angry", "calm"], [2, 10, None, 2], [1.0, 2.5, math.nan, None], [True, False, None]]
)
def test_label_array_of_classes(values):
    classes = {str(value) for value in values if value is not None and value == value}
    task = make_task("classification", "mood", classes)
    assert_label_array(task, {"mood": values})
    assert_label_array(task, {"mood": pa.array(values).dictionary_encode()})
    with pytest.raises(ValueError, match=r"mood is 'sad', which is not a class of the training rows"):
        task.label_array(pa.table({"mood": ["sad"]}))


def test_sentiments_on_another_scale_are_rescaled():
    for name, expected in (("sentiment", [-3.0, 0.0, 3.0]), ("sentiment-7", [0, 3, 6]), ("sentiment-2", [0, 1, 1])):
        task = make_task(name, "stars", label_range=[1, 5])
        assert [task.label({"stars": stars}) for stars in (1, 3, "5")] == expected
        assert_label_array(task, {"stars": [1, 3, 5, None]})
        with pytest.raises(ValueError, match=r"stars is 0, which is outside of \[1, 5\]"):
            task.label({"stars": 0})
    joint = make_task("joint", label_range=[0, 100])
    assert joint.label({**ROW, "sentiment": 75})[:2] == [1.5, 1.0]


def test_labels_of_multi_label_are_present_or_absent():
    task = make_task("multi_label", ["joy", "grief"])
    assert task.label({"joy": "True", "grief": 0}) == [1.0, 0.0]
    partly = task.label({"joy": 1, "grief": None})
    assert partly[0] == 1
    assert math.isnan(partly[1])
    assert_label_array(task, {"joy": [1, 0, 1, None], "grief": [0.0, 1.0, 0.0, None]})
    assert_label_array(task, {"joy": [True, False, None], "grief": ["true", "False", None]})
    for value in (0.5, 2, -1):
        with pytest.raises(ValueError, match=r"joy is .*, which is neither 0 nor 1; .* --task regression"):
            task.label_array(pa.table({"joy": [1, value], "grief": [0, 0]}))


def test_labels_of_multi_label_may_be_lists():
    for rows in (["joy, love", "grief", None, " "], [["love", "joy"], ["grief"], None, []]):
        task = with_listed_labels(make_task("multi_label", "feelings"), rows)
        assert task.labels == ("grief", "joy", "love")
        assert task.columns == ("feelings",)
        assert [task.label({"feelings": row}) for row in rows] == [[0, 1, 1], [1, 0, 0], None, [0, 0, 0]]
        assert_label_array(task, {"feelings": rows})
        assert task_of(UmonsConfig(**task.config_options()), ["feelings"]) == task
    with pytest.raises(ValueError, match=r"contains 'jo', which is not a label .*Did you mean joy"):
        task.label({"feelings": "jo"})
    assert with_listed_labels(make_task("multi_label", "joy"), ["1", "0", None]).labels == ("joy",)


def test_labels_of_regression_may_have_any_scale():
    task = make_task("regression", ["valence", "arousal"])
    assert task.label({"valence": 7.5, "arousal": "-200"}) == [7.5, -200.0]
    assert_label_array(task, {"valence": [1.0, 9.0, None, 4.0], "arousal": [0.0, None, None, 1.0]})
    with pytest.raises(ValueError, match="arousal is inf, which is not a finite number"):
        task.label_array(pa.table({"valence": [1.0], "arousal": [math.inf]}))
    with pytest.raises(ValueError, match=r"valence is 9.5, which is outside of \[1, 9\] \(`--label_range`\)"):
        make_task("regression", ["valence"], label_range=[1, 9]).label_array(pa.table({"valence": [2.0, 9.5]}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("multi_label",), "--task multi_label requires the columns of its labels: --label_columns"),
        (("regression", ["a", "a"]), "The label columns are a, a: name each one once"),
        (("emotion", ["joy"]), "names 1 column.*--task emotion reads 6.*pass --task multi_label"),
        (("sentiment", [], [], [3, 1]), r"--label_range is \[3, 1\]: pass the lowest and the highest label"),
        (("emotion", [], [], [0, 1]), "--label_range has no effect: --task emotion"),
    ],
)
def test_columns_and_ranges_that_do_not_fit_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_task(*arguments)


@pytest.mark.parametrize("name", OWN_LABELS)
def test_own_labels_are_those_of_the_configuration(name):
    task = replace(make_task(name, ["a", "b"]), ranges=((1.0, 9.0), (0.0, 1.0)) if name == "regression" else ())
    config = UmonsConfig(**task.config_options())
    assert task_of(config) == task
    assert task_of(config).ranges == task.ranges
    assert task_of(config, ["x", "y"]).columns == ("x", "y")
    with pytest.raises(ValueError, match="The model has the labels a, b: name a column for each"):
        task_of(config, ["x", "y", "z"])


def test_single_label_without_a_name_is_the_sentiment():
    assert task_of(UmonsConfig(num_labels=1)) == make_task("sentiment")
