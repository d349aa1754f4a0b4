"""RTTM files: turns of speakers in and out."""

import pytest

from modeling_umons.inference.rttm import read_rttm, write_rttm


TURNS = [{"speaker": "Ann", "timestamp": (0.5, 2.75)}, {"speaker": "Bob", "timestamp": (3.0, 4.125)}]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "talk.rttm"


def test_write_rttm_reads_back(path):
    write_rttm(TURNS, path, "talk")
    assert path.read_text(encoding="utf-8").splitlines()[0] == "SPEAKER talk 1 0.500 2.250 <NA> <NA> Ann <NA> <NA>"
    assert read_rttm(path) == TURNS


def test_write_rttm_replaces_white_space(path):
    write_rttm([{"speaker": "Ann Lee", "timestamp": (0.0, 1.0)}], path, "a talk")
    assert path.read_text(encoding="utf-8").split()[1] == "a_talk"
    assert read_rttm(path)[0]["speaker"] == "Ann_Lee"


def test_read_rttm_sorts_and_skips_other_lines(path):
    path.write_text(
        ";; comment\n\nSPKR-INFO talk 1 <NA> <NA> <NA> unknown Ann <NA>\n"
        "SPEAKER talk 1 3.0 1.0 <NA> <NA> Bob <NA>\nSPEAKER talk 1 2.0 0.0 <NA> <NA> Bob <NA> <NA>\n"
        "SPEAKER talk 1 0.5 1.0 <NA> <NA> Ann 0.9 <NA>\n",
        encoding="utf-8",
    )
    assert [turn["speaker"] for turn in read_rttm(path)] == ["Ann", "Bob"]


def test_read_rttm_chooses_the_recording(path):
    path.write_text(
        "SPEAKER one 1 0 1 <NA> <NA> Ann <NA> <NA>\nSPEAKER two 1 0 1 <NA> <NA> Bob <NA> <NA>\n", encoding="utf-8"
    )
    assert read_rttm(path, "folder/two.wav")[0]["speaker"] == "Bob"
    with pytest.raises(ValueError, match="2 recordings, one, two, but not of 'three'"):
        read_rttm(path, "three")
    with pytest.raises(ValueError, match="but not of None"):
        read_rttm(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "contains no turn"),
        (b"start,end\n0,1\n", "contains no turn"),
        (b"SPEAKER talk 1 0.5 0 <NA> <NA> A <NA> <NA>\n", "contains no turn"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"SPEAKER talk 1 0.5\n", "line 1: 4 fields"),
        (b"\nSPEAKER talk 1 soon 1.0 <NA> <NA> A <NA> <NA>\n", "line 2: the start 'soon'"),
        (b"SPEAKER talk 1 0.0 -1.0 <NA> <NA> A <NA> <NA>\n", "'-1.0' must be seconds"),
        (b"SPEAKER talk 1 nan 1.0 <NA> <NA> A <NA> <NA>\n", "'nan'"),
        (b"SPEAKER talk 1 0.0 inf <NA> <NA> A <NA> <NA>\n", "'inf'"),
    ],
)
def test_read_rttm_names_the_fault(path, content, message):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_rttm(path)
