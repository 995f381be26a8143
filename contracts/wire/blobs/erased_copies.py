"""Deletes copies of erased pictures: all at the start of a service, then each as it is announced."""

from collections.abc import Awaitable, Callable, Collection

from nats.aio.client import Client

from contracts.errors import LoratoryError
from contracts.ids import Digest
from contracts.queries.datasets import ListErased
from contracts.retry import RetryPolicy, repeat
from contracts.telemetry import ImagesErased
from contracts.wire.service.requests import ServiceClient
from contracts.wire.service.telemetry import set_on_message

POLL_SECONDS = 60.0
"""Interval of queries that cover a lost announcement."""
AFTER_ERROR = RetryPolicy(first_delay=2.0)
"""After a failed query: the catalog may be starting."""

DeleteCopies = Callable[[Collection[Digest]], Awaitable[None]]


async def purge_erased(bus: Client, delete_copies: DeleteCopies, after_error: RetryPolicy = AFTER_ERROR) -> None:
    """Calls `delete_copies` with the pictures that were erased; runs until cancelled."""
    cursor: str | None = None

    async def delete_erased() -> None:
        nonlocal cursor
        cursor = await _delete_erased(bus, delete_copies, cursor)

    async with set_on_message(bus, ImagesErased.pattern()) as announced:
        await repeat(
            delete_erased,
            every=POLL_SECONDS,
            on=LoratoryError,
            warn="erased_images_not_queried",
            after_error=after_error,
            wake=announced,
        )


async def _delete_erased(bus: Client, delete_copies: DeleteCopies, cursor: str | None) -> str | None:
    """Deletes the copies of all pictures erased after a cursor; returns the next cursor."""
    while True:
        page = await ServiceClient(bus).query(ListErased(cursor=cursor))
        if page.items:
            await delete_copies(frozenset(image.picture for image in page.items))
            cursor = page.items[-1].cursor
        if page.next is None:
            return cursor
