"""Wishes about data sets and their images, decided from rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import assert_never

from catalog.database import Connection
from catalog.domain import datasets as rules
from catalog.domain.datasets import Tagged, missing
from catalog.keys import CAPTION, Keys
from catalog.service.desk import Change, Desk
from catalog.service.erasing import Erasing
from catalog.service.imports import Imports, named
from catalog.service.versions import Versions
from catalog.views import datasets, erasures, images
from catalog.views.datasets import DatasetRow
from catalog.views.images import ImageRow
from contracts.commands import (
    CreateDataset,
    DatasetCommand,
    EditTags,
    EraseDataset,
    EraseImage,
    FreezeVersion,
    ImportImages,
    Origin,
    Receipt,
    RemoveDataset,
    RemoveImage,
    RenameDataset,
    ReplaceTags,
    SetCaption,
    SetThresholds,
)
from contracts.errors import Gone
from contracts.events import (
    DatasetCreated,
    DatasetFact,
    DatasetRemoved,
    DatasetRenamed,
    ImagesRemoved,
    ThresholdsSet,
)
from contracts.ids import ImageId, derived
from contracts.sealed import seal
from contracts.wire.log import Head

NAMES = "names"
"""The lane of all wishes that choose a name: two data sets cannot take the same one."""


@dataclass(frozen=True)
class Datasets:
    desk: Desk
    keys: Keys
    imports: Imports
    versions: Versions
    erasing: Erasing

    async def handle(self, command: DatasetCommand) -> Receipt:
        receipt = await self.desk.answered(command.origin) or await self._decided(command)
        return named(receipt, command.wish.files) if isinstance(command.wish, ImportImages) else receipt

    async def _decided(self, command: DatasetCommand) -> Receipt:  # noqa: PLR0911 - one arm for each wish
        origin = command.origin
        match command.wish:
            case CreateDataset() as wish:
                return await self.desk.settle(origin, NAMES, partial(self._create, wish, origin))
            case RenameDataset() as wish:
                return await self.desk.settle(origin, NAMES, partial(self._rename, wish, origin))
            case RemoveDataset(dataset=ref):
                return await self.desk.settle(origin, await self._lane_of(ref), partial(self._remove, ref, origin))
            case SetThresholds(dataset=ref) as wish:
                return await self.desk.settle(origin, await self._lane_of(ref), partial(self._thresholds, wish, origin))
            case FreezeVersion(dataset=ref, trigger=trigger):
                lane = await self._lane_of(ref)
                return await self.desk.settle(origin, lane, partial(self.versions.freeze, ref, trigger, origin))
            case ImportImages(dataset=ref, files=files):
                return await self.imports.bring_in(await self._lane_of(ref), ref, files, origin)
            case RemoveImage(image=image):
                lane = await self._lane_of_image(image)
                return await self.desk.settle(origin, lane, partial(self._remove_image, image, origin))
            case EraseImage(image=image):
                return await self.erasing.image(image, origin)
            case EraseDataset(dataset=ref):
                return await self.erasing.dataset(ref, origin)
            case ReplaceTags(image=image) | EditTags(image=image) as wish:
                lane = await self._lane_of_image(image)
                return await self.desk.settle(origin, lane, partial(self._tags, wish, origin))
            case SetCaption(image=image) as wish:
                lane = await self._lane_of_image(image)
                return await self.desk.settle(origin, lane, partial(self._caption, wish, origin))
            case other:
                assert_never(other)

    async def _lane_of(self, ref: str) -> str:
        return (await self.desk.store.read(lambda connection: present(connection, ref))).id

    async def _lane_of_image(self, image: ImageId) -> str:
        return (await self.desk.store.read(lambda connection: present_image(connection, image))).dataset_id

    async def _create(self, wish: CreateDataset, origin: Origin) -> Receipt:
        name = rules.clean(wish.name)
        if await self.desk.store.read(lambda connection: datasets.name_taken(connection, name)):
            raise rules.taken(name)
        thing = derived("ds", origin.command)
        fact = DatasetCreated(name=name, description=wish.description)
        receipt = Receipt(id=thing, name=name)
        return await self.desk.append(Change("dataset", thing, [fact], Head()), origin, receipt)

    async def _rename(self, wish: RenameDataset, origin: Origin) -> Receipt:
        name = rules.clean(wish.name)

        def look(connection: Connection) -> tuple[DatasetRow, DatasetRow | None]:
            return present(connection, wish.dataset), datasets.find(connection, name)

        row, holder = await self.desk.store.read(look)
        if holder is not None and holder.id != row.id:
            raise rules.taken(name)
        facts = [] if name == row.name else [DatasetRenamed(name=name)]
        return await self._done(row, facts, origin, Receipt(id=row.id, name=name))

    async def _remove(self, ref: str, origin: Origin) -> Receipt:
        row = await self.desk.store.read(lambda connection: present(connection, ref))
        return await self._done(row, [DatasetRemoved()], origin, Receipt(id=row.id, name=row.name))

    async def _thresholds(self, wish: SetThresholds, origin: Origin) -> Receipt:
        row = await self.desk.store.read(lambda connection: present(connection, wish.dataset))
        same = (wish.general, wish.character) == (row.general, row.character)
        facts = [] if same else [ThresholdsSet(general=wish.general, character=wish.character)]
        return await self._done(row, facts, origin, Receipt(id=row.id, name=row.name))

    async def _remove_image(self, image_id: ImageId, origin: Origin) -> Receipt:
        row, image = await self.desk.store.read(lambda connection: _both(connection, image_id))
        return await self._done(row, [ImagesRemoved(images=rules.one(image.ordinal))], origin, Receipt(id=image.id))

    async def _tags(self, wish: ReplaceTags | EditTags, origin: Origin) -> Receipt:
        seen = wish.seen if isinstance(wish, ReplaceTags) else None
        row, tagged = await self.desk.store.read(lambda connection: _tagged(connection, wish.image, seen))
        if isinstance(wish, ReplaceTags):
            fact = rules.replaced(tagged, wish.tags)
        else:
            fact = rules.edited(tagged, add=wish.add, remove=wish.remove)
        return await self._done(row, [] if fact is None else [fact], origin, Receipt(id=wish.image))

    async def _caption(self, wish: SetCaption, origin: Origin) -> Receipt:
        row, image = await self.desk.store.read(lambda connection: _both(connection, wish.image))
        rules.seen_once(wish.seen, added=image.added, current=image.etag)
        key = await self.keys.key_of(image.id)
        if key is None:
            raise Gone("the image was erased")
        wanted = None if wish.caption is None else seal(key, wish.caption, CAPTION)
        fact = rules.captioned(
            ordinal=image.ordinal, now=image.caption, changed_at=image.caption_sequence, wanted=wanted, seen=wish.seen
        )
        return await self._done(row, [] if fact is None else [fact], origin, Receipt(id=image.id))

    async def _done(self, row: DatasetRow, facts: Sequence[DatasetFact], origin: Origin, receipt: Receipt) -> Receipt:
        if not facts:
            return self.desk.unchanged(receipt)
        return await self.desk.append(Change("dataset", row.id, facts, row.head), origin, receipt)


def present(connection: Connection, ref: str) -> DatasetRow:
    """The data set of this name or id; NotFound, or Gone when it was removed."""
    row = datasets.find(connection, ref)
    if row is None:
        raise missing("data set", ref)
    if row.removed:
        raise Gone(f"the data set {row.name!r} was removed")
    return row


def present_image(connection: Connection, image_id: ImageId) -> ImageRow:
    row = images.find(connection, image_id)
    if row is None and erasures.find(connection, image_id) is not None:
        raise Gone("the image was erased for good")
    if row is None:
        raise missing("image", image_id)
    if row.removed:
        raise Gone("the image was removed from its data set")
    return row


def _both(connection: Connection, image_id: ImageId) -> tuple[DatasetRow, ImageRow]:
    image = present_image(connection, image_id)
    return present(connection, image.dataset_id), image


def _tagged(connection: Connection, image_id: ImageId, seen: int | None) -> tuple[DatasetRow, Tagged]:
    row, image = _both(connection, image_id)
    rules.seen_once(seen, added=image.added, current=image.etag)
    decisions = images.asserted(connection, image.dataset_id, image.ordinal)
    now = images.standings(connection, image.dataset_id, [image.ordinal])[image.ordinal].names
    return row, Tagged(
        ordinal=image.ordinal,
        now=now,
        seen=now if seen is None else images.seen_at(connection, image, seen),
        asserted=frozenset(tag for tag, choice in decisions.items() if choice.asserted),
        rejected=frozenset(tag for tag, choice in decisions.items() if not choice.asserted),
    )
