"""HTTP connections that end if their client does not send the headers of a request in time."""

from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


HEADER_TIMEOUT_S = 10.0


class TimedProtocol(H11Protocol):
    """
    Connection that is closed after `HEADER_TIMEOUT_S` without complete headers, and at most twice that time after a
    response. uvicorn limits only the time without any byte, and only after a response. h11 limits the size of headers.
    """

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.loop.call_later(HEADER_TIMEOUT_S, self._close_if_idle, None)

    def _close_if_idle(self, last: Any) -> None:
        """Close the connection if no request has followed `last`, the request that was answered at the last check."""
        if self not in self.connections:  # closed, or now a WebSocket
            return
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self.cycle is last:
            self.transport.abort()  # also if the client does not read the response
        else:
            self.loop.call_later(HEADER_TIMEOUT_S, self._close_if_idle, self.cycle if is_idle else self)
