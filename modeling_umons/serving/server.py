"""HTTP server of `umons serve`. Requests that arrive together are predicted in batches."""

import asyncio
import errno
import math
import queue
import signal
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest
from starlette.websockets import WebSocket

from ..models.umons.decoding_umons import DecodingPool
from ..models.umons.live_umons import SEGMENT
from ..models.umons.media_umons import Clip
from .request_handling import (
    MEDIA_TYPES,
    Job,
    Limits,
    Request,
    RequestError,
    as_server_error,
    parse_fields,
    parse_json,
    predict_segments,
    read_request,
)
from .slow_clients import TimedProtocol
from .streaming import StreamLimits, Streams


MAX_CONNECTIONS = 512
STATUS_NAMES = {200: "answered", 499: "disconnected", 500: "errors", 503: "overloaded", 504: "timeouts"}
ENDPOINTS = "Endpoints: POST /predict, WebSocket /stream, GET /health, GET /metrics."
FORM = {"file": {"type": "string", "format": "binary"}, "text": {"type": "string"}, "top_k": {"type": "integer"}}
REQUEST_BODY = {
    "required": True,
    "content": {
        "application/json": {"example": {"inputs": {"text": "what a wonderful day"}, "parameters": {"top_k": 3}}},
        "multipart/form-data": {"schema": {"type": "object", "properties": FORM}},
        "video/*": {"schema": {"type": "string", "format": "binary"}},
        "audio/*": {"schema": {"type": "string", "format": "binary"}},
    },
}


