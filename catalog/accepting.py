"""Gives up what is lost and of which no copy exists: `log.loss_accepted`, and a new key file where that is lost."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Literal, TypeVar

import msgspec

from catalog.archive.archive import Archive, open_archive
from catalog.entries import lineage
from catalog.key_file import open_keys, read_content
from catalog.keys import KEYS
from catalog.mending import KeyCopies, OnProgress, open_read_model, read_erased, replace_key_file
from catalog.restoring import append_log_event
from catalog.settings import Settings
from catalog.store import Store
from catalog.views import images, live_blobs
from contracts.errors import SetupError
from contracts.events.log import MAX_ACCEPTED_LOSSES, LossAccepted
from contracts.ids import Digest, ImageId, ulid
from contracts.wire.blobs.store import Blobs, blobs_at
from contracts.wire.service.bus import Bus
from contracts.wording import count

T = TypeVar("T")
LostKind = Literal["blobs", "images", "keys"]
"""`images`: keys of images. `keys`: the whole key file."""
MAX_LISTED = 20
"""Maximum number of losses that are listed one by one."""


class Lost(msgspec.Struct, frozen=True):
    """What is lost: blobs, and images whose keys are; `lines` describe both for people."""

    blobs: tuple[Digest, ...] = ()
    images: tuple[ImageId, ...] = ()
    lines: tuple[str, ...] = ()


async def find_lost(settings: Settings, kind: LostKind) -> Lost:
    """What `accept_loss` would give up now. SetupError: nothing of this kind is lost."""
    async with open_archive(settings.catalog) as archive, await open_read_model(settings, archive) as store:
        match kind:
            case "blobs":
                lost = await _lost_blobs(store, blobs_at(settings.blobs))
            case "images":
                lost = await _lost_images(settings, archive, store)
            case "keys":
                lost = await _lost_key_file(settings, archive, store)
    if not lost.lines:
        raise SetupError(f"no {kind} are lost")
    return lost


async def accept_loss(bus: Bus, settings: Settings, kind: LostKind, *, at: datetime, report: OnProgress) -> Lost:
    """Give up what is lost. The catalog must be stopped, and its archive complete. SetupError: nothing is lost."""
    lost = await find_lost(settings, kind)
    reason = "no copy of them exists"
    async with open_archive(settings.catalog) as archive:
        if kind == "keys":
            await _create_key_file(settings, archive, at=at, report=report)
            reason = "the key file was lost"
        await archive.verify()
        chunks = [LossAccepted(blobs=part, reason=reason) for part in _parts(lost.blobs)]
        chunks += [LossAccepted(images=part, reason=reason) for part in _parts(lost.images)]
        for event in chunks:
            await append_log_event(bus, archive, ulid(), event, at)
    return lost


async def _lost_blobs(store: Store, blobs: Blobs) -> Lost:
    named = await store.read(lambda connection: list(live_blobs.references(connection)))
    missing = {reference.digest: reference for reference in named if not await blobs.exists(reference.digest)}
    lines = [f"{reference.kind} {reference.digest} of {reference.owner}" for reference in missing.values()]
    return Lost(blobs=tuple(missing), lines=_listed(lines, "blob"))


async def _lost_images(settings: Settings, archive: Archive, store: Store) -> Lost:
    copies = KeyCopies(settings.catalog / KEYS, (), await archive.read(lineage))
    if copies.state() != "intact":
        raise SetupError("the whole key file is lost: loratory accept-loss keys")
    content = await asyncio.to_thread(read_content, copies.today)
    missing = sorted(await store.read(live_blobs.key_images) - content.images - content.erased)
    return Lost(images=tuple(missing), lines=_listed([f"the key of image {image}" for image in missing], "key"))


async def _lost_key_file(settings: Settings, archive: Archive, store: Store) -> Lost:
    copies = KeyCopies(settings.catalog / KEYS, (), await archive.read(lineage))
    if copies.state() == "intact":
        return Lost()
    content = await asyncio.to_thread(read_content, copies.today)
    kept = content.images if copies.sources() else frozenset()
    missing = sorted(await store.read(live_blobs.key_images) - kept)
    line = f"the key file, and with it file names and captions of {count(len(missing), 'image')}"
    return Lost(images=tuple(missing), lines=(line, "the key that signs audit heads; a new one is created"))


async def _create_key_file(settings: Settings, archive: Archive, *, at: datetime, report: OnProgress) -> None:
    """A key file with what can be read of the damaged one, what the log says was erased, and a new signing key."""
    copies = KeyCopies(settings.catalog / KEYS, (), await archive.read(lineage))
    async with await open_read_model(settings, archive) as store:
        erased, needed = await store.read(read_erased), await store.read(images.sealed_names)
    await asyncio.to_thread(replace_key_file, copies, copies.sources(), needed, erased.images, at=at, report=report)
    async with await open_keys(settings.catalog, archive, required=False) as keys:
        report(f"the new signing key is {(await keys.public_key()).hex()}")


def _listed(lines: Sequence[str], noun: str) -> tuple[str, ...]:
    more = len(lines) - MAX_LISTED
    return (*lines[:MAX_LISTED], *([f"{count(more, f'more {noun}')}"] if more > 0 else []))


def _parts(values: tuple[T, ...]) -> Iterator[tuple[T, ...]]:
    """In parts that fit into one event."""
    return (values[start : start + MAX_ACCEPTED_LOSSES] for start in range(0, len(values), MAX_ACCEPTED_LOSSES))
