"""Events as a client wants them: a page of JSON, lines of JSON to the end, or server-sent events that go on.

Of each, one page of the catalog is in memory; the next is asked for when the client has taken it.
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
from gateway.cursor import WHOLE, Place, cursor_of
from gateway.frames import FactFrame, places
from gateway.http.answers import link_to
from gateway.listener import Listener
from gateway.live import LiveFeed
from gateway.owners import Catalog
from gateway.routes.bodies import EventItem, Events

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
RETRY_MILLISECONDS = 2_000
QUIET_SECONDS = 15.0
"""So long a stream may be silent; then it says how far it has come."""
AGAIN_SECONDS = 1.0
MOST_STREAMS = 200
"""So many streams one gateway keeps open; each may hold a page in memory."""


async def page_of(
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


async def lines_of(
    catalog: Catalog, log_id: str, asked: ListEvents, place: Place, limit: int | None
) -> AsyncGenerator[bytes, None]:
    """All there is now. The first page is asked for before the answer begins: an error is still a problem document."""
    pages = catalog.events(asked)
    first = await anext(pages)

    async def lines() -> AsyncGenerator[bytes, None]:
        left = WHOLE if limit is None else limit
        events: tuple[EventView, ...] | None = first
        while events is not None and left > 0:
            items = _items(events, log_id, place)[:left]
            left -= len(items)
            yield b"".join(msgspec.json.encode(item) + b"\n" for item in items)
            events = await anext(pages, None)

    return lines()


def stream_of(
    catalog: Catalog, feed: LiveFeed, asked: ListEvents, place: Place, limit: int | None
) -> AsyncGenerator[bytes, None]:
    """What there is, and what is to come, until the client leaves, the gateway goes, or `limit` or `until` is met."""
    if feed.streams >= MOST_STREAMS:
        raise Unavailable(f"{MOST_STREAMS} streams of events are open already; try again later", service="gateway")
    return _counted(feed, _told(catalog, feed, asked, place, limit))


async def _counted(feed: LiveFeed, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    feed.streams += 1
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece
    finally:
        feed.streams -= 1


async def _told(
    catalog: Catalog, feed: LiveFeed, asked: ListEvents, place: Place, limit: int | None
) -> AsyncGenerator[bytes, None]:
    left = WHOLE if limit is None else limit
    now = asyncio.get_running_loop().time
    with feed.join(place) as listener:
        yield b"retry: %d\n\n" % RETRY_MILLISECONDS
        quiet_at = now() + QUIET_SECONDS
        while not listener.ended.done():
            listener.wake.clear()
            deque(listener.take(), maxlen=0)  # progress and presence are told by the WebSocket alone
            async with aclosing(_news(catalog, feed, asked, listener)) as news:
                async for item in news:
                    yield b"id: %s\ndata: %s\n\n" % (item.cursor.encode(), msgspec.json.encode(item))
                    quiet_at = now() + QUIET_SECONDS
                    left -= 1
                    if left == 0:
                        return
            still = QUIET_SECONDS if asked.until is None else (asked.until - datetime.now(UTC)).total_seconds()
            if still <= 0:
                return
            if now() >= quiet_at:
                yield f"id: {cursor_of(feed.log_id, listener.place)}\n\n".encode()
                quiet_at = now() + QUIET_SECONDS
            await _woken(listener, min(still, quiet_at - now()))


async def _news(
    catalog: Catalog, feed: LiveFeed, asked: ListEvents, listener: Listener
) -> AsyncGenerator[EventItem, None]:
    """What is wanted of what lies between the listener's place and now; the listener moves along.

    The archive may be a moment ahead of what the catalog shows: what is beyond now comes next time. While the catalog
    is away there is none, and the place stays: nothing is lost.
    """
    now, recent = feed.now, feed.since(listener.place)
    if recent is None or any(_may_fit(asked, fact) for fact in recent):
        since = msgspec.structs.replace(asked, after=listener.place.ask_after, min_seq=now.sequence)
        try:
            async for events in catalog.events(since):
                for place, item in _placed(events, feed.log_id, listener.place):
                    if place > now:
                        listener.place = max(listener.place, now)
                        return
                    yield item
                    listener.place = place
        except (Unavailable, Behind):
            await asyncio.sleep(AGAIN_SECONDS)
            listener.wake.set()
            return
    listener.place = max(listener.place, now)


def _may_fit(asked: ListEvents, fact: FactFrame) -> bool:
    """Could the catalog find it? It alone knows who did it and when it was recorded."""
    pattern = asked.type or fact.type
    fits = fact.type.startswith(pattern[:-1]) if pattern.endswith("*") else fact.type == pattern
    return fits and asked.kind in (None, fact.kind) and asked.thing in (None, fact.thing)


async def _woken(listener: Listener, within: float) -> None:
    """Until something may have happened, or so many seconds have passed."""
    waking = asyncio.ensure_future(listener.wake.wait())
    either: list[asyncio.Future[Any]] = [waking, listener.ended]
    try:
        await asyncio.wait(either, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waking.cancel()


def _items(events: tuple[EventView, ...], log_id: str, after: Place) -> list[EventItem]:
    return [item for _, item in _placed(events, log_id, after)]


def _placed(events: tuple[EventView, ...], log_id: str, after: Place) -> list[tuple[Place, EventItem]]:
    """The events after the place, each with its own."""
    return [
        (place, EventItem(**msgspec.structs.asdict(event), cursor=cursor_of(log_id, place)))
        for event, place in zip(events, places(events), strict=True)
        if place > after
    ]