class Schema(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Score(Schema):
    label: str
    score: float = Field(ge=0, le=1)


class Emotion(Score):
    present: bool


class Warning(Schema):
    code: str
    message: str


class Word(Schema):
    word: str
    timestamp: tuple[float | None, float | None]


class Weight(Schema):
    word: str | None = None
    time: float | None = None
    weight: float


class Number(Schema):
    label: str
    score: float
    range: tuple[float, float] | None = None


class Prediction(Schema):
    """Prediction of an input, or of one of its segments. Which fields it has depends on the model and the options."""

    sentiment: float | None = None
    sentiment_interval: tuple[float, float] | None = None
    label: str | None = None
    confidence: float | None = Field(None, ge=0, le=1)
    emotions: list[Emotion] | None = None
    labels: list[Score] | None = None
    values: list[Number] | None = None
    modalities: list[str]
    timestamp: tuple[float, float] | None = None
    warnings: list[Warning]
    text: str | None = None
    words: list[Word] | None = None
    attention: dict[str, list[Weight]] | None = None
    explanations: dict[str, dict[str, dict[str, float]] | list[dict[str, float | str]]] | None = None


class Failure(BaseModel):
    error: str


class Metrics:
    """Counts since the start, for /metrics. `refused` requests are invalid or too large."""

    def __init__(self):
        self.outcomes = Counter(answered=0, refused=0, overloaded=0, errors=0, timeouts=0, disconnected=0)
        self.requests = self.in_flight = self.num_batches = self.num_segments = 0
        self.latencies = deque(maxlen=1000)

    def record(self, status: int, seconds: float) -> None:
        self.outcomes[STATUS_NAMES.get(status, "refused")] += 1
        if status == 200:
            self.latencies.append(seconds)

    def as_dict(self) -> dict[str, Any]:
        p50, p95 = np.percentile(self.latencies, [50, 95]) * 1000 if self.latencies else (math.nan, math.nan)
        latencies = {"p50": round(p50, 2), "p95": round(p95, 2)} if self.latencies else {"p50": None, "p95": None}
        return {
            "requests": self.requests,
            **self.outcomes,
            "in_flight": self.in_flight,
            "latency_ms": {**latencies, "num_requests": len(self.latencies)},
            "mean_batch_size": round(self.num_segments / self.num_batches, 3) if self.num_batches else None,
        }


# A job, and the index of an input and its segment, or `None` after the last one.
Decoded = tuple[Job, tuple[int, dict[str, Any]] | None]


@dataclass
class Progress:
    """
    State of a job in the `Batcher`.

    Attributes:
        future: future of the job.
        num_waiting: decoded segments that are not predicted yet.
        is_paused: True if no segment is decoded until one is predicted.
        is_finished: True if all segments are decoded.
    """

    future: Future = field(default_factory=Future)
    num_waiting: int = 0
    is_paused: bool = False
    is_finished: bool = False


class Batcher:
    """
    Threads that decode the segments of jobs, and a thread that predicts them in batches.

    A decoding thread takes one segment of each job in turn, so that small requests do not wait for large ones, and a
    slow file delays one thread only. At most `max_batch_size` decoded segments of a job wait for their batch. The
    pipeline is used by one thread at a time, because tokenizers are not thread-safe, but not during `decode`.
    """

    def __init__(self, max_batch_size: int, max_wait_ms: float, num_decoders: int, metrics: Metrics):
        self.max_batch_size, self.max_wait_s, self.metrics = max_batch_size, max_wait_ms / 1000, metrics
        self.jobs: dict[Job, Progress] = {}
        self.changed, self.pipeline_lock = threading.Condition(), threading.Lock()
        self.undecoded: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.decoded: queue.SimpleQueue[Decoded | None] = queue.SimpleQueue()
        self.batch_began = math.inf
        self.thread = threading.Thread(target=self._predict, name="batcher", daemon=True)
        self.decoders = [
            threading.Thread(target=self._decode, name="decoder", daemon=True) for _ in range(num_decoders)
        ]

    @property
    def num_queued(self) -> int:
        return len(self.jobs)

    def start(self) -> None:
        for thread in (self.thread, *self.decoders):
            thread.start()

    def is_ready(self, timeout_s: float) -> bool:
        """Return False if a thread has died, or if a batch takes longer than a request may."""
        is_alive = all(thread.is_alive() for thread in (self.thread, *self.decoders))
        return is_alive and time.monotonic() - self.batch_began < timeout_s

    def submit(self, job: Job) -> Future:
        """Return a future of the finished job. If it is cancelled before the job begins, the job never does."""
        self.jobs[job] = progress = Progress()
        self.undecoded.put(job)
        return progress.future

    def close(self, timeout_s: float) -> None:
        """Finish the jobs, for at most `timeout_s` seconds, and end the threads."""
        with self.changed:
            self.changed.wait_for(lambda: not self.jobs, timeout_s)
        self.decoded.put(None)
        for _ in self.decoders:
            self.undecoded.put(None)

    def decode(self, windows: Iterator[Clip]) -> Iterator[Clip]:
        """Yield the windows of a file, and let other threads use the pipeline while they are decoded."""
        with closing(windows):
            if threading.current_thread() not in self.decoders:  # a call of the pipeline by others
                yield from windows
                return
            while True:
                self.pipeline_lock.release()
                try:
                    clip = next(windows, None)
                finally:
                    self.pipeline_lock.acquire()
                if clip is None:
                    return
                yield clip

    def _decode(self) -> None:
        while (job := self.undecoded.get()) is not None:
            progress = self.jobs[job]
            future = progress.future
            is_wanted = not future.done() and (future.running() or future.set_running_or_notify_cancel())
            try:
                with self.pipeline_lock:
                    found = next(job.segments, None) if is_wanted else None
            except Exception as error:  # a bug must not end the thread
                future.set_exception(as_server_error(error))
                found = None
            with self.changed:
                progress.is_finished = found is None or job.is_done
                progress.num_waiting += 1
                progress.is_paused = progress.num_waiting >= self.max_batch_size
                goes_on = not (progress.is_finished or progress.is_paused)
            self.decoded.put((job, found))
            if goes_on:
                self.undecoded.put(job)

    def _predict(self) -> None:
        while batch := self._take_batch():
            self.batch_began = time.monotonic()
            try:
                segments = [(job, *found) for job, found in batch if found is not None]
                with self.pipeline_lock:
                    predict_segments(segments)
                self.metrics.num_batches += len(segments) > 0
                self.metrics.num_segments += len(segments)
            except Exception as error:  # a bug must not end the thread
                for job in {job for job, _ in batch if not self.jobs[job].future.done()}:
                    self.jobs[job].future.set_exception(as_server_error(error))
            self.batch_began = math.inf
            for job, _ in batch:
                self._release(job)

    def _take_batch(self) -> list[Decoded]:
        """Wait for a decoded segment, and then at most `max_wait_s` for others in its batch; `[]` after `close`."""
        batch = [item] if (item := self.decoded.get()) is not None else []
        end = time.monotonic() + self.max_wait_s
        while 0 < len(batch) < self.max_batch_size:
            has_more = self.metrics.in_flight > len({job for job, _ in batch}) or any(
                not self.jobs[job].is_finished for job, _ in batch
            )
            try:
                item = self.decoded.get(timeout=max(0.0, end - time.monotonic()) if has_more else 0.0)
            except queue.Empty:
                break
            if item is None:
                self.decoded.put(None)
                break
            batch.append(item)
        return batch

    def _release(self, job: Job) -> None:
        """Count a segment as predicted: the job is then finished, or decoding continues."""
        with self.changed:
            progress = self.jobs[job]
            progress.num_waiting -= 1
            goes_on = progress.is_paused and not progress.is_finished
            progress.is_paused = False
            is_over = progress.is_finished and progress.num_waiting == 0
        if goes_on:
            self.undecoded.put(job)
        elif is_over:
            if not progress.future.done():
                progress.future.set_result(job)
            self._end(job)

    def _end(self, job: Job) -> None:
        with self.changed:
            del self.jobs[job]
            self.changed.notify_all()


async def _read_body(http: HTTPRequest, max_bytes: int) -> bytearray:
    announced, body = http.headers.get("content-length", "0"), bytearray()
    if announced.isdecimal() and int(announced[:20]) > max_bytes:
        raise RequestError(f"The body is larger than {max_bytes} bytes.", 413)
    async for chunk in http.stream():
        body += chunk
        if len(body) > max_bytes:
            raise RequestError(f"The body is larger than {max_bytes} bytes.", 413)
    return body


async def _parse_form(http: HTTPRequest, body: bytearray) -> dict[str, str | bytes]:
    """Return the fields of a multipart form; files are bytes."""

    async def receive():
        return {"type": "http.request", "body": bytes(body)}

    fields = {}
    async with HTTPRequest(http.scope, receive).form(max_files=2, max_fields=8) as form:
        for name, value in form.multi_items():
            if name in fields:
                raise RequestError(f"`{name[:40]}` is given more than once.")
            fields[name] = value if isinstance(value, str) else await value.read()
    return fields


async def _parse_body(http: HTTPRequest, content_type: str, body: bytearray) -> Any:
    """Return the JSON form of a request. Options in the query belong to a body that is media."""
    if content_type == "application/json":
        return await asyncio.to_thread(parse_json, body)
    if content_type == "multipart/form-data":
        return parse_fields(await _parse_form(http, body))
    return parse_fields({**http.query_params, "file": bytes(body)})


def make_app(
    pipeline,
    *,
    name: str = "umons",
    limits: Limits = Limits(),  # noqa: B008
    stream_limits: StreamLimits = StreamLimits(),  # noqa: B008
    max_batch_size: int = 8,
    max_wait_ms: float = 5.0,
    max_queue: int = 64,
    timeout_s: float = 30.0,
    num_decoders: int = 4,
) -> FastAPI:
    """
    Build the web application: POST /predict, WebSocket /stream, GET /health, GET /metrics, and their schema at /docs.

    Its bodies take at most `max_queue` x `limits.max_body_bytes` of memory.

    Args:
        pipeline: a `MultimodalEmotionPipeline`, used by the threads of the application only.
        name: name of the model, for /health.
        limits: limits of one request.
        stream_limits: limits of the sessions of /stream.
        max_batch_size: segments in a batch of the model.
        max_wait_ms: time that a request waits for others in flight to share its batch.
        max_queue: requests in flight, from their headers to their response; others get 503.
        timeout_s: seconds for a request, including its body.
        num_decoders: files that are decoded at once, each in a process of its own.
    """
    metrics = Metrics()
    batcher = Batcher(max_batch_size, max_wait_ms, num_decoders, metrics)
    # Other requests may wait for a file, but not until their own time is up.
    decoders = DecodingPool(num_decoders, deadline_s=timeout_s / 2)

    def predict_window(inputs: dict[str, Any], options: dict[str, Any]) -> Any:
        """Predict a window of a stream, in a batch with others."""
        request = Request([inputs], {**SEGMENT, **options})
        return batcher.submit(Job(pipeline, request, limits, time.monotonic() + timeout_s)).result().result

    streams = Streams(pipeline, predict_window, stream_limits)

    @asynccontextmanager
    async def lifespan(app):
        read_windows = getattr(pipeline, "read_windows", None)
        pipeline.read_windows = lambda *source, **options: batcher.decode(decoders.iter_windows(*source, **options))
        batcher.start()
        yield
        streams.close()
        await asyncio.to_thread(batcher.close, timeout_s)
        decoders.close()
        pipeline.read_windows = read_windows

    async def run_job(job: Job, http: HTTPRequest) -> Any:
        """Return the result of a job. Stop the job if the time is up or the client disconnects."""
        done = asyncio.wrap_future(batcher.submit(job))
        disconnected = asyncio.ensure_future(http.receive())  # after the body, the next message is the disconnection
        try:
            await asyncio.wait((done, disconnected), return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                raise ClientDisconnect
            return done.result().result
        finally:
            disconnected.cancel()
            if not done.done():
                done.cancel()
                job.deadline = -math.inf

    async def answer(http: HTTPRequest) -> Any:
        if metrics.in_flight > max_queue:
            raise RequestError(f"The server is busy with {max_queue} requests. Try again soon.", 503)
        content_type = http.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type not in ("application/json", "multipart/form-data") and not content_type.startswith(
            MEDIA_TYPES
        ):
            given = f"Content type {content_type}" if content_type else "A request without content type"
            raise RequestError(
                f"{given} is not supported. Use application/json, multipart/form-data, audio/* or video/*.", 415
            )
        body, deadline = None, time.monotonic() + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                body = await _read_body(http, limits.max_body_bytes)
                data = await _parse_body(http, content_type, body)
                body.clear()
                request = await asyncio.to_thread(read_request, data, limits)
                return await run_job(Job(pipeline, request, limits, deadline), http)
        except TimeoutError:
            if body is None:
                raise RequestError(f"The body did not arrive within {timeout_s:g} s.", 408) from None
            raise RequestError(f"No prediction within {timeout_s:g} s. Send less, or try again later.", 504) from None

    app = FastAPI(title="umons", lifespan=lifespan, redoc_url=None)
    app.state.stream_limits = stream_limits
    responses = {
        200: {"model": Prediction | list[Prediction | Failure | list[Prediction]]},
        **{code: {"model": Failure} for code in (400, 408, 413, 415, 422, 500, 503, 504)},
    }

    @app.post("/predict", responses=responses, openapi_extra={"requestBody": REQUEST_BODY})
    async def predict(http: HTTPRequest):
        """
        Predict sentiment and emotions.

        The body is JSON (`inputs`: a text, an object of `text`, `audio` and `video` in base64, or a list of those;
        `parameters`: the options of the pipeline), a form with `file`, `text` and the parameters, or a clip or audio
        file with `text` and the parameters in the query. URLs are not fetched. Predictions estimate what annotators
        perceive. Do not infer emotions at work or in education (EU AI Act, article 5(1)(f)), and inform the people
        whom you analyse (article 50).
        """
        began = time.monotonic()
        metrics.requests += 1
        metrics.in_flight += 1
        try:
            response = JSONResponse(await answer(http))
        except Exception as error:
            if isinstance(error, ClientDisconnect):
                error = RequestError("The client disconnected.", 499)
            elif isinstance(error, HTTPException):  # a form that is not valid
                error = RequestError(error.detail, error.status_code)
            elif not isinstance(error, RequestError):
                error = as_server_error(error)
            headers = {503: {"Retry-After": "1"}, 408: {"Connection": "close"}}.get(error.status)
            response = JSONResponse({"error": str(error)}, error.status, headers)
        finally:
            metrics.in_flight -= 1
        metrics.record(response.status_code, time.monotonic() - began)
        return response

    @app.get("/health")
    async def health():
        """Return the status (503 if a batch hangs), the model, and the numbers of queued requests and of streams."""
        status, code = ("ready", 200) if batcher.is_ready(timeout_s) else ("not ready", 503)
        counts = {"queued": batcher.num_queued, "streams": streams.num_open}
        return JSONResponse({"status": status, "model": name, **counts}, code)

    @app.get("/metrics")
    async def get_metrics():
        """Return counts since the start, and the latency of recent requests."""
        of_streams = {"streams": streams.num_open, "stream_events": streams.num_events}
        return {**metrics.as_dict(), "queued": batcher.num_queued, **of_streams}

    @app.websocket("/stream")
    async def stream(socket: WebSocket):
        await streams.serve(socket)

    @app.exception_handler(HTTPException)
    async def not_found(http: HTTPRequest, error: HTTPException):
        message = f"{error.detail.capitalize()}. {ENDPOINTS}"
        return JSONResponse({"error": message}, error.status_code, error.headers)

    return app


def make_server(app: FastAPI, timeout_s: float = 30.0) -> uvicorn.Server:
    """
    Return the server of an application.

    On shutdown, requests in flight have `timeout_s` and 5 more seconds; streams are closed with code 1012.
    """
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=TimedProtocol,
            ws="websockets-sansio",
            ws_max_size=app.state.stream_limits.max_message_bytes,
            ws_per_message_deflate=False,  # audio hardly gets smaller
            log_level="warning",
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=math.ceil(timeout_s) + 5,
        )
    )


def serve(
    pipeline, *, host: str = "127.0.0.1", port: int = 8000, timeout_s: float = 30.0, name: str = "umons", **options
):
    """
    Serve until SIGTERM or SIGINT; requests in flight are answered. Options are those of [`make_app`].

    Raises:
        OSError: the address or the port cannot be used.
    """
    app = make_app(pipeline, name=name, timeout_s=timeout_s, **options)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.create_server((host, port), family=family)
    except OSError as error:
        reason = "another program uses this port" if error.errno == errno.EADDRINUSE else error.strerror or error
        raise OSError(f"{host}, port {port}: {reason}. Choose another --port (0: any free port) or --host.") from error
    with sock, suppress(KeyboardInterrupt):
        signal.signal(
            signal.SIGTERM, lambda *_: sys.exit()
        )  # uvicorn replaces it, and raises the signal again at the end
        address = f"[{host}]" if ":" in host else host
        print(f"umons: {name} at http://{address}:{sock.getsockname()[1]}/predict", flush=True)
        make_server(app, timeout_s).run(sockets=[sock])
