"""Atomic files and folders."""

import os
import subprocess
import sys

import pytest

from modeling_umons.utils import files
from modeling_umons.utils.files import atomic_path, new_folder, write_atomically


def fail_after_half(path):
    path.write_text("half")
    raise RuntimeError


def test_atomic_path_keeps_the_old_file_after_an_error(tmp_path):
    path = tmp_path / "report.json"
    write_atomically(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        fail_after_half(temporary)
    assert temporary.name.startswith(".report.")
    assert temporary.name.endswith(".part.json")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("report.json", "old")]
    write_atomically(path, b"new")
    assert path.read_text() == "new"


def test_atomic_path_replaces_the_target_of_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_atomically(tmp_path / "link", "é")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == "é".encode()


def test_atomic_path_takes_names_of_maximum_length(tmp_path):
    path = tmp_path / ("é" * 125 + ".txt")
    write_atomically(path, "x")
    assert path.read_text() == "x"


def test_new_folder_appears_when_the_block_succeeds(tmp_path):
    (tmp_path / "out").mkdir()
    with new_folder(tmp_path / "out") as folder:
        (folder / "a.txt").write_text("x")
        assert not list((tmp_path / "out").iterdir())
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a.txt"]
    with pytest.raises(OSError, match="exists already"), new_folder(tmp_path / "out"):
        pass
    with pytest.raises(RuntimeError), new_folder(tmp_path / "new" / "out"):
        raise RuntimeError
    assert not list((tmp_path / "new").iterdir())


def test_atomic_path_removes_leftovers_of_killed_processes(tmp_path):
    path = tmp_path / "report.json"
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    with atomic_path(path) as mine:
        mine.write_text("mine")
        names = {
            process: tmp_path / mine.name.replace(f"-{os.getpid()}-", f"-{process}-")
            for process in (killed.pid, os.getppid())
        }
        names[os.getpid()] = tmp_path / mine.name.replace(".part", "0.part")
        (names[killed.pid]).mkdir()
        (names[killed.pid] / "weights").write_text("half")
        for process in (os.getppid(), os.getpid()):
            names[process].write_text("half")
        other = tmp_path / mine.name.replace(files.MACHINE, "000000").replace(str(os.getpid()), str(killed.pid))
        other.write_text("of another machine")
        write_atomically(path, "new")
    assert sorted(tmp_path.iterdir()) == sorted([path, names[os.getppid()], other])
    assert path.read_text() == "mine"


def test_atomic_path_flushes_before_it_replaces(tmp_path, monkeypatch):
    flushed = []

    def fsync(number):
        flushed.append((os.fstat(number).st_ino, (tmp_path / "out").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    with new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("x")
    assert flushed == [((tmp_path / "out" / "a").stat().st_ino, False)]
