"""Neutral voices: the prompts of Asterisk, a telephone exchange, spoken by four professionals in five languages.

Debian distributes them (`asterisk-core-sounds-en-g722`, -es-, -fr-, -it-, -ru-). The recordings are by Allison Smith,
June Wallack (both CC BY-SA 3.0), Carlo Flora and Maxim Topal (both CC BY 3.0).
"""

import io
import re
import wave
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from ...models.umons.media_umons import import_av
from ..clip_tables import ClipTable
from .voices import VoiceFolder


# en_US_f_Allison: language, country, gender, speaker.
FOLDER_NAME = re.compile("([a-z]{2})_[A-Z]{2}_([fm])_(\\w+)")
# Bytes per second of G.722, and of 16-bit audio at 8 kHz.
BYTE_RATES = {".g722": 8000, ".wav": 16000}
# Shorter prompts are single words: digits and letters.
MIN_SECONDS, MAX_SECONDS = 1.5, 12.0
# Files that are not speech.
NO_SPEECH = re.compile("silence|tone|beep|monkeys|gong|confbridge-(join|leave)$|conf-(enter|leave)")
SPLITS_BY_SPEAKER = {"June": "validation"}


class Prompts(ClipTable):
    """Rows of prompts, whose G.722 files are decoded."""

    def source(self, index: int) -> str | bytes:
        source = super().source(index)
        return decode_g722(source) if source.endswith(".g722") else source


class PromptFolder(VoiceFolder):
    """
    Folders named as `en_US_f_Allison`, at any depth, with `.g722` (16 kHz) or `.wav` files (8 kHz) of 1.5 to 12
    seconds; a prompt that is there in both formats is read in G.722. All are neutral. June's prompts validate.

    Args:
        max_per_folder: prompts of a language that are read, evenly chosen by name.
    """

    classes: ClassVar = ("neutral",)
    names_in_mosei: ClassVar = {}

    def __init__(self, folder: str | Path, max_per_folder: int = 150, **options):
        super().__init__(folder, **options)
        self.max_per_folder = max_per_folder

    @cached_property
    def _clips(self) -> ClipTable:
        rows = []
        folders = [path for path in self.folder.rglob("*") if path.is_dir() and FOLDER_NAME.fullmatch(path.name)]
        for folder in sorted(folders):
            language, gender, speaker = FOLDER_NAME.fullmatch(folder.name).groups()
            paths = self._find_prompts(folder)
            count = min(self.max_per_folder, len(paths))
            for path in (paths[i * len(paths) // count] for i in range(count)):
                name = path.relative_to(folder).with_suffix("").as_posix()
                rows.append(
                    self.make_row(
                        path,
                        split=SPLITS_BY_SPEAKER.get(speaker, "train"),
                        segment_id=f"{language}/{name}",
                        speaker=f"prompts_{speaker}",
                        emotion="neutral",
                        gender={"f": "female", "m": "male"}[gender],
                    )
                )
        if not rows:
            raise OSError(
                f"{self.folder} contains no prompts of Asterisk: expected folders such as en_US_f_Allison with .g722 "
                "or .wav files."
            )
        return Prompts(rows)

    def _find_prompts(self, folder: Path) -> list[Path]:
        """Return the files of speech of a suitable length, one for each prompt."""
        found: dict[Path, Path] = {}
        for suffix, byte_rate in BYTE_RATES.items():
            for path in folder.rglob(f"*{suffix}"):
                name = path.relative_to(folder).with_suffix("").as_posix()
                is_long_enough = MIN_SECONDS <= path.stat().st_size / byte_rate <= MAX_SECONDS
                if is_long_enough and not NO_SPEECH.search(name):
                    found.setdefault(path.with_suffix(""), path)
        return [found[name] for name in sorted(found)]


def decode_g722(path: str | Path) -> bytes:
    """Decode a file of G.722, which has no header, to a WAV file. Raises OSError for another file."""
    av = import_av()
    try:
        with av.open(str(path), format="g722") as container:
            samples = b"".join(frame.to_ndarray().tobytes() for frame in container.decode(audio=0))
    except av.FFmpegError as error:
        raise OSError(f"{path} is not a file of G.722: {error}") from error
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(samples)
    return buffer.getvalue()
