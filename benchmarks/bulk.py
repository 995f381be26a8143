"""Cost of changes to a whole data set: `python -m benchmarks.bulk [IMAGES]` (default: 10,000).

Every image has 30 predictions. Then these commits are applied to the read model, one at a time: five tags added to all
images, the same removed, a threshold lowered and raised, half of the images removed. Seconds until readers see the
change: CPU time of this process, and wall clock.
"""

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.synthetic_log import START_TIME, LogGenerator, SyntheticDataset
from catalog import views
from catalog.domain.image_sets import image_set
from catalog.store import Store
from contracts.aggregates import AnyEvent
from contracts.commits import RecordedCommit, decode
from contracts.events.base import Event
from contracts.events.datasets import ImagesRemoved, TagsEdited, ThresholdsSet

IMAGES_PER_COMMIT = 100
TAGS = ("outdoors", "daylight", "photo", "sharp", "holiday")


class CommitWriter:
    """Builds commits as recorded in the log."""

    def __init__(self) -> None:
        self.generator = LogGenerator(random.Random(4), sequence=0)
        self.dataset: SyntheticDataset = self.generator.new_dataset(0)

    def write(self, aggregate_kind: str, aggregate_id: str, *events: AnyEvent) -> RecordedCommit:
        _, body, _ = self.generator.encode_message(*self.generator.build(aggregate_kind, aggregate_id, *events))
        return decode(self.generator.sequence, START_TIME, body)

    def initial_commits(self, images: int) -> Iterator[RecordedCommit]:
        """A data set with this number of images, all with predictions."""
        dataset = self.dataset
        for _, body, _ in self.generator.opening_messages(dataset):
            yield decode(self.generator.sequence, START_TIME, body)
        for start in range(0, images, IMAGES_PER_COMMIT):
            batch = range(start, min(start + IMAGES_PER_COMMIT, images))
            yield self.write(
                "dataset", dataset.id, *(self.generator.image_event(dataset, ordinal) for ordinal in batch)
            )
            for ordinal in batch:
                yield self.write("tagging", dataset.run, self.generator.predictions_event(dataset, ordinal))

    def changes(self, images: int) -> Iterator[tuple[str, RecordedCommit]]:
        all_ordinals, half = (image_set(range(0, images, next_commit)) for next_commit in (1, 2))
        events: tuple[tuple[str, Event], ...] = (
            ("five tags for all images", TagsEdited(images=all_ordinals, asserted=TAGS)),
            ("the same tags removed", TagsEdited(images=all_ordinals, rejected=TAGS)),
            ("threshold 0.35 → 0.25", ThresholdsSet(categories={"general": 0.25, "character": 0.85})),
            ("threshold 0.25 → 0.5", ThresholdsSet(categories={"general": 0.5, "character": 0.85})),
            ("half of the images removed", ImagesRemoved(images=half)),
        )
        for name, event in events:
            yield name, self.write("dataset", self.dataset.id, event)


async def main(images: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "read.db", "log", views)
        writer = CommitWriter()
        await store.apply(list(writer.initial_commits(images)))
        for name, recorded in writer.changes(images):
            wall, cpu = time.perf_counter(), time.process_time()
            await store.apply([recorded])
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            print(f"{name:<26} {cpu:6.2f} CPU s, {wall:6.2f} s ({images} images)")
        await store.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
