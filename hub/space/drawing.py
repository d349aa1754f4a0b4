# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""HTML and SVG of a prediction, in the colours of the page (light or dark) and as wide as the screen."""

import base64
import io
import math
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from PIL import Image


# Colour of the spectrogram, with a contrast of at least 4 on white and on black; opacity is the level.
INK = (100, 116, 139)

CSS = """
:root { --umons-cool: #0369a1; --umons-warm: #c2570c; --umons-track: #e2e8f0; --umons-quiet: #52606f; }
.dark { --umons-cool: #38bdf8; --umons-warm: #fb923c; --umons-track: #334155; --umons-quiet: #a3b1c2; }
.gradio-container { max-width: 1180px !important; margin: 0 auto; }
#clip video { max-height: 260px; }
#sound { contain: inline-size; } /* or a long waveform widens the page */
:focus-visible { outline: 3px solid var(--umons-cool) !important; outline-offset: 2px; }
.quiet, .quiet p, .umons .axis span, .umons .ends span { color: var(--umons-quiet) !important; font-size: 0.9rem; }
.umons { color: var(--body-text-color); font-size: 1rem; line-height: 1.45; }
.umons h3 { margin: 1.4rem 0 0.5rem; font-size: 1.05rem; font-weight: 600; color: inherit; }
.umons p { margin: 0 0 0.5rem; }
.umons .top { display: grid; grid-template-columns: minmax(200px, 2fr) 3fr; gap: 1.5rem; align-items: center; }
.umons .dial { width: 100%; max-width: 270px; margin: 0 auto; display: block; }
.umons .rows { display: grid; grid-template-columns: 5.2rem minmax(0, 1fr) 2.6rem; gap: 0.45rem 0.75rem;
  align-items: center; list-style: none; margin: 0; padding: 0; }
.umons .rows li { display: contents; }
.umons .number { text-align: right; font-variant-numeric: tabular-nums; }
.umons .track { height: 0.85rem; border-radius: 0.25rem; background: var(--umons-track); overflow: hidden; }
.umons .track i { display: block; height: 100%; background: var(--umons-cool); }
.umons .words { line-height: 2; overflow-wrap: anywhere; }
.umons .word { padding: 0.15em 0.1em; border-radius: 0.25em; border-bottom: 2px solid transparent;
  background: color-mix(in srgb, var(--umons-warm) calc(var(--weight) * 42%), transparent);
  border-color: color-mix(in srgb, var(--umons-warm) calc(var(--weight) * 100%), transparent); }
.umons .share { padding: 0.15em 0.1em; border-radius: 0.25em;
  background: color-mix(in srgb, var(--ink) calc(var(--weight) * 60%), transparent); }
.umons .plots { display: grid; grid-template-columns: 5.2rem minmax(0, 1fr); gap: 0.3rem 0.75rem;
  align-items: center; }
.umons .plot { position: relative; border-radius: 0.25rem; overflow: hidden;
  background: var(--block-background-fill); }
.umons .plot > svg, .umons .plot > img { position: absolute; top: 0; height: 100%; max-width: none; margin: 0; }
.umons .plot > svg { left: 0; width: 100%; }
.umons .sound { height: 130px; border: 1px solid var(--umons-track); }
.umons .curve { height: 84px; border: 1px solid var(--umons-track); }
.umons .strip { height: 1.1rem; display: flex; background: var(--umons-track); }
.umons .strip i { display: block; background: var(--umons-cool); }
.umons .ends { display: flex; flex-direction: column; justify-content: space-between; height: 100%; text-align: right;
  font-size: 0.8rem; color: var(--umons-quiet); line-height: 1.2; }
.umons .axis { position: relative; height: 1.2rem; font-size: 0.8rem; color: var(--umons-quiet);
  font-variant-numeric: tabular-nums; }
.umons .axis span { position: absolute; transform: translateX(-50%); }
.umons .axis span:first-child { transform: none; }
.umons .label { text-align: right; font-size: 0.9rem; }
@media (max-width: 640px) {
  .umons .top { grid-template-columns: minmax(0, 1fr); }
  .umons .plots { grid-template-columns: 4.2rem minmax(0, 1fr); }
}
"""

# The seven steps of the scale of CMU-MOSEI. The middle one is not "neutral": strong emotions may sum up to it.
SENTIMENTS = ["highly negative", "negative", "weakly negative", "near zero", "weakly positive", "positive",
              "highly positive"]  # fmt: skip


