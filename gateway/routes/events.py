"""The log, read: who did what, when and why."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream

from contracts import queries
from contracts.errors import Unavailable
from contracts.ids import JobId
from contracts.queries import EventView, ListEvents
from contracts.subjects import Kind
from gateway.cursor import WHOLE, Place, cursor_of, place_of
from gateway.frames import places
from gateway.http.answers import link_to
from gateway.http.asking import MinSeq
from gateway.http.problems import problems
from gateway.live import LiveFeed
from gateway.owners import Catalog
from gateway.routes.bodies import EventItem, Events

NDJSON = "application/x-ndjson"
After = Annotated[
    str, QueryParameter(max_length=200, description="The cursor of the last event you have; 0: from the start.")
]
Limit = Annotated[
    int | None, QueryParameter(ge=1, le=500, description="So many events at most; as NDJSON all, where it is left out.")
]
KindFilter = Annotated[Kind | None, QueryParameter(description="Only of this kind of thing.")]
Thing = Annotated[str | None, QueryParameter(max_length=100, description="Only of the thing with this id.")]
Type = Annotated[
    str | None, QueryParameter(name="type", max_length=100, description="Only of this type, such as `job.succeeded`.")
]


@get(
    "/events",
    responses={200: ResponseSpec(Events, description="Events, oldest first", generate_examples=False), **problems(410)},
)
async def list_events(  # noqa: PLR0913, PLR0917 - what a log can be narrowed by
    request: Request[Any, Any, Any],
    catalog: NamedDependency[Catalog],
    feed: NamedDependency[LiveFeed],
    after: After = "",
    limit: Limit = None,
    kind: KindFilter = None,
    thing: Thing = None,
    type_: Type = None,
    min_seq: MinSeq = 0,
) -> Response[Any]:
    """Events after a cursor, oldest first: a page of JSON, or with `Accept: application/x-ndjson` one on each line.

    Private text (file names, captions) is sealed in events.
    """
    place = place_of(after, _log_id(feed))
    asked = ListEvents(after=place.ask_after, kind=kind, thing=thing, type=type_, limit=limit or 500, min_seq=min_seq)
    if NDJSON in request.headers.get("accept", ""):
        return await _lines(catalog, feed.log_id, asked, place, limit)
    return await _page(request, catalog, feed.log_id, asked, place)


@get("/jobs/{job:str}/events", responses=problems(404, 410))
async def list_job_events(  # noqa: PLR0913, PLR0917 - as above
    job: FromPath[str],
    request: Request[Any, Any, Any],
    catalog: NamedDependency[Catalog],
    feed: NamedDependency[LiveFeed],
    after: After = "",
    limit: Annotated[int, QueryParameter(ge=1, le=500, description="So many events at most.")] = 100,
    min_seq: MinSeq = 0,
) -> Response[Events]:
    """The story of one job."""
    view = await catalog.ask(queries.GetJob(job=JobId(job), min_seq=min_seq))
    place = place_of(after, _log_id(feed))
    asked = ListEvents(after=place.ask_after, kind="job", thing=view.id, limit=limit, min_seq=min_seq)
    return await _page(request, catalog, feed.log_id, asked, place)


def _log_id(feed: LiveFeed) -> str:
    if not feed.log_id:
        raise Unavailable("the gateway has not found the event log yet", service="nats")
    return feed.log_id


async def _page(
    request: Request[Any, Any, Any], catalog: Catalog, log_id: str, asked: ListEvents, place: Place
) -> Response[Events]:
    found = await catalog.ask(asked)
    items = _items(found.items, log_id, place)
    following = cursor_of(log_id, Place(int(found.next))) if found.next else None
    if len(items) > asked.limit:  # pages of the catalog hold whole commits
        items = items[: asked.limit]
        following = items[-1].cursor
    page = Events(items=tuple(items), next=following, head=cursor_of(log_id, Place(found.total)))
    return Response(page, headers={"Cache-Control": "no-cache", **link_to(request, following, "after")})


async def _lines(catalog: Catalog, log_id: str, asked: ListEvents, place: Place, limit: int | None) -> Response[Any]:
    """The first page is asked for before the answer begins, so that an error is still a problem document."""
    pages = catalog.events(asked)
    first = await anext(pages)

    async def lines() -> AsyncIterator[bytes]:
        left = WHOLE if limit is None else limit
        events: tuple[EventView, ...] | None = first
        while events is not None and left > 0:
            items = _items(events, log_id, place)[:left]
            left -= len(items)
            yield b"".join(msgspec.json.encode(item) + b"\n" for item in items)
            events = await anext(pages, None)

    return Stream(lines(), media_type=NDJSON, headers={"Cache-Control": "no-cache"})


def _items(events: tuple[EventView, ...], log_id: str, after: Place) -> list[EventItem]:
    """The events after the place, each with its cursor."""
    return [
        EventItem(**msgspec.structs.asdict(event), cursor=cursor_of(log_id, place))
        for event, place in zip(events, places(events), strict=True)
        if place > after
    ]


ROUTES = [list_events, list_job_events]
