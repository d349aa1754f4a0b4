"""Calibration of a model on validation rows, and metrics of calibrated predictions."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedConfig

from ..data.collator import UtteranceCollator
from ..models.umons.calibration_umons import (
    COVERAGE,
    calibration_weights,
    choose_emotion,
    find_calibration,
    name_combination,
    sentiment_interval,
)
from ..models.umons.input_checks_umons import share_of_english, split_words
from ..tasks.task import Task
from ..utils.files import write_atomically
from .metrics import tune_thresholds
from .missing_modalities import is_present
from .splits import Split


MIN_ROWS = 50  # of a combination of modalities; a 90 % quantile of fewer is unreliable
MIN_ENGLISH = 0.4  # share of frequent English words in English texts
MIN_OF_EACH = 10  # rows with an emotion, and rows without it
MIN_FACTOR = 0.05  # a smaller factor would make the scores constant
NUM_BINS = 10  # of the expected calibration error
SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


def combine_modalities(rows: Dataset, collator: UtteranceCollator) -> tuple[str, ...]:
    """Return the combination of modalities of each row, such as "text+audio"."""
    has = {modality: is_present(rows, name) for modality, name in collator.modality_columns.items()}
    return tuple(name_combination([m for m in has if has[m][row]]) for row in range(len(rows)))


def list_combinations(rows: Dataset, collator: UtteranceCollator, with_parts: bool = False) -> list[str]:
    """Return the combinations of modalities of rows; `with_parts` adds those that modality dropout makes of them."""
    found = {frozenset(name.split("+")) for name in combine_modalities(rows, collator) if name}
    if with_parts:
        found |= {frozenset(part) for whole in found for size in range(1, len(whole)) for part in
                  combinations(sorted(whole), size)}  # fmt: skip
    order = list(collator.modality_columns)
    return sorted(name_combination([m for m in order if m in combination]) for combination in found)


def fit_calibration(task: Task, split: Split) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """
    Fit the calibration of a model, in the form of `config.calibration`.

    Args:
        task: task of the model.
        split: validation rows that the model was not trained on, with its uncalibrated logits and their `modalities`.

    Returns:
        The calibration, and a note for each combination of modalities that is left out or has no interval.
    """
    calibration, notes = {}, []
    for combination in sorted(set(split.modalities)):
        rows = np.flatnonzero(np.array(split.modalities) == combination)
        if len(rows) < MIN_ROWS:
            notes.append(f"{combination} is not calibrated: it has {len(rows)} rows, and needs {MIN_ROWS}.")
            continue
        entry, note = _fit_combination(task, split.truth[rows], split.logits[rows])
        calibration[combination] = {"rows": len(rows), **entry}
        texts = [split.texts[row] for row in rows if split.texts and split.texts[row]]
        if "text" in combination.split("+") and share_of_english(split_words(" ".join(texts))) > MIN_ENGLISH:
            calibration[combination]["language"] = "en"
        if note:
            notes.append(f"{combination} {note}")
    return calibration, notes


def _fit_combination(task: Task, truth: np.ndarray, logits: np.ndarray) -> tuple[dict[str, Any], str]:
    entry: dict[str, Any] = {"temperature": {}, "bias": {}, "threshold": {}}
    if task.problem_type == "single_label_classification":
        temperature = _fit_class_temperature(truth.astype(int), logits)
        entry["temperature"] = dict.fromkeys(task.labels, temperature)
        return entry, ""
    if task.name == "regression":
        return entry, ""
    truth, logits = truth.reshape(len(logits), -1), logits.reshape(len(logits), -1)
    note = ""
    for label, target, logit in zip(task.labels, truth.T, logits.T, strict=True):
        known = ~np.isnan(target)
        target, logit = target[known], logit[known]
        if label == "sentiment" or task.name == "sentiment":
            if len(target) < MIN_ROWS:
                note = f"has no sentiment interval: {len(target)} rows have a sentiment, and {MIN_ROWS} are needed."
                continue
            entry["sentiment_error"] = _conformal_quantile(np.abs(target - logit))
        elif min((target > 0).sum(), (target <= 0).sum()) >= MIN_OF_EACH:
            target = target.clip(max=1)
            factor, bias = _fit_binary(target, logit)
            entry["temperature"][label], entry["bias"][label] = 1 / factor, bias
            threshold = tune_thresholds(target[:, None], (logit * factor + bias)[:, None])[0]
            entry["threshold"][label] = _sigmoid(float(threshold))
    return entry, note


def _conformal_quantile(errors: np.ndarray) -> float:
    """Return the quantile of N errors that an exchangeable one does not exceed with probability `COVERAGE`."""
    return float(np.sort(errors)[min(len(errors), math.ceil((len(errors) + 1) * COVERAGE)) - 1])


def _fit_binary(target: np.ndarray, logit: np.ndarray, num_steps: int = 50) -> tuple[float, float]:
    """Fit factor and bias of a logit (N,) to targets in [0, 1] by logistic regression, with Newton's method."""
    weights, prior = np.array([1.0, 0.0]), np.array([1.0, 0.0])
    inputs = np.stack([logit, np.ones_like(logit)], axis=1).astype(float)
    penalty = np.eye(2)  # keeps the optimum finite if the logits separate the targets
    for _ in range(num_steps):
        score = 1 / (1 + np.exp(-np.clip(inputs @ weights, -60, 60)))
        gradient = inputs.T @ (score - target) + penalty @ (weights - prior)
        step = np.linalg.solve(inputs.T @ (inputs * (score * (1 - score))[:, None]) + penalty, gradient)
        weights = weights - step / max(1.0, np.abs(step).max())
        if np.abs(step).max() < 1e-8:
            break
    factor, bias = weights.tolist()
    if factor < MIN_FACTOR:  # the logits say nothing, or the opposite, of the targets: keep their order
        rate = np.clip(target.mean(), 1e-3, 1 - 1e-3)
        factor, bias = MIN_FACTOR, math.log(rate / (1 - rate)) - MIN_FACTOR * float(logit.mean())
    return factor, bias


