"""Measures of predictions, each under the one name that says which of the field's variants it is.

Truth and predictions are numpy arrays over N segments: sentiments (N,) in [-3, 3]; emotions (N, 6), present where above 0,
be they intensities or 0 and 1, and their logits (N, 6); classes (N,), and their logits (N, C). A truth of NaN is unknown and
does not count. Values are floats in [0, 1], but for `mae` and `corr`. A measure that is not defined (an area under a curve
of an emotion that is in all segments or in none) is left out.

All of them are sums over segments, so they are computed from counts under weights (S, N), S ways to count each segment:
the figure itself has weights of one, and each sample of a bootstrap how often it drew the segment (bootstrap.py).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ..tasks.task import Task


# What is reported of each emotion as `<emotion>_<name>`, and of all as the mean over the emotions, `emotion_<name>`.
EMOTION_MEANS = ("f1", "f1_macro", "wa", "auroc", "ap")

# An answer in each class of sentiment, both in UMONS' bins and rounded.
CLASS_ANSWERS = (-2.6, -1.6, -0.6, 0.0, 0.6, 1.6, 2.6)


def sentiment_metrics(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """
    Of sentiments (N,): `mae`; `corr`, Pearson's, 0 where either does not vary; `acc7` in UMONS' bins; `acc7_rounded`,
    clipped to [-3, 3] and rounded half to even as MMSA and MulT do; `acc2_has0`, `f1_has0`: >= 0 or not; `acc2_non0`,
    `f1_non0`: > 0 or not, of the segments whose truth is not 0. F1 is weighted by the truth. Raises ValueError for
    arrays that do not match and for predictions that are not finite.
    """
    return _value(_sentiment(np.ones((1, len(truth))), truth, prediction))


def emotion_metrics(
    truth: np.ndarray,
    logits: np.ndarray,
    labels: Sequence[str],
    thresholds: np.ndarray | Sequence[float] | None = None,
) -> dict[str, float]:
    """
    Of emotions (N, E). An emotion is predicted where its logit is above its threshold (E,), 0 if None.

    `emotion_acc`: the mean over segments and emotions of getting presence right (UMONS). Of each emotion:
    `<emotion>_acc`; `_f1`, weighted; `_f1_macro`; `_wa`, the weighted accuracy (TP x N / P + TN) / (2N) of P segments
    that have the emotion and N that have not, which is balanced accuracy; `_auroc`; `_ap`, average precision. The last
    three are not defined where P or N is 0. `emotion_f1`, `emotion_f1_macro`, `emotion_wa`, `emotion_auroc` and
    `emotion_ap` are means over the emotions that are known, left out where one of them is not defined.

    Raises ValueError for arrays that do not match and for logits that are not finite.
    """
    return _value(_emotions(np.ones((1, len(truth))), truth, logits, labels, thresholds))


def classification_metrics(truth: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """
    Of classes (N,) and logits (N, C), of which the largest is the answer: `accuracy`; `balanced_accuracy`, the mean recall
    of the classes that occur; `f1_weighted`, by the truth; `f1_macro`, the mean of the classes that occur or are
    answered. Raises ValueError for arrays that do not match, a class that has no logit, and logits that are not finite.
    """
    return _value(_classes(np.ones((1, len(truth))), truth, logits))


def task_metrics(
    task: Task, truth: np.ndarray, logits: np.ndarray, thresholds: np.ndarray | Sequence[float] | None = None
) -> dict[str, float]:
    """
    All measures of a task, from labels and logits as the model has them. The classes of `sentiment-7` are the bins of
    `acc7`, and those of `sentiment-2` the sides of `acc2_has0` and `f1_has0`: these tasks have their accuracy and
    weighted F1 under those names too. `thresholds` are of the emotions, for `emotion` and `joint`.
    """
    return _value(weighted_metrics(task, np.ones((1, len(truth))), truth, logits, thresholds))


def weighted_metrics(
    task: Task,
    weights: np.ndarray,
    truth: np.ndarray,
    logits: np.ndarray,
    thresholds: np.ndarray | Sequence[float] | None = None,
) -> dict[str, np.ndarray]:
    """`task_metrics` with each segment counted as often as `weights` (S, N) say: arrays (S,), NaN where not defined."""
    if thresholds is not None and task.name not in ("emotion", "joint"):
        raise ValueError(f"The task {task.name!r} has no emotions, for which thresholds would be.")
    truth, logits = np.asarray(truth), np.asarray(logits)
    if task.name in ("emotion", "joint") and truth.shape[1:] != (len(task.labels),):
        raise ValueError(f"The truth has the shape {truth.shape}, expected (segments, {len(task.labels)}).")
    if task.name == "joint":
        return {
            **_sentiment(weights, truth[:, 0], logits[:, 0]),
            **_emotions(weights, truth[:, 1:], logits[:, 1:], task.labels[1:], thresholds),
        }
    if task.name == "emotion":
        return _emotions(weights, truth, logits, task.labels, thresholds)
    if task.name == "sentiment":
        return _sentiment(weights, truth.reshape(-1), logits.reshape(-1))
    metrics = _classes(weights, truth, logits)
    same = {
        "sentiment-7": {"acc7": "accuracy"},
        "sentiment-2": {"acc2_has0": "accuracy", "f1_has0": "f1_weighted"},
    }.get(task.name, {})
    return metrics | {name: metrics[other] for name, other in same.items() if metrics}


def sentiment_bins(sentiment: np.ndarray) -> np.ndarray:
    """Classes 0 to 6 of sentiments, as `sentiment_class_7` of a single one: away from 0, and only 0 is of class 3."""
    sentiment = np.asarray(sentiment, dtype=float)
    return np.clip(np.where(sentiment < 0, np.floor(sentiment), np.ceil(sentiment)), -3, 3).astype(int) + 3


def rounded_sentiment_bins(sentiment: np.ndarray) -> np.ndarray:
    """Classes 0 to 6 of sentiments clipped to [-3, 3] and rounded, half to even."""
    return np.round(np.clip(np.asarray(sentiment, dtype=float), -3, 3)).astype(int) + 3


def tune_thresholds(truth: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """
    Thresholds (E,) of emotions' logits that give the largest macro F1 of each emotion: to be found on a validation split
    and used on the test split. Macro F1, because it counts a rare emotion as much as its absence, as accuracy does not,
    and yet punishes false alarms, as balanced accuracy hardly does. Candidates lie midway between neighbouring logits;
    of equals the nearest to 0 is taken. An emotion stays at 0 where nothing is better, where it is in all known segments
    or in none, and where its logits are all the same.
    """
    truth, logits = _pair(truth, logits)
    if truth.ndim != 2:
        raise ValueError(f"Emotions have the shape {truth.shape}, expected (segments, emotions).")
    return np.array([_threshold(*column) for column in zip(truth.T, logits.T, strict=True)])


def constant_metrics(task: Task, train_truth: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """
    What a predictor gets on `truth` that always says the same: for each measure the answer that does best in it on the
    training labels. (No single one would be a fair rival: the median sentiment, say, is best for `mae` and may be the
    neutral 0, which is wrong in all that `acc2_non0` counts or in most of it.) An answer that ranks nothing has an area
    of 0.5 under the ROC curve, and an average precision as large as the share of segments with the emotion.
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
    a value in each class of sentiment, which as logits of emotions are all of them or none."""
    if task.problem_type == "single_label_classification":
        return list(np.eye(len(task.labels)))
    typical = []
    for label, column in zip(task.labels, train_truth.reshape(len(train_truth), -1).T, strict=True):
        known = column[~np.isnan(column)] if not np.isnan(column).all() else np.zeros(1)
        typical.append(np.median(known) if label == "sentiment" else 2 * ((known > 0).mean() > 0.5) - 1.0)
    return [np.array(typical), *(np.full(len(task.labels), answer) for answer in CLASS_ANSWERS)]


def _threshold(truth: np.ndarray, logits: np.ndarray) -> float:
    known = ~np.isnan(truth)
    present, logits = truth[known] > 0, logits[known]
    if present.all() or not present.any():  # none is known, too
        return 0.0
    # The segments from each distinct logit upwards: `above` of them, `hits` of which have the emotion.
    values, first = np.unique(np.sort(logits), return_index=True)
    hits = np.cumsum(present[np.argsort(logits, kind="stable")][::-1])[::-1][first]
    above, positives, total = len(logits) - first, present.sum(), len(logits)
    # F1 of presence and of absence, 2 TP / (true + predicted). A class that is neither has no F1: 0 is for both the same.
    absent_hits = (total - above) - (positives - hits)
    macro = hits / (positives + above) + absent_hits / (2 * total - positives - above)
    # Index i calls `values[i:]` present: 0 is all of them, len(values) none.
    macro = np.append(macro, (total - positives) / (2 * total - positives))
    middles = values[:-1] + np.diff(values) / 2
    middles = np.where(middles < values[1:], middles, values[:-1])  # neighbouring floats have no middle
    candidates = np.r_[0.0, middles]
    scores = macro[np.r_[np.searchsorted(values, 0.0, side="right"), 1 : len(values)]]
    best = np.flatnonzero(scores >= scores.max() - 1e-12)
    return float(candidates[best[np.argmin(np.abs(candidates[best]))]])


# --- under weights (S, N)


def _sentiment(weights: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> dict[str, np.ndarray]:
    truth, prediction = _pair(truth, prediction)
    known = ~np.isnan(truth)
    if not known.any():
        return {}
    weights, truth, prediction = weights[:, known], truth[known], prediction[known]
    has0 = _class_counts(weights, truth >= 0, prediction >= 0, 2)
    polar = truth != 0
    non0 = _class_counts(weights[:, polar], truth[polar] > 0, prediction[polar] > 0, 2)
    return {
        "mae": _ratio(weights @ np.abs(truth - prediction), weights.sum(axis=1)),
        "corr": _correlation(weights, truth, prediction),
        "acc7": _accuracy(*_class_counts(weights, sentiment_bins(truth), sentiment_bins(prediction), 7)),
        "acc7_rounded": _accuracy(
            *_class_counts(weights, rounded_sentiment_bins(truth), rounded_sentiment_bins(prediction), 7)
        ),
        "acc2_has0": _accuracy(*has0),
        "f1_has0": _f1_weighted(*has0),
        "acc2_non0": _accuracy(*non0),
        "f1_non0": _f1_weighted(*non0),
    }


def _emotions(weights, truth, logits, labels, thresholds) -> dict[str, np.ndarray]:
    truth, logits = _pair(truth, logits)
    if truth.ndim != 2 or truth.shape[1] != len(labels):
        raise ValueError(f"Emotions have the shape {truth.shape}, expected (segments, {len(labels)}).")
    thresholds = np.zeros(len(labels)) if thresholds is None else np.asarray(thresholds, dtype=float)
    if thresholds.shape != (len(labels),) or not np.isfinite(thresholds).all():
        raise ValueError(f"thresholds are {thresholds.tolist()}, expected a number for each of {', '.join(labels)}.")

    each, right, counted = {}, 0.0, 0.0
    for i, label in enumerate(labels):
        known = ~np.isnan(truth[:, i])
        if known.any():
            each[label], hits, total = _emotion(
                weights[:, known], truth[known, i] > 0, logits[known, i], thresholds[i]
            )
            right, counted = right + hits, counted + total
    if not each:
        return {}
    return {
        "emotion_acc": _ratio(right, counted),
        **{f"emotion_{name}": np.mean([one[name] for one in each.values()], axis=0) for name in EMOTION_MEANS},
        **{f"{label}_{name}": value for label, one in each.items() for name, value in one.items()},
    }


def _emotion(weights, truth, logits, threshold) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """The measures of one emotion, how many segments are right, and how many there are."""
    counts = _class_counts(weights, truth, logits > threshold, 2)
    hits, true, _ = counts
    auroc, ap = _areas(weights, truth, logits)
    metrics = {
        "acc": _accuracy(*counts),
        "f1": _f1_weighted(*counts),
        "f1_macro": _f1_macro(*counts),
        "wa": _ratio(hits, true).mean(axis=1),  # recall of presence and of absence; NaN with either of them unseen
        "auroc": auroc,
        "ap": ap,
    }
    return metrics, hits.sum(axis=1), true.sum(axis=1)


def _classes(weights: np.ndarray, truth: np.ndarray, logits: np.ndarray) -> dict[str, np.ndarray]:
    truth, logits = np.asarray(truth, dtype=float), np.asarray(logits, dtype=float)
    if truth.ndim != 1 or logits.ndim != 2 or len(truth) != len(logits):
        raise ValueError(
            f"Classes {truth.shape} and logits {logits.shape}: expected (segments,), (segments, classes)."
        )
    _check_finite(logits)
    known = ~np.isnan(truth)
    if not known.any():
        return {}
    weights, truth, logits = weights[:, known], truth[known], logits[known]
    if wrong := sorted(set(truth.tolist()) - set(range(logits.shape[1]))):
        raise ValueError(
            f"The truth holds {wrong[:5]}, which are no classes: {logits.shape[1]} have a logit, from 0 on."
        )
    counts = _class_counts(weights, truth.astype(int), logits.argmax(axis=-1), logits.shape[1])
    hits, true, _ = counts
    return {
        "accuracy": _accuracy(*counts),
        "balanced_accuracy": _ratio(
            np.divide(hits, true, out=np.zeros_like(hits), where=true > 0).sum(axis=1), (true > 0).sum(axis=1)
        ),
        "f1_weighted": _f1_weighted(*counts),
        "f1_macro": _f1_macro(*counts),
    }


def _class_counts(weights, truth, prediction, num_classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(S, num_classes) each: how often a class is true and predicted, true, predicted."""
    classes = np.arange(num_classes)
    true, predicted = truth[:, None] == classes, prediction[:, None] == classes
    return tuple(np.split(weights @ np.hstack([true & predicted, true, predicted]).astype(float), 3, axis=1))


