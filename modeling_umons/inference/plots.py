# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Plots of predictions and attention weights. They need matplotlib (the extra `plot`)."""

from pathlib import Path
from typing import Any

from ..utils.files import atomic_path


# Colours that colour-blind readers can distinguish (Okabe and Ito).
COLORS = {"happy": "#E69F00", "sad": "#0072B2", "anger": "#D55E00", "surprise": "#56B4E9", "disgust": "#009E73",
          "fear": "#CC79A7"}  # fmt: skip
NEUTRAL = "#666666"
GAP = "#efefef"
MAX_STEPS = 400  # steps of a timeline: more would be too narrow to see


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
        figure.suptitle(_drawable(title), parse_math=False)
    _draw_scores(axes[0], result)
    for axis, (modality, weights) in zip(axes[1:], attention.items(), strict=True):
        if modality == "text":
            _draw_words(axis, weights)
        else:
            _draw_times(axis, modality, weights)
    _save(figure, path, dpi=120)


def _save(figure, path: str | Path, dpi: int):
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi)


def _draw_scores(axis, result: dict[str, Any]):
    ranked = entries_of(result)[::-1]
    names = [entry["label"] for entry in ranked]
    positions = range(len(names))
    colors = [COLORS.get(name, NEUTRAL) for name in names]
    bars = axis.barh(positions, [entry["score"] for entry in ranked], color=colors)
    axis.set_yticks(positions, [_drawable(name) for name in names], parse_math=False)
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
    axis.set_xticks(positions, [_drawable(entry["word"]) for entry in weights], parse_math=False, **slant)
    axis.set_ylabel("weight")
    axis.set_title("attention weights: text", loc="left")


def _draw_times(axis, modality: str, weights: list[dict[str, Any]]):
    times = [entry["time"] for entry in weights]
    step = times[1] - times[0] if len(times) > 1 else 0.2
    axis.bar(times, [entry["weight"] for entry in weights], width=0.9 * step, color=NEUTRAL)
    axis.set_xlabel("seconds")
    axis.set_ylabel("weight")
    axis.set_title(f"attention weights: {modality}", loc="left")


def plot_timeline(segments: list[dict[str, Any]], path: str | Path, labels: list[str] | None = None, title: str = ""):
    """
    Plot the sentiment and each score over time, with gaps in grey. For a long clip, plot means of adjacent segments.

    Args:
        segments: predictions of [`MultimodalEmotionPipeline`] with `timestamp`, in order of time.
        path: image file; its suffix sets the format.
        labels: names of the scores, from top to bottom; by default in the order of the predictions.
        title: title of the plot.

    Raises:
        ValueError: there are no segments.
    """
    from matplotlib.figure import Figure

    if not segments:
        raise ValueError("There are no segments to plot.")
    edges, sentiment, scores = _as_steps(segments)
    names = [name for name in labels or scores if name in scores]
    heights = [1.5] * (sentiment is not None) + [0.62] * len(names)
    figure = Figure(figsize=(10, 1.2 + sum(heights or [1])), layout="constrained")
    figure.get_layout_engine().set(hspace=0.02, h_pad=0.03)
    axes = figure.subplots(max(1, len(heights)), 1, squeeze=False, sharex=True, height_ratios=heights or None)[:, 0]
    if title:
        axes[0].set_title(_drawable(title, "bold"), loc="left", parse_math=False, fontweight="bold")
    for axis in axes:
        _prepare_time(axis, edges)
    if sentiment is not None:
        _draw_sentiment(axes[0], sentiment, edges)
    for axis, name in zip(axes[len(axes) - len(names) :], names, strict=True):
        _draw_steps(axis, name, scores[name], edges)
    num_segments = len(segments) / max(1, len(edges) - 1)
    axes[-1].tick_params(axis="x", bottom=True, labelbottom=True)
    axes[-1].set_xlabel("time" if num_segments <= 1 else f"time (mean of {round(num_segments)} segments per step)")
    figure.align_ylabels(axes)
    _save(figure, path, dpi=110)


