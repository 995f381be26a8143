"""Command execution: locks, idempotency, append, read-your-writes.

Commands under the same lock are decided one after the other, each from rows that show what the earlier ones changed of
what it is decided from. After a conflict with another writer the command is decided again; a user sees an error only
when a rule refuses the command, or when it could not be appended.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import msgspec
import structlog

from catalog.database import Connection
from catalog.service.locks import Lock, Locks, Scope
from catalog.service.shared_reads import SharedReads
from catalog.service.unshown import UnshownCommits, Written
from catalog.store import Store
from catalog.views import commands
from contracts.aggregates import AnyCommandResult, AnyEvent
from contracts.commands.base import CommandMetadata, CommandResult
from contracts.commits import Aggregate, RecordedCommit, StreamRevision, build_commit, revision_of
from contracts.errors import Behind, Conflict, KeyReused, Unavailable
from contracts.wire.log.event_log import EventLog

MAX_DECISIONS = 20
"""How often one command is decided when other writers keep changing the aggregate."""

T = TypeVar("T")
StoreSets = Callable[[Sequence[AnyEvent]], Awaitable[Sequence[AnyEvent]]]
OnAppended = Callable[[Sequence[RecordedCommit]], Awaitable[None]]

_log = structlog.get_logger()
_results: msgspec.json.Decoder[AnyCommandResult] = msgspec.json.Decoder(AnyCommandResult)


class ExecutionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds, and `unshown`: maximum commands in the log that the read model does not show; then no more are accepted.

    `repeat`: how long a repeated command waits for its first. `decide`: for locks, for earlier changes to be shown, and
    deciding; then the command is given up. `show`: how long the answer waits for the read model, with the command in
    the log either way. Between these two lies the append, which has the limit of the log (`LogTimings`).
    """

    repeat: float = 5.0
    decide: float = 20.0
    show: float = 10.0
    unshown: int = 1000


DEFAULT_EXECUTION_LIMITS = ExecutionLimits()


@dataclass(frozen=True)
class Change:
    """Events of one aggregate, to be appended at the revision they were decided from."""

    aggregate_kind: str
    aggregate_id: str
    events: Sequence[AnyEvent]
    expected_revision: StreamRevision

    @property
    def aggregate(self) -> Aggregate:
        return self.aggregate_kind, self.aggregate_id


class CommandOutcome(msgspec.Struct, frozen=True):
    """What a command was decided to change, all or nothing, and its result. Changes without events are left out."""

    result: AnyCommandResult
    changes: Sequence[Change]


Decide = Callable[[], Awaitable[CommandOutcome]]


