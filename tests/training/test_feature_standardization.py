"""Tests of feature statistics and of the initialisation with them."""

import numpy as np
import pytest
import torch
from datasets import Dataset, Features
from transformers import AutoConfig, AutoModelForSequenceClassification

from modeling_umons import build_tokenizer
from modeling_umons.data.collator import UtteranceCollator
from modeling_umons.data.schema import make_features
from modeling_umons.training.feature_standardization import feature_statistics, standardize_front_ends


@pytest.mark.parametrize("model_type", ["umons", "mfn", "graph_mfn", "multilogue_net"])
def test_initial_model_equals_standardised_features(model_type):
    random = np.random.default_rng(0)
    frames = [random.normal(5, 3, (n, 4)).astype(np.float32) for n in (3, 7, 2)]
    for frame in frames:
        frame[:, 2] = 1.5  # never changes
    columns = {"text": ["a", None, "b", "c"], "audio_features": [frames[0], None, *frames[1:]]}
    features = make_features(audio_size=4)
    rows = Dataset.from_dict(columns, features=Features({name: features[name] for name in columns}))

    together = np.concatenate(frames).astype(np.float64)
    mean, std = feature_statistics(rows, "audio_features", collator=None)
    np.testing.assert_allclose(mean, together.mean(0))
    np.testing.assert_allclose(std, [*together.std(0)[:2], 1, together.std(0)[3]])

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1} if model_type == "umons" else {}
    config = AutoConfig.for_model(model_type, vocab_size=5, word_embedding_size=4, audio_feature_size=4, **sizes)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    collator = UtteranceCollator(["text", "audio"], build_tokenizer(["a", "b", "c"]), audio_size=4)
    inputs = torch.from_numpy(frames[1])[None]
    standardised = ((inputs - torch.from_numpy(mean)) / torch.from_numpy(std)).float()
    if model_type == "multilogue_net":  # a conversation of one utterance
        inputs, standardised = inputs[None], standardised[None]
    with torch.no_grad():
        before = model(input_features=standardised).logits
        standardize_front_ends(model, rows, collator)
        after = model(input_features=inputs).logits
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)


def test_statistics_of_one_frame_are_its_values():
    features = Features(audio_features=make_features(audio_size=2)["audio_features"])
    rows = Dataset.from_dict({"audio_features": [[[5.0, -1.0]]]}, features=features)
    mean, std = feature_statistics(rows, "audio_features", collator=None)
    np.testing.assert_array_equal(mean, [5, -1])
    np.testing.assert_array_equal(std, [1, 1])  # as of features that never change
