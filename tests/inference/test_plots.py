"""Plots of predictions."""

import numpy as np
import pytest
from PIL import Image

from modeling_umons.inference.plots import COLORS, drawable, plot_result


WORDS = [{"word": word, "weight": weight} for word, weight in (("so", 0.1), ("very", 0.2), ("glad", 0.7))]
TIMES = [{"time": 0.2 * i, "weight": 0.1} for i in range(10)]
EMOTIONS = [{"label": name, "score": 0.9 - 0.1 * i} for i, name in enumerate(COLORS)]


def colors(path) -> set[tuple[int, int, int]]:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    found, counts = np.unique(pixels, axis=0, return_counts=True)
    return {tuple(map(int, color)) for color, count in zip(found, counts, strict=True) if count > 200}


def rgb(name: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(COLORS[name][1:]))


def test_each_emotion_has_a_bar(tmp_path):
    result = {"sentiment": 1.5, "emotions": EMOTIONS, "modalities": ["text", "audio"]}
    plot_result({**result, "attention": {"text": WORDS, "audio": TIMES}}, tmp_path / "plot.png", title="a clip")
    assert {rgb(name) for name in COLORS} <= colors(tmp_path / "plot.png")
    assert len(set(COLORS.values())) == 6


def test_length_of_a_bar_is_the_score(tmp_path):
    widths = []
    for score in (0.2, 0.8):
        plot_result({"emotions": [{"label": "happy", "score": score}]}, tmp_path / "plot.png")
        with Image.open(tmp_path / "plot.png") as image:
            is_bar = (np.asarray(image.convert("RGB")) == rgb("happy")).all(axis=-1)
        widths.append(is_bar.any(axis=0).sum())
    assert widths[1] == pytest.approx(4 * widths[0], rel=0.05)


@pytest.mark.parametrize(
    "result",
    [
        {"sentiment": -2.0, "modalities": ["text"], "attention": {"text": WORDS}},  # regression: no scores
        {"labels": [{"label": "calm", "score": 1.0}], "attention": {"audio": TIMES[:1]}},  # a single frame
        {"emotions": EMOTIONS, "attention": {"text": WORDS * 20}},  # 60 words
        {"emotions": EMOTIONS, "attention": {"text": [{"word": "$5_{$", "weight": 1.0}]}},  # no formula
    ],
)
def test_predictions_of_other_models(tmp_path, result):
    plot_result(result, tmp_path / "plot.png", title="from $5_{ to $6")
    assert len(colors(tmp_path / "plot.png")) >= 2


def test_characters_without_glyph_are_escaped(tmp_path):
    """matplotlib would warn, and warnings are errors here."""
    name = "你好 😀 \udcff Größe\t$5_{"
    labels = [{"label": name, "score": 0.5}, {"label": "calm", "score": 0.4}]
    attention = {"text": [{"word": name, "weight": 1.0}]}
    plot_result({"labels": labels, "attention": attention}, tmp_path / "plot.svg", title=name)
    assert drawable(name) == "\\u4f60\\u597d 😀 \\udcff Größe\\t$5_{"
    assert drawable("a\nb", "bold") == "a\nb"


def test_suffix_sets_the_format(tmp_path):
    plot_result({"emotions": EMOTIONS}, tmp_path / "plot.svg")
    assert "<svg" in (tmp_path / "plot.svg").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="not supported"):
        plot_result({"emotions": EMOTIONS}, tmp_path / "plot.xyz")
    assert [path.name for path in tmp_path.iterdir()] == ["plot.svg"]
