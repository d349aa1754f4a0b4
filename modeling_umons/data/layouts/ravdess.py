# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""RAVDESS (Livingstone and Russo, PLOS ONE 2018): two statements spoken by actors in eight emotions."""

import re
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Features, Value

from ...models.umons.configuration_umons import EMOTIONS
from ..clip_tables import ClipTable
from ..schema import make_features
from .folder import ClipFolder


RAVDESS_EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
# Those that have another name among MOSEI's; neutral and calm are the absence of all six.
NAMES_IN_MOSEI = {"angry": "anger", "fearful": "fear", "surprised": "surprise"}
STATEMENTS = ("Kids are talking by the door", "Dogs are sitting by the door")
SUFFIXES = (".flac", ".wav")
NUM_ACTORS = 24
# The fields of a name, 03-01-06-01-02-01-12: modality, vocal channel, emotion, intensity, statement, repetition,
# actor.
FILE_NAME = re.compile("-".join(["([0-9]{2})"] * 7))
SOUND_ALONE, SPEECH = "03", "01"


def split_of_actor(actor: int) -> str:
    """Return the split of an actor: 1-14, 15-17 and 18-24, so that no voice is in two. There is no official split."""
    return "train" if actor <= 14 else "validation" if actor <= 17 else "test"


class RavdessFolder(ClipFolder):
    """
    `actor_01` to `actor_24` (or `Actor_01`, as they are published) with the `.flac` or `.wav` files of speech.

    A segment is a file and its video the actor: `actor_12[3]` is the fourth file of actor 12, by name. The column
    `segment` is null, as these names say the emotion first: what follows what is no context. The columns `speaker`
    (actor_12) and `emotion` (one of `RAVDESS_EMOTIONS`) come on top; the six emotions are 1 or 0 by `emotion`, and
    `sentiment` is null. Files of song, files with video and files of other names are left out. The splits are those of
    [`split_of_actor`].

    Args:
        model: a saved model, whose feature extractor serves.
        max_length: frames of audio kept of a file; `None` is what the extractor keeps, 60.
    """

    def __init__(self, folder: str | Path, model: str | None = None, max_length: int | None = None):
        super().__init__(folder, ("text", "audio"), model=model, max_length=max_length)

    @cached_property
    def features(self) -> Features:
        emotion = ClassLabel(names=list(RAVDESS_EMOTIONS))
        return make_features(**self._sizes(), speaker=Value("string"), emotion=emotion)

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
            _, _, emotion, _, statement, _, actor = map(int, path.stem.split("-"))
            counts[actor] = counts.get(actor, -1) + 1
            rows.append(self._row_of(path, file, emotion, statement, actor, counts[actor]))
        if not rows:
            raise OSError(
                f"{self.folder} contains no speech of RAVDESS ({len(self.left_out)} files were left out): expected "
                "folders actor_01 to actor_24 with files such as 03-01-06-01-02-01-12.wav."
            )
        return ClipTable(rows)

    @staticmethod
    def _row_of(path: Path, file: str, emotion: int, statement: int, actor: int, segment: int) -> dict[str, Any]:
        name = RAVDESS_EMOTIONS[emotion - 1]
        present = NAMES_IN_MOSEI.get(name, name)
        return {
            "file": file,
            "size": path.stat().st_size,
            "path": str(path.absolute()),
            "split": split_of_actor(actor),
            "segment_id": f"actor_{actor:02}[{segment}]",
            "video_id": f"actor_{actor:02}",
            "text": STATEMENTS[statement - 1],
            "emotion": emotion - 1,
            **{emotion: float(emotion == present) for emotion in EMOTIONS},
        }

    def read(self, split: str, segment_id: str) -> dict[str, Any]:
        row = super().read(split, segment_id)
        return {**row, "speaker": row["video_id"], "emotion": RAVDESS_EMOTIONS.index(self.emotion_of(segment_id))}

    def emotion_of(self, segment_id: str) -> str:
        """Return one of `RAVDESS_EMOTIONS`."""
        return RAVDESS_EMOTIONS[self._clips.rows[self._index[segment_id]]["emotion"]]


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