def _accuracy(hits, true, predicted) -> np.ndarray:
    return _ratio(hits.sum(axis=1), true.sum(axis=1))


def _f1_weighted(hits, true, predicted) -> np.ndarray:
    return _ratio((true * _f1(hits, true, predicted)).sum(axis=1), true.sum(axis=1))


def _f1_macro(hits, true, predicted) -> np.ndarray:
    """Over the classes that are true or predicted anywhere."""
    return _ratio(_f1(hits, true, predicted).sum(axis=1), ((true + predicted) > 0).sum(axis=1))


def _f1(hits, true, predicted) -> np.ndarray:
    """Of each class; 0 of one that is neither true nor predicted."""
    return np.divide(2 * hits, true + predicted, out=np.zeros_like(hits), where=(true + predicted) > 0)


def _correlation(weights, truth, prediction) -> np.ndarray:
    # About the means of all segments, so that the sums of squares keep their digits.
    t, p = truth - truth.mean(), prediction - prediction.mean()
    total = weights.sum(axis=1)
    t1, p1, tt, pp, tp = (weights @ np.stack([t, p, t * t, p * p, t * p], axis=1)).T
    with np.errstate(invalid="ignore", divide="ignore"):
        t_spread, p_spread = tt - t1 * t1 / total, pp - p1 * p1 / total
        correlation = (tp - t1 * p1 / total) / np.sqrt(t_spread * p_spread)
    # What is left of equal values after the subtraction is their rounding.
    constant = (t_spread <= 1e-12 * tt) | (p_spread <= 1e-12 * pp)
    return np.where(total > 0, np.where(constant, 0.0, np.clip(correlation, -1, 1)), np.nan)


