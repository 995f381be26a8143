"""Recreating a lost work queue. Only `admin` may create streams and consumers, so it looks for them every few seconds.

The log is authoritative: nothing is lost with the queue, and the catalog sends the messages of waiting work again.
"""

import structlog

from contracts import subjects
from contracts.errors import SetupError, Unavailable
from contracts.retry import repeat
from contracts.wire.log.streams import repair_queue
from contracts.wire.service.bus import Bus
from contracts.wire.service.connection import connect_service
from contracts.wire.service.jetstream import translate_errors
from contracts.wire.service.settings import BusSettings

CHECK_SECONDS = 5.0
_log = structlog.get_logger()


async def keep_queue(settings: BusSettings, lease: float, *, every: float = CHECK_SECONDS) -> None:
    """Runs until cancelled; `lease`: as for the migrate step."""

    async def check() -> None:
        if await check_once(settings, lease):
            _log.warning("queue_recreated")

    await repeat(check, every=every, on=(SetupError, Unavailable), warn="queue_unavailable")


async def check_once(settings: BusSettings, lease: float) -> bool:
    """`check_queue` over a connection of its own. SetupError: there is none."""
    async with await connect_service(settings, "queue") as bus:
        return await check_queue(bus, lease)


async def check_queue(bus: Bus, lease: float) -> bool:
    """Recreates what is missing; whether anything was. `lease`: seconds until unextended work is redelivered."""
    with translate_errors(subjects.QUEUE):
        return await repair_queue(bus, lease=lease)
