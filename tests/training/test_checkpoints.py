"""Tests of complete and incomplete checkpoints and of the checks of output folders."""

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
    """Folder with checkpoints of steps 9, 90 and 100, the last one incomplete."""
    for step in (90, 9, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "model.safetensors").write_bytes(b"weights")
    for step in (9, 90):
        (tmp_path / f"checkpoint-{step}" / MARK).touch()
    (tmp_path / "checkpoint-best").mkdir()
    return tmp_path


def test_find_checkpoint_skips_incomplete(run):
    assert [path.name for path in list_checkpoints(run)] == ["checkpoint-9", "checkpoint-90", "checkpoint-100"]
    assert find_checkpoint(run) == run / "checkpoint-90"
    assert find_checkpoint(run / "checkpoint-9") is None
    remove_checkpoints(run, after=run / "checkpoint-90")
    assert [path.name for path in list_checkpoints(run)] == ["checkpoint-9", "checkpoint-90"]
    remove_checkpoints(run)
    assert [path.name for path in run.iterdir()] == ["checkpoint-best"]


def test_check_room_requires_disk_space(tmp_path, monkeypatch):
    model = nn.Linear(1000, 1000)  # 4 MB
    check_writable(tmp_path / "new")
    check_room(tmp_path / "new", model, 2)
    assert list((tmp_path / "new").iterdir()) == []
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 30 * 10**6))
    with pytest.raises(OSError, match=r"30 MB of free space, but 2 \+ 1 checkpoints require 36 MB"):
        check_room(tmp_path / "new", model, 2)


def test_check_writable_raises(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file is not writable .*choose another --output_dir"):
        check_writable(tmp_path / "file")
    if os.geteuid():  # root may write anywhere
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(OSError, match="is not writable"):
            check_writable(tmp_path / "closed")


def test_unfinished_run_is_not_overwritten(run):
    with pytest.raises(
        ValueError, match=r"unfinished run: resume it with --resume_from_checkpoint last, or choose another"
    ):
        check_for_other_run(run)
    (run / REPORT).parent.mkdir()
    (run / REPORT).touch()
    check_for_other_run(run)
    check_for_other_run(run / "new")
