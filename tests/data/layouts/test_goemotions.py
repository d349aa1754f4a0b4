from pathlib import Path

import pytest

from modeling_umons import EMOTIONS
from modeling_umons.data.layouts.goemotions import EKMAN_GROUPS, GoEmotionsTables
from modeling_umons.data.schema import to_table


def write(folder: Path, *lines: str) -> Path:
    (folder / "labels.txt").write_text("joy\nconfusion\nannoyance\nneutral\n", encoding="utf-8")
    (folder / "dev.tsv").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


def test_rows_have_the_authors_groups(tmp_path):
    source = GoEmotionsTables(write(tmp_path, 'He said "go.\t0,1\tab1', "So.\t3\tab2"))
    assert source.segments == {"validation": ["ab1", "ab2"]}
    first, second = (source.read("validation", name) for name in ("ab1", "ab2"))
    assert first["text"] == 'He said "go.'  # cells are not quoted
    assert first["labels"] == "joy,confusion"
    assert [name for name in (*EMOTIONS, "neutral") if first[name]] == ["happy", "surprise"]
    assert [name for name in (*EMOTIONS, "neutral") if second[name]] == ["neutral"]
    assert to_table([first, second], source.features).num_rows == 2


@pytest.mark.parametrize("line", ["two\tcells", "a text\t4\tid", "a text\tjoy\tid"])
def test_bad_line_is_named(tmp_path, line):
    with pytest.raises(ValueError, match=r"dev\.tsv, line 1"):
        _ = GoEmotionsTables(write(tmp_path, line)).segments


def test_missing_and_unknown_names_raise(tmp_path):
    write(tmp_path, "a text\t0\tid")
    (tmp_path / "labels.txt").write_text("joy\nglee\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"unknown label\(s\) glee"):
        _ = GoEmotionsTables(tmp_path).segments
    (tmp_path / "dev.tsv").unlink()
    with pytest.raises(FileNotFoundError, match="none of the tables"):
        _ = GoEmotionsTables(tmp_path).segments


@pytest.mark.shared
def test_all_of_goemotions(shared):
    source = GoEmotionsTables(shared / "data" / "goemotions")
    assert {split: len(names) for split, names in source.segments.items()} == {
        "train": 43410, "validation": 5426, "test": 5427,
    }  # fmt: skip
    assert sum(map(len, EKMAN_GROUPS.values())) == 28
    rows = [source.read("test", name) for name in source.segments["test"]]
    assert all(any(row[name] for name in (*EMOTIONS, "neutral")) for row in rows)
