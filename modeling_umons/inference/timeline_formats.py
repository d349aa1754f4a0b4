"""Formats of timelines. A writer is a generator that receives the segments, and `None` after the last one."""

import csv
import json
import mimetypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from ..utils.tables import escape_formula
from .plots import entries_of
from .rttm import format_rttm


# Packages of formats, and the extras that contain them.
REQUIREMENTS = {
    ".parquet": ("pyarrow", "data"),
    ".eaf": ("pympi", "transcribe"),
    ".png": ("matplotlib", "plot"),
    ".svg": ("matplotlib", "plot"),
}
DRAWN = ("timestamp", "sentiment", "emotions", "labels", "values", "speaker", "text", "words")  # in the plot
ROWS = 4096  # of a Parquet file that are written at once


@dataclass
class Description:
    """
    Description of an output file.

    Attributes:
        path: where it will be.
        labels: names of the scores.
        title: name of the recording.
        media: the recording, if it is a file.
    """

    path: Path
    labels: list[str]
    title: str
    media: Path | None


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


def _in_text(write: Callable, newline: str | None = None) -> Callable:
    """Return a writer that opens its file as text."""

    def writer(path: Path, description: Description):
        with open(path, "w", encoding="utf-8", newline=newline) as file:
            yield from write(file, description)

    return writer


COLUMNS = ("start", "end", "speaker", "modalities", "warnings", "label", "confidence", "sentiment", "text")


def _name_columns(labels: list[str]) -> dict[str, str]:
    """Return the column of each score."""
    names: dict[str, str] = {}
    for label in labels:
        name = label
        while name in COLUMNS or name in names.values():
            name = f"score_{name}"
        names[label] = name
    return names


def _write_csv(file: TextIO, description: Description):
    names = _name_columns(description.labels)
    columns = [*COLUMNS[:-1], *names.values(), COLUMNS[-1]]
    table = csv.DictWriter(file, columns, lineterminator="\n")
    table.writerow({name: escape_formula(name) for name in columns})
    while (segment := (yield)) is not None:
        row = _describe_row(segment)
        row |= {name: "+".join(row[name]) for name in ("modalities", "warnings")}
        row |= {name: escape_formula(row[name]) for name in ("speaker", "label", "text")}
        row |= {names[label]: score for label, score in scores_of(segment).items()}
        times = ("start", "end")
        table.writerow({n: f"{v:.6f}" if isinstance(v, float) and n not in times else v for n, v in row.items()})


def _write_json(file: TextIO, description: Description):
    separator = "[\n"
    while (segment := (yield)) is not None:
        file.write(separator + json.dumps(segment, ensure_ascii=False, allow_nan=False))
        separator = ",\n"
    file.write("[]\n" if separator == "[\n" else "\n]\n")


def _write_captions(file: TextIO, description: Description, head: str, separator: str, escape: Callable[[str], str]):
    file.write(head)
    number = 0
    while (segment := (yield)) is not None:
        start, end = (format_time(time, separator) for time in segment["timestamp"])
        if not describe(segment) or start == end:
            continue
        number += 1
        # An empty line would end the caption.
        spoken = ": ".join(filter(None, (segment.get("speaker"), segment.get("text"))))
        lines = [" ".join(line.split()) for line in (f"[{describe(segment)}]", spoken)]
        text = "\n".join(escape(line) for line in lines if line)
        file.write(f"{number}\n{start} --> {end}\n{text}\n\n")


