"""MELD (Poria et al., ACL 2019), dialogues from the series Friends, as its tables of text and labels."""

import logging
import re
from functools import cached_property
from typing import Any

from datasets import ClassLabel, Features, Value

from ...models.umons.configuration_umons import EMOTIONS
from ..layouts import Source
from ..schema import SPLIT_NAMES, SPLITS, make_features
from .tables import read_csv, to_count


logger = logging.getLogger(__name__)

MELD_EMOTIONS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
POLARITIES = ("negative", "neutral", "positive")
# Of MELD's emotions, those that have another name among MOSEI's; neutral is the absence of all.
NAMES_IN_MOSEI = {"joy": "happy", "sadness": "sad"}
MELD_COLUMNS = ("Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID", "StartTime", "EndTime")

# Tables of MELD are about in which bytes of Windows' cp1252 were taken for code points: its quotes and dashes stand
# there as control characters that no text has, so that there is no doubt of what they were.
_CP1252 = {code: bytes([code]).decode("cp1252", "replace") for code in range(0x80, 0xA0)}
MISREAD = {code: character for code, character in _CP1252.items() if character != "\N{REPLACEMENT CHARACTER}"}


class MeldTables(Source):
    """
    Any of `train_sent_emo.csv`, `dev_sent_emo.csv` and `test_sent_emo.csv`, with the columns `MELD_COLUMNS`.

    Utterance 3 of dialogue 5 is the segment `train_dia5[3]` of the video `train_dia5`: each table counts its dialogues
    from 0. There is neither audio nor video. The columns `speaker`, `emotion` (one of `MELD_EMOTIONS`) and `polarity`
    (one of `POLARITIES`) come on top; the six emotions are 1 or 0 by `emotion`, and `sentiment`, which is an
    intensity, is null. `start` and `end` are seconds of the episode; `end` is null where it equals `start`.
    """

    features: Features = make_features(
        speaker=Value("string"),
        emotion=ClassLabel(names=list(MELD_EMOTIONS)),
        polarity=ClassLabel(names=list(POLARITIES)),
    )

    @cached_property
    def _rows(self) -> dict[str, dict[str, dict[str, str]]]:
        rows, missing = {}, []
        for name in ("train", "dev", "test"):
            path = self._path(name)
            if path.is_file():
                rows[name] = read_csv(
                    path,
                    MELD_COLUMNS,
                    key=lambda row, name=name: f"{name}_dia{row['Dialogue_ID']}[{row['Utterance_ID']}]",
                )
            else:
                missing.append(path.name)
        if not rows:
            raise FileNotFoundError(f"{self.folder} has none of the tables {', '.join(missing)}.")
        if missing:
            logger.warning("%s lacks %s: there are no such splits", self.folder, " and ".join(missing))
        return rows

    def _path(self, name: str):
        return self.folder / f"{name}_sent_emo.csv"

    @cached_property
    def segments(self) -> dict[str, list[str]]:
        segments = {SPLIT_NAMES[name]: list(rows) for name, rows in self._rows.items()}
        return {split: segments[split] for split in SPLITS if segments.get(split)}

    def read(self, split: str, segment_id: str) -> dict[str, Any]:
        name = segment_id.partition("_")[0]
        row, path = self._rows[name][segment_id], self._path(name)
        emotion = self._class_of(row, "Emotion", MELD_EMOTIONS, path, segment_id)
        polarity = self._class_of(row, "Sentiment", POLARITIES, path, segment_id)
        present = NAMES_IN_MOSEI.get(MELD_EMOTIONS[emotion], MELD_EMOTIONS[emotion])
        start, end = (_seconds(row[column], path, segment_id, column) for column in ("StartTime", "EndTime"))
        if end < start:
            raise ValueError(f"{path}, {segment_id}: it ends at {row['EndTime']}, before {row['StartTime']}.")
        dialogue = to_count(row["Dialogue_ID"], path, segment_id, "Dialogue_ID")
        return {
            "segment_id": segment_id,
            "video_id": f"{name}_dia{dialogue}",
            "segment": to_count(row["Utterance_ID"], path, segment_id, "Utterance_ID"),
            "start": start,
            "end": end if end > start else None,
            "text": row["Utterance"].translate(MISREAD) or None,
            **{emotion: float(emotion == present) for emotion in EMOTIONS},
            "speaker": row["Speaker"].translate(MISREAD) or None,
            "emotion": emotion,
            "polarity": polarity,
        }

    @staticmethod
    def _class_of(row: dict[str, str], column: str, names: tuple[str, ...], path, segment_id: str) -> int:
        if row[column] not in names:
            raise ValueError(f"{path}, {segment_id}: {column} is {row[column]!r}; known are {', '.join(names)}.")
        return names.index(row[column])


def _seconds(time: str, path, segment_id: str, column: str) -> float:
    """Parse a time of subtitles (SubRip), 00:20:57,256. Whole milliseconds follow the comma: `,28` is 0.028 s."""
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d),(\d{1,3})", time.strip(), re.ASCII)
    if match is None:
        raise ValueError(f"{path}, {segment_id}: {column} is {time!r}, which is not a time such as 00:20:57,256.")
    hours, minutes, seconds, milliseconds = map(int, match.groups())
    return (1000 * (3600 * hours + 60 * minutes + seconds) + milliseconds) / 1000
