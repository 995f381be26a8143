"""Freezing a version: every image with its caption and tags as they are now, in one immutable manifest blob."""

import asyncio
from dataclasses import dataclass

from catalog.database import Connection
from catalog.domain import manifest
from catalog.domain.datasets import build_caption, not_found
from catalog.domain.manifest import ManifestLine
from catalog.keys import CAPTION, Keys
from catalog.service.execution import Change, CommandExecutor
from catalog.store import checkpoint
from catalog.views import datasets, images, versions
from catalog.views.datasets import DatasetRow
from catalog.views.images import ImageRow
from catalog.views.versions import VersionRow
from contracts.commands import CommandMetadata, CommandResult, VersionResult
from contracts.errors import Gone, Rejected
from contracts.events import VersionFrozen
from contracts.ids import DatasetId, Digest, ImageId, VersionId, derived
from contracts.sealed import open_sealed, seal
from contracts.wire.blobs import Blobs


@dataclass(frozen=True)
class VersionContent:
    """Everything that goes into a version, read in one snapshot of the read model at log sequence `as_of`."""

    row: DatasetRow
    latest: VersionRow | None
    as_of: int
    images: list[ImageRow]
    tags: dict[int, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class FrozenVersion:
    """A version of a data set; `change` is the commit that is still to be appended, None if it is in the log."""

    dataset_id: DatasetId
    dataset: str
    number: int
    version_id: VersionId
    manifest: Digest
    images: int
    trigger: str
    change: Change | None = None


@dataclass(frozen=True)
class VersionFreezer:
    """Freezes data sets as versions."""

    executor: CommandExecutor
    keys: Keys
    blobs: Blobs

    async def freeze(self, ref: str, trigger: str, metadata: CommandMetadata) -> CommandResult:
        """A new version, or the latest one where nothing has changed since. Rejected for an empty data set."""
        version = await self.build_version(ref, trigger, metadata)
        result = VersionResult(id=version.version_id, name=version.dataset, version=version.number)
        if version.change is None:
            return self.executor.unchanged(result)
        return await self.executor.append(version.change, metadata, result)

    async def build_version(self, ref: str, trigger: str, metadata: CommandMetadata) -> FrozenVersion:
        """The data set as it is now: the manifest is stored, the event still has to be appended."""
        content = await self.executor.store.read(lambda connection: _read_content(connection, ref))
        if not content.images:
            raise Rejected(f"the data set {content.row.name!r} is empty; import images first", reason="empty-dataset")
        keys = await self.keys.keys_of([image.id for image in content.images])
        lines = await asyncio.to_thread(_build_manifest_lines, content, keys, trigger.strip())
        digest = await self.blobs.put(await asyncio.to_thread(manifest.encode, lines))
        latest = content.latest
        if latest is not None and (latest.manifest, latest.trigger) == (digest, trigger.strip()):
            return existing_version(content.row, latest)
        event = VersionFrozen(
            version=latest.number + 1 if latest else 1,
            version_id=version_id_for(metadata),
            as_of=content.as_of,
            images=len(lines),
            manifest=digest,
            trigger=trigger.strip(),
        )
        return FrozenVersion(
            dataset_id=content.row.id,
            dataset=content.row.name,
            number=event.version,
            version_id=event.version_id,
            manifest=digest,
            images=event.images,
            trigger=event.trigger,
            change=Change("dataset", content.row.id, [event], content.row.revision),
        )


def existing_version(row: DatasetRow, version: VersionRow) -> FrozenVersion:
    """A version that is in the log."""
    return FrozenVersion(
        dataset_id=row.id,
        dataset=row.name,
        number=version.number,
        version_id=version.version_id,
        manifest=version.manifest,
        images=version.images,
        trigger=version.trigger,
    )


def version_id_for(metadata: CommandMetadata) -> VersionId:
    """The id of the version that a command freezes."""
    return VersionId(derived("ver", metadata.command_id))


def _read_content(connection: Connection, ref: str) -> VersionContent:
    row = datasets.find(connection, ref)
    if row is None:
        raise not_found("data set", ref)
    if row.removed:
        raise Gone(f"the data set {row.name!r} was removed")
    ordinals = images.live_ordinals(connection, row.id)
    effective_tags = images.effective_tags(connection, row.id, ordinals)
    return VersionContent(
        row=row,
        latest=versions.find_latest(connection, row.id),
        as_of=checkpoint(connection).sequence,
        images=images.by_ordinals(connection, row.id, ordinals),
        tags={ordinal: tags.names for ordinal, tags in effective_tags.items()},
    )


def _build_manifest_lines(content: VersionContent, keys: dict[ImageId, bytes], trigger: str) -> list[ManifestLine]:
    """One line per image; an image without a key was erased after the snapshot was read and is left out."""
    return [
        ManifestLine(
            ordinal=image.ordinal,
            image=image.id,
            picture=image.picture,
            caption=_seal_caption(image, keys[image.id], content.tags[image.ordinal], trigger),
            width=image.width,
            height=image.height,
            written=image.caption is not None,
        )
        for image in content.images
        if image.id in keys
    ]


def _seal_caption(image: ImageRow, key: bytes, tags: tuple[str, ...], trigger: str) -> bytes:
    written = None if image.caption is None else open_sealed(key, image.caption, CAPTION)
    return seal(key, build_caption(written, tags, trigger), CAPTION)