def _escape_vtt(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _escape_srt(text: str) -> str:
    """Replace <, >, { and } by similar characters: SubRip uses them for tags and has no escapes."""
    return text.replace("-->", "→").translate(str.maketrans("<>{}", "‹›()"))  # noqa: RUF001


def _write_rttm(file: TextIO, description: Description):
    recording = Path(description.title).stem or "recording"
    while (segment := (yield)) is not None:
        if "speaker" not in segment:
            raise ValueError(f"{description.path}: the segments have no speakers. Find them with `--speakers`.")
        if segment["speaker"] is not None:
            file.write(format_rttm(segment, recording) + "\n")


def _write_parquet(path: Path, description: Description):
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    names = _name_columns(description.labels)
    schema = pa.schema(
        [
            *((name, pa.float64()) for name in ("start", "end")),
            *((name, pa.string()) for name in ("speaker", "label")),
            *((name, pa.float64()) for name in ("confidence", "sentiment", *names.values())),
            *((name, pa.list_(pa.string())) for name in ("modalities", "warnings")),
            ("text", pa.string()),
        ]
    )
    rows: list[dict[str, Any]] = []
    with ParquetWriter(path, schema) as table:
        while (segment := (yield)) is not None:
            scores = {names[label]: score for label, score in scores_of(segment).items()}
            rows.append({**_describe_row(segment), **scores})
            if len(rows) == ROWS:
                table.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        table.write_table(pa.Table.from_pylist(rows, schema))


def _describe_row(segment: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of a segment but its scores."""
    start, end = segment["timestamp"]
    known = {name: segment.get(name) for name in ("speaker", "label", "confidence", "sentiment", "text")}
    codes = [warning["code"] for warning in segment.get("warnings", ())]
    return {"start": start, "end": end, "modalities": segment["modalities"], "warnings": codes, **known}


def _write_annotations(path: Path, description: Description):
    from pympi.Elan import Eaf

    document = Eaf(author="modeling_umons")
    document.remove_tier("default")
    if description.media is not None:
        media = description.media.resolve()
        kind = mimetypes.guess_type(media.name)[0] or "application/octet-stream"
        kind = "audio/x-wav" if kind == "audio/wav" else kind  # the name that ELAN knows; tables of systems differ
        document.add_linked_file(media.as_uri(), _relative_to(media, description.path), kind)
    tiers = _Tiers(document)
    while (segment := (yield)) is not None:
        lane = tiers.choose_lane(segment)
        tiers.add("text", lane, segment["timestamp"], segment.get("text"))
        for word in segment.get("words", ()):
            if None not in word["timestamp"]:
                tiers.add("word", lane, word["timestamp"], word["word"])
        label = segment.get("label", describe(segment))
        confidence = f" {segment['confidence']:.2f}" if "confidence" in segment else ""
        tiers.add("label", lane, segment["timestamp"], f"{label}{confidence}")
        sentiment = f"{segment['sentiment']:+.2f}" if "sentiment" in segment else ""
        tiers.add("sentiment", lane, segment["timestamp"], sentiment)
    path.unlink()  # pympi would rename it
    document.to_file(str(path))


def _relative_to(media: Path, path: Path) -> str:
    """Return the path of the media from the folder of an `.eaf` file, as ELAN writes it."""
    return f"./{Path(os.path.relpath(media, path.resolve().parent)).as_posix()}"


class _Tiers:
    """Tiers of an ELAN document. Segments of a speaker that overlap are on several lanes: those of a tier may not."""

    def __init__(self, document: Any) -> None:
        self.document = document
        self.ends: dict[str, list[float]] = {}  # of the lanes of each speaker
        self.word_ends: dict[str, int] = {}

    def choose_lane(self, segment: dict[str, Any]) -> tuple[str, int]:
        """Return the speaker and the number of the first lane that is free at the start of a segment."""
        speaker, (start, end) = segment.get("speaker") or "", segment["timestamp"]
        ends = self.ends.setdefault(speaker, [])
        lane = next((i for i, before in enumerate(ends) if before <= start), len(ends))
        ends[lane : lane + 1] = [end]
        return speaker, lane

    def add(self, kind: str, lane: tuple[str, int], timestamp: tuple[float, float], value: str | None):
        """Add an annotation, unless it is empty or would overlap the one before it."""
        speaker, number = lane
        tier = kind + f" {number + 1}" * (number > 0) + f"@{speaker}" * bool(speaker)
        start, end = (round(1000 * time) for time in timestamp)
        start = max(start, self.word_ends.get(tier, 0))
        if not value or start >= end:
            return
        if tier not in self.word_ends:
            self.document.add_tier(tier, part=speaker or None)
        self.word_ends[tier] = end
        self.document.add_annotation(tier, start, end, value)


def _draw(path: Path, description: Description):
    drawn = []
    while (segment := (yield)) is not None:
        drawn.append({name: segment[name] for name in DRAWN if name in segment})
    from .timeline_plot import plot_timeline

    plot_timeline(drawn, path, labels=description.labels, title=description.title)


FORMATS = {
    ".csv": _in_text(_write_csv, newline=""),
    ".json": _in_text(_write_json),
    ".parquet": _write_parquet,
    ".srt": _in_text(partial(_write_captions, head="", separator=",", escape=_escape_srt)),
    ".vtt": _in_text(partial(_write_captions, head="WEBVTT\n\n", separator=".", escape=_escape_vtt)),
    ".rttm": _in_text(_write_rttm),
    ".eaf": _write_annotations,
    ".png": _draw,
    ".svg": _draw,
}
