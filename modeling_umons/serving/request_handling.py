# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Requests from strangers: reads their JSON and answers them with the pipeline.

`umons serve` and the handler of an Inference Endpoint both stand on this file. It also works as a plain module beside a
handler: it needs nothing else of the package.
"""

import base64
import binascii
import json
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from transformers.pipelines.base import pad_collate_fn
from transformers.pipelines.pt_utils import PipelineIterator
from transformers.utils import logging


logger = logging.get_logger(__name__)

MEDIA_TYPES = ("audio/", "video/", "application/octet-stream")
MAX_JSON_PARTS = 50_000  # a request has few: what is large in it is text and base64
MAX_SEGMENT_S = 120.0  # seconds: as much as the pipeline reads of a file for one answer; a segment is held in memory


@dataclass(frozen=True)
class Limits:
    """
    What one request may ask for.

    Attributes:
        max_body_bytes: of the body as it is sent.
        max_media_bytes: of all media in it together, decoded from base64 or downloaded.
        max_inputs: entries in a list of inputs.
        max_text_length: characters of a text.
        max_media_s: seconds of what is read of all media in it together. One answer takes the first two minutes of a file.
        max_segments: of all its inputs together.
        fetch_s: seconds for all of its downloads together, from the first name that is looked up to the last byte.
    """

    max_body_bytes: int = 32 * 2**20
    max_media_bytes: int = 23 * 2**20
    max_inputs: int = 32
    max_text_length: int = 10_000
    max_media_s: float = 600.0
    max_segments: int = 600
    fetch_s: float = 10.0


class RequestError(ValueError):
    """A request that is refused, or cannot be answered; `status` is that of HTTP. The words are for the client."""

    def __init__(self, message: str, status: int = 400):
        super().__init__(message)
        self.status = status


@dataclass(eq=False)
class Request:
    """
    A request as the pipeline takes it.

    Attributes:
        inputs: dicts of `text`, `audio` and `video`; media are bytes, or a string that is a URL still to be fetched.
        parameters: options of the pipeline.
        is_list: whether a list was sent, so that a list is the answer.
        deadline: `time.monotonic()` after which nobody waits for the answer.
    """

    inputs: list[dict[str, Any]]
    parameters: dict[str, Any] = field(default_factory=dict)
    is_list: bool = False
    deadline: float = math.inf

    @property
    def has_urls(self) -> bool:
        return any(isinstance(value, str) for entry in self.inputs for name, value in entry.items() if name != "text")

    @property
    def media_bytes(self) -> int:
        return sum(len(value) for entry in self.inputs for value in entry.values() if isinstance(value, bytes))


# ---- from JSON to what the pipeline takes ----


def parse_json(body: bytes | bytearray) -> Any:
    """What the JSON says. Raises RequestError for what is no strict JSON, or of far more parts than a request."""
    # Each object, list or member takes many times its bytes: they are counted before any is made.
    if sum(body.count(mark) for mark in b"[{,") > MAX_JSON_PARTS:
        raise RequestError(f"The body has more than {MAX_JSON_PARTS} objects, lists and commas: send less.", 413)

    def refuse(constant: str):
        raise RequestError(f"The body has {constant}, which is no JSON: leave out what is not a number.")

    try:
        return json.loads(body.decode("utf-8"), parse_constant=refuse)
    except RequestError:
        raise
    except RecursionError:
        raise RequestError("The body is nested too deeply: inputs are a text, a dict or a list of dicts.") from None
    except ValueError as error:  # not UTF-8, not JSON, or a number of thousands of digits
        raise RequestError(f"The body is no JSON in UTF-8 ({str(error)[:200]}).") from None


def read_request(data: Any, limits: Limits = Limits()) -> Request:
    """
    Reads `{"inputs": ..., "parameters": {...}}`.

    Inputs are an http(s) URL, the bytes of a clip or sound file, a dict of `text`, `audio` and `video`, or a list of
    those. Media in a dict are bytes, base64 (plain, or a `data:` URL) or an http(s) URL. No string is ever taken for a
    local path. Raises RequestError for everything else and for what is beyond the limits.
    """
    if not isinstance(data, dict) or "inputs" not in data:
        raise RequestError('A request is an object with "inputs", and "parameters" if it has any.')
    _refuse_unknown("A request", data, ("inputs", "parameters"))
    parameters = _read_parameters(data.get("parameters"))
    inputs, is_list = data["inputs"], isinstance(data["inputs"], list)
    entries = inputs if is_list else [inputs]
    if not 1 <= len(entries) <= limits.max_inputs:
        status = 413 if entries else 400
        raise RequestError(f"{len(entries)} inputs in one request: send 1 to {limits.max_inputs}.", status)
    request = Request([], parameters, is_list)
    for entry in entries:
        request.inputs.append(_read_input(entry, limits, limits.max_media_bytes - request.media_bytes))
    if {"chunk_length_s", "return_timestamps"} & set(parameters) and any("text" in entry for entry in request.inputs):
        raise RequestError(
            "A text cannot be cut into segments, as nothing says when its words are spoken: leave out either `text` or "
            "`chunk_length_s` and `return_timestamps`."
        )
    return request


def from_query(query: dict[str, str], media: bytes) -> dict[str, Any]:
    """A request of a body of media and the options, and `text`, in the query of its address."""
    values = {"true": True, "false": False}
    text = query.pop("text", None)
    try:
        for read, option in ((int, "top_k"), (float, "chunk_length_s")):
            if option in query:
                query[option] = read(query[option])
    except ValueError:
        raise RequestError(f"`{option}` is {query[option]!r:.80}, which is no number.") from None
    for option in ("return_timestamps", "return_attention"):
        if option in query:
            query[option] = values.get(query[option].lower(), query[option])
    return {"inputs": {"video": media, "text": text}, "parameters": query}


def _read_input(entry: Any, limits: Limits, max_bytes: int) -> dict[str, Any]:
    if isinstance(entry, (str, bytes, bytearray, memoryview)):
        if isinstance(entry, str) and not _is_url(entry):
            raise RequestError(f'{entry!r:.80} is no http(s) URL. To analyse words, send {{"text": ...}}.')
        entry = {"video": entry}
    if not isinstance(entry, dict):
        raise RequestError(f"An input is an object with text, audio or video, or a URL, not {_kind(entry)}.")
    _refuse_unknown("An input", entry, ("text", "audio", "video"))
    entry = {name: value for name, value in entry.items() if value is not None}
    if not entry:
        raise RequestError("There is nothing in an input: give it any of text, audio and video.")
    read = {}
    if "text" in entry:
        read["text"] = _read_text(entry["text"], limits)
    for name in ("audio", "video"):
        if name in entry:
            read[name] = _read_media(name, entry[name], max_bytes)
            max_bytes -= len(read[name]) if isinstance(read[name], bytes) else 0
    return read


def _read_text(text: Any, limits: Limits) -> str:
    if not isinstance(text, str):
        raise RequestError(f"`text` is a string, not {_kind(text)}.")
    if len(text) > limits.max_text_length:
        raise RequestError(f"`text` has {len(text)} characters, {limits.max_text_length} at most are taken.", 413)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise RequestError("`text` has half of a surrogate pair, which is no character.") from None
    return text


def _read_media(name: str, value: Any, max_bytes: int) -> bytes | str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        media = bytes(value)
    elif not isinstance(value, str):
        raise RequestError(f"`{name}` is a string of base64 or an http(s) URL, not {_kind(value)}.")
    elif _is_url(value):
        return value
    else:
        media = _decode_base64(name, value, max_bytes)
    if len(media) > max_bytes:
        raise _too_large(max_bytes)
    if not media:
        raise RequestError(f"`{name}` is empty.")
    return media


def _decode_base64(name: str, value: str, max_bytes: int) -> bytes:
    if value[:5].lower() == "data:":
        head, _, value = value.partition(",")
        if not (head[5:].lower().startswith(MEDIA_TYPES) and head.lower().endswith(";base64")):
            raise RequestError(f"`{name}` is a data: URL but not of sound or video in base64: {head!r:.80}.")
    if len(value) // 4 * 3 > 1.1 * max_bytes:  # lines may be broken: a little more than the bytes is no proof yet
        raise _too_large(max_bytes)
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(f"`{name}` is neither base64 nor an http(s) URL: {value!r:.80}.") from None


def _read_parameters(parameters: Any) -> dict[str, Any]:
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise RequestError(f"`parameters` is an object, not {_kind(parameters)}.")
    _refuse_unknown("`parameters`", parameters, ("top_k", "chunk_length_s", "return_timestamps", "return_attention"))
    parameters = {name: value for name, value in parameters.items() if value is not None}
    for name in ("return_timestamps", "return_attention"):
        if not isinstance(parameters.get(name, False), bool):
            raise RequestError(f"`{name}` is true or false, not {parameters[name]!r:.80}.")
        if parameters.get(name) is False:
            del parameters[name]
    top_k = parameters.get("top_k", 1)
    if type(top_k) is not int or top_k < 1:
        raise RequestError(f"`top_k` is {top_k!r:.80}: it is a whole number, 1 or more.")
    chunk_length_s = parameters.get("chunk_length_s", 1)
    if type(chunk_length_s) not in (int, float) or not 0 < chunk_length_s <= MAX_SEGMENT_S:
        raise RequestError(
            f"`chunk_length_s` is {chunk_length_s!r:.80}: it is in seconds, more than 0 and {MAX_SEGMENT_S:g} at most."
        )
    return parameters


def _refuse_unknown(what: str, given: dict, known: tuple[str, ...]):
    if unknown := sorted(str(name)[:40] for name in set(given) - set(known)):
        raise RequestError(f"{what} has no {', '.join(map(repr, unknown[:5]))}: pass any of {', '.join(known)}.")


def _kind(value: Any) -> str:
    """What JSON calls it."""
    kinds = {
        type(None): "null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return kinds.get(type(value), type(value).__name__)


def _is_url(text: str) -> bool:
    return text[:8].lower().startswith(("http://", "https://"))


def _too_large(max_bytes: int) -> RequestError:
    return RequestError(f"The media of a request are too large: {max(0, max_bytes)} bytes are left for this one.", 413)


# ---- answers ----


def answer(pipeline, requests: Iterable[Request], limits: Limits = Limits(), batch_size: int = 8) -> list[Any]:
    """
    Answers requests together; not for several threads at once.

    Args:
        pipeline: a `MultimodalEmotionPipeline`.
        requests: whose URLs have been fetched.
        limits: for the seconds of media and number of segments.
        batch_size: segments that go through the model at once.

    Returns:
        For each request what the pipeline gives, or a RequestError. In the answer to a list, an input that failed is
        `{"error": words}`: one that is bad does not spoil the others.
    """
    jobs = [Job(pipeline, request, limits) for request in requests]
    while any(not job.is_done for job in jobs):
        advance(jobs, batch_size)
    return [job.result for job in jobs]


class Job:
    """
    A request on its way to its answer, one segment after the other, so that other requests can come in between.

    Attributes:
        is_done: whether `result`, what [`answer`] returns of a request, is complete.
        is_cut: whether its files are cut into segments, and stay open from one to the next.
        spent_s: seconds that its segments took to prepare until now.
    """

    def __init__(self, pipeline, request: Request, limits: Limits = Limits()):
        self.pipeline, self.request, self.limits = pipeline, request, limits
        self.before, self.options, self.after = pipeline._sanitize_parameters(**request.parameters)
        self.is_cut = "chunk_length_s" in self.before
        self.spent_s, self.is_done = 0.0, False
        self.media_s, self.num_segments = 0.0, 0
        self.answers: list[Any] = [None] * len(request.inputs)
        self.outputs: list[list[Any]] = [[] for _ in request.inputs]
        self.segments = self._prepare()

    @property
    def result(self) -> Any:
        if not self.request.is_list:
            return self.answers[0]
        return [{"error": str(found)} if isinstance(found, RequestError) else found for found in self.answers]

    def next_segment(self) -> tuple["Job", int, dict[str, Any]] | None:
        """The job itself, the index of an input and what the model takes of a segment; `None` when there is no more."""
        began = time.monotonic()
        found = next(self.segments, None)
        self.spent_s += time.monotonic() - began
        self.is_done = found is None or (found[0] == len(self.answers) - 1 and found[1]["is_last"])
        return found and (self, *found)

    def _prepare(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, entry in enumerate(self.request.inputs):
            try:
                self._check_limits()
                with closing(self.pipeline.preprocess(entry, **self.before)) as segments:
                    for segment in segments:
                        self.num_segments += 1
                        self.media_s += (segment["end"] or 0.0) - (segment["start"] or 0.0)
                        self._check_limits()
                        if segment["is_last"]:
                            segments.close()  # what it holds is large
                        yield i, segment
                        if self.answers[i] is not None:  # the model could not take a segment: no other will help
                            break
            except Exception as error:
                self.answers[i] = _in_words(error)

    def _check_limits(self):
        """Files are read no further than this lets them."""
        if time.monotonic() > self.request.deadline:
            raise RequestError("There was no time left for this request: send less, or try later.", 504)
        if self.media_s > self.limits.max_media_s + 1e-3:
            raise RequestError(f"The media are longer than {self.limits.max_media_s:g} s together: send less.", 413)
        if self.num_segments > self.limits.max_segments:
            raise RequestError(f"More than {self.limits.max_segments} segments: make `chunk_length_s` longer.", 413)

    def take(self, i: int, outputs: dict[str, Any]):
        """What the model says of a segment."""
        self.outputs[i].append(outputs)
        if outputs["is_last"]:
            self.answers[i] = self.pipeline.postprocess(self.outputs[i], **self.after)


def advance(jobs: list[Job], batch_size: int, seconds: float = math.inf) -> int:
    """
    Takes jobs that are not done one batch further. The one that has had the least time comes first, so that a large
    request waits for the small ones, and not they for it.

    Args:
        batch_size: segments in the batch, and jobs with open files, at most.
        seconds: after which the batch goes to the model as it is.

    Returns:
        The number of segments in the batch.
    """
    batch, end = [], time.monotonic() + seconds
    while len(batch) < batch_size and (job := _next_job(jobs, batch_size)) is not None:
        if (segment := job.next_segment()) is not None:
            batch.append(segment)
        if time.monotonic() > end:
            break
    groups = defaultdict(list)  # what the model is asked alike
    for job, i, segment in batch:
        groups[tuple(job.options.items())].append((job, i, segment))
    for group in groups.values():
        _predict(group)
    return len(batch)


def _next_job(jobs: list[Job], max_open: int) -> Job | None:
    waiting = [job for job in jobs if not job.is_done]
    num_open = sum(job.is_cut and job.spent_s > 0 for job in waiting)
    ready = [job for job in waiting if not job.is_cut or job.spent_s > 0 or num_open < max_open]
    now = time.monotonic()  # what is late takes no time, but lets go of its files
    return min(ready, key=lambda job: job.spent_s if now < job.request.deadline else -math.inf, default=None)


def _predict(group: list[tuple[Job, int, dict[str, Any]]]):
    """Hands outputs to the jobs. A batch that fails is taken apart, so that each input fails for itself."""
    pipeline, options = group[0][0].pipeline, group[0][0].options
    segments = [segment for *_, segment in group]
    try:
        if len(segments) == 1:
            outputs = [pipeline.forward(segments[0], **options)]
        else:
            collate = pad_collate_fn(pipeline.tokenizer, pipeline.feature_extractor or pipeline.image_processor)
            batches = [collate(segments)]
            outputs = list(PipelineIterator(batches, pipeline.forward, options, loader_batch_size=len(segments)))
    except Exception as error:
        if len(group) == 1:
            job, i, _ = group[0]
            job.answers[i] = _in_words(error)
        else:
            for one in group:
                _predict([one])
        return
    for (job, i, _), found in zip(group, outputs, strict=True):
        try:
            if job.answers[i] is None:
                job.take(i, found)
        except Exception as error:
            job.answers[i] = _in_words(error)


def _in_words(error: Exception) -> RequestError:
    if isinstance(error, RequestError):
        return error
    # The pipeline's own words; an error of the system would name a file of this machine.
    if isinstance(error, (OSError, ValueError)) and getattr(error, "filename", None) is None:
        return RequestError(str(error), 422)
    return failed(error)


def failed(error: Exception) -> RequestError:
    """Logs what went wrong; the words for the client give nothing away."""
    logger.error("A request could not be answered.", exc_info=error)
    return RequestError("The server failed here; its log says more.", 500)
