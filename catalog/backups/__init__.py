"""Backups: a folder with archive, keys, blobs and loss curves, and a manifest that says what must be there.

The archive holds every commit verbatim, so it is the log's backup too. `manifest` what a backup is · `making` a
catalog's files into the folder · `taking` out of it again, and checking that all is there.
"""

from catalog.backups.making import create
from catalog.backups.manifest import (
    ARCHIVE,
    BLOBS,
    CURVES,
    KEYS,
    MANIFEST,
    BackupDamaged,
    Manifest,
    opened,
    strike_out,
)
from catalog.backups.taking import unpack, verify

__all__ = [
    "ARCHIVE",
    "BLOBS",
    "CURVES",
    "KEYS",
    "MANIFEST",
    "BackupDamaged",
    "Manifest",
    "create",
    "opened",
    "strike_out",
    "unpack",
    "verify",
]
