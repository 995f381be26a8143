"""A running local stack whose log is recorded while a test sends commands and kills processes."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec

from contracts.aggregates import AnyEvent
from contracts.commands.base import CommandResult
from contracts.commands.datasets import ImportedFile
from contracts.commits import RecordedCommit, decode_message
from contracts.jobs import Work, fold
from contracts.telemetry import Progress, TaggingProgress, TrainingProgress
from contracts.wire.log.follow import Follower, FollowPolicy
from contracts.wire.service.bus import connect
from contracts.wire.service.telemetry import subscribe
from loratory.client import AsyncClient
from loratory.http import Http, Items
from loratory.services import Service
from loratory.stack import Stack

T = TypeVar("T")
E = TypeVar("E", bound=AnyEvent)
API = "/api/v1"
TIMEOUT_SECONDS = 240.0
"""How long a test waits for anything before it gives up; the machine may be busy with other work."""
ROUND_SECONDS = 0.05
"""The pause of `use` after each round: without it, this load takes most of the machine."""
ENVIRON = {**os.environ, "OMP_NUM_THREADS": "1"}


class EventRecorder:
    """All commits of the log and the last progress message of each job, as they arrive."""

    def __init__(self) -> None:
        self.commits: list[RecordedCommit] = []
        self.progress: dict[str, TrainingProgress] = {}
        self._changed = asyncio.Condition()

    async def read(self, follower: Follower) -> None:
        async for batch in follower.batches():
            async with self._changed:
                self.commits += [decode_message(message) for message in batch]
                self._changed.notify_all()

    async def on_progress(self, progress: Progress) -> None:
        async with self._changed:
            if isinstance(progress, TrainingProgress):
                self.progress[progress.job_id] = progress
            self._changed.notify_all()

    async def wait_for(self, condition: Callable[[], T | None], timeout: float = TIMEOUT_SECONDS) -> T:
        """The value of `condition` once it is true; evaluated after each commit and progress message."""
        async with asyncio.timeout(timeout), self._changed:
            while not (value := condition()):
                await self._changed.wait()
            return value

    def events_with_commits(self, aggregate_id: str) -> list[tuple[AnyEvent, RecordedCommit]]:
        return [
            (event, recorded)
            for recorded in self.commits
            if recorded.commit.aggregate_id == aggregate_id
            for event in recorded.commit.events
        ]

    def events(self, event_type: type[E], aggregate_id: str | None = None) -> list[E]:
        """Events of one type, of one aggregate or of all."""
        return [
            event
            for recorded in self.commits
            if aggregate_id in (None, recorded.commit.aggregate_id)
            for event in recorded.commit.events
            if isinstance(event, event_type)
        ]

    def work(self, work_id: str) -> Work:
        """The state of a job or tagging run according to the log."""
        return fold((event, recorded.sequence) for event, recorded in self.events_with_commits(work_id))

    def step(self, job: str) -> int:
        """The last published step."""
        return self.progress[job].step if job in self.progress else 0


class Curve(msgspec.Struct):
    steps: list[int]
    losses: list[float]


class RecordedSystem:
    """A running stack with its recorder. Requests carry an Idempotency-Key and are retried until answered."""

    def __init__(self, stack: Stack, recorder: EventRecorder, http: Http, client: AsyncClient) -> None:
        self.stack, self.recorder, self.client = stack, recorder, client
        self._http = http

    async def send(self, path: str, key: str, **body: object) -> str:
        """POST a command; returns the id of what it created."""
        return (await self._http.post(API + path, CommandResult, lambda: {"json": body}, key=key)).id

    async def upload(self, dataset: str, files: list[Path], key: str) -> None:
        with ExitStack() as opened:
            sources = [(file.name, opened.enter_context(file.open("rb"))) for file in files]

            def body() -> dict[str, Any]:
                for _, source in sources:
                    source.seek(0)
                return {"files": [("files", source) for source in sources]}

            await self._http.post(f"{API}/datasets/{dataset}/images", Items[ImportedFile], body, key=key)

    async def losses(self, job: str) -> list[tuple[int, float]]:
        """Step and loss of each step."""
        curve = await self._http.get(f"{API}/jobs/{job}/metrics", Curve)
        return list(zip(curve.steps, curve.losses, strict=True))

    async def wait_ended(self, work_id: str) -> Work:
        """The state of a job or tagging run once it has ended."""
        await self.recorder.wait_for(lambda: self.recorder.work(work_id).ended)
        return self.recorder.work(work_id)


@asynccontextmanager
async def running_system(
    data: Path, *, without: tuple[Service, ...] = (), environ: Mapping[str, str] = ENVIRON
) -> AsyncIterator[RecordedSystem]:
    """Start all services, wait until they are ready, and stop them at the end."""
    async with Stack(data, environ=environ, port=0, without=without) as stack:
        bus = await connect(stack.nats.url, *stack.nats.credentials("gateway"), "test")  # may read, and append nothing
        http = Http(stack.address, retry_timeout=TIMEOUT_SECONDS)
        client = AsyncClient(stack.address, retry_timeout=TIMEOUT_SECONDS)
        recorder = EventRecorder()
        reading = asyncio.create_task(recorder.read(Follower(bus, 0, policy=FollowPolicy(poll=0.05))))
        try:
            await subscribe(bus, TrainingProgress, recorder.on_progress)
            await subscribe(bus, TaggingProgress, recorder.on_progress)
            await stack.wait_ready(timeout=TIMEOUT_SECONDS)
            yield RecordedSystem(stack, recorder, http, client)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await asyncio.gather(client.close(), http.close(), bus.close())


def draw_pictures(folder: Path, count: int) -> list[Path]:
    """Pictures of the demo world, in order."""
    command = [sys.executable, "-m", "demo_world.pictures", str(folder), "--count", str(count)]
    subprocess.run(command, check=True)
    return sorted(folder.glob("*.png"))


def child_pid(pid: int | None) -> int:
    """The only child process of `pid`; ValueError if there is none. Linux."""
    assert pid is not None
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def kill(pid: int | None) -> float:
    """`kill -9`; returns the time of the signal (monotonic clock)."""
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return time.monotonic()


async def use(address: str, stopped: asyncio.Event) -> list[int]:
    """Writes and reads, one after the other and without any retries; their status codes."""
    statuses: list[int] = []
    async with httpx.AsyncClient(base_url=address, trust_env=False, timeout=30) as http:
        while not stopped.is_set():
            statuses.append((await http.post("/api/v1/datasets", json={"name": f"set {len(statuses)}"})).status_code)
            statuses.append((await http.get("/api/v1/datasets")).status_code)
            statuses.append((await http.get("/api/v1/jobs")).status_code)
            await asyncio.sleep(ROUND_SECONDS)
    return statuses
