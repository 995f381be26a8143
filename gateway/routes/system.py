"""Version, health, status, metrics, API documents, and browser sessions."""

import functools
import hmac
import time
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from litestar import Response, delete, get, post
from litestar.datastructures import Cookie
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta

from contracts.asyncapi import asyncapi
from contracts.losses import LossReport
from contracts.queries.datasets import ListDatasets, ListImages
from contracts.queries.log import GetLog, LogView
from contracts.queries.tagging import ListTagging
from contracts.telemetry import Presence
from contracts.wire.service.health import Health as HealthChecks
from contracts.wire.service.supervision import read_supervision
from gateway.http.guard import SESSION_COOKIE, client_address, key_id, session_cookie
from gateway.http.metrics import Metrics
from gateway.http.openapi import OpenApiDocument
from gateway.http.problems import problem_responses, response_spec
from gateway.http.request_context import MinSeq
from gateway.http.sessions import SESSION_SECONDS, Sessions
from gateway.http.wrong_keys import WrongKeys
from gateway.live.last_values import WORKER_SERVICES
from gateway.routes.jobs import count_jobs
from gateway.routes.pages import page_file
from gateway.routes.shared import AnyRequest, Body, Catalog, Feed, ServiceHealth
from gateway.settings import Settings
from gateway.version import VERSION

LINKS = {
    "datasets": "/api/v1/datasets",
    "images": "/api/v1/images",
    "presets": "/api/v1/presets",
    "jobs": "/api/v1/jobs",
    "tagging": "/api/v1/tagging/runs",
    "events": "/api/v1/events",
    "health": "/health",
    "progress": "/ws/progress",
}


class SessionBody(Body, frozen=True):
    key: Annotated[str, Meta(max_length=1000)]


class SystemStatus(msgspec.Struct, frozen=True, kw_only=True):
    workers: tuple[Presence, ...]
    log: LogView
    counts: dict[str, int]
    absent_since: dict[str, datetime]
    """For each service without a connected worker: since when."""


class HealthStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`healthy`: all services are running; `degraded`: no trainer, no tagger, or bytes are missing;
    `unhealthy`: requests will fail."""

    status: Literal["healthy", "degraded", "unhealthy"]
    version: str
    services: tuple[ServiceHealth, ...]


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True):
    ok: bool
    detail: str


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """`status` is `degraded` while requests are served but stored bytes or keys are missing; `losses` says which."""

    ready: bool
    status: Literal["ready", "degraded", "unready"]
    losses: LossReport
    checks: dict[str, HealthCheck]


class Alive(msgspec.Struct, frozen=True, kw_only=True):
    status: Literal["alive"] = "alive"


class Version(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    version: str
    api: str


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    version: str
    docs: str
    openapi: str
    links: dict[str, str]


class Session(msgspec.Struct, frozen=True, kw_only=True):
    actor: str


@get("/", responses=response_spec(200, Welcome, "Name, version and links") | problem_responses())
async def welcome(request: AnyRequest) -> Response[Any]:
    """The web page for browsers (`Accept: text/html`); name, version and links for programs."""
    if "text/html" in request.headers.get("accept", ""):
        response: Response[Any] = await page_file(request, "index.html")
    else:
        body = Welcome(name="Loratory", version=VERSION, docs="/docs", openapi="/openapi.json", links=LINKS)
        response = Response(body)
    response.headers["Vary"] = "Accept"
    return response


@get("/health", responses=problem_responses())
async def health(
    feed: Feed, service_health: NamedDependency[HealthChecks], settings: NamedDependency[Settings]
) -> HealthStatus:
    """The health of all services; always 200. For probes use /health/live and /health/ready."""
    missing = _failed_checks(service_health)
    services = [
        ServiceHealth(service=name, status="unhealthy" if name in missing else "healthy", detail=missing.get(name, ""))
        for name in ("nats", "catalog", "log")
    ]
    connected = {presence.service for presence in feed.presences}
    paused = read_supervision(settings.supervision)
    for name in WORKER_SERVICES:
        since = feed.absent_since(name)
        absent = f"none connected since {since:%Y-%m-%d %H:%M:%S} UTC" if since else ""
        detail = absent and (paused.sentence(name, time.time()) or absent)
        is_connected = name in connected
        services.append(ServiceHealth(service=name, status="healthy" if is_connected else "unhealthy", detail=detail))
    lost = feed.losses.describe()
    services.append(ServiceHealth(service="storage", status="unhealthy" if lost else "healthy", detail=lost))
    is_complete = connected.issuperset(WORKER_SERVICES) and not lost
    return HealthStatus(
        status="unhealthy" if missing else "healthy" if is_complete else "degraded",
        version=VERSION,
        services=tuple(services),
    )


@get("/health/live", responses=problem_responses())
async def live() -> Alive:
    """The gateway's event loop is running."""
    return Alive()


