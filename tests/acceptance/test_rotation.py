"""`loratory keys rotate bus` on a running system that trains: no request fails, no step is lost, old keys are void."""

import asyncio
import os
import sys
from functools import partial
from pathlib import Path

import pytest

from contracts.errors import SetupError
from contracts.events.jobs import JobAttemptStarted, JobSucceeded
from contracts.wire.server.accounts import ROLES, SERVICES
from contracts.wire.service.bus import connect
from contracts.wire.service.credentials import SeedFile
from tests.acceptance.event_recorder import RecordedSystem, draw_pictures, running_system, use
from tests.acceptance.test_kills import RECIPE
from tests.damage import IGNORE_UNCLOSED_SOCKETS
from tests.limits import WAIT

pytestmark = [
    IGNORE_UNCLOSED_SOCKETS,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="as the other tests of a whole system"),
]
STEPS = 300
ROTATIONS = 2


async def rotate(system: RecordedSystem, which: str) -> bytes:
    """What is printed."""
    command = [sys.executable, "-m", "loratory", "keys", "rotate", which, "--data", str(system.stack.data)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=os.environ)
    out, error = await process.communicate()
    assert (process.returncode, error) == (0, b"")
    return out


def has_passed(system: RecordedSystem, job: str, step: int) -> bool:
    return system.recorder.step(job) > step


@pytest.mark.drill
async def test_keys_are_rotated_during_a_training(tmp_path: Path) -> None:
    pictures = draw_pictures(tmp_path / "pictures", 4)
    async with running_system(tmp_path / "data", without=("tagger",)) as system:
        old = {role: system.stack.nats.credentials(role)[1].path.read_text() for role in ROLES}
        pids = {service: system.stack.pid_of(service) for service in ("nats", "catalog", "gateway", "trainer")}
        dataset = await system.send("/datasets", "d1", name="cats")
        await system.upload(dataset, pictures, "u1")
        recipe = RECIPE | {"length": {"type": "steps", "count": STEPS}}
        job = await system.send("/training/single", "j1", dataset=dataset, trigger="crtr", changes=recipe)
        await system.recorder.wait_for(lambda: system.recorder.step(job))
        stopped = asyncio.Event()
        using = asyncio.create_task(use(system.stack.address, stopped))
        for _ in range(ROTATIONS):
            assert await rotate(system, "bus") == b"the bus has new keys, and all services use them\n"
            for service in ("catalog", "trainer"):
                assert b"has a new signing key" in await rotate(system, service)
            await system.recorder.wait_for(partial(has_passed, system, job, system.recorder.step(job)))
        await system.wait_ended(job)
        stopped.set()
        statuses = await using
        assert set(statuses) == {200, 201}
        assert len(system.recorder.events(JobAttemptStarted)) == 1
        assert len(system.recorder.events(JobSucceeded)) == 1
        assert [step for step, _ in await system.losses(job)] == list(range(1, STEPS + 1))
        assert {service: system.stack.pid_of(service) for service in pids} == pids
        for role in SERVICES:
            (tmp_path / role).write_text(old[role])
            with pytest.raises(SetupError, match="does not accept the nkey"):
                await connect(system.stack.nats.url, role, SeedFile(tmp_path / role), "test", timeout=0.5)


async def test_keys_are_rotated_of_a_system_that_does_not_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loratory", "keys", "rotate", "bus", "--data", str(tmp_path / "data")]
    pipe = asyncio.subprocess.PIPE

    async def run() -> tuple[int | None, str]:
        async with asyncio.timeout(WAIT):
            process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
            out, error = await process.communicate()
            return process.returncode, (out + error).decode()

    assert await run() == (2, f"loratory: {tmp_path / 'data'} is not a Loratory data folder\n")
    async with running_system(tmp_path / "data", without=("tagger", "trainer")):
        pass
    assert await run() == (0, "the bus has new keys, which the next start uses\n")
    async with running_system(tmp_path / "data", without=("tagger", "trainer")) as system:
        await system.send("/datasets", "d1", name="cats")