def _fit_class_temperature(target: np.ndarray, logits: np.ndarray) -> float:
    """Return the temperature with the lowest cross-entropy of classes (N,), by a search of a grid."""

    def loss(temperature: float) -> float:
        scaled = logits / temperature
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(target)), target]))

    return float(min(np.geomspace(0.1, 10, 201), key=loss))


def calibrate_splits(
    config: PreTrainedConfig, task: Task, splits: Mapping[str, Split], refit: bool
) -> tuple[dict[str, Split], dict[str, dict[str, Any]], list[str]]:
    """
    Calibrate the predictions of a model.

    Args:
        config: configuration of the model; with `refit`, its `calibration` is set.
        task: task of the model.
        splits: rows with uncalibrated logits and `modalities`.
        refit: fit the calibration on the split `validation`. Each half of its videos is then calibrated with the fit
            of the other half, so that the metrics on it are those of unseen videos.

    Returns:
        The splits with calibrated logits, their `calibration_metrics`, and the notes of the fit.
    """
    notes: list[str] = []
    if refit:
        calibration, notes = fit_calibration(task, splits["validation"])
        config.calibration = calibration or None
    calibrated, metrics = {}, {}
    for name, split in splits.items():
        if refit and name == "validation":
            calibrated[name], metrics[name] = calibrate_out_of_fold(task, split)
        else:
            calibrated[name], metrics[name] = _apply_entries(task, split, _entries(config, split))
    return calibrated, metrics, notes


