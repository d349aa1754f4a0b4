"""Plots of timelines: sentiment, scores, speakers and words over time. They need matplotlib (the extra `plot`)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .plots import COLORS, NEUTRAL, drawable, entries_of, save_figure


MAX_STEPS = 400  # steps of a curve: more would be too narrow to see
WIDTH = 11.0  # inches
AXES_WIDTH = 9.5  # inches from the first to the last second
WORD_SIZE = 7.5  # points
LINE_HEIGHT = 0.16  # inches
MAX_WORDS = 400
MAX_LINES = 6  # of words
SPACE = 0.04  # inches between words
PARAGRAPH_WIDTH = 2.0  # inches, after which words continue in the next paragraph
PAUSE_S = 0.3  # that begins another paragraph
NO_SPEECH = {"facecolor": "#e6e6e6", "linewidth": 0}
NO_PREDICTION = {"facecolor": "#f4f4f4", "edgecolor": "#bdbdbd", "hatch": "////", "linewidth": 0}
SPEAKER_COLORS = (
    "#4477AA",
    "#EE6677",
    "#228833",
    "#CCBB44",
    "#66CCEE",
    "#AA3377",
    "#999933",
    "#882255",
)  # Tol, also for colour-blind readers; as many as diarization finds at most
LEGEND_SIZE = 9  # points
HANDLE_WIDTH = 0.7  # inches of a colour in the legend, with its margins


@dataclass
class Curves:
    """
    Means over time.

    Attributes:
        edges: float64 (num_steps + 1,), seconds.
        sentiment: float64 (num_steps,), NaN without a prediction; `None` if no segment has one.
        scores: the same for each score.
        is_covered: bool (num_steps,), whether a segment includes the step.
        segments_per_step: mean number of segments.
    """

    edges: np.ndarray
    sentiment: np.ndarray | None
    scores: dict[str, np.ndarray]
    is_covered: np.ndarray
    segments_per_step: float


def plot_timeline(segments: list[dict[str, Any]], path: str | Path, labels: list[str] | None = None, title: str = ""):
    """
    Plot the sentiment and each score over time, the speakers and the words.

    Time without speech is grey, segments without prediction are hatched. Overlapping segments are averaged, and so are
    adjacent ones of a long recording. Words that do not fit are all left out, and the axis label names their number.

    Args:
        segments: predictions of [`MultimodalEmotionPipeline`] with `timestamp`, in order of time.
        path: image file; its suffix sets the format.
        labels: names of the scores, from top to bottom; by default in the order of the predictions.
        title: title of the plot.

    Raises:
        ValueError: there are no segments.
    """
    from matplotlib.figure import Figure  # not pyplot, which has global state

    if not segments:
        raise ValueError("There are no segments to plot.")
    curves = average_segments(segments)
    names = [name for name in labels or curves.scores if name in curves.scores]
    words = [(start, end, drawable(word)) for start, end, word in find_words(segments)]
    paragraphs = wrap_words(words, curves.edges[0], curves.edges[-1]) if len(words) <= MAX_WORDS else None
    num_lines = max((len(lines) for _, lines in paragraphs or ()), default=0)
    speakers = list(dict.fromkeys(segment["speaker"] for segment in segments if segment.get("speaker") is not None))
    heights = [1.5] * (curves.sentiment is not None) + [0.25] * bool(speakers)
    heights += [LINE_HEIGHT * num_lines + 0.05] * bool(paragraphs) + [0.62] * len(names)
    figure = Figure(figsize=(WIDTH, 1.5 + sum(heights or [1])), layout="constrained")
    figure.get_layout_engine().set(hspace=0.02, h_pad=0.03)
    axes = figure.subplots(max(1, len(heights)), 1, squeeze=False, sharex=True, height_ratios=heights or None)[:, 0]
    if title:
        axes[0].set_title(drawable(title, "bold"), loc="left", parse_math=False, fontweight="bold")
    for axis in axes:
        _prepare_time(axis, curves.edges)
    rows = iter(axes)
    if curves.sentiment is not None:
        _draw_sentiment(next(rows), curves)
    if speakers:
        _draw_speakers(next(rows), segments, speakers)
    if paragraphs:
        _draw_words(next(rows), paragraphs, num_lines)
    for name in names:
        _draw_score(next(rows), name, curves)
    axes[-1].tick_params(axis="x", bottom=True, labelbottom=True)
    notes = ["time"]
    if curves.segments_per_step > 1:
        notes.append(f"mean of about {round(curves.segments_per_step)} segments per step")
    if words and paragraphs is None:
        notes.append(f"the {len(words)} words are too many to be shown")
    figure.align_ylabels(axes)
    axes[-1].set_xlabel("; ".join(notes))
    _add_legend(figure, curves, names, speakers)
    save_figure(figure, path, dpi=130)


def average_segments(segments: list[dict[str, Any]], max_steps: int = MAX_STEPS) -> Curves:
    """Return the means over time of the predictions of segments, which may overlap."""
    rows = [
        {entry["label"]: entry["score"] for entry in entries_of(segment)}
        | ({"sentiment of all": segment["sentiment"]} if "sentiment" in segment else {})
        for segment in segments
    ]
    times = np.array([segment["timestamp"] for segment in segments], dtype=np.float64)
    edges = np.unique(times if np.ptp(times) else [times[0, 0], times[0, 0] + 1e-3])
    first, last = np.searchsorted(edges, times[:, 0]), np.searchsorted(edges, times[:, 1])

    def spread(values: np.ndarray) -> np.ndarray:
        """Return the sum of the values of the segments in each step."""
        steps = np.zeros(len(edges))
        np.add.at(steps, first, values)
        np.add.at(steps, last, -values)
        return np.cumsum(steps)[:-1]

    number = np.rint(spread(np.ones(len(rows))))
    grid = edges if len(edges) <= max_steps + 1 else np.linspace(edges[0], edges[-1], max_steps + 1)
    widths = np.diff(edges)

    def resample(steps: np.ndarray) -> np.ndarray:
        """Return the integral of steps over each cell of the grid."""
        return np.diff(np.interp(grid, edges, np.concatenate([[0.0], np.cumsum(steps * widths)])))

    values = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        has = np.array([float(name in row) for row in rows])
        total, weight = (
            resample(spread(np.array([row.get(name, 0.0) for row in rows]))),
            resample(np.rint(spread(has))),
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            values[name] = np.where(weight > 1e-9, total / weight, np.nan)
    is_covered = resample((number > 0).astype(float)) > 1e-9
    sentiment = values.pop("sentiment of all", None)
    return Curves(grid, sentiment, values, is_covered, len(rows) / max(1, len(grid) - 1))


def find_words(segments: list[dict[str, Any]]) -> list[tuple[float, float, str]]:
    """Return the words of segments with their times, each once. Words without times share those of their segment."""
    found = {}
    for segment in segments:
        words = segment.get("words") or []
        if words and all(None not in word["timestamp"] for word in words):
            timed = [(*word["timestamp"], word["word"]) for word in words]
        else:
            start, end = segment["timestamp"]
            texts = (segment.get("text") or "").split()
            step = (end - start) / max(1, len(texts))
            timed = [(start + i * step, start + (i + 1) * step, text) for i, text in enumerate(texts)]
        found.update(dict.fromkeys(timed))
    return sorted(found)


def _prepare_time(axis, edges):
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    span = edges[-1] - edges[0]
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600)
    step = next((step for step in steps if span / step <= 12), span / 12)
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


def _draw_sentiment(axis, curves: Curves):
    _draw_gaps(axis, curves.sentiment, curves)
    axis.stairs(np.clip(curves.sentiment, 0, None), curves.edges, fill=True, color="#7FB77E", linewidth=0)
    axis.stairs(np.clip(curves.sentiment, None, 0), curves.edges, fill=True, color="#D98880", linewidth=0)
    axis.stairs(curves.sentiment, curves.edges, color=NEUTRAL, linewidth=1.2, baseline=None)
    limit = max(3.0, np.nanmax(np.abs(curves.sentiment), initial=0))
    axis.axhline(0, color=NEUTRAL, linewidth=0.8)
    axis.set_ylim(-limit, limit)
    axis.set_yticks([-3, 0, 3], ["-3", "0", "+3"])
    _name_row(axis, "sentiment")


def _draw_score(axis, name: str, curves: Curves):
    color, scores = COLORS.get(name, NEUTRAL), curves.scores[name]
    _draw_gaps(axis, scores, curves)
    axis.stairs(scores, curves.edges, fill=True, color=color, alpha=0.55, linewidth=0)
    axis.stairs(scores, curves.edges, color=color, linewidth=1.2, baseline=None)
    if np.nanmin(scores, initial=0) >= 0 and np.nanmax(scores, initial=0) <= 1:  # probabilities
        axis.set_ylim(0, 1.02)
        axis.set_yticks([0, 1])
    _name_row(axis, name)


def _draw_gaps(axis, values, curves: Curves):
    for step in np.flatnonzero(np.isnan(values)):
        style = NO_PREDICTION if curves.is_covered[step] else NO_SPEECH
        axis.axvspan(curves.edges[step], curves.edges[step + 1], **style)


def _draw_speakers(axis, segments: list[dict[str, Any]], speakers: list[str]):
    for segment in segments:
        if segment.get("speaker") is not None:
            color = SPEAKER_COLORS[speakers.index(segment["speaker"]) % len(SPEAKER_COLORS)]
            axis.axvspan(*segment["timestamp"], color=color, linewidth=0)
    axis.set_yticks([])
    _name_row(axis, "speaker")


def wrap_words(
    words: list[tuple[float, float, str]], start: float, end: float
) -> list[tuple[float, list[str]]] | None:
    """
    Lay out words between `start` and `end` in paragraphs that begin at their time and do not reach the next one.

    Returns:
        The time and the lines of each paragraph; `None` if one has more than `MAX_LINES`.
    """
    seconds_per_inch = (end - start) / AXES_WIDTH
    paragraphs: list[list[tuple[float, float, str]]] = []
    for word in words:
        before = paragraphs[-1] if paragraphs else None
        is_pause = before is not None and word[0] - before[-1][1] >= PAUSE_S
        if before is None or is_pause or word[0] - before[0][0] >= PARAGRAPH_WIDTH * seconds_per_inch:
            paragraphs.append([])
        paragraphs[-1].append(word)
    borders = [*(paragraph[0][0] for paragraph in paragraphs[1:]), end]
    found: list[tuple[float, list[str]]] = []
    for paragraph, border in zip(paragraphs, borders, strict=False):
        lines = _wrap([text for *_, text in paragraph], (border - paragraph[0][0]) / seconds_per_inch - 0.05)
        if lines is None:
            return None
        found.append((paragraph[0][0], lines))
    return found


def _wrap(words: list[str], width: float) -> list[str] | None:
    """Return the words in lines of at most `width` inches; `None` if that takes more than `MAX_LINES` lines."""
    lines: list[str] = []
    room = 0.0
    for word in words:
        length = _measure(word)
        if lines and length <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
            room = width
        room -= length + SPACE
        if len(lines) > MAX_LINES or length > width:
            return None
    return lines


def _measure(text: str, size: float = WORD_SIZE) -> float:
    """Return the width of a text of `size` points in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return width / 72


