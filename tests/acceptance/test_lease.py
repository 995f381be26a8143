"""Two catalogs at one bus: one writes. When it dies or stands still the other takes over, and who wakes is fenced."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from contracts.events import DatasetCreated
from contracts.wire.health import why_not
from loratory.child import Child
from loratory.folder import DataFolder
from loratory.services import Place, command, settings
from tests.acceptance.chronicle import ENVIRON, LOST_LINES, PATIENCE, Shop, kill, workshop

pytestmark = [
    LOST_LINES,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]

WAITS = "another catalog writes"


class Second:
    """Another catalog at the same bus, on the same folder: it shares the keys of private text."""

    def __init__(self, shop: Shop, folder: Path) -> None:
        stack, self._health = shop.stack, folder / "second.json"
        user, password = stack.nats.credentials("catalog")
        bus = {"NATS_URL": stack.nats.url, "NATS_USER": user, "NATS_PASSWORD": password}
        told = settings("catalog", DataFolder(stack.data), bus=bus, given=ENVIRON, at=Place("127.0.0.1", 0))
        own = {"LORATORY_HEALTH_FILE": str(self._health)}
        self.log = folder / "second.log"
        self.child = Child("second", command("catalog"), told | own, self.log)

    @property
    def why_not(self) -> str:
        """Empty when it serves."""
        return why_not(self._health, time.time())

    async def until(self, reason: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.why_not != reason and reason not in (self.why_not or "-"):  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.05)

    async def until_said(self, word: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while word not in self.log.read_text():  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.05)


@asynccontextmanager
async def two(folder: Path) -> AsyncIterator[tuple[Shop, Second]]:
    """The catalog of a workshop that writes, and a second one that waits."""
    async with workshop(folder / "data", without=("tagger", "trainer")) as shop:
        second = Second(shop, folder)
        await second.child.start()
        try:
            await second.until(WAITS)
            yield shop, second
        finally:
            await second.child.stop()


async def created(shop: Shop, count: int) -> list[str]:
    """The names of all data sets, as soon as the log has told of so many: it is followed beside the requests."""

    def enough() -> list[str] | None:
        names = [fact.name for fact in shop.story.facts(DatasetCreated)]
        return names if len(names) >= count else None

    return await shop.story.until(enough)


async def test_a_catalog_that_dies_takes_its_own_lease_back_or_the_other_does_at_once(tmp_path: Path) -> None:
    async with two(tmp_path) as (shop, _):
        await shop.wish("/datasets", "one", name="one")
        kill(shop.stack.pid_of("catalog"))
        await shop.wish("/datasets", "two", name="two")
        assert await created(shop, 2) == ["one", "two"]


async def test_a_catalog_that_stands_still_is_replaced_and_writes_nothing_when_it_wakes(tmp_path: Path) -> None:
    async with two(tmp_path) as (shop, second):
        await shop.wish("/datasets", "one", name="one")
        first = shop.stack.pid_of("catalog")
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        try:
            # Told to both while one of them cannot hear: it waits for that one when it wakes, too.
            wishes = [asyncio.create_task(shop.wish("/datasets", name, name=name)) for name in "abcdefgh"]
            await second.until("")
            await asyncio.gather(*wishes)
        finally:
            os.kill(first, signal.SIGCONT)
        async with asyncio.timeout(PATIENCE):
            while shop.stack.pid_of("catalog") == first:  # noqa: ASYNC110 - it ends by itself
                await asyncio.sleep(0.05)
        log = (tmp_path / "data" / "logs" / "catalog.log").read_text()
        assert "another catalog has taken the lease" in log
        # And what comes after it waits for the second.
        async with asyncio.timeout(PATIENCE):
            while WAITS not in why_not(shop.stack.data / "run" / "catalog.json", time.time()):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)
        await shop.wish("/datasets", "last", name="last")
        assert sorted(await created(shop, 10)) == sorted(["one", *"abcdefgh", "last"])
        assert second.why_not == ""
