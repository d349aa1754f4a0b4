"""Tests of complete and incomplete checkpoints and of the checks of output folders."""

import os
import shutil
import subprocess
import sys
from collections import namedtuple

import pytest
from torch import nn
from transformers.trainer_callback import TrainerState

from modeling_umons.training.checkpoints import (
    DISCARDED,
    MARK,
    REPORT,
    check_for_other_run,
    check_processes,
    check_room,
    check_writable,
    complete_checkpoint,
    discard_run,
    find_checkpoint,
    list_checkpoints,
    lock_folder,
    remove_later,
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
    remove_later(run, run / "checkpoint-90")
    assert [path.name for path in list_checkpoints(run)] == ["checkpoint-9", "checkpoint-90"]
    discard_run(run)
    assert [path.name for path in run.iterdir()] == ["checkpoint-best"]


class Kill(BaseException):
    """End of a process: no later operation has an effect."""


@pytest.fixture
def kill_at(monkeypatch):
    """Return a function that makes all file operations from a number on raise `Kill`, and `None` restores them."""
    names = ("unlink", "rmdir", "open", "replace", "utime", "mkdir")
    real, count, limit = {name: getattr(os, name) for name in names}, [0], [None]

    def wrap(name):
        def call(*args, **kwargs):
            count[0] += 1
            if limit[0] is not None and count[0] > limit[0]:
                raise Kill
            return real[name](*args, **kwargs)

        return call

    for name in names:
        monkeypatch.setattr(os, name, wrap(name))

    def start(number):
        count[0], limit[0] = 0, number

    return start


def kill_everywhere(kill_at, make, operation):
    """Run `operation` on a folder from `make`, killed at each file operation, and yield the folder each time."""
    for number in range(1000):
        kill_at(None)
        folder = make(number)
        kill_at(number)
        try:
            operation(folder)
            is_killed = False
        except Kill:
            is_killed = True
        kill_at(None)
        yield folder
        if not is_killed:
            assert number > 10
            return
    raise AssertionError("The operation did not end.")


FILES = ("optimizer.pt", MARK, "model.safetensors", "rng_state.pth", "trainer_state.json")


@pytest.fixture
def make_run(tmp_path):
    """Return a function that creates a folder of the steps 3 to 12; files of the last one are unmarked."""

    def make(number, is_finished=False):
        for step in (3, 6, 9, 12):
            folder = tmp_path / str(number) / f"checkpoint-{step}"
            folder.mkdir(parents=True)
            for name in FILES:
                if name != MARK or step < 12 or is_finished:
                    (folder / name).write_text(str(step))
        if is_finished:
            (tmp_path / str(number) / "report").mkdir()
            (tmp_path / str(number) / REPORT).write_text("{}")
        return tmp_path / str(number)

    return make


def test_kill_in_rotation_leaves_a_complete_checkpoint(kill_at, make_run):
    def rotate(folder):
        state = TrainerState(global_step=12, best_model_checkpoint=str(folder / "checkpoint-3"))
        complete_checkpoint(folder, state, limit=2)

    for folder in kill_everywhere(kill_at, make_run, rotate):
        found = find_checkpoint(folder)
        assert found.name in ("checkpoint-9", "checkpoint-12")
        assert {path.name for path in found.iterdir()} == set(FILES)
        # All checkpoints with a mark have all files; the best one remains.
        for path in list_checkpoints(folder):
            assert not (path / MARK).exists() or {file.name for file in path.iterdir()} == set(FILES)
        assert (folder / "checkpoint-3" / MARK).exists()
    assert [path.name for path in list_checkpoints(folder)] == ["checkpoint-3", "checkpoint-12"]


def test_kill_in_discarding_leaves_the_old_run_or_nothing_to_resume(kill_at, make_run):
    for folder in kill_everywhere(kill_at, lambda number: make_run(number, is_finished=True), discard_run):
        assert (folder / REPORT).exists() != (find_checkpoint(folder) is None)
        if (folder / REPORT).exists():
            assert len(list_checkpoints(folder)) == 4
        check_for_other_run(folder)  # a new run may start in both states
    assert list_checkpoints(folder) == []
    assert not (folder / DISCARDED).exists()


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


LOCK_AND_PRINT = """
import sys
from modeling_umons.training.checkpoints import lock_folder
with lock_folder(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_second_training_in_a_folder_is_refused(tmp_path):
    """A killed run leaves its file, which locks nothing."""
    command = [sys.executable, "-c", LOCK_AND_PRINT, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with (
            pytest.raises(OSError, match=rf"Another training writes to .*\(process {other.pid} on .*another --output"),
            lock_folder(tmp_path),
        ):
            pass
        other.kill()
    assert (tmp_path / ".lock").exists()
    with lock_folder(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")
    assert list(tmp_path.iterdir()) == []


def test_processes_that_train_alone_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_processes(2)
    with pytest.raises(ValueError, match=r"2 processes were launched.*ACCELERATE_USE_CPU=true"):
        check_processes(1)
