"""A real gateway on a real nats-server, with a fake catalog; and a complete local stack."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from contracts.wire.blobs.store import LocalBlobs
from contracts.wire.log.migration import migrate
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import Bus, connect
from contracts.wire.service.health import Health
from gateway.app import CHECKS, _update_health, bind, build_app, serve_http
from gateway.clients import CatalogClient
from gateway.http.metrics import Metrics
from gateway.http.uploads import Staging
from gateway.limits import HTTP_LIMITS, LIVE_LIMITS, UPLOAD_LIMITS, HttpLimits, LiveLimits, UploadLimits
from gateway.live.feed import LiveFeed
from gateway.live.image_ids import ImageIds
from gateway.settings import Settings
from tests.gateway.browser import BROWSER_ARGS, CHROMIUM, open_page
from tests.gateway.fake_catalog import FakeCatalog
from tests.limits import WAIT
from tests.ports import free_port


@dataclass
class Clock:
    """A monotonic clock that only a test puts forward: on a busy machine nothing expires too early."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return self.ahead


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of the gateway under test."""

    live: LiveLimits = LIVE_LIMITS
    upload: UploadLimits = UPLOAD_LIMITS
    http: HttpLimits = HTTP_LIMITS


NORMAL_LIMITS = Limits()


@dataclass
class World:
    """A running gateway and its surroundings."""

    url: str
    client: httpx.AsyncClient
    catalog: FakeCatalog
    feed: LiveFeed
    blobs: LocalBlobs
    staging: Path
    server: EmbeddedServer
    trainer: Bus
    tagger: Bus
    bus: Bus
    """The gateway's."""
    clock: Clock
    """Of the live feed."""

    async def silence_catalog(self) -> None:
        """The catalog announces nothing any more, and the feed notices at once."""
        last = await self.catalog.announce_last()

        async def is_received() -> bool:
            return self.feed.applied is not None and last in self.feed.applied.pending

        await eventually(is_received)  # an announcement that comes later would make it fresh again
        self.clock.ahead += LIVE_LIMITS.stale_after + 1

    @property
    def ws(self) -> str:
        return self.url.replace("http", "ws")


@contextlib.asynccontextmanager
async def world_at(
    folder: Path, *, key: str = "", limits: Limits = NORMAL_LIMITS, settings: Mapping[str, Any] = MappingProxyType({})
) -> AsyncIterator[World]:
    async with EmbeddedServer(folder / "nats") as server, contextlib.AsyncExitStack() as stack:
        admin, gateway, catalog_bus, trainer, tagger = buses = [
            await connect(server.url, *server.credentials(role), name=role)
            for role in ("admin", "gateway", "catalog", "trainer", "tagger")
        ]
        for bus in buses:
            stack.push_async_callback(bus.close)
        log_id = await migrate(admin, at=datetime.now(UTC), lease=15)
        catalog = FakeCatalog(catalog_bus, log_id)
        await stack.enter_async_context(catalog)
        listening = bind("127.0.0.1", 0)
        all_settings = Settings(
            staging=folder / "staging",
            sessions=folder / "sessions.json",
            api_key=key,
            supervision=folder / "supervision.json",
            **settings,
        )
        clock, blobs = Clock(), LocalBlobs(folder / "blobs")
        feed = LiveFeed(gateway, ImageIds(CatalogClient(gateway)), limits.live, clock)
        staging, health = Staging(all_settings.staging, limits.upload), Health("gateway", CHECKS, pid=os.getpid())
        staging.prepare()
        app = build_app(all_settings, gateway, feed, blobs, staging, health, Metrics(gateway, feed), limits.http)
        tasks = [
            asyncio.create_task(coroutine)
            for coroutine in (
                feed.run(),
                _update_health(gateway, feed, health, all_settings.supervision),
                serve_http(app, listening, feed),
            )
        ]
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, headers=headers, timeout=WAIT))
        try:
            await until_ready(client)
            yield World(
                url, client, catalog, feed, blobs, all_settings.staging, server, trainer, tagger, gateway, clock
            )
        finally:
            for task in reversed(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            listening.close()


async def until_ready(client: httpx.AsyncClient) -> None:
    async def ready() -> bool:
        return (await client.get("/health/ready")).status_code == 200

    await eventually(ready)


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = WAIT) -> None:
    """Polls a condition for which there is no event."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def limits() -> Limits:
    """A module with other limits has a fixture of this name."""
    return NORMAL_LIMITS


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_world(tmp_path_factory: pytest.TempPathFactory, limits: Limits) -> AsyncIterator[World]:
    async with world_at(tmp_path_factory.mktemp("world"), limits=limits) as running:
        yield running


@pytest.fixture
def world(module_world: World) -> World:
    """One world for all tests of a module: its log is not empty, but the catalog is as after its start."""
    module_world.catalog.reset()
    return module_world


@pytest_asyncio.fixture(loop_scope="module")
async def fresh_world(tmp_path: Path, limits: Limits) -> AsyncIterator[World]:
    """For tests that begin at the start of the log, or stop a part of the world."""
    async with world_at(tmp_path, limits=limits) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=BROWSER_ARGS)
        yield launched
        await launched.close()


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser) -> AsyncIterator[Page]:
    async with open_page(browser) as opened:
        yield opened


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a complete local stack without workers, for tests that need the real catalog."""
    port = free_port()
    data = tmp_path_factory.mktemp("stack") / "data"
    command = [
        sys.executable,
        "-m",
        "loratory",
        "up",
        "--data",
        str(data),
        "--port",
        str(port),
        "--no-trainer",
        "--no-tagger",
    ]
    log = (data.parent / "log").open("wb")
    with log, subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ)) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + WAIT
            while not _is_ready(url):
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.1)
            yield url
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(WAIT)


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health/ready").status_code == 200
    except httpx.TransportError:
        return False
