"""CMU-MOSEI as tables of labels and transcripts."""

import logging
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Features

from ...models.umons.configuration_umons import EMOTIONS
from ...tasks.labels import EMOTION_RANGE, SENTIMENT_RANGE
from ..layouts import Source
from ..schema import make_features
from .tables import by_split, read_csv, to_count, to_number


logger = logging.getLogger(__name__)

LABEL_COLUMNS = ("segment_id", "video_id", "segment", "split", "start", "end", "sentiment", *EMOTIONS)


class LabelTables(Source):
    """
    `labels.csv` with the columns `LABEL_COLUMNS`, and any number of `transcripts*.csv` with `segment_id` and `text`.

    There is neither audio nor video. A segment without a transcript has no text; a transcript without a segment is
    passed over with a warning. `start` and `end` are those of the table: of the official segments, 223 begin up to
    half a second before their video.
    """

    features: Features = make_features()

    @property
    def _path(self) -> Path:
        return self.folder / "labels.csv"

    @cached_property
    def _rows(self) -> dict[str, dict[str, str]]:
        return read_csv(self._path, LABEL_COLUMNS)

    @cached_property
    def _texts(self) -> dict[str, str]:
        texts: dict[str, str] = {}
        for path in sorted(self.folder.glob("transcripts*.csv")):
            rows = read_csv(path, ("segment_id", "text"))
            if twice := [name for name in rows if name in texts]:
                raise ValueError(f"{path}, {twice[0]}: another table of transcripts has this segment too.")
            unknown = [name for name in rows if name not in self._rows]
            if unknown:
                logger.warning("%s: %d segments, such as %s, are not in labels.csv", path, len(unknown), unknown[0])
            texts |= {name: row["text"] for name, row in rows.items()}
        return texts

    @cached_property
    def segments(self) -> dict[str, list[str]]:
        segments = by_split(self._path, self._rows)
        _ = self._texts  # errors of the transcripts are errors of the source
        return segments

    def read(self, split: str, segment_id: str) -> dict[str, Any]:
        row = self._rows[segment_id]

        def number(name: str, *within: tuple[float, float]) -> float | None:
            return to_number(row[name], self._path, segment_id, name, *within)

        start, end = number("start"), number("end")
        if start is not None and end is not None and end < start:
            raise ValueError(f"{self._path}, {segment_id}: it ends at {end} s, before it starts at {start} s.")
        return {
            "segment_id": segment_id,
            "video_id": row["video_id"] or None,
            "segment": to_count(row["segment"], self._path, segment_id, "segment"),
            "start": start,
            "end": end,
            "text": self._texts.get(segment_id) or None,
            "sentiment": number("sentiment", SENTIMENT_RANGE),
            **{name: number(name, EMOTION_RANGE) for name in EMOTIONS},
        }
