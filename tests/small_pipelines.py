"""Small random pipelines and the media that tests give them."""

import io

import av
import numpy as np
import pytest
import torch
from transformers import pipeline

from modeling_umons import (
    MultimodalEmotionPipeline,
    UmonsConfig,
    UmonsFeatureExtractor,
    UmonsForSequenceClassification,
    UmonsProcessor,
    UmonsVideoProcessor,
    build_tokenizer,
)


TASK = "multimodal-emotion-recognition"
RATE = 22050
SIZES = {
    "word_embedding_size": 12,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "initializer_factor": 3.0,  # so that inputs show in the answers
}
WORDS = ["so", "very", "glad", "dont", "well", "known"]


def make_model(**options) -> UmonsForSequenceClassification:
    torch.manual_seed(0)
    return UmonsForSequenceClassification(UmonsConfig(vocab_size=2 + len(WORDS), **SIZES, **options)).eval()


def make_processor() -> UmonsProcessor:
    return UmonsProcessor(build_tokenizer(WORDS), UmonsFeatureExtractor(), UmonsVideoProcessor())


def make_pipeline(**options) -> MultimodalEmotionPipeline:
    return pipeline(TASK, model=make_model(**options), processor=make_processor())


def tone(seconds: float, rate: int = RATE, hertz: float = 220.0) -> np.ndarray:
    """A voice of a kind: harmonics that fade in and out three times a second; float32 (samples,)."""
    time = np.arange(round(seconds * rate)) / rate
    harmonics = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in (1, 2, 3))
    return (0.2 * harmonics * (1 + np.sin(6 * np.pi * time))).astype(np.float32)


def write_media(sound: np.ndarray | None, pictures: float = 0.0, container: str = "matroska") -> bytes:
    """A file of lossless 16-bit sound and of `pictures` seconds of video, or of one of the two."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        audio = None if sound is None else output.add_stream("pcm_s16le", rate=RATE, layout="mono")
        video = output.add_stream("mpeg4", rate=10, width=64, height=64, pix_fmt="yuv420p") if pictures else None
        for i in range(round(10 * pictures)):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 5 * i % 256, np.uint8), format="rgb24")
            output.mux(video.encode(frame))
        if video is not None:
            output.mux(video.encode(None))
        if audio is not None:
            pcm = np.round(sound * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
            frame.sample_rate = RATE
            output.mux(audio.encode(frame))
            output.mux(audio.encode(None))
    return file.getvalue()


def close(result, expected, tolerance=1e-5):
    """Return `True` for results that are equal up to rounding, with emotions matched by name."""
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        if name in ("emotions", "labels"):
            scores = {entry["label"]: entry["score"] for entry in value}
            assert {entry["label"]: entry["score"] for entry in result[name]} == pytest.approx(scores, abs=tolerance)
        elif isinstance(value, float):
            assert result[name] == pytest.approx(value, abs=tolerance)
        else:
            assert result[name] == value
    return True


class Transcriber:
    """Stands for a speech recogniser: says what it was told to, and remembers what it heard."""

    def __init__(self, *texts: str):
        self.texts, self.heard = list(texts), []

    def __call__(self, sound, **options):
        self.heard.append(sound)
        return {"text": self.texts[len(self.heard) - 1]}


# --- what tests share


@pytest.fixture(scope="module")
def recognize() -> MultimodalEmotionPipeline:
    return make_pipeline(joint_sentiment=True)


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    """Two and a half seconds, exactly as a 16-bit file holds them."""
    return (np.round(tone(2.5) * 32767).astype(np.int16) / np.float32(32768)).astype(np.float32)


@pytest.fixture(scope="module")
def clip() -> bytes:
    return write_media(tone(2.5), pictures=2.5)


@pytest.fixture(scope="module")
def wav() -> bytes:
    return write_media(tone(2.5), container="wav")


@pytest.fixture(scope="module")
def silent_clip() -> bytes:
    return write_media(None, pictures=1.5)


FIXTURES = (recognize, sound, clip, wav, silent_clip)  # for a test module to take by these names
