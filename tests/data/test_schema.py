import math

import numpy as np
import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, Value

from modeling_umons import EMOTIONS
from modeling_umons.data.layouts import LAYOUTS, open_source
from modeling_umons.data.schema import (
    CLASS_COLUMNS,
    CONFIGURATIONS,
    SPLIT_NAMES,
    SPLITS,
    class_columns,
    make_features,
    to_table,
)
from modeling_umons.tasks.labels import SENTIMENT_7, sentiment_class_2, sentiment_class_7


def test_names_and_types_of_the_columns():
    features = make_features(74, 35, speaker=Value("string"))
    assert list(features) == [
        "segment_id", "video_id", "segment", "start", "end", "text", "words", "audio_features", "video_features",
            "audio_times", "video_times", "sentiment", *EMOTIONS, "speaker",
    ]  # fmt: skip
    assert features["audio_features"].feature.length == 74
    assert features["video_features"].feature.length == 35
    assert make_features()["audio_features"].feature.length == 80
    assert make_features()["video_features"].feature.length == 512


def test_names_of_splits_lead_to_those_of_datasets():
    assert set(SPLIT_NAMES.values()) == set(SPLITS)
    assert all(SPLIT_NAMES[split] == split for split in SPLITS)


def test_class_columns_are_those_of_the_configurations():
    assert set(class_columns(dict.fromkeys(("sentiment", *EMOTIONS)))) == set(CLASS_COLUMNS)
    assert CONFIGURATIONS["sentiment-7"]["sentiment_7"].names == list(SENTIMENT_7)


@pytest.mark.parametrize(
    ("sentiment", "name"),
    [
        (-3, "-3"), (-2.1, "-3"), (-2, "-2"), (-1.5, "-2"), (-1, "-1"), (-0.01, "-1"), (0, "0"), (-0.0, "0"),
        (0.01, "1"), (1, "1"), (1.01, "2"), (2, "2"), (2.01, "3"), (3, "3"),
    ],
)  # fmt: skip
def test_sentiment_7(sentiment, name):
    assert SENTIMENT_7[sentiment_class_7(sentiment)] == name


def test_sentiment_2_counts_0_as_not_negative():
    assert [sentiment_class_2(value) for value in (-3, -0.01, 0, 3)] == [0, 0, 1, 1]


def test_classes_of_a_row():
    row = {"sentiment": -1.5, **dict(zip(EMOTIONS, [0.5, 0, 0, 3, 0, 0], strict=True))}
    assert class_columns(row) == {"emotions": [0, 3], "sentiment_7": 1, "sentiment_2": 0}
    nothing_felt = {"sentiment": 0.0, **dict.fromkeys(EMOTIONS, 0.0)}
    assert class_columns(nothing_felt) == {"emotions": [], "sentiment_7": 3, "sentiment_2": 1}


@pytest.mark.parametrize("missing", EMOTIONS)
def test_one_unknown_emotion_leaves_them_all_unknown(missing):
    row = {"sentiment": None, **dict.fromkeys(EMOTIONS, 1.0), missing: None}
    assert class_columns(row) == {"emotions": None, "sentiment_7": None, "sentiment_2": None}


def test_table_of_rows():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(3, 2)).astype(np.float32)
    third = rng.normal(size=(1, 2))  # float64
    rows = [
        {
            "segment_id": "a[0]",
            "audio_features": first,
            "words": [{"word": "so", "start": 0.5, "end": None}],
            "kind": 1,
        },
        {"segment_id": "a[1]", "audio_features": None, "sentiment": -1.5},
        {"segment_id": "b[0]", "audio_features": third, "video_features": None},
    ]
    features = make_features(2, 5, kind=ClassLabel(names=["x", "y"]))
    table = to_table(rows, features)
    assert table.schema == features.arrow_schema
    table.validate(full=True)
    audio = table["audio_features"].to_pylist()
    np.testing.assert_array_equal(np.float32(audio[0]), first)
    np.testing.assert_array_equal(np.float32(audio[2]), third.astype(np.float32))
    assert audio[1] is None
    assert table["video_features"].to_pylist() == [None] * 3
    assert table["kind"].to_pylist() == [1, None, None]
    assert table["words"].to_pylist() == [[{"word": "so", "start": 0.5, "end": None}], None, None]
    assert table["sentiment"].to_pylist() == [None, -1.5, None]
    assert Dataset(table).features == features


def test_table_without_rows_and_without_nulls():
    features = make_features(2, 5)
    assert to_table([], features).num_rows == 0
    rows = [{"segment_id": str(i), "video_features": np.full((i + 1, 5), i, np.float32)} for i in range(3)]
    column = to_table(rows, features)["video_features"]
    assert column.null_count == 0
    assert [len(value) for value in column.to_pylist()] == [1, 2, 3]
    assert math.fsum(sum(map(sum, value)) for value in column.to_pylist()) == 5 * (0 + 2 + 6)


@pytest.mark.parametrize("shape", [(3, 4), (3,), (1, 3, 2)])
def test_features_of_another_size(shape):
    rows = [{"segment_id": "a[0]", "audio_features": np.zeros(shape, np.float32)}]
    with pytest.raises(ValueError, match=r"a\[0\]: audio_features has the shape .* expected \(frames, 2\)"):
        to_table(rows, make_features(2, 5))


def test_value_of_other_type_raises():
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        to_table([{"segment_id": "a[0]", "segment": "first"}], make_features())


# --- layouts


def test_unknown_layout_raises(tmp_path):
    with pytest.raises(ValueError, match=r"Unknown layout 'zip'; use one of umons, .*ravdess"):
        open_source("zip", tmp_path)


@pytest.mark.parametrize("layout", sorted({"folder", "labels", "mosi", "meld", "ravdess"} & set(LAYOUTS)))
def test_folders_that_are_missing_or_empty(layout, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such folder"):
        open_source(layout, tmp_path / "nowhere")
    with pytest.raises(OSError, match=str(tmp_path)):
        _ = open_source(layout, tmp_path).segments
