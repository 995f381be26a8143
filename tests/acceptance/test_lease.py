"""The writer lease with two catalogs: the second takes over from a dead or stopped one, which then writes nothing."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from contracts.events.datasets import DatasetCreated
from contracts.wire.service.health import unready_reason
from loratory.child import Child
from loratory.data_folder import DataFolder
from loratory.services import bus_settings, service_command, service_environment
from tests.acceptance.event_recorder import ENVIRON, TIMEOUT_SECONDS, RecordedSystem, kill, running_system
from tests.damage import IGNORE_UNCLOSED_SOCKETS

pytestmark = [
    IGNORE_UNCLOSED_SOCKETS,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

STANDBY_REASON = "another catalog writes"


class SecondCatalog:
    """Another catalog on the same bus and the same folder, so that both have the keys of private text."""

    def __init__(self, system: RecordedSystem, folder: Path) -> None:
        stack, self._health = system.stack, folder / "second.json"
        bus = bus_settings(stack.nats.url, *stack.nats.credentials("catalog"))
        environment = service_environment("catalog", DataFolder(stack.data), given=ENVIRON, settings=bus)
        own = {"LORATORY_HEALTH_FILE": str(self._health)}
        self.child = Child("second", service_command("catalog"), environment | own, folder / "second.log")

    @property
    def unready_reason(self) -> str:
        """Empty when it is ready."""
        return unready_reason(self._health, time.time())

    async def wait_standby(self) -> None:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while STANDBY_REASON not in self.unready_reason:  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.05)

    async def wait_ready(self) -> None:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while self.unready_reason:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)


@asynccontextmanager
async def two_catalogs(folder: Path) -> AsyncIterator[tuple[RecordedSystem, SecondCatalog]]:
    """A running system whose catalog writes, and a second catalog that waits."""
    async with running_system(folder / "data", without=("tagger", "trainer")) as system:
        second = SecondCatalog(system, folder)
        await second.child.start()
        try:
            await second.wait_standby()
            yield system, second
        finally:
            await second.child.stop()


async def dataset_names(system: RecordedSystem, count: int) -> list[str]:
    """The names of all data sets, once the recorder has read `count` of them: it reads beside the requests."""

    def names_if_complete() -> list[str] | None:
        names = [event.name for event in system.recorder.events(DatasetCreated)]
        return names if len(names) >= count else None

    return await system.recorder.wait_for(names_if_complete)


async def test_after_a_crash_the_catalog_reclaims_its_lease_or_the_other_takes_over(tmp_path: Path) -> None:
    async with two_catalogs(tmp_path) as (system, _):
        await system.send("/datasets", "one", name="one")
        kill(system.stack.pid_of("catalog"))
        await system.send("/datasets", "two", name="two")
        assert await dataset_names(system, 2) == ["one", "two"]


async def test_a_stopped_catalog_is_replaced_and_writes_nothing_when_it_resumes(tmp_path: Path) -> None:
    async with two_catalogs(tmp_path) as (system, second):
        await system.send("/datasets", "one", name="one")
        first = system.stack.pid_of("catalog")
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        try:
            # Both receive these while one is stopped; the stopped one finds them when it resumes.
            requests = [asyncio.create_task(system.send("/datasets", name, name=name)) for name in "abcdefgh"]
            await second.wait_ready()
            await asyncio.gather(*requests)
        finally:
            os.kill(first, signal.SIGCONT)
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while system.stack.pid_of("catalog") == first:  # noqa: ASYNC110 - it exits by itself
                await asyncio.sleep(0.05)
        log = (tmp_path / "data" / "logs" / "catalog.log").read_text()
        assert "another catalog has acquired the lease" in log
        # Its restarted process waits for the second catalog.
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while STANDBY_REASON not in unready_reason(system.stack.data / "run" / "catalog.json", time.time()):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)
        await system.send("/datasets", "last", name="last")
        assert sorted(await dataset_names(system, 10)) == sorted(["one", *"abcdefgh", "last"])
        await second.wait_ready()
