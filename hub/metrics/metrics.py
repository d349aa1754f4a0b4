# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Metrics of sentiment and emotion recognition of `modeling_umons`, for `evaluate`."""

import datasets
import evaluate
import numpy as np


try:
    from modeling_umons.evaluation.bootstrap import bootstrap_intervals
    from modeling_umons.evaluation.metrics import task_metrics
    from modeling_umons.tasks.task import OWN_LABELS, TASKS, make_task
except ImportError as error:
    raise ImportError(
        'This metric requires modeling_umons with its extra `data`: `pip install "modeling-umons[data]"`.'
    ) from error


# Number of classes of the configurations whose labels are classes; None is any number.
NUM_CLASSES = {"sentiment-7": 7, "sentiment-2": 2, "classification": None}
# Number of values of the configurations with several labels.
NUM_VALUES = {"emotion": 6, "joint": 7, "joint-neutral": 8}

_DESCRIPTION = """\
Metrics of sentiment and emotion recognition on CMU-MOSEI, CMU-MOSI, MELD and similar data sets. Papers use the same
names for different metrics: 7-class accuracy of truncated or rounded sentiments, 2-class accuracy with or without
neutral segments, F1 weighted by the labels or by the predictions. Here each metric has its own name.
"""

_KWARGS_DESCRIPTION = """
Configurations, with a prediction and a reference of a segment:
    sentiment: the predicted sentiment; the true sentiment in [-3, 3].
    emotion: six logits (happy, sad, anger, surprise, disgust, fear); six intensities or 0 and 1, present above 0.
    joint: seven values each, the sentiment first. joint-neutral: eight, neutral last.
    sentiment-7, sentiment-2: the index of a class, or logits of the 7 or 2 classes; the index of the true class.
    classification: the same for any number of classes, such as those of MELD.

Args:
    predictions: list of predictions.
    references: list of references. None and NaN are unknown and are ignored.
    thresholds (list of 6 or 7 floats, optional): for emotion and joint, the logits above which an emotion is
        predicted. Defaults to 0.
    num_samples (int, optional): number of bootstrap samples for confidence intervals. Defaults to 0, no intervals.
    groups (list, optional): video, dialogue or speaker of each segment; the bootstrap resamples whole groups.
    seed (int, optional): seed of the bootstrap. Defaults to 0.

Returns:
    dict of floats in [0, 1], except mae and corr. Undefined metrics are left out.
    sentiment and joint: mae, corr, acc7, acc7_rounded, acc2_has0, f1_has0, acc2_non0, f1_non0.
    emotion and joint: emotion_acc, emotion_f1, emotion_f1_macro, emotion_wa, emotion_auroc, emotion_ap, and for each
        emotion <emotion>_acc, _f1, _f1_macro, _wa, _auroc, _ap.
    classes: accuracy, balanced_accuracy, f1_weighted, f1_macro; sentiment-7 also acc7, sentiment-2 also acc2_has0 and
        f1_has0.
    With num_samples also confidence_intervals, a dict of 95 % intervals (low, high).

Examples:
    >>> metric = evaluate.load("hub/metrics", "sentiment")
    >>> results = metric.compute(predictions=[0.4, -1.2, 2.1], references=[1.0, -0.5, float("nan")])
    >>> results["acc2_has0"], results["acc7"]
    (1.0, 0.5)
"""

_CITATION = """\
@inproceedings{delbrouck-etal-2020-transformer,
    title = "A Transformer-based joint-encoding for Emotion Recognition and Sentiment Analysis",
    author = "Delbrouck, Jean-Benoit and Tits, No{\\'e} and Brousmiche, Mathilde and Dupont, St{\\'e}phane",
    booktitle = "Second Grand-Challenge and Workshop on Multimodal Language (Challenge-HML)",
    year = "2020",
    publisher = "Association for Computational Linguistics",
    doi = "10.18653/v1/2020.challengehml-1.1",
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class UmonsMetrics(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=_features(self.config_name),
            license="MIT",
            reference_urls=["https://doi.org/10.18653/v1/2020.challengehml-1.1"],
        )

    def _compute(self, predictions, references, thresholds=None, num_samples=0, groups=None, seed=0) -> dict:
        if groups is not None and not num_samples:
            raise ValueError("`groups` requires a bootstrap: pass num_samples=1000.")
        if self.config_name in NUM_VALUES:
            references = [[None] * len(predictions[0]) if row is None else row for row in references]
        # Unknown labels, None, become NaN.
        truth, logits, classes = np.array(references, dtype=float), np.array(predictions, dtype=float), ()
        if self.config_name in NUM_CLASSES:
            truth, logits = _class_logits(truth, logits, NUM_CLASSES[self.config_name])
            classes = map(str, range(logits.shape[1]))
        task = make_task(self.config_name, classes=classes)
        results = task_metrics(task, truth, logits, thresholds)
        if num_samples:
            intervals = bootstrap_intervals(task, truth, logits, groups, num_samples, seed, thresholds)
            results["confidence_intervals"] = intervals
        return results


def _features(config_name: str) -> datasets.Features | list[datasets.Features]:
    number = datasets.Value("float64")
    if config_name == "sentiment":
        return datasets.Features(predictions=number, references=number)
    if config_name in NUM_VALUES:
        numbers = datasets.List(number, length=NUM_VALUES[config_name])
        return datasets.Features(predictions=numbers, references=numbers)
    if config_name in NUM_CLASSES:
        # Classes are floats, so that an unknown one can be NaN.
        return [
            datasets.Features(predictions=number, references=number),
            datasets.Features(predictions=datasets.List(number), references=number),
        ]
    available = [name for name in TASKS if name not in OWN_LABELS]
    raise ValueError(f"Unknown configuration {config_name!r}; available: {', '.join(available)}.")


def _class_logits(truth: np.ndarray, logits: np.ndarray, size: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return classes from 0 on, and their logits: 1 and 0 for predicted classes."""
    if logits.ndim == 2:
        if size not in (None, logits.shape[1]):
            raise ValueError(f"Predictions have {logits.shape[1]} logits; expected {size}, or the index of a class.")
        return truth, logits
    known = ~np.isnan(truth)
    # Classes that never occur count in no metric. At least two classes are required.
    classes = np.arange(size) if size else np.unique(np.r_[0, 1, logits[np.isfinite(logits)], truth[known]])
    if not np.isin(logits, classes).all():
        wrong = logits[~np.isin(logits, classes)][:5].tolist()
        raise ValueError(
            f"Predictions contain {wrong}; expected classes: {'0 to ' + str(size - 1) if size else 'numbers'}."
        )
    if size is None:
        truth = np.where(known, np.searchsorted(classes, truth), np.nan)
    return truth, (logits[:, None] == classes).astype(float)
