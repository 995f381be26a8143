"""The writer's lease on a real nats-server: one holds it, who waits gets it in the end, and who lost it knows."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from contracts import subjects
from contracts.errors import Unavailable
from contracts.wire.bus import Bus
from contracts.wire.lease import Lease, LeaseLost
from contracts.wire.life import Life
from contracts.wire.server import EmbeddedServer
from tests.conftest import BusOf
from tests.limits import WAIT

SECONDS = 2.0
ELSEWHERE = Life(machine="another machine", pid=1, started=1)
"""Nobody here can know whether it lives."""


@pytest.fixture
async def catalog(bus_of: BusOf) -> Bus:
    return await bus_of("catalog")


def lease(bus: Bus, life: Life = ELSEWHERE) -> Lease:
    return Lease(bus, seconds=SECONDS, life=life)


@asynccontextmanager
async def kept(held: Lease) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(held.keep())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_two_never_hold_it_and_who_waits_gets_it_when_it_has_run_out(catalog: Bus) -> None:
    first, second = lease(catalog), lease(catalog)
    await first.take()
    waiting = asyncio.create_task(second.take())
    while first.held:
        assert not second.held
        await asyncio.sleep(0.05)
    async with asyncio.timeout(WAIT):
        await waiting
    assert second.held
    with pytest.raises(LeaseLost):
        first.check()


async def test_it_is_kept_for_as_long_as_its_holder_lives_and_then_given_back(catalog: Bus) -> None:
    first, second = lease(catalog), lease(catalog)
    await first.take()
    waiting = asyncio.create_task(second.take())
    async with kept(first):
        await asyncio.sleep(2 * SECONDS)
        first.check()
        assert not second.held
    assert not first.held
    async with asyncio.timeout(SECONDS / 2 + 1):  # it need not run out
        await waiting


async def test_who_was_away_past_it_and_finds_another_is_lost(catalog: Bus) -> None:
    first, second = lease(catalog), lease(catalog)
    await first.take()
    async with asyncio.timeout(WAIT):
        await second.take()
    async with kept(second):
        with pytest.raises(LeaseLost):
            await first.keep()
        second.check()


async def test_who_was_away_past_it_and_finds_nobody_goes_on(catalog: Bus) -> None:
    first = lease(catalog)
    await first.take()
    await asyncio.sleep(SECONDS + 1)
    assert not first.held
    async with kept(first) as keeping:
        await _until_held(first)
        assert not keeping.done()


async def test_who_was_away_while_another_came_and_went_is_lost_too(catalog: Bus) -> None:
    """What the other wrote is not known here."""
    first, second = lease(catalog), lease(catalog)
    await first.take()
    async with asyncio.timeout(WAIT):
        await second.take()
    await asyncio.sleep(SECONDS + 1)
    with pytest.raises(LeaseLost):
        await first.keep()
    assert not first.held


async def test_a_renewal_that_was_stored_unheard_loses_nothing(catalog: Bus) -> None:
    first = lease(catalog)
    await first.take()
    before = first._sequence
    await first._write(before)
    first._sequence = before
    await first._renewed()
    first.check()


async def test_it_outlives_a_restart_of_the_server(catalog: Bus, server: EmbeddedServer) -> None:
    first, second = lease(catalog), lease(catalog)
    await first.take()
    async with kept(first):
        await server.restart()
        waiting = asyncio.create_task(second.take())
        await asyncio.sleep(2 * SECONDS)
        await _until_held(first)
        assert not second.held
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_without_the_bucket_nobody_writes(catalog: Bus, bus_of: BusOf) -> None:
    await (await bus_of("admin")).jetstream().delete_stream(subjects.LEASES)
    held = lease(catalog)
    with pytest.raises(Unavailable):
        await held._taken()
    assert not held.held


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_the_lease_of_a_process_that_died_here_is_free_at_once_and_of_one_that_is_stopped_is_not(
    catalog: Bus,
) -> None:
    process = await asyncio.create_subprocess_exec("sleep", "60")
    own = Life.own()
    started = int(_stat(process.pid)[19])
    first = lease(catalog, msgspec.structs.replace(own, pid=process.pid, started=started))
    second = lease(catalog, own)
    await first.take()
    os.kill(process.pid, signal.SIGSTOP)
    assert not await second._taken()
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    assert await second._taken()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_only_a_process_of_this_machine_is_known_to_be_dead() -> None:
    own = Life.own()
    assert not own.dead
    assert msgspec.structs.replace(own, started=own.started + 1).dead
    assert not msgspec.structs.replace(own, started=own.started + 1, machine="another").dead
    assert not Life(machine="", pid=own.pid, started=0).dead


async def _until_held(held: Lease) -> None:
    async with asyncio.timeout(WAIT):
        while not held.held:  # noqa: ASYNC110 - a lease tells nobody
            await asyncio.sleep(0.05)


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
