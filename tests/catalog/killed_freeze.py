"""A catalog that freezes a data set of three pages, and kills itself on the way: its process ends as by `kill -9`.

`python -m tests.catalog.killed_freeze URL SEED FOLDER WHAT POINT`, see `POINTS`.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from catalog.domain.manifest import PAGE_IMAGES
from contracts.commands.datasets import CreateDataset, FreezeVersion
from contracts.commands.jobs import CreateJob
from contracts.commits import Commit, RecordedCommit, StreamRevision
from contracts.events.datasets import VersionFrozen
from contracts.ids import DatasetId, Digest
from contracts.wire.blobs.store import LocalBlobs
from contracts.wire.log.event_log import EventLog
from contracts.wire.service.bus import connect
from contracts.wire.service.credentials import SeedFile
from tests.catalog.harness import CatalogHarness, open_catalog
from tests.catalog.log_builder import image_added

ORDINALS = (0, 1, PAGE_IMAGES, 5 * PAGE_IMAGES)
POINTS = ("put 0", "put 1", "put 2", "put 3", "append", "appended")
"""Before one of the three pages or the root is stored, before the version is appended, and before that is shown."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KillingBlobs(LocalBlobs):
    def __init__(self, root: Path, point: str) -> None:
        super().__init__(root)
        self.point, self.puts = point, 0

    async def put(self, content: bytes | Path) -> Digest:
        if f"put {self.puts}" == self.point:
            die()
        self.puts += 1
        return await super().put(content)


class KillingLog(EventLog):
    point = ""

    async def append_atomically(self, commits: Sequence[tuple[Commit, StreamRevision]]) -> list[RecordedCommit]:
        is_version = any(isinstance(event, VersionFrozen) for commit, _ in commits for event in commit.events)
        if is_version and self.point == "append":
            die()
        recorded = await super().append_atomically(commits)
        if is_version and self.point == "appended":
            die()
        return recorded


async def create_images(harness: CatalogHarness) -> DatasetId:
    """The same ids each time, and so the same pages."""
    dataset = DatasetId((await harness.execute(CreateDataset(name="cats"), "create")).id)
    added = [image_added(dataset, ordinal) for ordinal in ORDINALS]
    await harness.keys.create_keys(event.image_id for event in added)
    await harness.append("dataset", dataset, *added)
    return dataset


async def freeze(harness: CatalogHarness, what: str) -> None:
    """Also again: the command is the same."""
    if what == "version":
        await harness.execute(FreezeVersion(dataset="cats"), "freeze", "f")
    else:
        command = CreateJob(dataset="cats", trigger="sks", start=True)
        await harness.wait_until_frozen((await harness.execute(command, "freeze", "f")).id)


async def main(url: str, seed: str, folder: Path, what: str, point: str) -> None:
    bus = await connect(url, "catalog", SeedFile(Path(seed)), "killed")
    async with open_catalog(bus, folder, blobs=KillingBlobs(folder / "blobs", point)) as harness:
        await create_images(harness)
        log = harness.executor.log
        harness.executor.log = KillingLog(bus, verdicts=log.verdicts)
        harness.executor.log.signer, harness.executor.log.point = log.signer, point
        await freeze(harness, what)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4], sys.argv[5]))
