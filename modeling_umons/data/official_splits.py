"""
Official folds of CMU-MOSEI (Zadeh et al., ACL 2018; those of the CMU Multimodal SDK), by video.

The package does not contain the ids. `official_splits.json` has the first 4 bytes of the SHA-256 of each, which are
unique among the 3,225 videos; another id matches one of them by chance once in about 1.3 million.
"""

import hashlib
import json
from functools import cache
from pathlib import Path


# Published counts of the folds. Classes of sentiment from -3 to 3; segments in which an emotion is present (> 0).
OFFICIAL_COUNTS = {
    "train": {"segments": 16327, "videos": 2249},
    "validation": {"segments": 1871, "videos": 300},
    "test": {
        "segments": 4662,
        "videos": 676,
        "sentiment_7": {"-3": 156, "-2": 489, "-1": 705, "0": 1025, "1": 1512, "2": 665, "3": 110},
        "emotions": {"happy": 2505, "sad": 1129, "anger": 1071, "surprise": 441, "disgust": 805, "fear": 385},
    },
}


def official_split(video_id: str) -> str | None:
    """
    Return the official split of a video of CMU-MOSEI, "train", "validation" or "test"; `None` for any other video.

    Args:
        video_id: id in the data set, without the number of the segment: `-3g5yACwYnA`, not `-3g5yACwYnA[0]`.
    """
    return _splits().get(hashlib.sha256(video_id.encode()).hexdigest()[:8])


@cache
def _splits() -> dict[str, str]:
    text = Path(__file__).with_name("official_splits.json").read_text(encoding="utf-8")
    return {digest: split for split, digests in json.loads(text).items() for digest in digests}
