"""Folder of clips, with or without a table, whose features are extracted as they are read."""

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Features

from ..clip_tables import ClipTable, read_clip_table, typed_columns
from ..layouts import Source
from ..official_splits import official_split
from ..schema import SPLIT_NAMES, SPLITS, make_features


logger = logging.getLogger(__name__)

MODALITIES = ("text", "audio", "video")


class ClipFolder(Source):
    """
    Input of [`read_clip_table`]: clips with or without a `metadata.csv`, `.jsonl` or `.parquet`, or a data set saved
    by `datasets`.

    The splits are those of the column `split` or of folders named as splits; without either, the official ones of
    CMU-MOSEI if any video is in them; else all rows are "train". Clips that are not in the table are left out.
    Features are those of `umons extract`.

    Args:
        modalities: any of text, audio and video; with text only, no clip is opened.
        model: a saved model, for its extractors and, without `tower_weights`, its video tower.
        tower_weights: a state dict of torchvision's `r2plus1d_18`, or the name of weights of torchvision.
        max_length: audio frames and video clips kept of a segment; `None` keeps the number of the extractors, 60.
        audio_encoder: a pretrained audio encoder (a folder or Hub id), whose output replaces log-mel frames.
        average_audio: whether to average this output over time.

    Raises:
        ValueError: the options contradict each other.
    """

    def __init__(
        self,
        folder: str | Path,
        modalities: Sequence[str] = ("text", "audio"),
        model: str | None = None,
        tower_weights: str | None = None,
        max_length: int | None = None,
        audio_encoder: str | None = None,
        average_audio: bool = False,
    ):
        super().__init__(folder)
        self.modalities = tuple(modalities)
        if not self.modalities or not set(self.modalities) <= set(MODALITIES):
            raise ValueError(
                f"The modalities are {', '.join(self.modalities)!r}; pass any of {', '.join(MODALITIES)}."
            )
        self.settings = None
        if set(self.modalities) != {"text"}:
            from ..extraction import ExtractionSettings

            self.settings = ExtractionSettings(
                self.modalities,
                max_length,
                tower_weights,
                model,
                audio_encoder=audio_encoder,
                average_audio=average_audio,
            )
        elif any((model, tower_weights, max_length, audio_encoder, average_audio)):
            raise ValueError("Text only is copied: the options of audio and video do not apply.")

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the extractor, which each process builds for itself."""
        return {name: value for name, value in self.__dict__.items() if name != "_extract"}

    @cached_property
    def features(self) -> Features:
        return make_features(**self._sizes())

    def _sizes(self) -> dict[str, int]:
        """Return the arguments of `make_features`."""
        has_audio = self.settings is not None and "audio" in self.modalities
        if not has_audio:
            return {}
        encoder = self.settings.encoder_features()
        return {"audio_size": self.settings.feature_extractor().frame_size if encoder is None else encoder.size}

    @cached_property
    def _extract(self):
        from ..extraction import RowExtractor

        return RowExtractor(self.settings)

    @cached_property
    def _clips(self) -> ClipTable:
        return read_clip_table(self.folder)

    @cached_property
    def _index(self) -> dict[str, int]:
        """Map segment ids to rows of the table."""
        index: dict[str, int] = {}
        for number, row in enumerate(self._clips.rows):
            segment_id = str(row["segment_id"])
            if segment_id in index:
                first = self._clips.rows[index[segment_id]]["file"]
                raise ValueError(
                    f"{self.folder}: {first!r} and {row['file']!r} are both the segment {segment_id!r}; give each row "
                    "of the table its own segment_id."
                )
            index[segment_id] = number
        return index

    @cached_property
    def segments(self) -> dict[str, list[str]]:
        if self.settings is not None:  # errors of a model or a tower appear here, and not for each segment
            _ = self.features
            if "video" in self.modalities:
                self.settings.tower()
        segments: dict[str, list[str]] = {split: [] for split in SPLITS}
        for (segment_id, index), split in zip(self._index.items(), self._splits(), strict=True):
            if split in SPLITS:
                segments[split].append(segment_id)
            else:
                self.left_out[segment_id] = f"{self._clips.rows[index]['file']}: {split}"
        self.left_out |= {file: f"{file}: the table does not name it" for file in self._clips.unlisted}
        return {split: names for split, names in segments.items() if names}

    def _splits(self) -> list[str]:
        """Return for each row its split, or the reason why it has none."""
        rows = self._clips.rows
        named = [row.get("split") for row in rows]
        if any(named):
            for name, row in zip(named, rows, strict=True):
                if name and str(name).lower() not in SPLIT_NAMES:
                    raise ValueError(
                        f"{self.folder}, {row['segment_id']}: its split is {name!r}; use one of "
                        f"{', '.join(SPLIT_NAMES)}."
                    )
            return [SPLIT_NAMES[str(name).lower()] if name else "the table names no split for it" for name in named]
        official = [official_split(str(row["video_id"])) for row in rows]
        if any(official):
            return [split or "its video is in no official split of CMU-MOSEI" for split in official]
        return ["train"] * len(rows)

    def read(self, split: str, segment_id: str) -> dict[str, Any]:
        index = self._index[segment_id]
        file = self._clips.rows[index]["file"]
        extract = self._copy_text if self.settings is None else self._extract
        try:
            row, problems = extract(self._clips, index)
        except OSError as error:
            raise OSError(f"{self.folder}, {segment_id} ({file}): {error}") from error
        except ValueError as error:
            raise ValueError(f"{self.folder}, {segment_id} ({file}): {error}") from error
        for problem in problems:
            logger.warning("%s, %s (%s): %s", self.folder, segment_id, file, problem)
        return row

    @staticmethod
    def _copy_text(clips: ClipTable, index: int) -> tuple[dict[str, Any], list[str]]:
        row = typed_columns(clips.rows[index], with_text=True)
        if row["text"] is None and row["words"] is None:
            raise ValueError("the row has neither text nor words")
        return row, []