def calibrate_out_of_fold(task: Task, split: Split, seed: int = 0) -> tuple[Split, dict[str, Any]]:
    """
    Calibrate each random half of the videos of a split with the fit of the other half.

    Args:
        task: task of the model.
        split: rows with uncalibrated logits and `modalities`.
        seed: seed of the halves.

    Returns:
        The split with calibrated logits, and its `calibration_metrics`.
    """
    return _apply_entries(task, split, _entries_out_of_fold(task, split, seed))


def _apply_entries(task: Task, split: Split, entries: Sequence[Mapping[str, Any]]) -> tuple[Split, dict[str, Any]]:
    calibrated = replace(split, logits=_calibrate_logits(task, split.logits, entries))
    return calibrated, calibration_metrics(task, calibrated, entries)


def _entries(config: PreTrainedConfig, split: Split) -> list[Mapping[str, Any]]:
    """Return the entry of the calibration for each row, empty without one."""
    return [find_calibration(config, combination.split("+")) for combination in split.modalities]


def _entries_out_of_fold(task: Task, split: Split, seed: int) -> list[Mapping[str, Any]]:
    """Return for each row the entry of a calibration on the half of the videos that does not contain it."""
    groups = split.groups or (None,) * len(split)
    groups = [f"row {row}" if group is None else group for row, group in enumerate(groups)]
    names = np.random.default_rng(seed).permutation(sorted(set(groups)))
    is_first = np.isin(groups, names[: len(names) // 2])
    fits = {fold: fit_calibration(task, split.take(np.flatnonzero(is_first != fold)))[0] for fold in (False, True)}
    return [fits[fold].get(name, {}) for fold, name in zip(is_first.tolist(), split.modalities, strict=True)]


def _calibrate_logits(task: Task, logits: np.ndarray, entries: Sequence[Mapping[str, Any]]) -> np.ndarray:
    weights = {id(entry): calibration_weights(task.labels, entry) for entry in entries}
    factors, biases = np.array([weights[id(entry)] for entry in entries], dtype=np.float32).swapaxes(0, 1)
    return (logits.reshape(len(logits), -1) * factors + biases).reshape(logits.shape)


def write_calibration(folder: str | Path, calibration: dict[str, Any]) -> None:
    """Write a calibration into the `config.json` of a saved model. Raises ValueError if it is not in a folder."""
    path = Path(folder, "config.json")
    if not path.is_file():
        raise ValueError(f"--calibrate writes into the folder of the model, and {folder} is not one: save it first.")
    config = json.loads(path.read_text(encoding="utf-8"))
    config["calibration"] = calibration
    write_atomically(path, json.dumps(config, indent=2, sort_keys=True) + "\n")


# --- metrics


def calibration_metrics(task: Task, split: Split, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """
    Compute metrics of calibrated predictions.

    Args:
        task: task of the model.
        split: rows with calibrated logits.
        entries: entry of the calibration for each row, empty without one.

    Returns:
        `ece`: expected calibration error of each label, or of the class. `coverage` and `interval_width`: share of
        sentiments in their interval, and its mean width, over `interval_rows` rows. `risk_coverage`: for each of
        `SHARES`, `acc2_non0` of the rows with the largest sentiment compared with its interval, and `label_accuracy`
        of the rows with the highest confidence. A label is right if it is annotated; "neutral" and
        "none", if no label is.
    """
    metrics: dict[str, Any] = {"ece": {}, "risk_coverage": {"shares": list(SHARES)}}
    curves = metrics["risk_coverage"]
    if task.problem_type == "single_label_classification":
        scores = np.exp(split.logits - split.logits.max(axis=1, keepdims=True))
        confidence = (scores / scores.sum(axis=1, keepdims=True)).max(axis=1)
        is_right = (split.logits.argmax(axis=1) == split.truth).astype(float)
        metrics["ece"]["class"] = calibration_curve(confidence, is_right)[-1]
        curves["label_accuracy"] = _accuracy_of_surest(is_right, confidence)
        return metrics
    truth, logits = (values.reshape(len(split), -1).astype(float) for values in (split.truth, split.logits))
    if task.name in ("joint", "sentiment"):
        _measure_sentiment(metrics, truth[:, 0], logits[:, 0], entries)
    if task.emotions:
        names = [label for label in task.labels if label != "sentiment"]
        targets, scores = truth[:, -len(names) :], _sigmoid(logits[:, -len(names) :])
        for name, target, score in zip(names, targets.T, scores.T, strict=True):
            known = ~np.isnan(target)
            if known.any():
                metrics["ece"][name] = calibration_curve(score[known], target[known].clip(max=1))[-1]
        curves["label_accuracy"] = _accuracy_of_surest(*_label_hits(names, targets, scores, entries))
    return metrics


def _measure_sentiment(metrics: dict[str, Any], truth: np.ndarray, predicted: np.ndarray, entries):
    """Add the coverage of the intervals and the curve of `acc2_non0` to the metrics."""
    errors = np.array([entry.get("sentiment_error", np.nan) for entry in entries])
    known = ~np.isnan(truth) & ~np.isnan(errors)
    if known.any():
        intervals = [sentiment_interval(predicted[row], entries[row]) for row in np.flatnonzero(known)]
        low, high = np.array(intervals).T
        metrics["coverage"] = float(((truth[known] >= low) & (truth[known] <= high)).mean())
        metrics["interval_width"] = float((high - low).mean())
        metrics["interval_rows"] = int(known.sum())
    polar = ~np.isnan(truth) & (truth != 0)
    sureness = np.abs(predicted) / np.maximum(np.nan_to_num(errors, nan=1.0), 1e-9)
    is_right = ((truth > 0) == (predicted > 0)).astype(float)
    metrics["risk_coverage"]["acc2_non0"] = _accuracy_of_surest(is_right[polar], sureness[polar])


def _label_hits(names: Sequence[str], targets: np.ndarray, scores: np.ndarray, entries) -> tuple:
    """Return whether the label of each row with known emotions is right, and its confidence."""
    hits, confidences = [], []
    for target, score, entry in zip(targets, scores, entries, strict=True):
        if np.isnan(target).any():
            continue
        label, confidence, _ = choose_emotion(dict(zip(names, score.tolist(), strict=True)), entry)
        present = {name for name, value in zip(names, target, strict=True) if value > 0}
        hits.append(float(label in present if label in names else not present))
        confidences.append(confidence)
    return np.array(hits), np.array(confidences)


def calibration_curve(
    probability: np.ndarray, is_true: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """
    Compute the calibration curve in bins of equal width.

    Args:
        probability: (N,) predicted probabilities.
        is_true: (N,) bool, whether the event occurred.

    Returns:
        Mean probability, observed frequency and number of rows of each non-empty bin, (bins,) each; and the expected
        calibration error.

    Source: Guo et al., On Calibration of Modern Neural Networks, 2017, section 2.
    """
    bins = np.minimum((probability * NUM_BINS).astype(int), NUM_BINS - 1)
    counts = np.bincount(bins, minlength=NUM_BINS)
    some = counts > 0
    predicted = np.bincount(bins, probability, NUM_BINS)[some] / counts[some]
    observed = np.bincount(bins, is_true, NUM_BINS)[some] / counts[some]
    error = float((counts[some] * np.abs(predicted - observed)).sum() / max(len(probability), 1))
    return predicted, observed, counts[some], error


def _accuracy_of_surest(is_right: np.ndarray, sureness: np.ndarray) -> list[float | None]:
    """Return the accuracy of the surest rows, for each of `SHARES`; `None` without rows."""
    order = np.argsort(-sureness, kind="stable")
    counts = [round(share * len(order)) for share in SHARES]
    return [float(is_right[order[:count]].mean()) if count else None for count in counts]


def _sigmoid(value):
    return 1 / (1 + np.exp(-value)) if isinstance(value, np.ndarray) else 1 / (1 + math.exp(-value))
