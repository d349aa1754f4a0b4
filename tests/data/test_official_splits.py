import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from modeling_umons import EMOTIONS
from modeling_umons.data import official_splits
from modeling_umons.data.official_splits import OFFICIAL_COUNTS, official_split
from modeling_umons.data.schema import SPLIT_NAMES
from modeling_umons.tasks.labels import SENTIMENT_7, sentiment_class_7


@pytest.fixture(scope="module")
def labels(shared) -> list[dict[str, str]]:
    with open(shared / "data" / "mosei" / "labels.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_no_two_videos_share_their_bytes():
    splits = json.loads(Path(official_splits.__file__).with_name("official_splits.json").read_text(encoding="utf-8"))
    assert {split: len(digests) for split, digests in splits.items()} == {
        split: counts["videos"] for split, counts in OFFICIAL_COUNTS.items()
    }
    digests = [digest for part in splits.values() for digest in part]
    assert len(set(digests)) == len(digests) == 3225
    assert all(len(digest) == 8 and int(digest, 16) >= 0 for digest in digests)


@pytest.mark.parametrize("name", ["", "a video of mine", "-3g5yACwYnA[0]", "vidéo"])
def test_other_videos_have_no_split(name):
    assert official_split(name) is None


@pytest.mark.shared
def test_every_official_segment(labels):
    assert len(labels) == 22860
    assert [row for row in labels if official_split(row["video_id"]) != SPLIT_NAMES[row["split"]]] == []


@pytest.mark.shared
def test_counts(labels):
    for split, counts in OFFICIAL_COUNTS.items():
        rows = [row for row in labels if SPLIT_NAMES[row["split"]] == split]
        assert (len(rows), len({row["video_id"] for row in rows})) == (counts["segments"], counts["videos"])
    # of the test split, which the loop ends with
    classes = Counter(SENTIMENT_7[sentiment_class_7(float(row["sentiment"]))] for row in rows)
    assert classes == counts["sentiment_7"]
    assert {name: sum(float(row[name]) > 0 for row in rows) for name in EMOTIONS} == counts["emotions"]
