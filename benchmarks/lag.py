"""Projection lag, from an accepted command to the read model: `python -m benchmarks.lag [COMMANDS]` (default: 500).

The stack is idle except for one writer, which appends edits of four tags of one image on the catalog's connection, as
its service does. Measured from the log's acknowledgement until a query of the read model returns that edit. The data
set has 1,000 images with all their edits and predictions; 20 ms between two commands. Milliseconds, wall clock.
"""

import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.synthetic_log import COMMITS_PER_DATASET, START_TIME, LogGenerator, SyntheticDataset, key_of
from catalog import views
from catalog.archive.archive import Archive
from catalog.database import Connection
from catalog.domain.image_sets import bitmap_of
from catalog.image_sets import SetReader
from catalog.projection import project
from catalog.store import Store
from catalog.views import decisions
from contracts.events.datasets import TagsEdited
from contracts.signatures import OwnSignatures, Signer
from contracts.telemetry import Applied
from contracts.wire.blobs.store import LocalBlobs
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.migration import migrate
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import Bus, connect
from contracts.wire.service.telemetry import publish

PAUSE_SECONDS = 0.02
TIMEOUT_SECONDS = 60.0


@asynccontextmanager
async def run_projection(bus: Bus, folder: Path) -> AsyncIterator[tuple[Store, OwnSignatures]]:
    """A read model kept up to date as in `catalog.app`, and what signs the appends."""
    archive = Archive(folder)
    store = Store(folder / "read.db", await archive.verify_on_start(EventLog(bus)), views)
    await archive.begin(key_of("root").public)

    async def announce(applied: Applied) -> None:
        await publish(bus, applied)

    read_sets = SetReader(archive, [LocalBlobs(folder / "blobs")]).read
    task = asyncio.create_task(project(bus, store, archive, announce, read_sets))
    try:
        yield store, archive.own_signatures
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()
        await archive.close()


async def write_dataset(bus: Bus, generator: LogGenerator) -> SyntheticDataset:
    """Write a complete data set to the log."""
    dataset = generator.new_dataset(0)
    messages = [*generator.key_messages(), *generator.opening_messages(dataset)]
    messages += [
        generator.encode_message(*generator.next_commit(dataset, action)) for action in reversed(dataset.pending_steps)
    ]
    for subject, body, headers in messages:
        await bus.jetstream().publish(subject, body, headers=headers)
    assert len(messages) == COMMITS_PER_DATASET + 7
    return dataset


async def measure_lag(log: EventLog, store: Store, generator: LogGenerator, dataset: SyntheticDataset) -> float:
    """Lag of one command in milliseconds."""
    commit, expected = generator.next_commit(dataset, "edit")
    (edit,) = commit.events
    assert isinstance(edit, TagsEdited)
    stored = await log.append(commit, expected)
    generator.encode_message(commit, expected)
    accepted = time.perf_counter()
    await store.wait_for(stored.sequence, TIMEOUT_SECONDS)

    def read_tags(connection: Connection) -> set[str]:
        (ordinal,) = bitmap_of(edit.images)
        return set(decisions.effective_tags(connection, dataset.id, [ordinal])[ordinal].names)

    visible = await store.read(read_tags)
    lag = (time.perf_counter() - accepted) * 1000
    assert set(edit.asserted) <= visible, (edit, visible)
    return lag


async def main(commands: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        async with EmbeddedServer(Path(name) / "nats") as server:
            admin, catalog = [
                await connect(server.url, *server.credentials(role), "benchmark") for role in ("admin", "catalog")
            ]
            await migrate(admin, at=START_TIME, lease=15)
            log_id, _ = await EventLog(admin).end()
            generator = LogGenerator(random.Random(4), log_id=log_id)
            dataset = await write_dataset(admin, generator)
            async with run_projection(catalog, Path(name)) as (store, own_signatures):
                await store.wait_for(generator.sequence, TIMEOUT_SECONDS)
                lags, log = [], EventLog(catalog)
                log.signer = Signer(key_of("catalog"), log_id, own_signatures)
                for _ in range(commands):
                    await asyncio.sleep(PAUSE_SECONDS)
                    lags.append(await measure_lag(log, store, generator, dataset))
            for bus in (admin, catalog):
                await bus.close()
    percentiles = statistics.quantiles(lags, n=100)
    median, p99 = percentiles[49], percentiles[98]
    print(f"accepted → visible: p50 {median:.2f} ms, p99 {p99:.2f} ms, max {max(lags):.2f} ms ({commands} commands)")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 500))
