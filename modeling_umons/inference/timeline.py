# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Timelines: predictions of the segments of a clip as tables, captions and plots."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

from ..models.umons.configuration_umons import EMOTIONS
from ..utils.files import atomic_path
from .plots import entries_of


DRAWN = ("timestamp", "sentiment", "emotions", "labels", "values")  # parts of a result in the plot


PLOTS = (".png", ".svg")


def write_timeline(
    segments: Iterable[dict[str, Any]], *paths: str | Path, labels: list[str] | None = None, title: str = ""
):
    """
    Write the predictions of the segments of a clip to files, atomically.

    ```python
    >>> write_timeline(recognize("clip.mp4", chunk_length_s=5), "clip.csv", "clip.vtt", "clip.png")
    >>> write_timeline(recognize.stream("long.mp4", chunk_length_s=5), "long.csv", labels=recognize.labels)
    ```

    The suffix of a path sets the format:

    | suffix | content | segment without prediction |
    |---|---|---|
    | `.csv` | table with a column for each score | row without scores |
    | `.json` | the predictions | the prediction |
    | `.srt`, `.vtt` | captions: strongest emotion, sentiment and text | left out |
    | `.png`, `.svg` | plot of the sentiment and the scores over time | gap |

    In a table, a score with the name of another column, such as `text`, gets the prefix `score_`. A text or name that
    a spreadsheet would take for a formula (=, +, -, @) gets an apostrophe as prefix.

    Args:
        segments: predictions with `timestamp`, in order of time, all with the same scores.
        paths: files to write.
        labels: names of the scores, in the order of columns. With them, segments are written as they come; without
            them, all segments are collected first. A plot holds the numbers in memory.
        title: title of the plot.

    Raises:
        ValueError: an unknown suffix, a path given twice, segments without `timestamp` or out of order, a score that
            is not in `labels`, or a plot without matplotlib. Paths are checked first.
        OSError: a folder that does not exist, or a file that cannot be written.
    """
    check_paths(paths)
    if labels is None:
        segments = list(segments)
        labels = _gather_labels(segments)
    with ExitStack() as files:
        writers = []
        for path in map(Path, paths):
            writer = _FORMATS[path.suffix.lower()](files.enter_context(_open_output(path)), labels, title)
            writers.append(files.enter_context(closing(writer)))
            next(writer)
        for segment in _checked(segments, labels):
            for writer in writers:
                writer.send(segment)
        for writer in writers:
            next(writer, None)


def check_paths(paths: Iterable[str | Path]):
    """Raise ValueError or OSError for paths that [`write_timeline`] cannot write."""
    seen = set()
    for path in map(Path, paths):
        if path.suffix.lower() not in _FORMATS:
            raise ValueError(f"{path}: the suffix is not a format of a timeline. Use one of {', '.join(_FORMATS)}.")
        if path.suffix.lower() in PLOTS and find_spec("matplotlib") is None:
            raise ValueError(f'{path}: plots need matplotlib: pip install "modeling-umons[plot]"')
        if path.resolve() in seen:
            raise ValueError(f"{path} is given twice.")
        seen.add(path.resolve())
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder, not a file.")
        if not (folder := path.resolve().parent).is_dir():
            raise FileNotFoundError(f"{path}: the folder {folder} does not exist. Create it first.")


def scores_of(segment: dict[str, Any]) -> dict[str, float]:
    """Return the scores of a prediction by name, in its order."""
    return {entry["label"]: entry["score"] for entry in entries_of(segment)}


def describe(segment: dict[str, Any], num_scores: int = 1) -> str:
    """Format the first scores and the sentiment of a prediction; an empty string if it has none."""
    parts = [f"{name} {score:.2f}" for name, score in list(scores_of(segment).items())[:num_scores]]
    if "sentiment" in segment:
        parts.append(f"sentiment {segment['sentiment']:+.2f}")
    return ", ".join(parts)


def format_time(seconds: float, separator: str = ".", digits: int = 3) -> str:
    """Format seconds as hours:minutes:seconds with a fraction of `digits` digits."""
    ticks = round(seconds * 10**digits)
    whole, fraction = divmod(ticks, 10**digits)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}" + (
        f"{separator}{fraction:0{digits}d}" if digits else ""
    )


def _gather_labels(segments: list[dict[str, Any]]) -> list[str]:
    names = {name for segment in segments for name in scores_of(segment)}
    return [name for name in EMOTIONS if name in names] + sorted(names.difference(EMOTIONS))


