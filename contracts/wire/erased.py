"""Whoever keeps copies of pictures learns here which were erased: all at its start, and each as it is told."""

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress

import structlog
from nats.aio.client import Client

from contracts import subjects
from contracts.errors import LoratoryError
from contracts.ids import Digest
from contracts.queries import ListErased
from contracts.wire.service import Door
from contracts.wire.tasks import wanted
from contracts.wire.telling import hear

LOOK_SECONDS = 60.0
"""So often it is asked for, should the word have been lost."""
AGAIN_SECONDS = 2.0
"""So soon after a try that failed: the catalog may be starting."""

_log = structlog.get_logger()

Drop = Callable[[Collection[Digest]], None]


async def keep_clean(bus: Client, drop: Drop) -> None:
    """`drop`, in a thread, what is kept of erased pictures; ends only when it is cancelled."""
    told = asyncio.Event()

    async def on_word(_: None) -> None:
        told.set()

    subscription = await hear(bus, subjects.ERASED, None, on_word)
    cursor: str | None = None
    try:
        while wanted():
            told.clear()
            pause = LOOK_SECONDS
            try:
                cursor = await _dropped(bus, drop, cursor)
            except LoratoryError as error:
                _log.debug("erased_not_asked", error=error.detail)
                pause = AGAIN_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await told.wait()
    finally:
        if not bus.is_closed and bus.is_connected:
            await subscription.unsubscribe()


async def _dropped(bus: Client, drop: Drop, cursor: str | None) -> str | None:
    """All that was erased after a place; the place to go on from the next time."""
    while True:
        page = await Door(bus).ask(ListErased(cursor=cursor))
        if page.items:
            await asyncio.to_thread(drop, frozenset(one.picture for one in page.items))
            cursor = page.items[-1].cursor
        if page.next is None:
            return cursor
