"""Label sets of the sentiment tasks and the classes of a sentiment in [-3, 3]."""

import math


SENTIMENT_RANGE = (-3.0, 3.0)
EMOTION_RANGE = (0.0, 3.0)
SENTIMENT_7 = ("-3", "-2", "-1", "0", "1", "2", "3")
SENTIMENT_2 = ("negative", "not negative")


def sentiment_class_7(sentiment: float) -> int:
    """Class 0 to 6 of a sentiment in [-3, 3], as UMONS and the CMU SDK cut it: -1.5 is of class -2, and only 0 of class 0."""
    if sentiment == 0:
        return 3
    return max(0, 3 + math.floor(sentiment)) if sentiment < 0 else min(6, 3 + math.ceil(sentiment))


def sentiment_class_2(sentiment: float) -> int:
    """0 for a negative sentiment, 1 for any other (UMONS' sentiment-2)."""
    return int(sentiment >= 0)
