"""Cost of comparing what is stored with what must be there: `python -m benchmarks.watch [IMAGES]`.

A read model of so many images (33,334: 100,000 blobs), their blobs as small files, their keys. CPU and wall time of one
comparison, as at the start of a catalog, with everything there and with a third of the blobs missing; medians. The page
cache is warm: a cold disk adds its own time, but nothing waits for that, because the catalog serves meanwhile.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from catalog import views
from catalog.keys import Keys
from catalog.store import Store
from catalog.watch.presence import ReadModelExpected, find_losses
from contracts.ids import Digest
from contracts.wire.blobs.store import LocalBlobs
from tests.catalog.log_builder import LOG_ID, LogBuilder, image_added, image_id

ROUNDS = 5
MAX_SECONDS = 3.0
"""Of CPU time, for 100,000 blobs."""
BLOBS_PER_IMAGE = 3


async def write_world(folder: Path, images: int) -> tuple[Store, LocalBlobs]:
    store, blobs = Store(folder / "read.db", LOG_ID, views), LocalBlobs(folder / "blobs")
    builder = LogBuilder()
    builder.create_dataset()
    for start in range(0, images, 50):
        numbers = range(start, min(start + 50, images))
        builder.append("dataset", "ds_cats", *(image_added("ds_cats", number) for number in numbers))
    await store.apply(builder.commits)
    async with await Keys.open(folder / "keys.db") as keys:
        await keys.create_keys(image_id("ds_cats", number) for number in range(images))
    await asyncio.to_thread(write_blobs, blobs, images)
    return store, blobs


def write_blobs(blobs: LocalBlobs, images: int) -> None:
    """Without the syncs of `put`: only their names and sizes matter here."""
    for number in range(images):
        added = image_added("ds_cats", number)
        for digest, size in ((added.source, added.size), (added.picture, 40), (added.thumbnail, 40)):
            path = blobs.path(digest)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(size))


async def measure(store: Store, blobs: LocalBlobs, keys: Path) -> tuple[float, float, int]:
    """CPU and wall seconds, and the number of losses."""
    cpu, wall = time.process_time(), time.perf_counter()
    losses = await find_losses(ReadModelExpected(store), blobs, keys, at=datetime.now(UTC))
    return time.process_time() - cpu, time.perf_counter() - wall, losses.report().total


async def main(images: int) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store, blobs = await write_world(folder, images)
        whole = [await measure(store, blobs, folder / "keys.db") for _ in range(ROUNDS)]
        await blobs.delete([Digest(image_added("ds_cats", number).thumbnail) for number in range(images)])
        lost = [await measure(store, blobs, folder / "keys.db") for _ in range(ROUNDS)]
        await store.close()
    limit = MAX_SECONDS * BLOBS_PER_IMAGE * images / 100_000
    for title, rounds in (("everything there", whole), ("a third missing", lost)):
        cpu, wall = (statistics.median(one[column] for one in rounds) for column in (0, 1))
        print(f"{title:<17} {BLOBS_PER_IMAGE * images} blobs: {cpu:.2f} s CPU, {wall:.2f} s ({rounds[0][2]} missing)")
    cpu = statistics.median(one[0] for one in whole)
    print(f"limit             {limit:.1f} s CPU with everything there: {'kept' if cpu <= limit else 'NOT KEPT'}")
    return 0 if cpu <= limit else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 33_334)))
