"""Recreating a lost work queue. Only `admin` may create streams and consumers, so it looks for them every few seconds.

The log is authoritative: nothing is lost with the queue, and the catalog sends the messages of waiting work again.
"""

import structlog

from contracts import subjects
from contracts.errors import SetupError, Unavailable
from contracts.retry import RetryPolicy, repeat, retry
from contracts.wire.log.streams import repair_queue
from contracts.wire.service.bus import Bus
from contracts.wire.service.connection import connect_service
from contracts.wire.service.jetstream import translate_errors
from contracts.wire.service.settings import BusSettings

CHECK_SECONDS = 5.0
CONNECT_RETRIES = RetryPolicy(first_delay=1.0)
_log = structlog.get_logger()


async def keep_queue(settings: BusSettings, lease: float, *, every: float = CHECK_SECONDS) -> None:
    """Runs until cancelled, over a connection of its own. `lease`: as for the migrate step."""
    bus = await retry(lambda: connect_service(settings, "queue"), CONNECT_RETRIES, on=SetupError, warn="no_connection")
    async with bus:
        await repeat(lambda: check_queue(bus, lease), every=every, on=Unavailable, warn="queue_unavailable")


async def check_queue(bus: Bus, lease: float) -> bool:
    """Recreates what is missing; whether anything was. `lease`: seconds until unextended work is redelivered."""
    with translate_errors(subjects.QUEUE):
        recreated = await repair_queue(bus, lease=lease)
    if recreated:
        _log.warning("queue_recreated")
    return recreated
