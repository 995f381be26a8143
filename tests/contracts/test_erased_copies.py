"""Services that keep copies of pictures delete erased ones: earlier ones at their start, later ones as announced."""

import asyncio
from collections.abc import Collection

from contracts.ids import Digest, ImageId
from contracts.queries.base import Page
from contracts.queries.datasets import ErasedImage, ListErased
from contracts.retry import RetryPolicy
from contracts.telemetry import ImagesErased
from contracts.wire.blobs.erased_copies import purge_erased
from contracts.wire.service.requests import Service
from contracts.wire.service.telemetry import publish
from tests.conftest import BusOf
from tests.limits import WAIT


class CopyStore:
    """Records the deletions requested from it."""

    def __init__(self) -> None:
        self.deleted: list[set[Digest]] = []

    async def delete(self, pictures: Collection[Digest]) -> None:
        self.deleted.append(set(pictures))

    async def wait_deleted(self, count: int) -> None:
        async with asyncio.timeout(WAIT):
            while sum(map(len, self.deleted)) < count:  # noqa: ASYNC110 - a list has no event to wait for
                await asyncio.sleep(0.01)


async def test_copies_of_erased_pictures_are_deleted_once_page_by_page_and_later_ones_when_announced(
    bus_of: BusOf,
) -> None:
    erased = [Digest(f"{number:064}") for number in range(5)]

    async def handle(query: ListErased) -> Page[ErasedImage]:
        start = int(query.cursor or 0)
        items = tuple(
            ErasedImage(image=ImageId(f"img_{number}"), picture=erased[number], cursor=str(number + 1))
            for number in range(start, min(start + 2, len(erased)))
        )
        more = str(start + 2) if start + 2 < len(erased) else None
        return Page(items=items, total=len(erased), next=more)

    copies, catalog = CopyStore(), await bus_of("catalog")
    purging = asyncio.create_task(purge_erased(await bus_of("trainer"), copies.delete, RetryPolicy(first_delay=0.05)))
    await asyncio.sleep(0.1)  # no reply yet: the catalog is starting
    service = Service(catalog, "catalog", "1")
    await service.start(queries={ListErased: handle})
    try:
        await copies.wait_deleted(5)
        erased.append(Digest("f" * 64))
        await publish(catalog, ImagesErased())
        await copies.wait_deleted(6)
    finally:
        purging.cancel()
        await asyncio.gather(purging, return_exceptions=True)
        await service.close()

    assert copies.deleted == [set(erased[:2]), set(erased[2:4]), set(erased[4:5]), set(erased[5:])]
