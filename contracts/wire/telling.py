"""Telling and hearing what is not a fact: progress, presence, news (core messages), and loss curves (stream `MET`)."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from contracts import subjects
from contracts.errors import Unavailable
from contracts.ids import JobId
from contracts.subjects import WorkClass
from contracts.telemetry import Applied, LossBlock, Presence, Progress, TrainingProgress

T = TypeVar("T")
_log = structlog.get_logger()
MOST_BLOCKS = 20_000


async def tell_progress(bus: Client, progress: Progress) -> None:
    if isinstance(progress, TrainingProgress):
        await _tell(bus, subjects.progress("train", progress.job_id), progress)
    else:
        await _tell(bus, subjects.progress("tag", progress.run_id), progress)


async def tell_presence(bus: Client, presence: Presence) -> None:
    await _tell(bus, subjects.presence(presence.service, presence.worker), presence)


async def tell_applied(bus: Client, applied: Applied) -> None:
    await _tell(bus, subjects.NEWS, applied)


async def tell_erased(bus: Client) -> None:
    """Pictures were erased: whoever keeps copies asks which (`ListErased`) and drops them."""
    await _tell(bus, subjects.ERASED, None)


async def nudge(bus: Client, work: WorkClass, thing_id: str) -> None:
    """Whoever holds this work should look at the log now."""
    await _tell(bus, subjects.nudge(work, thing_id), None)


async def _tell(bus: Client, subject: str, content: msgspec.Struct | None) -> None:
    """Told into the wind: while the line is down nobody hears it, and the next one comes soon."""
    if not bus.is_connected:
        return
    try:
        await bus.publish(subject, msgspec.json.encode(content))
    except nats.errors.Error as error:
        _log.debug("not_told", subject=subject, error=repr(error))


async def hear(bus: Client, subject: str, kind: Any, on: Callable[[Any], Awaitable[None]]) -> Subscription:
    """Call `on` with each message of `subject`, decoded as `kind`; what cannot be decoded is logged and dropped."""
    decoder = msgspec.json.Decoder(kind)

    async def on_message(message: Msg) -> None:
        try:
            content = decoder.decode(message.data)
        except msgspec.DecodeError as error:
            _log.warning("message_not_understood", subject=message.subject, error=str(error))
            return
        await on(content)

    return await bus.subscribe(subject, cb=on_message)


async def keep_losses(bus: Client, block: LossBlock) -> None:
    """Store a block of a loss curve. Unavailable: the stream does not answer (curves may have holes, jobs may not)."""
    try:
        await bus.jetstream().publish(
            subjects.metrics(block.job_id), msgspec.json.encode(block), stream=subjects.METRICS
        )
    except (nats.errors.Error, JetStreamError, OSError) as error:
        raise Unavailable("the metrics stream does not answer", service="nats") from error


async def jobs_with_losses(bus: Client) -> list[JobId]:
    """Whose curves the stream holds; none where there is no stream."""
    try:
        info = await bus.jetstream().stream_info(subjects.METRICS, subjects_filter=subjects.ALL_METRICS)
    except NotFoundError:
        return []
    except (nats.errors.Error, JetStreamError, OSError) as error:
        raise Unavailable("the metrics stream does not answer", service="nats") from error
    return [JobId(subject.rpartition(".")[2]) for subject in sorted(info.state.subjects or {})]


async def read_losses(bus: Client, job_id: JobId) -> list[LossBlock]:
    """All blocks of a job as stored, oldest first; where two name the same step the later one counts."""
    js = bus.jetstream()
    blocks: list[LossBlock] = []
    try:
        info = await js.stream_info(subjects.METRICS, subjects_filter=subjects.metrics(job_id))
        expected = min((info.state.subjects or {}).get(subjects.metrics(job_id), 0), MOST_BLOCKS)
        if expected == 0:
            return []
        config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
        subscription = await js.subscribe(
            subjects.metrics(job_id), stream=subjects.METRICS, ordered_consumer=True, config=config
        )
        try:
            while len(blocks) < expected:
                message = await subscription.next_msg(timeout=2)
                blocks.append(msgspec.json.decode(message.data, type=LossBlock))
        finally:
            await subscription.unsubscribe()
    except (nats.errors.Error, JetStreamError, OSError) as error:
        raise Unavailable("the metrics stream does not answer", service="nats") from error
    return blocks
