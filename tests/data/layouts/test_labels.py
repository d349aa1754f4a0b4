import csv
import pickle
from collections import Counter
from pathlib import Path

import pytest

from modeling_umons import EMOTIONS
from modeling_umons.data.layouts.labels import LABEL_COLUMNS, LabelTables
from modeling_umons.data.official_splits import OFFICIAL_COUNTS, official_split
from modeling_umons.data.schema import class_columns
from modeling_umons.tasks.labels import SENTIMENT_7


ROW = {
    "segment_id": "v[0]", "video_id": "v", "segment": 0, "split": "valid", "start": 0.5, "end": 2, "sentiment": -1.5,
    "happy": 0, "sad": 0.66, "anger": 3, "surprise": 0, "disgust": 0, "fear": "",
}  # fmt: skip
OTHER = {**ROW, "segment_id": "v[1]", "segment": 1}


def write(folder: Path, *rows: dict) -> LabelTables:
    write_csv(folder / "labels.csv", LABEL_COLUMNS, rows)
    return LabelTables(folder)


def write_csv(path: Path, columns, rows) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def write_texts(path: Path, **texts: str) -> None:
    rows = [{"segment_id": f"v[{name[1:]}]", "text": text, "asr": "x"} for name, text in texts.items()]
    write_csv(path, ("segment_id", "text", "asr"), rows)


@pytest.mark.shared
def test_all_of_mosei(shared, caplog):
    source = LabelTables(shared / "data" / "mosei")
    rows = {split: [source.read(split, name) for name in names] for split, names in source.segments.items()}
    assert list(rows) == ["train", "validation", "test"]
    for split, counts in OFFICIAL_COUNTS.items():
        videos = {row["video_id"] for row in rows[split]}
        assert (len(rows[split]), len(videos)) == (counts["segments"], counts["videos"])
        assert {official_split(video) for video in videos} == {split}
    assert all(row["text"] for row in rows["validation"])
    assert sum(row["text"] is not None for row in rows["train"]) == 16249  # of 16,327; the others have no transcript
    assert not any(row["text"] for row in rows["test"])
    assert caplog.text == ""

    classes = [class_columns(row) for row in rows["test"]]
    assert Counter(SENTIMENT_7[row["sentiment_7"]] for row in classes) == counts["sentiment_7"]
    assert Counter(EMOTIONS[i] for row in classes for i in row["emotions"]) == counts["emotions"]
    rows = [row for part in rows.values() for row in part]
    assert all(row["segment_id"] == f"{row['video_id']}[{row['segment']}]" for row in rows)
    assert all(-0.5 < row["start"] < row["end"] for row in rows)
    assert sum(row["start"] < 0 for row in rows) == 223  # in the tables as CMU publishes them


def test_a_row(tmp_path):
    source = write(tmp_path, ROW, OTHER)
    write_texts(tmp_path / "transcripts_a.csv", v0='so, "so"')
    write_texts(tmp_path / "transcripts.csv", v1="")
    assert source.segments == {"validation": ["v[0]", "v[1]"]}
    assert source.read("validation", "v[0]") == {
        "segment_id": "v[0]", "video_id": "v", "segment": 0, "start": 0.5, "end": 2.0, "text": 'so, "so"',
        "sentiment": -1.5, "happy": 0.0, "sad": 0.66, "anger": 3.0, "surprise": 0.0, "disgust": 0.0, "fear": None,
    }  # fmt: skip
    assert source.read("validation", "v[1]")["text"] is None
    again = pickle.loads(pickle.dumps(source))
    assert again.segments == source.segments
    assert again.read("validation", "v[0]") == source.read("validation", "v[0]")


def test_transcript_without_segment_warns(tmp_path, caplog):
    source = write(tmp_path, ROW)
    write_texts(tmp_path / "transcripts_x.csv", v0="so", v7="and", v8="on")
    assert source.segments == {"validation": ["v[0]"]}
    assert source.read("validation", "v[0]")["text"] == "so"
    (record,) = caplog.records
    assert "transcripts_x.csv: 2 segments, such as v[7], are not in labels.csv" in record.getMessage()


def test_duplicate_transcript_raises(tmp_path):
    source = write(tmp_path, ROW)
    write_texts(tmp_path / "transcripts_a.csv", v0="so")
    write_texts(tmp_path / "transcripts_b.csv", v0="and so")
    with pytest.raises(ValueError, match=r"transcripts_b.csv, v\[0\]: another table of transcripts has"):
        _ = source.segments


@pytest.mark.parametrize("column", LABEL_COLUMNS)
def test_labels_without_column_raise(tmp_path, column):
    columns = [name for name in LABEL_COLUMNS if name != column]
    write_csv(tmp_path / "labels.csv", columns, [{name: ROW[name] for name in columns}])
    with pytest.raises(ValueError, match=rf"labels.csv has no column\(s\) \['{column}'\]"):
        _ = LabelTables(tmp_path).segments


def test_duplicate_csv_column_raises(tmp_path):
    (tmp_path / "labels.csv").write_text(",".join([*LABEL_COLUMNS, "sentiment"]) + "\n")
    with pytest.raises(ValueError, match=r"labels.csv has the column\(s\) \['sentiment'\] more than once"):
        _ = LabelTables(tmp_path).segments


def test_transcripts_without_column_raise(tmp_path):
    source = write(tmp_path, ROW)
    (tmp_path / "transcripts.csv").write_text("segment_id,words\n")
    with pytest.raises(ValueError, match=r"transcripts.csv has no column\(s\) \['text'\]"):
        _ = source.segments


def test_duplicate_segment_raises(tmp_path):
    with pytest.raises(ValueError, match=r"labels.csv, line 3: the segment_id 'v\[0\]' is a duplicate"):
        _ = write(tmp_path, ROW, ROW).segments


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("sentiment", "3.1", r"sentiment is 3.1, outside of \[-3, 3\]"),
        ("sentiment", "inf", "sentiment is 'inf', which is not a number"),
        ("fear", "-1", r"fear is -1, outside of \[0, 3\]"),
        ("start", "soon", "start is 'soon', which is not a number"),
        ("segment", "1.5", "segment is '1.5', which is not a whole number"),
        ("segment", "", "segment is '', which is not a whole number"),
        ("segment", "9" * 20, "segment is 9{20}, which has more than 18 digits"),
        ("end", "0.25", r"it ends at 0\.25 s, before it starts at 0\.5 s"),
    ],
)
def test_broken_segment_raises_only_for_itself(tmp_path, column, value, message):
    source = write(tmp_path, {**ROW, column: value}, OTHER)
    assert source.segments == {"validation": ["v[0]", "v[1]"]}
    assert source.read("validation", "v[1]")["anger"] == 3
    with pytest.raises(ValueError, match=r"labels.csv, v\[0\]: " + message):
        source.read("validation", "v[0]")