def _checked(segments: Iterable[dict[str, Any]], labels: list[str]) -> Iterator[dict[str, Any]]:
    before = 0.0
    for number, segment in enumerate(segments, start=1):
        if "timestamp" not in segment:
            raise ValueError(
                f"Segment {number} has no `timestamp`. Call the pipeline with `chunk_length_s` or "
                "`return_timestamps=True`."
            )
        start, end = segment["timestamp"]
        if not before <= start <= end:
            raise ValueError(
                f"Segment {number} is from {start} s to {end} s, but the previous one begins at {before} s."
            )
        if unknown := sorted(set(scores_of(segment)).difference(labels)):
            raise ValueError(f"Segment {number} has scores of {unknown}, which are not in `labels`, {labels}.")
        yield segment
        before = start


@contextmanager
def _open_output(path: Path) -> Iterator[Path]:
    """Yield an empty temporary file that replaces `path` at the end. Errors come first, and name `path`."""
    with atomic_path(path) as temporary:
        try:
            with suppress(FileNotFoundError):
                path.stat()  # raises if the name is too long
            open(temporary, "x").close()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        yield temporary


# --- writers: generators that receive the segments, and `None` after the last one


def _in_text(write: Callable, newline: str | None = None) -> Callable:
    """Return a writer that opens its file as text."""

    def writer(path: Path, labels: list[str], title: str):
        with open(path, "w", encoding="utf-8", newline=newline) as file:
            yield from write(file, labels)

    return writer


def _write_csv(file: TextIO, labels: list[str]):
    own = ["start", "end", "modalities", "warnings", "sentiment", "text"]
    names: dict[str, str] = {}
    for label in labels:
        name = label
        while name in own or name in names.values():
            name = f"score_{name}"
        names[label] = name
    columns = [*own[:-1], *names.values(), own[-1]]
    table = csv.DictWriter(file, columns, lineterminator="\n")
    table.writerow({name: _no_formula(name) for name in columns})
    while (segment := (yield)) is not None:
        start, end = segment["timestamp"]
        sentiment = f"{segment['sentiment']:.6f}" if "sentiment" in segment else None
        row = {
            "start": start,
            "end": end,
            "modalities": "+".join(segment["modalities"]),
            "warnings": "+".join(warning["code"] for warning in segment.get("warnings", ())),
            **{names[label]: f"{score:.6f}" for label, score in scores_of(segment).items()},
        }
        table.writerow({**row, "sentiment": sentiment, "text": _no_formula(segment.get("text"))})


def _no_formula(text: str | None) -> str | None:
    """Prefix a text that a spreadsheet would evaluate."""
    return f"'{text}" if text and text[0] in "=+-@\t\r" else text


def _write_json(file: TextIO, labels: list[str]):
    separator = "[\n"
    while (segment := (yield)) is not None:
        file.write(separator + json.dumps(segment, ensure_ascii=False, allow_nan=False))
        separator = ",\n"
    file.write("[]\n" if separator == "[\n" else "\n]\n")


def _write_captions(file: TextIO, labels: list[str], head: str, separator: str, escape: Callable[[str], str]):
    file.write(head)
    number = 0
    while (segment := (yield)) is not None:
        start, end = (format_time(time, separator) for time in segment["timestamp"])
        if not describe(segment) or start == end:
            continue
        number += 1
        # An empty line would end the caption.
        lines = [" ".join(line.split()) for line in (f"[{describe(segment)}]", segment.get("text") or "")]
        text = "\n".join(escape(line) for line in lines if line)
        file.write(f"{number}\n{start} --> {end}\n{text}\n\n")


def _escape_vtt(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _escape_srt(text: str) -> str:
    """Replace <, >, { and } by similar characters: SubRip uses them for tags and has no escapes."""
    return text.replace("-->", "→").translate(str.maketrans("<>{}", "‹›()"))  # noqa: RUF001


def _draw(path: Path, labels: list[str], title: str):
    drawn = []
    while (segment := (yield)) is not None:
        drawn.append({name: segment[name] for name in DRAWN if name in segment})
    from .plots import plot_timeline

    plot_timeline(drawn, path, labels=labels, title=title)


_FORMATS = {
    ".csv": _in_text(_write_csv, newline=""),
    ".json": _in_text(_write_json),
    ".srt": _in_text(partial(_write_captions, head="", separator=",", escape=_escape_srt)),
    ".vtt": _in_text(partial(_write_captions, head="WEBVTT\n\n", separator=".", escape=_escape_vtt)),
    **dict.fromkeys(PLOTS, _draw),
}
