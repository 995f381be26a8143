"""A large data set in a data folder of its own, written to the log as the services would: for `benchmarks.bigset`.

Each image has 30 tags from its import and 30 predictions of one tagging run, over a vocabulary of 10,000 tags with
Zipf's frequencies. Then come 1,000 edits of single images, as many of one image, and 50 undos. Commits are signed with
the keys of the folder; blobs are small files of the right names and sizes; names are sealed. Neither archive nor read
model exist: the first start of a catalog makes them.
"""

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path

import msgspec

from benchmarks.tag_sampler import TAGS_PER_IMAGE, TagSampler
from catalog.domain.image_sets import image_set
from catalog.keys import KEYS, Keys
from contracts.commands.base import CommandMetadata
from contracts.commands.datasets import ImageResult
from contracts.commits import StreamRevision, build_commit, revision_of
from contracts.events.base import Event
from contracts.events.datasets import CommitsUndone, DatasetCreated, ImageAdded, TagsEdited
from contracts.events.service_keys import ServiceKeyRegistered, ServiceKeyRootEstablished, SigningService
from contracts.events.tagging import (
    ImagePredictions,
    TaggingAttemptStarted,
    TaggingPredicted,
    TaggingQueued,
    TaggingRequested,
    TaggingSucceeded,
)
from contracts.ids import DatasetId, Digest, ImageId, RunId, WorkerId, derived, new_command_id, ulid
from contracts.sealed import NAME, seal
from contracts.signatures import Signer, SigningKey
from contracts.wire.blobs.store import LocalBlobs
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.migration import migrate
from contracts.wire.log.service_keys import load_or_create_key
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import Bus, connect
from loratory.data_folder import DataFolder
from loratory.services import SIGNING_KEYS

DATASET, RUN = DatasetId(derived("ds", "bigset")), RunId(derived("run", "bigset"))
CATALOG: SigningService = "catalog"
TAGGER: SigningService = "tagger"
MARKER = "bigset.json"
IMAGES_PER_COMMIT = 100
EDITS = 1000
TOGGLED_TAGS = 10
UNDOS = 50
KEYS_AT_ONCE = 10_000
BLOBS_AT_ONCE = 5_000
BLOB_WRITERS = 3
"""Processes, because threads would wait for the interpreter of the one that writes the log."""
START_TIME = datetime(2026, 1, 1, tzinfo=UTC)


class BigDataset(msgspec.Struct, frozen=True, kw_only=True):
    """What was written. `edited` has EDITS edits of its own, `untouched` none since its import."""

    images: int
    import_sequence: int
    """Of the first commit with images; the others follow it."""
    sequence: int
    """The end of the log."""
    undos: int

    @property
    def edited(self) -> ImageId:
        return image_id(1)

    @property
    def untouched(self) -> ImageId:
        return image_id(2)

    def added_sequence(self, ordinal: int) -> int:
        return self.import_sequence + ordinal // IMAGES_PER_COMMIT


def image_id(ordinal: int) -> ImageId:
    return ImageId(derived("img", DATASET, str(ordinal)))


def batches(count: int, size: int) -> Iterator[range]:
    return (range(start, min(start + size, count)) for start in range(0, count, size))


@dataclass
class LogWriter:
    """Appends commits to the log, each signed by the service that may append its events."""

    logs: dict[str, EventLog]
    """By the name of the signer."""
    revisions: dict[str, StreamRevision] = field(default_factory=dict)
    sequence: int = 1
    correlation_id: str = ""

    async def append(self, kind: str, aggregate_id: str, *events: Event, signer: str = "catalog") -> int:
        """The sequence of the commit."""
        expected = self.revisions.get(aggregate_id, StreamRevision())
        at = START_TIME + timedelta(seconds=self.sequence)
        metadata = CommandMetadata(
            command_id=new_command_id(), actor="user:ann", at=at, correlation_id=self.correlation_id
        )
        result = ImageResult(id=aggregate_id)
        commit = build_commit(kind, aggregate_id, events, expected_revision=expected, metadata=metadata, result=result)
        recorded = await self.logs[signer].append(commit, expected)
        self.revisions[aggregate_id] = revision_of(recorded)
        self.sequence = recorded.sequence
        return recorded.sequence

    async def register_keys(self, keys: dict[str, SigningKey]) -> None:
        """The root key, and those of the services, before anything that they sign."""
        root, catalog, tagger = keys["root"], keys["catalog"], keys["tagger"]
        established = ServiceKeyRootEstablished(public_key=root.public.hex())
        await self.append("service-key", root.id, established, signer="root")
        for service, key in ((CATALOG, catalog), (TAGGER, tagger)):
            event = ServiceKeyRegistered(service=service, public_key=key.public.hex())
            await self.append("service-key", key.id, event, signer="root")


