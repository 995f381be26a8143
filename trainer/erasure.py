"""Deletes what the trainer stores of erased pictures: cached encodings, and files in work folders of attempts."""

import shutil
from collections.abc import Collection
from pathlib import Path

from contracts.ids import Digest

UNATTRIBUTED_FOLDERS = ("latents", "texts")
"""Cache folders of earlier versions, whose file names do not contain the picture's digest."""


def purge_pictures(pictures: Collection[Digest], *, cache: Path, work: Path) -> None:
    """Delete everything derived from these pictures; missing files are ignored."""
    for digest in pictures:
        shutil.rmtree(cache / "pictures" / digest[:2] / digest, ignore_errors=True)
    fetched = [file for file in work.glob("*/*/*") if file.name in pictures]
    for file in fetched:
        file.unlink(missing_ok=True)


def purge_unattributed(cache: Path) -> None:
    """Delete caches in which an erased picture could not be found; encodings are recomputed when needed."""
    for name in UNATTRIBUTED_FOLDERS:
        shutil.rmtree(cache / name, ignore_errors=True)
