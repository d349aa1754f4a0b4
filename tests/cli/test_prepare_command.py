"""`umons prepare`."""

import json
import sys

import pytest
from datasets import load_dataset

from modeling_umons.cli import prepare


@pytest.fixture
def main():
    """Call the command in this process; return its exit status."""

    def call(*arguments) -> int:
        try:
            return prepare.main([*map(str, arguments)])
        except SystemExit as end:
            return end.code

    return call


@pytest.fixture
def tables(tmp_path):
    """Three segments in the layout `labels`."""
    folder = tmp_path / "tables"
    folder.mkdir()
    lines = ["segment_id,video_id,segment,split,start,end,sentiment,happy,sad,anger,surprise,disgust,fear"]
    lines += [f"v{split}[0],v{split},0,{split},1,2.5,-1,0,1,0,0,0,2" for split in ("train", "valid", "test")]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_prepare_writes_all_segments(main, tables, tmp_path, capsys):
    output = tmp_path / "out"
    assert main("--layout", "labels", "--source", tables, "--output", output) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"CMU-MOSEI from {tables} in {output}\n")
    assert "| test       |        1 |    4,662 |     -4,661 |      1 |      676 |       -675 |  0.00 |" in shown
    assert json.loads((output / "report.json").read_text())["sha256"] in shown
    card = (output / "README.md").read_text()
    assert "10.18653/v1/P18-1208" in card  # hub/mosei/README.md is the template
    assert "## What is in this copy" in card
    (row,) = load_dataset(str(output), "emotion", split="validation", streaming=True)
    assert row["emotions"] == [1, 5]
    assert main("--layout", "labels", "--source", tables, "--output", output) == 0


def test_unreadable_segments_exit_3(main, tables, tmp_path, capsys):
    table = (tables / "labels.csv").read_text()
    (tables / "labels.csv").write_text(table.replace("valid,1,2.5,-1", "valid,1,2.5,much"))
    assert main("--layout", "labels", "--source", tables, "--output", tmp_path / "out") == 3
    shown = capsys.readouterr().out
    assert "1 segments could not be read: failures.csv." in shown
    assert "- validation, vvalid[0]: " in shown
    assert "much" in shown


def test_prepare_converts_mosi(main, tmp_path, capsys):
    (tmp_path / "mosi.csv").write_text("segment_id,split,sentiment,text\na_1,train,-1.5,bad\na_2,train,0,well\n")
    assert main("--layout", "mosi", "--source", tmp_path, "--output", tmp_path / "out") == 0
    assert "official" not in capsys.readouterr().out
    rows = list(load_dataset(str(tmp_path / "out"), "sentiment-7", split="train", streaming=True))
    assert [row["sentiment_7"] for row in rows] == [1, 3]
    assert "pretty_name: CMU-MOSI" in (tmp_path / "out" / "README.md").read_text()


def test_layout_options_apply(main, tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.wav").write_bytes(b"")
    (tmp_path / "clips" / "metadata.csv").write_text("file_name,split,text,sentiment\na.wav,train,fine,1\n")
    arguments = ["--layout", "folder", "--source", tmp_path / "clips", "--output", tmp_path / "out"]
    assert main(*arguments, "--modalities", "text") == 0
    assert json.loads((tmp_path / "out" / "report.json").read_text())["options"] == {"modalities": "['text']"}


def test_missing_source_exits_1(main, tables, tmp_path, capsys):
    assert main("--layout", "labels", "--source", tmp_path / "nowhere", "--output", tmp_path / "out") == 1
    assert "nowhere: there is no such folder" in capsys.readouterr().err
    (tables / "labels.csv").unlink()
    assert main("--layout", "labels", "--source", tables, "--output", tmp_path / "out") == 1
    assert "labels.csv" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layout", "smell"], "Unknown layout 'smell'"),
        (["--layout", "labels", "--audio", "a.csd"], "does not take the option(s) audio; it takes none"),
        (["--layout", "labels", "--num_proc", "0"], "--num_proc is 0"),
        (["--layout", "ravdess", "--max_length", "0"], "--max_length is 0; it must be at least 1"),
    ],
)
def test_wrong_usage_exits_2(main, tables, tmp_path, capsys, options, message):
    assert main("--source", tables, "--output", tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err


def test_missing_h5py_is_named(main, tmp_path, monkeypatch, capsys):
    (tmp_path / "labels.csd").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert main("--layout", "csd", "--source", tmp_path, "--output", tmp_path / "out") == 1
    assert "labels.csd: .csd files are HDF5, which `pip install h5py` reads" in capsys.readouterr().err


def test_foreign_output_raises(main, tables, capsys):
    assert main("--layout", "labels", "--source", tables, "--output", tables) == 2
    assert "holds other files than a prepared data set" in capsys.readouterr().err
    assert [path.name for path in tables.iterdir()] == ["labels.csv"]


def test_help_names_layouts(main, capsys):
    assert main("--help") == 0
    shown = capsys.readouterr().out
    for word in ("umons", "csd", "mmsa", "folder", "labels", "exit status", "--average_per_word"):
        assert word in shown
