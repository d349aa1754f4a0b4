# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Requests from strangers: reads their JSON, fetches what they name, and answers them with the pipeline.

`umons serve` and the handler of an Inference Endpoint both stand on this file. It also works as a plain module beside a
handler: it needs nothing else of the package.
"""

import base64
import binascii
import http.client
import ipaddress
import json
import math
import queue
import socket
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from transformers.pipelines.base import no_collate_fn, pad_collate_fn
from transformers.pipelines.pt_utils import PipelinePackIterator
from transformers.utils import logging


logger = logging.get_logger(__name__)

MEDIA_TYPES = ("audio/", "video/", "application/octet-stream")
MAX_URL_LENGTH = 2048
MAX_REDIRECTS = 3
REDIRECTS = (301, 302, 303, 307, 308)
MAX_SEGMENT_S = 120.0  # seconds: as much as the pipeline reads of a file for one answer; a segment is held in memory
PORTS = (80, 443)
# Of IPv6, global unicast alone: whatever maps or translates IPv4 (::ffff:0:0/96, 64:ff9b::/96), is local or multicast
# lies outside. Within it, tunnels that lead to IPv4 (Teredo in 2001::/23, 6to4) and examples are no public hosts either.
GLOBAL_IPV6 = ipaddress.ip_network("2000::/3")
REFUSED_NETWORKS = [
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments, where one cloud keeps its metadata
        "192.88.99.0/24",  # 6to4 relays
        "168.63.129.16/32",  # another cloud's host agent: public by its number alone
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
    )
]


@dataclass(frozen=True)
class Limits:
    """
    What one request may ask for.

    Attributes:
        max_body_bytes: of the body as it is sent.
        max_media_bytes: of all media in it together, decoded from base64 or downloaded.
        max_inputs: entries in a list of inputs.
        max_text_length: characters of a text.
        max_clip_s: seconds of a file that is cut into segments. One answer takes the first two minutes of any file.
        max_segments: of all its inputs together.
        fetch_s: seconds for all of its downloads together, from the first name that is looked up to the last byte.
    """

    max_body_bytes: int = 32 * 2**20
    max_media_bytes: int = 23 * 2**20
    max_inputs: int = 32
    max_text_length: int = 10_000
    max_clip_s: float = 600.0
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


def parse_json(body: bytes) -> Any:
    """What the JSON says. Raises RequestError for what is no strict JSON."""

    def refuse(constant: str):
        raise RequestError(f"The body has {constant}, which is no JSON: leave out what is not a number.")

    try:
        return json.loads(bytes(body).decode("utf-8"), parse_constant=refuse)
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
    if {"segment_s", "return_timestamps"} & set(parameters) and any("text" in entry for entry in request.inputs):
        raise RequestError(
            "A text cannot be cut into segments, as nothing says when its words are spoken: leave out either `text` or "
            "`segment_s` and `return_timestamps`."
        )
    return request


def from_query(query: dict[str, str], media: bytes) -> dict[str, Any]:
    """A request of a body of media and the options, and `text`, in the query of its address."""
    values = {"true": True, "false": False}
    text = query.pop("text", None)
    try:
        for read, option in ((int, "top_k"), (float, "segment_s")):
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
    _refuse_unknown("`parameters`", parameters, ("top_k", "segment_s", "return_timestamps", "return_attention"))
    parameters = {name: value for name, value in parameters.items() if value is not None}
    for name in ("return_timestamps", "return_attention"):
        if not isinstance(parameters.get(name, False), bool):
            raise RequestError(f"`{name}` is true or false, not {parameters[name]!r:.80}.")
        if parameters.get(name) is False:
            del parameters[name]
    top_k = parameters.get("top_k", 1)
    if type(top_k) is not int or top_k < 1:
        raise RequestError(f"`top_k` is {top_k!r:.80}: it is a whole number, 1 or more.")
    segment_s = parameters.get("segment_s", 1)
    if type(segment_s) not in (int, float) or not 0 < segment_s <= MAX_SEGMENT_S:
        raise RequestError(
            f"`segment_s` is {segment_s!r:.80}: it is in seconds, more than 0 and {MAX_SEGMENT_S:g} at most."
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


# ---- what URLs lead to ----


def is_public(address: str, port: int) -> bool:
    """Whether a stranger may send this process to an IP address and port: the public internet, HTTP's own ports."""
    ip = ipaddress.ip_address(address)
    if port not in PORTS or any(ip in network for network in REFUSED_NETWORKS):
        return False
    if ip.version == 6:
        return ip in GLOBAL_IPV6
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback)


def fetch_media(request: Request, limits: Limits = Limits(), allow: Callable[[str, int], bool] = is_public):
    """Puts bytes in the place of each URL of a request. `allow` and errors are those of [`fetch`]."""
    deadline = min(time.monotonic() + limits.fetch_s, request.deadline)
    for entry in request.inputs:
        for name in ("audio", "video"):
            if isinstance(entry.get(name), str):
                entry[name] = fetch(entry[name], limits.max_media_bytes - request.media_bytes, deadline, allow)


