"""Builds the engine's request for a job: its manifest is read, its pictures are fetched, its base is found."""

from dataclasses import dataclass
from pathlib import Path

from contracts.errors import NotFound, Rejected
from contracts.ids import Digest
from contracts.queries.datasets import ManifestEntry, ReadManifest
from contracts.wire.blobs.store import Blobs, Damaged
from contracts.wire.service.bus import Bus
from contracts.wire.service.requests import ServiceClient
from contracts.wire.workers.worker import Attempt, Crash
from trainer.adapter_metadata import build_metadata
from trainer.bases import base_folder
from trainer.domain import JobState
from trainer.messages import Example, Train
from trainer.settings import Settings

CATALOG_RETRY_SECONDS = 120.0
"""How long the manifest is requested again while the catalog is unavailable."""


@dataclass(frozen=True)
class RequestBuilder:
    """Where the parts of a request come from; `folder` is the work folder of the attempt."""

    bus: Bus
    blobs: Blobs
    settings: Settings
    folder: Path

    async def build(self, attempt: Attempt, job: JobState) -> Train:
        """The request to train from the beginning. Rejected: a picture or the base is missing."""
        entries = await self._read_manifest(job)
        base = base_folder(job.request.recipe.base, builtin=self.settings.cache / "bases", bases=self.settings.bases)
        return Train(
            recipe=job.request.recipe,
            base_folder=str(base.resolve()),
            examples=[await self._example(attempt, entry) for entry in entries],
            work_folder=str(self.folder.resolve()),
            cache_folder=str(self.settings.cache.resolve()),
            metadata=build_metadata(attempt.aggregate_id, job.request, entries),
        )

    async def local_file(self, digest: Digest) -> Path | None:
        """The local path of a blob, fetched if needed; None if it is missing or damaged."""
        try:
            path = self.blobs.path(digest)
            if path is None:
                path = self.folder / digest
                await self.blobs.fetch(digest, path)
            return path.resolve() if path.is_file() else None
        except (NotFound, Damaged):
            return None

    async def _read_manifest(self, job: JobState) -> list[ManifestEntry]:
        entries: list[ManifestEntry] = []
        cursor: str | None = None
        while True:
            query = ReadManifest(version_id=job.request.version_id, cursor=cursor, min_seq=job.requested_at)
            page = await ServiceClient(self.bus).query(query, retry_timeout=CATALOG_RETRY_SECONDS)
            entries += page.items
            cursor = page.next
            if cursor is None:
                return entries

    async def _example(self, attempt: Attempt, entry: ManifestEntry) -> Example:
        if attempt.cancel_requested.is_set():
            raise Crash("it was cancelled while its pictures were fetched")
        path = await self.local_file(entry.picture)
        if path is None:
            raise Rejected(f"the file of image {entry.image} is missing or damaged; freeze a version without it")
        attempt.touch()
        return Example(path=str(path), digest=entry.picture, caption=entry.caption, ordinal=entry.ordinal)
