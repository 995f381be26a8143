"""Publishing and subscribing to telemetry: progress, presence, announcements (core NATS), losses (stream `MET`)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from contracts import subjects
from contracts.cancellation import not_cancelled
from contracts.ids import JobId
from contracts.subjects import WorkClass
from contracts.telemetry import Appended, LossBlock, Telemetry
from contracts.wire.service.bus import Bus
from contracts.wire.service.direct import read_batch
from contracts.wire.service.jetstream import find_stream, translate_errors

M = TypeVar("M", bound=Telemetry)
_log = structlog.get_logger()
MAX_LOSS_BLOCKS = 20_000


async def publish(bus: Client, message: Telemetry) -> None:
    await _publish(bus, message.subject, message)


async def announce_append(bus: Bus, sequence: int) -> None:
    """Wakes those who follow the log: in this process at once, the catalog with a message if a worker appended."""
    await bus.append_listeners.announce(sequence)
    if bus.role in Appended.publishers:
        await publish(bus, Appended(service=bus.role, sequence=sequence))


async def wake(bus: Client, work: WorkClass, work_id: str) -> None:
    """Asks the worker that holds this work to read the log now."""
    await _publish(bus, subjects.wake(work, work_id), None)


async def _publish(bus: Client, subject: str, content: msgspec.Struct | None) -> None:
    """Best effort: messages published while disconnected are dropped."""
    if not bus.is_connected:
        return
    try:
        await bus.publish(subject, msgspec.json.encode(content))
    except nats.errors.Error as error:
        _log.debug("telemetry_not_published", subject=subject, error=repr(error))


async def subscribe(bus: Client, kind: type[M], on_content: Callable[[M], Awaitable[None]]) -> Subscription:
    """Calls `on_content` with each message of this kind; undecodable ones are logged and dropped."""
    decoder = msgspec.json.Decoder(kind)

    async def on_message(message: Msg) -> None:
        try:
            content = decoder.decode(message.data)
        except msgspec.DecodeError as error:
            _log.warning("message_not_decoded", subject=message.subject, error=str(error))
            return
        await on_content(content)

    return await bus.subscribe(kind.pattern(), cb=on_message)


@asynccontextmanager
async def set_on_message(bus: Client, subject: str) -> AsyncIterator[asyncio.Event]:
    """An event that each message on this subject sets."""
    received = asyncio.Event()

    async def on_message(_: Msg) -> None:
        received.set()

    subscription = await bus.subscribe(subject, cb=on_message)
    try:
        yield received
    finally:
        if not bus.is_closed and bus.is_connected:
            await subscription.unsubscribe()


async def store_loss_block(bus: Client, block: LossBlock) -> None:
    """Stores a block of a loss curve. Unavailable: the stream does not answer; a gap in a curve never fails a job."""
    body = msgspec.json.encode(block)
    with translate_errors(subjects.METRICS):
        await bus.jetstream().publish(subjects.metrics(block.job_id), body, stream=subjects.METRICS)


async def jobs_with_loss_curves(bus: Client) -> list[JobId]:
    """The jobs whose loss curves are stored; empty where there is no stream."""
    info = await find_stream(bus.jetstream(), subjects.METRICS, subjects.ALL_METRICS)
    return [JobId(subject.rpartition(".")[2]) for subject in sorted((info and info.state.subjects) or {})]


async def read_loss_curve(bus: Bus, job_id: JobId) -> list[LossBlock]:
    """The stored blocks of a job, oldest first, at most MAX_LOSS_BLOCKS; of blocks with the same step the later counts.

    Unavailable: the stream does not answer.
    """
    blocks: list[LossBlock] = []
    after, is_last = 0, False
    while not is_last and len(blocks) < MAX_LOSS_BLOCKS and not_cancelled():
        batch = await read_batch(bus, subjects.METRICS, after, subject=subjects.metrics(job_id))
        blocks += [msgspec.json.decode(message.body, type=LossBlock) for message in batch.messages]
        after, is_last = batch.messages[-1].sequence if batch.messages else after, batch.is_last
    return blocks[:MAX_LOSS_BLOCKS]
