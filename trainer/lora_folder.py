"""The folder of finished LoRAs under human-readable names, for people and other programs; writes are atomic."""

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path

import structlog

from contracts.commits import AggregateHistory
from contracts.events.jobs import Artifact
from contracts.ids import Digest
from contracts.wire.blobs.store import Blobs
from trainer.adapter_metadata import safe_file_stem, unique_stem
from trainer.domain import fold

_log = structlog.get_logger()


@dataclass(frozen=True)
class LoraFolder:
    folder: Path
    blobs: Blobs

    async def publish_finished(self, history: AggregateHistory) -> None:
        """Write the files of a job that has ended, if it succeeded, under its current name."""
        job = fold(history.events())
        if job.artifacts:
            stem = safe_file_stem(job.name)
            paths = await self.publish(stem, history.commits[0].commit.aggregate_id, job.artifacts)
            _log.info("lora_published", names=[path.name for path in paths])

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
        await self.blobs.fetch(artifact.digest, path)
        return path


def _has_content(path: Path, digest: Digest) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == digest


def _has_other_content(path: Path, digest: Digest) -> bool:
    return path.exists() and not _has_content(path, digest)
