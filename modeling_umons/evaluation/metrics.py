"""Metrics of sentiment, emotion and classification tasks.

Labels and predictions are numpy arrays over N segments: sentiments (N,) in [-3, 3]; emotions (N, 6), present if above
0 (intensities or 0 and 1), with logits (N, 6); classes (N,), with logits (N, C). NaN labels are unknown and are
ignored. Scores are floats in [0, 1], except `mae` and `corr`. Undefined scores are left out, such as the area under a
curve for an emotion in all segments or in none. legend.py has the definition of each.

Metrics are computed from sums over segments under weights (S, N), S ways to count each segment: ones for the score
itself, and for each bootstrap sample how often it contains the segment (bootstrap.py).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ..tasks.task import Task


# Metrics of each emotion, `<emotion>_<name>`, that are averaged over emotions, `emotion_<name>`.
EMOTION_MEANS = ("f1", "f1_macro", "wa", "auroc", "ap")

# Metrics in plots and summaries, by task; classification tasks have the last ones.
HEADLINE_METRICS = {
    "joint": ("mae", "corr", "acc7", "acc2_non0", "emotion_acc", "emotion_f1_macro", "emotion_wa", "emotion_ap"),
    "emotion": ("emotion_acc", "emotion_f1", "emotion_f1_macro", "emotion_wa", "emotion_auroc", "emotion_ap"),
    "sentiment": ("mae", "corr", "acc7", "acc7_rounded", "acc2_has0", "acc2_non0"),
    "multi_label": ("f1_macro", "f1_micro", "ap_macro", "auroc_macro", "label_accuracy"),
    "regression": ("ccc", "corr", "mae"),
}
CLASS_HEADLINE_METRICS = ("accuracy", "balanced_accuracy", "f1_weighted", "f1_macro")

# A sentiment in each class, both in UMONS' bins and rounded.
CLASS_SENTIMENTS = (-2.6, -1.6, -0.6, 0.0, 0.6, 1.6, 2.6)


# Metrics of all labels together, which tables show first.
OVERALL_METRICS = {
    "loss", *CLASS_HEADLINE_METRICS, *(metric for metrics in HEADLINE_METRICS.values() for metric in metrics),
    *(f"emotion_{name}" for name in EMOTION_MEANS), "f1_has0", "f1_non0",
}  # fmt: skip
# Metrics that no threshold changes.
SENTIMENT_METRICS = {"mae", "corr", "ccc", "acc7", "acc7_rounded", "acc2_has0", "f1_has0", "acc2_non0", "f1_non0"}


def headline_metrics(task_name: str) -> tuple[str, ...]:
    """Return the main metrics of a task."""
    return HEADLINE_METRICS.get(task_name, CLASS_HEADLINE_METRICS)


def is_label_metric(metric: str) -> bool:
    """Return whether a metric is of a single label, such as `anger_f1`."""
    return metric not in OVERALL_METRICS


def depends_on_thresholds(metric: str) -> bool:
    """Return whether a metric of emotions or labels depends on their thresholds, unlike areas under curves."""
    return metric not in SENTIMENT_METRICS and not {"auroc", "ap"} & set(metric.split("_"))


def sentiment_metrics(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """
    Compute metrics of sentiments (N,).

    Raises ValueError for arrays of different shapes and predictions that are not finite.
    """
    return _value(_sentiment(np.ones((1, len(truth))), truth, prediction))


def emotion_metrics(
    truth: np.ndarray,
    logits: np.ndarray,
    labels: Sequence[str],
    thresholds: np.ndarray | Sequence[float] | None = None,
) -> dict[str, float]:
    """
    Compute metrics of emotions (N, E). An emotion is predicted if its logit is above its threshold (E,), default 0.

    `_wa`, `_auroc` and `_ap` are undefined if an emotion is in all segments or in none; means over emotions are
    undefined if one of their terms is.

    Raises ValueError for arrays of different shapes and logits that are not finite.
    """
    return _value(_emotions(np.ones((1, len(truth))), truth, logits, labels, thresholds))


def classification_metrics(truth: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """
    Compute metrics of classes (N,) from logits (N, C).

    Raises ValueError for arrays of different lengths, a class without a logit, and logits that are not finite.
    """
    return _value(_classes(np.ones((1, len(truth))), truth, logits))


def task_metrics(
    task: Task, truth: np.ndarray, logits: np.ndarray, thresholds: np.ndarray | Sequence[float] | None = None
) -> dict[str, float]:
    """
    Compute all metrics of a task; those that are undefined are left out.

    Args:
        task: the task. `sentiment-7` also has its accuracy as `acc7`, `sentiment-2` its accuracy and weighted F1 as
            `acc2_has0` and `f1_has0`.
        truth: labels in the form of the model, (N,) or (N, L); NaN where unknown.
        logits: logits of the model, (N, L).
        thresholds: logits (E,) above which an emotion or a label of `multi_label` is predicted; 0 by default.

    Raises:
        ValueError: the shapes differ, logits are not finite, or a task without emotions has thresholds.
    """
    return _value(weighted_metrics(task, np.ones((1, len(truth))), truth, logits, thresholds))


def weighted_metrics(
    task: Task,
    weights: np.ndarray,
    truth: np.ndarray,
    logits: np.ndarray,
    thresholds: np.ndarray | Sequence[float] | None = None,
) -> dict[str, np.ndarray]:
    """Compute `task_metrics` under `weights` (S, N) of the segments; arrays (S,), NaN where undefined."""
    if thresholds is not None and not task.emotions:
        raise ValueError(f"`thresholds` require emotions; the task {task.name!r} has none.")
    truth, logits = np.asarray(truth), np.asarray(logits)
    if task.emotions and truth.shape[1:] != (len(task.labels),):
        raise ValueError(f"Labels have shape {truth.shape}, expected (segments, {len(task.labels)}).")
    if task.name == "joint":
        return {
            **_sentiment(weights, truth[:, 0], logits[:, 0]),
            **_emotions(weights, truth[:, 1:], logits[:, 1:], task.labels[1:], thresholds),
        }
    if task.name == "emotion":
        return _emotions(weights, truth, logits, task.labels, thresholds)
    if task.name == "multi_label":
        return _labels(weights, truth, logits, task.labels, thresholds)
    if task.name == "regression":
        return _numbers(weights, truth, logits, task.labels)
    if task.name == "sentiment":
        return _sentiment(weights, truth.reshape(-1), logits.reshape(-1))
    metrics = _classes(weights, truth, logits)
    same = {
        "sentiment-7": {"acc7": "accuracy"},
        "sentiment-2": {"acc2_has0": "accuracy", "f1_has0": "f1_weighted"},
    }.get(task.name, {})
    return metrics | {name: metrics[other] for name, other in same.items() if metrics}


def sentiment_bins(sentiment: np.ndarray) -> np.ndarray:
    """Return classes 0 to 6 of sentiments, rounded away from 0 as in `sentiment_class_7`."""
    sentiment = np.asarray(sentiment, dtype=float)
    return np.clip(np.where(sentiment < 0, np.floor(sentiment), np.ceil(sentiment)), -3, 3).astype(int) + 3


def rounded_sentiment_bins(sentiment: np.ndarray) -> np.ndarray:
    """Return classes 0 to 6 of sentiments, clipped to [-3, 3] and rounded half to even."""
    return np.round(np.clip(np.asarray(sentiment, dtype=float), -3, 3)).astype(int) + 3


def tune_thresholds(truth: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """
    Choose thresholds (E,) of the emotions' logits that maximise the macro F1 of each emotion, on a validation split.

    Unlike accuracy, macro F1 weights a rare emotion as much as its absence; unlike balanced accuracy, it penalises
    false positives. Candidates are 0 and the midpoints of neighbouring logits; of equally good ones the nearest to 0
    is chosen. The threshold is 0 for an emotion in all known segments or in none.
    """
    truth, logits = _pair(truth, logits)
    if truth.ndim != 2:
        raise ValueError(f"Emotions have shape {truth.shape}, expected (segments, emotions).")
    return np.array([_threshold(*column) for column in zip(truth.T, logits.T, strict=True)])


def constant_metrics(task: Task, train_truth: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """
    Compute the metrics of constant predictions on `truth`: for each metric those of the prediction that scores best in
    it on the training labels.

    No single constant is a fair baseline for all metrics: the median sentiment, for example, minimises `mae`, but it
    is often 0, which is wrong for all segments of `acc2_non0`. A constant prediction has an AUROC of 0.5 and an
    average precision equal to the base rate.
    """
    best, metrics = {}, {}
    for prediction in _constant_predictions(task, train_truth):
        on_train = task_metrics(task, train_truth, np.tile(prediction, (len(train_truth), 1)))
        for name, value in task_metrics(task, truth, np.tile(prediction, (len(truth), 1))).items():
            merit = on_train.get(name, 0.0) * (-1 if name == "mae" else 1)
            if name not in best or merit > best[name]:
                best[name], metrics[name] = merit, value
    return metrics


def _constant_predictions(task: Task, train_truth: np.ndarray) -> list[np.ndarray]:
    """
    Return candidates (num_labels,): each class; or the median sentiment with the more frequent state of each emotion,
    and a sentiment of each class, which used as logits of emotions predict all of them or none.
    """
    if task.problem_type == "single_label_classification":
        return list(np.eye(len(task.labels)))
    typical = []
    for label, column in zip(task.labels, train_truth.reshape(len(train_truth), -1).T, strict=True):
        known = column[~np.isnan(column)] if not np.isnan(column).all() else np.zeros(1)
        is_number = task.problem_type == "regression" or label == "sentiment"
        typical.append(np.median(known) if is_number else 2 * ((known > 0).mean() > 0.5) - 1.0)
    if task.name == "regression":
        return [np.array(typical)]
    return [np.array(typical), *(np.full(len(task.labels), value) for value in CLASS_SENTIMENTS)]


def _threshold(truth: np.ndarray, logits: np.ndarray) -> float:
    known = ~np.isnan(truth)
    present, logits = truth[known] > 0, logits[known]
    if present.all() or not present.any():  # also if none is known
        return 0.0
    # `above`: number of segments from each distinct logit upwards; `hits`: those with the emotion.
    values, first = np.unique(np.sort(logits), return_index=True)
    hits = np.cumsum(present[np.argsort(logits, kind="stable")][::-1])[::-1][first]
    above, positives, total = len(logits) - first, present.sum(), len(logits)
    # F1 of presence and of absence is 2 TP / (true + predicted).
    absent_hits = (total - above) - (positives - hits)
    macro = hits / (positives + above) + absent_hits / (2 * total - positives - above)
    # Index i predicts `values[i:]` as present: 0 is all of them, len(values) none.
    macro = np.append(macro, (total - positives) / (2 * total - positives))
    middles = values[:-1] + np.diff(values) / 2
    middles = np.where(middles < values[1:], middles, values[:-1])  # adjacent floats have no midpoint
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
    truth, logits, thresholds = _check_labels(truth, logits, labels, thresholds)
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
    """Return the metrics of an emotion, the number of correct segments and the number of segments."""
    counts = _class_counts(weights, truth, logits > threshold, 2)
    hits, true, _ = counts
    auroc, ap = _areas(weights, truth, logits)
    metrics = {
        "acc": _accuracy(*counts),
        "f1": _f1_weighted(*counts),
        "f1_macro": _f1_macro(*counts),
        "wa": _ratio(hits, true).mean(axis=1),  # mean recall of presence and absence; NaN if either does not occur
        "auroc": auroc,
        "ap": ap,
    }
    return metrics, hits.sum(axis=1), true.sum(axis=1)


def _check_labels(truth, logits, labels, thresholds) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Check shapes and finite values; returns the arrays, and thresholds of 0 by default."""
    truth, logits = _pair(truth, logits)
    if truth.ndim != 2 or truth.shape[1] != len(labels):
        raise ValueError(f"Labels have shape {truth.shape}, expected (segments, {len(labels)}).")
    thresholds = np.zeros(len(labels)) if thresholds is None else np.asarray(thresholds, dtype=float)
    if thresholds.shape != (len(labels),) or not np.isfinite(thresholds).all():
        raise ValueError(
            f"`thresholds` is {thresholds.tolist()}, expected a finite number for each of {', '.join(labels)}."
        )
    return truth, logits, thresholds


