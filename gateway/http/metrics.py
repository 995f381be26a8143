"""Prometheus metrics: requests by route, live subscribers, and the catalog's lag."""

import time
from typing import Any

from litestar.types import ASGIApp, Message, Receive, Send
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gateway.live.feed import LiveFeed

BUCKETS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
EXCLUDED_PATHS = ("/web/", "/health", "/metrics")


class Metrics:
    """A registry of its own for each app, so that two apps in one process do not share metrics."""

    def __init__(self, feed: LiveFeed) -> None:
        self._registry = CollectorRegistry()
        names = ["method", "route", "status"]
        self._requests = Counter("loratory_http_requests", "Requests answered", names, registry=self._registry)
        self._seconds = Histogram(
            "loratory_http_seconds", "Time to the first byte", ["route"], buckets=BUCKETS, registry=self._registry
        )
        for name, description, read in (
            ("loratory_ws_clients", "Open WebSockets", lambda: len(feed.subscribers)),
            (
                "loratory_ws_dropped",
                "WebSockets closed because they were too slow",
                lambda: feed.subscribers.slow_disconnects,
            ),
            ("loratory_projection_lag_commits", "Commits the catalog has not announced yet", lambda: feed.reader.lag),
            ("loratory_catalog_silent", "1 while the catalog is silent", lambda: float(feed.is_stale)),
        ):
            Gauge(name, description, registry=self._registry).set_function(read)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """The same app, with its responses counted by route pattern."""

        async def wrapped(scope: Any, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or scope["path"].startswith(EXCLUDED_PATHS):
                await app(scope, receive, send)
                return
            started = time.perf_counter()

            async def send_counted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    route = str(scope.get("path_template") or "none")
                    self._requests.labels(scope["method"], route, message["status"]).inc()
                    self._seconds.labels(route).observe(time.perf_counter() - started)
                await send(message)

            await app(scope, receive, send_counted)

        return wrapped
