import csv
from collections import Counter
from pathlib import Path

import pytest

from modeling_umons import EMOTIONS
from modeling_umons.data.layouts.meld import MELD_COLUMNS, MELD_EMOTIONS, MeldTables
from modeling_umons.data.schema import to_table


ROW = {
    "Utterance": "You must\u2019ve, hm.", "Speaker": "Ren\u00e9", "Emotion": "joy", "Sentiment": "positive",
    "Dialogue_ID": 5, "Utterance_ID": 3, "StartTime": "00:20:57,256", "EndTime": "01:00:00,049",
}  # fmt: skip
OTHER = {**ROW, "Utterance_ID": 4}


def write(folder: Path, name: str, *rows: dict, columns=MELD_COLUMNS) -> None:
    with open(folder / f"{name}_sent_emo.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.shared
def test_all_of_meld(shared, caplog):
    source = MeldTables(shared / "data" / "meld")
    assert {split: len(names) for split, names in source.segments.items()} == {
        "train": 9989, "validation": 1109, "test": 2610,
    }  # fmt: skip
    rows = [source.read(split, name) for split, names in source.segments.items() for name in names]
    assert caplog.text == ""
    assert len({row["segment_id"] for row in rows}) == len(rows) == 13708
    assert Counter(MELD_EMOTIONS[row["emotion"]] for row in rows[:9989]) == {
        "neutral": 4710, "joy": 1743, "surprise": 1205, "anger": 1109, "sadness": 683, "disgust": 271, "fear": 268,
    }  # fmt: skip
    assert [sum(row[name] for row in rows[:9989]) for name in EMOTIONS] == [1743, 683, 1109, 1205, 271, 268]
    assert Counter(row["polarity"] for row in rows[-2610:]) == {0: 833, 1: 1256, 2: 521}
    assert all(row["text"] and row["speaker"] and row["start"] >= 0 for row in rows)
    # A single utterance has no length, and none ends before it begins.
    assert [row["segment_id"] for row in rows if row["end"] is None] == ["test_dia155[3]"]
    assert all(row["end"] is None or row["end"] > row["start"] for row in rows)
    assert to_table(rows, source.features).num_rows == 13708


@pytest.mark.parametrize(("name", "split"), [("train", "train"), ("dev", "validation"), ("test", "test")])
def test_a_row(tmp_path, name, split):
    write(tmp_path, name, ROW)
    source = MeldTables(tmp_path)
    assert source.segments == {split: [f"{name}_dia5[3]"]}
    row = source.read(split, f"{name}_dia5[3]")
    assert row == {
        "segment_id": f"{name}_dia5[3]", "video_id": f"{name}_dia5", "segment": 3, "start": 1257.256, "end": 3600.049,
        "text": "You must\u2019ve, hm.", "happy": 1.0, "sad": 0.0, "anger": 0.0, "surprise": 0.0, "disgust": 0.0,
        "fear": 0.0, "speaker": "Ren\u00e9", "emotion": 4, "polarity": 2,
    }  # fmt: skip
    assert source.features["emotion"].int2str(row["emotion"]) == "joy"
    assert source.features["polarity"].int2str(row["polarity"]) == "positive"
    assert to_table([row], source.features)["sentiment"].to_pylist() == [None]


@pytest.mark.parametrize(
    ("emotion", "column"),
    [
        ("neutral", None),
        ("joy", "happy"),
        ("sadness", "sad"),
        *((name, name) for name in ("anger", "surprise", "disgust", "fear")),
    ],
)  # fmt: skip
def test_emotions_by_their_names_in_mosei(tmp_path, emotion, column):
    write(tmp_path, "test", {**ROW, "Emotion": emotion})
    row = MeldTables(tmp_path).read("test", "test_dia5[3]")
    assert [name for name in EMOTIONS if row[name]] == [column] * (column is not None)


def test_quotes_that_became_control_characters(tmp_path):
    write(tmp_path, "test", {**ROW, "Utterance": "I\x92m \x93caf\u00e9\x94 \x85\x81"})
    text = MeldTables(tmp_path).read("test", "test_dia5[3]")["text"]
    assert text == "I\u2019m \u201ccaf\u00e9\u201d \u2026\x81"  # 81 is nothing in cp1252


def test_dialogues_of_two_tables_and_a_table_that_is_missing(tmp_path, caplog):
    write(tmp_path, "test", ROW)
    write(tmp_path, "dev", ROW)
    source = MeldTables(tmp_path)
    assert source.segments == {"validation": ["dev_dia5[3]"], "test": ["test_dia5[3]"]}
    (record,) = caplog.records
    assert "lacks train_sent_emo.csv: there are no such splits" in record.getMessage()


def test_no_table_at_all(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none of the tables train_sent_emo.csv, dev_sent"):
        _ = MeldTables(tmp_path).segments


def test_missing_columns_raise(tmp_path):
    write(tmp_path, "dev", ROW, columns=MELD_COLUMNS[:-2])
    with pytest.raises(ValueError, match=r"dev_sent_emo.csv has no column\(s\) \['StartTime', 'EndTime'\]"):
        _ = MeldTables(tmp_path).segments


def test_duplicate_utterance_raises(tmp_path):
    write(tmp_path, "dev", ROW, OTHER, ROW)
    with pytest.raises(ValueError, match=r"dev_sent_emo.csv, line 4: the segment 'dev_dia5\[3\]' is a duplicate"):
        _ = MeldTables(tmp_path).segments


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Emotion": "happy"}, "Emotion is 'happy'; known are neutral, surprise"),
        ({"Sentiment": ""}, "Sentiment is ''; known are negative, neutral, positive"),
        ({"StartTime": "20:57"}, "StartTime is '20:57', which is not a time such as 00:20:57,256"),
        ({"EndTime": "00:20:57,255"}, "it ends at 00:20:57,255, before 00:20:57,256"),
    ],
)
def test_broken_segment_raises_only_for_itself(tmp_path, change, message):
    write(tmp_path, "test", {**ROW, **change}, OTHER)
    source = MeldTables(tmp_path)
    assert source.segments == {"test": ["test_dia5[3]", "test_dia5[4]"]}
    assert source.read("test", "test_dia5[4]")["segment"] == 4
    with pytest.raises(ValueError, match=r"test_sent_emo.csv, test_dia5\[3\]: " + message):
        source.read("test", "test_dia5[3]")


@pytest.mark.parametrize(("column", "value"), [("Dialogue_ID", "x"), ("Utterance_ID", "1.5")])
def test_id_that_is_not_a_number_raises(tmp_path, column, value):
    write(tmp_path, "test", {**ROW, column: value})
    source = MeldTables(tmp_path)
    (name,) = source.segments["test"]
    with pytest.raises(ValueError, match=f"{column} is '{value}', which is not a whole number"):
        source.read("test", name)


def test_times_as_some_rows_have_them(tmp_path):
    write(tmp_path, "test", {**ROW, "StartTime": "0:12:32,632", "EndTime": " 00:12:47,28"})
    row = MeldTables(tmp_path).read("test", "test_dia5[3]")
    assert (row["start"], row["end"]) == (752.632, 767.028)