def _labels(weights, truth, logits, labels, thresholds) -> dict[str, np.ndarray]:
    truth, logits, thresholds = _check_labels(truth, logits, labels, thresholds)
    each, right, counted, sums = {}, 0.0, 0.0, 0.0
    for i, label in enumerate(labels):
        known = ~np.isnan(truth[:, i])
        if not known.any():
            continue
        of_label, present = weights[:, known], truth[known, i] > 0
        counts = _class_counts(of_label, present, logits[known, i] > thresholds[i], 2)
        presence = np.stack([count[:, 1] for count in counts])
        auroc, ap = _areas(of_label, present, logits[known, i])
        each[label] = {"f1": _f1(*presence), "ap": ap, "auroc": auroc}
        right, counted, sums = right + counts[0].sum(axis=1), counted + counts[1].sum(axis=1), sums + presence
    if not each:
        return {}
    return {
        "label_accuracy": _ratio(right, counted),
        "f1_micro": _f1(*sums),
        **{f"{name}_macro": np.mean([one[name] for one in each.values()], axis=0) for name in ("f1", "ap", "auroc")},
        **{f"{label}_{name}": value for label, one in each.items() for name, value in one.items()},
    }


def _numbers(weights, truth, prediction, labels) -> dict[str, np.ndarray]:
    truth, prediction = _pair(np.reshape(truth, (len(truth), -1)), np.reshape(prediction, (len(prediction), -1)))
    each = {}
    for label, values, predicted in zip(labels, truth.T, prediction.T, strict=True):
        known = ~np.isnan(values)
        if known.any():
            arguments = (weights[:, known], values[known], predicted[known])
            error = _ratio(arguments[0] @ np.abs(arguments[1] - arguments[2]), arguments[0].sum(axis=1))
            each[label] = {"ccc": _concordance(*arguments), "corr": _correlation(*arguments), "mae": error}
    if not each:
        return {}
    means = {name: np.mean([one[name] for one in each.values()], axis=0) for name in ("ccc", "corr", "mae")}
    single = {f"{label}_{name}": value for label, one in each.items() for name, value in one.items()}
    return means | (single if len(labels) > 1 else {})


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
            f"Labels contain {wrong[:5]}, but there are logits for the classes 0 to {logits.shape[1] - 1}."
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
    """Return the counts of true positives, true and predicted rows of each class, (S, num_classes) each."""
    classes = np.arange(num_classes)
    true, predicted = truth[:, None] == classes, prediction[:, None] == classes
    return tuple(np.split(weights @ np.hstack([true & predicted, true, predicted]).astype(float), 3, axis=1))


