"""Backups: a folder with archive, keys, blobs and loss curves, and a manifest that lists its contents.

The archive holds every commit verbatim, so it is the log's backup too. `manifest`: file names and the manifest ·
`creation`: creates and updates a backup · `extraction`: verifies a backup and copies its files out.
"""

from catalog.backups.creation import create
from catalog.backups.extraction import unpack, verify
from catalog.backups.manifest import (
    ARCHIVE,
    BLOBS,
    CURVES,
    KEYS,
    MANIFEST,
    BackupDamaged,
    BackupManifest,
    open_archive,
    remove_from_manifest,
)

__all__ = [
    "ARCHIVE",
    "BLOBS",
    "CURVES",
    "KEYS",
    "MANIFEST",
    "BackupDamaged",
    "BackupManifest",
    "create",
    "open_archive",
    "remove_from_manifest",
    "unpack",
    "verify",
]
