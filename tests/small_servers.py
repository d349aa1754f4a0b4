"""Servers of small pipelines, in a thread."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from modeling_umons.serving.server import make_app, make_server


@contextmanager
def running(recognize, **options) -> Iterator[httpx.Client]:
    """Run a server in a thread; yield a client of it."""
    server = make_server(make_app(recognize, **options))
    with socket.create_server(("127.0.0.1", 0)) as sock:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        address = f"http://127.0.0.1:{sock.getsockname()[1]}"
        try:
            limits = httpx.Limits(max_connections=100)
            with httpx.Client(base_url=address, timeout=60, trust_env=False, limits=limits) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()