class CommandExecutor:
    """Runs all commands against one log and one read model; `on_appended` follows what they append.

    `store_sets` puts large sets of images into blobs before the commits that name them.
    """

    def __init__(
        self,
        log: EventLog,
        store: Store,
        on_appended: OnAppended,
        store_sets: StoreSets,
        limits: ExecutionLimits = DEFAULT_EXECUTION_LIMITS,
    ) -> None:
        self.log = log
        self.store = store
        self.reads = SharedReads(store.read)
        self.limits = limits
        self._on_appended = on_appended
        self._store_sets = store_sets
        self._unshown = UnshownCommits(store.is_shown)
        self._last_written = 0
        """Sequence of the newest commit written here."""
        self._unclear_appends = 0
        """Appends without an answer, after which nobody has compared the log with the read model yet."""
        self._locks = Locks()

    async def execute_once(
        self,
        metadata: CommandMetadata,
        find: Callable[[Connection], T],
        execute: Callable[[T], Awaitable[CommandResult]],
    ) -> CommandResult:
        """The result this command had before, else that of `execute`, called with what `find` reads.

        The same command is executed once at a time, and looked up before what it names, which may be gone by now.
        KeyReused: the command id belongs to another request.
        """

        def read(connection: Connection) -> Callable[[], Awaitable[CommandResult]] | CommandResult:
            return _stored_result(connection, metadata) or partial(execute, find(connection))

        async with AsyncExitStack() as held:
            async with self._giving_up("the same request is still being executed", self.limits.repeat):
                await held.enter_async_context(self._locks.hold(Scope((f"command {metadata.command_id}",))))
            if (written := self._unshown.of_command(metadata)) is not None:
                return await self._await_shown(written)
            if self._unclear_appends:
                async with self._giving_up("the log is being compared", self.limits.decide):
                    await self._wait_for_end_of_log()
            read_result = await self.reads.read(read)
            return read_result if isinstance(read_result, CommandResult) else await read_result()

    async def execute(self, metadata: CommandMetadata, scope: Scope, decide: Decide) -> CommandResult:
        """Decide and append under the locks of `scope`, again after each Conflict, and wait until it is shown.

        Behind: it was given up, and nothing was appended.
        """
        async with AsyncExitStack() as held:
            async with self._giving_up("earlier changes are still being applied", self.limits.decide) as limit:
                lock = await held.enter_async_context(self._locks.hold(scope))
                written, commits = await self._decide_and_append(metadata, scope, decide, lock, limit)
            if scope.part:  # nobody on another part need wait until this one is shown
                await held.aclose()
            result = await self._await_shown(written)
            await self._on_appended(commits)
            return result

    async def wait_until_applied(self) -> None:
        """Return when the read model has applied every commit written here; Behind after `limits.show` seconds."""
        await self.store.wait_for(self._last_written, self.limits.show)

    async def _decide_and_append(
        self, metadata: CommandMetadata, scope: Scope, decide: Decide, lock: Lock, limit: asyncio.Timeout
    ) -> tuple[Written, Sequence[RecordedCommit]]:
        deadline = limit.when()
        for attempt in range(MAX_DECISIONS):
            if attempt or self._unclear_appends:
                await self._wait_for_end_of_log()
            if attempt:
                previous = await self.store.read(lambda connection: _stored_result(connection, metadata))
                if previous is not None:
                    return Written(metadata, scope, {}, previous), ()
            await self._wait_for_earlier(scope, lock)
            outcome = await decide()
            changes = [await self._prepared(change) for change in outcome.changes if change.events]
            if not changes:
                result = msgspec.structs.replace(outcome.result, changed=False, sequence=self.store.applied)
                return Written(metadata, scope, {}, result), ()
            async with self.log.bus.append_listeners.about_to_append(), lock.appending:
                limit.reschedule(None)  # from here on it may be in the log
                try:
                    return await self._append(metadata, scope, outcome.result, changes, lock)
                except Conflict:
                    _log.info("append_conflict", locks=scope.locks)
            limit.reschedule(deadline)
        raise Conflict("other writers keep changing this; try again")

    async def _prepared(self, change: Change) -> Change:
        return replace(change, events=await self._store_sets(change.events))

    async def _wait_for_end_of_log(self) -> None:
        """Whatever was appended, by whomever and with whatever answer, is in the rows afterwards."""
        unclear = self._unclear_appends
        _, end = await self.log.end()
        await self.store.wait_until_settled(end, self.limits.decide)
        self._unclear_appends = max(0, self._unclear_appends - unclear)

    async def _wait_for_earlier(self, scope: Scope, lock: Lock) -> None:
        """Wait for the commands that concern this scope; of the others under its locks only the revisions count.

        Behind: too much is not shown.
        """
        earlier = self._unshown.under(scope)
        if len(self._unshown) >= self.limits.unshown:
            raise Behind("too many earlier changes are still being applied; nothing was changed, try again")
        for written in earlier:
            if written.scope.overlaps(scope):
                await self._wait_until_shown(written)
            else:
                lock.set_revisions(written.revisions)

    async def _append(
        self,
        metadata: CommandMetadata,
        scope: Scope,
        result: AnyCommandResult,
        changes: Sequence[Change],
        lock: Lock,
    ) -> tuple[Written, Sequence[RecordedCommit]]:
        """Append all changes or none. The last one carries the result, and its sequence is the result's."""
        commits = []
        for change in changes:
            revision = self._current_revision(change, lock)
            commit = build_commit(
                *(change.aggregate_kind, change.aggregate_id, change.events),
                expected_revision=revision,
                metadata=metadata,
                result=result if change is changes[-1] else None,
            )
            commits.append((commit, revision))
        try:
            recorded = await self.log.append_atomically(commits)
        except Unavailable:
            self._unclear_appends += 1
            raise
        sequence = recorded[-1].sequence
        self._last_written = max(self._last_written, sequence)
        revisions = {change.aggregate: revision_of(one) for change, one in zip(changes, recorded, strict=True)}
        written = Written(metadata, scope, revisions, msgspec.structs.replace(result, sequence=sequence))
        self._unshown.add(written)
        if scope.part:
            lock.set_revisions(revisions)
        return written, recorded

    def _current_revision(self, change: Change, lock: Lock) -> StreamRevision:
        """The revision of the aggregate with what its rows did not show when the change was decided.

        A foreign message on its subject moves the sequence that the server expects, and nothing else.
        """
        revision = max(change.expected_revision, lock.revision(change.aggregate))
        foreign = self.store.foreign_heads.get(change.aggregate, 0)
        return revision._replace(sequence=max(revision.sequence, foreign))

    async def _await_shown(self, written: Written) -> CommandResult:
        try:
            async with asyncio.timeout(self.limits.show):
                await self._wait_until_shown(written)
        except TimeoutError:
            _log.warning("read_model_behind", sequence=written.result.sequence, applied=self.store.applied)
            return msgspec.structs.replace(written.result, shown=False)
        return written.result

    async def _wait_until_shown(self, written: Written) -> None:
        for aggregate, revision in written.revisions.items():
            await self.store.wait_until_shown(aggregate, revision.sequence)

    @asynccontextmanager
    async def _giving_up(self, reason: str, seconds: float) -> AsyncIterator[asyncio.Timeout]:
        """Behind after that time, unless the limit was lifted."""
        try:
            async with asyncio.timeout(seconds) as limit:
                yield limit
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise Behind(f"{reason}; nothing was changed, try again", applied=self.store.applied) from error


def _stored_result(connection: Connection, metadata: CommandMetadata) -> AnyCommandResult | None:
    """The result that this command had before; None also while only the first of its commits is visible. KeyReused."""
    previous = commands.find(connection, metadata.command_id)
    if previous is None:
        return None
    if previous.fingerprint != metadata.fingerprint:
        raise KeyReused
    if previous.result == b"null":
        return None
    return msgspec.structs.replace(_results.decode(previous.result), sequence=previous.sequence)
