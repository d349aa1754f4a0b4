"""What a training step minimises, where the model's own loss is to be bent: rare classes, hard rows, uncertain labels."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .task import Task


class TaskLoss(nn.Module):
    """
    The loss of a task. Without any option it is the model's own: cross-entropy over classes, binary cross-entropy over
    labels, and for `joint` the L1 loss of the sentiment besides. NaN labels are unknown and do not count.

    Args:
        task: what is predicted.
        class_weights: (num_labels,) float. Of classes, the weight of each; of emotions, the weight of their presence.
            Of `joint` the first one, the sentiment's, is not read. See [`balanced_weights`].
        focal_gamma: rows that are already right count less, by (1 - p)^gamma (Lin et al., 2017). 0 is off.
        label_smoothing: what is taken from the true class and given to all alike (Szegedy et al., 2016). 0 is off.

    Raises:
        ValueError: the task has no classes and an option is for them.
    """

    def __init__(
        self,
        task: Task,
        class_weights: np.ndarray | None = None,
        focal_gamma: float = 0.0,
        label_smoothing: float = 0.0,
    ):
        super().__init__()
        if focal_gamma < 0 or not 0 <= label_smoothing < 1:
            raise ValueError(
                f"focal_gamma is {focal_gamma} and label_smoothing {label_smoothing}: 0 or more, and from 0 to below 1."
            )
        if task.problem_type == "regression":
            raise ValueError(
                f"Class weights, focal loss, label smoothing and mixup are for classes; {task.name!r} has none."
            )
        self.task, self.focal_gamma, self.label_smoothing = task, focal_gamma, label_smoothing
        weights = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights)

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Logits (B, num_labels), or (C, U, num_labels) of conversations, and labels as the model takes them: a scalar."""
        if logits.ndim == 3:
            logits, labels = flatten_conversations(logits, labels)
        logits = logits.float()
        if self.task.problem_type == "single_label_classification":
            return self.of_classes(logits, labels)
        if self.task.name != "joint":
            return self.of_presence(logits, labels, self.class_weights)
        weights = None if self.class_weights is None else self.class_weights[1:]
        known = ~labels[:, 0].isnan()
        difference = torch.where(known, logits[:, 0] - labels[:, 0].nan_to_num(), 0.0)
        return difference.abs().sum() / known.sum().clamp(min=1) + self.of_presence(
            logits[:, 1:], labels[:, 1:], weights
        )

    def of_classes(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        losses = F.cross_entropy(
            logits, labels, self.class_weights, reduction="none", label_smoothing=self.label_smoothing
        )
        if self.focal_gamma:
            right = logits.softmax(-1).gather(-1, labels[:, None])[:, 0]
            losses = losses * (1 - right) ** self.focal_gamma
        return losses.sum() / (len(labels) if self.class_weights is None else self.class_weights[labels].sum())

    def of_presence(self, logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        known, labels = ~labels.isnan(), labels.nan_to_num()
        targets = labels * (1 - self.label_smoothing) + self.label_smoothing / 2
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none", pos_weight=weights)
        if self.focal_gamma:
            present = logits.sigmoid()
            losses = losses * (labels * (1 - present) + (1 - labels) * present) ** self.focal_gamma
        return (losses * known).sum() / known.sum().clamp(min=1)


def flatten_conversations(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(C, U, ...) logits and labels as (N, ...), of the N utterances: those that have a label. Padding has -100 or NaN."""
    is_known = ~labels.isnan() if labels.is_floating_point() else labels != -100
    is_utterance = is_known.any(dim=-1) if labels.ndim == 3 else is_known
    return logits[is_utterance], labels[is_utterance]


def balanced_weights(task: Task, labels: np.ndarray) -> np.ndarray:
    """
    Class weights that make every class, or presence and absence of each emotion, count alike over the training labels:
    N / (classes x N_class), or N_absent / N_present. (num_labels,) float32.
    """
    if task.problem_type == "single_label_classification":
        counts = np.bincount(labels, minlength=len(task.labels))
        return (len(labels) / (len(task.labels) * np.maximum(counts, 1))).astype(np.float32)
    present, known = np.nansum(labels > 0, axis=0), (~np.isnan(labels)).sum(axis=0)
    return (np.maximum(known - present, 1) / np.maximum(present, 1)).astype(np.float32)
