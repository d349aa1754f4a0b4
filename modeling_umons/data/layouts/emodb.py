"""EMO-DB (Burkhardt et al., Interspeech 2005): ten German sentences spoken by actors in seven emotions."""

import re
from functools import cached_property
from typing import ClassVar

from ..clip_tables import ClipTable
from .voices import VoiceFolder


# 03a01Fa: speaker, text, emotion, version.
FILE_NAME = re.compile("([0-9]{2})([ab][0-9]{2})([WLEAFTN])([a-z])")
CLASSES_BY_LETTER = {
    "W": "anger", "L": "boredom", "E": "disgust", "A": "anxiety", "F": "happiness", "T": "sadness", "N": "neutral",
}  # fmt: skip
GENDERS = {
    "03": "male", "08": "female", "09": "female", "10": "male", "11": "male", "12": "male", "13": "female",
    "14": "female", "15": "male", "16": "female",
}  # fmt: skip
SUFFIXES = (".flac", ".wav")


def split_of_speaker(speaker: str) -> str:
    """Return the split of a speaker: 12 validates, 09, 13, 14, 15 and 16 test. There is no official split."""
    return {"12": "validation"}.get(speaker, "test" if speaker in ("09", "13", "14", "15", "16") else "train")


class EmodbFolder(VoiceFolder):
    """
    The `.wav` or `.flac` files of EMO-DB, in one folder. `video_id` is the speaker, `segment_id` the file's name.

    Boredom has none of the six emotions, and counts as neutral. The German texts are left out: `text` is null.
    """

    classes: ClassVar = tuple(CLASSES_BY_LETTER.values())
    names_in_mosei: ClassVar = {"anxiety": "fear", "happiness": "happy", "sadness": "sad"}
    neutral_classes: ClassVar = ("neutral", "boredom")

    @cached_property
    def _clips(self) -> ClipTable:
        rows = []
        for path in sorted(path for path in self.folder.rglob("*") if path.suffix.lower() in SUFFIXES):
            match = FILE_NAME.fullmatch(path.stem)
            if match is None or match[1] not in GENDERS:
                self.left_out[path.relative_to(self.folder).as_posix()] = (
                    "its name is not speaker, text, emotion and version, such as 03a01Fa"
                )
                continue
            rows.append(
                self.make_row(
                    path,
                    split=split_of_speaker(match[1]),
                    segment_id=path.stem,
                    speaker=f"emodb_{match[1]}",
                    emotion=CLASSES_BY_LETTER[match[3]],
                    gender=GENDERS[match[1]],
                )
            )
        if not rows:
            raise OSError(f"{self.folder} contains no recording of EMO-DB: expected files such as 03a01Fa.wav.")
        return ClipTable(rows)
