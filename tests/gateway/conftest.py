"""A real gateway on a real nats-server, with a fake catalog; and a complete local stack."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from contracts.wire.blobs import LocalBlobs
from contracts.wire.boot import Health
from contracts.wire.bus import Bus, connect
from contracts.wire.server import EmbeddedServer
from contracts.wire.streams import migrate
from gateway.app import CHECKS, _serve_http, _update_health, bind, build_app
from gateway.http.uploads import Staging
from gateway.live import LiveFeed
from gateway.settings import Settings
from tests.gateway.fake_catalog import FakeCatalog
from tests.limits import WAIT


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
    admin: Bus

    @property
    def ws(self) -> str:
        return self.url.replace("http", "ws")


@contextlib.asynccontextmanager
async def world_at(folder: Path, *, key: str = "") -> AsyncIterator[World]:
    async with EmbeddedServer(folder / "nats") as server, contextlib.AsyncExitStack() as stack:
        admin, gateway, catalog_bus = [
            await connect(server.url, *server.credentials(role), name=role) for role in ("admin", "gateway", "catalog")
        ]
        for bus in (admin, gateway, catalog_bus):
            stack.push_async_callback(bus.close)
        log_id = await migrate(admin, at=datetime.now(UTC), lease=15)
        catalog = FakeCatalog(catalog_bus, log_id)
        await stack.enter_async_context(catalog)
        listening = bind("127.0.0.1", 0)
        settings = Settings(staging=folder / "staging", api_key=key)
        staging, feed, health = Staging(settings.staging), LiveFeed(gateway), Health("gateway", CHECKS, pid=os.getpid())
        staging.prepare()
        blobs = LocalBlobs(folder / "blobs")
        app = build_app(settings, gateway, feed, blobs, staging, health)
        tasks = [
            asyncio.create_task(coroutine)
            for coroutine in (feed.run(), _update_health(gateway, feed, health), _serve_http(app, listening, feed))
        ]
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, headers=headers, timeout=20))
        try:
            await until_ready(client)
            yield World(url, client, catalog, feed, blobs, settings.staging, server, admin)
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


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_at(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a complete local stack without workers, for tests that need the real catalog."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
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
            deadline = time.monotonic() + 60
            while not _is_ready(url):
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.1)
            yield url
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health/ready").status_code == 200
    except httpx.TransportError:
        return False
