"""Builds the engine's request for a job: its manifest is read, its pictures are fetched, its base is found."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from contracts.errors import NotFound, Rejected
from contracts.ids import Digest
from contracts.queries.datasets import ManifestEntry, ReadManifest
from contracts.wire.blobs.store import Blobs, Damaged
from contracts.wire.service.bus import Bus
from contracts.wire.workers.pages import read_pages
from contracts.wire.workers.worker import Attempt
from trainer.adapter_metadata import build_metadata
from trainer.bases import base_folder
from trainer.domain import JobState
from trainer.messages import Example, Train
from trainer.settings import Settings

FILES_PER_CHECK = 500
"""Local files looked up in one call of a thread: a hundred thousand lookups would stop the event loop for seconds."""
DRAFTS = "drafts"
"""Folder in the cache of its unfinished files, one folder for each attempt."""


@dataclass(frozen=True)
class RequestBuilder:
    """Where the parts of a request come from; `folder` is the work folder of the attempt."""

    bus: Bus
    blobs: Blobs
    settings: Settings
    folder: Path
    draft_name: str

    @property
    def draft_folder(self) -> Path:
        return self.settings.cache / DRAFTS / self.draft_name

    async def read_manifest(self, job: JobState) -> list[ManifestEntry]:
        query = ReadManifest(version_id=job.version.version_id, min_seq=job.version_set_at)
        return [entry async for entries in read_pages(self.bus, query) for entry in entries]

    async def build(self, attempt: Attempt, job: JobState, entries: Sequence[ManifestEntry]) -> Train:
        """The request to train from the beginning. Rejected: a picture or the base is missing."""
        find_base = partial(base_folder, builtin=self.settings.cache / "bases", bases=self.settings.bases)
        base = await asyncio.to_thread(find_base, job.request.recipe.base)
        version = job.version.version
        return Train(
            recipe=job.request.recipe,
            base_folder=str(base.resolve()),
            examples=await self._examples(attempt, entries),
            work_folder=str(self.folder.resolve()),
            cache_folder=str(self.settings.cache.resolve()),
            draft_folder=str(self.draft_folder.resolve()),
            metadata=await asyncio.to_thread(build_metadata, attempt.aggregate_id, job.request, version, entries),
        )

    async def local_file(self, digest: Digest) -> Path | None:
        """The local path of a blob, fetched if needed; None if it is missing or damaged."""
        (path,) = await asyncio.to_thread(_existing_files, [await self._fetch_if_remote(digest)])
        return path

    async def _examples(self, attempt: Attempt, entries: Sequence[ManifestEntry]) -> list[Example]:
        examples: list[Example] = []
        for start in range(0, len(entries), FILES_PER_CHECK):
            chunk, paths = entries[start : start + FILES_PER_CHECK], []
            for entry in chunk:
                paths.append(await self._fetch_if_remote(entry.picture))
                attempt.touch()
            files = await asyncio.to_thread(_existing_files, paths)
            examples += [_example(entry, file) for entry, file in zip(chunk, files, strict=True)]
        return examples

    async def _fetch_if_remote(self, digest: Digest) -> Path | None:
        """Where the blob is on this machine, if it exists; None: it does not, or it is damaged."""
        path = self.blobs.path(digest)
        if path is not None:
            return path
        try:
            path = self.folder / digest
            await self.blobs.fetch(digest, path)
        except (NotFound, Damaged):
            return None
        return path


def _existing_files(paths: Sequence[Path | None]) -> list[Path | None]:
    return [path.resolve() if path is not None and path.is_file() else None for path in paths]


def _example(entry: ManifestEntry, path: Path | None) -> Example:
    if path is None:
        raise Rejected(f"the file of image {entry.image} is missing or damaged; freeze a version without it")
    return Example(
        path=str(path),
        digest=entry.picture,
        caption=entry.caption,
        ordinal=entry.ordinal,
        repeats=entry.repeats,
        has_mask=entry.mask is not None,
    )