def _draw_words(axis, paragraphs: list[tuple[float, list[str]]], num_lines: int):
    axis.set_ylim(num_lines, 0)
    axis.set_yticks([])
    axis.grid(False)
    axis.spines["left"].set_visible(False)
    for start, lines in paragraphs:
        axis.text(start, 0, "\n".join(lines), fontsize=WORD_SIZE, va="top", linespacing=1.25, parse_math=False)
    _name_row(axis, "words")


def _add_legend(figure, curves: Curves, names: list[str], speakers: list[str]):
    from matplotlib.patches import Patch

    shown = curves.sentiment if curves.sentiment is not None else next(iter(curves.scores.values()), None)
    handles = [
        Patch(color=SPEAKER_COLORS[i % len(SPEAKER_COLORS)], label=drawable(name))
        for i, name in enumerate(speakers[: 2 * len(SPEAKER_COLORS)])
    ]
    if shown is not None and np.any(np.isnan(shown) & ~curves.is_covered):
        handles.append(Patch(label="no speech", **NO_SPEECH))
    if shown is not None and np.any(np.isnan(shown) & curves.is_covered):
        handles.append(Patch(label="no prediction", **NO_PREDICTION))
    if handles:
        longest = max(_measure(handle.get_label(), LEGEND_SIZE) for handle in handles)
        columns = max(1, min(len(handles), int(WIDTH / (longest + HANDLE_WIDTH))))
        figure.legend(handles=handles, loc="outside upper right", ncols=columns, frameon=False, fontsize=LEGEND_SIZE)


def _name_row(axis, name: str):
    axis.set_ylabel(drawable(name), rotation=0, ha="right", va="center", labelpad=8, parse_math=False)
