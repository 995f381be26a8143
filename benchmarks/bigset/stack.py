"""A stack on the data folder of the large data set, its client, and what /proc says of its catalog. Linux."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import httpx

from benchmarks.big_dataset import DATASET, BigDataset, LogWriter
from benchmarks.tag_sampler import TagSampler
from catalog.domain.image_sets import image_set
from contracts import subjects
from contracts.commits import revision_of
from contracts.events.datasets import TagsEdited
from contracts.signatures import Signer
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.service_keys import load_or_create_key
from contracts.wire.service.bus import connect
from contracts.wire.service.jetstream import find_message
from loratory.services import CORE_SERVICES, SIGNING_KEYS
from loratory.stack import Stack

START_TIMEOUT_SECONDS = 900.0
REQUEST_TIMEOUT_SECONDS = 120.0
SHOWN_TIMEOUT_SECONDS = 300.0
POLL_SECONDS = 0.05
BEHIND = 503
READS = 100
"""Requests whose CPU time is measured together."""

Request = Awaitable[httpx.Response]
Check = Callable[[], Awaitable[bool]]


@dataclass
class Bench:
    """The data folder with the data set in it, and the peak memory of the catalogs that ran on it."""

    data: Path
    dataset: BigDataset
    peak_mb: float = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator["RunningStack"]:
        """A stack without workers, ready to serve."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("LORATORY_")}
        started = time.perf_counter()
        async with Stack(self.data, environ=environ, port=0, without=("tagger", "trainer")) as stack:
            await stack.wait_ready(CORE_SERVICES, timeout=START_TIMEOUT_SECONDS)
            seconds = time.perf_counter() - started
            limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
            timeout = httpx.Timeout(REQUEST_TIMEOUT_SECONDS)
            async with httpx.AsyncClient(base_url=stack.address, limits=limits, timeout=timeout) as http:
                yield RunningStack(stack, http, self.dataset, seconds)
                self.peak_mb = max(self.peak_mb, peak_memory(pid_of_catalog(stack)))

    async def seconds_to_start(self) -> float:
        async with self.running() as running:
            return running.start_seconds


@dataclass
class RunningStack:
    """A stack that serves, and a client of it."""

    stack: Stack
    http: httpx.AsyncClient
    dataset: BigDataset
    start_seconds: float
    sampler: TagSampler = field(default_factory=lambda: TagSampler(time.time_ns()))

    @property
    def path(self) -> str:
        return f"/api/v1/datasets/{DATASET}"

    async def get(self, path: str, **params: str | int) -> Any:
        response = await self.http.get(path, params=params)
        response.raise_for_status()
        return response.json()

    async def offers(self, path: str, parameters: Iterable[str] = ()) -> bool:
        """Whether the API has GET of this path, as its schema names it, with these query parameters."""
        operation = (await self.get("/openapi.json"))["paths"].get(path, {}).get("get")
        named = {parameter["name"] for parameter in operation.get("parameters", ())} if operation else set()
        return operation is not None and named.issuperset(parameters)

    async def seconds(self, request: Request) -> float:
        """A request that succeeds."""
        started = time.perf_counter()
        response = await request
        response.raise_for_status()
        return time.perf_counter() - started

    async def milliseconds_of(self, path: str, repeats: int, **params: str | int) -> list[float]:
        return [await self.seconds(self.http.get(path, params=params)) * 1000 for _ in range(repeats)]

    async def seconds_until_shown(self, request: Request, is_shown: Check) -> tuple[float, str]:
        """Until the request is answered and readers see the change, and what was answered instead of a success.

        Infinite if they do not see it in time.
        """
        started = time.perf_counter()
        response = await request
        note = "" if response.is_success else f"answered {response.status_code}"
        try:
            async with asyncio.timeout(SHOWN_TIMEOUT_SECONDS):
                while not await is_shown():  # noqa: ASYNC110 - over HTTP
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            return inf, note
        return time.perf_counter() - started, note

    async def append_edit(self, tags: tuple[str, ...]) -> int:
        """Append an edit that gives all images these tags, signed as by the catalog; returns its sequence."""
        nats, key = self.stack.nats, load_or_create_key(self.stack.data / SIGNING_KEYS["catalog"])
        async with await connect(nats.url, *nats.credentials("admin"), "benchmark") as bus:
            log = EventLog(bus)
            log.signer = Signer(key, (await log.end())[0])
            writer = LogWriter({"catalog": log})
            last = await find_message(bus.jetstream(), subjects.EVENTS, subject=subjects.aggregate("dataset", DATASET))
            recorded = await log.commit_at(last.seq or 0) if last else None
            assert recorded is not None, "the data set has no commits"
            writer.revisions[DATASET] = revision_of(recorded)
            edit = TagsEdited(images=image_set(range(self.dataset.images)), asserted=tags)
            return await writer.append("dataset", DATASET, edit)

    async def wait_until_shown(self, sequence: int) -> None:
        """Reads wait for a sequence some seconds, then they are refused."""
        path, params = f"{self.path}/tags", {"limit": 1, "min_seq": sequence}
        async with asyncio.timeout(SHOWN_TIMEOUT_SECONDS):
            while (await self.http.get(path, params=params)).status_code == BEHIND:
                pass

    async def cpu_of(self, path: str, repeats: int, **params: str | int) -> float:
        """CPU milliseconds of the catalog for one GET."""
        pid = pid_of_catalog(self.stack)
        before = cpu_seconds(pid)
        await self.milliseconds_of(path, repeats, **params)
        return (cpu_seconds(pid) - before) * 1000 / repeats


def pid_of_catalog(stack: Stack) -> int:
    pid = stack.pid_of("catalog")
    if pid is None:
        raise RuntimeError("the catalog does not run")
    return pid


def cpu_seconds(pid: int) -> float:
    """Of all threads that run now."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def peak_memory(pid: int) -> float:
    """In MB, since the process began."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024


def forget_cached_files(folder: Path) -> None:
    """Drop the files below a folder from the page cache, as after a start of the machine."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
