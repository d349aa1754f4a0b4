# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
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
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest

from ..data.decoding import DecodingWorker
from .request_handling import (
    MEDIA_TYPES,
    Job,
    Limits,
    RequestError,
    as_server_error,
    parse_fields,
    parse_json,
    read_request,
    run_batch,
)


MAX_CONNECTIONS = 512
STATUS_NAMES = {200: "answered", 499: "disconnected", 500: "errors", 503: "overloaded", 504: "timeouts"}
ENDPOINTS = "Endpoints: POST /predict, GET /health, GET /metrics."
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


class Batcher:
    """Thread that runs jobs in batches of their segments."""

    def __init__(self, max_batch_size: int, max_wait_ms: float, metrics: Metrics):
        self.max_batch_size, self.max_wait_s, self.metrics = max_batch_size, max_wait_ms / 1000, metrics
        self.waiting: queue.SimpleQueue[tuple[Job, Future] | None] = queue.SimpleQueue()
        self.futures: dict[Job, Future] = {}
        self.jobs: deque[Job] = deque()
        self.batch_began = math.inf
        self.thread = threading.Thread(target=self._run, name="batcher", daemon=True)

    @property
    def num_queued(self) -> int:
        return self.waiting.qsize() + len(self.futures)

    def is_ready(self, timeout_s: float) -> bool:
        """Return False if the thread has died, or if a batch takes longer than a request may."""
        return self.thread.is_alive() and time.monotonic() - self.batch_began < timeout_s

    def submit(self, job: Job) -> Future:
        """Return a future of the finished job. If it is cancelled before the job begins, the job never does."""
        future = Future()
        self.waiting.put((job, future))
        return future

    def close(self, timeout_s: float) -> None:
        """Finish the jobs, for at most `timeout_s` seconds, and end the thread."""
        self.waiting.put(None)
        self.thread.join(timeout_s)

    def _run(self) -> None:
        is_open = True
        while is_open or self.jobs:
            is_open = is_open and self._take_jobs()
            self.batch_began = time.monotonic()
            try:
                num_segments = run_batch(self.jobs, self.max_batch_size)
                self.metrics.num_batches += num_segments > 0
                self.metrics.num_segments += num_segments
                for job in [job for job in self.futures if job.is_done]:
                    self.futures.pop(job).set_result(job)
            except Exception as error:  # a bug must not end the thread
                self.jobs.clear()
                while self.futures:
                    self.futures.popitem()[1].set_exception(as_server_error(error))
            self.batch_began = math.inf

    def _take_jobs(self) -> bool:
        """
        Take the jobs that wait; return False after `close`. Without jobs in progress, wait for one, and then at most
        `max_wait_s` for the other requests in flight to share its batch.
        """
        end = 0.0 if self.jobs else None
        while (
            end is None
            or not self.waiting.empty()
            or len(self.jobs) < min(self.max_batch_size, self.metrics.in_flight)
        ):
            try:
                taken = self.waiting.get(timeout=None if end is None else max(0.0, end - time.monotonic()))
            except queue.Empty:
                break
            if taken is None:
                return False
            job, future = taken
            if future.set_running_or_notify_cancel():
                self.jobs.append(job)
                self.futures[job] = future
            if end is None:
                end = time.monotonic() + self.max_wait_s
        return True


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
    max_batch_size: int = 8,
    max_wait_ms: float = 5.0,
    max_queue: int = 64,
    timeout_s: float = 30.0,
) -> FastAPI:
    """
    Build the web application: POST /predict, GET /health, GET /metrics, and their schema at /docs.

    Its bodies take at most `max_queue` x `limits.max_body_bytes` of memory.

    Args:
        pipeline: a `MultimodalEmotionPipeline`, used by the thread of the application only.
        name: name of the model, for /health.
        limits: limits of one request.
        max_batch_size: segments in a batch of the model.
        max_wait_ms: time that a request waits for others in flight to share its batch.
        max_queue: requests in flight, from their headers to their response; others get 503.
        timeout_s: seconds for a request, including its body.
    """
    metrics = Metrics()
    batcher = Batcher(max_batch_size, max_wait_ms, metrics)
    # Other requests wait for a file, but not until their own time is up.
    decoder = DecodingWorker(deadline_s=timeout_s / 2)

    @asynccontextmanager
    async def lifespan(app):
        read_windows, pipeline.read_windows = getattr(pipeline, "read_windows", None), decoder.iter_windows
        batcher.thread.start()
        yield
        await asyncio.to_thread(batcher.close, timeout_s)
        decoder.close()
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
        """Return the status (503 if a batch hangs), the name of the model and the number of requests in the queue."""
        status, code = ("ready", 200) if batcher.is_ready(timeout_s) else ("not ready", 503)
        return JSONResponse({"status": status, "model": name, "queued": batcher.num_queued}, code)

    @app.get("/metrics")
    async def get_metrics():
        """Return counts since the start, and the latency of recent requests."""
        return {**metrics.as_dict(), "queued": batcher.num_queued}

    @app.exception_handler(HTTPException)
    async def not_found(http: HTTPRequest, error: HTTPException):
        message = f"{error.detail.capitalize()}. {ENDPOINTS}"
        return JSONResponse({"error": message}, error.status_code, error.headers)

    return app


def make_server(app: FastAPI, timeout_s: float = 30.0) -> uvicorn.Server:
    """Return the server of an application. On shutdown, requests in flight have `timeout_s` and 5 more seconds."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            ws="none",
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
