"""Builds the gateway: settings, bus, feed, routes, server."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator

import uvicorn
from litestar import Litestar, Router
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.types import ASGIApp
from litestar.types.internal_types import PathParameterDefinition

from contracts.errors import SetupError
from contracts.wire.blobs import Blobs, blobs_at
from contracts.wire.boot import Health
from contracts.wire.bus import Bus, connect
from gateway.http import asking, problems
from gateway.http.guard import Guard
from gateway.http.metrics import Metrics
from gateway.http.openapi import Document
from gateway.http.patience import patient
from gateway.http.uploads import Staging
from gateway.live import LiveFeed
from gateway.owners import Catalog
from gateway.routes import (
    audit,
    datasets,
    erasures,
    events,
    images,
    jobs,
    pages,
    presets,
    replays,
    results,
    sockets,
    system,
    tagging,
)
from gateway.settings import Settings, refuse_unsafe
from gateway.version import VERSION

BODY_BYTES = 2 << 20
"""The largest JSON body; a recipe or a thousand tags are far smaller."""
FRAME_BYTES = 1 << 20
DRAIN_SECONDS = 8
CHECKS = ("nats", "catalog", "log")
ABOUT = (
    "From pictures to a LoRA. Every write answers `Loratory-Seq`; a read with that `min_seq` sees the change. "
    "Errors are problem documents (RFC 9457) whose `code` is stable. Lists go on with `cursor` or the `Link` header. "
    "Every POST takes an `Idempotency-Key`. What happens is told at `/ws/progress`."
)
PER_RESOURCE = {
    "Datasets": [*datasets.ROUTES, *erasures.ROUTES],
    "Tagging": tagging.ROUTES,
    "Presets": presets.ROUTES,
    "Jobs": [*jobs.ROUTES, *results.ROUTES],
    "Events": events.ROUTES,
    "Audit": [*audit.ROUTES, *replays.ROUTES],
}


def _operation_id(handler: HTTPRouteHandler, method: str, parts: list[str | PathParameterDefinition]) -> str:
    """The handler's name; the seed's address of the same thing and HEAD are told apart."""
    seed = "seed_" if parts[:1] == ["api"] and parts[1:2] != ["v1"] else ""
    head = "_head" if method == "HEAD" else ""
    return f"{seed}{handler.handler_name}{head}"


DESCRIPTION = OpenAPIConfig(
    title="Loratory",
    version=VERSION,
    description=ABOUT,
    use_handler_docstrings=True,
    operation_id_creator=_operation_id,
)


async def serve(settings: Settings) -> None:
    """Listen until cancelled. SetupError: it cannot listen there, or there is no NATS."""
    refuse_unsafe(settings)
    listening = bound(settings.host, settings.port)
    with contextlib.closing(listening):
        bus = await connect(settings.nats_url, settings.nats_user, settings.nats_password, name="gateway")
        try:
            staging = Staging(settings.staging)
            await asyncio.to_thread(staging.prepare)
            feed, health = LiveFeed(bus), Health("gateway", CHECKS, pid=os.getpid())
            app = build(settings, bus, feed, blobs_at(settings.blobs), staging, health)
            async with asyncio.TaskGroup() as tasks:
                beside = [
                    tasks.create_task(feed.run(), name="feed"),
                    tasks.create_task(_watch(bus, feed, health), name="checks"),
                    tasks.create_task(health.keep(settings.health_file), name="health"),
                    tasks.create_task(bus.watch(), name="bus"),
                ]
                await _listen(app, listening, feed)
                for task in beside:
                    task.cancel()
        finally:
            await bus.close()


def build(  # noqa: PLR0913, PLR0917 - everything that routes can ask for, once
    settings: Settings, bus: Bus, feed: LiveFeed, blobs: Blobs, staging: Staging, health: Health
) -> ASGIApp:
    """The whole app: routes, what they ask for, and the guard around them."""
    metrics = Metrics(feed)
    given: dict[str, object] = {
        "settings": settings,
        "catalog": Catalog(bus),
        "feed": feed,
        "blobs": blobs,
        "staging": staging,
        "checks": health,
        "figures": metrics,
    }
    given["document"] = Document(lambda: _litestar(given, DESCRIPTION))
    return Guard(metrics.around(patient(_litestar(given, None))), settings)


def _litestar(given: dict[str, object], described: OpenAPIConfig | None) -> Litestar:
    return Litestar(
        route_handlers=[
            *(Router("/api/v1", route_handlers=routes, tags=[tag]) for tag, routes in PER_RESOURCE.items()),
            Router("/", route_handlers=images.ROUTES, tags=["Images"]),
            Router("/", route_handlers=system.ROUTES, tags=["System"]),
            *sockets.ROUTES,
            *pages.ROUTES,
        ],
        dependencies={
            **{name: _constant(value) for name, value in given.items()},
            "origin": Provide(asking.origin),
            "page": Provide(asking.listing),
            "at": Provide(asking.moment),
        },
        exception_handlers=problems.HANDLERS,
        before_request=asking.check_content_type,
        request_max_body_size=BODY_BYTES,
        openapi_config=described,
        logging_config=None,
    )


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens; SetupError in one sentence when that cannot be."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise SetupError(f"cannot listen at {host} port {port}: {(error.strerror or str(error)).lower()}") from error


class _Server(uvicorn.Server):
    """uvicorn, but signals stay with `boot.run`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _listen(app: ASGIApp, listening: socket.socket, feed: LiveFeed) -> None:
    """Serve until cancelled; then say goodbye to sockets, end requests under way, and pass the cancellation on."""
    config = uvicorn.Config(
        app,
        loop="none",
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=FRAME_BYTES,
        ws_ping_interval=20,
        ws_ping_timeout=20,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]), name="http")
    try:
        await asyncio.shield(serving)
    finally:
        feed.say_goodbye()
        server.should_exit = True
        await serving


async def _watch(bus: Bus, feed: LiveFeed, health: Health) -> None:
    """What readiness depends on, looked at four times a second."""
    while True:
        applied = feed.applied
        silent = "" if not feed.stale else "the catalog is silent" if applied else "the catalog has not been heard yet"
        health.set("nats", bus.is_connected, "" if bus.is_connected else "NATS is not connected")
        health.set("catalog", not silent, silent)
        verified = applied is not None and applied.verified
        told = applied.damage if applied else ""
        damage = feed.damage or told or ("" if verified else "the catalog has not verified the log yet")
        health.set("log", not damage, damage)
        await asyncio.sleep(0.25)


def _constant(value: object) -> Provide:
    def give() -> object:
        return value

    give.__annotations__["return"] = type(value)
    return Provide(give, sync_to_thread=False)
