"""Requests of untrusted clients: validation of their JSON, and prediction in batches that several requests share.

`umons serve` and the handler of an Inference Endpoint share this module. It imports nothing of the package, so that it
can be uploaded next to a handler.
"""

import base64
import json
import math
import re
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from transformers.pipelines.base import pad_collate_fn
from transformers.pipelines.pt_utils import PipelineIterator
from transformers.utils import logging


logger = logging.get_logger(__name__)

MEDIA_TYPES = ("audio/", "video/", "application/octet-stream")
INPUTS = ("text", "audio", "video")
CONTEXT = ("history", "speaker")  # of a text, for models of conversations
PARAMETERS = (
    "top_k", "chunk_length_s", "return_timestamps", "return_attention", "abstain_below", "return_explanations",
    "overflow", "strict",
)  # fmt: skip
MAX_JSON_PARTS = 50_000  # a request has few objects and lists: its size is in texts and base64
MAX_CHUNK_LENGTH_S = 120.0  # a segment is held in memory


@dataclass(frozen=True)
class Limits:
    """
    Limits of one request.

    Attributes:
        max_body_bytes: size of the body.
        max_media_bytes: size of all its media, decoded from base64.
        max_inputs: length of a list of inputs.
        max_text_length: characters of a text.
        max_history: previous utterances of an input.
        max_media_s: seconds of all its media that are decoded. Without segments, the first two minutes of a file are.
        max_segments: segments of all its inputs.
    """

    max_body_bytes: int = 32 * 2**20
    max_media_bytes: int = 23 * 2**20
    max_inputs: int = 32
    max_text_length: int = 10_000
    max_history: int = 32
    max_media_s: float = 600.0
    max_segments: int = 600


class RequestError(ValueError):
    """A request that is refused or fails, with an HTTP `status` and a message for the client."""

    def __init__(self, message: str, status: int = 400):
        super().__init__(message)
        self.status = status


@dataclass
class Request:
    """
    A validated request.

    Attributes:
        inputs: inputs of the pipeline, dicts of `text`, `audio` and `video`; media are bytes.
        parameters: options of the pipeline.
        is_list: True if `inputs` was a list; the response is then a list, too.
    """

    inputs: list[dict[str, Any]]
    parameters: dict[str, Any]
    is_list: bool = False


def parse_json(body: bytes | bytearray) -> Any:
    """Parse strict JSON. Raises RequestError for anything else, and for JSON of far more parts than a request has."""
    # Count before parsing: each object, list or member takes many times its size in memory.
    if sum(body.count(mark) for mark in b"[{,") > MAX_JSON_PARTS:
        raise RequestError(f"The body has more than {MAX_JSON_PARTS} objects, lists and commas. Send less.", 413)

    def refuse(constant: str):
        raise RequestError(f"{constant} is not valid JSON.")

    try:
        return json.loads(body.decode("utf-8-sig"), parse_constant=refuse)
    except RequestError:
        raise
    except RecursionError:
        raise RequestError("The JSON is nested too deeply.") from None
    except ValueError as error:  # also bytes that are not UTF-8, and numbers of thousands of digits
        raise RequestError(f"The body is not valid JSON in UTF-8: {str(error)[:200]}.") from None


def parse_fields(fields: dict[str, str | bytes]) -> dict[str, Any]:
    """Return the JSON form of a request whose inputs and options are the fields of a form or of a query."""
    _check_names("The form or query", fields, ("file", *INPUTS, *PARAMETERS))
    if {"file", "video"} <= set(fields):
        raise RequestError("Both `file` and `video` are given. Send one of them.")
    inputs = {"video" if name == "file" else name: fields[name] for name in ("file", *INPUTS) if name in fields}
    parameters = {name: fields[name] for name in PARAMETERS if name in fields}
    for name, value in parameters.items():
        with suppress(ValueError, RecursionError):  # what is not JSON is refused with the options
            parameters[name] = json.loads(value.lower()) if isinstance(value, str) else value
    return {"inputs": inputs, "parameters": parameters}


def read_request(data: Any, limits: Limits = Limits()) -> Request:
    """
    Validate `{"inputs": ..., "parameters": {...}}`.

    Inputs are a text, the bytes of a clip or audio file, a dict of `text`, `audio` and `video` with media as bytes or
    base64 (plain, or a `data:` URL), or a list of those. With `text`, a dict may have `history`, a list of texts or of
    {"text", "speaker"}, and `speaker`. A string is never a path, and URLs are not fetched. Raises
    RequestError for invalid requests and for those over the limits.
    """
    if not isinstance(data, dict) or "inputs" not in data:
        raise RequestError('A request is an object with "inputs" and, optionally, "parameters".')
    _check_names("A request", data, ("inputs", "parameters"))
    is_list = isinstance(data["inputs"], list)
    entries = data["inputs"] if is_list else [data["inputs"]]
    if not 1 <= len(entries) <= limits.max_inputs:
        status = 413 if entries else 400
        raise RequestError(f"The request has {len(entries)} inputs. Send 1 to {limits.max_inputs}.", status)
    inputs = []
    for index, entry in enumerate(entries):
        try:
            inputs.append(_read_input(entry, limits))
        except RequestError as error:
            raise RequestError(f"Input {index} of the list: {error}", error.status) if is_list else error from None
    if sum(len(entry.get(name, b"")) for entry in inputs for name in ("audio", "video")) > limits.max_media_bytes:
        raise RequestError(f"The media are larger than {limits.max_media_bytes} bytes. Send less.", 413)
    return Request(inputs, _read_parameters(data.get("parameters")), is_list)


