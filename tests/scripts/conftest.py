"""Scripts that run as commands."""

import subprocess
from collections.abc import Callable

import pytest


@pytest.fixture
def run_script(root, commands) -> Callable[..., subprocess.CompletedProcess]:
    def run(name: str, *arguments) -> subprocess.CompletedProcess:
        command = ["python", f"scripts/{name}", *map(str, arguments)]
        return subprocess.run(command, cwd=root, env=commands.environment, capture_output=True, text=True, check=False)

    return run
