"""How long after a command was accepted does the read model show it? `python -m benchmarks.lag [COMMANDS]` (500).

The stack is idle but for one writer: it appends an edit of four tags of one image on a connection of its own, as an
owner does. From the log's acknowledgement on the time is taken until a question to the read model shows that edit. A
data set of 1,000 images with all their edits and predictions; 20 ms between two commands. Milliseconds, wall clock.
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

from benchmarks.replay import ROUND, START, Made, Maker
from catalog import views
from catalog.archive import Archive
from catalog.database import Connection
from catalog.projection import project
from catalog.store import Store
from catalog.views import images
from catalog.views.sets import unpacked
from contracts.events import TagsEdited
from contracts.telemetry import Applied
from contracts.wire.bus import Bus, connect
from contracts.wire.log import EventLog
from contracts.wire.server import EmbeddedServer
from contracts.wire.streams import migrate
from contracts.wire.telling import tell_applied

PAUSE = 0.02
FAR = 60.0


@asynccontextmanager
async def projecting(bus: Bus, folder: Path) -> AsyncIterator[Store]:
    """The read model as `catalog.app` keeps it."""
    archive = Archive(folder)
    store = Store(folder / "read.db", await archive.judge(EventLog(bus)), views)

    async def announce(applied: Applied) -> None:
        await tell_applied(bus, applied)

    task = asyncio.create_task(project(bus, store, archive, announce))
    try:
        yield store
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()
        await archive.close()


async def worked_on(bus: Bus, maker: Maker) -> Made:
    """A data set whose whole life so far is in the log."""
    made = maker.begun(0)
    messages = list(maker.prelude(made))
    messages += [maker.message(*maker.step(made, what)) for what in reversed(made.deck)]
    for subject, body, headers in messages:
        await bus.jetstream().publish(subject, body, headers=headers)
    assert len(messages) == ROUND + 3
    return made


async def lag_of(log: EventLog, store: Store, maker: Maker, made: Made) -> float:
    """Of one command, in milliseconds."""
    commit, after = maker.step(made, "edit")
    (edit,) = commit.facts
    assert isinstance(edit, TagsEdited)
    stored = await log.append(commit, after)
    maker.message(commit, after)
    accepted = time.perf_counter()
    await store.wait_for(stored.sequence, FAR)

    def look(connection: Connection) -> set[str]:
        (ordinal,) = unpacked(edit.images)
        return set(images.standings(connection, made.id, [ordinal])[ordinal].names)

    shown = await store.read(look)
    lag = (time.perf_counter() - accepted) * 1000
    assert set(edit.asserted) <= shown, (edit, shown)
    return lag


async def main(commands: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        async with EmbeddedServer(Path(name) / "nats") as server:
            admin, owner, catalog = [
                await connect(server.url, *server.credentials(role), "benchmark")
                for role in ("admin", "catalog", "catalog")
            ]
            await migrate(admin, at=START, lease=15)
            maker = Maker(random.Random(4))
            made = await worked_on(admin, maker)
            async with projecting(catalog, Path(name)) as store:
                await store.wait_for(maker.sequence, FAR)
                lags = []
                for _ in range(commands):
                    await asyncio.sleep(PAUSE)
                    lags.append(await lag_of(EventLog(owner), store, maker, made))
            for bus in (admin, owner, catalog):
                await bus.close()
    cuts = statistics.quantiles(lags, n=100)
    print(
        f"accepted → shown: p50 {cuts[49]:.2f} ms, p99 {cuts[98]:.2f} ms, most {max(lags):.2f} ms ({commands} commands)"
    )


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 500))
