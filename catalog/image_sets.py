"""Large sets of images of events lie in blobs: stored before the commit that names them, read before it is applied."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice

from catalog.archive.file import ArchiveFile
from catalog.domain.image_sets import EMPTY, unread_blobs, with_bitmaps, with_blobs
from catalog.entries import accepted_losses
from contracts.aggregates import AnyEvent
from contracts.commits import LogEntry, RecordedCommit
from contracts.errors import LogDamaged, NotFound, Unavailable
from contracts.ids import Digest
from contracts.retry import RetryPolicy, retry
from contracts.wire.blobs.store import Blobs, Damaged

CONCURRENT_READS = 16
RETRIES = RetryPolicy(first_delay=1.0)
"""A store that does not answer now is no loss; whoever needs the rows waits with a limit of their own."""

ReadSets = Callable[[Sequence[LogEntry]], Awaitable[list[LogEntry]]]


async def store_sets(blobs: Blobs, events: Sequence[AnyEvent]) -> Sequence[AnyEvent]:
    """The events of one commit as they are to be recorded; returns when the blobs that they name are durable."""
    recorded, contents = with_blobs(events)
    for content in contents.values():
        await blobs.put(content)
    return recorded


class SetReader:
    """Reads the sets of entries of the log from the first of `sources` that has them.

    A set whose loss was accepted since is empty. `may_lack`: one that is missing is empty, too, and noted in `missing`.
    """

    def __init__(self, archive: ArchiveFile, sources: Sequence[Blobs], *, may_lack: bool = False) -> None:
        self._archive, self._sources, self._may_lack = archive, sources, may_lack
        self.missing: set[Digest] = set()

    async def read(self, entries: Sequence[LogEntry]) -> list[LogEntry]:
        """The entries, with the bitmaps of all sets. LogDamaged: a set is missing."""
        unread = {entry.sequence: unread_blobs(entry) for entry in entries if isinstance(entry, RecordedCommit)}
        if not any(unread.values()):
            return list(entries)
        given_up = await self._archive.read(accepted_losses)
        needed = {digest: at for at, named in unread.items() for digest in named if given_up.get(digest, 0) < at}
        contents = await self._read_all(needed)

        def resolve(entry: LogEntry) -> LogEntry:
            if not isinstance(entry, RecordedCommit):
                return entry
            is_lost = {digest for digest in unread[entry.sequence] if given_up.get(digest, 0) > entry.sequence}
            return with_bitmaps(entry, lambda digest: EMPTY.bitmap if digest in is_lost else contents[digest])

        return [resolve(entry) for entry in entries]

    async def _read_all(self, needed: dict[Digest, int]) -> dict[Digest, bytes]:
        """By digest; `needed`: each with a commit that names it."""
        contents: dict[Digest, bytes] = {}
        remaining = iter(needed.items())
        while part := list(islice(remaining, CONCURRENT_READS)):
            found = await asyncio.gather(*(self._read_one(digest, at) for digest, at in part))
            contents.update(zip((digest for digest, _ in part), found, strict=True))
        return contents

    async def _read_one(self, digest: Digest, sequence: int) -> bytes:
        for blobs in self._sources:
            try:
                return await retry(
                    lambda blobs=blobs: blobs.get(digest),  # type: ignore[misc]  # mypy infers no type of a default
                    RETRIES,
                    on=(OSError, Unavailable),
                    warn="image_set_not_read",
                )
            except (NotFound, Damaged):
                continue
        if self._may_lack:
            self.missing.add(digest)
            return EMPTY.bitmap
        raise LogDamaged(
            f"the set of images that commit {sequence} names is missing or damaged (blob {digest})", where="blobs"
        )
