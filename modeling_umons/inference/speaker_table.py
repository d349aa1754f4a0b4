"""Tables of speakers: how long each speaks, with the means of the predictions."""

from collections.abc import Iterable
from typing import Any

from .timeline_formats import scores_of


def summarize_speakers(segments: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """
    Summarize the predictions of segments by speaker.

    Args:
        segments: predictions with `timestamp` and `speaker`. Those without a speaker are those of "unknown"; those
            without input count for the seconds only.

    Returns:
        A dict for each speaker in order of appearance, with `speaker`, `num_segments`, `seconds`, and the means of the
        predictions, weighted by duration: `sentiment` and `scores`, `{label: mean}`, if there are any.
    """
    by_speaker: dict[str, list[dict[str, Any]]] = {}
    for segment in segments:
        by_speaker.setdefault(segment.get("speaker") or "unknown", []).append(segment)
    return [_summarize(speaker, own) for speaker, own in by_speaker.items()]


def _summarize(speaker: str, segments: list[dict[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "speaker": speaker,
        "num_segments": len(segments),
        "seconds": round(sum(map(_duration, segments)), 3),
    }
    sentiments = [(segment["sentiment"], _duration(segment)) for segment in segments if "sentiment" in segment]
    if sentiments:
        row["sentiment"] = _mean(sentiments)
    scores: dict[str, list[tuple[float, float]]] = {}
    for segment in segments:
        for label, score in scores_of(segment).items():
            scores.setdefault(label, []).append((score, _duration(segment)))
    if scores:
        row["scores"] = {label: _mean(values) for label, values in scores.items()}
    return row


def _duration(segment: dict[str, Any]) -> float:
    start, end = segment["timestamp"]
    return end - start


def _mean(values: list[tuple[float, float]]) -> float:
    """Return the weighted mean of (value, weight)."""
    total = sum(weight for _, weight in values)
    return sum(value * weight for value, weight in values) / total if total else values[0][0]
