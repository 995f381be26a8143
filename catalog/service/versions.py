"""Freezing a version: every image with its caption and tags as they are now, in one immutable manifest blob."""

import asyncio
from dataclasses import dataclass

from catalog.database import Connection
from catalog.domain import manifest
from catalog.domain import versions as rules
from catalog.domain.compose import compose
from catalog.lookup import require_dataset
from catalog.service.context import CommandContext, locked
from catalog.service.execution import Change, CommandOutcome
from catalog.service.locks import Scope
from catalog.store import checkpoint
from catalog.views import decisions, images, versions
from catalog.views.datasets import DatasetRow
from catalog.watch.requirements import keys_of
from contracts.commands.base import CommandMetadata
from contracts.commands.datasets import FreezeVersion, VersionResult
from contracts.errors import Rejected
from contracts.events.datasets import VersionFrozen
from contracts.ids import ImageId, VersionId, derived
from contracts.sealed import CAPTION, open_sealed, seal


@dataclass(frozen=True)
class DatasetContent:
    """Everything that goes into a version, read in one snapshot of the read model at log sequence `as_of`."""

    row: DatasetRow
    latest: VersionFrozen | None
    as_of: int
    images: list[images.ImageRow]
    tags: dict[int, tuple[str, ...]]


@dataclass(frozen=True)
class FrozenVersion:
    """A version of a data set; `is_new`: it is not in the log yet."""

    dataset: DatasetRow
    version: VersionFrozen
    is_new: bool = False

    @property
    def change(self) -> Change:
        """The change that freezes it, without events if it is in the log."""
        return Change("dataset", self.dataset.id, [self.version] if self.is_new else [], self.dataset.revision)


@locked(lambda connection, command: Scope((require_dataset(connection, command.dataset).id,)))
async def freeze_version(context: CommandContext, metadata: CommandMetadata, command: FreezeVersion) -> CommandOutcome:
    """A new version, or the latest one where nothing has changed since."""
    frozen = await build_version(context, metadata, command.dataset, command.trigger)
    result = VersionResult(id=frozen.version.version_id, name=frozen.dataset.name, version=frozen.version.version)
    return CommandOutcome(result, [frozen.change])


async def build_version(context: CommandContext, metadata: CommandMetadata, ref: str, trigger: str) -> FrozenVersion:
    """The data set as it is now; its manifest is stored as a blob. Rejected: the data set is empty.

    KeyMissing, Lost: the caption of an image cannot be read.
    """
    read = await context.read(lambda connection: _read_content(connection, ref))
    if not read.images:
        raise Rejected(f"the data set {read.row.name!r} is empty; import images first", reason="empty-dataset")
    keys, absent = await keys_of(context.executor.store, context.keys, (image.id for image in read.images))
    absent.require()
    lines = await asyncio.to_thread(_build_manifest_lines, read, keys, trigger.strip())
    digest = await context.blobs.put(await asyncio.to_thread(manifest.encode, lines))
    content = rules.FrozenContent(manifest=digest, images=len(lines), as_of=read.as_of, latest=read.latest)
    version = rules.freeze(content, version_id_for(metadata), trigger.strip())
    return FrozenVersion(read.row, version, is_new=version is not read.latest)


def version_id_for(metadata: CommandMetadata) -> VersionId:
    """The id of the version that a command freezes."""
    return VersionId(derived("ver", metadata.command_id))


def _read_content(connection: Connection, ref: str) -> DatasetContent:
    row = require_dataset(connection, ref)
    ordinals = images.live_ordinals(connection, row.id)
    latest = versions.find_latest(connection, row.id)
    effective_tags = decisions.effective_tags(connection, row.id, ordinals)
    return DatasetContent(
        row=row,
        latest=None if latest is None else latest.event,
        as_of=checkpoint(connection).sequence,
        images=images.by_ordinals(connection, row.id, ordinals),
        tags={ordinal: tags.names for ordinal, tags in effective_tags.items()},
    )


def _build_manifest_lines(
    content: DatasetContent, keys: dict[ImageId, bytes], trigger: str
) -> list[manifest.ManifestLine]:
    """One line per image; an image without a key was erased after the snapshot was read and is left out."""
    return [
        compose(
            manifest.ManifestLine,
            image,
            image=image.id,
            caption=_seal_caption(image, keys[image.id], content.tags[image.ordinal], trigger),
            written=image.caption is not None,
        )
        for image in content.images
        if image.id in keys
    ]


def _seal_caption(image: images.ImageRow, key: bytes, tags: tuple[str, ...], trigger: str) -> bytes:
    written = None if image.caption is None else open_sealed(key, image.caption, CAPTION)
    return seal(key, rules.build_caption(written, tags, trigger), CAPTION)
