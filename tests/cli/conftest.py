"""A small joint model and clips for the tests of several commands."""

import pytest
from small_pipelines import make_pipeline


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """Folder of a small joint model."""
    folder = tmp_path_factory.mktemp("model")
    make_pipeline(joint_sentiment=True).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def clips(root) -> list[str]:
    return [str(root / "hub" / "sample" / "clips" / f"{i:03d}.mp4") for i in (0, 7)]
