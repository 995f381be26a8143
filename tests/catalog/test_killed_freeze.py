"""A catalog killed in the middle of a freeze: after the start everything is as without the kill."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from contracts.events.base import Event
from contracts.ids import DatasetId, Digest, derived
from contracts.queries.datasets import GetVersion, ManifestEntry, ReadManifest
from contracts.wire.log.migration import migrate
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import connect
from tests.catalog.harness import CatalogHarness, open_catalog
from tests.catalog.killed_freeze import POINTS, create_images, freeze
from tests.catalog.test_watch import query
from tests.conftest import LEASE, NOW
from tests.limits import WAIT

pytestmark = pytest.mark.slow
CATS, JOB = DatasetId(derived("ds", "create")), derived("job", "freeze")
KINDS = ("version", "job")


@dataclass(frozen=True)
class Outcome:
    """All that a freeze leaves behind."""

    dataset_events: list[Event]
    job_events: list[Event]
    entries: tuple[ManifestEntry, ...]
    blobs: frozenset[Digest]


async def read_outcome(harness: CatalogHarness) -> Outcome:
    version = await query(harness, GetVersion(dataset="cats", version=1))
    return Outcome(
        await harness.events("dataset", CATS),
        await harness.events("job", JOB),
        tuple((await query(harness, ReadManifest(version_id=version.version_id))).items),
        frozenset([blob.digest async for part in harness.blobs.listing() for blob in part]),
    )


@asynccontextmanager
async def new_log(folder: Path) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(folder / "nats", durable=False) as server:
        async with await connect(server.url, *server.credentials("admin"), "test-admin") as admin:
            await migrate(admin, at=NOW, lease=LEASE)
        yield server


@asynccontextmanager
async def catalog_on(server: EmbeddedServer, folder: Path) -> AsyncIterator[CatalogHarness]:
    async with (
        await connect(server.url, *server.credentials("catalog"), "test-catalog") as bus,
        open_catalog(bus, folder / "data") as harness,
    ):
        yield harness


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """By kind, of a catalog that is not killed."""

    async def run(what: str, folder: Path) -> Outcome:
        async with new_log(folder) as server, catalog_on(server, folder) as harness:
            await create_images(harness)
            await freeze(harness, what)
            return await read_outcome(harness)

    return {what: asyncio.run(run(what, tmp_path_factory.mktemp(what))) for what in KINDS}


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("what", KINDS)
async def test_after_the_start_all_is_as_without_the_kill(
    tmp_path: Path, undisturbed: dict[str, Outcome], what: str, point: str
) -> None:
    async with new_log(tmp_path) as server:
        seed = server.credentials("catalog")[1].path
        program = [sys.executable, "-m", "tests.catalog.killed_freeze", server.url, str(seed)]
        process = await asyncio.create_subprocess_exec(*program, str(tmp_path / "data"), what, point)
        async with asyncio.timeout(WAIT):
            assert await process.wait() == -signal.SIGKILL
        async with catalog_on(server, tmp_path) as harness:
            await freeze(harness, what)  # the client got no answer, and repeats its request
            assert await read_outcome(harness) == undisturbed[what]
