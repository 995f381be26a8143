"""Adds to a refusal the command that cures it, with the folder of this workshop and of its newest backup."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast, get_args

import msgspec

from catalog.backups.manifest import MANIFEST
from catalog.keys import KEYS, known_backups
from catalog.settings import Settings
from contracts.cures import Damaged, cure
from contracts.errors import LogDamaged
from contracts.losses import LossReport
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


def with_cures(settings: Settings, report: LossReport) -> LossReport:
    """The report with the commands that bring back what is missing, or give it up where there is no backup."""
    if settings.data is None or not report.counts:
        return report
    has_keys, has_blobs = "key" in report.counts, set(report.counts) != {"key"}
    lost: dict[Damaged, bool] = {"blobs": has_blobs, "image keys": has_keys}
    backup = _newest_backup(settings, with_keys=has_keys)
    named = dict.fromkeys(cure(kind, settings.data, backup) for kind, is_lost in lost.items() if is_lost)
    return msgspec.structs.replace(report, cure="; ".join(named))