def source_of(ordinal: int) -> bytes:
    """The bytes of an image as received. Nothing decodes them here; the watch looks at names and sizes."""
    return b"source of image %d" % ordinal


def blobs_of(ordinal: int) -> tuple[bytes, bytes, bytes]:
    """Source, picture and thumbnail."""
    return source_of(ordinal), b"picture of image %d" % ordinal, b"thumbnail of image %d" % ordinal


def write_blobs(folder: Path, ordinals: range) -> None:
    """Without the syncs of `put`: only their names and sizes matter."""
    blobs, folders = LocalBlobs(folder), set[Path]()
    for ordinal in ordinals:
        for content in blobs_of(ordinal):
            path = blobs.path(Digest(hashlib.sha256(content).hexdigest()))
            if path.parent not in folders:
                path.parent.mkdir(parents=True, exist_ok=True)
                folders.add(path.parent)
            path.write_bytes(content)


def image_added(ordinal: int, key: bytes) -> ImageAdded:
    source, picture, thumbnail = (Digest(hashlib.sha256(content).hexdigest()) for content in blobs_of(ordinal))
    pixels = hashlib.sha256(b"pixels of image %d" % ordinal).digest()
    return ImageAdded(
        ordinal=ordinal,
        image_id=image_id(ordinal),
        source=source,
        picture=picture,
        thumbnail=thumbnail,
        pixels=Digest(pixels.hex()),
        dhash=pixels[:8].hex(),
        format="JPEG",
        width=1024 + 64 * (ordinal % 5),
        height=1536 - 64 * (ordinal % 7),
        size=len(source_of(ordinal)),
        name=seal(key, f"holiday {ordinal}.jpg", NAME),
    )


