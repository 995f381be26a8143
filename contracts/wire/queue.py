"""The job queue: hints that work waits. What is true stands in the log; a message here only wakes a worker."""

import json
from dataclasses import dataclass

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import Header
from nats.js.errors import APIError
from nats.js.errors import Error as JetStreamError

from contracts import subjects
from contracts.errors import Unavailable
from contracts.subjects import PRIORITIES, Priority, WorkClass
from contracts.wire.streams import mend_queue

ANSWER_SECONDS = 2.0
ALREADY_THERE = 10077


class Hint(msgspec.Struct, frozen=True, kw_only=True):
    """`dispatch` is the sequence of the Queued fact that this message stands for."""

    id: str
    dispatch: int


@dataclass(frozen=True)
class Taken:
    """A hint a worker holds. It keeps it by saying so well within the lease, and lets go by `done` or `back`."""

    hint: Hint
    priority: Priority
    _message: Msg

    async def still_at_it(self) -> None:
        await self._message.in_progress()

    async def done(self) -> None:
        """The hint is spent: its work has ended, or it was out of date."""
        await self._message.ack()

    async def back(self, delay: float = 0) -> None:
        """Somebody else may take it, after `delay` seconds."""
        await self._message.nak(delay=delay)


class WorkQueue:
    """The queue of one class of work (`train` or `tag`)."""

    def __init__(self, bus: Client, work: WorkClass) -> None:
        self._bus = bus
        self._js = bus.jetstream(timeout=ANSWER_SECONDS)
        self._work: WorkClass = work

    async def put(self, hint: Hint, priority: Priority) -> None:
        """Say that work waits. Said again it changes nothing; an older hint of the same work gives way."""
        subject = subjects.queued(self._work, priority, hint.id)
        body = msgspec.json.encode(hint)
        try:
            if not await self._stored(subject, body):
                await self._replace(subject, body)
        except APIError as error:
            raise Unavailable(f"the queue refused a hint: {error.description}", service="nats") from error
        except (nats.errors.Error, JetStreamError, OSError) as error:
            raise Unavailable("the job queue does not answer", service="nats") from error

    async def _stored(self, subject: str, body: bytes) -> bool:
        """False: there is a hint of this work already.

        The message has no id: the stream remembers ids for a while, and would swallow the hint that mends a lost one.
        """
        try:
            await self._js.publish(subject, body, stream=subjects.QUEUE)
        except APIError as error:
            if error.err_code != ALREADY_THERE:
                raise
            return False
        return True

    async def _replace(self, subject: str, body: bytes) -> None:
        """One that was spent between two looks is NotFound, and so Unavailable: the dispatcher asks again."""
        message = await self._js.get_last_msg(subjects.QUEUE, subject)
        if message.data == body:
            return
        await self._js.purge_stream(subjects.QUEUE, subject=subject)
        await self._js.publish(subject, body, stream=subjects.QUEUE)

    async def drop(self, thing_id: str) -> None:
        """Take back every hint of this work; who holds one already learns from the log."""
        try:
            for priority in PRIORITIES:
                await self._js.purge_stream(subjects.QUEUE, subject=subjects.queued(self._work, priority, thing_id))
        except (nats.errors.Error, JetStreamError, OSError) as error:
            raise Unavailable("the job queue does not answer", service="nats") from error

    async def mend(self, lease: float) -> bool:
        """Make the queue anew if it was lost, or what its workers take from; `lease` in seconds. Was it so?"""
        try:
            return await mend_queue(self._bus, lease=lease)
        except (nats.errors.Error, JetStreamError, OSError) as error:
            raise Unavailable("the job queue does not answer", service="nats") from error

    async def waiting(self) -> set[str]:
        """The ids of all work that has a hint in the queue, held or not."""
        try:
            info = await self._js.stream_info(subjects.QUEUE, subjects_filter=f"jobs.{self._work}.>")
        except (nats.errors.Error, JetStreamError, OSError) as error:
            raise Unavailable("the job queue does not answer", service="nats") from error
        return {subject.rsplit(".", 1)[1] for subject in (info.state.subjects or {})}

    async def take(self) -> Taken | None:
        """The next hint, high before normal before low; None when nothing waits (asking never blocks)."""
        for priority in PRIORITIES:
            message = await self._next(subjects.queue_consumer(self._work, priority))
            if message is not None:
                return Taken(msgspec.json.decode(message.data, type=Hint), priority, message)
        return None

    async def _next(self, consumer: str) -> Msg | None:
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{subjects.QUEUE}.{consumer}"
        ask = json.dumps({"batch": 1, "no_wait": True}).encode()
        try:
            # The old style has an inbox of its own: the message comes under its own subject, which the shared inbox
            # of the new style takes for somebody else's answer.
            message = await self._bus.request(subject, ask, timeout=ANSWER_SECONDS, old_style=True)
        except (nats.errors.Error, OSError) as error:
            raise Unavailable("the job queue does not answer", service="nats") from error
        if message.headers and message.headers.get(Header.STATUS):
            return None
        return message
