"""Fixtures shared by several test files."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from local_hub import LocalHub


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


@pytest.fixture
def local_hub(tmp_path) -> Iterator[LocalHub]:
    """A running Hub; processes with `local_hub.environment()` use it."""
    with LocalHub(tmp_path / "hub") as hub:
        yield hub
