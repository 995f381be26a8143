"""A running stack, parts of which die: they are restarted, and clients that watch or wait do not notice."""

import asyncio
import contextlib
import os
import re
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from contracts.retry import RetryPolicy
from loratory import AsyncClient, restart_pause
from loratory.cli.doctor import Check, local_checks
from loratory.responses import Job
from loratory.restarts import RestartPolicy
from loratory.stack import Stack
from tests.limits import WAIT
from tests.loratory.processes import processes_of
from tests.loratory.test_stack import ENVIRON, NO_WORKERS

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
    pytest.mark.asyncio(loop_scope="module"),
]

RESTARTS = RestartPolicy(delays=RetryPolicy(first_delay=0.2), disk_poll=0.3)
DEATHS = 12
"""More than any earlier limit on restarts."""


class Lines:
    """What the stack prints. `await lines.wait_for(...)` looks only at lines that no earlier wait has passed."""

    def __init__(self) -> None:
        self.unread: list[str] = []
        self._printed = asyncio.Event()

    def __call__(self, line: str) -> None:
        self.unread.append(line)
        self._printed.set()

    async def wait_for(self, is_it: Callable[[str], bool]) -> None:
        async with asyncio.timeout(WAIT):
            while True:
                while self.unread:
                    if is_it(self.unread.pop(0)):
                        return
                self._printed.clear()
                await self._printed.wait()


@pytest.fixture(scope="module")
def lines() -> Lines:
    return Lines()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory, lines: Lines) -> AsyncIterator[Stack]:
    """One stack for all tests of this file; nothing of it is left when it has ended."""
    data = tmp_path_factory.mktemp("stack") / "data"
    stack = Stack(data, environ=ENVIRON, port=0, without=NO_WORKERS, print_line=lines, restarts=RESTARTS)
    async with stack:
        yield stack
    assert processes_of(data) == []


@pytest_asyncio.fixture(loop_scope="module")
async def stack(running: Stack, lines: Lines) -> AsyncIterator[Stack]:
    """Ready before each test, and again after it."""
    await running.wait_ready(timeout=WAIT)
    lines.unread.clear()
    yield running
    await running.wait_ready(timeout=WAIT)


def kill(stack: Stack, service: str) -> int:
    """The process id of what was killed."""
    pid = stack.pid_of(service)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


@pytest.mark.parametrize(
    "killed", ["nats", *(pytest.param(service, marks=pytest.mark.slow) for service in ("catalog", "gateway"))]
)
async def test_a_service_that_dies_is_restarted(stack: Stack, lines: Lines, killed: str) -> None:
    first = kill(stack, killed)
    await lines.wait_for(lambda line: line.startswith(killed) and "SIGKILL" in line)
    await lines.wait_for(lambda line: line == f"{killed:<9} ready")
    assert stack.pid_of(killed) not in (first, None)


@pytest.mark.slow
async def test_a_nats_server_whose_disk_was_full_is_restarted(stack: Stack, lines: Lines) -> None:
    """Otherwise it would store nothing more until its next start, even with free disk space."""
    async with AsyncClient(stack.address, retry_timeout=60) as client:
        await client.create_dataset("before")
        nats = stack.pid_of("nats")
        assert nats is not None
        # A limit on file sizes has the effect of a full disk.
        _, most = resource.prlimit(nats, resource.RLIMIT_FSIZE)
        resource.prlimit(nats, resource.RLIMIT_FSIZE, (1, most))
        creating = asyncio.create_task(client.create_dataset("after"))
        await asyncio.sleep(2)
        assert not creating.done()
        resource.prlimit(nats, resource.RLIMIT_FSIZE, (most, most))
        await creating
        assert stack.pid_of("nats") != nats
        assert {dataset.name for dataset in await client.datasets()} >= {"before", "after"}
    await lines.wait_for(lambda line: "disk space is available again" in line)


async def test_a_nats_server_that_cannot_be_restarted_yet_is_retried(stack: Stack, lines: Lines) -> None:
    in_the_way = stack.data / "nats" / ".server.conf.draft"
    in_the_way.mkdir()  # its configuration cannot be written, as on a full disk
    kill(stack, "nats")
    await lines.wait_for(lambda line: line.startswith("nats      waiting") and "it did not start" in line)
    in_the_way.rmdir()
    await lines.wait_for(lambda line: line == "nats      ready")


