"""The three formats of the event log: a page of JSON, JSON lines to the end, or a continuing server-sent event stream.

In each, one page of the catalog is held in memory; the next is queried once the client has received it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Request, Response

from contracts.errors import Behind, Unavailable
from contracts.queries import EventView, ListEvents
from gateway.clients import CatalogClient
from gateway.cursor import END_OF_COMMIT, LogPosition, encode_cursor
from gateway.frames import EventFrame, positions_after
from gateway.http.responses import next_link
from gateway.live import LiveFeed
from gateway.routes.bodies import EventItem, Events
from gateway.subscriber import Subscriber

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
SSE_RETRY_MILLISECONDS = 2_000
KEEPALIVE_SECONDS = 15.0
"""Maximum time without a message on a stream; then its current cursor is sent."""
CATALOG_RETRY_SECONDS = 1.0
MAX_STREAMS = 200
"""Maximum open streams per gateway; each may hold a page in memory."""


async def page_response(
    request: Request[Any, Any, Any], catalog: CatalogClient, log_id: str, query: ListEvents, start: LogPosition
) -> Response[Events]:
    found = await catalog.query(query)
    items = _items_after(start, found.items, log_id)
    next_cursor = encode_cursor(log_id, LogPosition(int(found.next))) if found.next else None
    if len(items) > query.limit:  # pages of the catalog hold whole commits
        items = items[: query.limit]
        next_cursor = items[-1].cursor
    page = Events(items=tuple(items), next=next_cursor, head=encode_cursor(log_id, LogPosition(found.total)))
    return Response(page, headers={"Cache-Control": "no-cache", **next_link(request, next_cursor, "after")})


async def ndjson_lines(
    catalog: CatalogClient, log_id: str, query: ListEvents, start: LogPosition, limit: int | None
) -> AsyncGenerator[bytes, None]:
    """All events up to now. The first page is queried before the response starts, so an error is a problem document."""
    pages = catalog.events(query)
    first = await anext(pages)

    async def lines() -> AsyncGenerator[bytes, None]:
        remaining = END_OF_COMMIT if limit is None else limit
        events: tuple[EventView, ...] | None = first
        while events is not None and remaining > 0:
            items = _items_after(start, events, log_id)[:remaining]
            remaining -= len(items)
            yield b"".join(msgspec.json.encode(item) + b"\n" for item in items)
            events = await anext(pages, None)

    return lines()


def sse_stream(
    catalog: CatalogClient, feed: LiveFeed, query: ListEvents, start: LogPosition, limit: int | None
) -> AsyncGenerator[bytes, None]:
    """Past and future events, until the client disconnects, the gateway stops, or `limit` or `until` is reached."""
    if feed.open_streams >= MAX_STREAMS:
        raise Unavailable(f"{MAX_STREAMS} streams of events are open already; try again later", service="gateway")
    return _count_open(feed, _sse_messages(catalog, feed, query, start, limit))


async def _count_open(feed: LiveFeed, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    feed.open_streams += 1
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk
    finally:
        feed.open_streams -= 1


async def _sse_messages(
    catalog: CatalogClient, feed: LiveFeed, query: ListEvents, start: LogPosition, limit: int | None
) -> AsyncGenerator[bytes, None]:
    remaining = END_OF_COMMIT if limit is None else limit
    now = asyncio.get_running_loop().time
    with feed.subscribe(start) as subscriber:
        yield b"retry: %d\n\n" % SSE_RETRY_MILLISECONDS
        keepalive_at = now() + KEEPALIVE_SECONDS
        while not subscriber.closed.done():
            subscriber.wake.clear()
            deque(subscriber.drain(), maxlen=0)  # progress and presence are sent over the WebSocket only
            async with aclosing(_new_items(catalog, feed, query, subscriber)) as new_items:
                async for item in new_items:
                    yield b"id: %s\ndata: %s\n\n" % (item.cursor.encode(), msgspec.json.encode(item))
                    keepalive_at = now() + KEEPALIVE_SECONDS
                    remaining -= 1
                    if remaining == 0:
                        return
            seconds_left = (
                KEEPALIVE_SECONDS if query.until is None else (query.until - datetime.now(UTC)).total_seconds()
            )
            if seconds_left <= 0:
                return
            if now() >= keepalive_at:
                yield f"id: {encode_cursor(feed.log_id, subscriber.position)}\n\n".encode()
                keepalive_at = now() + KEEPALIVE_SECONDS
            await _wait_for_wake(subscriber, min(seconds_left, keepalive_at - now()))


async def _new_items(
    catalog: CatalogClient, feed: LiveFeed, query: ListEvents, subscriber: Subscriber
) -> AsyncGenerator[EventItem, None]:
    """The matching events between the subscriber's position and the newest released one; advances the subscriber.

    The archive may be slightly ahead of what the catalog shows: later events are left for the next call. While the
    catalog is unavailable nothing is returned and the position stays, so no event is lost.
    """
    newest, recent = feed.newest, feed.events_after(subscriber.position)
    if recent is None or any(_may_match(query, event) for event in recent):
        following = msgspec.structs.replace(query, after=subscriber.position.query_after, min_seq=newest.sequence)
        try:
            async for events in catalog.events(following):
                for position, item in _positioned_items(subscriber.position, events, feed.log_id):
                    if position > newest:
                        subscriber.position = max(subscriber.position, newest)
                        return
                    yield item
                    subscriber.position = position
        except (Unavailable, Behind):
            await asyncio.sleep(CATALOG_RETRY_SECONDS)
            subscriber.wake.set()
            return
    subscriber.position = max(subscriber.position, newest)


def _may_match(query: ListEvents, event: EventFrame) -> bool:
    """Could the catalog return it? Only the catalog can check the actor and the time of recording."""
    pattern = query.type or event.type
    matches_type = event.type.startswith(pattern[:-1]) if pattern.endswith("*") else event.type == pattern
    return (
        matches_type
        and query.aggregate_kind in (None, event.aggregate_kind)
        and query.aggregate_id in (None, event.aggregate_id)
    )


async def _wait_for_wake(subscriber: Subscriber, timeout: float) -> None:
    """Until there may be something new, or `timeout` seconds have passed."""
    waking = asyncio.ensure_future(subscriber.wake.wait())
    first_of: list[asyncio.Future[Any]] = [waking, subscriber.closed]
    try:
        await asyncio.wait(first_of, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waking.cancel()


def _items_after(start: LogPosition, events: tuple[EventView, ...], log_id: str) -> list[EventItem]:
    return [item for _, item in _positioned_items(start, events, log_id)]


def _positioned_items(
    start: LogPosition, events: tuple[EventView, ...], log_id: str
) -> list[tuple[LogPosition, EventItem]]:
    """The events after `start`, each with the position after it."""
    return [
        (position, EventItem(**msgspec.structs.asdict(event), cursor=encode_cursor(log_id, position)))
        for event, position in zip(events, positions_after(events), strict=True)
        if position > start
    ]
