"""Tables of speakers."""

import pytest

from modeling_umons.inference.speaker_table import summarize_speakers


def segment(start, end, speaker, sentiment=None, **scores):
    found = {"timestamp": (start, end), "speaker": speaker}
    if sentiment is not None:
        found |= {"sentiment": sentiment, "emotions": [{"label": k, "score": v} for k, v in scores.items()]}
    return found


def test_summarize_speakers_weights_by_duration():
    bob, ann, unknown = summarize_speakers(
        [
            segment(0, 3, "Bob", 1.0, happy=0.8, sad=0.0),
            segment(3, 4, "Ann", -1.0, happy=0.1, sad=0.5),
            segment(5, 6, "Bob", -3.0, happy=0.0, sad=0.4),
            segment(6, 8, "Bob"),
            segment(8, 9, None, 0.5, happy=0.2, sad=0.3),
        ]
    )
    assert (bob["speaker"], bob["num_segments"], bob["seconds"], bob["sentiment"]) == ("Bob", 3, 6.0, 0.0)
    assert bob["scores"] == pytest.approx({"happy": 0.6, "sad": 0.1})
    assert ann["scores"] == {"happy": 0.1, "sad": 0.5}
    assert unknown["speaker"] == "unknown"


def test_summarize_speakers_without_predictions():
    assert summarize_speakers([segment(0, 2, "Ann")]) == [{"speaker": "Ann", "num_segments": 1, "seconds": 2}]
    assert summarize_speakers([]) == []
