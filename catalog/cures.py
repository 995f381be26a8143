"""Adds to a refusal the command that cures it, with the folder of this workshop and of its newest backup."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast, get_args

import msgspec

from catalog.backups.manifest import BLOBS, MANIFEST
from catalog.keys import KEYS, images_in, known_backups
from catalog.settings import Settings
from contracts.audit import AuditReport, damage_error
from contracts.cures import Damaged, cure
from contracts.errors import LogDamaged
from contracts.ids import Digest, ImageId
from contracts.losses import Loss, LossReport
from contracts.wire.blobs.store import LocalBlobs
from contracts.wire.service.boot import leaf_errors

IN_CONTAINERS = "cure: see “Containers” in docs/operations.md"


@contextmanager
def named_cure(settings: Settings) -> Iterator[None]:
    """Where LogDamaged ends the block, also inside a group, its message says what cures it."""
    try:
        yield
    except (LogDamaged, BaseExceptionGroup) as error:
        found = next((leaf for leaf in leaf_errors(error) if isinstance(leaf, LogDamaged)), None)
        if found is None:
            raise
        raise type(found)(f"{found.detail}; {_cure(settings, found)}", **found.extra) from error


def _cure(settings: Settings, error: LogDamaged) -> str:
    if settings.data is None:
        return IN_CONTAINERS
    where = error.extra.get("where", "log")
    damaged = cast(Damaged, where) if where in get_args(Damaged) else "log"
    return cure(damaged, settings.data, _newest_backup(settings, with_keys=damaged in {"keys", "all keys"}))


def _newest_backup(settings: Settings, *, with_keys: bool) -> Path | None:
    """The newest registered backup that is in reach now."""
    needed = (MANIFEST, KEYS) if with_keys else (MANIFEST,)
    backups = (backup.path for backup in known_backups(settings.catalog))
    return next((path for path in backups if all((path / name).is_file() for name in needed)), None)


def with_cure_of_damage(settings: Settings, report: AuditReport) -> AuditReport:
    """The report with what cures its first damage, and what is missing. An exported head is no damage to a folder."""
    report = msgspec.structs.replace(report, losses=with_cures(settings, report.losses))
    damage = next((one for one in report.damage if one.where != "head"), None)
    return msgspec.structs.replace(report, cure=_cure(settings, damage_error(damage))) if damage else report


def with_cures(settings: Settings, report: LossReport) -> LossReport:
    """The report with the commands that bring back what is missing, or give it up where no backup has it.

    It looks into the backups in reach for the losses that the report lists.
    """
    if settings.data is None or not report.counts:
        return report
    has_keys, has_blobs = "key" in report.counts, set(report.counts) != {"key"}
    lost: dict[Damaged, bool] = {"blobs": has_blobs, "image keys": has_keys}
    named: dict[str, None] = {}
    for kind, is_lost in lost.items():
        if is_lost:
            sample = [loss for loss in report.first if (loss.kind == "key") is (kind == "image keys")]
            named[cure(kind, settings.data, _backup_with(settings, sample, with_keys=kind == "image keys"))] = None
    return msgspec.structs.replace(report, cure="; ".join(named))


def _backup_with(settings: Settings, lost: Sequence[Loss], *, with_keys: bool) -> Path | None:
    """The newest backup in reach that has all of this, or else the one that has the most of it; none: none has any."""
    if not lost:  # more is lost than a report lists
        return _newest_backup(settings, with_keys=with_keys)
    found = [(_count_kept(backup.path, lost), backup.path) for backup in known_backups(settings.catalog)]
    most = max((kept for kept, _ in found), default=0)
    return next((path for kept, path in found if kept == most), None) if most else None


def _count_kept(backup: Path, lost: Sequence[Loss]) -> int:
    """How many of these a backup has; 0 if it is not in reach."""
    if not (backup / MANIFEST).is_file():
        return 0
    keys: set[ImageId] = images_in(backup / KEYS) if any(loss.kind == "key" for loss in lost) else set()
    blobs = LocalBlobs(backup / BLOBS)
    return sum(loss.id in keys if loss.kind == "key" else blobs.path(Digest(loss.id)).is_file() for loss in lost)
