"""The catalog in-process, as app.py puts it together: a real log, real files, the real decoder."""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from PIL import Image

from catalog import views
from catalog.app import handlers
from catalog.archive import Archive
from catalog.database import Connection
from catalog.dispatch import Dispatcher
from catalog.ingest.outcomes import Limits
from catalog.ingest.pool import Decoder
from catalog.keys import Keys
from catalog.projection import project
from catalog.service.desk import Desk
from catalog.service.erasing import Erasing
from catalog.service.imports import Imports
from catalog.service.sweeping import Sweeper
from catalog.store import Store
from catalog.views import images
from catalog.views.images import ImageRow
from contracts.commands import (
    CreateDataset,
    DatasetCommand,
    DatasetWish,
    ImportImages,
    JobCommand,
    JobWish,
    Origin,
    PresetCommand,
    PresetWish,
    Receipt,
    StagedFile,
    TaggingCommand,
    TaggingWish,
)
from contracts.events import AnyFact, Commit, DatasetFact, Stored
from contracts.ids import CommandId, DatasetId, Digest, ImageId, ulid
from contracts.subjects import Kind
from contracts.telemetry import Applied
from contracts.wire.blobs import LocalBlobs
from contracts.wire.bus import Bus
from contracts.wire.log import EventLog, Head, draw_up
from contracts.wire.telling import tell_erased
from tests.catalog.histories import image_added
from tests.conftest import LEASE

Wish = DatasetWish | TaggingWish | PresetWish | JobWish


@dataclass
class House:
    bus: Bus
    desk: Desk
    imports: Imports
    dispatcher: Dispatcher
    blobs: LocalBlobs
    erasing: Erasing

    @property
    def keys(self) -> Keys:
        return self.imports.keys

    async def tell(self, wish: Wish, command: str | None = None, fingerprint: str = "", actor: str = "ann") -> Receipt:
        origin = Origin(
            command=CommandId(command or ulid()), actor=actor, at=datetime.now(UTC), fingerprint=fingerprint
        )
        kinds = (
            (DatasetCommand, DatasetWish),
            (TaggingCommand, TaggingWish),
            (PresetCommand, PresetWish),
            (JobCommand, JobWish),
        )
        kind = next(kind for kind, wishes in kinds if isinstance(wish, wishes))
        receipt = await handlers(self.imports, self.dispatcher, self.erasing)[kind](kind(origin=origin, wish=wish))  # type: ignore[arg-type]
        assert isinstance(receipt, Receipt)
        return receipt

    async def dataset(self, name: str = "cats", pictures: int = 0) -> DatasetId:
        """A data set with pictures that the log alone knows: enough for all that does not look at them."""
        dataset = DatasetId((await self.tell(CreateDataset(name=name))).id)
        if pictures:
            added = [image_added(dataset, ordinal) for ordinal in range(pictures)]
            await self.keys.new_keys(fact.image_id for fact in added)
            await self.say("dataset", dataset, *added)
        return dataset

    async def bring_in(self, dataset: str, *files: StagedFile, command: str | None = None) -> Receipt:
        return await self.tell(ImportImages(dataset=dataset, files=files), command)

    def staged(self, name: str, content: bytes, caption: str | None = None, tags: Sequence[str] = ()) -> StagedFile:
        token = ulid()
        (self.imports.staging / token).write_bytes(content)
        digest = Digest(hashlib.sha256(content).hexdigest())
        return StagedFile(token=token, name=name, digest=digest, size=len(content), caption=caption, tags=tuple(tags))

    async def say(self, kind: Kind, thing: str, *facts: AnyFact) -> int:
        """What another writer appends. Returns when it can be seen."""
        head = (await self.desk.log.load(kind, thing)).head
        origin = Origin(command=CommandId(ulid()), actor="other", at=datetime.now(UTC))
        stored = await EventLog(self.bus).append(draw_up(kind, thing, facts, after=head, origin=origin), head)
        await self.desk.store.wait_for(stored.sequence, 5)
        return stored.sequence

    async def facts(self, kind: Kind, thing: str) -> list[AnyFact]:
        return [fact for fact, _ in (await EventLog(self.bus).load(kind, thing)).facts()]

    async def image(self, image: str) -> ImageRow:
        row = await self.desk.store.read(lambda connection: images.find(connection, image))
        assert row is not None
        return row

    async def tags(self, image: str) -> set[str]:
        def look(connection: Connection) -> set[str]:
            row = images.find(connection, image)
            assert row is not None
            standing = images.standings(connection, row.dataset_id, [row.ordinal])[row.ordinal]
            return set(standing.names)

        return await self.desk.store.read(look)


@asynccontextmanager
async def opened(bus: Bus, folder: Path) -> AsyncIterator[House]:
    """A catalog that has caught up; opened again on the same folder it goes on where it stopped."""
    staging = folder / "staging"
    staging.mkdir(parents=True, exist_ok=True)
    archive = Archive(folder / "catalog")
    store = Store(folder / "catalog" / "read.db", await archive.judge(EventLog(bus)), views)
    keys, blobs = Keys(folder / "catalog" / "keys.db"), LocalBlobs(folder / "blobs")

    async def unheard(_: Applied) -> None:
        pass

    beside: list[asyncio.Task[None]] = [asyncio.create_task(project(bus, store, archive, unheard))]
    try:
        async with Decoder(Limits(), workers=1) as decoder:
            _, end = await EventLog(bus).end()
            await store.wait_for(end, 20)
            desk = Desk(EventLog(bus), store)
            imports = Imports(desk, keys, blobs, decoder, staging)
            dispatcher = Dispatcher(bus, store, desk.log, lease=LEASE)
            erasing = Erasing(desk, Sweeper(desk, keys, blobs, staging, imports.holds, partial(tell_erased, bus)))
            beside.append(asyncio.create_task(erasing.run()))
            yield House(bus, desk, imports, dispatcher, blobs, erasing)
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        for file in (keys, store, archive):
            await file.close()


class Overtaken(EventLog):
    """Another writer appends to the same data set between our look and our append, once for each of these facts."""

    def __init__(self, house: House, *facts: DatasetFact) -> None:
        super().__init__(house.bus)
        self._house, self._facts = house, list(facts)

    async def append_together(self, commits: Sequence[tuple[Commit, Head]]) -> list[Stored]:
        if self._facts:
            await self._house.say("dataset", commits[0][0].thing, self._facts.pop(0))
        return await super().append_together(commits)


def png(colour: int, size: tuple[int, int] = (32, 32), form: str = "PNG") -> bytes:
    """A small picture; another number is another picture."""
    out = io.BytesIO()
    Image.new("RGB", size, (colour * 40 % 256, colour * 90 % 256, 70)).save(out, form)
    return out.getvalue()


def of_image(dataset: str, ordinal: int) -> ImageId:
    return ImageId(f"img_{dataset}_{ordinal}")


def kinds(facts: Sequence[AnyFact] | Sequence[DatasetFact]) -> list[str]:
    return [type(fact).__name__ for fact in facts]
