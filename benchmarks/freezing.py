"""Seconds to freeze a large data set: `python -m benchmarks.freezing [IMAGES]` (default: 100,000).

Every image has 30 tags and 30 predictions, and every tenth a written caption. The first version, one without changes,
one with another trigger, one after EDITS edits of random images, and the differences between versions; without log and
HTTP. `tags` is the time that the read model took for the effective tags alone. The yardstick is sha256 over 1 kB.
"""

import asyncio
import hashlib
import os
import random
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from benchmarks.tag_sampler import TAGS_PER_IMAGE, TagSampler
from catalog import views
from catalog.database import Connection
from catalog.domain import manifest
from catalog.domain.image_sets import image_set
from catalog.freezing.sources import open_source
from catalog.keys import Keys
from catalog.query_handlers.context import ManifestReader
from catalog.query_handlers.datasets import PAGES_COMPARED
from catalog.service.freezing import Freezer, FrozenVersion
from catalog.store import Store
from catalog.views import decisions
from catalog.watch.losses import Losses
from contracts.aggregates import AnyEvent
from contracts.commands.base import CommandMetadata
from contracts.commits import RecordedCommit, StreamRevision, build_commit, decode, revision_of
from contracts.events.datasets import CaptionSet, DatasetCreated, ImageAdded, TagsEdited
from contracts.events.tagging import (
    ImagePredictions,
    TaggingAttemptStarted,
    TaggingPredicted,
    TaggingQueued,
    TaggingRequested,
    TaggingSucceeded,
)
from contracts.ids import CommandId, DatasetId, Digest, ImageId, VersionId, WorkerId
from contracts.wire.blobs.store import LocalBlobs

IMAGES_PER_COMMIT, EDITS, BATCH = 100, 1_000, 50
DATASET = DatasetId("ds_large")


class Log:
    """Commits of one data set, as recorded."""

    def __init__(self) -> None:
        self.random, self.sequence, self.revisions = (
            random.Random(4),
            0,
            defaultdict[str, StreamRevision](StreamRevision),
        )
        self.sampler = TagSampler(4)

    def commit(self, *events: AnyEvent, kind: str = "dataset", aggregate_id: str = DATASET) -> RecordedCommit:
        self.sequence += 1
        at = datetime(2026, 11, 21, tzinfo=UTC)
        metadata = CommandMetadata(command_id=CommandId(f"c{self.sequence}"), actor="user:bench", at=at)
        revision = self.revisions[aggregate_id]
        commit = build_commit(kind, aggregate_id, events, expected_revision=revision, metadata=metadata)
        recorded = decode(self.sequence, at, msgspec.json.encode(commit))
        self.revisions[aggregate_id] = revision_of(recorded)
        return recorded

    def images(self, count: int) -> Iterator[RecordedCommit]:
        yield self.commit(DatasetCreated(name="large"))
        tags = [self.sampler.draw(TAGS_PER_IMAGE) for _ in range(count)]
        for some in batches(count):
            yield self.commit(*(self._image(ordinal) for ordinal in some))
            yield self.commit(*(self._tags(ordinal, tags[ordinal]) for ordinal in some))
        yield from self._run(count, tags)
        for ordinal in range(0, count, 10):
            yield self.commit(CaptionSet(ordinal=ordinal, caption=self.random.randbytes(120)))

    def _run(self, count: int, tags: Sequence[Sequence[str]]) -> Iterator[RecordedCommit]:
        run = partial(self.commit, kind="tagging", aggregate_id="run_1")
        requested = TaggingRequested(
            dataset_id=DATASET, dataset="large", model="wd", images=image_set(range(count)), count=count
        )
        yield run(requested, TaggingQueued(priority="normal"))
        started = run(TaggingAttemptStarted(worker=WorkerId("w"), boot="b", resumes=0))
        yield started
        for some in batches(count):
            found = (ImagePredictions(ordinal=each, predictions=self.sampler.predictions(tags[each])) for each in some)
            yield run(TaggingPredicted(attempt=started.sequence, images=tuple(found)))
        yield run(TaggingSucceeded(attempt=started.sequence, images=count))

    def edits(self, count: int) -> Iterator[RecordedCommit]:
        for ordinal in self.random.sample(range(count), min(EDITS, count)):
            yield self.commit(self._tags(ordinal, self.sampler.draw(2)))

    def _tags(self, ordinal: int, tags: Sequence[str]) -> TagsEdited:
        return TagsEdited(images=image_set([ordinal]), asserted=tuple(tags))

    def _image(self, ordinal: int) -> ImageAdded:
        source, picture, thumbnail, pixels = (
            Digest(hashlib.sha256(f"{kind} {ordinal}".encode()).hexdigest()) for kind in range(4)
        )
        return ImageAdded(
            source=source,
            picture=picture,
            thumbnail=thumbnail,
            pixels=pixels,
            ordinal=ordinal,
            image_id=image_id(ordinal),
            dhash="00ff00ff00ff00ff",
            format="PNG",
            width=1024,
            height=768,
            size=1_000_000,
            name=self.random.randbytes(40),
        )


