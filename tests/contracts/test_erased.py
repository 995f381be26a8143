"""Who keeps copies of pictures hears of every erased one: those from before it came, and each as it is told."""

import asyncio
from collections.abc import Collection

from contracts.ids import Digest, ImageId
from contracts.queries import ErasedImage, ListErased, Page
from contracts.wire.erased import keep_clean
from contracts.wire.service import Service
from contracts.wire.telling import tell_erased
from tests.conftest import BusOf
from tests.limits import WAIT


class Keeper:
    """Keeps nothing, and remembers what it was told to drop."""

    def __init__(self) -> None:
        self.dropped: list[set[Digest]] = []

    def drop(self, pictures: Collection[Digest]) -> None:
        self.dropped.append(set(pictures))

    async def until(self, count: int) -> None:
        async with asyncio.timeout(WAIT):
            while sum(map(len, self.dropped)) < count:  # noqa: ASYNC110 - it is called from a thread
                await asyncio.sleep(0.01)


async def test_all_erased_pictures_are_dropped_once_page_by_page_and_new_ones_when_told(bus_of: BusOf) -> None:
    erased = [Digest(f"{number:064}") for number in range(5)]

    async def answer(query: ListErased) -> Page[ErasedImage]:
        start = int(query.cursor or 0)
        items = tuple(
            ErasedImage(image=ImageId(f"img_{number}"), picture=erased[number], cursor=str(number + 1))
            for number in range(start, min(start + 2, len(erased)))
        )
        more = str(start + 2) if start + 2 < len(erased) else None
        return Page(items=items, total=len(erased), next=more)

    keeper, catalog = Keeper(), await bus_of("catalog")
    keeping = asyncio.create_task(keep_clean(await bus_of("trainer"), keeper.drop))
    await asyncio.sleep(0.1)  # nobody answers yet: the catalog is starting
    service = Service(catalog, "catalog", "1")
    await service.start(queries={ListErased: answer})
    try:
        await keeper.until(5)
        erased.append(Digest("f" * 64))
        await tell_erased(catalog)
        await keeper.until(6)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await service.close()

    assert keeper.dropped == [set(erased[:2]), set(erased[2:4]), set(erased[4:5]), set(erased[5:])]
