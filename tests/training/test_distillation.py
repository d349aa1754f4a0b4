import numpy as np
import pytest

from modeling_umons.training.distillation import distill, soften_labels


def test_soften_labels_mixes_known_and_fills_unknown_labels():
    labels = np.array([[np.nan, 1.0, np.nan], [3.0, 0.0, 0.5]])
    logits = np.array([[-5.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    mixed = soften_labels(labels, logits, 0.5)
    np.testing.assert_allclose(mixed, [[-3.0, 0.75, 0.5], [2.0, 0.25, 0.5]])
    np.testing.assert_allclose(soften_labels(labels, logits, 0.0)[1], labels[1])


def test_weight_outside_of_range_raises():
    with pytest.raises(ValueError, match="weight of the teacher is 2"):
        soften_labels(np.zeros((1, 2)), np.zeros((1, 2)), 2)


def test_existing_output_raises(tmp_path):
    with pytest.raises(FileExistsError, match="--output"):
        distill("data", "model", tmp_path)
