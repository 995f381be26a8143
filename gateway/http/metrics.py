"""Metrics of the gateway; each request counted and timed by route, traced, and noted in the log."""

import time
from typing import Any, get_args

import structlog
from litestar.types import ASGIApp, Message, Receive, Send
from prometheus_client import Counter, Histogram
from prometheus_client.metrics_core import Metric

from contracts.subjects import WorkerService
from contracts.wire.service import tracing
from contracts.wire.service.bus import Bus
from contracts.wire.service.metrics import ServiceMetrics, counter, gauge
from gateway.http.guard import SAFE_METHODS
from gateway.live.feed import LiveFeed

SECONDS_BUCKETS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
EXCLUDED_PATHS = ("/web/", "/health", "/metrics")
METHODS = frozenset({*SAFE_METHODS, "POST", "PUT", "PATCH", "DELETE"})
"""Others are counted as one: a client can send any word."""
STATUS_OF_CLOSED = 499
"""In the log: the client disconnected before the response began (nginx's number)."""

_log = structlog.get_logger()


class Metrics(ServiceMetrics):
    """Those of every service, and requests, sockets, workers and the catalog's announcements."""

    def __init__(self, bus: Bus, feed: LiveFeed) -> None:
        super().__init__("gateway", bus)
        self._feed = feed
        labels = ["method", "route", "status"]
        self._requests_by_route = Counter(
            "loratory_http_requests", "HTTP requests answered", labels, registry=self.registry
        )
        self._seconds = Histogram(
            *("loratory_http_request_seconds", "Time to the first byte of the response", ["route"]),
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self.add("feed", self._collect_feed)

    async def _collect_feed(self) -> list[Metric]:
        feed = self._feed
        workers = [(presence.service, presence.state) for presence in feed.presences]
        by_state = [((service, state), workers.count((service, state))) for service, state in sorted(set(workers))]
        connected = [((name,), len(feed.workers(name))) for name in get_args(WorkerService)]
        age = feed.announcement_age
        return [
            gauge("loratory_websocket_clients", "Open WebSockets", (), [((), len(feed.subscribers))]),
            gauge("loratory_event_streams", "Open streams of server-sent events", (), [((), feed.open_streams)]),
            counter(
                *("loratory_websockets_too_slow", "WebSockets closed because the client was too slow", ()),
                [((), feed.subscribers.slow_disconnects)],
            ),
            gauge(
                *("loratory_withheld_commits", "Commits read, but not announced by the catalog", ()),
                [((), feed.reader.lag)],
            ),
            gauge(
                *("loratory_announcement_age_seconds", "Time since the catalog's last announcement", ()),
                [] if age is None else [((), age)],
            ),
            gauge("loratory_workers", "Connected workers", ["service"], connected),
            gauge("loratory_workers_by_state", "Connected workers by state", ["service", "state"], by_state),
        ]

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """The same app, with its responses counted, traced and logged by route pattern."""

        async def wrapped(scope: Any, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or scope["path"].startswith(EXCLUDED_PATHS):
                await app(scope, receive, send)
                return
            started, status = time.perf_counter(), STATUS_OF_CLOSED

            async def send_counted(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                    self._count(scope, status, time.perf_counter() - started)
                await send(message)

            with tracing.span(f"HTTP {method_of(scope)}", "server", _traceparent(scope)) as span:
                try:
                    await app(scope, receive, send_counted)
                finally:
                    note_request(span, scope, status, time.perf_counter() - started)

        return wrapped

    def _count(self, scope: Any, status: int, seconds: float) -> None:
        self._requests_by_route.labels(method_of(scope), route_of(scope), status).inc()
        self._seconds.labels(route_of(scope)).observe(seconds)


def note_request(span: tracing.Span, scope: Any, status: int, seconds: float) -> None:
    """The log line and the trace of a request. Neither has its path: it may contain what a user typed."""
    method, route = method_of(scope), route_of(scope)
    span.note({"http.request.method": method, "http.route": route, "http.response.status_code": status})
    if status >= 500:
        span.fail(str(status))
    line = {"method": method, "route": route, "status": status, "seconds": round(seconds, 4)}
    if status >= 500:
        _log.warning("http_request_answered", **line)
    elif method not in SAFE_METHODS:
        _log.info("http_request_answered", **line)
    else:
        _log.debug("http_request_answered", **line)


def method_of(scope: Any) -> str:
    return scope["method"] if scope["method"] in METHODS else "other"


def route_of(scope: Any) -> str:
    return str(scope.get("path_template") or "none")


def _traceparent(scope: Any) -> str | None:
    name = tracing.TRACE_HEADER.encode()
    return next((value.decode("latin-1") for header, value in scope["headers"] if header == name), None)
