"""The whole workshop, with the log followed beside it: what was asked, what happened, who was killed and when."""

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

import msgspec
import pytest

from contracts import subjects
from contracts.commands import Receipt
from contracts.events import AnyFact, Stored
from contracts.jobs import Work, fold
from contracts.telemetry import Progress, TrainingProgress
from contracts.wire.bus import connect
from contracts.wire.follow import Follower
from contracts.wire.telling import hear
from loratory.answers import ImportedFiles
from loratory.client import AsyncClient
from loratory.http import Http
from loratory.services import Service
from loratory.stack import Stack

T = TypeVar("T")
F = TypeVar("F", bound=AnyFact)
P = "/api/v1"
PATIENCE = 240.0
"""Seconds anything may take before a test gives up; the machine may be busy with other things."""
LOST_LINES = pytest.mark.filterwarnings(
    # nats-py does not close the socket of a try to reconnect that failed half-way.
    r"ignore:Exception ignored in. <function StreamWriter.__del__:pytest.PytestUnraisableExceptionWarning"
)
ENVIRON = {**os.environ, "OMP_NUM_THREADS": "1"}


class Story:
    """Every commit of the log and every word of progress, as they come."""

    def __init__(self) -> None:
        self.commits: list[Stored] = []
        self.progress: dict[str, TrainingProgress] = {}
        self._news = asyncio.Condition()

    async def read(self, follower: Follower) -> None:
        async for batch in follower.batches():
            async with self._news:
                self.commits += batch
                self._news.notify_all()

    async def hear(self, told: Progress) -> None:
        async with self._news:
            if isinstance(told, TrainingProgress):
                self.progress[told.job_id] = told
            self._news.notify_all()

    async def until(self, found: Callable[[], T | None], within: float = PATIENCE) -> T:
        """What `found` gives as soon as it is true; looked at with each piece of news."""
        async with asyncio.timeout(within), self._news:
            while not (it := found()):
                await self._news.wait()
            return it

    def of(self, thing: str) -> list[tuple[AnyFact, Stored]]:
        return [
            (fact, stored) for stored in self.commits if stored.commit.thing == thing for fact in stored.commit.facts
        ]

    def facts(self, kind: type[F], thing: str | None = None) -> list[F]:
        return [
            fact
            for stored in self.commits
            if thing in (None, stored.commit.thing)
            for fact in stored.commit.facts
            if isinstance(fact, kind)
        ]

    def work(self, thing: str) -> Work:
        """The job or tagging run as the log has it."""
        return fold((fact, stored.sequence) for fact, stored in self.of(thing))

    def step(self, job: str) -> int:
        """The newest step that was told of."""
        return self.progress[job].step if job in self.progress else 0


class Curve(msgspec.Struct):
    steps: list[int]
    losses: list[float]


class Shop:
    """A workshop that stands, wishes with keys of their own, and the story."""

    def __init__(self, stack: Stack, story: Story, http: Http, client: AsyncClient) -> None:
        self.stack, self.story, self.client = stack, story, client
        self._http = http

    async def wish(self, path: str, key: str, **body: object) -> str:
        """The id of what was made; asked again with the same key while nobody answers."""
        return (await self._http.post(P + path, Receipt, lambda: {"json": body}, key=key)).id

    async def bring(self, dataset: str, files: list[Path], key: str) -> None:
        """One upload, sent again with the same key while nobody answers."""
        with ExitStack() as opened:
            sources = [(file.name, opened.enter_context(file.open("rb"))) for file in files]

            def body() -> dict[str, Any]:
                for _, source in sources:
                    source.seek(0)
                return {"files": [("files", source) for source in sources]}

            await self._http.post(f"{P}/datasets/{dataset}/images", ImportedFiles, body, key=key)

    async def losses(self, job: str) -> list[tuple[int, float]]:
        """The loss of each step."""
        curve = await self._http.get(f"{P}/jobs/{job}/metrics", Curve)
        return list(zip(curve.steps, curve.losses, strict=True))

    async def ended(self, thing: str) -> Work:
        """The work when it has ended."""
        await self.story.until(lambda: self.story.work(thing).ended)
        return self.story.work(thing)


@asynccontextmanager
async def workshop(
    data: Path, *, without: tuple[Service, ...] = (), environ: Mapping[str, str] = ENVIRON
) -> AsyncIterator[Shop]:
    """Everything started and ready, and ended at the end."""
    async with Stack(data, environ=environ, port=0, without=without) as stack:
        user, password = stack.nats.credentials("gateway")  # may read all and write nothing
        bus = await connect(stack.nats.url, user, password, "test")
        http, client = Http(stack.address, patience=PATIENCE), AsyncClient(stack.address, patience=PATIENCE)
        story = Story()
        reading = asyncio.create_task(story.read(Follower(bus, 0)))
        try:
            await hear(bus, subjects.ALL_PROGRESS, Progress, story.hear)
            await stack.wait_ready(timeout=PATIENCE)
            yield Shop(stack, story, http, client)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await asyncio.gather(client.close(), http.close(), bus.close())


def drawn(folder: Path, count: int) -> list[Path]:
    """Pictures of the project's own, in order."""
    command = [sys.executable, "-m", "trainer.demo.pictures", str(folder), "--count", str(count)]
    subprocess.run(command, check=True)
    return sorted(folder.glob("*.png"))


def child_of(pid: int | None) -> int:
    """The one process that this one has started. Linux."""
    assert pid is not None
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def kill(pid: int | None) -> float:
    """`kill -9`; when it was done."""
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return time.monotonic()