@pytest.mark.slow
async def test_a_nats_server_without_disk_space_is_not_started_until_there_is_some(
    stack: Stack, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each start would fail."""
    with monkeypatch.context() as full:  # filling a disk takes root
        full.setattr(restart_pause, "free_bytes", lambda _: 0)
        kill(stack, "nats")
        await lines.wait_for(lambda line: line == "nats      waiting for disk space; 0 MB free")
        await asyncio.sleep(1)
        assert not [line for line in lines.unread if line.startswith("nats")]
    await lines.wait_for(lambda line: line == "nats      ready")


@pytest.mark.slow
async def test_a_service_that_is_killed_again_and_again_is_started_again_and_again(stack: Stack, lines: Lines) -> None:
    for _ in range(DEATHS):
        async with asyncio.timeout(WAIT):
            while (pid := stack.pid_of("gateway")) is None:  # noqa: ASYNC110 - started by the supervisor
                await asyncio.sleep(0.01)
            os.kill(pid, signal.SIGKILL)
            while stack.pid_of("gateway") == pid:  # noqa: ASYNC110 - ended by the kernel
                await asyncio.sleep(0.01)
    assert "gateway" in stack.why_not_ready("gateway")
    await lines.wait_for(lambda line: line == "gateway   ready")


@pytest.mark.slow
async def test_a_catalog_that_cannot_write_is_started_until_it_can(stack: Stack, lines: Lines) -> None:
    """A limit on file sizes has the effect of a full disk. The gateway and `doctor` say what is waited for."""
    first = stack.pid_of("catalog")
    assert first is not None
    _, most = resource.prlimit(first, resource.RLIMIT_FSIZE)
    dying = asyncio.create_task(_limit_each_start(stack, most))
    async with httpx.AsyncClient(base_url=stack.address) as http, asyncio.timeout(WAIT):
        kill(stack, "catalog")
        for _ in range(DEATHS):
            await lines.wait_for(lambda line: line.startswith("catalog   waiting") and "it ended because" in line)
        while (await http.get("/health/ready")).json()["checks"]["catalog"]["ok"]:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
        services = {one["service"]: one for one in (await http.get("/health")).json()["services"]}
        assert services["catalog"]["status"] == "unhealthy"
        assert re.match(r"catalog: .*(waiting|starting).* again; it ended because ", services["catalog"]["detail"])
        waiting = await _services_check(stack)
        assert (waiting.verdict, waiting.text.partition(":")[0]) == ("bad", "catalog")
        assert stack.pid_of("gateway") is not None
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    if (pid := stack.pid_of("catalog")) is not None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))
    await lines.wait_for(lambda line: line == "catalog   ready")
    assert (await _services_check(stack)).verdict == "ok"


async def _services_check(stack: Stack) -> Check:
    checks = await asyncio.to_thread(lambda: list(local_checks(stack.data, 0, ENVIRON)))
    return next(check for check in checks if check.name == "services")


async def _limit_each_start(stack: Stack, most: int) -> None:
    """No catalog that starts may make a file larger than a byte."""
    limited = stack.pid_of("catalog")
    while True:
        pid = stack.pid_of("catalog")
        if pid is not None and pid != limited:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, most))
            limited = pid
        await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_watching_following_and_waiting_survive_a_killed_gateway(stack: Stack, image_folder: Path) -> None:
    async with AsyncClient(stack.address, retry_timeout=60) as client, asyncio.timeout(WAIT):
        await client.create_dataset("squares")
        await client.import_folder("squares", image_folder)
        job = await client.train("squares", preset="tiny-random-demo")
        first_event = asyncio.Event()
        watching = asyncio.create_task(_watch_cursors(client, job.id, first_event))
        following = asyncio.create_task(_follow_cursors(client, job.id))
        waiting: asyncio.Task[Job] = asyncio.create_task(client.wait_job(job.id))
        await first_event.wait()
        kill(stack, "gateway")
        await client.cancel_job(job.id)
        assert (await waiting).status == "cancelled"
        events = [event.cursor async for event in client.events(aggregate_id=job.id)]
        assert (await watching, await following) == (events, events)


async def _watch_cursors(client: AsyncClient, job: str, first_event: asyncio.Event) -> list[str]:
    """The cursors of all its events from the WebSocket; sets `first_event` after the first."""
    cursors = []
    async for frame in client.watch_job(job):
        if frame.seq is not None:
            cursors.append(frame.seq)
            first_event.set()
    return cursors


async def _follow_cursors(client: AsyncClient, job: str) -> list[str]:
    """The cursors of all its events from the event stream."""
    cursors = []
    async with aclosing(client.events(aggregate_id=job, follow=True)) as events:
        async for event in events:
            cursors.append(event.cursor)
            if event.type == "job.cancelled":
                break
    return cursors