def _read_input(entry: Any, limits: Limits) -> dict[str, Any]:
    if isinstance(entry, str):
        _refuse_url("An input", entry)
        entry = {"text": entry}
    elif isinstance(entry, (bytes, bytearray)):
        entry = {"video": entry}
    if not isinstance(entry, dict):
        raise RequestError(f"An input is a text or an object with {', '.join(INPUTS)}, not {_json_type(entry)}.")
    _check_names("An input", entry, (*INPUTS, *CONTEXT))
    entry = {name: value for name, value in entry.items() if value is not None}
    if not set(entry) & set(INPUTS):
        raise RequestError(f"An input is empty. Give it any of {', '.join(INPUTS)}.")
    read = {}
    for name, value in entry.items():
        if name == "history":
            read[name] = _read_history(value, limits)
        else:
            read[name] = _read_media(name, value) if name in ("audio", "video") else _read_text(name, value, limits)
    return read


def _read_text(name: str, text: Any, limits: Limits) -> str:
    if not isinstance(text, str):
        raise RequestError(f"`{name}` must be a string, not {_json_type(text)}.")
    if len(text) > limits.max_text_length:
        raise RequestError(f"`{name}` has {len(text)} characters, more than {limits.max_text_length}.", 413)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise RequestError(f"`{name}` has an unpaired surrogate, which is not a character.") from None
    return text


def _read_history(history: Any, limits: Limits) -> list[dict[str, str]]:
    if not isinstance(history, list):
        raise RequestError(f"`history` must be a list, not {_json_type(history)}.")
    if len(history) > limits.max_history:
        raise RequestError(f"`history` has {len(history)} utterances, more than {limits.max_history}.", 413)
    found = []
    for utterance in history:
        values = utterance if isinstance(utterance, dict) else {"text": utterance}
        _check_names("`history`", values, ("text", "speaker"))
        given = {name: value for name, value in values.items() if value is not None}
        found.append({"text": "", **{name: _read_text(name, value, limits) for name, value in given.items()}})
    return found


