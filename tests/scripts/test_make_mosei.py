"""The synthetic CMU-MOSEI has the segments, durations and labels of its table."""

import importlib.util
from pathlib import Path

import pytest

from modeling_umons.data.layouts import open_source


SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "make_mosei.py"


@pytest.fixture
def make_mosei():
    spec = importlib.util.spec_from_file_location("make_mosei", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_mosei


def test_segments_have_durations_and_labels_of_the_table(make_mosei, tmp_path):
    names = "segment_id,split,start,end,sentiment,happy,sad,anger,surprise,disgust,fear"
    rows = ["a[0],train,1.0,11.0,-2.0,0,1,0,0,0,0", "a[1],train,0,2,1,0,0,0,0,0,0", "b[0],valid,0,0.1,3,2,0,0,0,0,0",
            "c[0],test,0,4,0,0,0,0,0,0,0"]  # fmt: skip
    (tmp_path / "labels.csv").write_text("\n".join([names, *rows]))
    make_mosei(tmp_path / "labels.csv", tmp_path / "MOSEI", video=True)
    source = open_source("umons", tmp_path / "MOSEI")
    assert source.segments == {"train": ["a[0]", "a[1]"], "validation": ["b[0]"], "test": ["c[0]"]}
    row = source.read("train", "a[0]")
    assert (row["sentiment"], row["sad"], len(row["words"])) == (-2.0, 1.0, 26)
    assert row["audio_features"].shape == (51, 80)  # a frame every 0.1995 s
    assert row["video_features"].shape == (34, 512)
    assert source.read("validation", "b[0]")["video_features"].shape == (1, 512)

    make_mosei(tmp_path / "labels.csv", tmp_path / "again", video=True)
    for path in (tmp_path / "MOSEI").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
