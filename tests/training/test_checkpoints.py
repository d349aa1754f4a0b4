"""Whole checkpoints, parts of them, and folders that cannot hold any."""

import os
import shutil
from collections import namedtuple

import pytest
from torch import nn

from modeling_umons.training.checkpoints import (
    MARK,
    REPORT,
    check_for_other_run,
    check_room,
    check_writable,
    find_checkpoint,
    list_checkpoints,
    remove_checkpoints,
)


@pytest.fixture
def run(tmp_path):
    """Checkpoints of the steps 9, 90 and 100, of which the last is a part."""
    for step in (90, 9, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "model.safetensors").write_bytes(b"weights")
    for step in (9, 90):
        (tmp_path / f"checkpoint-{step}" / MARK).touch()
    (tmp_path / "checkpoint-best").mkdir()
    return tmp_path


def test_only_whole_ones_are_found(run):
    assert [path.name for path in list_checkpoints(run)] == ["checkpoint-9", "checkpoint-90", "checkpoint-100"]
    assert find_checkpoint(run) == run / "checkpoint-90"
    assert find_checkpoint(run / "checkpoint-9") is None
    remove_checkpoints(run, after=run / "checkpoint-90")
    assert [path.name for path in list_checkpoints(run)] == ["checkpoint-9", "checkpoint-90"]
    remove_checkpoints(run)
    assert [path.name for path in run.iterdir()] == ["checkpoint-best"]


def test_room(tmp_path, monkeypatch):
    model = nn.Linear(1000, 1000)  # 4 MB
    check_writable(tmp_path / "new")
    check_room(tmp_path / "new", model, 2)
    assert list((tmp_path / "new").iterdir()) == []
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 30 * 10**6))
    with pytest.raises(OSError, match=r"30 MB left, but 2 checkpoints and one in the making take 36 MB: make room"):
        check_room(tmp_path / "new", model, 2)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file.* cannot be written .*choose another --output_dir"):
        check_writable(tmp_path / "file")
    if os.geteuid():  # the superuser may write anywhere
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(OSError, match="cannot be written"):
            check_writable(tmp_path / "closed")


def test_a_run_that_did_not_end_is_not_written_over(run):
    with pytest.raises(ValueError, match=r"did not end: go on with --resume_from_checkpoint last, or choose another"):
        check_for_other_run(run)
    (run / REPORT).parent.mkdir()
    (run / REPORT).touch()
    check_for_other_run(run)
    check_for_other_run(run / "new")
