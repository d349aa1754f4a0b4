# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""A Hub of its own for each test."""

from collections.abc import Iterator

import pytest
from local_hub import LocalHub


@pytest.fixture
def local_hub(tmp_path) -> Iterator[LocalHub]:
    """A running Hub; processes with `local_hub.environment()` use it."""
    with LocalHub(tmp_path / "hub") as hub:
        yield hub
