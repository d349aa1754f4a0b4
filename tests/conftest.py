"""Fixtures that several test files share."""

from pathlib import Path

import pytest


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