@dataclass
class Picture:
    """Inputs to draw with a prediction.

    Attributes:
        notes: sentences above it.
        text: the text as given.
        spectrogram: log-mel frames (num_frames, mel bins), seconds before the first and between two, or `None`.
    """

    notes: list[str]
    text: str
    spectrogram: tuple[np.ndarray, float, float] | None


def draw(result: dict, attention: dict, timeline: list[dict], picture: Picture) -> str:
    """
    Return the HTML of a prediction. All input is escaped.

    Args:
        result: prediction of the pipeline for one input.
        attention: its `attention`, by modality; empty for a model without glimpses.
        timeline: predictions with a `timestamp` each, or empty.
        picture: inputs to draw with it.
    """
    ranked = result.get("emotions") or result.get("labels") or result.get("values") or []
    named = "Values" if "values" in result else "Emotions" if "emotions" in result else "Classes"
    parts = [f'<p class="quiet">{escape(" ".join(picture.notes))}</p>', '<div class="top">']
    if "sentiment" in result:
        parts.append(_dial(result["sentiment"]))
    if ranked:
        parts.append(_bars(ranked, named))
    parts.append("</div>")
    parts.append(f"<p>{escape(_summarize(result))}</p>")
    if (result.get("explanations") or {}).get("text") and "sentiment" in result:
        parts += ["<h3>Contribution of each word to the sentiment</h3>", _shares(result["explanations"]["text"])]
    if attention.get("text"):
        parts += ["<h3>Attention weights: text</h3>", _words(picture.text, attention["text"])]
    if attention.get("audio") and picture.spectrogram is not None:
        parts += ["<h3>Attention weights: audio</h3>", _sound(*picture.spectrogram, attention["audio"])]
    if attention:
        parts.append('<p class="quiet">Attention weights of the last layer. They do not explain the prediction.</p>')
    if timeline:
        parts += ["<h3>Timeline, from audio only</h3>", _timeline(timeline)]
    return f'<article class="umons" aria-label="Result">{"".join(parts)}</article>'


def _summarize(result: dict) -> str:
    """Return sentences: the label and its confidence, the interval of the sentiment, and what each modality adds."""
    sentences = []
    if "label" in result:
        confidence = f" ({100 * result['confidence']:.0f} %)" if "confidence" in result else ""
        sentences.append(f"Label: {result['label']}{confidence}.")
    if "sentiment_interval" in result:
        low, high = result["sentiment_interval"]
        sentences.append(f"90 % interval of the sentiment: {low:+.2f} to {high:+.2f}.")
    modalities = (result.get("explanations") or {}).get("modalities", {})
    if len(modalities) > 1 and "sentiment" in result:
        shares = ", ".join(f"{name} {scores['sentiment']:+.2f}" for name, scores in modalities.items())
        sentences.append(f"Contributions to the sentiment: {shares}.")
    return " ".join(sentences)


def _dial(sentiment: float) -> str:
    """Draw a half circle from -3 to +3, filled from the middle to the value."""
    value = min(3.0, max(-3.0, sentiment))
    words = SENTIMENTS[round(value) + 3]
    colour = "var(--umons-cool)" if value >= 0 else "var(--umons-warm)"
    (x0, y0), (x1, y1) = _on_circle(0.0), _on_circle(value)
    (tip_x, tip_y), (left, low), (right, _) = _on_circle(value, 62), _on_circle(-3), _on_circle(3)
    ticks = "".join(
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle" font-size="12" fill="var(--umons-quiet)">{tick:+d}</text>'
        for tick in (-3, -2, -1, 1, 2, 3)
        for x, y in [_on_circle(tick, 112)]
    )
    return (
        f'<svg class="dial" viewBox="0 0 260 182" role="img" data-value="{sentiment:.3f}"'
        f' aria-label="Sentiment {sentiment:+.2f} on a scale from -3 to +3: {words}">'
        f'<path d="M{left:.1f} {low:.1f} A90 90 0 0 1 {right:.1f} {low:.1f}" fill="none" stroke="var(--umons-track)"'
        ' stroke-width="16"/>'
        f'<path d="M{x0:.1f} {y0:.1f} A90 90 0 0 {int(value >= 0)} {x1:.1f} {y1:.1f}" fill="none" stroke="{colour}"'
        ' stroke-width="16"/>'
        f'{ticks}<text x="130" y="17" text-anchor="middle" font-size="12" fill="var(--umons-quiet)">0</text>'
        f'<line x1="130" y1="130" x2="{tip_x:.1f}" y2="{tip_y:.1f}" stroke="currentColor" stroke-width="4"'
        ' stroke-linecap="round"/><circle cx="130" cy="130" r="6" fill="currentColor"/>'
        '<text x="130" y="172" text-anchor="middle" font-size="19" font-weight="600" fill="currentColor">'
        f"{sentiment:+.2f} · {words}</text></svg>"
    )


