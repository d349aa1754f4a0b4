"""RAVDESS (Livingstone and Russo, PLOS ONE 2018): two statements spoken by actors in eight emotions."""

import csv
import re
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from datasets import Features, List, Value

from ..clip_tables import ClipTable
from .voices import VoiceFolder


RAVDESS_EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
STATEMENTS = ("Kids are talking by the door", "Dogs are sitting by the door")
SUFFIXES = (".flac", ".wav")
NUM_ACTORS = 24
# The fields of a name, 03-01-06-01-02-01-12: modality, vocal channel, emotion, intensity, statement, repetition,
# actor.
FILE_NAME = re.compile("-".join(["([0-9]{2})"] * 7))
SOUND_ALONE, SPEECH = "03", "01"
INTENSITIES = {"01": "normal", "02": "strong"}
# OpenFace's action units, intensities (_r) and presences (_c), in a table of faces.
ACTION_UNIT = re.compile("AU[0-9]{2}_[rc]")


def split_of_actor(actor: int) -> str:
    """Return the split of an actor: 1-14, 15-17 and 18-24, so that no voice is in two. There is no official split."""
    return "train" if actor <= 14 else "validation" if actor <= 17 else "test"


class RavdessFolder(VoiceFolder):
    """
    `actor_01` to `actor_24` (or `Actor_01`, as they are published) with the `.flac` or `.wav` files of speech.

    A segment is a file and its video the actor: `actor_12[3]` is the fourth file of actor 12, by name. The column
    `segment` is null, because these names begin with the emotion, and their order is not that of a conversation.
    Neutral and calm count as neutral. Files of song, files with video and files of other names are left out. The
    splits are those of [`split_of_actor`].

    Args:
        faces: a CSV with the columns `file` (03-01-06-01-02-01-12) and OpenFace's action units, averaged over the
            clip: the column `video_features` is then one step of these values, null for clips that are not in it.
        options: of [`VoiceFolder`].

    Raises:
        OSError, ValueError: `faces` cannot be read, or is not such a table.
    """

    classes: ClassVar = RAVDESS_EMOTIONS
    names_in_mosei: ClassVar = {"angry": "anger", "fearful": "fear", "surprised": "surprise"}
    neutral_classes: ClassVar = ("neutral", "calm")

    def __init__(self, folder: str | Path, faces: str | Path | None = None, **options: Any):
        super().__init__(folder, **options)
        self.faces = {} if faces is None else read_faces(faces)

    @cached_property
    def features(self) -> Features:
        features = super().features
        if self.faces:
            size = next(iter(self.faces.values())).shape[1]
            features["video_features"] = List(List(Value("float32"), length=size))
        return features

    @cached_property
    def _clips(self) -> ClipTable:
        folders = [path for path in self.folder.iterdir() if path.is_dir() and path.name.lower().startswith("actor_")]
        files = [path for folder in folders for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
        rows: list[dict[str, Any]] = []
        seen: dict[str, str] = {}
        counts: dict[int, int] = {}
        for path in sorted(files, key=lambda path: (path.parent.name.lower(), path.name)):
            file = path.relative_to(self.folder).as_posix()
            reason = _why_left_out(path)
            if reason is None and path.stem in seen:
                reason = f"{seen[path.stem]} is the same recording"
            if reason is not None:
                self.left_out[file] = reason
                continue
            seen[path.stem] = file
            _, _, emotion, intensity, statement, _, actor = path.stem.split("-")
            emotion, statement, actor = int(emotion), int(statement), int(actor)
            counts[actor] = counts.get(actor, -1) + 1
            rows.append(
                self.make_row(
                    path,
                    split=split_of_actor(actor),
                    segment_id=f"actor_{actor:02}[{counts[actor]}]",
                    speaker=f"actor_{actor:02}",
                    emotion=RAVDESS_EMOTIONS[emotion - 1],
                    text=STATEMENTS[statement - 1],
                    gender="male" if actor % 2 else "female",
                    intensity=INTENSITIES.get(intensity),
                )
            )
        if not rows:
            raise OSError(
                f"{self.folder} contains no speech of RAVDESS ({len(self.left_out)} files were left out): expected "
                "folders actor_01 to actor_24 with files such as 03-01-06-01-02-01-12.wav."
            )
        return ClipTable(rows)

    def read(self, split: str, segment_id: str) -> dict[str, Any]:
        row = super().read(split, segment_id)
        if self.faces:
            name = Path(self._clips.rows[self._index[segment_id]]["file"]).stem
            row["video_features"] = self.faces.get(name)
        return row


def read_faces(path: str | Path) -> dict[str, np.ndarray]:
    """
    Read a table of action units: {file: (1, number of units) float32}.

    Raises:
        OSError: the table cannot be read; ValueError: it has no column `file` or no action units, or a value is not a
            finite number.
    """
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        units = [name for name in rows.fieldnames or () if ACTION_UNIT.fullmatch(name)]
        if "file" not in (rows.fieldnames or ()) or not units:
            raise ValueError(f"{path} has no column `file` or no action units such as AU01_r: pass another --faces.")
        faces = {}
        for row in rows:
            try:
                faces[row["file"]] = np.array([[float(row[unit]) for unit in units]], np.float32)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {rows.line_num}: an action unit is not a number: {error}") from error
            if not np.isfinite(faces[row["file"]]).all():
                raise ValueError(f"{path}, line {rows.line_num}: an action unit is not finite.")
    return faces


def _why_left_out(path: Path) -> str | None:
    """`None` for a file of speech whose name means something."""
    match = FILE_NAME.fullmatch(path.stem)
    if match is None:
        return "its name is not seven numbers of two digits with - between them"
    modality, channel, emotion, _, statement, _, actor = match.groups()
    if modality != SOUND_ALONE:
        return f"its modality is {modality}; only {SOUND_ALONE}, sound alone, is read"
    if channel != SPEECH:
        return f"its vocal channel is {channel}; only {SPEECH}, speech, is read"
    for what, value, limit in (
        ("emotion", emotion, len(RAVDESS_EMOTIONS)),
        ("statement", statement, len(STATEMENTS)),
        ("actor", actor, NUM_ACTORS),
    ):
        if not 1 <= int(value) <= limit:
            return f"its name says {what} {value}, but there are 01 to {limit:02}"
    if path.parent.name.lower() != f"actor_{actor}":
        return f"it lies in {path.parent.name}, but its name says actor {actor}"
    return None
