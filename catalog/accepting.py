"""Gives up what is lost and of which no copy exists: `log.loss_accepted`, and a new key file where that is lost."""

import asyncio
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from catalog.appending import append_event, append_root
from catalog.archive.archive import Archive, open_archive
from catalog.database import peek
from catalog.entries import lineage
from catalog.key_file import open_keys, read_content
from catalog.keys import KEYS, Keys, root_key_in
from catalog.mending import KeyCopies, OnProgress, open_read_model, read_erased, replace_key_file
from catalog.service_keys import StoreVerdicts, check_root
from catalog.settings import Settings
from catalog.store import Store
from catalog.views import images, set_blobs
from catalog.watch.presence import expected_by, find_losses
from contracts.errors import SetupError
from contracts.events.log import MAX_ACCEPTED_LOSSES, LossAccepted
from contracts.ids import Digest, ImageId, ulid
from contracts.losses import MAX_REPORTED_LOSSES
from contracts.signatures import Signer
from contracts.wire.blobs.store import blobs_at
from contracts.wire.log.event_log import EventLog
from contracts.wire.service.bus import Bus
from contracts.wording import count

T = TypeVar("T")
LostKind = Literal["blobs", "images", "keys"]
"""`images`: keys of images. `keys`: the whole key file."""


class Lost(msgspec.Struct, frozen=True):
    """What is lost: blobs, and images whose keys are; `lines` describe it for people, and are never empty."""

    lines: tuple[str, ...]
    blobs: tuple[Digest, ...] = ()
    images: tuple[ImageId, ...] = ()


async def find_lost(settings: Settings, kind: LostKind, *, at: datetime) -> Lost:
    """What `accept_loss` would give up now. SetupError: nothing of this kind is lost, or the whole key file is."""
    async with open_archive(settings.catalog) as archive:
        copies = KeyCopies(settings.catalog / KEYS, (), await archive.read(lineage))
        await archive.begin()
        named = archive.trust.root
    state = await asyncio.to_thread(copies.state)
    expected = await asyncio.to_thread(expected_by, settings.catalog)
    if kind == "keys":
        root = await asyncio.to_thread(root_key_in, copies.today)
        if state == "intact" and root is not None and root.id != named:
            return Lost(("the root key that the log names, and with it the key that signs audit heads",))
        if state == "intact":
            raise SetupError("the key file is there and intact; `accept-loss images` gives up keys of single images")
        kept = (await asyncio.to_thread(read_content, copies.today)).images if state == "damaged" else frozenset()
        return _describe_key_file(copies.today, tuple(sorted(await expected.keys() - kept)))
    if kind == "images" and state != "intact":
        raise SetupError("the whole key file is lost; give it up with `accept-loss keys`")
    losses = await find_losses(expected, blobs_at(settings.blobs), copies.today, at=at)
    lost_sets = [reference.digest for reference in losses.references() if reference.kind == "image-set"]
    sets = await asyncio.to_thread(peek, settings.catalog / "read.db", partial(set_blobs.find, digests=lost_sets))
    losses = losses.without(sets or {})  # the catalog stores them again when it starts
    lost = [loss for loss in losses.all() if (loss.kind == "key") is (kind == "images")]
    if not lost:
        raise SetupError(f"no {'keys of images' if kind == 'images' else 'blobs'} are lost")
    lines = [f"the {loss.kind} of {loss.owner}" for loss in lost[:MAX_REPORTED_LOSSES]]
    more = [f"{len(lost) - len(lines)} more"] if len(lost) > len(lines) else []
    if kind == "images":
        return Lost((*lines, *more), images=tuple(sorted(losses.lost_keys)))
    return Lost((*lines, *more), blobs=tuple(losses.lost_blobs))


async def accept_loss(bus: Bus, settings: Settings, kind: LostKind, *, at: datetime, report: OnProgress) -> Lost:
    """Give up what is lost. The catalog must be stopped, and its archive complete. SetupError: nothing is lost."""
    lost = await find_lost(settings, kind, at=at)
    reason = "the key file was lost" if kind == "keys" else "no copy exists"
    losses = [LossAccepted(blobs=part, reason=reason) for part in _parts(lost.blobs)]
    losses += [LossAccepted(images=part, reason=reason) for part in _parts(lost.images)]
    async with open_archive(settings.catalog) as archive, open_read_model(settings, archive) as store:
        await archive.begin()
        if kind == "keys":
            await _create_key_file(settings, archive, store, at=at, report=report)
        ids, log_id = await archive.read(lineage), await archive.belongs_to()
        async with await open_keys(settings.catalog, ids, log_id, required=kind != "keys") as keys:
            log = EventLog(bus, verdicts=StoreVerdicts(store))
            log.signer = Signer(await keys.root_key(), log_id)
            if kind == "keys":
                await _replace_root(log, archive, keys, at, report)
            await check_root(archive, keys, log)
            for loss in losses:
                await append_event(log, archive, ("log", ulid()), loss, at)
    return lost


async def renew_keys(settings: Settings, *, at: datetime, report: OnProgress) -> None:
    """A new key file where the log is lost, too: `refill` then establishes its root key in the new log."""
    async with open_archive(settings.catalog) as archive, open_read_model(settings, archive) as store:
        await archive.begin()
        await _create_key_file(settings, archive, store, at=at, report=report)
        ids, log_id = await archive.read(lineage), await archive.belongs_to()
        async with await open_keys(settings.catalog, ids, log_id, required=False) as keys:
            if (await keys.root_key()).id != archive.trust.root:
                await keys.replace_root(archive.trust.root)


async def _create_key_file(
    settings: Settings, archive: Archive, store: Store, *, at: datetime, report: OnProgress
) -> None:
    """A key file with what can be read of the damaged one, and what the log says was erased."""
    copies = KeyCopies(settings.catalog / KEYS, (), await archive.read(lineage))
    if await asyncio.to_thread(copies.state) == "intact":
        return
    erased, needed = await store.read(read_erased), await store.read(images.sealed_names)
    sources = copies.sources()
    await asyncio.to_thread(replace_key_file, copies, sources, needed, erased.images, at=at, report=report)


async def _replace_root(log: EventLog, archive: Archive, keys: Keys, at: datetime, report: OnProgress) -> None:
    """The root key of this file replaces the one that the log names; before anything that is signed with it."""
    root, lost = await keys.root_key(), archive.trust.root
    if root.id == lost:
        return
    await keys.replace_root(lost)
    await append_root(log, archive, root, at)
    report(f"the public key that verifies audit heads is now {root.public.hex()}")


def _describe_key_file(file: Path, lost_images: tuple[ImageId, ...]) -> Lost:
    whose = f"the names and captions of {count(len(lost_images), 'image')}"
    return Lost((f"the key file {file}, with it {whose}, and the key that signs audit heads",), images=lost_images)


def _parts(values: tuple[T, ...]) -> Iterator[tuple[T, ...]]:
    """In parts that fit into one event."""
    return (values[start : start + MAX_ACCEPTED_LOSSES] for start in range(0, len(values), MAX_ACCEPTED_LOSSES))
