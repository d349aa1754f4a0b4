"""Turns of speakers as RTTM (Rich Transcription Time Marked), which diarization tools such as pyannote exchange.

A turn is `{"speaker": "A", "timestamp": (start, end)}`, with times in seconds, as the pipeline takes them.
Source: NIST, The 2009 (RT-09) Rich Transcription Meeting Recognition Evaluation Plan, appendix A.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..utils.files import write_atomically


Turn = dict[str, Any]


def read_rttm(path: str | Path, recording: str | None = None) -> list[Turn]:
    """
    Read the turns of an RTTM file, in order of time.

    Lines of other types than SPEAKER, comments (`;;`) and turns of no duration are skipped.

    Args:
        path: the file.
        recording: name of the recording, required only for a file with several; a path to the recording is accepted.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not RTTM, contains no turn, or contains several recordings and not exactly this one.
    """
    turns: dict[str, list[Turn]] = {}
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not RTTM: it is not UTF-8 text.") from error
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if fields and fields[0] == "SPEAKER":
            turn = _parse(fields, f"{path}, line {number}")
            turns.setdefault(fields[1], []).append(turn)
    found = turns[_choose(list(turns), recording, path)] if turns else []
    found = [turn for turn in found if turn["timestamp"][1] > turn["timestamp"][0]]
    if not found:
        raise ValueError(
            f"{path} contains no turn. Expected lines such as `SPEAKER talk 1 0.50 2.25 <NA> <NA> A <NA> <NA>`."
        )
    return sorted(found, key=_start)


def write_rttm(turns: Iterable[Turn], path: str | Path, recording: str = "recording") -> None:
    """Write turns to an RTTM file atomically. White space in names becomes `_`."""
    write_atomically(path, "".join(f"{format_rttm(turn, recording)}\n" for turn in turns))


def format_rttm(turn: Turn, recording: str) -> str:
    """Return the line of a turn. White space in names becomes `_`: fields are separated by it."""
    start, end = turn["timestamp"]
    name, speaker = ("_".join(text.split()) or "_" for text in (recording, turn["speaker"]))
    return f"SPEAKER {name} 1 {start:.3f} {end - start:.3f} <NA> <NA> {speaker} <NA> <NA>"


def _parse(fields: list[str], place: str) -> Turn:
    if len(fields) < 8:
        raise ValueError(f"{place}: {len(fields)} fields. A SPEAKER line has 9 or 10; the eighth is the speaker.")
    try:
        start, duration = float(fields[3]), float(fields[4])
    except ValueError:
        start = duration = math.nan
    if not (0 <= start < math.inf and 0 <= duration < math.inf):
        raise ValueError(
            f"{place}: the start {fields[3]!r} and the duration {fields[4]!r} must be seconds, and not negative."
        )
    return {"speaker": fields[7], "timestamp": (start, round(start + duration, 6))}


def _choose(recordings: list[str], recording: str | None, path: str | Path) -> str:
    """Return the recording to read: the only one, or the one of this name, with or without folder and suffix."""
    if len(recordings) == 1:
        return recordings[0]
    given = Path(recording or "")
    for name in (recording, given.name, given.stem, "_".join(given.stem.split())):
        if name in recordings:
            return str(name)
    raise ValueError(
        f"{path} contains the turns of {len(recordings)} recordings, {', '.join(recordings[:5])}"
        f"{', ...' if len(recordings) > 5 else ''}, but not of {recording!r}. Keep the lines of one recording."
    )


def _start(turn: Turn) -> float:
    return turn["timestamp"][0]
