"""Builds the gateway: bus, live feed, routes, server."""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import uvicorn
from litestar import Litestar, Router
from litestar.di import Provide
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.types import ASGIApp
from litestar.types.internal_types import PathParameterDefinition

from contracts.errors import SetupError, Unavailable
from contracts.wire.blobs.store import Blobs, blobs_at
from contracts.wire.service.bus import Bus
from contracts.wire.service.connection import connect_service
from contracts.wire.service.health import Health
from contracts.wire.service.metrics import disk_source
from contracts.wire.service.metrics_endpoint import serve_metrics
from contracts.wire.service.supervision import read_supervision
from gateway.clients import CatalogClient
from gateway.exports.running import Exports
from gateway.http import problems, request_context
from gateway.http.connections import Connections
from gateway.http.cors import with_cors
from gateway.http.files import BlobFiles
from gateway.http.guard import Guard
from gateway.http.metrics import Metrics
from gateway.http.openapi import OpenApiDocument
from gateway.http.query_parameters import record_parameters
from gateway.http.request_ids import with_request_id
from gateway.http.security_headers import with_security_headers
from gateway.http.sessions import Sessions
from gateway.http.shutdown import with_shutdown_answer
from gateway.http.stall_timeout import with_stall_timeout
from gateway.http.tls import Certificate
from gateway.http.uploads import Staging
from gateway.http.wrong_keys import WrongKeys
from gateway.limits import CONNECTION_LIMITS, HTTP_LIMITS, ConnectionLimits, HttpLimits
from gateway.live.feed import LiveFeed
from gateway.live.image_ids import ImageIds
from gateway.past_events import PastEvents
from gateway.routes import (
    audit,
    bulk_edits,
    datasets,
    erasures,
    events,
    exports,
    images,
    imports,
    jobs,
    losses,
    pages,
    presets,
    problem_pages,
    repeats,
    results,
    reviews,
    shared,
    sockets,
    system,
    tagging,
    text_readings,
)
from gateway.settings import Settings, refuse_unsafe
from gateway.version import VERSION

MAX_BODY_BYTES = 2 << 20
"""Maximum size of a JSON body; a recipe or a thousand tags are far smaller."""
MAX_FRAME_BYTES = 1 << 20
DRAIN_SECONDS = 8
CHECKS = ("nats", "catalog", "log")
API_DESCRIPTION = (
    "From images to a LoRA. Each write returns `Loratory-Seq`; a read with it as `min_seq` sees the change. "
    "Errors are problem documents (RFC 9457) with a stable `code`. Lists are paged by `cursor` or the `Link` header. "
    "Every POST accepts an `Idempotency-Key`; every response has an `X-Request-ID`, yours or a new one. "
    "Events and progress are published at `/ws/progress`."
)
MODULES_BY_TAG = {
    "Datasets": (datasets, imports, erasures, bulk_edits, repeats, reviews, text_readings, exports),
    "Tagging": (tagging,),
    "Presets": (presets,),
    "Jobs": (jobs, results),
    "Events": (events,),
    "Audit": (audit, losses),
}
"""All handlers that a module defines are routes."""


def _operation_id(handler: HTTPRouteHandler, method: str, parts: list[str | PathParameterDefinition]) -> str:
    """The handler's name, with a prefix for the seed's path of the same resource and a suffix for HEAD."""
    seed = "seed_" if parts[:1] == ["api"] and parts[1:2] != ["v1"] else ""
    head = "_head" if method == "HEAD" else ""
    return f"{seed}{handler.handler_name}{head}"


OPENAPI_CONFIG = OpenAPIConfig(
    title="Loratory",
    version=VERSION,
    description=API_DESCRIPTION,
    use_handler_docstrings=True,
    operation_id_creator=_operation_id,
)


async def serve(settings: Settings) -> None:
    """Serve until cancelled. SetupError: it cannot listen there. Unavailable: the port is in use, or NATS not there."""
    refuse_unsafe(settings)
    certificate = None
    if settings.tls_cert is not None and settings.tls_key is not None:
        certificate = Certificate(settings.tls_cert, settings.tls_key)
    listening = bind(settings.host, settings.port)
    with contextlib.closing(listening):
        bus = await connect_service(settings, "gateway")
        try:
            staging = Staging(settings.staging)
            await asyncio.to_thread(staging.prepare)
            feed, health = LiveFeed(bus, ImageIds(CatalogClient(bus))), Health("gateway", CHECKS, pid=os.getpid())
            metrics = Metrics(bus, feed)
            metrics.add("disk", disk_source({"staging": settings.staging}))
            app = build_app(settings, bus, feed, blobs_at(settings.blobs), staging, health, metrics)
            serving = serve_metrics(metrics, settings.metrics, settings.health_file.parent)
            async with asyncio.TaskGroup() as tasks:
                background = [
                    tasks.create_task(feed.run(), name="feed"),
                    tasks.create_task(_update_health(bus, feed, health, settings.supervision), name="checks"),
                    tasks.create_task(health.run(settings.health_file), name="health"),
                    tasks.create_task(bus.watch(), name="bus"),
                    tasks.create_task(serving, name="metrics"),
                ]
                if certificate is not None:
                    background.append(tasks.create_task(certificate.keep_current(), name="certificate"))
                await serve_http(app, listening, feed, tls=certificate.context if certificate else None)
                for task in background:
                    task.cancel()
        finally:
            await bus.close()