def fetch(url: str, max_bytes: int, deadline: float, allow: Callable[[str, int], bool] = is_public) -> bytes:
    """
    Downloads what a stranger's URL names.

    Each hop is resolved once, and the connection is made to the very address that was checked, so a name that changes
    its address between the two gains nothing. Proxies of the environment are not used.

    Args:
        url: http or https, without a name and password.
        max_bytes: a longer answer is refused, whether it tells its length or not.
        deadline: `time.monotonic()` at which the download is cut off, however the other side spreads its bytes.
        allow: decides about (IP address, port) of each hop.

    Raises:
        RequestError: the URL is refused (400), its file too large (413), or not to be had (422).
    """
    here = url
    for _ in range(1 + MAX_REDIRECTS):
        target = _check_url(here)
        connection = _PinnedConnection(target, _resolve(target, deadline, allow), deadline)
        try:
            with connection.until_deadline():
                path = quote(target.path or "/", safe="/%:@!$&'()*+,;=~") + "?" * bool(target.query)
                connection.request(
                    "GET",
                    path + quote(target.query, safe="/?%:@!$&'()*+,;=~"),
                    headers={"User-Agent": "modeling_umons", "Accept": "audio/*, video/*, */*;q=0.1"},
                )
                with connection.getresponse() as response:
                    if response.status == 200:
                        return _read_response(response, max_bytes, deadline)
                    location = response.headers.get("Location")
                if response.status not in REDIRECTS or not location:
                    raise RequestError(f"{url:.200} answered with status {response.status} instead of a file.", 422)
                here = _join_url(here, location)
        except (http.client.HTTPException, OSError) as error:
            late = time.monotonic() >= deadline
            why = "took too long" if late else f"could not be fetched ({type(error).__name__})"
            raise RequestError(f"{url:.200} {why}: send the file itself.", 422) from error
    raise RequestError(f"{url:.200} was redirected more than {MAX_REDIRECTS} times.", 422)


def _join_url(here: str, location: str) -> str:
    try:
        return urljoin(here, location)
    except ValueError:
        raise RequestError("A redirection leads to what is no URL.", 422) from None


def _check_url(url: str) -> SplitResult:
    """The parts of a URL; its host in ASCII. Raises RequestError for a URL that is not fetched."""
    try:
        target = urlsplit(url)
        port, host = target.port, (target.hostname or "").encode("idna").decode()
    except ValueError:  # a port that is no number, brackets that do not close, no name of a host
        raise RequestError(f"{url!r:.200} is no URL.") from None
    if target.scheme not in ("http", "https"):
        raise RequestError(f"{url!r:.200}: only http and https are fetched.")
    if not host or len(url) > MAX_URL_LENGTH or any(ord(c) <= 32 or ord(c) == 127 for c in url):
        raise RequestError(f"{url!r:.200} is no URL that is fetched: it is too long, lacks a host or holds a blank.")
    if "@" in target.netloc:
        raise RequestError("A URL with a user name or password is not fetched: use one that needs none.")
    port = port or (443 if target.scheme == "https" else 80)
    return target._replace(netloc=f"[{host}]:{port}" if ":" in host else f"{host}:{port}", fragment="")


def _resolve(target: SplitResult, deadline: float, allow: Callable[[str, int], bool]) -> list[str]:
    """The addresses of a host, looked up once and all of them allowed."""
    answers = queue.SimpleQueue()

    def look_up():
        try:
            found = socket.getaddrinfo(target.hostname, target.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            found = []
        answers.put([entry[4][0] for entry in found])

    # The system's resolver knows no limit of time: its thread is left behind when it takes too long.
    threading.Thread(target=look_up, daemon=True).start()
    try:
        addresses = answers.get(timeout=max(0.0, deadline - time.monotonic()))
    except queue.Empty:
        raise RequestError(f"The address of {target.hostname:.200} could not be found in time.", 422) from None
    if not addresses:
        raise RequestError(f"{target.hostname:.200} has no address.", 422)
    if not all(allow(address, target.port) for address in addresses):
        raise RequestError(
            f"{target.hostname:.200} port {target.port} is not fetched from: only public addresses at ports "
            f"{' and '.join(map(str, PORTS))} are."
        )
    return addresses


class _PinnedConnection(http.client.HTTPConnection):
    """A connection to a host at addresses that are given, which ends at a deadline."""

    def __init__(self, target: SplitResult, addresses: list[str], deadline: float):
        super().__init__(target.hostname, target.port)
        self.default_port = (
            443 if target.scheme == "https" else 80
        )  # so that Host names no port that goes without saying
        self.addresses, self.deadline, self.is_secure = addresses, deadline, target.scheme == "https"
        self.timer = self.line = None

    def connect(self):
        for i, address in enumerate(self.addresses):
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("no time is left to connect")
            try:
                self.sock = socket.create_connection((address, self.port), left)
                break
            except OSError:
                if i == len(self.addresses) - 1:
                    raise
        # A timeout of the socket starts anew with each byte; this one does not. Of a copy: TLS takes the socket over.
        self.line = self.sock.dup()
        self.timer = threading.Timer(max(0.0, self.deadline - time.monotonic()), _hang_up, [self.line])
        self.timer.daemon = True
        self.timer.start()
        if self.is_secure:
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)

    @contextmanager
    def until_deadline(self) -> Iterator[None]:
        """Closes everything in the end. `close` alone is also called when the headers have come."""
        try:
            yield
        finally:
            self.close()
            if self.timer is not None:
                self.timer.cancel()
                self.line.close()


