# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Calibration of the scores, which the configuration of a model contains, and the label of a result.

`config.calibration` has an entry for each combination of modalities that the calibration rows have, such as `"text"`
or `"text+audio"`:

    rows (`int`): number of calibration rows.
    language (`str`): "en" if their texts are English.
    temperature, bias (`dict[str, float]`): by label; the calibrated logit is `logit / temperature + bias`.
    threshold (`dict[str, float]`): by emotion, the score in [0, 1] from which it is present.
    sentiment_error (`float`): absolute error of the sentiment that 90 % of unseen inputs do not exceed.

Sources: Guo et al., On Calibration of Modern Neural Networks, 2017; Platt, Probabilistic Outputs for Support Vector
Machines, 1999; Lei et al., Distribution-Free Predictive Inference for Regression, 2018 (split conformal).
"""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from transformers import PreTrainedConfig

from .configuration_umons import EMOTIONS, NEUTRAL


COVERAGE = 0.9  # of sentiment intervals
PRESENT = 0.5  # threshold of a label without calibration
SENTIMENT_RANGE = (-3.0, 3.0)
NONE, UNSURE = "none", "unsure"
BY_LABEL = ("temperature", "bias", "threshold")


def name_combination(modalities: Sequence[str]) -> str:
    """Return the key in `config.calibration` of inputs with these modalities."""
    return "+".join(modalities)


def find_calibration(config: PreTrainedConfig, modalities: Sequence[str]) -> Mapping[str, Any]:
    """Return the calibration of a model for inputs with these modalities; empty if it has none."""
    return (getattr(config, "calibration", None) or {}).get(name_combination(modalities), {})


def find_language(config: PreTrainedConfig) -> str | None:
    """Return the language of the validation texts of a calibrated model; `None` if it is not known."""
    entries = (getattr(config, "calibration", None) or {}).values()
    return next((entry["language"] for entry in entries if "language" in entry), None)


def check_calibration(calibration: Any):
    """Raise ValueError if a `config.calibration` has another form."""
    if calibration is None:
        return
    for combination, entry in calibration.items() if isinstance(calibration, Mapping) else [("", None)]:
        if not isinstance(entry, Mapping) or not all(isinstance(entry.get(key, {}), Mapping) for key in BY_LABEL):
            raise ValueError(
                f"`calibration` of the configuration is {calibration!r:.100}: remove it, or write it with "
                "`umons evaluate --calibrate`."
            )
        numbers = [entry.get("sentiment_error", 0.0), *(n for key in BY_LABEL for n in entry.get(key, {}).values())]
        positive = all(isinstance(n, Real) and n > 0 for n in entry.get("temperature", {}).values())
        if not positive or not all(isinstance(n, Real) and math.isfinite(n) for n in numbers):
            raise ValueError(
                f"`calibration` of the configuration has a value of {combination!r} that is not a finite number, or a "
                "temperature that is not positive: write it with `umons evaluate --calibrate`."
            )


def calibration_weights(labels: Sequence[str], entry: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Return the factor and the summand of the logit of each label; 1 and 0 without calibration."""
    factors = [1.0 / entry.get("temperature", {}).get(label, 1.0) for label in labels]
    return factors, [entry.get("bias", {}).get(label, 0.0) for label in labels]


def sentiment_interval(sentiment: float, entry: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the 90 % interval of a sentiment, within [-3, 3]; `None` without calibration."""
    if "sentiment_error" not in entry:
        return None
    low, high = SENTIMENT_RANGE
    error = entry["sentiment_error"]
    return (min(max(sentiment - error, low), high), max(min(sentiment + error, high), low))


def choose_emotion(scores: Mapping[str, float], entry: Mapping[str, Any]) -> tuple[str, float, set[str]]:
    """
    Return the strongest label that is present, its confidence, and all labels that are present.

    Without one, the label is "neutral" for the six emotions and models that have it, and "none" for other labels. The
    confidence is the score; of a label that is not the model's, 1 minus the highest score.
    """
    thresholds = entry.get("threshold", {})
    present = {name for name, score in scores.items() if score >= thresholds.get(name, PRESENT)}
    if present:
        label = max(present, key=lambda name: (scores[name], name))
        return label, scores[label], present
    label = NEUTRAL if NEUTRAL in scores or set(scores) <= set(EMOTIONS) else NONE
    return label, scores.get(label, 1.0 - max(scores.values())), present


def choose_polarity(sentiment: float, entry: Mapping[str, Any]) -> tuple[str, float | None]:
    """
    Return "positive" or "negative", and the probability that the sign of a sentiment is right, for normal errors of
    the calibrated size; `None` without calibration.
    """
    label = "negative" if sentiment < 0 else "positive"
    if "sentiment_error" not in entry:
        return label, None
    deviation = max(entry["sentiment_error"], 1e-9) / 1.6449  # 90 % quantile of the absolute value of a normal error
    return label, 0.5 * (1.0 + math.erf(abs(sentiment) / deviation / math.sqrt(2.0)))
