"""Wishes to erase for good. The fact first: from then on it is erased; the sweep makes it so until nothing is left."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import structlog

from catalog.database import Connection
from catalog.domain import datasets as rules
from catalog.domain.datasets import missing
from catalog.service.desk import Change, Desk
from catalog.service.sweeping import Sweeper
from catalog.views import datasets, erasures, images
from catalog.views.datasets import DatasetRow
from catalog.views.erasures import ErasedRow
from catalog.views.images import ImageRow
from contracts.commands import Origin, Receipt
from contracts.errors import Behind, LogFull, Unavailable
from contracts.events import DatasetErased, DatasetFact, ImageErased
from contracts.ids import DatasetId, ImageId, new_command_id
from contracts.wire.tasks import wanted

AGAIN_SECONDS = 5.0
AT_ONCE = 500
"""Images erased again with one commit."""
SWEPT_WITHIN = 8.0
"""Seconds the answer waits for the sweep; it goes on whether or not."""

_log = structlog.get_logger()


@dataclass(frozen=True)
class Erasing:
    desk: Desk
    sweeper: Sweeper

    async def image(self, image: ImageId, origin: Origin) -> Receipt:
        """Also one that was taken out of its data set before. InUse: a job that has not ended needs it."""
        lane = await self.desk.store.read(lambda connection: _home_of(connection, image))
        receipt = await self.desk.settle(origin, lane, partial(self._image, image, origin))
        await self.sweeper.finish(SWEPT_WITHIN)
        return receipt

    async def dataset(self, ref: str, origin: Origin) -> Receipt:
        """Also one that was removed before, by its id."""
        lane = (await self.desk.store.read(lambda connection: _dataset(connection, ref))).id
        receipt = await self.desk.settle(origin, lane, partial(self._dataset, lane, origin))
        await self.sweeper.finish(SWEPT_WITHIN)
        return receipt

    async def run(self) -> None:
        """Make good what a restored log has forgotten, then sweep until cancelled."""
        done = False
        while wanted() and not done:
            try:
                await self._erase_again()
                done = True
            except (Unavailable, Behind, LogFull) as error:
                _log.warning("not_erased_again", error=error.detail)
                await asyncio.sleep(AGAIN_SECONDS)
        await self.sweeper.run()

    async def _image(self, image: ImageId, origin: Origin) -> Receipt:
        def look(connection: Connection) -> tuple[DatasetRow, ImageRow | None, list[str]]:
            row = _dataset(connection, _home_of(connection, image))
            found = images.find(connection, image)
            at_work = [] if found is None else erasures.at_work(connection, row.id, erasures.span_of(connection, image))
            return row, found, [*at_work]

        row, found, at_work = await self.desk.store.read(look)
        receipt = Receipt(id=image)
        if found is None:
            return self.desk.unchanged(receipt)
        rules.not_in_use(at_work)
        fact = ImageErased(ordinal=found.ordinal, image_id=image)
        return await self.desk.append(Change("dataset", row.id, [fact], row.head), origin, receipt)

    async def _dataset(self, dataset_id: DatasetId, origin: Origin) -> Receipt:
        def look(connection: Connection) -> tuple[DatasetRow, list[str]]:
            return _dataset(connection, dataset_id), [*erasures.at_work(connection, dataset_id)]

        row, at_work = await self.desk.store.read(look)
        receipt = Receipt(id=row.id, name=row.name)
        if row.erased:
            return self.desk.unchanged(receipt)
        rules.not_in_use(at_work)
        return await self.desk.append(Change("dataset", row.id, [DatasetErased()], row.head), origin, receipt)

    async def _erase_again(self) -> None:
        """The keys know of erasures that the log does not: it was restored from before them. They are said again."""
        after = ""
        while marked := await self.sweeper.keys.erased(after, AT_ONCE):
            after = marked[-1]
            revived = await self.desk.store.read(partial(_alive, marked))
            homes: defaultdict[DatasetId, list[ImageRow]] = defaultdict(list)
            for row in revived:
                homes[row.dataset_id].append(row)
            for dataset_id, rows in homes.items():
                origin = Origin(command=new_command_id(), actor="svc:catalog", at=datetime.now(UTC))
                await self.desk.settle(origin, dataset_id, partial(self._again, dataset_id, rows, origin))
                _log.warning("erased_again", dataset=dataset_id, images=len(rows))

    async def _again(self, dataset_id: DatasetId, rows: list[ImageRow], origin: Origin) -> Receipt:
        """No job is asked: what it would train on is gone."""
        row = await self.desk.store.read(lambda connection: _dataset(connection, dataset_id))
        facts: list[DatasetFact] = [ImageErased(ordinal=one.ordinal, image_id=one.id) for one in rows]
        return await self.desk.append(Change("dataset", row.id, facts, row.head), origin, Receipt(id=row.id))


def _home_of(connection: Connection, image: ImageId) -> DatasetId:
    """The data set an image is or was in; NotFound if it never was."""
    row: ImageRow | ErasedRow | None = images.find(connection, image) or erasures.find(connection, image)
    if row is None:
        raise missing("image", image)
    return row.dataset_id


def _alive(wanted: list[ImageId], connection: Connection) -> list[ImageRow]:
    """Those of these images that the log does not know to be erased."""
    return [row for image in wanted if (row := images.find(connection, image)) is not None]


def _dataset(connection: Connection, ref: str) -> DatasetRow:
    row = datasets.find(connection, ref)
    if row is None:
        raise missing("data set", ref)
    return row
