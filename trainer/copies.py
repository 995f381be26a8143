"""What a trainer keeps of pictures: encodings in its cache, and files in the folders of attempts."""

import shutil
from collections.abc import Collection
from pathlib import Path

from contracts.ids import Digest

NAMELESS = ("latents", "texts")
"""Parts of the cache as earlier versions kept them: under names that do not say of which picture they are."""


def drop(pictures: Collection[Digest], *, cache: Path, work: Path) -> None:
    """Delete all that is of these pictures; what is not there changes nothing."""
    for digest in pictures:
        shutil.rmtree(cache / "pictures" / digest[:2] / digest, ignore_errors=True)
    fetched = [file for file in work.glob("*/*/*") if file.name in pictures]
    for file in fetched:
        file.unlink(missing_ok=True)


def drop_nameless(cache: Path) -> None:
    """Nobody could find an erased picture in there; what is needed of it is made again."""
    for part in NAMELESS:
        shutil.rmtree(cache / part, ignore_errors=True)
