"""The work queue. The log is authoritative; a message here only tells workers that work is queued."""

from dataclasses import dataclass
from typing import cast

import msgspec
from nats.aio.msg import Msg
from nats.js.api import Header
from nats.js.errors import APIError

from contracts import subjects
from contracts.errors import Unavailable
from contracts.subjects import PRIORITIES, Priority, WorkClass
from contracts.wire.service.bus import Bus
from contracts.wire.service.jetstream import NATS_ERRORS, silent, translate_errors

REPLY_TIMEOUT_SECONDS = 2.0
MAX_MESSAGES_PER_SUBJECT_REACHED = 10077
NEXT_OR_NONE = b'{"batch": 1, "no_wait": true}'


class QueueMessage(msgspec.Struct, frozen=True, kw_only=True):
    """`dispatch` is the sequence of the Queued event that this message represents."""

    id: str
    dispatch: int


@dataclass(frozen=True)
class Delivery:
    """A message delivered to a worker, which must `extend` it well within the lease and end it by `ack` or `nak`."""

    message: QueueMessage
    priority: Priority
    _raw: Msg

    async def extend(self) -> None:
        """Unavailable: it was not sent."""
        try:
            await self._raw.in_progress()
        except Exception as error:  # nats-py raises many kinds while it reconnects
            raise Unavailable(f"the bus is not connected: {error!r}", service="nats") from error

    async def ack(self) -> None:
        """Removes the message: its work has ended, or the message was stale."""
        await self._raw.ack()

    async def nak(self, delay: float = 0) -> None:
        """Returns the message to the queue, to be delivered again after `delay` seconds."""
        await self._raw.nak(delay=delay)


class WorkQueue:
    """The queue of one class of work (`train` or `tag`)."""

    def __init__(self, bus: Bus, work: WorkClass) -> None:
        self._bus = bus
        self._js = bus.jetstream(timeout=REPLY_TIMEOUT_SECONDS)
        self._work: WorkClass = work

    async def put(self, message: QueueMessage, priority: Priority) -> None:
        """Enqueues work. Idempotent; replaces an older message for the same work."""
        subject = subjects.queued(self._work, priority, message.id)
        body = msgspec.json.encode(message)
        try:
            if not await self._publish(subject, body):
                await self._replace(subject, body)
        except APIError as error:
            raise Unavailable(f"the queue refused a message: {error.description}", service="nats") from error
        except NATS_ERRORS as error:
            raise silent(subjects.QUEUE) from error

    async def _publish(self, subject: str, body: bytes) -> bool:
        """False: a message for this work is already queued.

        The message has no id: the stream remembers ids for a while and would drop the message that replaces a lost one.
        """
        try:
            await self._js.publish(subject, body, stream=subjects.QUEUE)
        except APIError as error:
            if error.err_code != MAX_MESSAGES_PER_SUBJECT_REACHED:
                raise
            return False
        return True

    async def _replace(self, subject: str, body: bytes) -> None:
        """If the message is acked meanwhile this raises NotFound, hence Unavailable; the dispatcher retries."""
        message = await self._js.get_last_msg(subjects.QUEUE, subject)
        if message.data == body:
            return
        await self._js.purge_stream(subjects.QUEUE, subject=subject)
        await self._js.publish(subject, body, stream=subjects.QUEUE)

    async def remove(self, work_id: str) -> None:
        """Removes all messages for this work; a worker that already holds one learns it from the log."""
        with translate_errors(subjects.QUEUE):
            for priority in PRIORITIES:
                await self._js.purge_stream(subjects.QUEUE, subject=subjects.queued(self._work, priority, work_id))

    async def queued_ids(self) -> set[str]:
        """The ids of all work that has a message in the queue, delivered or not."""
        return set(await self.queued())

    async def queued(self) -> dict[str, Priority]:
        """The same with the priority of each."""
        with translate_errors(subjects.QUEUE):
            info = await self._js.stream_info(subjects.QUEUE, subjects_filter=f"jobs.{self._work}.*.*")
        subjects_of_work = (subject.split(".") for subject in (info.state.subjects or {}))
        return {work_id: cast("Priority", priority) for _, _, priority, work_id in subjects_of_work}

    async def fetch(self) -> Delivery | None:
        """The next message, high before normal before low priority; None when the queue is empty (never blocks)."""
        for priority in PRIORITIES:
            message = await self._next(subjects.queue_consumer(self._work, priority))
            if message is not None:
                return Delivery(msgspec.json.decode(message.data, type=QueueMessage), priority, message)
        return None

    async def _next(self, consumer: str) -> Msg | None:
        subject = f"{self._bus.api}.CONSUMER.MSG.NEXT.{subjects.QUEUE}.{consumer}"
        with translate_errors(subjects.QUEUE):
            # The old style has an inbox of its own: the message arrives under its original subject, which the shared
            # inbox of the new style would not match to this request.
            message = await self._bus.request(subject, NEXT_OR_NONE, timeout=REPLY_TIMEOUT_SECONDS, old_style=True)
        return None if message.headers and message.headers.get(Header.STATUS) else message
