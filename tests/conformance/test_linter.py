"""Linter of model code by the maintainers of transformers."""

import subprocess
import sys
from pathlib import Path

import pytest


def test_mlinter_has_no_findings(root):
    mlinter = Path(sys.executable).with_name("mlinter")
    if not mlinter.is_file():
        pytest.skip("mlinter (package transformers-mlinter) is not installed")
    command = [mlinter, "--no-progress", "--no-cache", "modeling_umons"]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
