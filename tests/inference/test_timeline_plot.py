"""Plots of timelines."""

import numpy as np
import pytest
from PIL import Image

from modeling_umons.inference.timeline_plot import (
    MAX_STEPS,
    NO_SPEECH,
    SPEAKER_COLORS,
    average_segments,
    find_words,
    plot_timeline,
    wrap_words,
)


def timeline(*scores: float | None) -> list[dict]:
    """Return segments of one second with these scores of `happy`."""
    return [
        {"timestamp": (k, k + 1)}
        | ({} if score is None else {"sentiment": 3 * score, "emotions": [{"label": "happy", "score": score}]})
        for k, score in enumerate(scores)
    ]


def share_of(path, color: str) -> float:
    """Return the share of a row of the plot that has a colour, where it has most of it."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    return (pixels == tuple(bytes.fromhex(color[1:]))).all(axis=-1).mean(axis=1).max()


def test_time_without_segments_is_grey(tmp_path):
    segments = timeline(0.5, 0.5, 0.5, 0.5)
    plot_timeline(segments, tmp_path / "plot.png", title="from $5_{ to $6")
    assert share_of(tmp_path / "plot.png", NO_SPEECH["facecolor"]) < 0.05
    plot_timeline([segments[0], segments[3]], tmp_path / "plot.png")
    assert share_of(tmp_path / "plot.png", NO_SPEECH["facecolor"]) == pytest.approx(0.45, abs=0.06)
    curves = average_segments([segments[0], segments[3]])
    assert curves.edges.tolist() == [0, 1, 3, 4]
    assert np.isnan(curves.sentiment).tolist() == [False, True, False]
    assert curves.is_covered.tolist() == [True, False, True]


def test_segments_without_prediction_are_covered():
    curves = average_segments(timeline(0.5, None, 0.25))
    assert curves.scores["happy"] == pytest.approx([0.5, np.nan, 0.25], nan_ok=True)
    assert curves.is_covered.all()


def test_overlapping_segments_are_averaged():
    segments = timeline(0.2, 0.4)
    segments[0]["timestamp"], segments[1]["timestamp"] = (0, 4), (2, 6)
    curves = average_segments(segments)
    assert curves.edges.tolist() == [0, 2, 4, 6]
    assert curves.scores["happy"] == pytest.approx([0.2, 0.3, 0.4])
    assert curves.sentiment == pytest.approx([0.6, 0.9, 1.2])


def test_long_timelines_are_averaged(tmp_path):
    """Steps with gaps only stay gaps."""
    curves = average_segments(timeline(*[0.25, 0.75] * 5000, *[None] * 500))
    assert len(curves.edges) == len(curves.sentiment) + 1 == MAX_STEPS + 1
    assert (curves.edges[0], curves.edges[-1]) == (0, 10500)
    assert curves.scores["happy"][:300] == pytest.approx(np.full(300, 0.5), abs=0.02)
    assert np.isnan(curves.scores["happy"][-5:]).all()
    plot_timeline(timeline(*[0.25] * 2000), tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").stat().st_size < 200_000


def test_words_are_wrapped_under_their_time(tmp_path):
    """Sixty words in twenty seconds, as a fast speaker has them."""
    words = [(i / 3, i / 3 + 0.3, f"word{i}") for i in range(60)]
    paragraphs = wrap_words(words, 0.0, 20.0)
    assert [word for _, lines in paragraphs for line in lines for word in line.split()] == [w for *_, w in words]
    starts = {text: start for start, _, text in words}
    assert all(start == starts[lines[0].split()[0]] for start, lines in paragraphs)
    assert len(paragraphs) >= 4
    assert wrap_words([(start, end, 8 * text) for start, end, text in words], 0.0, 20.0) is None
    assert wrap_words([], 0.0, 20.0) == []
    segments = [{**segment, "text": " ".join(["well"] * 80)} for segment in timeline(0.5, 0.5)]
    plot_timeline(segments, tmp_path / "plot.png")  # with the note that words are left out


def test_text_without_times_is_spread_over_its_segment():
    assert find_words([{"timestamp": (2, 4), "text": "so glad"}]) == [(2, 3, "so"), (3, 4, "glad")]


def test_speakers_have_colors(tmp_path):
    segments = [{**segment, "speaker": name} for segment, name in zip(timeline(0.1, 0.2, 0.3), "ABA", strict=True)]
    plot_timeline(segments, tmp_path / "plot.png")
    first, second = (share_of(tmp_path / "plot.png", color) for color in SPEAKER_COLORS[:2])
    assert first == pytest.approx(2 * second, rel=0.1)


def test_eight_speakers_have_colors_in_the_legend(tmp_path):
    names = [f"person number {i}" for i in range(8)]
    segments = [{**segment, "speaker": name} for segment, name in zip(timeline(*[0.1] * 8), names, strict=True)]
    plot_timeline(segments, tmp_path / "plot.png")
    shares = [share_of(tmp_path / "plot.png", color) for color in SPEAKER_COLORS]
    assert len(set(SPEAKER_COLORS)) == 8
    assert max(shares) == pytest.approx(min(shares), rel=0.05)  # a legend that is too wide is cut


def test_timelines_without_scores(tmp_path):
    plot_timeline(timeline(None, None), tmp_path / "plot.png")
    plot_timeline([{"timestamp": (0, 1), "sentiment": 1.0}], tmp_path / "plot.png")
    plot_timeline([{"timestamp": (1, 1), "sentiment": 1.0}], tmp_path / "plot.png")
    labels = [{"label": "\u4f60\u597d", "score": 1.0}]  # without a glyph
    plot_timeline([{"timestamp": (0, 1), "labels": labels, "text": "\u4f60"}], tmp_path / "plot.png", title="\u4f60")
    with pytest.raises(ValueError, match="no segments to plot"):
        plot_timeline([], tmp_path / "plot.png")
