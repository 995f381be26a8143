"""`/ws/progress`: events, progress and presence over a WebSocket, from any position in the log.

A socket has a position in the log. It reads the events after it from the feed's ring buffer, or from the catalog where
they have left the buffer; so a client that reconnects with `after=` its last `seq` misses and repeats nothing.
"""

import asyncio
from contextlib import suppress
from typing import Any

import msgspec
from litestar import WebSocket, websocket
from litestar.di import NamedDependency
from litestar.exceptions import WebSocketDisconnect
from litestar.params import FromPath

from contracts.errors import Gone, Invalid, LoratoryError, NotFound, Unavailable
from contracts.ids import JobId
from contracts.queries import GetJob, ListEvents
from contracts.subjects import AggregateKind
from contracts.validation import describe_decode_error
from gateway import frames
from gateway.clients import CatalogClient
from gateway.cursor import decode_cursor, encode_cursor
from gateway.live import LiveFeed
from gateway.subscriber import CLOSE_LOG_GONE, CLOSE_RESTARTING, Subscriber

CLOSE_BAD_FRAME, CLOSE_UNKNOWN_JOB, CLOSE_TRY_LATER = 4400, 4404, 1013
CLOSE_TIMEOUT_SECONDS = 2.0

Socket = WebSocket[Any, Any, Any]


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """Answered by `pong`."""


class GetStats(msgspec.Struct, frozen=True, tag="get_stats"):
    """Answered by `connection_stats`."""


_request_decoder = msgspec.json.Decoder(Ping | GetStats)


@websocket("/ws/progress")
async def progress(socket: Socket, feed: NamedDependency[LiveFeed], catalog: NamedDependency[CatalogClient]) -> None:
    """All events, progress and presence."""
    await _serve_socket(socket, feed, catalog, None)


@websocket("/ws/progress/{job:str}")
async def job_progress(
    socket: Socket, job: FromPath[str], feed: NamedDependency[LiveFeed], catalog: NamedDependency[CatalogClient]
) -> None:
    """Events and progress of one job."""
    await _serve_socket(socket, feed, catalog, JobId(job))


async def _serve_socket(socket: Socket, feed: LiveFeed, catalog: CatalogClient, job: JobId | None) -> None:
    await socket.accept()
    try:
        if job is not None:
            await catalog.query(GetJob(job=job))
        if not feed.log_id:
            raise Unavailable("the gateway has not found the event log yet", service="nats")
        after = socket.query_params.get("after")
        position = None if after is None else decode_cursor(after, feed.log_id)
        with feed.subscribe(position, job) as subscriber:
            code, reason = await _run_until_closed(socket, feed, catalog, subscriber)
            if code == CLOSE_RESTARTING:
                cursor = encode_cursor(feed.log_id, subscriber.position)
                with suppress(TimeoutError):
                    async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                        await socket.send_text(frames.encode_frame("bye", {"reason": reason, "resume_after": cursor}))
    except (WebSocketDisconnect, OSError):  # the client disconnected; while sending, uvicorn raises an OSError for it
        return
    except LoratoryError as error:
        code, reason = _close_code(error), error.detail
    with suppress(TimeoutError, WebSocketDisconnect, RuntimeError, OSError):  # it may have disconnected meanwhile
        async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
            await socket.close(code=code, reason=reason[:120])


def _close_code(error: LoratoryError) -> int:
    match error:
        case NotFound():
            return CLOSE_UNKNOWN_JOB
        case Gone():
            return CLOSE_LOG_GONE
        case Invalid():
            return CLOSE_BAD_FRAME
        case _:
            return CLOSE_TRY_LATER


async def _run_until_closed(
    socket: Socket, feed: LiveFeed, catalog: CatalogClient, subscriber: Subscriber
) -> tuple[int, str]:
    """Send and receive until one of the two ends or the subscriber is closed; both have stopped when it returns."""
    sender = asyncio.create_task(_send_events(socket, feed, catalog, subscriber), name="send")
    receiver = asyncio.create_task(_receive_requests(socket, feed, subscriber), name="receive")
    first_of: list[asyncio.Future[Any]] = [sender, receiver, subscriber.closed]
    try:
        await asyncio.wait(first_of, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sender, receiver):
            task.cancel()
        results = await asyncio.gather(sender, receiver, return_exceptions=True)
    if subscriber.closed.done():
        return subscriber.closed.result()
    raise next(error for error in results if isinstance(error, Exception))


async def _send_events(socket: Socket, feed: LiveFeed, catalog: CatalogClient, subscriber: Subscriber) -> None:
    greeting = {"cursor": encode_cursor(feed.log_id, subscriber.position), "log_id": feed.log_id}
    await _send(socket, subscriber, frames.encode_frame("connection_established", greeting))
    caught_up = False
    while True:
        subscriber.wake.clear()
        while (events := feed.events_after(subscriber.position)) is None:
            await _replay(socket, feed, catalog, subscriber)
        for event in events:
            if subscriber.accepts(event):
                await _send(socket, subscriber, event.text)
            subscriber.position = event.position
        if not caught_up:
            caught_up = True
            cursor = encode_cursor(feed.log_id, subscriber.position)
            await _send(socket, subscriber, frames.encode_frame("caught_up", {"cursor": cursor}))
        for text in subscriber.drain():
            await _send(socket, subscriber, text)
        await subscriber.wake.wait()


async def _replay(socket: Socket, feed: LiveFeed, catalog: CatalogClient, subscriber: Subscriber) -> None:
    """Send the events that have left the ring buffer from the catalog, up to where the buffer begins."""
    start, end = subscriber.position, feed.oldest
    kind: AggregateKind | None = None if subscriber.job_id is None else "job"
    query = ListEvents(
        after=start.query_after, aggregate_kind=kind, aggregate_id=subscriber.job_id, limit=500, min_seq=end.sequence
    )
    async for events in catalog.events(query):
        for event, position in zip(events, frames.positions_after(events), strict=True):
            if position > end:
                break
            if position > start:
                await _send(socket, subscriber, frames.event_frame(event, position, feed.log_id).text)
                subscriber.position = position
        if events and events[-1].sequence > end.sequence:
            break
    subscriber.position = max(subscriber.position, end)


async def _send(socket: Socket, subscriber: Subscriber, text: str) -> None:
    async with subscriber.sending():
        await socket.send_text(text)


async def _receive_requests(socket: Socket, feed: LiveFeed, subscriber: Subscriber) -> None:
    while True:
        text = await socket.receive_text()
        try:
            request = _request_decoder.decode(text)
        except msgspec.DecodeError as error:
            raise Invalid(f"invalid frame: {describe_decode_error(error, whole='it')}") from error
        match request:
            case Ping():
                subscriber.enqueue(frames.encode_frame("pong", {}))
            case GetStats():
                cursor = encode_cursor(feed.log_id, subscriber.position)
                stats = {"active_connections": feed.subscriber_count, "cursor": cursor}
                subscriber.enqueue(frames.encode_frame("connection_stats", stats))


ROUTES = [progress, job_progress]
