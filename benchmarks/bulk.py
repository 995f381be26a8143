"""What does a change of a whole data set cost? `python -m benchmarks.bulk [IMAGES]` (10,000).

Every image has 30 predictions. Then one commit each, put into the read model alone: five tags for all images, the same
taken back, a threshold moved down and up again, half of the images removed. Seconds until readers see it: CPU of this
process, and wall clock.
"""

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pyroaring import BitMap

from benchmarks.replay import START, Made, Maker
from catalog import views
from catalog.store import Store
from contracts import events as e
from contracts.subjects import Kind
from contracts.wire.log import decode

AT_ONCE = 100
TAGS = ("outdoors", "daylight", "photo", "sharp", "holiday")


class Book:
    """Writes commits as the log would hold them."""

    def __init__(self) -> None:
        self.maker = Maker(random.Random(4), sequence=0)
        self.made: Made = self.maker.begun(0)

    def write(self, kind: Kind, thing: str, *facts: e.AnyFact) -> e.Stored:
        _, body, _ = self.maker.message(*self.maker.draw(kind, thing, *facts))
        return decode(self.maker.sequence, START, body)

    def beginning(self, images: int) -> Iterator[e.Stored]:
        """A data set of so many images, all looked at."""
        made = self.made
        for _, body, _ in self.maker.prelude(made):
            yield decode(self.maker.sequence, START, body)
        for start in range(0, images, AT_ONCE):
            some = range(start, min(start + AT_ONCE, images))
            yield self.write("dataset", made.id, *(self.maker.image(made, ordinal) for ordinal in some))
            for ordinal in some:
                yield self.write("tagging", made.run, self.maker.predicted(made, ordinal))

    def changes(self, images: int) -> Iterator[tuple[str, e.Stored]]:
        everything, half = (bytes(BitMap(range(0, images, step)).serialize()) for step in (1, 2))
        facts: tuple[tuple[str, e.DatasetFact], ...] = (
            ("five tags for all", e.TagsEdited(images=everything, asserted=TAGS)),
            ("taken back", e.TagsEdited(images=everything, rejected=TAGS)),
            ("threshold 0.35 → 0.25", e.ThresholdsSet(general=0.25, character=0.85)),
            ("threshold 0.25 → 0.5", e.ThresholdsSet(general=0.5, character=0.85)),
            ("half of them removed", e.ImagesRemoved(images=half)),
        )
        for name, fact in facts:
            yield name, self.write("dataset", self.made.id, fact)


async def main(images: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "read.db", "log", views)
        book = Book()
        await store.apply(list(book.beginning(images)))
        for name, stored in book.changes(images):
            wall, cpu = time.perf_counter(), time.process_time()
            await store.apply([stored])
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            print(f"{name:<24} {cpu:6.2f} CPU s, {wall:6.2f} s ({images} images)")
        await store.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
