#!/usr/bin/env python
"""Draw the architecture of the model, docs/architecture.png.

python scripts/draw_architecture.py
"""

from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch


OUTPUT = Path(__file__).resolve().parent.parent / "docs" / "architecture.png"
COLORS = {"text": "#2a6fbb", "audio": "#c2571a", "video": "#3b8a4e"}
INK, LIGHT = "#22262b", "#f2f4f7"
# Per modality: its input, the front end, and what the block applies to it.
ROWS = {
    "text": ("words", "embedding, LSTM\nor a pretrained encoder", "self-attention\nMLP"),
    "audio": (
        "log-mel frames\nor a waveform",
        "linear map\nor a pretrained encoder",
        "self-attention\ncross-attention\nMLP",
    ),
    "video": (
        "clips of frames",
        "R(2+1)D, linear map\nor a pretrained encoder",
        "self-attention\ncross-attention\nMLP",
    ),
}
COLUMNS = {
    "input": (0.0, 1.75),
    "front_end": (2.35, 2.55),
    "attention": (5.85, 2.05),
    "glimpses": (8.3, 1.55),
    "pool": (10.75, 1.55),
}
HEIGHT = 1.0


def draw_box(ax: Axes, column: str, y: float, text: str, color: str, is_filled: bool = False) -> None:
    x, width = COLUMNS[column]
    box = FancyBboxPatch(
        (x, y - HEIGHT / 2), width, HEIGHT, boxstyle="round,pad=0.02,rounding_size=0.12", linewidth=1.4,
        edgecolor=color, facecolor=color if is_filled else "white", zorder=3,
    )  # fmt: skip
    ax.add_patch(box)
    ax.text(
        x + width / 2, y, text, ha="center", va="center", fontsize=10, color="white" if is_filled else INK, zorder=4
    )


def draw_arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], color: str = INK) -> None:
    properties = {
        "arrowstyle": "-|>",
        "color": color,
        "linewidth": 1.4,
        "shrinkA": 1,
        "shrinkB": 1,
    }
    ax.annotate("", end, start, arrowprops=properties, zorder=2)


def right_of(column: str) -> float:
    return sum(COLUMNS[column])


def draw_architecture() -> Figure:
    figure = Figure(figsize=(13, 4.6), dpi=130)
    ax = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    ax.set(xlim=(-0.2, 15.2), ylim=(-0.85, 4.65))
    ax.axis("off")

    left, right = COLUMNS["attention"][0] - 0.55, right_of("glimpses") + 0.3
    block = FancyBboxPatch(
        (left, -0.7), right - left, 4.75, boxstyle="round,pad=0,rounding_size=0.15", linewidth=1, edgecolor="#c3c9d1",
        facecolor=LIGHT, zorder=0,
    )  # fmt: skip
    ax.add_patch(block)
    ax.text((left + right) / 2, 4.3, "block, repeated num_hidden_layers times", ha="center", fontsize=10.5, color=INK)

    heights = dict(zip(ROWS, (3.3, 1.7, 0.1), strict=True))
    for modality, (source, front_end, attention) in ROWS.items():
        y, color = heights[modality], COLORS[modality]
        draw_box(ax, "input", y, source, color, is_filled=True)
        draw_box(ax, "front_end", y, front_end, color)
        draw_box(ax, "attention", y, attention, color)
        draw_box(ax, "glimpses", y, "glimpses\n(not in the\nlast block)", color)
        draw_box(ax, "pool", y, "final glimpse", color)
        chain = list(COLUMNS)
        for before, after in pairwise(chain):
            draw_arrow(ax, (right_of(before), y), (COLUMNS[after][0], y))
        draw_arrow(ax, (right_of("pool"), y), (13.1, 1.7 + 0.25 * (y - 1.7)))

    # The guide is the input of the block, before its own self-attention.
    guide, entry = COLUMNS["attention"][0] - 0.35, 0.3
    ax.plot([guide, guide], [heights["text"], heights["video"] + entry], color=COLORS["text"], linewidth=1.4, zorder=2)
    for modality in ("audio", "video"):
        y = heights[modality] + entry
        draw_arrow(ax, (guide, y), (COLUMNS["attention"][0], y), COLORS["text"])
    ax.text(guide + 0.12, 2.5, "guides the others", ha="left", va="center", fontsize=9.5, color=COLORS["text"])

    ax.text(13.35, 1.7, "$\\Sigma$", ha="center", va="center", fontsize=24, color=INK)
    draw_arrow(ax, (13.6, 1.7), (14.0, 1.7))
    ax.text(
        14.05, 1.7, "LayerNorm\nlinear head\n\nsentiment,\nemotions", ha="left", va="center", fontsize=10, color=INK
    )
    return figure


if __name__ == "__main__":
    draw_architecture().savefig(OUTPUT)
