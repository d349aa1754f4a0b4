"""Small folders in the exact layouts of the published files; each test has its own and may break it."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import small_datasets


@pytest.fixture
def write_sequence() -> Callable[[Path, str, small_datasets.Records], Path]:
    """Return the function that writes a `.csd` file."""
    return small_datasets.write_sequence


@pytest.fixture
def csd_folder(tmp_path) -> Path:
    return small_datasets.write_csd_folder(tmp_path / "csd")


@pytest.fixture
def mmsa_folder(tmp_path) -> Path:
    return small_datasets.write_mmsa_folder(tmp_path / "mmsa")


@pytest.fixture
def umons_folder(tmp_path) -> Path:
    return small_datasets.write_umons_folder(tmp_path / "umons")


@pytest.fixture
def rewrite_pickle() -> Callable[[Path, Callable[[dict], object]], None]:
    """Changes what a pickle holds: (path, function that changes the content in place, or gives another)."""

    def rewrite(path: Path, change: Callable[[dict], object], protocol: int = 4) -> None:
        content = pickle.loads(path.read_bytes())  # written by the fixtures above
        changed = change(content)
        path.write_bytes(pickle.dumps(content if changed is None else changed, protocol=protocol))

    return rewrite