def build_app(  # noqa: PLR0913, PLR0917 - the dependencies of all routes
    settings: Settings,
    bus: Bus,
    feed: LiveFeed,
    blobs: Blobs,
    staging: Staging,
    health: Health,
    metrics: Metrics,
    limits: HttpLimits = HTTP_LIMITS,
) -> ASGIApp:
    """The whole app: routes, their dependencies, and the middleware around them."""
    catalog = CatalogClient(bus)
    files = BlobFiles(blobs, catalog)
    dependencies: dict[str, object] = {
        "settings": settings,
        "catalog": catalog,
        "past_events": PastEvents(catalog, feed.images),
        "feed": feed,
        "files": files,
        "exports": Exports(catalog, files, limits.exports),
        "staging": staging,
        "service_health": health,
        "limits": limits,
        "metrics": metrics,
    }
    wrong_keys, sessions = WrongKeys(), Sessions(settings.sessions, settings.api_key)
    dependencies |= {"wrong_keys": wrong_keys, "sessions": sessions}
    dependencies["document"] = OpenApiDocument(lambda: _litestar(dependencies, OPENAPI_CONFIG))
    app = with_stall_timeout(_litestar(dependencies, None), limits.response_stall)
    guarded = with_cors(Guard(app, settings, wrong_keys, sessions), settings.origins)
    return with_request_id(with_security_headers(metrics.wrap(with_shutdown_answer(guarded))))


def _litestar(dependencies: dict[str, object], openapi_config: OpenAPIConfig | None) -> Litestar:
    app = Litestar(
        route_handlers=[
            *(Router("/api/v1", route_handlers=_routes(*found), tags=[tag]) for tag, found in MODULES_BY_TAG.items()),
            Router("/", route_handlers=_routes(images), tags=["Images"]),
            Router("/", route_handlers=_routes(system), tags=["System"]),
            *_routes(sockets, pages, problem_pages),
        ],
        dependencies={
            **{name: _constant(value) for name, value in dependencies.items()},
            "metadata": Provide(request_context.command_metadata),
            "paging": Provide(request_context.page_request),
            "as_of": Provide(request_context.as_of),
            "selected": Provide(shared.selected_images),
        },
        exception_handlers=problems.HANDLERS,
        before_request=request_context.check_request,
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=openapi_config,
        logging_config=None,
    )
    record_parameters(app)
    return app


def _routes(*modules: ModuleType) -> list[BaseRouteHandler]:
    return [value for module in modules for value in vars(module).values() if isinstance(value, BaseRouteHandler)]


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. SetupError: it is not an address of this machine. Unavailable: another program has it now."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        sentence = f"cannot listen at {host} port {port}: {(error.strerror or str(error)).lower()}"
        if error.errno == errno.EADDRINUSE:
            raise Unavailable(sentence) from error
        raise SetupError(sentence) from error


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: signals are handled by `boot.run`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve_http(
    app: ASGIApp,
    listening: socket.socket,
    feed: LiveFeed,
    limits: ConnectionLimits = CONNECTION_LIMITS,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serve until cancelled; then close WebSockets, let running requests finish, and re-raise the cancellation."""
    config = uvicorn.Config(
        app,
        loop="none",
        http=Connections(limits).protocol,  # type: ignore[arg-type]  # uvicorn only calls it
        ws="websockets-sansio",
        ws_max_size=MAX_FRAME_BYTES,
        ws_ping_interval=20,
        ws_ping_timeout=20,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        ssl_context_factory=None if tls is None else lambda *_: tls,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]), name="http")
    try:
        await asyncio.shield(serving)
    finally:
        feed.close_for_restart()
        server.should_exit = True
        await serving


async def _update_health(bus: Bus, feed: LiveFeed, health: Health, supervision: Path | None = None) -> None:
    """Updates the readiness checks four times a second. `supervision`: the file that says why a service is missing."""
    while True:
        applied, paused = feed.applied, read_supervision(supervision)
        no_nats = no_catalog = ""
        if feed.is_stale:
            silent = "the catalog does not respond" if applied else "the catalog has not responded yet"
            no_catalog = paused.sentence("catalog", time.time()) or silent
        if not bus.is_connected:
            no_nats = paused.sentence("nats", time.time()) or "NATS is not connected"
        health.set("nats", not no_nats, no_nats)
        health.set("catalog", not no_catalog, no_catalog)
        is_verified = applied is not None and applied.verified
        reported = applied.damage if applied else ""
        damage = reported or feed.reader.damage or ("" if is_verified else "the catalog has not verified the log yet")
        health.set("log", not damage, damage)
        await asyncio.sleep(0.25)


def _constant(value: object) -> Provide:
    def provide() -> object:
        return value

    provide.__annotations__["return"] = type(value)
    return Provide(provide, sync_to_thread=False)