def _on_circle(value: float, radius: float = 90.0) -> tuple[float, float]:
    angle = math.pi * (3 - value) / 6
    return 130 + radius * math.cos(angle), 130 - radius * math.sin(angle)


def _bars(ranked: list[dict[str, Any]], named: str) -> str:
    rows = "".join(
        f'<li><span class="label">{escape(entry["label"])}</span><span class="track" aria-hidden="true">'
        f'<i style="width:{100 * _share(entry):.1f}%"></i></span>'
        f'<span class="number">{entry["score"]:.2f}</span></li>'
        for entry in ranked
    )
    order = "" if named == "Values" else ", most likely first"
    return f'<ul class="rows emotions" aria-label="{named}{order}">{rows}</ul>'


def _share(entry: dict[str, Any]) -> float:
    """Return the place of a score in its range, from 0 to 1."""
    low, high = entry.get("range", (0.0, 1.0))
    return min(1.0, max(0.0, (entry["score"] - low) / (high - low)))


def _words(text: str, weights: list[dict[str, Any]]) -> str:
    """Return the text with each word shaded by its weight, relative to the largest."""
    largest = max(entry["weight"] for entry in weights) or 1.0
    parts, position = [], 0
    for entry in weights:
        start = text.find(entry["word"], position)
        if start < 0:  # words of emoji
            start, text = position, f"{text[:position]}{entry['word']} {text[position:]}"
        end = start + len(entry["word"])
        parts.append(escape(text[position:start]))
        parts.append(
            f'<span class="word" style="--weight:{entry["weight"] / largest:.3f}"'
            f' title="weight {entry["weight"]:.2f}">{escape(text[start:end])}</span>'
        )
        position = end
    parts.append(escape(text[position:]))
    return f'<p class="words">{"".join(parts)}</p>'


def _shares(words: list[dict[str, Any]]) -> str:
    """Return the words, shaded by their contribution to the sentiment: blue if positive, orange if negative."""
    largest = max(abs(entry["sentiment"]) for entry in words) or 1.0
    parts = [
        f'<span class="share" style="--weight:{abs(entry["sentiment"]) / largest:.3f};'
        f'--ink:var(--umons-{"cool" if entry["sentiment"] >= 0 else "warm"})" title="{entry["sentiment"]:+.2f}">'
        f"{escape(entry['word'])}</span>"
        for entry in words
    ]
    return f'<p class="words">{" ".join(parts)}</p>'


def _sound(frames: np.ndarray, offset: float, step: float, weights: list[dict[str, Any]]) -> str:
    """Draw the spectrogram, low frequencies at the bottom, and the weights over it."""
    end = offset + len(frames) * step
    largest = max(entry["weight"] for entry in weights) or 1.0
    points = [(entry["time"] / end * 1000, 98 - 90 * entry["weight"] / largest) for entry in weights]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    peak = max(weights, key=lambda entry: entry["weight"])["time"]
    return (
        f'<div class="plots"><div class="ends"><span>high</span><span>frequency</span><span>low</span></div>'
        f'<div class="plot sound" role="img"'
        f' aria-label="Spectrogram of {end:.1f} seconds; the weight is largest at {peak:.1f} seconds.">'
        f'<img class="spectrogram" alt="" src="{_png(frames)}"'
        f' style="left:{100 * offset / end:.2f}%;width:{100 - 100 * offset / end:.2f}%">'
        '<svg viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true">'
        f'<polygon points="{points[0][0]:.1f},100 {line} {points[-1][0]:.1f},100" fill="var(--umons-warm)"'
        ' opacity="0.28"/>'
        f'<polyline points="{line}" fill="none" stroke="var(--umons-warm)" stroke-width="2"'
        f' vector-effect="non-scaling-stroke"/></svg></div>{_axis(end)}</div>'
        '<p class="quiet">Shading: level of the audio. Line: attention weight.</p>'
    )


