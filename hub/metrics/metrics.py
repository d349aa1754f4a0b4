# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Measures of sentiment and emotion recognition, as a metric of `evaluate`: the package's own, under the package's names."""

import datasets
import evaluate
import numpy as np


try:
    from modeling_umons.evaluation.bootstrap import bootstrap_intervals
    from modeling_umons.evaluation.metrics import task_metrics
    from modeling_umons.tasks.task import TASKS, make_task
except ImportError as error:
    raise ImportError(
        "This metric is computed by the package modeling_umons, which is not installed or lacks its extra for data: get "
        'its source and run `pip install ".[data]"` in it.'
    ) from error


# The configurations whose labels are classes, and how many there are; None is any number.
NUM_CLASSES = {"sentiment-7": 7, "sentiment-2": 2, "classification": None}

_DESCRIPTION = """\
Measures of sentiment and emotion recognition on CMU-MOSEI, CMU-MOSI, MELD and the like. The field computes several
different things under the same names (7-class accuracy by truncated or by rounded sentiments, 2-class accuracy with
or without neutral segments, weighted F1 by the truth or by the prediction); here each has a name of its own.
"""

_KWARGS_DESCRIPTION = """
Configurations, and what predictions and references of a segment are in them:
    sentiment: the predicted sentiment, and the true one in [-3, 3].
    emotion: six logits (happy, sad, anger, surprise, disgust, fear), and six intensities or 0 and 1, present where above 0.
    joint: seven of each, the sentiment and then the emotions.
    sentiment-7, sentiment-2: the index of a class, or logits of the 7 or 2 classes; and the index of the true class.
    classification: the same of any number of classes, MELD's say.

Args:
    predictions: list of the predictions.
    references: list of the truth. None or NaN is unknown and does not count.
    thresholds (list of 6 floats, optional): for emotion and joint, above which logit an emotion is predicted; default 0.
    num_samples (int, optional): samples of a bootstrap that gives intervals; default 0, none.
    groups (list, optional): the video, dialogue or speaker of each segment, which the bootstrap resamples whole.
    seed (int, optional): of the bootstrap; default 0.

Returns a dict of floats in [0, 1] (but for mae and corr), without those that are not defined:
    sentiment and joint: mae, corr, acc7, acc7_rounded, acc2_has0, f1_has0, acc2_non0, f1_non0.
    emotion and joint: emotion_acc, emotion_f1, emotion_f1_macro, emotion_wa, emotion_auroc, emotion_ap, and of each
        emotion <emotion>_acc, _f1, _f1_macro, _wa, _auroc, _ap.
    the others: accuracy, balanced_accuracy, f1_weighted, f1_macro; with sentiment-7 also acc7, with sentiment-2 also
        acc2_has0 and f1_has0.
With num_samples also confidence_intervals, a dict of 95 % intervals (low, high) of all of these.

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
            raise ValueError("groups are for the bootstrap; with num_samples=0 there is none. Say num_samples=1000.")
        if self.config_name in ("emotion", "joint"):
            references = [[None] * len(predictions[0]) if row is None else row for row in references]
        # None, an unknown label, becomes NaN.
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
    if config_name in ("emotion", "joint"):
        numbers = datasets.List(number, length=6 if config_name == "emotion" else 7)
        return datasets.Features(predictions=numbers, references=numbers)
    if config_name in NUM_CLASSES:
        # Classes are floats here because one that is unknown may be NaN.
        return [
            datasets.Features(predictions=number, references=number),
            datasets.Features(predictions=datasets.List(number), references=number),
        ]
    raise ValueError(f"There is no configuration {config_name!r} of this metric; there are {', '.join(TASKS)}.")


def _class_logits(truth: np.ndarray, logits: np.ndarray, size: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Classes from 0 on, and logits of them; of predicted classes the logits are 1 and 0."""
    if logits.ndim == 2:
        if size not in (None, logits.shape[1]):
            raise ValueError(f"Predictions have {logits.shape[1]} logits, expected {size}, or the index of a class.")
        return truth, logits
    known = ~np.isnan(truth)
    # Classes that never occur count in no measure, and two there must be.
    classes = np.arange(size) if size else np.unique(np.r_[0, 1, logits[np.isfinite(logits)], truth[known]])
    if not np.isin(logits, classes).all():
        wrong = logits[~np.isin(logits, classes)][:5].tolist()
        raise ValueError(
            f"The predictions hold {wrong}, expected classes: {'0 to ' + str(size - 1) if size else 'numbers'}."
        )
    if size is None:
        truth = np.where(known, np.searchsorted(classes, truth), np.nan)
    return truth, (logits[:, None] == classes).astype(float)
