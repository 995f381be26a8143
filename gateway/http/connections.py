"""Limits of an HTTP/1.1 connection before a route sees anything: size and time of headers, and time of bodies.

uvicorn has none of these: httptools takes a header of any size, and a connection that never sends one stays open.
"""

from http import HTTPStatus
from typing import Any

import httptools
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from contracts.errors import Invalid, LoratoryError
from gateway.http.problems import MEDIA_TYPE, HeadersTooLarge, RequestTimeout, encode_problem, status_of
from gateway.http.security_headers import DEFAULTS
from gateway.limits import ConnectionLimits

FRAMING = 8
"""Bytes of chunk sizes and extensions for each byte of a body: a client may send it in chunks of one byte."""

_log = structlog.get_logger()


class Connections:
    """The connections of one server that have not sent a request's headers yet, the oldest first."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.half_open: dict[LimitedHttp, None] = {}

    def protocol(self, *args: Any, **kwargs: Any) -> "LimitedHttp":
        """For uvicorn's `http`, which calls it for each connection."""
        return LimitedHttp(self, *args, **kwargs)

    def add(self, connection: "LimitedHttp") -> None:
        """One more waits for headers; the one that has waited longest is closed if they are too many."""
        self.half_open[connection] = None
        if len(self.half_open) > self.limits.half_open:
            oldest = next(iter(self.half_open))
            del self.half_open[oldest]
            oldest.abandon("too many connections without a request")

    def discard(self, connection: "LimitedHttp") -> None:
        self.half_open.pop(connection, None)


class LimitedHttp(HttpToolsProtocol):
    """uvicorn's protocol, within `ConnectionLimits`. What exceeds them gets a problem document, and is closed."""

    def __init__(self, others: Connections, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._others = others
        self._limits = others.limits
        self._received = 0
        """Bytes since the last request ended."""
        self._body_bytes = 0
        self._in_body = False
        self._window_bytes = 0
        """Bytes of the body at the last look at its speed."""
        self._was_paused = False
        """Whether the client waited for the route since then."""
        self._timer: Any = None
        self._refusal: LoratoryError | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None or self.transport.is_closing():
            return
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._wait_for_headers()  # of the next request of a connection that was kept alive
        self._received += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        extra = self._received - self._body_bytes * (1 + FRAMING)
        if extra > self._limits.header_bytes + (len(data) if self._in_body else 0):
            self._refuse(HeadersTooLarge(self._sentence()))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._timer is None:
            self._wait_for_headers()  # of a request that follows another one before its answer

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self._limits.header_bytes:
            self._refusal = HeadersTooLarge(self._sentence())
            raise httptools.HttpParserError(self._sentence())  # `data_received` then calls `send_400_response`
        self._stop_timer()
        self._in_body, self._received, self._body_bytes, self._window_bytes = True, 0, 0, 0
        super().on_headers_complete()
        self._timer = self.loop.call_later(self._limits.body_seconds, self._check_speed)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)
        self._was_paused = self._was_paused or self.flow.read_paused

    def on_message_complete(self) -> None:
        self._stop_timer()
        self._in_body, self._received, self._body_bytes = False, 0, 0
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self._stop_timer()  # another protocol takes over
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls for what it cannot parse."""
        self._refuse(self._refusal or Invalid(msg))

    def abandon(self, reason: str) -> None:
        """Close it without an answer, or with one if a request has begun."""
        self._stop_timer()
        if self._received:
            self._refuse(RequestTimeout(reason))
        else:
            self.transport.close()

    def _wait_for_headers(self) -> None:
        self._others.add(self)
        self._timer = self.loop.call_later(self._limits.header_seconds, self._time_is_up)

    def _time_is_up(self) -> None:
        self.abandon(f"the request's headers did not arrive within {self._limits.header_seconds:g} s")

    def _check_speed(self) -> None:
        """Close the connection if the body came too slowly since the last look, and not because of the route."""
        limits, came = self._limits, self._body_bytes - self._window_bytes
        waits = self.flow.read_paused or self.cycle.waiting_for_100_continue
        if came < limits.body_seconds * limits.body_rate and not (self._was_paused or waits):
            _log.warning("slow_body_closed", client=self.client, path=self.scope.get("path"), bytes=self._body_bytes)
            self._stop_timer()
            self.transport.close()
            return
        self._window_bytes, self._was_paused = self._body_bytes, waits
        self._timer = self.loop.call_later(limits.body_seconds, self._check_speed)

    def _refuse(self, error: LoratoryError) -> None:
        self._refusal = error
        self._stop_timer()
        _log.warning("connection_refused", client=self.client, reason=error.detail)
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(_answer(error))
        self.transport.close()

    def _stop_timer(self) -> None:
        self._others.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sentence(self) -> str:
        return f"the request's headers have more than {self._limits.header_bytes} bytes"


def _answer(error: LoratoryError) -> bytes:
    """A whole response: no request has reached the app that could make one."""
    body = encode_problem(error, "")
    status = HTTPStatus(status_of(error))
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        *DEFAULTS,
    ]
    lines = (name + b": " + value for name, value in headers)
    return b"\r\n".join([f"HTTP/1.1 {status.value} {status.phrase}".encode(), *lines, b"", body])
