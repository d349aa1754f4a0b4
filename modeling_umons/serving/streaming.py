"""WebSocket sessions of `umons serve`: audio in, predictions as JSON events out, while the audio arrives."""

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..models.umons.decoding_umons import DecodingWorker
from ..models.umons.live_umons import LiveStream
from ..models.umons.stream_decoding_umons import PcmDecoder
from .request_handling import RequestError, as_server_error


# Close codes of RFC 6455 and of the IANA registry.
DONE, UNSUPPORTED, INVALID_DATA, REFUSED, INTERNAL_ERROR, TRY_AGAIN = 1000, 1003, 1007, 1008, 1011, 1013
DECODING_DEADLINE_S, DECODING_MEMORY_MB = 10.0, 512


@dataclass(frozen=True)
class StreamLimits:
    """
    Limits of the sessions.

    Attributes:
        max_streams: sessions at once.
        max_message_bytes: size of a message.
        max_bytes_per_s: bytes of a session per second.
        max_lead_s: seconds by which a client may be ahead of real time, in audio and in bytes.
        idle_s: seconds without a message after which a session ends; also for a client that does not read.
    """

    max_streams: int = 20
    max_message_bytes: int = 2**20
    max_bytes_per_s: int = 400_000
    max_lead_s: float = 10.0
    idle_s: float = 30.0


class StreamError(Exception):
    """End of a session because of its client, with a close code, a `reason` in snake_case and a message."""

    def __init__(self, code: int, reason: str, message: str):
        super().__init__(message)
        self.code, self.reason = code, reason


class Options(BaseModel):
    """Options of a session, in the query of its URL."""

    model_config = ConfigDict(extra="forbid")

    encoding: Literal["pcm16", "webm", "ogg"] = "pcm16"
    sampling_rate: int = Field(16_000, ge=8_000, le=96_000)
    channels: int = Field(1, ge=1, le=8)
    hop_length_s: float = Field(0.5, ge=0.1)
    chunk_length_s: float | None = Field(None, le=30)
    top_k: int | None = None
    abstain_below: float | None = None


