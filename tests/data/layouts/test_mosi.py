import pytest

from modeling_umons.data.layouts.mosi import MosiTable
from modeling_umons.data.schema import to_table


HEADER = "segment_id,split,sentiment,text\n"


def write(folder, text: str, encoding: str = "utf-8") -> MosiTable:
    (folder / "mosi.csv").write_bytes((HEADER + text).encode(encoding))
    return MosiTable(folder)


@pytest.mark.shared
def test_all_of_mosi(shared):
    source = MosiTable(shared / "data" / "mosi")
    assert {split: len(names) for split, names in source.segments.items()} == {
        "train": 1284, "validation": 229, "test": 686,
    }  # fmt: skip
    rows = [source.read(split, name) for split, names in source.segments.items() for name in names]
    assert all(-3 <= row["sentiment"] <= 3 and row["text"] for row in rows)
    videos = [
        {row["video_id"] for row in rows if row["segment_id"] in set(names)} for names in source.segments.values()
    ]
    assert [len(part) for part in videos] == [52, 10, 31]
    assert len(set.union(*videos)) == 93
    assert to_table(rows, source.features).num_rows == 2199


def test_a_row(tmp_path):
    source = write(tmp_path, 'a_b_3,Valid,-0.5,"so, so"\r\na_b_4,test,,\r\n', "utf-8-sig")
    assert source.segments == {"validation": ["a_b_3"], "test": ["a_b_4"]}
    first, second = source.read("validation", "a_b_3"), source.read("test", "a_b_4")
    assert first == {"segment_id": "a_b_3", "video_id": "a_b", "segment": 3, "text": "so, so", "sentiment": -0.5}
    assert (second["text"], second["sentiment"]) == (None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a_1,trial,0,so\n", "mosi.csv, a_1: its split is 'trial'; known are train"),
        ("a_1,test,0,so\na_1,test,0,so\n", "line 3: the segment_id 'a_1' is a duplicate"),
        (",test,0,so\n", "line 2: the column segment_id is empty"),
        ("a_1,test,0,so,so\n", "line 2: the row has another number of cells than the header, 4; .* quotes"),
        ("a_1,test,0\n", "line 2: the row has another number of cells"),
        ('a_1,test,0,"so\n', "is not a table"),
    ],
)
def test_tables_that_are_broken(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        _ = write(tmp_path, text).segments


def test_missing_column_raises(tmp_path):
    (tmp_path / "mosi.csv").write_text("segment_id,split,label,text\n")
    with pytest.raises(ValueError, match=r"mosi.csv has no column\(s\) \['sentiment'\]; its columns are segment_id"):
        _ = MosiTable(tmp_path).segments


def test_table_in_other_encoding_raises(tmp_path):
    with pytest.raises(ValueError, match=r"mosi.csv is not a table: it is not UTF-8 text"):
        _ = write(tmp_path, "a_1,test,0,café\n", "cp1252").segments


@pytest.mark.parametrize(
    ("name", "sentiment", "message"),
    [
        ("a_1", "good", "a_1: sentiment is 'good', which is not a number"),
        ("a_1", "nan", "sentiment is 'nan', which is not a number"),
        ("a_1", "3.5", r"sentiment is 3.5, outside of \[-3, 3\]"),
        ("a_x", "0", "a_x: the end of its segment_id is 'x', which is not a whole number"),
        ("a_", "0", "which is not a whole number"),
        ("a", "0", "a: a segment_id is the video, `_` and a number"),
    ],
)
def test_broken_segment_raises_only_for_itself(tmp_path, name, sentiment, message):
    source = write(tmp_path, f"{name},test,{sentiment},so\nb_2,test,1,so\n")
    assert source.read("test", "b_2")["sentiment"] == 1
    assert source.segments == {"test": [name, "b_2"]}
    with pytest.raises(ValueError, match=message):
        source.read("test", name)
