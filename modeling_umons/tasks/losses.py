"""Losses of the tasks, with class weights, focal loss and label smoothing."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .labels import SENTIMENT_RANGE
from .task import Task


SENTIMENT_WIDTH = SENTIMENT_RANGE[1] - SENTIMENT_RANGE[0]


class TaskLoss(nn.Module):
    """
    Loss of a task. Without options it equals the model's own loss: cross-entropy over classes, binary cross-entropy
    over emotions, the squared error of a sentiment, and for `joint` the L1 loss of the sentiment added to the binary
    cross-entropy. Errors of other numbers are in units of a sixth of their range, the scale of a sentiment. NaN labels
    are unknown and are ignored.

    Args:
        task: the task.
        class_weights: (num_labels,) float. Weight of each class; for emotions, weight of the positive class. `joint`
            ignores the first one, that of the sentiment. See [`balanced_weights`].
        focal_gamma: scales the loss of each row by (1 - p)^gamma, with p the probability of the true class (Lin et
            al., 2017). 0 disables it.
        label_smoothing: probability mass moved from the true class to all classes (Szegedy et al., 2016). 0 disables
            it.
        emotion_weight: factor of the loss of the emotions of `joint`.

    Raises:
        ValueError: an option is out of range, or requires classes and the task is a regression.
    """

    def __init__(
        self,
        task: Task,
        class_weights: np.ndarray | None = None,
        focal_gamma: float = 0.0,
        label_smoothing: float = 0.0,
        emotion_weight: float = 1.0,
    ):
        super().__init__()
        if focal_gamma < 0:
            raise ValueError(f"`focal_gamma` must be 0 or more, but is {focal_gamma} (`--focal_gamma`).")
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                f"`label_smoothing` must be in [0, 1), but is {label_smoothing} (`--label_smoothing_factor`)."
            )
        if emotion_weight != 1 and task.name != "joint":
            raise ValueError(f"`emotion_weight` requires a joint task, not {task.name!r} (`--emotion_weight`).")
        if task.problem_type == "regression" and (class_weights is not None or focal_gamma or label_smoothing):
            raise ValueError(
                f"Class weights, focal loss and label smoothing require classes; the task {task.name!r} has none."
            )
        self.task, self.focal_gamma, self.label_smoothing = task, focal_gamma, label_smoothing
        self.emotion_weight = emotion_weight
        weights = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights)
        widths = torch.tensor([(high - low) / SENTIMENT_WIDTH for low, high in task.ranges])
        self.register_buffer("scales", widths if task.ranges else torch.ones(()))

    def forward(
        self, logits: torch.Tensor, labels: torch.Tensor, num_items: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Compute the mean loss over all known labels.

        Args:
            logits: (B, num_labels), or (C, U, num_labels) for C conversations of U utterances.
            labels: (B,) int64 classes or (B, num_labels) float, or the same with the leading dimensions (C, U). -100
                and NaN are unknown.
            num_items: [`TaskLoss.count_items`] of a larger batch that contains this one. The losses of its parts then
                add up to its mean.
        """
        if logits.ndim == 3:
            logits, labels = logits.flatten(0, 1), labels.flatten(0, 1)
        num_items = self.count_items(labels) if num_items is None else num_items
        sums = torch.stack(self._sums(logits.float(), labels))
        return (sums / torch.where(num_items > 0, num_items, 1)).sum()

    def count_items(self, labels: torch.Tensor) -> torch.Tensor:
        """
        Count the known labels of a batch.

        Returns:
            (2,) the numbers of sentiments and of emotion labels for `joint`, (1,) otherwise. Rows with weighted
            classes count with their weights.
        """
        if self.task.problem_type == "single_label_classification":
            # No selection of rows, which would wait for the GPU.
            is_known = labels != -100
            weights = is_known if self.class_weights is None else is_known * self.class_weights[labels.clamp(min=0)]
            return weights.sum()[None]
        is_known = ~labels.isnan()
        if self.task.name == "joint":
            return torch.stack([is_known[..., 0].sum(), is_known[..., 1:].sum()])
        return is_known.sum()[None]

    def _sums(self, logits: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
        """Compute the sums of the losses whose means [`TaskLoss.forward`] adds."""
        if self.task.problem_type == "single_label_classification":
            return [self._class_losses(logits, labels).sum()]
        is_known = ~labels.isnan()
        labels = labels.float().nan_to_num()
        if self.task.problem_type == "regression":
            errors = (logits - labels.reshape(logits.shape)) / self.scales
            return [(errors.square() * is_known.reshape(logits.shape)).sum()]
        if self.task.name != "joint":
            return [(self._emotion_losses(logits, labels, self.class_weights) * is_known).sum()]
        weights = None if self.class_weights is None else self.class_weights[1:]
        sentiment = (logits[:, 0] - labels[:, 0]).abs()
        emotions = self._emotion_losses(logits[:, 1:], labels[:, 1:], weights)
        return [(sentiment * is_known[:, 0]).sum(), self.emotion_weight * (emotions * is_known[:, 1:]).sum()]

    def _class_losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        losses = F.cross_entropy(
            logits, labels, self.class_weights, reduction="none", label_smoothing=self.label_smoothing
        )
        if self.focal_gamma:
            is_true = F.one_hot(labels.clamp(min=0), logits.shape[-1]).bool()
            log_wrong = logits.log_softmax(-1).masked_fill(is_true, -torch.inf).logsumexp(-1)
            losses = losses * self._focal_factor(log_wrong)
        return losses

    def _emotion_losses(
        self, logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None
    ) -> torch.Tensor:
        targets = labels * (1 - self.label_smoothing) + self.label_smoothing / 2
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none", pos_weight=weights)
        if self.focal_gamma:
            losses = losses * self._focal_factor(F.logsigmoid((1 - 2 * labels) * logits))
        return losses

    def _focal_factor(self, log_wrong: torch.Tensor) -> torch.Tensor:
        """
        Compute (1 - p)^gamma from log(1 - p).

        The power of 1 - p itself has an infinite derivative at 0 for gamma < 1.
        """
        return (self.focal_gamma * log_wrong).exp()


def flatten_conversations(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Flatten (C, U, ...) logits and labels to the (N, ...) labelled utterances. Padding has the label -100 or NaN."""
    is_known = ~labels.isnan() if labels.is_floating_point() else labels != -100
    is_utterance = is_known.any(dim=-1) if labels.ndim == 3 else is_known
    return logits[is_utterance], labels[is_utterance]


def balanced_weights(task: Task, labels: np.ndarray) -> np.ndarray:
    """
    Compute class weights that give all classes, or presence and absence of each emotion, the same total weight over
    the
    training labels: N / (num_classes * N_class), or N_absent / N_present. (num_labels,) float32.
    """
    if task.problem_type == "single_label_classification":
        counts = np.bincount(labels, minlength=len(task.labels))
        return (len(labels) / (len(task.labels) * np.maximum(counts, 1))).astype(np.float32)
    present, known = np.nansum(labels > 0, axis=0), (~np.isnan(labels)).sum(axis=0)
    return (np.maximum(known - present, 1) / np.maximum(present, 1)).astype(np.float32)
