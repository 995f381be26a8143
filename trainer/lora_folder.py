"""The folder of finished LoRAs under human-readable names, for people and other programs; writes are atomic."""

import asyncio
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from contracts.events import Artifact
from contracts.ids import Digest
from contracts.wire.blobs import Blobs
from trainer.domain import unique_stem


@dataclass(frozen=True)
class LoraFolder:
    folder: Path
    blobs: Blobs

    async def publish(self, stem: str, job_id: str, artifacts: tuple[Artifact, ...]) -> list[Path]:
        """Write the files of a finished job; idempotent. Another job's file is never overwritten, see `unique_stem`."""
        return [await self._publish(stem, job_id, artifact) for artifact in artifacts]

    async def _publish(self, stem: str, job_id: str, artifact: Artifact) -> Path:
        suffix = "" if artifact.format == "kohya" else f"-{artifact.format}"
        path = self.folder / f"{stem}{suffix}.safetensors"
        if await asyncio.to_thread(_has_other_content, path, artifact.digest):
            path = self.folder / f"{unique_stem(stem, job_id)}{suffix}.safetensors"
        if await asyncio.to_thread(_has_content, path, artifact.digest):
            return path
        await asyncio.to_thread(self.folder.mkdir, parents=True, exist_ok=True)
        temporary = self.folder / f".{path.name}.{os.getpid()}.draft"
        try:
            await self.blobs.fetch(artifact.digest, temporary)
            await asyncio.to_thread(_rename_durably, temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        return path


def _has_content(path: Path, digest: Digest) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == digest


def _has_other_content(path: Path, digest: Digest) -> bool:
    return path.exists() and not _has_content(path, digest)


def _rename_durably(temporary: Path, path: Path) -> None:
    """fsync the file, rename it, fsync the folder."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
