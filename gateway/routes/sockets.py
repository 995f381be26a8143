"""`/ws/progress`: events, progress and presence over a WebSocket, from any position in the log.

A socket knows what its client has of the log. It reads the other events from the feed's ring, or from the catalog
where they have left the ring; so a client that reconnects with `after=` its last `seq` misses and repeats nothing.
Frames come in the order of the log, but while the catalog works in a large data set, those of that set come later.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import WebSocket, websocket
from litestar.di import NamedDependency
from litestar.exceptions import WebSocketDisconnect
from litestar.params import FromPath

from contracts import frames
from contracts.errors import Gone, Invalid, LoratoryError, NotFound
from contracts.ids import JobId
from contracts.queries.jobs import GetJob
from contracts.queries.log import ListEvents
from contracts.validation import describe_decode_error
from contracts.wire.service import request_ids
from gateway.cursor import encode_cursor
from gateway.live.encoding import encode_frame
from gateway.live.feed import LiveFeed
from gateway.live.subscribers import CLOSE_LOG_GONE, CLOSE_RESTARTING, Subscriber
from gateway.past_events import PastEvents
from gateway.routes.shared import Feed

CLOSE_BAD_FRAME, CLOSE_UNKNOWN_JOB, CLOSE_TRY_LATER = 4400, 4404, 1013
CLOSE_TIMEOUT_SECONDS = 2.0
MAX_REASON_CHARACTERS = 120
"""A close frame has room for 123 bytes."""

Socket = WebSocket[Any, Any, Any]
_request_decoder = msgspec.json.Decoder(frames.ClientFrame)


@websocket("/ws/progress")
async def progress(socket: Socket, feed: Feed, past_events: NamedDependency[PastEvents]) -> None:
    """All events, progress and presence."""
    await _serve_socket(socket, feed, past_events)


@websocket("/ws/progress/{job:str}")
async def job_progress(
    socket: Socket, job: FromPath[JobId], feed: Feed, past_events: NamedDependency[PastEvents]
) -> None:
    """Events and progress of one job."""
    await _serve_socket(socket, feed, past_events, job)


async def _serve_socket(socket: Socket, feed: LiveFeed, past_events: PastEvents, job: JobId | None = None) -> None:
    await socket.accept()
    try:
        if job is not None:
            await past_events.catalog.query(GetJob(job=job))
        with feed.subscribe(feed.received(socket.query_params.get("after")), job) as subscriber:
            code, reason = await _Connection(socket, feed, past_events, subscriber).run()
    except (WebSocketDisconnect, OSError):  # the client disconnected; while sending, uvicorn raises an OSError for it
        return
    except LoratoryError as error:
        code, reason = _close_code(error), close_reason(error)
    with suppress(TimeoutError, WebSocketDisconnect, RuntimeError, OSError):  # it may have disconnected meanwhile
        async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
            await socket.close(code=code, reason=reason[:MAX_REASON_CHARACTERS])


def close_reason(error: LoratoryError) -> str:
    """The error, with the id of the request if there is room for it: pages cannot read the header of the handshake."""
    suffix = f" (request {request_ids.current()})"
    if len(suffix) > MAX_REASON_CHARACTERS // 2:
        return error.detail
    return error.detail[: MAX_REASON_CHARACTERS - len(suffix)] + suffix


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


@dataclass(frozen=True)
class _Connection:
    """An open socket and its place in the feed."""

    socket: Socket
    feed: LiveFeed
    past_events: PastEvents
    subscriber: Subscriber

    async def run(self) -> tuple[int, str]:
        """Send and receive until one of the two ends or the subscriber is closed: the close code and its reason."""
        sender = asyncio.create_task(self._send_events(), name="send")
        receiver = asyncio.create_task(self._receive_requests(), name="receive")
        closed = self.subscriber.closed
        first_of: list[asyncio.Future[Any]] = [sender, receiver, closed]
        try:
            await asyncio.wait(first_of, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sender, receiver):
                task.cancel()
            results = await asyncio.gather(sender, receiver, return_exceptions=True)
        if not closed.done():
            raise next(error for error in results if isinstance(error, Exception))
        code, reason = closed.result()
        if code == CLOSE_RESTARTING:
            bye = frames.ByeData(reason=reason, resume_after=self._cursor)
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                    await self._send_frame(frames.Bye(time=datetime.now(UTC), data=bye))
        return code, reason

    @property
    def _cursor(self) -> str:
        return encode_cursor(self.feed.log_id, self.subscriber.received)

    async def _send_events(self) -> None:
        greeting = frames.ConnectionData(cursor=self._cursor, log_id=self.feed.log_id)
        await self._send_frame(frames.ConnectionEstablished(time=datetime.now(UTC), data=greeting))
        subscriber, caught_up = self.subscriber, False
        while True:
            subscriber.wake.clear()
            while (events := self.feed.ring.after(subscriber.received)) is None:
                await self._replay()
            for event in events:
                received = subscriber.received.joined(event.received)
                if subscriber.accepts(event):
                    await self._send(event.text(received, self.feed.log_id))
                subscriber.received = received
            if not caught_up:
                caught_up = True
                cursor = frames.CursorData(cursor=self._cursor)
                await self._send_frame(frames.CaughtUp(time=datetime.now(UTC), data=cursor))
            for text in subscriber.drain():
                await self._send(text)
            await subscriber.wake.wait()

    async def _replay(self) -> None:
        """Send the events that have left the ring from the catalog, up to where the ring begins."""
        subscriber, end = self.subscriber, self.feed.ring.oldest
        start = subscriber.received
        query = ListEvents(
            after=start.complete.query_after,
            aggregate_kind=None if subscriber.job_id is None else "job",
            aggregate_id=subscriber.job_id,
            min_seq=end.position.sequence,
        )
        async for events in self.past_events.pages(query):
            for event in events:
                if event.position > end.position:
                    break
                if end.includes(event.aggregate, event.position) and not start.includes(
                    event.aggregate, event.position
                ):
                    received = start.joined(end.until(event.position))
                    await self._send(event.encode(received, self.feed.log_id).text(received, self.feed.log_id))
                    subscriber.received = received
            if events and events[-1].view.sequence > end.position.sequence:
                break
        subscriber.received = start.joined(end)

    async def _receive_requests(self) -> None:
        while True:
            text = await self.socket.receive_text()
            try:
                request = _request_decoder.decode(text)
            except msgspec.DecodeError as error:
                raise Invalid(f"invalid frame: {describe_decode_error(error, whole='it')}") from error
            match request:
                case frames.Ping():
                    self.subscriber.enqueue(encode_frame(frames.Pong(time=datetime.now(UTC))))
                case frames.GetStats():
                    stats = frames.StatsData(active_connections=len(self.feed.subscribers), cursor=self._cursor)
                    self.subscriber.enqueue(encode_frame(frames.ConnectionStats(time=datetime.now(UTC), data=stats)))

    async def _send_frame(self, frame: frames.Frame) -> None:
        await self._send(encode_frame(frame))

    async def _send(self, text: str) -> None:
        async with self.subscriber.sending():
            await self.socket.send_text(text)
