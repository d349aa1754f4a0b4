# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""CMU-MOSI (Zadeh et al., 2016) as a table of texts and sentiments."""

from functools import cached_property
from typing import Any

from datasets import Features

from ..columns import make_features
from . import Source
from .tables import by_split, read_csv, to_number


class MosiTable(Source):
    """`mosi.csv` with the columns `segment_id` (video_3), `split`, `sentiment` and `text`."""

    features: Features = make_features()

    @cached_property
    def _rows(self) -> dict[str, dict[str, str]]:
        return read_csv(self.folder / "mosi.csv", ("segment_id", "split", "sentiment", "text"))

    @cached_property
    def segments(self) -> dict[str, list[str]]:
        return by_split(self.folder / "mosi.csv", self._rows)

    def read(self, split: str, segment_id: str) -> dict[str, Any]:
        row = self._rows[segment_id]
        video_id, _, segment = segment_id.rpartition("_")
        return {
            "segment_id": segment_id,
            "video_id": video_id,
            "segment": int(to_number(segment, self.folder / "mosi.csv", segment_id, "the number in its segment_id")),
            "text": row["text"] or None,
            "sentiment": to_number(row["sentiment"], self.folder / "mosi.csv", segment_id, "sentiment"),
        }