def _read_media(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        _refuse_url(f"`{name}`", value)
        if value[:5].lower() == "data:":
            head, _, value = value.partition(",")
            if not (head[5:].lower().startswith(MEDIA_TYPES) and head.lower().endswith(";base64")):
                raise RequestError(f"`{name}` is a data: URL, but not of audio or video in base64: {head!r:.80}.")
        try:
            value = base64.b64decode("".join(value.split()), validate=True)
        except ValueError:
            raise RequestError(f"`{name}` is not valid base64: {value!r:.80}.") from None
    elif not isinstance(value, (bytes, bytearray)):
        raise RequestError(f"`{name}` must be a string in base64, not {_json_type(value)}.")
    if not value:
        raise RequestError(f"`{name}` is empty.")
    return bytes(value)


def _refuse_url(what: str, value: str) -> None:
    if re.match(r"\s*[A-Za-z][A-Za-z0-9+.-]*://", value):
        raise RequestError(
            f"{what} is a URL, and URLs are not fetched. Send the file itself: as a form, raw or in base64."
        )


def _read_parameters(parameters: Any) -> dict[str, Any]:
    """Check what the pipeline does not: it validates the values of `top_k` and `chunk_length_s`."""
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise RequestError(f"`parameters` must be an object, not {_json_type(parameters)}.")
    _check_names("`parameters`", parameters, PARAMETERS)
    for name in ("return_timestamps", "return_attention", "return_explanations", "strict"):
        if not isinstance(parameters.get(name), bool | None):
            raise RequestError(f"`{name}` must be true or false, not {parameters[name]!r:.80}.")
    chunk_length_s = parameters.get("chunk_length_s")
    if isinstance(chunk_length_s, int | float) and chunk_length_s > MAX_CHUNK_LENGTH_S:
        raise RequestError(f"`chunk_length_s` must be at most {MAX_CHUNK_LENGTH_S:g} seconds.")
    return {name: value for name, value in parameters.items() if value is not None}


def _check_names(what: str, given: dict, known: tuple[str, ...]) -> None:
    if unknown := sorted(str(name)[:40] for name in set(given) - set(known)):
        raise RequestError(f"{what} has no {', '.join(map(repr, unknown[:5]))}. Valid names: {', '.join(known)}.")


def _json_type(value: Any) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", list: "a list"}
    return names.get(type(value), type(value).__name__)


class Job:
    """
    A request in progress. Its segments are predicted one by one, so that other requests can share the batches.

    Attributes:
        deadline: `time.monotonic()` after which the job stops at the next segment.
        is_done: True if `result` is complete once the segments taken so far are predicted.
    """

    def __init__(self, pipeline, request: Request, limits: Limits = Limits(), deadline: float = math.inf):
        try:
            options = pipeline._sanitize_parameters(**request.parameters)
        except ValueError as error:
            raise RequestError(str(error)) from None
        self.preprocess_options, self.forward_options, self.postprocess_options = options
        self.pipeline, self.request, self.limits, self.deadline = pipeline, request, limits, deadline
        self.media_s, self.num_segments, self.is_done = 0.0, 0, False
        self.predictions: list[Any] = [None] * len(request.inputs)
        self.outputs: list[list[Any]] = [[] for _ in request.inputs]
        self.segments = self._iter_segments()

    @property
    def result(self) -> Any:
        """Prediction of the input, or a list of predictions, with `{"error": message}` for an input that failed."""
        if self.request.is_list:
            return [{"error": str(found)} if isinstance(found, RequestError) else found for found in self.predictions]
        if isinstance(self.predictions[0], RequestError):
            raise self.predictions[0]
        return self.predictions[0]

    def _iter_segments(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the index of an input and the model's inputs of one of its segments."""
        for index, entry in enumerate(self.request.inputs):
            try:
                self._check_limits()
                for segment in self.pipeline.preprocess(entry, **self.preprocess_options):
                    self.num_segments += 1
                    self.media_s += (segment["end"] or 0.0) - (segment["start"] or 0.0)
                    self._check_limits()
                    self.is_done = segment["is_last"] and index == len(self.predictions) - 1
                    yield index, segment
                    if self.predictions[index] is not None:  # the model failed on a segment
                        break
            except Exception as error:
                self.predictions[index] = _as_request_error(error)
        self.is_done = True

    def _check_limits(self) -> None:
        if time.monotonic() > self.deadline:
            raise RequestError("The request took too long. Send less, or try again later.", 504)
        if self.media_s > self.limits.max_media_s + 1e-3:
            raise RequestError(f"The media are longer than {self.limits.max_media_s:g} s together. Send less.", 413)
        if self.num_segments > self.limits.max_segments:
            raise RequestError(f"More than {self.limits.max_segments} segments. Increase `chunk_length_s`.", 413)

    def add_outputs(self, index: int, outputs: dict[str, Any]) -> None:
        """Take the model's outputs of a segment; the last one of an input completes its prediction."""
        self.outputs[index].append(outputs)
        if outputs["is_last"] and self.predictions[index] is None:
            try:
                self.predictions[index] = self.pipeline.postprocess(self.outputs[index], **self.postprocess_options)
            except Exception as error:
                self.predictions[index] = _as_request_error(error)


def predict(pipeline, request: Request, limits: Limits = Limits(), batch_size: int = 8) -> Any:
    """Return the result of a request. Raises RequestError. Not thread-safe, as tokenizers are not."""
    job = Job(pipeline, request, limits)
    jobs = deque([job])
    while jobs:
        run_batch(jobs, batch_size)
    return job.result


def run_batch(jobs: deque[Job], batch_size: int) -> int:
    """
    Predict one batch of segments, taken from the jobs in turn, and remove the jobs that are done.

    A job returns to the end of the queue after each segment, so that small requests do not wait for large ones.

    Returns:
        The number of segments in the batch.
    """
    segments = []
    while jobs and len(segments) < batch_size:
        job = jobs.popleft()
        if (found := next(job.segments, None)) is not None:
            segments.append((job, *found))
        if not job.is_done:
            jobs.append(job)
    predict_segments(segments)
    return len(segments)


def predict_segments(segments: list[tuple[Job, int, dict[str, Any]]]) -> None:
    """Predict one batch of (job, index of an input, segment), and add the outputs to the jobs."""
    groups = defaultdict(list)
    for job, *found in segments:
        groups[tuple(job.forward_options.items())].append((job, *found))
    for group in groups.values():
        _predict_group(group)


def _predict_group(group: list[tuple[Job, int, dict[str, Any]]]) -> None:
    """Predict segments with the same options. If the batch fails, predict each alone: only the bad inputs fail."""
    pipeline, options = group[0][0].pipeline, group[0][0].forward_options
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
            job, index, _ = group[0]
            job.predictions[index] = _as_request_error(error)
        else:
            for item in group:
                _predict_group([item])
        return
    for (job, index, _), found in zip(group, outputs, strict=True):
        job.add_outputs(index, found)


def _as_request_error(error: Exception) -> RequestError:
    """Return an error for the client: the message of the pipeline, but none that names a file of this machine."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, (OSError, ValueError)) and getattr(error, "filename", None) is None:
        return RequestError(str(error), 422)
    return as_server_error(error)


def as_server_error(error: Exception) -> RequestError:
    """Log an error and return one for the client that discloses nothing of it."""
    logger.error("A request failed.", exc_info=error)
    return RequestError("Internal server error; the server's log has the details.", 500)
