"""Fixtures shared by several test files."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_hub import LocalHub
from warm_commands import WarmCommands


ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the checkout, which is not part of the project."""
    if not SHARED.is_dir():
        pytest.skip("the real data sets are not beside this checkout (../shared)")
    return SHARED


@pytest.fixture(scope="session")
def commands(tmp_path_factory) -> Iterator[WarmCommands]:
    """`umons`, `python` and `accelerate` that start in a fork, without a network."""
    cache = str(tmp_path_factory.mktemp("huggingface"))
    environment = {**os.environ, "HF_HOME": cache, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with WarmCommands(environment) as commands:
        yield commands


@pytest.fixture
def local_hub(tmp_path) -> Iterator[LocalHub]:
    """A running Hub; processes with `local_hub.environment()` use it."""
    with LocalHub(tmp_path / "hub") as hub:
        yield hub
