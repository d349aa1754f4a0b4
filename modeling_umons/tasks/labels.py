"""Label sets of the sentiment tasks and the classes of a sentiment in [-3, 3]."""

import math
import re
import unicodedata
from typing import Any


SENTIMENT_RANGE = (-3.0, 3.0)
EMOTION_RANGE = (0.0, 3.0)
SENTIMENT_7 = ("-3", "-2", "-1", "0", "1", "2", "3")
SENTIMENT_2 = ("negative", "not negative")


def sentiment_class_7(sentiment: float) -> int:
    """
    Return the class 0 to 6 of a sentiment in [-3, 3], rounded away from 0 as in UMONS and the CMU SDK: -1.5 has the
    label "-2", and only 0 has the label "0".
    """
    if sentiment == 0:
        return 3
    return max(0, 3 + math.floor(sentiment)) if sentiment < 0 else min(6, 3 + math.ceil(sentiment))


def sentiment_class_2(sentiment: float) -> int:
    """Return 0 for a negative sentiment and 1 otherwise, as in UMONS."""
    return int(sentiment >= 0)


# Scales of sentiments in use: stars, percentages and others.
SCALES = ((0, 1), (-1, 1), (1, 5), (0, 5), (0, 10), (-5, 5), (0, 100), (-10, 10), (-100, 100))
WHOLE_NUMBER = re.compile(r"([+-]?\d+)\.0*")


def class_name(value: Any) -> str:
    """Return the name of a class: text in the form NFC without white space around it; 1.0 and "1.0" are "1"."""
    name = unicodedata.normalize("NFC", str(value)).strip()
    match = WHOLE_NUMBER.fullmatch(name)
    return match[1] if match else name


def split_labels(value: Any) -> list[str]:
    """Return the labels in a cell: those of a list, or of a text that separates them by commas, semicolons or bars."""
    parts = re.split(r"[,;|]", value) if isinstance(value, str) else value
    return [name for name in map(class_name, parts) if name]


def sort_classes(names: set[str]) -> tuple[str, ...]:
    """Sort classes: by value if all are finite numbers, else by name."""
    try:
        if all(math.isfinite(float(name)) for name in names):
            return tuple(sorted(names, key=lambda name: (float(name), name)))
    except ValueError:
        pass
    return tuple(sorted(names))


def range_advice(low: float, high: float) -> str:
    """Return the option for sentiments on the scale that contains `low` and `high`; empty if there is none."""
    scale = next(((a, b) for a, b in SCALES if a <= low and high <= b), None)
    if scale is None:
        return ""
    a, b = scale
    return f" If the column is on the scale [{a:g}, {b:g}], pass --label_range {a:g} {b:g}."
