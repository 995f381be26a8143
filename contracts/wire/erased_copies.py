"""Deletes copies of erased pictures: all at the start of a service, then each as it is announced."""

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress

import structlog
from nats.aio.client import Client

from contracts import subjects
from contracts.errors import LoratoryError
from contracts.ids import Digest
from contracts.queries import ListErased
from contracts.wire.cancellation import not_cancelled
from contracts.wire.service import ServiceClient
from contracts.wire.telemetry_bus import subscribe

POLL_SECONDS = 60.0
"""Interval of queries that cover a lost announcement."""
RETRY_SECONDS = 2.0
"""Delay after a failed query: the catalog may be starting."""

_log = structlog.get_logger()

DeleteCopies = Callable[[Collection[Digest]], None]


async def purge_erased(bus: Client, delete_copies: DeleteCopies) -> None:
    """Calls `delete_copies`, in a thread, with the pictures that were erased; runs until cancelled."""
    announced = asyncio.Event()

    async def on_announcement(_: None) -> None:
        announced.set()

    subscription = await subscribe(bus, subjects.ERASED, None, on_announcement)
    cursor: str | None = None
    try:
        while not_cancelled():
            announced.clear()
            pause = POLL_SECONDS
            try:
                cursor = await _delete_erased(bus, delete_copies, cursor)
            except LoratoryError as error:
                _log.debug("erased_images_not_queried", error=error.detail)
                pause = RETRY_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await announced.wait()
    finally:
        if not bus.is_closed and bus.is_connected:
            await subscription.unsubscribe()


async def _delete_erased(bus: Client, delete_copies: DeleteCopies, cursor: str | None) -> str | None:
    """Deletes the copies of all pictures erased after a cursor; returns the next cursor."""
    while True:
        page = await ServiceClient(bus).query(ListErased(cursor=cursor))
        if page.items:
            await asyncio.to_thread(delete_copies, frozenset(image.picture for image in page.items))
            cursor = page.items[-1].cursor
        if page.next is None:
            return cursor