def _as_steps(segments: list[dict[str, Any]]):
    """Return edges (steps + 1,) in s, sentiment (steps,) or `None`, and scores (steps,) by name; gaps are NaN."""
    import numpy as np

    rows = [
        {entry["label"]: entry["score"] for entry in entries_of(segment)}
        | ({"sentiment of all": segment["sentiment"]} if "sentiment" in segment else {})
        for segment in segments
    ]
    edges, steps = [segments[0]["timestamp"][0]], []
    for segment, row in zip(segments, rows, strict=True):
        start, end = segment["timestamp"]
        if start > edges[-1]:  # a gap
            edges.append(start)
            steps.append({})
        edges.append(end)
        steps.append(row)
    together = -(-len(steps) // MAX_STEPS)
    edges = [*edges[:-1][::together], edges[-1]]
    groups = [steps[first : first + together] for first in range(0, len(steps), together)]
    values = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        known = [[row[name] for row in group if name in row] for group in groups]
        values[name] = np.array([np.mean(group) if group else np.nan for group in known])
    return np.array(edges), values.pop("sentiment of all", None), values


def _prepare_time(axis, edges):
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    span = edges[-1] - edges[0]
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600)
    step = next((step for step in steps if span / step <= 10), span / 10)
    axis.xaxis.set_major_locator(MultipleLocator(step))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda time, _: _clock(time, span)))
    axis.set_xlim(edges[0], edges[-1])
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(axis="x", bottom=False, labelbottom=False)
    axis.grid(axis="x", color="#e5e5e5", linewidth=0.8)
    axis.set_axisbelow(True)


def _clock(time: float, span: float) -> str:
    """Format seconds for an axis that spans `span` seconds: 1:02:03, 2:03 or 2.5 s."""
    if span < 10:
        return f"{time:g} s"
    minutes, seconds = divmod(round(time), 60)
    return f"{minutes}:{seconds:02d}" if span < 3600 else f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def _draw_sentiment(axis, sentiment, edges):
    import numpy as np

    _draw_gaps(axis, sentiment, edges)
    axis.stairs(sentiment, edges, fill=True, color=NEUTRAL, linewidth=0)
    limit = max(3.0, np.nanmax(np.abs(sentiment), initial=0))
    axis.axhline(0, color=NEUTRAL, linewidth=0.8)
    axis.set_ylim(-limit, limit)
    axis.set_yticks([-3, 0, 3], ["-3", "0", "+3"])
    _name_row(axis, "sentiment")


def _draw_steps(axis, name: str, scores, edges):
    import numpy as np

    color = COLORS.get(name, NEUTRAL)
    _draw_gaps(axis, scores, edges)
    axis.stairs(scores, edges, fill=True, color=color, alpha=0.55, linewidth=0)
    axis.stairs(scores, edges, color=color, linewidth=1.2, baseline=None)
    if np.nanmin(scores, initial=0) >= 0 and np.nanmax(scores, initial=0) <= 1:  # probabilities
        axis.set_ylim(0, 1.02)
        axis.set_yticks([0, 1])
    _name_row(axis, name)


def _draw_gaps(axis, values, edges):
    import numpy as np

    for step in np.flatnonzero(np.isnan(values)):
        axis.axvspan(edges[step], edges[step + 1], color=GAP, linewidth=0)


def _name_row(axis, name: str):
    axis.set_ylabel(_drawable(name), rotation=0, ha="right", va="center", labelpad=8, parse_math=False)


def _drawable(text: str, weight: str = "normal") -> str:
    r"""Escape the characters that matplotlib's font lacks, such as Chinese, as in Python: `\u4f60`."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties(weight=weight)))
    return "".join(
        character
        if character == "\n" or font.get_char_index(ord(character))
        else character.encode("unicode_escape").decode()
        for character in text
    )
