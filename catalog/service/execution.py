"""Command execution: aggregate lock, idempotency, append, read-your-writes.

Commands under the same lock are decided one after the other, from rows that already show the previous one. After a
conflict with another writer the command is decided again; a user sees an error only when a rule refuses the command.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
import structlog

from catalog.store import Store
from catalog.views import commands
from contracts.commands import AnyCommandResult, CommandMetadata, CommandResult, R
from contracts.errors import Behind, Conflict, KeyReused
from contracts.events import AnyEvent
from contracts.subjects import AggregateKind
from contracts.wire.log import EventLog, StreamRevision, build_commit

MAX_DECISIONS = 20
"""How often one command is decided when other writers keep changing the aggregate."""
APPLY_TIMEOUT_SECONDS = 10.0
"""How long an accepted command waits for the read model; it is in the log either way."""

_log = structlog.get_logger()
_results: msgspec.json.Decoder[AnyCommandResult] = msgspec.json.Decoder(AnyCommandResult)


@dataclass(frozen=True)
class Change:
    """Events of one aggregate, to be appended at the revision they were decided from."""

    aggregate_kind: AggregateKind
    aggregate_id: str
    events: Sequence[AnyEvent]
    expected_revision: StreamRevision


class CommandExecutor:
    """Runs the commands of all families against one log and one read model."""

    def __init__(self, log: EventLog, store: Store) -> None:
        self.log = log
        self.store = store
        self._last_written = 0
        """Sequence of the newest commit written here; no command is decided from rows older than this."""
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    async def execute_once(
        self, metadata: CommandMetadata, lock: str, decide: Callable[[], Awaitable[CommandResult]]
    ) -> CommandResult:
        """The stored result if this command was accepted before, else the result of `decide`, repeated on Conflict.

        `lock` names the aggregate lock: commands with the same name run one at a time.
        """
        async with self._aggregate_lock(lock):
            await self.wait_until_applied()
            for _ in range(MAX_DECISIONS):
                previous = await self.previous_result(metadata)
                if previous is not None:
                    return previous
                try:
                    return await decide()
                except Conflict:
                    _log.info("append_conflict", lock=lock)
                    _, end = await self.log.end()
                    await self.store.wait_for(end, APPLY_TIMEOUT_SECONDS)
            raise Conflict("other writers keep changing this; try again")

    async def wait_until_applied(self) -> None:
        """Return when the read model shows every commit written here; Behind after APPLY_TIMEOUT_SECONDS."""
        await self.store.wait_for(self._last_written, APPLY_TIMEOUT_SECONDS)

    async def previous_result(self, metadata: CommandMetadata) -> AnyCommandResult | None:
        """The result this command had before. Checked first, because what the command names may be gone by now.

        None also while only the first of its commits is visible. KeyReused: the command id belongs to another request.
        """
        previous = await self.store.read(lambda connection: commands.find(connection, metadata.command_id))
        if previous is None:
            return None
        if previous.fingerprint != metadata.fingerprint:
            raise KeyReused
        if previous.result == b"null":
            return None
        result = _results.decode(previous.result)
        return msgspec.structs.replace(result, sequence=previous.sequence)

    async def append(self, change: Change, metadata: CommandMetadata, result: R) -> R:
        """Append one commit and wait until the read model shows it. Conflict: decide again."""
        return await self.append_atomically([change], metadata, result)

    async def append_atomically(self, changes: Sequence[Change], metadata: CommandMetadata, result: R) -> R:
        """The same for a command that changes several aggregates: all commits are stored, or none.

        The last change is the command's main one: its commit carries the result, and its sequence is the result's.
        """
        commits = [
            build_commit(
                change.aggregate_kind,
                change.aggregate_id,
                change.events,
                expected_revision=change.expected_revision,
                metadata=metadata,
                result=result if change is changes[-1] else None,
            )
            for change in changes
        ]
        recorded = await self.log.append_atomically(
            [(commit, change.expected_revision) for commit, change in zip(commits, changes, strict=True)]
        )
        sequence = recorded[-1].sequence
        self._last_written = max(self._last_written, sequence)
        try:
            await self.store.wait_for(sequence, APPLY_TIMEOUT_SECONDS)
        except Behind:
            _log.warning("read_model_behind", sequence=sequence, applied=self.store.applied)
        return msgspec.structs.replace(result, sequence=sequence)

    def unchanged(self, result: R) -> R:
        """The result of a command that changes nothing, so that no commit is written."""
        return msgspec.structs.replace(result, changed=False, sequence=self.store.applied)

    @asynccontextmanager
    async def _aggregate_lock(self, name: str) -> AsyncIterator[None]:
        """Hold the lock of this name; it is dropped with its last user."""
        lock, users = self._locks.get(name, (asyncio.Lock(), 0))
        self._locks[name] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            _, users = self._locks[name]
            if users == 1:
                del self._locks[name]
            else:
                self._locks[name] = (lock, users - 1)
