"""Decoding of audio that arrives in pieces."""

import io

import av
import numpy as np
import pytest
from small_pipelines import tone

from modeling_umons.models.umons.decoding_umons import DecodingWorker
from modeling_umons.models.umons.media_umons import read_clip
from modeling_umons.models.umons.stream_decoding_umons import PcmDecoder, StreamDecoder


def encode(container: str, codec: str = "libopus", rate: int = 48_000) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(2.0, rate)[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def test_samples_may_be_cut():
    samples = np.array([[100, 300], [500, 100], [7, 9]], "<i2")
    data, decoder = samples.tobytes(), PcmDecoder(channels=2)
    parts = [decoder.push(data[:3]), decoder.push(data[3:7]), decoder.push(data[7:])]
    assert [len(part) for part in parts] == [0, 1, 2]
    np.testing.assert_allclose(np.concatenate(parts), np.array([200, 300, 8]) / 2**15)


@pytest.mark.parametrize("container", ["webm", "ogg"])
@pytest.mark.parametrize("size", [37, 4_000])
def test_pieces_equal_the_file(container, size):
    data = encode(container)
    decoder = StreamDecoder(16_000)
    parts = [decoder.push(data[i : i + size]) for i in range(0, len(data), size)]
    samples = np.concatenate([*parts, decoder.push(b"", is_last=True)])
    np.testing.assert_allclose(samples, read_clip(data, video=False, sampling_rate=16_000).audio, atol=1e-6)


def test_webm_is_decoded_as_it_arrives():
    data = encode("webm")
    decoder = StreamDecoder(16_000)
    half = sum(len(decoder.push(data[i : i + 500])) for i in range(0, len(data) // 2, 500))
    assert half > 0.8 * 16_000


@pytest.mark.parametrize("data", [b"x" * 5_000, b"RIFF" + b"\0" * 4_000, b"\x1aE\xdf\xa3" + b"\xff" * 4_000])
def test_other_data_raise(data):
    with pytest.raises(OSError, match="cannot be decoded as WebM or Ogg"):
        push_all(StreamDecoder(16_000), data)


def push_all(decoder: StreamDecoder, data: bytes):
    decoder.push(data)
    decoder.push(b"", is_last=True)


def test_other_format_raises():
    with pytest.raises(OSError, match="cannot be decoded as WebM or Ogg"):
        push_all(StreamDecoder(16_000), encode("mp4", "aac"))


def test_worker_decodes_a_stream():
    data, worker = encode("webm"), DecodingWorker(30, 512)
    try:
        parts = [worker.push(data[i : i + 3_000], 16_000) for i in range(0, len(data), 3_000)]
        samples = np.concatenate([*parts, worker.push(b"", 16_000, is_last=True)])
        np.testing.assert_allclose(samples, read_clip(data, video=False, sampling_rate=16_000).audio, atol=1e-6)
        with pytest.raises(OSError, match="ended early"):
            worker.push(data, 16_000)
    finally:
        worker.close()
