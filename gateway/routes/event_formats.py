"""The three formats of the event log: a page of JSON, JSON lines to the end, or a continuing server-sent event stream.

In each, one page of the catalog is held in memory; the next is queried once the client has received it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Response

from contracts.errors import Behind, Unavailable
from contracts.frames import EventItem
from contracts.queries.log import ListEvents
from gateway.cursor import END_OF_COMMIT, LogPosition, Received, encode_cursor
from gateway.http.responses import next_link
from gateway.limits import HttpLimits
from gateway.live.encoding import EncodedEvent
from gateway.live.feed import LiveFeed
from gateway.live.subscribers import Subscriber
from gateway.past_events import PastEvent, PastEvents
from gateway.routes.shared import AnyRequest

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
SSE_RETRY_MILLISECONDS = 2_000


class Events(msgspec.Struct, frozen=True, kw_only=True):
    """Events, oldest first. `next` is the cursor of the next page (null on the last), `head` that of the log's end."""

    items: tuple[EventItem, ...]
    next: str | None
    head: str


async def page_response(
    request: AnyRequest, past_events: PastEvents, log_id: str, query: ListEvents, start: Received
) -> Response[Events]:
    found = await past_events.page(query)
    items = _items_after(start, found.items, log_id)
    next_cursor = encode_cursor(log_id, _and_all_to(start, LogPosition(int(found.next)))) if found.next else None
    if len(items) > query.limit:  # pages of the catalog hold whole commits
        items = items[: query.limit]
        next_cursor = items[-1].cursor
    page = Events(items=tuple(items), next=next_cursor, head=encode_cursor(log_id, Received(LogPosition(found.total))))
    return Response(page, headers={"Cache-Control": "no-cache", **next_link(request, next_cursor, "after")})


async def ndjson_lines(
    past_events: PastEvents, log_id: str, query: ListEvents, start: Received, limit: int | None
) -> AsyncGenerator[bytes, None]:
    """All events up to now. The first page is queried before the response starts, so an error is a problem document."""
    pages = past_events.pages(query)
    first = await anext(pages)

    async def lines() -> AsyncGenerator[bytes, None]:
        remaining = END_OF_COMMIT if limit is None else limit
        events: tuple[PastEvent, ...] | None = first
        while events is not None and remaining > 0:
            items = _items_after(start, events, log_id)[:remaining]
            remaining -= len(items)
            yield b"".join(msgspec.json.encode(item) + b"\n" for item in items)
            events = await anext(pages, None)

    return lines()


@dataclass(frozen=True)
class EventStream:
    """Past and future events, until the client disconnects, the gateway stops, or `limit` or `until` is reached."""

    past_events: PastEvents
    feed: LiveFeed
    limits: HttpLimits
    query: ListEvents

    def open(self, start: Received, limit: int | None) -> AsyncGenerator[bytes, None]:
        """The text of the stream. Unavailable: too many are open."""
        if self.feed.open_streams >= self.limits.event_streams:
            raise Unavailable(
                f"{self.limits.event_streams} streams of events are open already; try again later", service="gateway"
            )
        return self._count_open(self._messages(start, END_OF_COMMIT if limit is None else limit))

    async def _count_open(self, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        self.feed.open_streams += 1
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk
        finally:
            self.feed.open_streams -= 1

    async def _messages(self, start: Received, remaining: int) -> AsyncGenerator[bytes, None]:
        now, keepalive = asyncio.get_running_loop().time, self.limits.keepalive
        with self.feed.subscribe(start) as subscriber:
            yield b"retry: %d\n\n" % SSE_RETRY_MILLISECONDS
            keepalive_at = now() + keepalive
            while not subscriber.closed.done():
                subscriber.wake.clear()
                deque(subscriber.drain(), maxlen=0)  # progress and presence are sent over the WebSocket only
                async with aclosing(self._new_items(subscriber)) as new_items:
                    async for item in new_items:
                        yield b"id: %s\ndata: %s\n\n" % (item.cursor.encode(), msgspec.json.encode(item))
                        keepalive_at = now() + keepalive
                        remaining -= 1
                        if remaining == 0:
                            return
                seconds_left = self._seconds_left()
                if seconds_left <= 0:
                    return
                if now() >= keepalive_at:
                    yield f"id: {encode_cursor(self.feed.log_id, subscriber.received)}\n\n".encode()
                    keepalive_at = now() + keepalive
                await _wait_for_wake(subscriber, min(seconds_left, keepalive_at - now()))

    def _seconds_left(self) -> float:
        until = self.query.until
        return float("inf") if until is None else (until - datetime.now(UTC)).total_seconds()

    async def _new_items(self, subscriber: Subscriber) -> AsyncGenerator[EventItem, None]:
        """The matching events that the subscriber lacks, in the order of the log, while none is late; advances it.

        The archive may be slightly ahead of what the catalog shows: later events are left for the next call. While the
        catalog is unavailable nothing is returned and the subscriber stays, so no event is lost.
        """
        ring, start = self.feed.ring, subscriber.received
        newest, recent = ring.filled_to.complete, ring.after(start)
        if recent is None or any(_may_match(self.query, event) for event in recent):
            after = start.complete.query_after
            following = msgspec.structs.replace(self.query, after=after, min_seq=newest.sequence)
            try:
                async for events in self.past_events.pages(following):
                    for event in _after(start, events):
                        if event.position > newest:
                            subscriber.received = _and_all_to(start, newest)
                            return
                        yield _item(event, start, self.feed.log_id)
                        subscriber.received = _and_all_to(start, event.position)
            except (Unavailable, Behind):
                await asyncio.sleep(self.limits.catalog_retry)
                subscriber.wake.set()
                return
        subscriber.received = _and_all_to(start, newest)


def _may_match(query: ListEvents, event: EncodedEvent) -> bool:
    """Could the catalog return it? Only the catalog can check the actor and the time of recording."""
    pattern = query.type or event.type
    matches_type = event.type.startswith(pattern[:-1]) if pattern.endswith("*") else event.type == pattern
    return (
        matches_type
        and query.aggregate_kind in (None, event.aggregate[0])
        and query.aggregate_id in (None, event.aggregate[1])
    )


async def _wait_for_wake(subscriber: Subscriber, timeout: float) -> None:
    """Until there may be something new, or `timeout` seconds have passed."""
    waking = asyncio.ensure_future(subscriber.wake.wait())
    first_of: list[asyncio.Future[Any]] = [waking, subscriber.closed]
    try:
        await asyncio.wait(first_of, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waking.cancel()


def _and_all_to(start: Received, position: LogPosition) -> Received:
    """What somebody has who had `start` and received the rest up to a position."""
    return start.joined(Received(position))


def _after(start: Received, events: Iterable[PastEvent]) -> list[PastEvent]:
    return [event for event in events if not start.includes(event.aggregate, event.position)]


def _items_after(start: Received, events: Iterable[PastEvent], log_id: str) -> list[EventItem]:
    return [_item(event, start, log_id) for event in _after(start, events)]


def _item(event: PastEvent, start: Received, log_id: str) -> EventItem:
    fields = msgspec.structs.asdict(event.view)
    cursor = encode_cursor(log_id, _and_all_to(start, event.position), event.position)
    return EventItem(**fields, cursor=cursor, images=event.images)
