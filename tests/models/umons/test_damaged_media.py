"""Truncated files, and files with names of clips that are not clips. `tests/fuzz` has damaged ones."""

import io

import numpy as np
import pytest
from PIL import Image
from small_clips import FORMATS, encode

from modeling_umons.models.umons.media_umons import read_clip


def encode_image(image_format: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file := io.BytesIO(), format=image_format)
    return file.getvalue()


OTHERS = {
    **{f"{name}.mp4": encode_image(name) for name in ("png", "jpeg", "gif", "webp", "bmp")},
    "random.mp4": np.random.default_rng(1).bytes(100_000),
    "zeros.mp4": bytes(100_000),
    "empty.mp4": b"",
    "text.mp4": b"Happy words, no media.\n" * 500,
    "text.wav": b"RIFF and WAVE are words, too.\n" * 500,
    "table.mpg": b"text,sentiment\nhello,1.0\n" * 500,
}


@pytest.mark.parametrize("suffix", FORMATS)
def test_truncated_files_are_read_to_their_end(tmp_path, suffix):
    data = encode(*FORMATS[suffix])
    durations, path = [], tmp_path / f"clip.{suffix}"
    for tenth in range(1, 11):
        path.write_bytes(data[: len(data) * tenth // 10])
        try:
            clip = read_clip(path)
        except OSError:
            durations.append(0.0)
        else:
            durations.append(clip.duration)
    assert durations == sorted(durations)
    if suffix == "mp4":  # its index is at its end
        assert durations[:-1] == [0.0] * 9
    else:
        assert durations[-2] > 0.5
    assert durations[-1] == pytest.approx(1.0, abs=0.1)
    assert len(clip.audio) == pytest.approx(22050, abs=0.1 * 22050)
    assert (0 if clip.frames is None else len(clip.frames)) == (25 if FORMATS[suffix][1] else 0)


@pytest.mark.parametrize("name", OTHERS)
def test_files_of_other_kinds_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(OTHERS[name])
    with pytest.raises(OSError, match=rf"{name} could not be opened as a video or audio file"):
        read_clip(tmp_path / name)
