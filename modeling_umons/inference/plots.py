"""Plots of predictions and attention weights. They need matplotlib (the extra `plot`)."""

from pathlib import Path
from typing import Any

from ..utils.files import atomic_path


# Colours that colour-blind readers can distinguish (Okabe and Ito).
COLORS = {"happy": "#E69F00", "sad": "#0072B2", "anger": "#D55E00", "surprise": "#56B4E9", "disgust": "#009E73",
          "fear": "#CC79A7"}  # fmt: skip
NEUTRAL = "#666666"


def entries_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the labels of a prediction with their scores: emotions, classes or numbers."""
    return result.get("emotions") or result.get("labels") or result.get("values") or []


def plot_result(result: dict[str, Any], path: str | Path, title: str = ""):
    """
    Plot a prediction made with `return_attention=True`: the scores, and for each modality the attention weights of its
    final glimpse over words or seconds.

    Args:
        result: one prediction of [`MultimodalEmotionPipeline`], not a list of segments.
        path: image file; its suffix sets the format.
        title: title of the plot.
    """
    from matplotlib.figure import Figure  # not pyplot, which has global state

    attention = result.get("attention", {})
    figure = Figure(figsize=(8, 2.6 + 1.9 * len(attention)), layout="constrained")
    axes = figure.subplots(1 + len(attention), 1, squeeze=False, height_ratios=[1.4, *[1] * len(attention)])[:, 0]
    if title:
        figure.suptitle(drawable(title), parse_math=False)
    _draw_scores(axes[0], result)
    for axis, (modality, weights) in zip(axes[1:], attention.items(), strict=True):
        if modality == "text":
            _draw_words(axis, weights)
        else:
            _draw_times(axis, modality, weights)
    save_figure(figure, path, dpi=120)


def save_figure(figure, path: str | Path, dpi: int):
    """Write a figure atomically."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi)


def _draw_scores(axis, result: dict[str, Any]):
    ranked = entries_of(result)[::-1]
    names = [entry["label"] for entry in ranked]
    positions = range(len(names))
    colors = [COLORS.get(name, NEUTRAL) for name in names]
    bars = axis.barh(positions, [entry["score"] for entry in ranked], color=colors)
    axis.set_yticks(positions, [drawable(name) for name in names], parse_math=False)
    axis.bar_label(bars, fmt="%.2f", padding=3)
    if "values" in result:
        axis.set_xlabel("value")
    else:
        axis.set_xlim(0, 1.12)
        axis.set_xlabel("score")
    if "sentiment" in result:
        axis.set_title(f"sentiment {result['sentiment']:+.2f} (from -3 to +3)", loc="left")


def _draw_words(axis, weights: list[dict[str, Any]]):
    positions = range(len(weights))
    axis.bar(positions, [entry["weight"] for entry in weights], color=NEUTRAL)
    slant = {"rotation": 60, "ha": "right"} if len(weights) > 8 else {}
    axis.set_xticks(positions, [drawable(entry["word"]) for entry in weights], parse_math=False, **slant)
    axis.set_ylabel("weight")
    axis.set_title("attention weights: text", loc="left")


def _draw_times(axis, modality: str, weights: list[dict[str, Any]]):
    times = [entry["time"] for entry in weights]
    step = times[1] - times[0] if len(times) > 1 else 0.2
    axis.bar(times, [entry["weight"] for entry in weights], width=0.9 * step, color=NEUTRAL)
    axis.set_xlabel("seconds")
    axis.set_ylabel("weight")
    axis.set_title(f"attention weights: {modality}", loc="left")


def drawable(text: str, weight: str = "normal") -> str:
    r"""Escape the characters that matplotlib's font lacks, such as Chinese, as in Python: `\u4f60`."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties(weight=weight)))
    return "".join(
        character
        if character == "\n" or font.get_char_index(ord(character))
        else character.encode("unicode_escape").decode()
        for character in text
    )
