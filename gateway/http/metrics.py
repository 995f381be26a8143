"""Figures for Prometheus: requests by route, sockets, and how far behind the catalog is."""

import time
from typing import Any

from litestar.types import ASGIApp, Message, Receive, Send
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gateway.live import LiveFeed

BUCKETS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
UNCOUNTED = ("/web/", "/health", "/metrics")


class Metrics:
    """One registry for each app, so that two in one process do not meet."""

    def __init__(self, feed: LiveFeed) -> None:
        self._registry = CollectorRegistry()
        names = ["method", "route", "status"]
        self._requests = Counter("loratory_http_requests", "Requests answered", names, registry=self._registry)
        self._seconds = Histogram(
            "loratory_http_seconds", "Time to the first byte", ["route"], buckets=BUCKETS, registry=self._registry
        )
        for name, text, figure in (
            ("loratory_ws_clients", "Open WebSockets", lambda: feed.sockets),
            ("loratory_ws_dropped", "WebSockets closed because they were too slow", lambda: feed.overflows),
            ("loratory_projection_lag_commits", "Commits the catalog has not announced yet", lambda: feed.lag),
            ("loratory_catalog_silent", "1 while the catalog is silent", lambda: float(feed.stale)),
        ):
            Gauge(name, text, registry=self._registry).set_function(figure)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def around(self, app: ASGIApp) -> ASGIApp:
        """The same app, its answers counted by the pattern of their route."""

        async def counted(scope: Any, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or scope["path"].startswith(UNCOUNTED):
                await app(scope, receive, send)
                return
            began = time.perf_counter()

            async def noted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    route = str(scope.get("path_template") or "none")
                    self._requests.labels(scope["method"], route, message["status"]).inc()
                    self._seconds.labels(route).observe(time.perf_counter() - began)
                await send(message)

            await app(scope, receive, noted)

        return counted
