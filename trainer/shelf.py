"""Finished LoRAs under human names, in a folder that people and other programs look into: whole or not there."""

import asyncio
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from contracts.events import Artifact
from contracts.ids import Digest
from contracts.wire.blobs import Blobs
from trainer.domain import published


@dataclass(frozen=True)
class Shelf:
    folder: Path
    blobs: Blobs

    async def publish(self, stem: str, job_id: str, artifacts: tuple[Artifact, ...]) -> list[Path]:
        """Put each file of a finished job there; again changes nothing. Names come from the job's, see `published`."""
        return [await self._publish(stem, job_id, artifact) for artifact in artifacts]

    async def _publish(self, stem: str, job_id: str, artifact: Artifact) -> Path:
        ending = "" if artifact.format == "kohya" else f"-{artifact.format}"
        first = self.folder / f"{stem}{ending}.safetensors"
        path = first
        if await asyncio.to_thread(_other, first, artifact.digest):
            path = self.folder / f"{published(stem, job_id, True)}{ending}.safetensors"
        if await asyncio.to_thread(_same, path, artifact.digest):
            return path
        await asyncio.to_thread(self.folder.mkdir, parents=True, exist_ok=True)
        draft = self.folder / f".{path.name}.{os.getpid()}.draft"
        try:
            await self.blobs.fetch(artifact.digest, draft)
            await asyncio.to_thread(_whole, draft, path)
        finally:
            draft.unlink(missing_ok=True)
        return path


def _same(path: Path, digest: Digest) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == digest


def _other(path: Path, digest: Digest) -> bool:
    return path.exists() and not _same(path, digest)


def _whole(draft: Path, path: Path) -> None:
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
