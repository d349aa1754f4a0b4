"""CMU-MOSI (Zadeh et al., 2016) as a table of texts and sentiments."""

from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Features

from ...tasks.labels import SENTIMENT_RANGE
from ..layouts import Source
from ..schema import make_features
from .tables import by_split, read_csv, to_count, to_number


class MosiTable(Source):
    """`mosi.csv` with the columns `segment_id` (video_3), `split`, `sentiment` and `text`."""

    features: Features = make_features()

    @property
    def _path(self) -> Path:
        return self.folder / "mosi.csv"

    @cached_property
    def _rows(self) -> dict[str, dict[str, str]]:
        return read_csv(self._path, ("segment_id", "split", "sentiment", "text"))

    @cached_property
    def segments(self) -> dict[str, list[str]]:
        return by_split(self._path, self._rows)

    def read(self, split: str, segment_id: str) -> dict[str, Any]:
        row = self._rows[segment_id]
        video_id, _, segment = segment_id.rpartition("_")  # ids of videos may hold underscores too
        if not video_id:
            raise ValueError(f"{self._path}, {segment_id}: a segment_id is the video, `_` and a number.")
        return {
            "segment_id": segment_id,
            "video_id": video_id,
            "segment": to_count(segment, self._path, segment_id, "the end of its segment_id"),
            "text": row["text"] or None,
            "sentiment": to_number(row["sentiment"], self._path, segment_id, "sentiment", SENTIMENT_RANGE),
        }