def _hang_up(sock: socket.socket):
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _read_response(response: http.client.HTTPResponse, max_bytes: int, deadline: float) -> bytes:
    if (response.length or 0) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    while chunk := response.read1(65536):
        body += chunk
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    if time.monotonic() >= deadline:  # a connection that was cut looks like the end of the file, or of its headers
        raise TimeoutError("no time is left to read")
    if response.length or not body:  # what was announced and did not come
        raise http.client.IncompleteRead(b"", response.length)
    return bytes(body)


# ---- answers ----


def answer(pipeline, requests: Iterable[Request], limits: Limits = Limits(), batch_size: int = 8) -> list[Any]:
    """
    Answers requests together; not for several threads at once.

    Args:
        pipeline: a `MultimodalEmotionPipeline`.
        requests: whose URLs have been fetched.
        limits: for the length of clips and number of segments.
        batch_size: segments that go through the model at once.

    Returns:
        For each request what the pipeline gives, or a RequestError. In the answer to a list, an input that failed is
        `{"error": words}`: one that is bad does not spoil the others.
    """
    answers, groups = [], defaultdict(list)  # what the model is asked alike can share its batches
    for request in requests:
        answers.append([None] * len(request.inputs))
        left = limits.max_segments
        for i, entry in enumerate(request.inputs):
            try:
                before, options, after = pipeline._sanitize_parameters(**request.parameters)
                segments = _prepare(pipeline, entry, before, limits, left, request.deadline)
            except Exception as error:
                answers[-1][i] = _in_words(error)
            else:
                left -= len(segments)
                groups[tuple(options.items())].append((segments, after, answers[-1], i))
    for options, prepared in groups.items():
        _predict(pipeline, prepared, dict(options), batch_size)
    return [_join(request, found) for request, found in zip(requests, answers, strict=True)]


def _prepare(pipeline, entry, options, limits: Limits, max_segments: int, deadline: float) -> list[dict[str, Any]]:
    """What the model takes, for each segment of an input. Files are read no further than the limits go."""
    segments = []
    late = RequestError("There was no time left for this request: send less, or try later.", 504)
    if time.monotonic() > deadline:
        raise late
    with closing(pipeline.preprocess(entry, **options)) as found:
        for segment in found:
            if time.monotonic() > deadline:
                raise late
            if "segment_s" in options and (segment["end"] or 0.0) > limits.max_clip_s:
                raise RequestError(f"The clip is longer than {limits.max_clip_s:g} s: send a part of it.", 413)
            if len(segments) == max_segments:
                raise RequestError(f"More than {limits.max_segments} segments: make `segment_s` longer.", 413)
            segments.append(segment)
    return segments


def _predict(pipeline, prepared: list[tuple], options: dict[str, Any], batch_size: int):
    """Puts answers in their places. A batch that fails is taken apart, so that each input fails for itself."""
    items = [segment for segments, *_ in prepared for segment in segments]
    if batch_size > 1:
        collate = pad_collate_fn(pipeline.tokenizer, pipeline.feature_extractor or pipeline.image_processor)
    else:
        collate = no_collate_fn
    batches = (collate(items[i : i + batch_size]) for i in range(0, len(items), batch_size))
    try:
        outputs = list(PipelinePackIterator(batches, pipeline.forward, options, loader_batch_size=batch_size))
        for found, (_, after, places, i) in zip(outputs, prepared, strict=True):
            places[i] = pipeline.postprocess(found, **after)
    except Exception as error:
        if len(prepared) > 1:
            for one in prepared:
                _predict(pipeline, [one], options, batch_size)
        else:
            _, _, places, i = prepared[0]
            places[i] = _in_words(error)


def _in_words(error: Exception) -> RequestError:
    if isinstance(error, RequestError):
        return error
    # The pipeline's own words; an error of the system would name a file of this machine.
    if isinstance(error, (OSError, ValueError)) and getattr(error, "filename", None) is None:
        return RequestError(str(error), 422)
    return failed(error)


def _join(request: Request, answers: list[Any]) -> Any:
    if not request.is_list:
        return answers[0]
    return [{"error": str(found)} if isinstance(found, RequestError) else found for found in answers]


def failed(error: Exception) -> RequestError:
    """Logs what went wrong; the words for the client give nothing away."""
    logger.error("A request could not be answered.", exc_info=error)
    return RequestError("The server failed here; its log says more.", 500)