@get(
    "/health/ready",
    responses=problem_responses() | response_spec(503, Readiness, "A required service is not available"),
)
async def ready(feed: Feed, service_health: NamedDependency[HealthChecks]) -> Response[Readiness]:
    """Can requests be served now? 503 with the reasons if not; `degraded` (200) if stored bytes or keys are missing."""
    checks = {name: HealthCheck(ok=one.ok, detail=one.detail) for name, one in service_health.report(0).checks.items()}
    is_ready = service_health.ready
    status: Literal["ready", "degraded", "unready"] = "degraded" if feed.losses.counts else "ready"
    body = Readiness(ready=is_ready, status=status if is_ready else "unready", losses=feed.losses, checks=checks)
    return Response(body, status_code=200 if body.ready else 503, headers={"Cache-Control": "no-store"})


@get(
    "/metrics",
    media_type="text/plain; version=0.0.4",
    responses=response_spec(200, str, "Metrics", "text/plain") | problem_responses(),
)
async def metrics(metrics: NamedDependency[Metrics]) -> bytes:
    """Metrics in the text format of Prometheus."""
    return await metrics.text()


@get("/openapi.json", include_in_schema=False)
async def openapi(document: NamedDependency[OpenApiDocument]) -> Response[bytes]:
    """The OpenAPI 3.1 document of this API."""
    return Response(await document.text(), media_type="application/json", headers={"Cache-Control": "no-cache"})


@get("/asyncapi.json", include_in_schema=False)
async def asyncapi_document() -> Response[bytes]:
    """The AsyncAPI 3 document of the messages between services over NATS."""
    return Response(_asyncapi_json(), media_type="application/json", headers={"Cache-Control": "no-cache"})


@functools.cache
def _asyncapi_json() -> bytes:
    return msgspec.json.encode(asyncapi(VERSION))


@get("/api/v1/version", responses=problem_responses())
async def version() -> Version:
    """The version of Loratory."""
    return Version(name="loratory", version=VERSION, api="v1")


@get(["/api/v1/status", "/api/status"], responses=problem_responses())
async def status(catalog: Catalog, feed: Feed, min_seq: MinSeq = 0) -> SystemStatus:
    """Connected workers, the catalog's position in the log, and the number of objects of each kind."""
    log = await catalog.query(GetLog(min_seq=min_seq))
    counts = {
        "datasets": (await catalog.query(ListDatasets(limit=1))).total,
        "images": (await catalog.query(ListImages(limit=1))).total,
        "tagging": (await catalog.query(ListTagging(limit=1))).total,
        **{f"jobs_{name}": total for name, total in (await count_jobs(catalog)).items()},
    }
    absent_since = {name: at for name in WORKER_SERVICES if (at := feed.absent_since(name)) is not None}
    return SystemStatus(workers=tuple(feed.presences), log=log, counts=counts, absent_since=absent_since)


@post("/api/v1/session", status_code=200, responses=problem_responses(415))
async def open_session(
    request: AnyRequest,
    data: JSONBody[SessionBody],
    settings: NamedDependency[Settings],
    wrong_keys: NamedDependency[WrongKeys],
    sessions: NamedDependency[Sessions],
) -> Response[Session]:
    """Exchange the API key for a session cookie that scripts cannot read. It is valid for 30 days, or until DELETE."""
    if not settings.api_key:
        return Response(Session(actor="user:local"))
    if not hmac.compare_digest(data.key.encode(), settings.api_key.encode()):
        await wrong_keys.refuse(client_address(request.scope))
    cookie = _session_cookie(sessions.open(), settings, max_age=SESSION_SECONDS)
    return Response(Session(actor=f"key:{key_id(settings.api_key)}"), cookies=[cookie])


@delete("/api/v1/session", status_code=204, responses=problem_responses())
async def close_session(
    request: AnyRequest, settings: NamedDependency[Settings], sessions: NamedDependency[Sessions]
) -> Response[None]:
    """End the session: its cookie is worth nothing from now on, wherever there is a copy of it."""
    sessions.close(session_cookie(request.headers.get("cookie", "")))
    return Response(None, cookies=[_session_cookie("", settings, max_age=0)])


def _session_cookie(value: str, settings: Settings, max_age: int) -> Cookie:
    return Cookie(
        key=SESSION_COOKIE,
        value=value,
        max_age=max_age,
        httponly=True,
        samesite="strict",
        secure=settings.tls_cert is not None,
        path="/",
    )


def _failed_checks(service_health: HealthChecks) -> dict[str, str]:
    return {name: one.detail or "not ok" for name, one in service_health.report(0).checks.items() if not one.ok}
