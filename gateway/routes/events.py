"""The log, read: who did what, when and why."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency, Provide
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, HeaderParameter, QueryParameter

from contracts import queries
from contracts.errors import Invalid, Unavailable
from contracts.ids import JobId
from contracts.queries import ListEvents
from contracts.subjects import Kind
from gateway.cursor import place_of
from gateway.http.asking import MinSeq
from gateway.http.patience import streamed
from gateway.http.problems import problems
from gateway.live import LiveFeed
from gateway.owners import Catalog
from gateway.routes.bodies import Events
from gateway.routes.event_formats import NDJSON, SSE, lines_of, page_of, stream_of

After = Annotated[
    str, QueryParameter(max_length=200, description="The cursor of the last event you have; 0: from the start.")
]
LastEventId = Annotated[
    str | None,
    HeaderParameter(name="Last-Event-ID", max_length=200, description="As `after`; browsers send it by themselves."),
]
Limit = Annotated[
    int | None, QueryParameter(ge=1, le=500, description="So many events at most; lines and streams: all without it.")
]
KindFilter = Annotated[Kind | None, QueryParameter(description="Only of this kind of thing.")]
Thing = Annotated[str | None, QueryParameter(max_length=100, description="Only of the thing with this id.")]
Type = Annotated[
    str | None, QueryParameter(name="type", max_length=100, description="Only of this type, or of a family: `job.*`.")
]
Actor = Annotated[
    str | None, QueryParameter(max_length=200, description="Only what this actor did, or such as `svc:trainer/*`.")
]
From = Annotated[
    datetime | None,
    QueryParameter(name="from", description="Only what the log recorded at this time or later (RFC 3339)."),
]
Until = Annotated[
    datetime | None, QueryParameter(description="Only what the log recorded before this time; a stream ends then.")
]


async def event_filter(  # noqa: PLR0913, PLR0917 - what a log can be narrowed by
    kind: KindFilter = None,
    thing: Thing = None,
    type_: Type = None,
    actor: Actor = None,
    since: From = None,
    until: Until = None,
    min_seq: MinSeq = 0,
) -> ListEvents:
    """Which events are asked for, wherever they begin."""
    for name, time in (("from", since), ("until", until)):
        if time is not None and time.tzinfo is None:
            raise Invalid(f"{name} needs an offset or Z, as in 2026-11-21T12:00:00Z")
    return ListEvents(
        kind=kind, thing=thing, type=type_, actor=actor, since=since, until=until, limit=500, min_seq=min_seq
    )


@get(
    "/events",
    dependencies={"wanted": Provide(event_filter)},
    responses={200: ResponseSpec(Events, description="Events, oldest first", generate_examples=False), **problems(410)},
)
async def list_events(  # noqa: PLR0913, PLR0917 - where to begin, how much, and in which form
    request: Request[Any, Any, Any],
    catalog: NamedDependency[Catalog],
    feed: NamedDependency[LiveFeed],
    wanted: NamedDependency[ListEvents],
    after: After = "",
    limit: Limit = None,
    last_event_id: LastEventId = None,
) -> Response[Any]:
    """Events after a cursor, oldest first, in the form that `Accept` names.

    `application/json`: a page. `application/x-ndjson`: one on each line, to the end of the log or `limit`.
    `text/event-stream`: the same objects as server-sent events (WHATWG HTML, 9.2), and on with what is to come; `id` is
    the cursor, so that a client that comes again with `Last-Event-ID` misses and repeats nothing. A search is bounded:
    a page may have few events, even none, and yet a `next`. Private text (file names, captions) is sealed in events.
    """
    place = place_of(last_event_id or after, _log_id(feed))
    asked = msgspec.structs.replace(wanted, after=place.ask_after, limit=limit or 500)
    accepted = request.headers.get("accept", "")
    if SSE in accepted:
        return streamed(request, stream_of(catalog, feed, asked, place, limit), SSE)
    if NDJSON in accepted:
        return streamed(request, await lines_of(catalog, feed.log_id, asked, place, limit), NDJSON)
    return await page_of(request, catalog, feed.log_id, asked, place)


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
    return await page_of(request, catalog, feed.log_id, asked, place)


def _log_id(feed: LiveFeed) -> str:
    if not feed.log_id:
        raise Unavailable("the gateway has not found the event log yet", service="nats")
    return feed.log_id


ROUTES = [list_events, list_job_events]
