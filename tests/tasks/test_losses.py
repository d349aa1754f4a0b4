"""The losses against the model's own, against torch's, and against their formulas written out."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from modeling_umons.models.umons.modeling_tbje import joint_sentiment_loss
from modeling_umons.tasks.losses import TaskLoss, balanced_weights
from modeling_umons.tasks.task import make_task


NAN = float("nan")


@pytest.fixture
def joint() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels of `joint`, some of them unknown."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.cat(
        [torch.rand(6, 1, generator=generator) * 6 - 3, (torch.rand(6, 6, generator=generator) > 0.6).float()], dim=1
    )
    labels[0, 0] = labels[2, 3:] = labels[4, 1:] = NAN
    return torch.randn(6, 7, generator=generator), labels


def test_without_options_it_is_the_models_own(joint):
    logits, labels = joint
    torch.testing.assert_close(TaskLoss(make_task("joint"))(logits, labels), joint_sentiment_loss(logits, labels))
    emotions = labels[[1, 3, 5], 1:]
    expected = F.binary_cross_entropy_with_logits(logits[[1, 3, 5], 1:], emotions)
    torch.testing.assert_close(TaskLoss(make_task("emotion"))(logits[[1, 3, 5], 1:], emotions), expected)
    classes = torch.tensor([0, 3, 6, 1, 1, 2])
    torch.testing.assert_close(TaskLoss(make_task("sentiment-7"))(logits, classes), F.cross_entropy(logits, classes))


def test_class_weights_and_smoothing_are_torchs(joint):
    logits, labels = joint
    weights, classes = np.linspace(0.5, 2, 7), torch.tensor([0, 3, 6, 1, 1, 2])
    tensor = torch.tensor(weights, dtype=torch.float32)
    loss = TaskLoss(make_task("sentiment-7"), weights)(logits, classes)
    torch.testing.assert_close(loss, F.cross_entropy(logits, classes, tensor))
    smooth = TaskLoss(make_task("sentiment-7"), label_smoothing=0.2)(logits, classes)
    torch.testing.assert_close(smooth, F.cross_entropy(logits, classes, label_smoothing=0.2))

    known = labels[[1, 3, 5], 1:]
    loss = TaskLoss(make_task("emotion"), weights[1:], label_smoothing=0.2)(logits[[1, 3, 5], 1:], known)
    expected = F.binary_cross_entropy_with_logits(logits[[1, 3, 5], 1:], 0.8 * known + 0.1, pos_weight=tensor[1:])
    torch.testing.assert_close(loss, expected)


def test_focal_loss_is_its_formula(joint):
    logits, labels = joint
    expected, count = 0.0, 0
    for row, truth in zip(logits[:, 1:].tolist(), labels[:, 1:].tolist(), strict=True):
        for logit, is_present in zip(row, truth, strict=True):
            if not math.isnan(is_present):
                p = 1 / (1 + math.exp(-logit))
                p = p if is_present else 1 - p
                expected, count = expected - (1 - p) ** 2 * math.log(p), count + 1
    loss = TaskLoss(make_task("emotion"), focal_gamma=2.0)(logits[:, 1:], labels[:, 1:])
    assert float(loss) == pytest.approx(expected / count, rel=1e-5)

    classes = torch.tensor([0, 3, 6, 1, 1, 2])
    p = logits.softmax(-1)[range(6), classes]
    expected = ((1 - p) ** 2 * -p.log()).mean()
    torch.testing.assert_close(TaskLoss(make_task("sentiment-7"), focal_gamma=2.0)(logits, classes), expected)


def test_unknown_labels_get_no_gradient(joint):
    logits, labels = joint
    logits.requires_grad_()
    TaskLoss(make_task("joint"), np.full(7, 2.0), 1.5, 0.1)(logits, labels).backward()
    assert torch.equal(logits.grad == 0, labels.isnan())
    nothing = TaskLoss(make_task("joint"))(logits, torch.full_like(labels, NAN))
    assert nothing.item() == 0


def test_balanced_weights():
    task = make_task("classification", "label", ["a", "b"])
    np.testing.assert_allclose(balanced_weights(task, np.array([0, 0, 0, 1])), [4 / 6, 2])
    emotions = np.array([[1, 0, NAN, 0, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0]])
    weights = balanced_weights(make_task("emotion"), emotions)
    np.testing.assert_allclose(weights, [2, 3, 0.5, 2, 3, 3])
    # Weighted so, presence and absence have the same share in the loss of a model that knows nothing.
    assert weights[0] * 1 == 2


def test_a_regression_has_no_classes():
    with pytest.raises(ValueError, match="'sentiment' has none"):
        TaskLoss(make_task("sentiment"), focal_gamma=1.0)
