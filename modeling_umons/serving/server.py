# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""`umons serve`: the pipeline behind HTTP, requests that come together answered in batches."""

import asyncio
import math
import queue
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from .fetch import FetchError, fetch_media, is_public
from .request_handling import (
    MEDIA_TYPES,
    Job,
    Limits,
    Request,
    RequestError,
    advance,
    failed,
    from_query,
    parse_json,
    read_request,
)


MAX_FETCHES = 8  # downloads at once
MAX_HELD_BYTES = 512 * 2**20  # bodies and media of all requests that are inside
MAX_CONNECTIONS = 512
IDLE_S = 5.0  # that a connection has for the headers of its first request, and of each that follows
ROUND_S = 0.1  # of preparing segments, until those that are there go to the model
EXAMPLE = {"inputs": {"text": "what a wonderful day"}, "parameters": {"top_k": 3}}


class Counts:
    """
    What /metrics tells. The batcher counts its batches, all else is for the event loop to change.

    Outcomes are `answered`; `refused` for what the client sent; `overloaded` where there was no room for it; `errors` of
    the server; `timeouts`; and `gone` clients.
    """

    def __init__(self):
        self.outcomes = Counter(answered=0, refused=0, overloaded=0, errors=0, timeouts=0, gone=0)
        self.requests = self.inside = self.held_bytes = self.num_batches = self.num_batched = 0
        self.latencies = deque(maxlen=1000)

    def close(self, status: int, seconds: float):
        names = {200: "answered", 499: "gone", 500: "errors", 503: "overloaded", 504: "timeouts"}
        self.outcomes[names.get(status, "refused")] += 1
        if status == 200:
            self.latencies.append(seconds)

    def as_dict(self) -> dict[str, Any]:
        p50, p95 = np.percentile(self.latencies, [50, 95]) * 1000 if self.latencies else (None, None)
        mean = self.num_batched / self.num_batches if self.num_batches else None
        return {
            "requests": self.requests,
            **self.outcomes,
            "inside": self.inside,
            "latency_ms": {"p50": p50 and round(p50, 2), "p95": p95 and round(p95, 2), "of_last": len(self.latencies)},
            "mean_batch_size": mean and round(mean, 3),
        }


class Batcher:
    """A thread that answers requests in batches of their segments. None waits until another is done with."""

    def __init__(self, pipeline, limits: Limits, max_batch_size: int, max_wait_ms: float):
        self.pipeline, self.limits = pipeline, limits
        self.max_batch_size, self.max_wait_s = max_batch_size, max_wait_ms / 1000
        self.waiting: queue.SimpleQueue[tuple[Job, Future] | None] = queue.SimpleQueue()
        self.futures: dict[Job, Future] = {}  # of what has begun
        self.counts = Counts()
        self.thread = threading.Thread(target=self._run, name="batcher", daemon=True)

    @property
    def num_queued(self) -> int:
        return self.waiting.qsize() + len(self.futures)

    def submit(self, request: Request) -> Future:
        """The answer to come; cancel it, and what has not begun is dropped."""
        future = Future()
        self.waiting.put((Job(self.pipeline, request, self.limits), future))
        return future

    def close(self):
        """Answers what waits, then ends."""
        self.waiting.put(None)
        self.thread.join()

    def _run(self):
        is_open = True
        while is_open or self.futures:
            is_open = is_open and self._take()
            try:
                num_segments = advance(list(self.futures), self.max_batch_size, ROUND_S)
            except Exception as error:  # the thread must outlive what nobody has foreseen
                self._fail(failed(error))
                continue
            self.counts.num_batches += num_segments > 0
            self.counts.num_batched += num_segments
            for job in [job for job in self.futures if job.is_done]:
                future, found = self.futures.pop(job), job.result
                if isinstance(found, RequestError):
                    future.set_exception(found)
                else:
                    future.set_result(found)

    def _fail(self, error: RequestError):
        while self.futures:
            self.futures.popitem()[1].set_exception(error)

    def _take(self) -> bool:
        """
        Begins what waits, and tells whether more may come. With nothing to do it waits for a request, which then waits
        at most `max_wait_s` for others that are inside to share its batch.
        """
        end = None if not self.futures else 0.0
        while end is None or not self.waiting.empty() or len(self.futures) < self._num_expected():
            try:
                taken = self.waiting.get(timeout=None if end is None else max(0.0, end - time.monotonic()))
            except queue.Empty:
                break
            if taken is None:
                return False
            job, future = taken
            if future.set_running_or_notify_cancel():
                self.futures[job] = future
            if end is None:
                end = time.monotonic() + self.max_wait_s
        return True

    def _num_expected(self) -> int:
        return min(self.max_batch_size, self.counts.inside)


