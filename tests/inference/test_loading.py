# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Loading of pipelines."""

import pytest
import torch
from small_pipelines import WORDS, close, make_processor

from modeling_umons import UmonsConfig, UmonsForSequenceClassification
from modeling_umons.inference.loading import load_pipeline
from modeling_umons.inference.packed_linear import PackedLinear


def is_packed(recognize) -> bool:
    return any(isinstance(module, PackedLinear) for module in recognize.model.modules())


def test_packed_pipelines_predict_the_same(tmp_path):
    torch.manual_seed(0)
    config = UmonsConfig(
        vocab_size=2 + len(WORDS), word_embedding_size=12, hidden_size=256, intermediate_size=64, num_hidden_layers=1
    )
    UmonsForSequenceClassification(config).save_pretrained(tmp_path)
    make_processor().save_pretrained(tmp_path)
    plain, packed = load_pipeline(str(tmp_path)), load_pipeline(str(tmp_path), pack=True)
    assert (is_packed(plain), is_packed(packed)) == (False, True)
    close(packed({"text": "so glad"}), plain({"text": "so glad"}))


def test_small_models_are_not_packed(root):
    assert not is_packed(load_pipeline(str(root / "hub" / "umons-mini"), pack=True))


def test_missing_models_raise(tmp_path):
    with pytest.raises(ValueError, match=f"--model {tmp_path}/nowhere, which is not a local folder"):
        load_pipeline(str(tmp_path / "nowhere"))