def _png(frames: np.ndarray) -> str:
    """Return log-mel frames (num_frames, mel bins) as a PNG in a data URI; opacity is the level."""
    low, high = np.percentile(frames, (10, 99.5))
    opacity = np.clip((frames - low) / max(high - low, 1e-3), 0, 1)
    pixels = np.empty((frames.shape[1], frames.shape[0], 4), np.uint8)
    pixels[..., :3] = INK
    pixels[..., 3] = np.round(255 * opacity.T[::-1])
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "PNG")
        return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _timeline(timeline: list[dict[str, Any]]) -> str:
    """Draw the sentiment as a curve, and each emotion as a strip whose opacity is the score."""
    begin, end = timeline[0]["timestamp"][0], timeline[-1]["timestamp"][1]
    parts = []
    if any("sentiment" in entry for entry in timeline):
        parts.append(_curve(timeline, begin, end))
    scores = [
        {e["label"]: _share(e) for e in entry.get("emotions") or entry.get("labels") or entry.get("values") or []}
        for entry in timeline
    ]
    labels = next((list(labelled) for labelled in scores if labelled), [])
    for label in sorted(labels, key=lambda label: -sum(labelled.get(label, 0.0) for labelled in scores)):
        parts.append(_strip(label, [labelled.get(label) for labelled in scores], timeline, end - begin))
    return f'<div class="plots timeline">{"".join(parts)}{_axis(end, begin)}</div>'


def _curve(timeline: list[dict[str, Any]], begin: float, end: float) -> str:
    known = [(sum(entry["timestamp"]) / 2 - begin, entry["sentiment"]) for entry in timeline if "sentiment" in entry]
    line = " ".join(
        f"{1000 * time / (end - begin):.1f},{50 - 50 / 3 * min(3.0, max(-3.0, value)):.1f}" for time, value in known
    )
    lowest, highest = min(value for _, value in known), max(value for _, value in known)
    return (
        '<div class="ends"><span>+3</span><span>sentiment</span><span>-3</span></div>'
        '<div class="plot curve" role="img"'
        f' aria-label="Sentiment over time, from {lowest:+.2f} to {highest:+.2f}.">'
        '<svg viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true">'
        '<line x1="0" x2="1000" y1="50" y2="50" stroke="var(--umons-quiet)" stroke-dasharray="4 4"'
        ' vector-effect="non-scaling-stroke"/>'
        f'<polyline points="{line}" fill="none" stroke="var(--umons-cool)" stroke-width="2.5"'
        ' vector-effect="non-scaling-stroke"/></svg></div>'
    )


def _strip(label: str, scores: list[float | None], timeline: list[dict[str, Any]], duration: float) -> str:
    cells = []
    for score, entry in zip(scores, timeline, strict=True):
        start, stop = entry["timestamp"]
        value = "no audio" if score is None else f"{score:.2f}"
        cells.append(
            f'<i style="width:{100 * (stop - start) / duration:.3f}%;opacity:{score or 0:.2f}"'
            f' title="{_clock(start)} to {_clock(stop)}: {value}"></i>'
        )
    best = max(range(len(scores)), key=lambda i: scores[i] or 0.0)
    return (
        f'<span class="label">{escape(label)}</span><div class="plot strip" role="img" aria-label="{escape(label)}'
        f' over time: highest, {scores[best] or 0:.2f}, at {_clock(timeline[best]["timestamp"][0])}.">'
        f"{''.join(cells)}</div>"
    )


def _axis(end: float, begin: float = 0.0) -> str:
    """Draw the time axis of a plot, with at most seven ticks."""
    duration = end - begin
    step = next((step for step in (1, 2, 5, 10, 20, 30, 60, 120) if duration / step <= 6), 300)
    ticks = "".join(
        f'<span style="left:{100 * (time - begin) / duration:.2f}%">{_clock(time)}</span>'
        for time in range(math.ceil(begin / step) * step, math.ceil(end), step)
        if time - begin <= 0.96 * duration
    )
    return f'<span></span><div class="axis" aria-hidden="true">{ticks}</div>'


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
