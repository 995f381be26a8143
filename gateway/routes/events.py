"""The event log: who did what, when and why."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, HeaderParameter, QueryParameter

from contracts.aggregates import REGISTRY
from contracts.ids import JobId
from contracts.queries.jobs import GetJob
from contracts.queries.log import ListEvents
from gateway.http.problems import problem_responses, response_spec
from gateway.http.request_context import MinSeq, require_offset
from gateway.http.stall_timeout import stream_response
from gateway.past_events import PastEvents
from gateway.routes.event_formats import NDJSON, SSE, Events, EventStream, ndjson_lines, page_response
from gateway.routes.shared import AnyRequest, Catalog, Feed, Limits

After = Annotated[
    str, QueryParameter(max_length=200, description="The cursor of the last event received; 0: from the start.")
]
LastEventId = Annotated[
    str | None,
    HeaderParameter(name="Last-Event-ID", max_length=200, description="Like `after`; browsers send it automatically."),
]
Limit = Annotated[
    int | None,
    QueryParameter(ge=1, le=500, description="Maximum number of events; lines and streams have no default limit."),
]
if TYPE_CHECKING:
    KindName: TypeAlias = str
else:
    KindName = Literal[tuple(REGISTRY.by_name)]
AggregateKindFilter = Annotated[KindName | None, QueryParameter(description="Only events of this aggregate kind.")]
AggregateIdFilter = Annotated[
    str | None, QueryParameter(max_length=100, description="Only events of the aggregate with this id.")
]
TypeFilter = Annotated[
    str | None,
    QueryParameter(name="type", max_length=100, description="Only events of this type, or of a prefix: `job.*`."),
]
ActorFilter = Annotated[
    str | None,
    QueryParameter(max_length=200, description="Only events by this actor, or by a prefix: `svc:trainer/*`."),
]
From = Annotated[
    datetime | None,
    QueryParameter(name="from", description="Only events recorded at this time or later (RFC 3339)."),
]
Until = Annotated[
    datetime | None, QueryParameter(description="Only events recorded before this time; a stream ends then.")
]


async def event_query(  # noqa: PLR0913, PLR0917 - one parameter per filter
    aggregate_kind: AggregateKindFilter = None,
    aggregate_id: AggregateIdFilter = None,
    type_: TypeFilter = None,
    actor: ActorFilter = None,
    since: From = None,
    until: Until = None,
    min_seq: MinSeq = 0,
) -> ListEvents:
    """The filters of a request, without the position from which to read."""
    require_offset("from", since)
    require_offset("until", until)
    return ListEvents(
        aggregate_kind=aggregate_kind,
        aggregate_id=aggregate_id,
        type=type_,
        actor=actor,
        since=since,
        until=until,
        limit=500,
        min_seq=min_seq,
    )


@get(
    "/events",
    dependencies={"filters": Provide(event_query)},
    responses=response_spec(200, Events, "Events, oldest first") | problem_responses(410),
)
async def list_events(  # noqa: PLR0913, PLR0917 - filters, position and limit
    request: AnyRequest,
    past_events: NamedDependency[PastEvents],
    feed: Feed,
    limits: Limits,
    filters: NamedDependency[ListEvents],
    after: After = "",
    limit: Limit = None,
    last_event_id: LastEventId = None,
) -> Response[Any]:
    """Events after a cursor, oldest first, in the format of the `Accept` header.

    `application/json`: a page. `application/x-ndjson`: one event per line, to the end of the log or `limit`.
    `text/event-stream`: the same objects as server-sent events (WHATWG HTML, 9.2), continuing with new events; `id` is
    the cursor, so a client that reconnects with `Last-Event-ID` misses and repeats nothing. Private text (file names,
    captions) stays sealed. Each request searches a limited part of the log, so a page can be empty although more
    follow: continue while there is a `next`.
    """
    start = feed.received(last_event_id or after)
    query = msgspec.structs.replace(filters, after=start.complete.query_after, limit=limit or 500)
    accepted = request.headers.get("accept", "")
    if SSE in accepted:
        stream = EventStream(past_events, feed, limits, query)
        return stream_response(request, stream.open(start, limit), SSE)
    if NDJSON in accepted:
        return stream_response(request, await ndjson_lines(past_events, feed.log_id, query, start, limit), NDJSON)
    return await page_response(request, past_events, feed.log_id, query, start)


@get("/jobs/{job:str}/events", responses=problem_responses(404, 410))
async def list_job_events(  # noqa: PLR0913, PLR0917 - position and limit
    job: FromPath[JobId],
    request: AnyRequest,
    catalog: Catalog,
    past_events: NamedDependency[PastEvents],
    feed: Feed,
    after: After = "",
    limit: Annotated[int, QueryParameter(ge=1, le=500, description="Maximum number of events.")] = 100,
    min_seq: MinSeq = 0,
) -> Response[Events]:
    """The events of one job, oldest first."""
    view = await catalog.query(GetJob(job=job, min_seq=min_seq))
    start = feed.received(after)
    query = ListEvents(
        after=start.complete.query_after, aggregate_kind="job", aggregate_id=view.id, limit=limit, min_seq=min_seq
    )
    return await page_response(request, past_events, feed.log_id, query, start)
