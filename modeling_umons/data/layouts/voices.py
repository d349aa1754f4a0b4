"""Recordings of voices, each with one emotion: what the layouts ravdess, emodb and prompts share."""

from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from datasets import Audio, ClassLabel, Features, Value

from ...models.umons.configuration_umons import EMOTIONS
from ..clip_tables import ClipTable, typed_columns
from ..schema import FEATURE_COLUMNS, make_features
from .folder import ClipFolder


class VoiceFolder(ClipFolder):
    """
    Folder of recordings whose names give the speaker and the emotion.

    The six emotions and `neutral` are 1 or 0 by the column `emotion`, the corpus's own class; `sentiment` is null.
    Further columns are `speaker`, `gender` (female or male) and `intensity`. The splits are by speaker.

    Args:
        model: a saved model, whose feature extractor is used.
        max_length: audio frames kept of a file; `None` keeps the number of the extractor, 60.
        audio_encoder: a pretrained audio encoder (a folder or Hub id), whose output replaces log-mel frames.
        average_audio: whether to average this output over time.
        keep_audio: store the files, as the column `audio`, in place of features: for models with an audio encoder and
            for augmentation of waveforms.

    Raises:
        ValueError: `keep_audio` is given together with options of features.
    """

    classes: ClassVar[tuple[str, ...]]
    # Class of each emotion that MOSEI has too, and the classes without any of them.
    names_in_mosei: ClassVar[dict[str, str]]
    neutral_classes: ClassVar[tuple[str, ...]] = ("neutral",)

    def __init__(
        self,
        folder: str | Path,
        model: str | None = None,
        max_length: int | None = None,
        audio_encoder: str | None = None,
        average_audio: bool = False,
        keep_audio: bool = False,
    ):
        if keep_audio and any((model, max_length, audio_encoder, average_audio)):
            raise ValueError(
                "--keep_audio stores no features: leave out --model, --max_length, --audio_encoder, --average_audio."
            )
        modalities = ("text",) if keep_audio else ("text", "audio")
        options = {"max_length": max_length, "audio_encoder": audio_encoder, "average_audio": average_audio}
        super().__init__(folder, modalities, model, **options)
        self.keep_audio = keep_audio

    @cached_property
    def features(self) -> Features:
        text = Value("string")
        features = make_features(
            **self._sizes(),
            neutral=Value("float32"),
            speaker=text,
            gender=text,
            intensity=text,
            emotion=ClassLabel(names=list(self.classes)),
        )
        if self.keep_audio:
            columns = {name: kind for name, kind in features.items() if name not in FEATURE_COLUMNS}
            return Features(columns | {"audio": Audio(decode=False)})
        return features

    @cached_property
    @abstractmethod
    def _clips(self) -> ClipTable:
        """Rows of [`make_row`]."""

    def make_row(self, path: Path, *, split: str, segment_id: str, speaker: str, emotion: str, **more: Any) -> dict:
        """Return the row of a recording; `more` are `gender`, `intensity` and `text`, where they are known."""
        present = self.names_in_mosei.get(emotion, emotion)
        return {
            "file": path.relative_to(self.folder).as_posix(),
            "size": path.stat().st_size,
            "path": str(path.absolute()),
            "split": split,
            "segment_id": segment_id,
            "video_id": speaker,
            "emotion": self.classes.index(emotion),
            "neutral": float(emotion in self.neutral_classes),
            **{name: float(name == present) for name in EMOTIONS},
            **more,
        }

    def read(self, split: str, segment_id: str) -> dict[str, Any]:
        index = self._index[segment_id]
        found = self._clips.rows[index]
        if self.keep_audio:
            source = self._clips.source(index)
            audio = source if isinstance(source, bytes) else Path(source).read_bytes()
            row = typed_columns(found, with_text=True) | {"audio": {"bytes": audio, "path": Path(found["file"]).name}}
        else:
            row = super().read(split, segment_id)
        own = {name: found.get(name) for name in ("gender", "intensity", "emotion", "neutral")}
        return row | {"speaker": found["video_id"], **own}
