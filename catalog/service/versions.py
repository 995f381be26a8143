"""Freezing a version: what every image is and says now, in one blob that never changes."""

import asyncio
from dataclasses import dataclass

from catalog.database import Connection
from catalog.domain import manifest
from catalog.domain.datasets import caption, missing
from catalog.domain.manifest import ManifestLine
from catalog.keys import CAPTION, Keys
from catalog.service.desk import Change, Desk
from catalog.store import checkpoint
from catalog.views import datasets, images, versions
from catalog.views.datasets import DatasetRow
from catalog.views.images import ImageRow
from catalog.views.versions import VersionRow
from contracts.commands import Origin, Receipt
from contracts.errors import Gone, Rejected
from contracts.events import VersionFrozen
from contracts.ids import DatasetId, Digest, ImageId, VersionId, derived
from contracts.sealed import open_sealed, seal
from contracts.wire.blobs import Blobs


@dataclass(frozen=True)
class Content:
    """All that a version is made of, read in one snapshot that stands at `as_of`."""

    row: DatasetRow
    latest: VersionRow | None
    as_of: int
    images: list[ImageRow]
    tags: dict[int, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """A version of a data set; `change` is what is still to be stored of it, nothing where it stands already."""

    dataset_id: DatasetId
    dataset: str
    number: int
    version_id: VersionId
    manifest: Digest
    images: int
    trigger: str
    change: Change | None = None


@dataclass(frozen=True)
class Versions:
    desk: Desk
    keys: Keys
    blobs: Blobs

    async def freeze(self, ref: str, trigger: str, origin: Origin) -> Receipt:
        """A new version, or the latest one where nothing has changed since. Rejected for an empty data set."""
        frozen = await self.draw_up(ref, trigger, origin)
        receipt = Receipt(id=frozen.version_id, name=frozen.dataset, version=frozen.number)
        if frozen.change is None:
            return self.desk.unchanged(receipt)
        return await self.desk.append(frozen.change, origin, receipt)

    async def draw_up(self, ref: str, trigger: str, origin: Origin) -> Frozen:
        """The version that the data set is now: its manifest is kept, its fact still to be stored."""
        content = await self.desk.store.read(lambda connection: _content(connection, ref))
        if not content.images:
            raise Rejected(
                f"the data set {content.row.name!r} is empty; bring in pictures first", reason="empty-dataset"
            )
        keys = await self.keys.keys_of([image.id for image in content.images])
        lines = await asyncio.to_thread(_lines, content, keys, trigger.strip())
        digest = await self.blobs.put(await asyncio.to_thread(manifest.encode, lines))
        latest = content.latest
        if latest is not None and (latest.manifest, latest.trigger) == (digest, trigger.strip()):
            return frozen_before(content.row, latest)
        fact = VersionFrozen(
            version=latest.number + 1 if latest else 1,
            version_id=frozen_by(origin),
            as_of=content.as_of,
            images=len(lines),
            manifest=digest,
            trigger=trigger.strip(),
        )
        return Frozen(
            dataset_id=content.row.id,
            dataset=content.row.name,
            number=fact.version,
            version_id=fact.version_id,
            manifest=digest,
            images=fact.images,
            trigger=fact.trigger,
            change=Change("dataset", content.row.id, [fact], content.row.head),
        )


def frozen_before(row: DatasetRow, version: VersionRow) -> Frozen:
    """A version that stands in the log."""
    return Frozen(
        dataset_id=row.id,
        dataset=row.name,
        number=version.number,
        version_id=version.version_id,
        manifest=version.manifest,
        images=version.images,
        trigger=version.trigger,
    )


def frozen_by(origin: Origin) -> VersionId:
    """The id of the version that a command freezes."""
    return VersionId(derived("ver", origin.command))


def _content(connection: Connection, ref: str) -> Content:
    row = datasets.find(connection, ref)
    if row is None:
        raise missing("data set", ref)
    if row.removed:
        raise Gone(f"the data set {row.name!r} was removed")
    ordinals = images.ordinals(connection, row.id)
    standings = images.standings(connection, row.id, ordinals)
    return Content(
        row=row,
        latest=versions.latest(connection, row.id),
        as_of=checkpoint(connection).sequence,
        images=images.at(connection, row.id, ordinals),
        tags={ordinal: standing.names for ordinal, standing in standings.items()},
    )


def _lines(content: Content, keys: dict[ImageId, bytes], trigger: str) -> list[ManifestLine]:
    """An image without a key was erased while this was read: it is left out."""
    return [
        ManifestLine(
            ordinal=image.ordinal,
            image=image.id,
            picture=image.picture,
            caption=_sealed_caption(image, keys[image.id], content.tags[image.ordinal], trigger),
            width=image.width,
            height=image.height,
            written=image.caption is not None,
        )
        for image in content.images
        if image.id in keys
    ]


def _sealed_caption(image: ImageRow, key: bytes, tags: tuple[str, ...], trigger: str) -> bytes:
    written = None if image.caption is None else open_sealed(key, image.caption, CAPTION)
    return seal(key, caption(written, tags, trigger), CAPTION)
