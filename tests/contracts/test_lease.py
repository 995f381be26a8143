"""The single-writer lease, on a real nats-server."""

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
from contracts.wire.log.lease import RENEWALS_PER_LEASE, Lease, LeaseLost
from contracts.wire.log.process_identity import ProcessIdentity
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import Bus
from tests.conftest import BusOf
from tests.limits import WAIT

LEASE_SECONDS = 2.0
SHORT_LEASE_SECONDS = 1.0
"""Of leases that expire in a test."""
REMOTE_PROCESS = ProcessIdentity(machine="another machine", pid=1, started=1)
"""Whether it is dead cannot be determined on this machine."""


@pytest.fixture
async def catalog(bus_of: BusOf) -> Bus:
    return await bus_of("catalog")


def build_lease(bus: Bus, identity: ProcessIdentity = REMOTE_PROCESS, seconds: float = LEASE_SECONDS) -> Lease:
    return Lease(bus, seconds=seconds, process=identity)


def build_short_lease(bus: Bus) -> Lease:
    return build_lease(bus, seconds=SHORT_LEASE_SECONDS)


@asynccontextmanager
async def renewed(lease: Lease) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(lease.keep_renewed())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_only_one_process_holds_the_lease_and_a_waiting_one_acquires_it_after_expiry(catalog: Bus) -> None:
    first, second = build_short_lease(catalog), build_short_lease(catalog)
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    while first.is_held:
        assert not second.is_held
        await asyncio.sleep(0.05)
    async with asyncio.timeout(WAIT):
        await waiting
    assert second.is_held
    with pytest.raises(LeaseLost):
        first.check()


@pytest.mark.slow
async def test_the_lease_is_renewed_while_its_holder_runs_and_then_released(catalog: Bus) -> None:
    first, second = build_lease(catalog), build_lease(catalog)
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    async with renewed(first):
        await _until_renewed(first, 1.5 * LEASE_SECONDS)
        first.check()
        assert not second.is_held
    assert not first.is_held
    async with asyncio.timeout(LEASE_SECONDS / 2 + 1):  # released, so it need not expire
        await waiting


async def test_a_holder_that_paused_past_expiry_loses_the_lease_to_another(catalog: Bus) -> None:
    first, second = build_short_lease(catalog), build_lease(catalog)
    await first.acquire()
    async with asyncio.timeout(WAIT):
        await second.acquire()
    async with renewed(second):
        with pytest.raises(LeaseLost):
            await first.keep_renewed()
        second.check()


async def test_a_holder_that_paused_past_expiry_continues_if_the_lease_is_free(catalog: Bus) -> None:
    first = build_short_lease(catalog)
    await first.acquire()
    await _until_expired(first)
    assert not first.is_held
    async with renewed(first) as renewing:
        await _until_held(first)
        assert not renewing.done()


async def test_a_holder_that_paused_while_another_held_the_lease_loses_it(catalog: Bus) -> None:
    """Commits that the other holder appended are unknown to it."""
    first, second = build_short_lease(catalog), build_short_lease(catalog)
    await first.acquire()
    async with asyncio.timeout(WAIT):
        await second.acquire()
    await _until_expired(second)
    with pytest.raises(LeaseLost):
        await first.keep_renewed()
    assert not first.is_held


async def test_a_renewal_whose_acknowledgement_was_lost_keeps_the_lease(catalog: Bus) -> None:
    first = build_lease(catalog)
    await first.acquire()
    before = first._sequence
    await first._write(before)
    first._sequence = before
    await first._renew()
    first.check()
    assert first._sequence == before + 2


@pytest.mark.slow
async def test_the_lease_survives_a_restart_of_the_server(catalog: Bus, server: EmbeddedServer) -> None:
    first, second = build_lease(catalog), build_lease(catalog)
    await first.acquire()
    async with renewed(first):
        await server.restart()
        waiting = asyncio.create_task(second.acquire())
        await _until_renewed(first, 1.5 * LEASE_SECONDS)
        assert not second.is_held
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_without_the_bucket_the_lease_cannot_be_acquired(catalog: Bus, bus_of: BusOf) -> None:
    await (await bus_of("admin")).jetstream().delete_stream(subjects.LEASES)
    lease = build_lease(catalog)
    with pytest.raises(Unavailable):
        await lease._try_acquire()
    assert not lease.is_held


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_the_lease_of_a_dead_local_process_is_free_at_once_but_not_of_a_stopped_one(
    catalog: Bus,
) -> None:
    process = await asyncio.create_subprocess_exec("sleep", "60")
    own = ProcessIdentity.current()
    started = int(_stat(process.pid)[19])
    first = build_lease(catalog, msgspec.structs.replace(own, pid=process.pid, started=started))
    second = build_lease(catalog, own)
    await first.acquire()
    os.kill(process.pid, signal.SIGSTOP)
    assert not await second._try_acquire()
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    assert await second._try_acquire()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_only_a_process_of_this_machine_can_be_known_to_be_dead() -> None:
    own = ProcessIdentity.current()
    assert not own.is_dead
    assert msgspec.structs.replace(own, started=own.started + 1).is_dead
    assert not msgspec.structs.replace(own, started=own.started + 1, machine="another").is_dead
    assert not ProcessIdentity(machine="", pid=own.pid, started=0).is_dead


async def _until_held(lease: Lease) -> None:
    async with asyncio.timeout(WAIT):
        while not lease.is_held:  # noqa: ASYNC110 - a lease has no event to wait for
            await asyncio.sleep(0.05)


async def _until_renewed(lease: Lease, seconds: float) -> None:
    """Until it was renewed as often as in these seconds, from now on."""
    renewals, sequence = 0, lease._sequence
    async with asyncio.timeout(WAIT):
        while renewals < seconds / LEASE_SECONDS * RENEWALS_PER_LEASE:
            await asyncio.sleep(0.02)
            renewals, sequence = renewals + (lease._sequence != sequence), lease._sequence
    assert lease.is_held


async def _until_expired(lease: Lease) -> None:
    async with asyncio.timeout(WAIT):
        while (await lease._read())[1] is not None:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.05)
    assert not lease.is_held


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
