"""In-memory doubles of the event log and of blobs, for tests of decisions and handlers.

They pass the same tests as the real ones (`tests/contracts/test_commit_log.py`, `test_blobs.py`).
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from obstore.store import MemoryStore

from contracts.commits import (
    AggregateHistory,
    Commit,
    CommitLog,
    RecordedCommit,
    StreamRevision,
    check_atomic,
    decode,
    encode_commit,
)
from contracts.errors import Conflict, Fenced, KeyReused
from contracts.wire.blobs.remote import RemoteBlobs


class MemoryLog(CommitLog):
    """A `CommitLog` in memory. It starts empty: without the `log.created` of the migrate step."""

    def __init__(self, fence: Callable[[], None] = lambda: None, *, log_id: str = "memory") -> None:
        self.fence = fence
        self._log_id = log_id
        self._commits: list[RecordedCommit] = []

    async def append_atomically(self, commits: Sequence[tuple[Commit, StreamRevision]]) -> list[RecordedCommit]:
        check_atomic([commit for commit, _ in commits])
        bodies = [encode_commit(commit) for commit, _ in commits]
        await asyncio.sleep(0)  # other writers may come first, as on a server
        self.fence()
        known = [self._find_stored(*draft) for draft in commits]
        if None not in known:
            return [recorded for recorded in known if recorded is not None]
        for commit, expected_revision in commits:
            history = AggregateHistory(self._of(commit.aggregate_kind, commit.aggregate_id, 0))
            if history.revision.sequence != expected_revision.sequence:
                raise Conflict
        first, now = len(self._commits) + 1, datetime.now(UTC)
        appended = [decode(sequence, now, body) for sequence, body in enumerate(bodies, start=first)]
        self._commits += appended
        return appended

    def _find_stored(self, commit: Commit, expected: StreamRevision) -> RecordedCommit | None:
        """This very commit, directly after its expected revision."""
        newer = self._of(commit.aggregate_kind, commit.aggregate_id, expected.sequence)[:1]
        stored = next((recorded for recorded in newer if recorded.commit.id == commit.id), None)
        if stored is not None and stored.commit.fingerprint != commit.fingerprint:
            raise KeyReused
        return stored

    async def load(
        self, aggregate_kind: str, aggregate_id: str, since: AggregateHistory | None = None
    ) -> AggregateHistory:
        await asyncio.sleep(0)
        known = list(since.commits) if since else []
        after = known[-1].sequence if known else 0
        return AggregateHistory([*known, *self._of(aggregate_kind, aggregate_id, after)])

    def _of(self, aggregate_kind: str, aggregate_id: str, after: int) -> list[RecordedCommit]:
        name = (aggregate_kind, aggregate_id)
        commits = self._commits[after:]
        return [one for one in commits if (one.commit.aggregate_kind, one.commit.aggregate_id) == name]

    async def confirm(self, recorded: RecordedCommit) -> None:
        if await self.commit_at(recorded.sequence) != recorded:
            raise Fenced("this log has another commit there")

    async def commit_at(self, sequence: int) -> RecordedCommit | None:
        await asyncio.sleep(0)
        return self._commits[sequence - 1] if 1 <= sequence <= len(self._commits) else None

    async def end(self) -> tuple[str, int]:
        await asyncio.sleep(0)
        return self._log_id, len(self._commits)


class MemoryBlobs(RemoteBlobs):
    """`Blobs` in memory: an object store without a network."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
