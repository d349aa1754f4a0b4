# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Downloads what strangers name: from public addresses alone, no more than so many bytes, until a deadline.

`umons serve` and the handler of an Inference Endpoint both stand on this file. It also works as a plain module beside a
handler: it needs nothing else of the package.
"""

import http.client
import ipaddress
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import SplitResult, quote, urljoin, urlsplit


MAX_URL_LENGTH = 2048
MAX_HOST_LENGTH = 253  # of a name in the DNS
MAX_REDIRECTS = 3
REDIRECTS = (301, 302, 303, 307, 308)
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


class FetchError(ValueError):
    """A URL that is refused, or leads to nothing; `status` is that of HTTP. The words are for the client."""

    def __init__(self, message: str, status: int = 400):
        super().__init__(message)
        self.status = status


def is_public(address: str, port: int) -> bool:
    """Whether a stranger may send this process to an IP address and port: the public internet, HTTP's own ports."""
    ip = ipaddress.ip_address(address)
    if port not in PORTS or any(ip in network for network in REFUSED_NETWORKS):
        return False
    if ip.version == 6:
        return ip in GLOBAL_IPV6
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback)


def fetch_media(request, limits, allow: Callable[[str, int], bool]):
    """
    Puts bytes in the place of each URL of a request. `allow` and errors are those of [`fetch`].

    Args:
        request: with `inputs`, dicts whose `audio` and `video` may be URLs, and the `media_bytes` that are there already.
        limits: with `fetch_s`, seconds for all of it together, and `max_media_bytes` of the request.
    """
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
        FetchError: the URL is refused (400), its file too large (413), or not to be had (422).
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
                    raise FetchError(f"{url:.200} answered with status {response.status} instead of a file.", 422)
                here = _join_url(here, location)
        except (http.client.HTTPException, OSError) as error:
            late = time.monotonic() >= deadline
            why = "took too long" if late else f"could not be fetched ({type(error).__name__})"
            raise FetchError(f"{url:.200} {why}: send the file itself.", 422) from error
    raise FetchError(f"{url:.200} was redirected more than {MAX_REDIRECTS} times.", 422)


def _join_url(here: str, location: str) -> str:
    _check_length(location)
    try:
        return urljoin(here, location)
    except ValueError:
        raise FetchError("A redirection leads to what is no URL.", 422) from None


def _check_length(url: str):
    """Comes before all that takes longer for what is longer."""
    if len(url) > MAX_URL_LENGTH:
        raise FetchError(
            f"{url[:100]!r}... is too long for a URL that is fetched: {MAX_URL_LENGTH} characters at most."
        )


def _check_url(url: str) -> SplitResult:
    """The parts of a URL; its host in ASCII. Raises FetchError for a URL that is not fetched."""
    _check_length(url)
    try:
        target = urlsplit(url)
        port, host = target.port, target.hostname or ""
        if len(host) > MAX_HOST_LENGTH:
            raise ValueError("no name of a host")
        host = host.encode("idna").decode()
    except ValueError:  # also a port that is no number, and brackets that do not close
        raise FetchError(f"{url!r:.200} is no URL.") from None
    if target.scheme not in ("http", "https"):
        raise FetchError(f"{url!r:.200}: only http and https are fetched.")
    if not host or any(ord(c) <= 32 or ord(c) == 127 for c in url):
        raise FetchError(f"{url!r:.200} is no URL that is fetched: it lacks a host or holds a blank.")
    if "@" in target.netloc:
        raise FetchError("A URL with a user name or password is not fetched: use one that needs none.")
    if port is None:
        port = 443 if target.scheme == "https" else 80
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
        raise FetchError(f"The address of {target.hostname:.200} could not be found in time.", 422) from None
    if not addresses:
        raise FetchError(f"{target.hostname:.200} has no address.", 422)
    if not all(allow(address, target.port) for address in addresses):
        raise FetchError(
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


def _too_large(max_bytes: int) -> FetchError:
    return FetchError(f"The media of a request are too large: {max(0, max_bytes)} bytes are left for this one.", 413)