@dataclass
class DatasetWriter:
    """Writes the data set, its tagging run and its history."""

    log: LogWriter
    images: int
    keys: dict[ImageId, bytes]
    sampler: TagSampler
    tags: list[list[str]] = field(default_factory=list)

    async def write(self) -> BigDataset:
        await self.log.append("dataset", DATASET, DatasetCreated(name="bigset"))
        first = await self._import()
        await self._tag()
        edits = await self._edit()
        undos = await self._undo(edits[:UNDOS])
        return BigDataset(images=self.images, import_sequence=first, sequence=self.log.sequence, undos=undos)

    async def _import(self) -> int:
        """The sequence of the first commit."""
        self.log.correlation_id = ulid()
        first = self.log.sequence + 1
        for batch in batches(self.images, IMAGES_PER_COMMIT):
            self.tags += [self.sampler.draw(TAGS_PER_IMAGE) for _ in batch]
            added = [image_added(ordinal, self.keys[image_id(ordinal)]) for ordinal in batch]
            tagged = [
                TagsEdited(images=image_set([ordinal]), asserted=tuple(self.tags[ordinal]), source="import")
                for ordinal in batch
            ]
            await self.log.append("dataset", DATASET, *added, *tagged)
        self.log.correlation_id = ""
        return first

    async def _tag(self) -> None:
        requested = TaggingRequested(
            dataset_id=DATASET, dataset="bigset", model="wd", images=image_set(range(self.images)), count=self.images
        )
        await self.log.append("tagging", RUN, requested, TaggingQueued(priority="normal"))
        started = TaggingAttemptStarted(worker=WorkerId("tagger"), boot="boot", resumes=0)
        attempt = await self.log.append("tagging", RUN, started, signer="tagger")
        for batch in batches(self.images, IMAGES_PER_COMMIT):
            predicted = tuple(
                ImagePredictions(ordinal=ordinal, predictions=self.sampler.predictions(self.tags[ordinal]))
                for ordinal in batch
            )
            await self.log.append("tagging", RUN, TaggingPredicted(attempt=attempt, images=predicted), signer="tagger")
        await self.log.append("tagging", RUN, TaggingSucceeded(attempt=attempt, images=self.images), signer="tagger")

    async def _edit(self) -> list[tuple[int, int]]:
        """EDITS of random images, and as many of one; of the former the ordinals and sequences.

        The one gets a few tags again and again, and loses them: in the end it shows what it showed before.
        """
        edits: list[tuple[int, int]] = []
        for ordinal in self.sampler.rng.integers(3, self.images, EDITS).tolist():
            *asserted, rejected = self.sampler.draw(4)
            edits.append((ordinal, await self._edit_image(ordinal, asserted=tuple(asserted), rejected=(rejected,))))
        for tag in islice(cycle(self.sampler.draw(TOGGLED_TAGS)), EDITS // 2):
            await self._edit_image(1, asserted=(tag,))
            await self._edit_image(1, withdrawn=(tag,))
        return edits

    async def _edit_image(
        self,
        ordinal: int,
        *,
        asserted: tuple[str, ...] = (),
        rejected: tuple[str, ...] = (),
        withdrawn: tuple[str, ...] = (),
    ) -> int:
        edit = TagsEdited(images=image_set([ordinal]), asserted=asserted, rejected=rejected, withdrawn=withdrawn)
        return await self.log.append("dataset", DATASET, edit)

    async def _undo(self, edits: Sequence[tuple[int, int]]) -> int:
        """Undo each of these commits; returns how many they are."""
        for ordinal, sequence in edits:
            await self.log.append("dataset", DATASET, CommitsUndone(commits=(sequence,), images=image_set([ordinal])))
        return len(edits)


async def open_dataset(data: Path, images: int) -> tuple[BigDataset, bool]:
    """The data set in this data folder, and whether it was written now. ValueError: it holds something else."""
    if not (data / MARKER).exists():
        if (data / "nats").exists():
            raise ValueError(f"{data} holds a data set that was not finished, or none of this benchmark; delete it")
        return await write_dataset(data, images), True
    found = read_dataset(data)
    if found.images != images:
        raise ValueError(f"{data} holds a data set of {found.images} images, not {images}")
    return found, False


def read_dataset(data: Path) -> BigDataset:
    """FileNotFoundError: there is none, or it was not finished."""
    return msgspec.json.decode((data / MARKER).read_bytes(), type=BigDataset)


async def write_dataset(data: Path, images: int) -> BigDataset:
    with DataFolder(data) as folder, ProcessPoolExecutor(BLOB_WRITERS, get_context("spawn")) as processes:
        blobs = [processes.submit(write_blobs, folder / "blobs", some) for some in batches(images, BLOBS_AT_ONCE)]
        (folder / "catalog").mkdir(exist_ok=True)
        async with await Keys.open(folder / "catalog" / KEYS) as keys:
            signing_keys: dict[str, SigningKey] = {"root": await keys.root_key()}
            signing_keys |= {name: load_or_create_key(folder / SIGNING_KEYS[name]) for name in (CATALOG, TAGGER)}
            image_keys: dict[ImageId, bytes] = {}
            for batch in batches(images, KEYS_AT_ONCE):
                image_keys |= await keys.create_keys(map(image_id, batch))
        server = EmbeddedServer(folder / "nats", durable=False)
        async with server, await connect(server.url, *server.credentials("admin"), "benchmark") as bus:
            writer = LogWriter(await open_logs(bus, signing_keys))
            await writer.register_keys(signing_keys)
            written = await DatasetWriter(writer, images, image_keys, TagSampler(4)).write()
        server.sync()
        await asyncio.gather(*map(asyncio.wrap_future, blobs))
        (data / MARKER).write_bytes(msgspec.json.encode(written))
    return written


async def open_logs(bus: Bus, keys: dict[str, SigningKey]) -> dict[str, EventLog]:
    """A new log, once for each signer."""
    log_id = await migrate(bus, at=START_TIME, lease=15)
    logs = {name: EventLog(bus) for name in keys}
    for name, key in keys.items():
        logs[name].signer = Signer(key, log_id)
    return logs