def batches(count: int) -> Iterator[range]:
    return (range(start, min(start + IMAGES_PER_COMMIT, count)) for start in range(0, count, IMAGES_PER_COMMIT))


def image_id(ordinal: int) -> ImageId:
    return ImageId(f"img_{ordinal:026}")


class Bench:
    def __init__(self, folder: Path, images: int, keys: Keys) -> None:
        self.images, self.log = images, Log()
        self.store, self.blobs = Store(folder / "read.db", "log", views), LocalBlobs(folder / "blobs")
        self.freezer = Freezer(self.store, keys, self.blobs, Losses, partial(open_source, self.store))
        self.versions: list[FrozenVersion] = []

    async def apply(self, commits: Iterator[RecordedCommit]) -> None:
        batch: list[RecordedCommit] = []
        for recorded in commits:
            batch.append(recorded)
            if len(batch) == BATCH:
                await self.store.apply(batch)
                batch = []
        await self.store.apply(batch)

    async def freeze(self, name: str, trigger: str = "") -> None:
        started = time.perf_counter()
        async with self.freezer.draft(DATASET, trigger) as draft:
            frozen = await self.freezer.finish(draft, VersionId(f"ver_{self.log.sequence}"))
        report(name, started)
        if frozen.is_new:
            self.versions.append(frozen)
            await self.store.apply([self.log.commit(frozen.version)])

    async def tags(self) -> None:
        started = time.perf_counter()

        def read(connection: Connection) -> None:
            known: dict[int, str] = {}
            for start in range(0, self.images, manifest.PAGE_IMAGES):
                ordinals = range(start, min(start + manifest.PAGE_IMAGES, self.images))
                decisions.shown_tags(connection, DATASET, ordinals, known)

        await self.store.read(read)
        report("of which effective tags", started)

    async def diff(self, name: str, since: int, number: int) -> None:
        started, reader = time.perf_counter(), ManifestReader(self.blobs, self.blobs.size)
        before, after = [await reader.root(self.versions[index].version.manifest) for index in (since, number)]
        pages = manifest.differing_pages(before, after)
        left, lines = list(pages.values()), 0
        while left:
            some, left = left[:PAGES_COMPARED], left[PAGES_COMPARED:]
            lines += sum(map(len, await asyncio.gather(*map(reader.difference, some))))
        report(f"{name}: {lines} images in {len(pages)} pages", started)


def report(name: str, started: float) -> None:
    print(f"{name:<52} {time.perf_counter() - started:7.2f} s", flush=True)


def yardstick() -> str:
    body, started, count = b"." * 1000, time.perf_counter(), 200_000
    for _ in range(count):
        hashlib.sha256(body).digest()
    return f"{count / (time.perf_counter() - started):,.0f} sha256/s"


async def main(images: int) -> None:
    print(f"{images} images, load {os.getloadavg()[0]:.1f}, {yardstick()}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        async with await Keys.open(Path(name) / "keys.db") as keys:
            for start in range(0, images, 10_000):
                await keys.create_keys(image_id(ordinal) for ordinal in range(start, min(start + 10_000, images)))
            bench = Bench(Path(name), images, keys)
            await bench.apply(bench.log.images(images))
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            await bench.freeze("first version")
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            await bench.tags()
            await bench.freeze("nothing changed")
            await bench.freeze("another trigger", "sks")
            await bench.apply(bench.log.edits(images))
            await bench.freeze(f"after {EDITS} edits", "sks")
            await bench.diff("difference of the trigger", 0, 1)
            await bench.diff("difference of the edits", 1, 2)
            print(f"peak memory {before / 1024:.0f} MB before the first version, {after / 1024:.0f} MB after it")
            await bench.store.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