def _accuracy(hits, true, predicted) -> np.ndarray:
    return _ratio(hits.sum(axis=1), true.sum(axis=1))


def _f1_weighted(hits, true, predicted) -> np.ndarray:
    return _ratio((true * _f1(hits, true, predicted)).sum(axis=1), true.sum(axis=1))


def _f1_macro(hits, true, predicted) -> np.ndarray:
    """Average over the classes that occur or are predicted."""
    return _ratio(_f1(hits, true, predicted).sum(axis=1), ((true + predicted) > 0).sum(axis=1))


def _f1(hits, true, predicted) -> np.ndarray:
    """Compute the F1 of each class, 0 for one that neither occurs nor is predicted."""
    return np.divide(2 * hits, true + predicted, out=np.zeros_like(hits), where=(true + predicted) > 0)


def _correlation(weights, truth, prediction) -> np.ndarray:
    # Centred at the means of all segments, for numerical precision.
    t, p = truth - truth.mean(), prediction - prediction.mean()
    total = weights.sum(axis=1)
    t1, p1, tt, pp, tp = (weights @ np.stack([t, p, t * t, p * p, t * p], axis=1)).T
    with np.errstate(invalid="ignore", divide="ignore"):
        t_spread, p_spread = tt - t1 * t1 / total, pp - p1 * p1 / total
        correlation = (tp - t1 * p1 / total) / np.sqrt(t_spread * p_spread)
    # For constant values the difference is only rounding error.
    constant = (t_spread <= 1e-12 * tt) | (p_spread <= 1e-12 * pp)
    return np.where(total > 0, np.where(constant, 0.0, np.clip(correlation, -1, 1)), np.nan)


