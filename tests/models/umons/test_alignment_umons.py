"""Times of the words of a given text."""

import itertools

import pytest

from modeling_umons.models.umons.alignment_umons import align_text


REGIONS = [(1.0, 3.0), (5.0, 6.0)]


def heard(**times: tuple[float, float]) -> list[dict]:
    return [{"word": f"{word.title()},", "timestamp": time} for word, time in times.items()]


def times_of(words: list[dict]) -> list[tuple[float, float]]:
    return [word["timestamp"] for word in words]


def test_transcribed_words_have_the_times_of_their_transcript():
    words, warnings = align_text("So very glad today.", heard(so=(1, 1.5), very=(1.6, 2), today=(5.2, 6)), REGIONS)
    assert [word["word"] for word in words] == ["So", "very", "glad", "today."]
    assert times_of(words) == [(1, 1.5), (1.6, 2), (2, 5.2), (5.2, 6)]
    assert warnings == []


def test_text_without_a_transcript_is_spread_over_the_speech():
    words, (warning,) = align_text("aa bb cc", [], REGIONS)
    assert times_of(words) == [(1, pytest.approx(2)), (pytest.approx(2), pytest.approx(3)), (5, pytest.approx(6))]
    assert warning["code"] == "estimated_times"
    assert "3 of the 3 words are estimates: pass `transcriber`" in warning["message"]


def test_other_words_than_the_transcript_are_a_warning():
    words, (warning,) = align_text("one two three four", heard(four=(5.5, 6), nothing=(6, 6.5)), REGIONS)
    assert words[-1]["timestamp"] == (5.5, 6)
    assert all(before[1] <= after[0] + 1e-9 for before, after in itertools.pairwise(times_of(words)))
    assert "3 of the 4 words are estimates: the transcript differs" in warning["message"]
    assert align_text("", [], REGIONS) == ([], [])
