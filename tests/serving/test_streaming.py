"""WebSocket streams of `umons serve`: real connections to a real server and model."""

import asyncio
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import av
import httpx
import numpy as np
import pytest
from small_pipelines import FIXTURES, close, tone
from small_servers import running
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK
from websockets.sync.client import ClientConnection, connect

from modeling_umons.serving.streaming import Inbox, StreamLimits


recognize, *_ = FIXTURES
RATE = 16_000
QUERY = "sampling_rate=16000&hop_length_s=0.4&chunk_length_s=1"


@pytest.fixture(scope="module")
def client(recognize) -> Iterator[httpx.Client]:
    limits = StreamLimits(max_streams=2, max_message_bytes=300_000, max_lead_s=5.0)
    with running(recognize, stream_limits=limits) as client:
        yield client


def open_stream(client: httpx.Client, query: str = QUERY) -> ClientConnection:
    url = f"ws://{client.base_url.host}:{client.base_url.port}/stream?{query}"
    return connect(url, proxy=None, compression=None, close_timeout=10)


def pcm(samples: np.ndarray) -> bytes:
    return np.round(samples * 32767).astype("<i2").tobytes()


def webm(samples: np.ndarray, container: str = "webm") -> bytes:
    """Encode samples at 48 kHz as MediaRecorder does."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream("libopus", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = 48_000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def send(stream: ClientConnection, data: bytes, size: int = 3_201) -> list[dict]:
    """Send data in messages of `size` bytes, end the stream, and return the predictions."""
    for first in range(0, len(data), size):
        stream.send(data[first : first + size])
    stream.send('{"type": "end"}')
    events = [json.loads(message) for message in stream]  # until the server closes
    assert events[0]["type"] == "ready"
    assert events[-1] == {"type": "end"}
    assert stream.close_code == 1000
    return [without(event, "type") for event in events[1:-1]]


def without(event: dict, *names: str) -> dict:
    return {name: value for name, value in event.items() if name not in names}


def assert_segments(events: list[dict], expected: list[dict]):
    finals = [without(event, "is_final") for event in events if event["is_final"]]
    assert len(finals) == len(expected)
    for event, segment in zip(finals, json.loads(json.dumps(expected)), strict=True):
        assert close(event, segment)


def receive_all(stream: ClientConnection) -> list[dict]:
    """Return the events up to the end of the connection."""
    events = []
    with suppress(ConnectionClosed):
        while True:
            events.append(json.loads(stream.recv(timeout=20)))
    return events


def fail(stream: ClientConnection) -> tuple[str, str, int]:
    """Return code and message of the error with which the server ends a stream, and the close code."""
    event = receive_all(stream)[-1]
    assert event["type"] == "error"
    return event["code"], event["message"], stream.close_code


def test_pcm_equals_segments(client, recognize):
    samples = tone(2.5, RATE)
    with open_stream(client) as stream:
        events = send(stream, pcm(samples))
    given = np.round(samples * 32767).astype(np.int16)
    assert_segments(events, recognize({"audio": given, "sampling_rate": RATE}, chunk_length_s=1.0))


def test_partial_events_come_while_audio_arrives(client):
    with open_stream(client, f"{QUERY}&top_k=1") as stream:
        assert json.loads(stream.recv(timeout=20)) == {"type": "ready", "hop_length_s": 0.4, "chunk_length_s": 1.0}
        for end in (0.4, 1.0):
            stream.send(pcm(tone(0.6, RATE)))
            event = json.loads(stream.recv(timeout=20))
            assert event["timestamp"] == [0, end]
            assert event["is_final"] == (end == 1.0)
            assert len(event["emotions"]) == 1


@pytest.mark.parametrize("encoding", ["webm", "ogg"])
def test_opus_equals_file(client, recognize, encoding):
    file = webm(tone(2.5, 48_000), encoding)
    with open_stream(client, f"encoding={encoding}&hop_length_s=0.4&chunk_length_s=1") as stream:
        events = send(stream, file, 1_000)
    assert_segments(events, recognize({"audio": file}, chunk_length_s=1.0))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("sampling_rate=7", "`sampling_rate`"),
        ("encoding=mp4", "`encoding`"),
        ("colour=red", "`colour`"),
        ("chunk_length_s=nan", "`chunk_length_s`"),
        ("hop_length_s=3&chunk_length_s=2", "`hop_length_s` is 3"),
        ("top_k=0", "`top_k` is 0"),
    ],
)
def test_wrong_option_is_refused(client, query, message):
    with open_stream(client, query) as stream:
        code, said, close_code = fail(stream)
    assert (code, close_code) == ("bad_option", 1008)
    assert message in said


def test_bad_data_are_refused(client):
    for text in ("hello", '{"type": "stop"}', "[" * 10_000):
        with open_stream(client) as stream:
            stream.send(text)
            assert fail(stream)[::2] == ("bad_message", 1003)
    with open_stream(client, "encoding=webm") as stream:
        stream.send(b"x" * 50_000)
        code, said, close_code = fail(stream)
        assert (code, close_code) == ("bad_audio", 1007)
        assert "cannot be decoded as WebM or Ogg" in said
    with open_stream(client) as stream:
        stream.send(b"\0" * 300_001)
        receive_all(stream)
        assert stream.close_code == 1009


def test_client_that_is_too_fast_is_refused(client):
    with open_stream(client) as stream:
        for _ in range(4):
            stream.send(pcm(tone(3.0, RATE)))
        code, said, close_code = fail(stream)
    assert (code, close_code) == ("too_fast", 1008)
    assert "ahead of real time" in said


def test_number_of_streams_is_limited(client):
    with open_stream(client) as first, open_stream(client) as second:
        for stream in (first, second):
            stream.recv(timeout=20)
        assert client.get("/health").json()["streams"] == 2
        with open_stream(client) as third:
            assert fail(third)[::2] == ("busy", 1013)
    wait_until_closed(client)


def test_dropped_line_ends_the_stream(client):
    with open_stream(client) as stream:
        stream.send(pcm(tone(0.5, RATE)))
        stream.recv(timeout=20)
        stream.socket.shutdown(socket.SHUT_RDWR)
        wait_until_closed(client)
    with open_stream(client) as stream:
        assert send(stream, pcm(tone(1.0, RATE)))


def wait_until_closed(client: httpx.Client):
    end = time.monotonic() + 20
    while client.get("/health").json()["streams"]:
        assert time.monotonic() < end, "a stream stayed open"
        threading.Event().wait(0.02)


def test_idle_client_is_closed(recognize):
    with running(recognize, stream_limits=StreamLimits(idle_s=0.3)) as client, open_stream(client) as stream:
        assert fail(stream) == ("idle", "No audio for 0.3 s. Open another stream.", 1008)


def test_fast_bytes_are_refused(recognize):
    limits = StreamLimits(max_bytes_per_s=1_000, max_lead_s=1.0)
    with running(recognize, stream_limits=limits) as client, open_stream(client, "encoding=webm") as stream:
        stream.send(webm(tone(1.0, 48_000))[:5_000])
        code, said, close_code = fail(stream)
        assert (code, close_code) == ("too_fast", 1008)
        assert "More than 1000 bytes per second" in said


def test_shutdown_ends_streams(recognize):
    with ExitStack() as stack:
        with running(recognize) as client:
            stream = stack.enter_context(open_stream(client))
            stream.recv(timeout=20)
        assert receive_all(stream) == []
        assert stream.close_code == 1012


def test_failure_of_the_model_is_an_error_event(recognize, monkeypatch):
    def break_down(*_, **__):
        raise RuntimeError("secret")

    monkeypatch.setattr(recognize, "preprocess", break_down)
    with running(recognize) as client, open_stream(client) as stream:
        stream.send(pcm(tone(1.0, RATE)))
        code, said, close_code = fail(stream)
    assert (code, close_code) == ("failed", 1011)
    assert "secret" not in said


def test_client_may_close_at_any_time(client):
    with open_stream(client) as stream:
        stream.send(pcm(tone(0.5, RATE)))
    with pytest.raises(ConnectionClosedOK):
        stream.send(b"")
    wait_until_closed(client)


def test_inbox_takes_more_once_its_bytes_are_read():
    async def fill_twice() -> list[bytes]:
        inbox = Inbox(4)
        await inbox.put(b"abcd")
        second = asyncio.ensure_future(inbox.put(b"ef"))
        await asyncio.sleep(0)
        assert not second.done()
        first = await inbox.take()
        await asyncio.wait_for(second, 20)
        return [first, await inbox.take()]

    assert asyncio.run(fill_twice()) == [b"abcd", b"ef"]