def _areas(weights, truth, scores) -> tuple[np.ndarray, np.ndarray]:
    """The area under the ROC curve and average precision, (S,); equal scores are one step of the curve. NaN where all
    that counts has the emotion, or nothing has."""
    order = np.argsort(-scores, kind="stable")
    weights, truth, scores = weights[:, order], truth[order], scores[order]
    hits, misses = weights * truth, weights * ~truth
    steps = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
    if len(steps) < len(scores):
        hits, misses = np.add.reduceat(hits, steps, axis=1), np.add.reduceat(misses, steps, axis=1)
    hits_above, misses_above = hits.cumsum(axis=1), misses.cumsum(axis=1)
    positives, negatives = hits_above[:, -1], misses_above[:, -1]
    # Pairs in the right order, and half of those that are equal.
    auroc = _ratio(np.einsum("sn,sn->s", misses, hits_above - hits / 2), positives * negatives)
    above = hits_above + misses_above
    precision = np.divide(hits_above, above, out=np.zeros_like(above), where=above > 0)
    ap = _ratio(np.einsum("sn,sn->s", hits, precision), positives)
    return auroc, np.where(negatives > 0, ap, np.nan)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """NaN where the whole is nothing."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) > 0)


def _pair(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In float64, of one shape, the prediction finite."""
    truth, prediction = np.asarray(truth, dtype=float), np.asarray(prediction, dtype=float)
    if truth.shape != prediction.shape:
        raise ValueError(
            f"The truth has the shape {truth.shape}, the prediction {prediction.shape}: expected the same."
        )
    _check_finite(prediction)
    return truth, prediction


def _check_finite(prediction: np.ndarray):
    if not np.isfinite(prediction).all():
        rows = np.flatnonzero(~np.isfinite(prediction.reshape(len(prediction), -1)).all(axis=1))
        raise ValueError(
            f"The prediction of {len(rows)} of {len(prediction)} segments, first of number {rows[0]}, is not finite: "
            "no measure can be taken. A model that answers so has diverged; try a lower learning rate."
        )


def _value(metrics: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The figures of a single set of weights, without what is not defined."""
    return {name: float(value[0]) for name, value in metrics.items() if not np.isnan(value[0])}
