"""Makes derived blobs again: thumbnails from source or picture, pictures from their source, by the code of imports.

Large sets of images of events are in the read model, too.
"""

import asyncio
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from catalog.domain.live_blobs import BlobReference
from catalog.ingest.decoder_messages import RULES
from catalog.ingest.outcomes import Accepted, Refused
from catalog.ingest.pool import Decoder
from catalog.store import Store
from catalog.views import images, set_blobs
from contracts.errors import NotFound
from contracts.ids import Digest
from contracts.wire.blobs.store import Blobs, Damaged

WORK_FOLDER_PREFIX = "import-repair-"
"""Begins like those of imports, so that what a killed catalog left behind is deleted with theirs."""

Pin = Callable[[Iterable[Digest]], AbstractAsyncContextManager[None]]
"""Keeps blobs from being deleted, as imports do before an event names them."""

_log = structlog.get_logger()


@dataclass(frozen=True)
class Repairer:
    """Makes one blob at a time, so that imports keep the other decoders. `staging` has room for pictures."""

    store: Store
    blobs: Blobs
    decoder: Decoder
    staging: Path
    pin: Pin
    _slot: asyncio.Lock = field(default_factory=asyncio.Lock)
    _different: set[Digest] = field(default_factory=set)
    """Blobs that decoding no longer yields, such as thumbnails of another version of the decoder; not tried again."""

    async def repair(self, reference: BlobReference) -> bool:
        """Whether the blob is there now. Only the same bytes count: what is made again has to have the same digest.

        OSError, Unavailable: files or blobs cannot be read or written now.
        """
        if reference.kind == "image-set":
            return await self._store_set(reference)
        row = None
        if reference.kind in {"picture", "thumbnail"} and reference.digest not in self._different:
            row = await self.store.read(lambda connection: images.find(connection, reference.owner))
        if row is None:
            return False
        async with self._slot:
            if await self.blobs.exists(reference.digest):
                return True
            with tempfile.TemporaryDirectory(prefix=WORK_FOLDER_PREFIX, dir=self.staging) as folder:
                made = await self._make(reference, row, Path(folder))
                return made is not None and await self._store(reference, row, made)

    async def _store_set(self, reference: BlobReference) -> bool:
        digest = reference.digest
        content = (await self.store.read(lambda connection: set_blobs.find(connection, [digest]))).get(digest)
        if content is None:
            return False
        await self.blobs.put(content)
        _log.info("image_set_stored_again", blob=digest, owner=reference.owner)
        return True

    async def _make(self, reference: BlobReference, row: images.ImageRow, folder: Path) -> Path | None:
        """A file with the blob's bytes; None if nothing yields them."""
        origins = [row.source] if reference.kind == "picture" else [row.source, row.picture]
        for origin in dict.fromkeys(digest for digest in origins if digest != reference.digest):
            file = await self._local(origin, folder)
            if file is None:
                continue
            for rules in range(RULES, 0, -1):
                examined = await self.decoder.examine(file, into=folder, rules=rules)
                if isinstance(examined, Accepted) and (path := _file_with(reference.digest, examined)) is not None:
                    return path
            why = examined.reason if isinstance(examined, Refused) else "other bytes"
            self._different.add(reference.digest)
            _log.warning("derived_blob_differs", blob=reference.digest, kind=reference.kind, origin=origin, why=why)
        return None

    async def _local(self, digest: Digest, folder: Path) -> Path | None:
        """The verified content of a blob as a file of its own; None if it is missing or damaged."""
        file = folder / digest
        try:
            await self.blobs.fetch(digest, file)
        except (NotFound, Damaged):
            return None
        return file

    async def _store(self, reference: BlobReference, row: images.ImageRow, made: Path) -> bool:
        """Not if the image was erased meanwhile: a purge waits for pins, and deletes only what was erased before."""
        async with self.pin([reference.digest]):
            if await self.store.read(lambda connection: images.find(connection, row.id)) is None:
                return False
            await self.blobs.put(made)
        _log.info("derived_blob_made_again", blob=reference.digest, kind=reference.kind, image=row.id)
        return True


def _file_with(digest: Digest, examined: Accepted) -> Path | None:
    """The file with these bytes among those an examination wrote."""
    made = {examined.picture_sha256: examined.picture_path, examined.thumbnail_sha256: examined.thumbnail_path}
    return made.get(digest)
