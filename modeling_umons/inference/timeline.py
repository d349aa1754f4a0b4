"""Timelines: what a clip says from segment to segment, as tables, captions and pictures."""

import csv
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

from ..models.umons.configuration_umons import EMOTIONS


PICTURES = (".png", ".svg")


def write_timeline(
    segments: Iterable[dict[str, Any]], *paths: str | Path, labels: list[str] | None = None, title: str = ""
):
    """
    Writes what a pipeline says of the segments of a clip.

    ```python
    >>> write_timeline(recognize("clip.mp4", chunk_length_s=5), "clip.csv", "clip.vtt", "clip.png")
    >>> write_timeline(recognize.stream("long.mp4", chunk_length_s=5), "long.csv", labels=recognize.labels)
    ```

    The suffix of a path says the format. `.csv` is a table with a column for each score, `.json` the results as they are,
    `.srt` and `.vtt` are captions with the strongest emotion and the words, if they are known; `.png` and `.svg` draw the
    sentiment and the scores over time. Of a segment without an answer the table has an empty row, and the picture a gap;
    captions pass over it. A file is written whole or not at all; of a link, the file it leads to.

    Of the table, a score that is called as another column, such as `text`, has `score_` before its name; and words and
    names of scores that begin as a formula does, with one of = + - @, have an apostrophe before them, as spreadsheets
    would reckon with what a stranger said. `.json` has both as they are.

    Args:
        segments: results with `timestamp`, in the order of time, that all have the same scores.
        paths: where to write.
        labels: names of the scores, in the order of columns. They are gathered from the segments by default, which are
            held in memory then; otherwise each is forgotten as soon as it is written, but for its numbers where there is
            a picture to draw.
        title: a line above the picture.

    Raises:
        ValueError: a suffix that is not one of these, a path that is there twice, segments without or against time, a
            score that `labels` do not name, or a picture where matplotlib is missing. Of paths before anything else.
        OSError: a folder that is not there, or cannot be written to.
    """
    check_paths(paths)
    if labels is None:
        segments = list(segments)
        labels = _gather_labels(segments)
    with ExitStack() as files:
        writers = []
        for path in map(Path, paths):
            writer = _FORMATS[path.suffix.lower()](files.enter_context(_whole_file(path)), labels, title)
            writers.append(files.enter_context(closing(writer)))
            next(writer)
        for segment in _checked(segments, labels):
            for writer in writers:
                writer.send(segment)
        for writer in writers:
            next(writer, None)


def check_paths(paths: Iterable[str | Path]):
    """Raises ValueError and OSError for paths that [`write_timeline`] cannot write."""
    seen = set()
    for path in map(Path, paths):
        if path.suffix.lower() not in _FORMATS:
            raise ValueError(
                f"{path}: its suffix says no format of a timeline. Give the file one of {', '.join(_FORMATS)}."
            )
        if path.suffix.lower() in PICTURES and find_spec("matplotlib") is None:
            raise ValueError(f"{path}: pictures need matplotlib: pip install 'modeling-umons[serve]'.")
        if path.resolve() in seen:
            raise ValueError(f"{path} is there twice: name each file once.")
        seen.add(path.resolve())
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder: name a file.")
        if not (folder := path.resolve().parent).is_dir():
            raise FileNotFoundError(f"{path}: there is no folder {folder}. Make it first.")


def scores_of(segment: dict[str, Any]) -> dict[str, float]:
    """The scores of a result by their names, the best first."""
    return {entry["label"]: entry["score"] for entry in segment.get("emotions", segment.get("labels", []))}


def describe(segment: dict[str, Any], num_scores: int = 1) -> str:
    """The best scores and the sentiment of a result in a few words, empty where it has no answer."""
    parts = [f"{name} {score:.2f}" for name, score in list(scores_of(segment).items())[:num_scores]]
    if "sentiment" in segment:
        parts.append(f"sentiment {segment['sentiment']:+.2f}")
    return ", ".join(parts)


def format_time(seconds: float, separator: str = ".", digits: int = 3) -> str:
    """Seconds as hours:minutes:seconds with a fraction of so many digits."""
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
                f"Result {number} has no `timestamp`: call the pipeline with `chunk_length_s` or `return_timestamps=True`."
            )
        start, end = segment["timestamp"]
        if not before <= start <= end:
            raise ValueError(
                f"Segment {number} is from {start} s to {end} s, but the one before begins at {before} s."
            )
        if unknown := sorted(set(scores_of(segment)).difference(labels)):
            raise ValueError(f"Segment {number} has scores of {unknown}, which are not among the `labels`, {labels}.")
        yield segment
        before = start


@contextmanager
def _whole_file(path: str | Path) -> Iterator[Path]:
    """An empty file beside it, which takes its place when all went well and leaves nothing otherwise."""
    path = Path(path)
    target = path.resolve()  # of a link, what it leads to
    temporary = target.with_name(f".{secrets.token_hex(6)}.part{path.suffix}")  # short: names have a longest
    with _errors_name(path):
        target.is_file()  # a name that is too long
        open(temporary, "x").close()
    try:
        yield temporary
        with _errors_name(path):
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _errors_name(path: Path):
    """Errors of the system speak of the file that was asked for, not of the one beside it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


# --- one writer for each format: a generator that is sent the segments, and `None` after the last


def _in_text(write: Callable, newline: str | None = None) -> Callable:
    """A writer of text that opens its own file."""

    def writer(path: Path, labels: list[str], title: str):
        with open(path, "w", encoding="utf-8", newline=newline) as file:
            yield from write(file, labels)

    return writer


def _write_csv(file: TextIO, labels: list[str]):
    own = ["start", "end", "modalities", "sentiment", "text"]
    names = {}
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
            **{names[label]: f"{score:.6f}" for label, score in scores_of(segment).items()},
        }
        table.writerow({**row, "sentiment": sentiment, "text": _no_formula(segment.get("text"))})


def _no_formula(text: str | None) -> str | None:
    """Text that a spreadsheet shows and does not reckon with."""
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
        # A line break would end the caption if another followed; names of scores may have one as well.
        lines = [" ".join(line.split()) for line in (f"[{describe(segment)}]", segment.get("text") or "")]
        text = "\n".join(escape(line) for line in lines if line)
        file.write(f"{number}\n{start} --> {end}\n{text}\n\n")


def _escape_vtt(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _escape_srt(text: str) -> str:
    """SubRip knows tags in <> and {}, and no way to write the signs themselves: others that look like them."""
    return text.replace("-->", "→").translate(str.maketrans("<>{}", "‹›()"))  # noqa: RUF001


def _draw(path: Path, labels: list[str], title: str):
    drawn = []
    while (segment := (yield)) is not None:
        drawn.append(
            {name: segment[name] for name in ("timestamp", "sentiment", "emotions", "labels") if name in segment}
        )
    from .plots import plot_timeline

    plot_timeline(drawn, path, labels=labels, title=title)


_FORMATS = {
    ".csv": _in_text(_write_csv, newline=""),
    ".json": _in_text(_write_json),
    ".srt": _in_text(partial(_write_captions, head="", separator=",", escape=_escape_srt)),
    ".vtt": _in_text(partial(_write_captions, head="WEBVTT\n\n", separator=".", escape=_escape_vtt)),
    **dict.fromkeys(PICTURES, _draw),
}