class Inbox:
    """Messages of a client that are not processed yet, at most `max_bytes`: a reader beyond that waits."""

    def __init__(self, max_bytes: int):
        self.max_bytes, self.messages, self.num_bytes = max_bytes, [], 0
        self.end: Exception | None = None
        self.changed = asyncio.Condition()

    async def put(self, data: bytes) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: self.num_bytes < self.max_bytes)
            self.messages.append(data)
            self.num_bytes += len(data)
            self.changed.notify_all()

    async def close(self, end: Exception) -> None:
        async with self.changed:
            self.end = end
            self.changed.notify_all()

    async def take(self) -> bytes:
        """Return all that has arrived; empty at the end."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.messages or self.end)
            data = b"".join(self.messages)
            self.messages, self.num_bytes = [], 0
            self.changed.notify_all()
            return data


class EndOfStream(Exception):
    """The client has sent {"type": "end"}."""


class Session:
    """
    One client.

    Args:
        socket: the accepted connection.
        stream: predicts the audio.
        options: options of the client.
        limits: limits of the session.
        call: runs a blocking function in a thread, and returns its result.
    """

    def __init__(self, socket: WebSocket, stream: LiveStream, options: Options, limits: StreamLimits, call: Callable):
        self.socket, self.stream, self.limits, self.call = socket, stream, limits, call
        self.inbox = Inbox(2 * limits.max_message_bytes)
        self.worker = None
        if options.encoding == "pcm16":
            self.pcm = PcmDecoder(options.channels)
        else:
            self.worker = DecodingWorker(DECODING_DEADLINE_S, DECODING_MEMORY_MB)
        self.began = time.monotonic()
        self.num_bytes = 0

    async def run(self) -> int:
        """Send events until the client ends the stream, and return their number. Raises StreamError otherwise."""
        reader, num_events = asyncio.create_task(self._read()), 0
        try:
            while True:
                data = await self.inbox.take()
                end = self.inbox.end
                if isinstance(end, WebSocketDisconnect):
                    raise end
                if data:
                    num_events += await self._send(await self.call(self._push, data, False))
                if end is not None:
                    if not isinstance(end, EndOfStream):
                        raise end
                    num_events += await self._send(await self.call(self._push, b"", True))
                    return num_events
        finally:
            reader.cancel()
            if self.worker is not None:
                self.worker.close()

    async def _read(self) -> None:
        """Put the messages of the client into the inbox, and at last the reason for the end."""
        try:
            while True:
                await self.inbox.put(await self._receive())
        except Exception as error:
            await self.inbox.close(error)

    async def _receive(self) -> bytes:
        limits = self.limits
        try:
            message = await asyncio.wait_for(self.socket.receive(), limits.idle_s)
        except TimeoutError:
            raise StreamError(REFUSED, "idle", f"No audio for {limits.idle_s:g} s. Open another stream.") from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        data = message.get("bytes")
        if data is None:
            raise _read_command(message["text"])
        self.num_bytes += len(data)
        seconds = time.monotonic() - self.began + limits.max_lead_s
        if self.num_bytes > limits.max_bytes_per_s * seconds:
            raise StreamError(
                REFUSED,
                "too_fast",
                f"More than {limits.max_bytes_per_s} bytes per second. Send less, or POST /predict.",
            )
        return data

    def _push(self, data: bytes, is_last: bool) -> list[dict[str, Any]]:
        """Decode and predict. Runs in a thread."""
        try:
            samples = self.pcm.push(data) if self.worker is None else self.worker.push(data, self.stream.rate, is_last)
            lead = self.stream.duration + len(samples) / self.stream.resampler.from_rate
            lead -= time.monotonic() - self.began
            if lead > self.limits.max_lead_s:
                message = f"The audio is {lead:.0f} s ahead of real time. Send it as it is recorded, or POST /predict."
                raise StreamError(REFUSED, "too_fast", message)
            return self.stream.push(samples) + (self.stream.flush() if is_last else [])
        except (OSError, ValueError) as error:
            if isinstance(error, RequestError) and error.status >= 500:
                raise StreamError(INTERNAL_ERROR, "failed", str(error)) from None
            raise StreamError(INVALID_DATA, "bad_audio", str(error)) from None

    async def _send(self, events: list[dict[str, Any]]) -> int:
        for event in events:
            try:
                async with asyncio.timeout(self.limits.idle_s):
                    await self.socket.send_text(json.dumps({"type": "prediction", **event}, allow_nan=False))
            except TimeoutError:
                raise WebSocketDisconnect(REFUSED) from None  # the client does not read: nothing can be sent
        return len(events)


def _read_command(text: str) -> Exception:
    """Return the end that a text message demands."""
    with suppress(ValueError, RecursionError):
        if json.loads(text) == {"type": "end"}:
            return EndOfStream()
    message = f'A text message must be {{"type": "end"}}, not {text[:40]!r}. Send audio in binary messages.'
    return StreamError(UNSUPPORTED, "bad_message", message)


class Streams:
    """
    The sessions of a server.

    Args:
        pipeline: a `MultimodalEmotionPipeline`.
        predict: function of an input and of options of the pipeline that returns the results; called in threads.
        limits: limits of the sessions.
    """

    def __init__(self, pipeline, predict: Callable[[dict[str, Any], dict[str, Any]], Any], limits: StreamLimits):
        self.pipeline, self.predict, self.limits = pipeline, predict, limits
        self.num_open = self.num_events = 0
        self.threads = ThreadPoolExecutor(limits.max_streams, thread_name_prefix="stream")

    async def serve(self, socket: WebSocket) -> None:
        """Accept a connection, and serve it until it ends. Errors are an event and a close code."""
        await socket.accept()
        self.num_open += 1
        end: StreamError | None = None
        try:
            session = self._open(socket)
            settings = {"hop_length_s": session.stream.hop_length_s, "chunk_length_s": session.stream.chunk_length_s}
            await socket.send_json({"type": "ready", **settings})
            self.num_events += await session.run()
        except WebSocketDisconnect:
            return
        except StreamError as error:
            end = error
        except Exception as error:  # a bug must not end the server
            end = StreamError(INTERNAL_ERROR, "failed", str(as_server_error(error)))
        finally:
            self.num_open -= 1
        with suppress(RuntimeError, WebSocketDisconnect, TimeoutError):  # the client is gone
            async with asyncio.timeout(self.limits.idle_s):
                if end is None:
                    await socket.send_json({"type": "end"})
                else:
                    await socket.send_json({"type": "error", "code": end.reason, "message": str(end)})
                await socket.close(DONE if end is None else end.code)

    def close(self) -> None:
        """Let no further prediction begin."""
        self.threads.shutdown(wait=False, cancel_futures=True)

    def _open(self, socket: WebSocket) -> Session:
        if self.num_open > self.limits.max_streams:
            message = f"The server is busy with {self.limits.max_streams} streams. Try again later."
            raise StreamError(TRY_AGAIN, "busy", message)
        try:
            options = Options(**socket.query_params)
            chosen = options.model_dump(include={"top_k", "abstain_below"}, exclude_none=True)
            stream = LiveStream(
                self.pipeline,
                options.sampling_rate if options.encoding == "pcm16" else None,
                hop_length_s=options.hop_length_s,
                chunk_length_s=options.chunk_length_s,
                only_latest=True,
                predict=partial(self.predict, options=chosen),
                **chosen,
            )
        except ValidationError as error:
            first = error.errors()[0]
            known = ", ".join(Options.model_fields)
            message = f"`{'.'.join(map(str, first['loc']))}`: {first['msg']}. Options of the query: {known}."
            raise StreamError(REFUSED, "bad_option", message) from None
        except ValueError as error:
            raise StreamError(REFUSED, "bad_option", str(error)) from None
        return Session(socket, stream, options, self.limits, self._call)

    async def _call(self, function: Callable, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.threads, function, *arguments)


__all__ = ["StreamLimits", "Streams"]
