"""The door sign: what this is, whether it is well, what it counts."""

import functools
import hmac
from typing import Any

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.datastructures import Cookie
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody

from contracts import queries
from contracts.asyncapi import asyncapi
from contracts.wire.boot import Health as Checks
from gateway.http.asking import MinSeq
from gateway.http.guard import COOKIE, key_id, session_token
from gateway.http.metrics import Metrics
from gateway.http.openapi import Document
from gateway.http.problems import Unauthorized, problems
from gateway.live import SERVICES, LiveFeed
from gateway.owners import Catalog
from gateway.routes.bodies import (
    Alive,
    Check,
    Health,
    Ready,
    ServiceHealth,
    Session,
    SessionBody,
    Status,
    Version,
    Welcome,
)
from gateway.routes.jobs import count_jobs
from gateway.routes.pages import page_file
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


@get("/", responses={200: ResponseSpec(Welcome, description="What this is", generate_examples=False), **problems()})
async def welcome(request: Request[Any, Any, Any]) -> Response[Any]:
    """The page for browsers (`Accept: text/html`), for programs what this is and where things are."""
    if "text/html" in request.headers.get("accept", ""):
        answer: Response[Any] = await page_file(request, "index.html")
    else:
        body = Welcome(name="Loratory", version=VERSION, docs="/docs", openapi="/openapi.json", links=LINKS)
        answer = Response(body)
    answer.headers["Vary"] = "Accept"
    return answer


@get("/health", responses=problems())
async def health(feed: NamedDependency[LiveFeed], checks: NamedDependency[Checks]) -> Health:
    """All services at a glance; always 200. For machines there are /health/live and /health/ready."""
    missing = _missing(checks)
    services = [
        ServiceHealth(service=name, status="unhealthy" if name in missing else "healthy", detail=missing.get(name, ""))
        for name in ("nats", "catalog", "log")
    ]
    here = {presence.service for presence in feed.presences}
    for name in SERVICES:
        since = feed.without(name)
        detail = "" if since is None else f"none connected since {since:%Y-%m-%d %H:%M:%S} UTC"
        services.append(ServiceHealth(service=name, status="healthy" if name in here else "unhealthy", detail=detail))
    well = here.issuperset(SERVICES)
    return Health(
        status="unhealthy" if missing else "healthy" if well else "degraded", version=VERSION, services=tuple(services)
    )


@get("/health/live", responses=problems())
async def live() -> Alive:
    """The gateway's loop turns."""
    return Alive()


@get(
    "/health/ready",
    responses={
        **problems(),
        503: ResponseSpec(Ready, description="Something that is needed is missing", generate_examples=False),
    },
)
async def ready(checks: NamedDependency[Checks]) -> Response[Ready]:
    """Can requests be answered now? 503 with the reasons when not."""
    report = checks.report(0).checks
    body = Ready(ready=checks.ready, checks={name: Check(ok=one.ok, detail=one.detail) for name, one in report.items()})
    return Response(body, status_code=200 if checks.ready else 503, headers={"Cache-Control": "no-store"})


@get(
    "/metrics",
    media_type="text/plain; version=0.0.4",
    responses={200: ResponseSpec(str, description="Figures", media_type="text/plain"), **problems()},
)
async def metrics(figures: NamedDependency[Metrics]) -> bytes:
    """Figures in the text format of Prometheus."""
    return figures.text()


@get("/openapi.json", include_in_schema=False)
async def openapi(document: NamedDependency[Document]) -> Response[bytes]:
    """This API, described for programs (OpenAPI 3.1)."""
    return Response(await document.text(), media_type="application/json", headers={"Cache-Control": "no-cache"})


@get("/asyncapi.json", include_in_schema=False)
async def bus() -> Response[bytes]:
    """What the services say to each other over NATS, described for programs (AsyncAPI 3)."""
    return Response(_bus(), media_type="application/json", headers={"Cache-Control": "no-cache"})


@functools.cache
def _bus() -> bytes:
    return msgspec.json.encode(asyncapi(VERSION))


@get("/api/v1/version", responses=problems())
async def version() -> Version:
    """Which Loratory this is."""
    return Version(name="loratory", version=VERSION, api="v1")


@get(["/api/v1/status", "/api/status"], responses=problems())
async def status(catalog: NamedDependency[Catalog], feed: NamedDependency[LiveFeed], min_seq: MinSeq = 0) -> Status:
    """Who works here, how far the catalog is with the log, and how much there is of everything."""
    log = await catalog.ask(queries.GetLog(min_seq=min_seq))
    counts = {
        "datasets": (await catalog.ask(queries.ListDatasets(limit=1))).total,
        "images": (await catalog.ask(queries.ListImages(limit=1))).total,
        "tagging": (await catalog.ask(queries.ListTagging(limit=1))).total,
        **{f"jobs_{name}": total for name, total in (await count_jobs(catalog)).items()},
    }
    since = {name: at for name in SERVICES if (at := feed.without(name)) is not None}
    return Status(workers=tuple(feed.presences), log=log, counts=counts, since=since)


@post("/api/v1/session", status_code=200, responses=problems(415))
async def open_session(data: JSONBody[SessionBody], settings: NamedDependency[Settings]) -> Response[Session]:
    """Let this browser in: the key is exchanged for a cookie that scripts cannot read."""
    if not settings.api_key:
        return Response(Session(actor="user:local"))
    if not hmac.compare_digest(data.key.encode(), settings.api_key.encode()):
        raise Unauthorized("that is not the key")
    cookie = Cookie(key=COOKIE, value=session_token(settings.api_key), httponly=True, samesite="strict", path="/")
    return Response(Session(actor=f"key:{key_id(settings.api_key)}"), cookies=[cookie])


@delete("/api/v1/session", status_code=204, responses=problems())
async def close_session() -> Response[None]:
    """Forget this browser."""
    return Response(None, cookies=[Cookie(key=COOKIE, value="", max_age=0, httponly=True, samesite="strict", path="/")])


def _missing(checks: Checks) -> dict[str, str]:
    return {name: one.detail or "not ok" for name, one in checks.report(0).checks.items() if not one.ok}


ROUTES = [welcome, health, live, ready, metrics, openapi, bus, version, status, open_session, close_session]
