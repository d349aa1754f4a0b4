"""A small joint model and clips for the tests of several commands."""

import pytest
import torch

from modeling_umons import (
    UmonsConfig,
    UmonsFeatureExtractor,
    UmonsForSequenceClassification,
    UmonsProcessor,
    UmonsVideoProcessor,
    build_tokenizer,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """Folder of a small joint model."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = UmonsConfig(
        vocab_size=5, word_embedding_size=8, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        joint_sentiment=True,
    )  # fmt: skip
    UmonsForSequenceClassification(config).save_pretrained(folder)
    tokenizer = build_tokenizer(["so", "very", "glad"])
    UmonsProcessor(tokenizer, UmonsFeatureExtractor(), UmonsVideoProcessor()).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def clips(root) -> list[str]:
    return [str(root / "hub" / "sample" / "clips" / f"{i:03d}.mp4") for i in (0, 7)]
