"""Pictures of what a model says and of where it looked. Needs matplotlib (the extra `serve`)."""

from pathlib import Path
from typing import Any


# One colour for each emotion, told apart by those who see red and green alike (Okabe and Ito).
COLORS = {"happy": "#E69F00", "sad": "#0072B2", "anger": "#D55E00", "surprise": "#56B4E9", "disgust": "#009E73",
          "fear": "#CC79A7"}  # fmt: skip
NEUTRAL = "#666666"


def plot_result(result: dict[str, Any], path: str | Path, title: str = ""):
    """
    Draws a pipeline's result, given with `return_attention=True`, into the image file `path`: the scores, and below them
    for each modality the weights of its final glimpse, over words or over seconds.

    Args:
        result: one result of [`MultimodalEmotionPipeline`], not a list of segments.
        path: where to write; its suffix says the format.
        title: a line above the picture.
    """
    from matplotlib.figure import Figure  # the object, not pyplot: nothing global, no window

    attention = result.get("attention", {})
    figure = Figure(figsize=(8, 2.6 + 1.9 * len(attention)), layout="constrained")
    axes = figure.subplots(1 + len(attention), 1, squeeze=False, height_ratios=[1.4, *[1] * len(attention)])[:, 0]
    if title:
        figure.suptitle(title, parse_math=False)  # a dollar is a dollar
    _draw_scores(axes[0], result)
    for axis, (modality, weights) in zip(axes[1:], attention.items(), strict=True):
        if modality == "text":
            _draw_words(axis, weights)
        else:
            _draw_times(axis, modality, weights)
    figure.savefig(path, dpi=120)


def _draw_scores(axis, result: dict[str, Any]):
    ranked = (result.get("emotions") or result.get("labels") or [])[::-1]
    names = [entry["label"] for entry in ranked]
    bars = axis.barh(names, [entry["score"] for entry in ranked], color=[COLORS.get(name, NEUTRAL) for name in names])
    axis.bar_label(bars, fmt="%.2f", padding=3)
    axis.set_xlim(0, 1.12)
    axis.set_xlabel("score")
    if "sentiment" in result:
        axis.set_title(f"sentiment {result['sentiment']:+.2f} (from -3 to +3)", loc="left")


def _draw_words(axis, weights: list[dict[str, Any]]):
    positions = range(len(weights))
    axis.bar(positions, [entry["weight"] for entry in weights], color=NEUTRAL)
    slant = {"rotation": 60, "ha": "right"} if len(weights) > 8 else {}
    axis.set_xticks(positions, [entry["word"] for entry in weights], parse_math=False, **slant)
    axis.set_ylabel("weight")
    axis.set_title("where it looked: words", loc="left")


def _draw_times(axis, modality: str, weights: list[dict[str, Any]]):
    times = [entry["time"] for entry in weights]
    step = times[1] - times[0] if len(times) > 1 else 0.2
    axis.bar(times, [entry["weight"] for entry in weights], width=0.9 * step, color=NEUTRAL)
    axis.set_xlabel("seconds")
    axis.set_ylabel("weight")
    axis.set_title(f"where it looked: {modality}", loc="left")
