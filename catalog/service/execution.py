"""Command execution: aggregate lock, idempotency, append, read-your-writes.

Commands under the same lock are decided one after the other, from rows that already show the previous one. After a
conflict with another writer the command is decided again; a user sees an error only when a rule refuses the command.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

import msgspec
import structlog

from catalog.store import Store
from catalog.views import commands
from contracts.aggregates import AnyCommandResult, AnyEvent
from contracts.commands.base import CommandMetadata, CommandResult, R
from contracts.commits import RecordedCommit, StreamRevision, build_commit
from contracts.errors import Behind, Conflict, KeyReused
from contracts.wire.log.event_log import EventLog

MAX_DECISIONS = 20
"""How often one command is decided when other writers keep changing the aggregate."""
APPLY_TIMEOUT_SECONDS = 10.0
"""How long an accepted command waits for the read model; it is in the log either way."""

OnAppended = Callable[[Sequence[RecordedCommit]], Awaitable[None]]

_log = structlog.get_logger()
_results: msgspec.json.Decoder[AnyCommandResult] = msgspec.json.Decoder(AnyCommandResult)


@dataclass(frozen=True)
class Change:
    """Events of one aggregate, to be appended at the revision they were decided from."""

    aggregate_kind: str
    aggregate_id: str
    events: Sequence[AnyEvent]
    expected_revision: StreamRevision


class CommandExecutor:
    """Runs all commands against one log and one read model; `on_appended` follows what they append."""

    def __init__(self, log: EventLog, store: Store, on_appended: OnAppended) -> None:
        self.log = log
        self.store = store
        self._on_appended = on_appended
        self._last_written = 0
        """Sequence of the newest commit written here; no command is decided from rows older than this."""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By name; each is dropped with its last user."""

    async def execute_once(
        self, metadata: CommandMetadata, lock: str, decide: Callable[[], Awaitable[CommandResult]]
    ) -> CommandResult:
        """The stored result if this command was accepted before, else the result of `decide`, repeated on Conflict.

        `lock` names the aggregate lock: commands with the same name run one at a time.
        """
        async with self._locks.setdefault(lock, asyncio.Lock()):
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

    async def append(self, metadata: CommandMetadata, result: R, *changes: Change) -> R:
        """Append all changes or none, and wait until the read model shows them. Conflict: decide again.

        Changes without events are left out. The last one carries the result, and its sequence is the result's.
        """
        changes = tuple(change for change in changes if change.events)
        if not changes:
            return msgspec.structs.replace(result, changed=False, sequence=self.store.applied)
        commits = []
        for change in changes:
            revision = self._after_foreign(change)
            commit = build_commit(
                *(change.aggregate_kind, change.aggregate_id, change.events),
                expected_revision=revision,
                metadata=metadata,
                result=result if change is changes[-1] else None,
            )
            commits.append((commit, revision))
        recorded = await self.log.append_atomically(commits)
        sequence = recorded[-1].sequence
        self._last_written = max(self._last_written, sequence)
        try:
            await self.store.wait_for(sequence, APPLY_TIMEOUT_SECONDS)
        except Behind:
            _log.warning("read_model_behind", sequence=sequence, applied=self.store.applied)
        await self._on_appended(recorded)
        return msgspec.structs.replace(result, sequence=sequence)

    def _after_foreign(self, change: Change) -> StreamRevision:
        """A foreign message on its subject moves the sequence that the server expects, and nothing else."""
        revision = change.expected_revision
        foreign = self.store.foreign_heads.get((change.aggregate_kind, change.aggregate_id), 0)
        return revision._replace(sequence=max(revision.sequence, foreign))
