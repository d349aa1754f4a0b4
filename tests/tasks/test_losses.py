"""Tests of the losses against the model's own, against torch's and against their formulas."""

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
    """Logits and labels of `joint`, with some unknown labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.cat(
        [torch.rand(6, 1, generator=generator) * 6 - 3, (torch.rand(6, 6, generator=generator) > 0.6).float()], dim=1
    )
    labels[0, 0] = labels[2, 3:] = labels[4, 1:] = NAN
    return torch.randn(6, 7, generator=generator), labels


def test_task_loss_without_options_equals_model_loss(joint):
    logits, labels = joint
    torch.testing.assert_close(TaskLoss(make_task("joint"))(logits, labels), joint_sentiment_loss(logits, labels))
    emotions = labels[[1, 3, 5], 1:]
    expected = F.binary_cross_entropy_with_logits(logits[[1, 3, 5], 1:], emotions)
    torch.testing.assert_close(TaskLoss(make_task("emotion"))(logits[[1, 3, 5], 1:], emotions), expected)
    classes = torch.tensor([0, 3, 6, 1, 1, 2])
    torch.testing.assert_close(TaskLoss(make_task("sentiment-7"))(logits, classes), F.cross_entropy(logits, classes))


@pytest.mark.parametrize("options", [{}, {"class_weights": np.linspace(0.5, 2, 7), "focal_gamma": 1.5}])
def test_losses_of_parts_add_up_to_that_of_the_batch(joint, options):
    logits, labels = joint
    for name, truth in (("joint", labels), ("sentiment-7", torch.tensor([0, 3, 6, 1, 1, 2]))):
        loss = TaskLoss(make_task(name), **options)
        whole, counts = loss(logits, truth), loss.count_items(truth)
        assert counts.equal(loss.count_items(truth[:2]) + loss.count_items(truth[2:]))
        parts = [loss(logits[part], truth[part], counts) for part in (slice(0, 1), slice(1, 3), slice(3, 6))]
        torch.testing.assert_close(sum(parts), whole, rtol=1e-6, atol=0)


def test_class_weights_and_label_smoothing_match_torch(joint):
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


def test_focal_loss_matches_formula(joint):
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


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_has_finite_gradient_for_certain_predictions(gamma):
    emotions = torch.tensor([[60.0, -60, 120, 0, 18, -200]], requires_grad=True)
    loss = TaskLoss(make_task("emotion"), focal_gamma=gamma)(emotions, torch.tensor([[1.0, 0, 1, 1, 1, 0]]))
    loss.backward()
    assert emotions.grad.isfinite().all()
    assert emotions.grad[0, 3] < 0
    logits = torch.tensor([[200.0, 0, 0, 0, 0, 0, 0]], requires_grad=True)
    TaskLoss(make_task("sentiment-7"), focal_gamma=gamma)(logits, torch.tensor([0])).backward()
    assert logits.grad.isfinite().all()


def test_unknown_labels_have_zero_gradient(joint):
    logits, labels = joint
    logits.requires_grad_()
    TaskLoss(make_task("joint"), np.full(7, 2.0), 1.5, 0.1)(logits, labels).backward()
    assert torch.equal(logits.grad == 0, labels.isnan())
    nothing = TaskLoss(make_task("joint"))(logits, torch.full_like(labels, NAN))
    assert nothing.item() == 0


def test_balanced_weights_match_counts():
    task = make_task("classification", "label", ["a", "b"])
    np.testing.assert_allclose(balanced_weights(task, np.array([0, 0, 0, 1])), [4 / 6, 2])
    emotions = np.array([[1, 0, NAN, 0, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0]])
    weights = balanced_weights(make_task("emotion"), emotions)
    np.testing.assert_allclose(weights, [2, 3, 0.5, 2, 3, 3])
    # Presence and absence then have the same share in the loss of an untrained model.
    assert weights[0] * 1 == 2


@pytest.mark.parametrize(("name", "value"), [("focal_gamma", -1.0), ("label_smoothing", 1.0)])
def test_task_loss_rejects_values_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        TaskLoss(make_task("emotion"), **{name: value})


def test_task_loss_rejects_regression():
    with pytest.raises(ValueError, match="'sentiment' has none"):
        TaskLoss(make_task("sentiment"), focal_gamma=1.0)
