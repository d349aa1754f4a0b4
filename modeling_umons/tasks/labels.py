"""Label sets of the sentiment tasks and the classes of a sentiment in [-3, 3]."""

import math


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
