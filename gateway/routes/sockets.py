"""`/ws/progress`: the story of the workshop as it happens, from any place in it.

A socket has a place in the log. It takes from the feed's ring what lies after that place, or from the catalog what has
left the ring, and moves on; so a client that comes again with `after=` its last `seq` misses and repeats nothing.
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
from contracts.subjects import Kind
from gateway import frames
from gateway.cursor import cursor_of, place_of
from gateway.listener import GOING, LOG_GONE, Listener
from gateway.live import LiveFeed
from gateway.owners import Catalog

BAD_FRAME, UNKNOWN_JOB, NOT_NOW = 4400, 4404, 1013
CLOSE_SECONDS = 2.0

Socket = WebSocket[Any, Any, Any]


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """Answered by `pong`."""


class GetStats(msgspec.Struct, frozen=True, tag="get_stats"):
    """Answered by `connection_stats`."""


_said = msgspec.json.Decoder(Ping | GetStats)


@websocket("/ws/progress")
async def progress(socket: Socket, feed: NamedDependency[LiveFeed], catalog: NamedDependency[Catalog]) -> None:
    """Everything that happens."""
    await _converse(socket, feed, catalog, None)


@websocket("/ws/progress/{job:str}")
async def job_progress(
    socket: Socket, job: FromPath[str], feed: NamedDependency[LiveFeed], catalog: NamedDependency[Catalog]
) -> None:
    """What happens to one job."""
    await _converse(socket, feed, catalog, JobId(job))


async def _converse(socket: Socket, feed: LiveFeed, catalog: Catalog, job: JobId | None) -> None:
    await socket.accept()
    try:
        if job is not None:
            await catalog.ask(GetJob(job=job))
        if not feed.log_id:
            raise Unavailable("the gateway has not found the event log yet", service="nats")
        after = socket.query_params.get("after")
        place = None if after is None else place_of(after, feed.log_id)
        with feed.join(place, job) as listener:
            code, reason = await _until_ended(socket, feed, catalog, listener)
            if code == GOING:
                cursor = cursor_of(feed.log_id, listener.place)
                with suppress(TimeoutError):
                    async with asyncio.timeout(CLOSE_SECONDS):
                        await socket.send_text(frames.frame("bye", {"reason": reason, "resume_after": cursor}))
    except (WebSocketDisconnect, OSError):  # the client has gone; uvicorn says so with an OSError when we were sending
        return
    except LoratoryError as error:
        code, reason = _code_of(error), error.detail
    with suppress(TimeoutError, WebSocketDisconnect, RuntimeError, OSError):  # it may have gone by itself meanwhile
        async with asyncio.timeout(CLOSE_SECONDS):
            await socket.close(code=code, reason=reason[:120])


def _code_of(error: LoratoryError) -> int:
    match error:
        case NotFound():
            return UNKNOWN_JOB
        case Gone():
            return LOG_GONE
        case Invalid():
            return BAD_FRAME
        case _:
            return NOT_NOW


async def _until_ended(socket: Socket, feed: LiveFeed, catalog: Catalog, listener: Listener) -> tuple[int, str]:
    """Tell and hear until one of both ends, or somebody wants this socket closed. Both have stopped when it returns."""
    telling = asyncio.create_task(_tell(socket, feed, catalog, listener), name="tell")
    hearing = asyncio.create_task(_hear(socket, feed, listener), name="hear")
    waited: list[asyncio.Future[Any]] = [telling, hearing, listener.ended]
    try:
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (telling, hearing):
            task.cancel()
        ended = await asyncio.gather(telling, hearing, return_exceptions=True)
    if listener.ended.done():
        return listener.ended.result()
    raise next(error for error in ended if isinstance(error, Exception))


async def _tell(socket: Socket, feed: LiveFeed, catalog: Catalog, listener: Listener) -> None:
    cursor = cursor_of(feed.log_id, listener.place)
    await _send(socket, listener, frames.frame("connection_established", {"cursor": cursor, "log_id": feed.log_id}))
    caught_up = False
    while True:
        listener.wake.clear()
        while (facts := feed.since(listener.place)) is None:
            await _replay(socket, feed, catalog, listener)
        for fact in facts:
            if listener.wants(fact):
                await _send(socket, listener, fact.text)
            listener.place = fact.place
        if not caught_up:
            caught_up = True
            cursor = cursor_of(feed.log_id, listener.place)
            await _send(socket, listener, frames.frame("caught_up", {"cursor": cursor}))
        for text in listener.take():
            await _send(socket, listener, text)
        await listener.wake.wait()


async def _replay(socket: Socket, feed: LiveFeed, catalog: Catalog, listener: Listener) -> None:
    """What has left the ring comes from the catalog, up to where the ring begins."""
    start, until = listener.place, feed.oldest
    kind: Kind | None = None if listener.thing is None else "job"
    asked = ListEvents(after=start.ask_after, kind=kind, thing=listener.thing, limit=500, min_seq=until.sequence)
    async for events in catalog.events(asked):
        for event, place in zip(events, frames.places(events), strict=True):
            if place > until:
                break
            if place > start:
                await _send(socket, listener, frames.of_event(event, place, feed.log_id).text)
                listener.place = place
        if events and events[-1].sequence > until.sequence:
            break
    listener.place = max(listener.place, until)


async def _send(socket: Socket, listener: Listener, text: str) -> None:
    async with listener.sending():
        await socket.send_text(text)


async def _hear(socket: Socket, feed: LiveFeed, listener: Listener) -> None:
    while True:
        text = await socket.receive_text()
        try:
            said = _said.decode(text)
        except msgspec.DecodeError as error:
            raise Invalid(f"a frame was not understood: {error}") from error
        match said:
            case Ping():
                listener.notice(frames.frame("pong", {}))
            case GetStats():
                stats = {"active_connections": feed.sockets, "cursor": cursor_of(feed.log_id, listener.place)}
                listener.notice(frames.frame("connection_stats", stats))


ROUTES = [progress, job_progress]
