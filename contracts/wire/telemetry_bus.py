"""Publishing and subscribing to telemetry: progress, presence, announcements (core NATS), losses (stream `MET`)."""

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
MAX_LOSS_BLOCKS = 20_000


async def publish_progress(bus: Client, progress: Progress) -> None:
    if isinstance(progress, TrainingProgress):
        await _publish(bus, subjects.progress("train", progress.job_id), progress)
    else:
        await _publish(bus, subjects.progress("tag", progress.run_id), progress)


async def publish_presence(bus: Client, presence: Presence) -> None:
    await _publish(bus, subjects.presence(presence.service, presence.worker), presence)


async def publish_applied(bus: Client, applied: Applied) -> None:
    await _publish(bus, subjects.APPLIED, applied)


async def publish_erased(bus: Client) -> None:
    """Announces that images were erased: services that keep copies query which (`ListErased`) and delete them."""
    await _publish(bus, subjects.ERASED, None)


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


async def subscribe(bus: Client, subject: str, kind: Any, on_content: Callable[[Any], Awaitable[None]]) -> Subscription:
    """Calls `on_content` with each message of `subject`, decoded as `kind`; undecodable ones are logged and dropped."""
    decoder = msgspec.json.Decoder(kind)

    async def on_message(message: Msg) -> None:
        try:
            content = decoder.decode(message.data)
        except msgspec.DecodeError as error:
            _log.warning("message_not_decoded", subject=message.subject, error=str(error))
            return
        await on_content(content)

    return await bus.subscribe(subject, cb=on_message)


async def store_loss_block(bus: Client, block: LossBlock) -> None:
    """Stores a block of a loss curve. Unavailable: the stream does not answer; a gap in a curve never fails a job."""
    try:
        await bus.jetstream().publish(
            subjects.metrics(block.job_id), msgspec.json.encode(block), stream=subjects.METRICS
        )
    except (nats.errors.Error, JetStreamError, OSError) as error:
        raise Unavailable("the metrics stream does not answer", service="nats") from error


async def jobs_with_loss_curves(bus: Client) -> list[JobId]:
    """The jobs whose loss curves are stored; empty where there is no stream."""
    try:
        info = await bus.jetstream().stream_info(subjects.METRICS, subjects_filter=subjects.ALL_METRICS)
    except NotFoundError:
        return []
    except (nats.errors.Error, JetStreamError, OSError) as error:
        raise Unavailable("the metrics stream does not answer", service="nats") from error
    return [JobId(subject.rpartition(".")[2]) for subject in sorted(info.state.subjects or {})]


async def read_loss_curve(bus: Client, job_id: JobId) -> list[LossBlock]:
    """All stored blocks of a job, oldest first; where two contain the same step the later one counts."""
    js = bus.jetstream()
    blocks: list[LossBlock] = []
    try:
        info = await js.stream_info(subjects.METRICS, subjects_filter=subjects.metrics(job_id))
        expected = min((info.state.subjects or {}).get(subjects.metrics(job_id), 0), MAX_LOSS_BLOCKS)
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
