"""Making good what was lost: the archive from the log, the log from the archive."""

from collections.abc import Sequence
from contextlib import aclosing

from catalog.archive import Archive
from catalog.settings import Settings
from contracts.errors import SetupError
from contracts.wire.bus import connect
from contracts.wire.follow import Follower
from contracts.wire.log import EventLog


async def catch_up(settings: Settings, arguments: Sequence[str]) -> None:
    """`python -m catalog catch-up`: archive what the log holds beyond the archive. For a catalog that is stopped.

    LogDamaged where the log is not the one that was archived.
    """
    if arguments:
        raise SetupError("usage: python -m catalog catch-up")
    bus = await connect(settings.nats_url, settings.nats_user, settings.nats_password, "catch-up")
    archive = Archive(settings.catalog)
    try:
        log = EventLog(bus)
        await archive.judge(log)
        _, end = await log.end()
        if archive.tail.sequence < end:
            async with aclosing(Follower(bus, archive.tail.sequence).batches()) as batches:
                async for batch in batches:
                    await archive.append(batch)
                    if archive.tail.sequence >= end:
                        break
    finally:
        await archive.close()
        await bus.close()