def _concordance(weights, truth, prediction) -> np.ndarray:
    """Compute the concordance correlation coefficient, (S,); 0 for constant labels or predictions."""
    total = weights.sum(axis=1)
    t, p = (_ratio(weights @ values, total) for values in (truth, prediction))
    t_centred, p_centred = truth - t[:, None], prediction - p[:, None]
    covariance = _ratio((weights * t_centred * p_centred).sum(axis=1), total)
    spread = _ratio((weights * (t_centred**2 + p_centred**2)).sum(axis=1), total) + (t - p) ** 2
    return np.where(total > 0, np.divide(2 * covariance, spread, out=np.zeros_like(t), where=spread > 0), np.nan)


def _areas(weights, truth, scores) -> tuple[np.ndarray, np.ndarray]:
    """
    Compute the area under the ROC curve and average precision, (S,). Equal scores are one step of the curve. NaN if
    all counted segments have the emotion, or none.
    """
    order = np.argsort(-scores, kind="stable")
    weights, truth, scores = weights[:, order], truth[order], scores[order]
    hits, misses = weights * truth, weights * ~truth
    steps = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
    if len(steps) < len(scores):
        hits, misses = np.add.reduceat(hits, steps, axis=1), np.add.reduceat(misses, steps, axis=1)
    hits_above, misses_above = hits.cumsum(axis=1), misses.cumsum(axis=1)
    positives, negatives = hits_above[:, -1], misses_above[:, -1]
    # Pairs in the right order, and half of the ties.
    auroc = _ratio(np.einsum("sn,sn->s", misses, hits_above - hits / 2), positives * negatives)
    above = hits_above + misses_above
    precision = np.divide(hits_above, above, out=np.zeros_like(above), where=above > 0)
    ap = _ratio(np.einsum("sn,sn->s", hits, precision), positives)
    return auroc, np.where(negatives > 0, ap, np.nan)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide, NaN where the denominator is 0."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) > 0)


def _pair(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Convert to float64 and check that shapes are equal and predictions finite."""
    truth, prediction = np.asarray(truth, dtype=float), np.asarray(prediction, dtype=float)
    if truth.shape != prediction.shape:
        raise ValueError(f"Labels have shape {truth.shape} and predictions {prediction.shape}; they must be equal.")
    _check_finite(prediction)
    return truth, prediction


def _check_finite(prediction: np.ndarray):
    if not np.isfinite(prediction).all():
        rows = np.flatnonzero(~np.isfinite(prediction.reshape(len(prediction), -1)).all(axis=1))
        raise ValueError(
            f"Predictions of {len(rows)} of {len(prediction)} segments are not finite, the first one is segment "
            f"{rows[0]}. The model has diverged; try a lower --learning_rate."
        )


def _value(metrics: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the defined metrics of a single set of weights."""
    return {name: float(value[0]) for name, value in metrics.items() if not np.isnan(value[0])}
