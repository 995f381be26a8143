"""Gives up what is lost and of which no copy exists: `log.loss_accepted`, and a new key file where that is lost."""

import asyncio
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from catalog.archive.archive import Archive, open_archive
from catalog.entries import lineage
from catalog.key_file import open_keys, read_content
from catalog.keys import KEYS
from catalog.mending import KeyCopies, OnProgress, open_read_model, read_erased, replace_key_file
from catalog.restoring import append_log_event
from catalog.settings import Settings
from catalog.views import images
from catalog.watch.presence import expected_by, find_losses
from contracts.errors import SetupError
from contracts.events.log import MAX_ACCEPTED_LOSSES, LossAccepted
from contracts.ids import Digest, ImageId, ulid
from contracts.losses import MAX_REPORTED_LOSSES
from contracts.wire.blobs.store import blobs_at
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
    state = await asyncio.to_thread(copies.state)
    expected = await asyncio.to_thread(expected_by, settings.catalog)
    if kind == "keys":
        if state == "intact":
            raise SetupError("the key file is there and intact; `accept-loss images` gives up keys of single images")
        kept = (await asyncio.to_thread(read_content, copies.today)).images if state == "damaged" else frozenset()
        return _describe_key_file(copies.today, tuple(sorted(await expected.keys() - kept)))
    if kind == "images" and state != "intact":
        raise SetupError("the whole key file is lost; give it up with `accept-loss keys`")
    losses = await find_losses(expected, blobs_at(settings.blobs), copies.today, at=at)
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
    async with open_archive(settings.catalog) as archive:
        if kind == "keys":
            await _create_key_file(settings, archive, at=at, report=report)
        for blobs in _parts(lost.blobs):
            await append_log_event(bus, archive, ulid(), LossAccepted(blobs=blobs, reason=reason), at)
        for lost_images in _parts(lost.images):
            await append_log_event(bus, archive, ulid(), LossAccepted(images=lost_images, reason=reason), at)
    return lost


async def _create_key_file(settings: Settings, archive: Archive, *, at: datetime, report: OnProgress) -> None:
    """A key file with what can be read of the damaged one, what the log says was erased, and a new signing key."""
    copies = KeyCopies(settings.catalog / KEYS, (), await archive.read(lineage))
    async with await open_read_model(settings, archive) as store:
        erased, needed = await store.read(read_erased), await store.read(images.sealed_names)
    sources = copies.sources()
    await asyncio.to_thread(replace_key_file, copies, sources, needed, erased.images, at=at, report=report)
    log_id = await archive.belongs_to()
    async with await open_keys(settings.catalog, copies.lineage, log_id, required=False) as keys:
        report(f"the public key that verifies audit heads is now {(await keys.public_key()).hex()}")


def _describe_key_file(file: Path, lost_images: tuple[ImageId, ...]) -> Lost:
    whose = f"the names and captions of {count(len(lost_images), 'image')}"
    return Lost((f"the key file {file}, with it {whose}, and the key that signs audit heads",), images=lost_images)


def _parts(values: tuple[T, ...]) -> Iterator[tuple[T, ...]]:
    """In parts that fit into one event."""
    return (values[start : start + MAX_ACCEPTED_LOSSES] for start in range(0, len(values), MAX_ACCEPTED_LOSSES))
