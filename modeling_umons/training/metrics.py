"""Measures of predictions, each under the one name that says which of the field's variants it is.

Truth and predictions are numpy arrays over N segments: sentiments (N,) in [-3, 3]; emotions (N, 6) of 0 and 1, and their
logits (N, 6). A truth of NaN is unknown and does not count. Values are floats in [0, 1], but for `mae` and `corr`.
"""

import numpy as np
from sklearn.metrics import accuracy_score, f1_score

from .tasks import Task, sentiment_class_7


def sentiment_metrics(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """`mae`; `corr`, Pearson's; `acc7` in UMONS' bins; `acc2_has0`, `f1_has0`: >= 0 or not; `acc2_non0`, `f1_non0`: > 0 or
    not, of the segments that are not 0. F1 is weighted."""
    known = ~np.isnan(truth)
    truth, prediction = truth[known], prediction[known]
    if not len(truth):
        return {}
    bins = [[sentiment_class_7(value) for value in values] for values in (truth, prediction)]
    polar = truth != 0
    constant = np.ptp(truth) == 0 or np.ptp(prediction) == 0
    metrics = {
        "mae": np.abs(truth - prediction).mean(),
        "corr": 0.0 if constant else np.corrcoef(truth, prediction)[0, 1],
        "acc7": accuracy_score(*bins),
        "acc2_has0": accuracy_score(truth >= 0, prediction >= 0),
        "f1_has0": f1_score(truth >= 0, prediction >= 0, average="weighted"),
    }
    if polar.any():
        metrics["acc2_non0"] = accuracy_score(truth[polar] > 0, prediction[polar] > 0)
        metrics["f1_non0"] = f1_score(truth[polar] > 0, prediction[polar] > 0, average="weighted")
    return {name: float(value) for name, value in metrics.items()}


def emotion_metrics(truth: np.ndarray, logits: np.ndarray, labels: tuple[str, ...]) -> dict[str, float]:
    """`emotion_acc`: the mean over segments and emotions of getting presence right (logit > 0), as UMONS counts; and
    `<emotion>_acc`, `<emotion>_f1` (weighted), `<emotion>_f1_macro` of each."""
    metrics, known = {}, ~np.isnan(truth)
    if not known.any():
        return {}
    present = logits > 0
    metrics["emotion_acc"] = float((present == (truth > 0))[known].mean())
    for i, label in enumerate(labels):
        rows = known[:, i]
        if rows.any():
            pair = truth[rows, i] > 0, present[rows, i]
            metrics[f"{label}_acc"] = float(accuracy_score(*pair))
            metrics[f"{label}_f1"] = float(f1_score(*pair, average="weighted", zero_division=0))
            metrics[f"{label}_f1_macro"] = float(f1_score(*pair, average="macro", zero_division=0))
    return metrics


def classification_metrics(truth: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """`accuracy`; `balanced_accuracy`, the mean recall of the classes that occur; `f1_weighted`; `f1_macro`."""
    prediction = logits.argmax(axis=-1)
    return {
        "accuracy": float(accuracy_score(truth, prediction)),
        "balanced_accuracy": float(np.mean([np.mean(prediction[truth == c] == c) for c in np.unique(truth)])),
        "f1_weighted": float(f1_score(truth, prediction, average="weighted", zero_division=0)),
        "f1_macro": float(f1_score(truth, prediction, average="macro", zero_division=0)),
    }


def task_metrics(task: Task, truth: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """All measures of a task, from labels and logits as the model has them."""
    if task.name == "joint":
        return {
            **sentiment_metrics(truth[:, 0], logits[:, 0]),
            **emotion_metrics(truth[:, 1:], logits[:, 1:], task.labels[1:]),
        }
    if task.name == "emotion":
        return emotion_metrics(truth, logits, task.labels)
    if task.name == "sentiment":
        return sentiment_metrics(truth.reshape(-1), logits.reshape(-1))
    return classification_metrics(truth, logits)


def constant_metrics(task: Task, train_truth: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """
    What a predictor gets on `truth` that always says the same: for each measure the answer that does best in it on the
    training labels. (No single one would be a fair rival: the median sentiment, say, is best for `mae` and may be the
    neutral 0, which is wrong in all that `acc2_non0` counts or in most of it.)
    """
    best, metrics = {}, {}
    for answer in _constant_answers(task, train_truth):
        on_train = task_metrics(task, train_truth, np.tile(answer, (len(train_truth), 1)))
        for name, value in task_metrics(task, truth, np.tile(answer, (len(truth), 1))).items():
            merit = on_train.get(name, 0.0) * (-1 if name == "mae" else 1)
            if name not in best or merit > best[name]:
                best[name], metrics[name] = merit, value
    return metrics


def _constant_answers(task: Task, train_truth: np.ndarray) -> list[np.ndarray]:
    """Logits (num_labels,): for classes each class; else the median sentiment with the commoner state of each emotion, and
    for each class of sentiment a value in its middle, which as logits of emotions are all of them or none."""
    if task.problem_type == "single_label_classification":
        return list(np.eye(len(task.labels)))
    typical = []
    for label, column in zip(task.labels, train_truth.reshape(len(train_truth), -1).T, strict=True):
        known = column[~np.isnan(column)] if not np.isnan(column).all() else np.zeros(1)
        typical.append(np.median(known) if label == "sentiment" else 2 * (known.mean() > 0.5) - 1.0)
    middles = (-2.5, -1.5, -0.5, 0.0, 0.5, 1.5, 2.5)
    return [np.array(typical), *(np.full(len(task.labels), middle) for middle in middles)]