class Predictor:
    """Takes POST /predict from its headers to its answer. Arguments are those of [`make_app`]."""

    def __init__(self, batcher: Batcher, max_queue: int, timeout_s: float, allow: Callable[[str, int], bool]):
        self.batcher, self.limits, self.counts = batcher, batcher.limits, batcher.counts
        self.max_queue, self.timeout_s, self.allow = max_queue, timeout_s, allow
        self.fetchers = ThreadPoolExecutor(MAX_FETCHES, "fetch")
        self.parsing = asyncio.Lock()  # JSON takes several times its bytes while it is read

    async def __call__(self, http: HTTPRequest) -> JSONResponse:
        began, held = time.monotonic(), [0]
        self.counts.requests += 1
        self.counts.inside += 1
        try:
            if self.counts.inside > self.max_queue:
                raise RequestError(f"{self.max_queue} requests are being answered: try again soon.", 503)
            response = JSONResponse(await self._answer(http, began + self.timeout_s, held))
        except Exception as error:
            refusal = self._in_words(error)
            headers = {503: {"Retry-After": "1"}, 408: {"Connection": "close"}}.get(refusal.status)
            response = JSONResponse({"error": str(refusal)}, refusal.status, headers)
        finally:
            self.counts.inside -= 1
            self.counts.held_bytes -= held[0]
        self.counts.close(response.status_code, time.monotonic() - began)
        return response

    def _in_words(self, error: Exception) -> RequestError:
        if isinstance(error, RequestError):
            return error
        if isinstance(error, FetchError):
            return RequestError(str(error), error.status)
        if isinstance(error, TimeoutError):
            return RequestError(f"No answer within {self.timeout_s:g} s: send less, or try later.", 504)
        if isinstance(error, ClientDisconnect):
            return RequestError("The client is gone.", 499)
        return failed(error)

    async def _answer(self, http: HTTPRequest, deadline: float, held: list[int]) -> Any:
        """The answer to a request; raises TimeoutError at the deadline. `held` grows to the bytes it takes up."""
        kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.startswith(MEDIA_TYPES):
            raise RequestError(f"{kind or 'No content type'}: send application/json, audio/* or video/*.", 415)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                body = await self._read_body(http, held)
        except TimeoutError:
            raise RequestError(f"The body did not arrive within {self.timeout_s:g} s.", 408) from None
        if kind == "application/json":
            async with asyncio.timeout(deadline - time.monotonic()), self.parsing:
                request = await asyncio.to_thread(lambda sent: read_request(parse_json(sent), self.limits), body)
        else:
            request = read_request(from_query(dict(http.query_params), bytes(body)), self.limits)
        del body  # the media are copies
        request.deadline = deadline
        if request.has_urls:
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(deadline - time.monotonic()):
                await loop.run_in_executor(self.fetchers, fetch_media, request, self.limits, self.allow)
        self._hold(request.media_bytes - held[0], held)
        return await self._wait_for(self.batcher.submit(request), request, http)

    async def _read_body(self, http: HTTPRequest, held: list[int]) -> bytearray:
        body, announced = bytearray(), http.headers.get("content-length", "0")
        if announced.isdecimal() and int(announced[:20]) > self.limits.max_body_bytes:
            raise self._too_large()
        async for chunk in http.stream():
            self._hold(len(chunk), held)
            body += chunk
            if len(body) > self.limits.max_body_bytes:
                raise self._too_large()
        return body

    def _too_large(self) -> RequestError:
        return RequestError(f"The body is larger than {self.limits.max_body_bytes} bytes.", 413)

    def _hold(self, num_bytes: int, held: list[int]):
        held[0] += num_bytes
        self.counts.held_bytes += num_bytes
        if num_bytes > 0 and self.counts.held_bytes > MAX_HELD_BYTES:
            raise RequestError("Too many large requests are being answered: try again soon.", 503)

    async def _wait_for(self, future: Future, request: Request, http: HTTPRequest) -> Any:
        """The answer, unless the time is up or the client gone: then what has not begun is dropped."""
        answered = asyncio.wrap_future(future)
        gone = asyncio.ensure_future(http.receive())  # after the body, all that comes is the end of the connection
        left = max(0.0, request.deadline - time.monotonic())
        try:
            done, _ = await asyncio.wait((answered, gone), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if answered in done:
                return answered.result()
        finally:
            gone.cancel()
            if not answered.done():
                answered.cancel()
                request.deadline = -math.inf  # what has begun stops at the next segment
        raise ClientDisconnect if gone in done else TimeoutError


def make_app(
    pipeline,
    *,
    name: str = "umons",
    limits: Limits = Limits(),  # noqa: B008
    max_batch_size: int = 8,
    max_wait_ms: float = 5.0,
    max_queue: int = 64,
    timeout_s: float = 30.0,
    allow: Callable[[str, int], bool] = is_public,
) -> FastAPI:
    """
    The web application: POST /predict, GET /health, GET /metrics.

    Args:
        pipeline: a `MultimodalEmotionPipeline`; the application's thread must be its only user.
        name: of the model, for /health.
        limits: of one request.
        max_batch_size: requests, and segments in the model, that are answered at once.
        max_wait_ms: how long a request waits for others that are inside to share its batch.
        max_queue: requests inside at once, from their headers to their answer; others get 503.
        timeout_s: seconds a request may take, its body included.
        allow: decides about (IP address, port) of what URLs lead to.
    """
    batcher = Batcher(pipeline, limits, max_batch_size, max_wait_ms)
    predictor = Predictor(batcher, max_queue, timeout_s, allow)

    @asynccontextmanager
    async def lifespan(app):
        batcher.thread.start()
        yield
        predictor.fetchers.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(batcher.close)

    # No pages at /docs: they would load scripts from elsewhere. The schema is at /openapi.json.
    app = FastAPI(title="umons", docs_url=None, redoc_url=None, lifespan=lifespan)
    content = {"application/json": {"example": EXAMPLE}, "video/*": {}, "audio/*": {}}

    @app.post("/predict", openapi_extra={"requestBody": {"required": True, "content": content}})
    async def predict(http: HTTPRequest):
        """Sentiment and emotions of what is in the body: JSON, or a clip or sound file with options in the query."""
        return await predictor(http)

    @app.get("/health")
    async def health():
        """Whether requests are answered, and by which model."""
        ready = batcher.thread.is_alive()
        status, code = ("ready", 200) if ready else ("not ready", 503)
        return JSONResponse({"status": status, "model": name, "queued": batcher.num_queued}, code)

    @app.get("/metrics")
    async def metrics():
        """Requests since the start, and the latency of the last that were answered."""
        return {**batcher.counts.as_dict(), "queued": batcher.num_queued}

    @app.exception_handler(HTTPException)
    async def no_such_page(http: HTTPRequest, error: HTTPException):
        words = f"{http.method} {http.url.path:.80} is nothing here: POST /predict, GET /health or GET /metrics."
        return JSONResponse({"error": words}, error.status_code, error.headers)

    return app


class Protocol(AutoHTTPProtocol):
    """uvicorn's HTTP, which by itself waits for ever for the headers of a request, and holds any number of connections."""

    patience: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered: the next has not come, or not all of its headers."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport):
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            idle = (other for other in self.connections if other.is_idle and not other.transport.is_closing())
            next(idle, self).transport.abort()
        self._wait_for_headers()

    def on_response_complete(self):
        super().on_response_complete()
        self._wait_for_headers()

    def connection_lost(self, exc):
        self.patience.cancel()
        super().connection_lost(exc)

    def _wait_for_headers(self):
        if self.patience is not None:
            self.patience.cancel()
        self.patience = self.loop.call_later(self.config.timeout_keep_alive, self._give_up, self.cycle)

    def _give_up(self, cycle):
        if self.cycle is cycle and self.is_idle:
            self.transport.close()


def make_server(app: FastAPI, timeout_s: float = 30.0, idle_s: float = IDLE_S) -> uvicorn.Server:
    """
    The server of an application.

    Args:
        timeout_s: that of [`make_app`]; when it is told to stop, the server gives requests that long, and 5 seconds.
        idle_s: seconds that a connection has for the headers of each request, from its first byte or the last answer.
    """
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            log_level="warning",
            server_header=False,
            timeout_keep_alive=idle_s,
            timeout_graceful_shutdown=math.ceil(timeout_s) + 5,
        )
    )


def serve(
    pipeline, *, host: str = "127.0.0.1", port: int = 8000, timeout_s: float = 30.0, name: str = "umons", **options
):
    """Serves until SIGTERM or SIGINT; what was taken by then is answered. Options are those of [`make_app`]."""

    def stop(*_):
        raise SystemExit(0)

    app = make_app(pipeline, name=name, timeout_s=timeout_s, **options)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as sock:
        signal.signal(signal.SIGTERM, stop)  # uvicorn puts its own in place, and hands the signal on when it is done
        address = f"[{host}]" if ":" in host else host
        print(f"umons: {name} answers at http://{address}:{sock.getsockname()[1]}/predict", flush=True)
        try:
            make_server(app, timeout_s).run(sockets=[sock])
        except KeyboardInterrupt:
            return
        except SystemExit as end:
            if end.code:
                raise
