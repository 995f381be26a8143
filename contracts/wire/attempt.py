"""One attempt at a job or tagging run, from the side of the worker that holds it.

The log is the fence. Every report names the attempt and is appended on top of the newest commit of the work. If another
writer's commit came in between it is read and folded; only a newer attempt or an end stops this one.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

from contracts.commands import CommandMetadata
from contracts.errors import Conflict, Fenced, LogFull, LoratoryError, Unavailable
from contracts.events import AnyEvent, Commit, RecordedCommit
from contracts.ids import WorkerId, new_command_id
from contracts.jobs import Work, check_fencing_token, fold
from contracts.subjects import KIND_OF, WorkClass
from contracts.wire.cancellation import is_cancelled
from contracts.wire.log import AggregateHistory, EventLog, StreamRevision, build_commit

POLL_SECONDS = 0.25
REPORT_RETRY_SECONDS = 600.0
"""How long a report is retried while the log is unavailable: a job must survive a restart of the server."""


class Crash(LoratoryError):
    """The process that does the work crashed; another attempt may succeed."""

    code = "crashed"


@dataclass(frozen=True, kw_only=True)
class WorkerIdentity:
    """A worker of a class, and one start of its process (`boot`). `lease` and `stall` in seconds.

    `lease`: a message that is not extended for this long is delivered to another worker. `stall`: work without progress
    for this long counts as stalled.
    """

    work: WorkClass
    worker: WorkerId
    boot: str
    lease: float = 15.0
    stall: float = 600.0

    @property
    def actor(self) -> str:
        return f"svc:{'trainer' if self.work == 'train' else 'tagger'}/{self.worker}"


class Attempt:
    """One attempt, from its start to its end."""

    def __init__(self, log: EventLog, worker: WorkerIdentity, aggregate_id: str, history: AggregateHistory) -> None:
        self._log = log
        self._worker = worker
        self._history = history
        self._append_lock = asyncio.Lock()
        self._last_progress = asyncio.get_running_loop().time()
        self.aggregate_id = aggregate_id
        self.work: Work = fold(history.events())
        self.number = self.work.attempt
        self.cancel_requested = asyncio.Event()
        """Set when cancellation was requested: end with `contracts.jobs.cancelled` within two seconds."""

    @property
    def history(self) -> AggregateHistory:
        return self._history

    @property
    def events(self) -> list[tuple[AnyEvent, int]]:
        """The history of the work as far as it was read, each event with its sequence."""
        return self._history.events()

    def touch(self, grace: float = 0.0) -> None:
        """Records progress; without it for `stall` seconds (plus `grace`, once) the attempt counts as stalled."""
        self._last_progress = asyncio.get_running_loop().time() + grace

    @property
    def is_stalled(self) -> bool:
        return asyncio.get_running_loop().time() - self._last_progress > self._worker.stall

    async def report(self, *events: AnyEvent) -> RecordedCommit:
        """Appends events as one commit. Fenced: another attempt holds the work or it has ended; stop."""
        metadata = CommandMetadata(
            command_id=new_command_id(),
            actor=self._worker.actor,
            at=datetime.now(UTC),
            correlation_id=self._history.commits[0].commit.correlation_id,
            causation_id=self._start().commit.id,
        )
        deadline = asyncio.get_running_loop().time() + REPORT_RETRY_SECONDS
        async with self._append_lock:
            while True:
                for event in events:
                    check_fencing_token(self.work, event, self.number)
                revision = self._history.revision
                commit = build_commit(
                    KIND_OF[self._worker.work], self.aggregate_id, events, expected_revision=revision, metadata=metadata
                )
                try:
                    recorded = await self._append(commit, revision)
                except (Unavailable, LogFull):
                    if asyncio.get_running_loop().time() > deadline or is_cancelled():
                        raise
                    self.touch()  # waiting for the log, or for room in it, is no stall
                    await asyncio.sleep(POLL_SECONDS)
                    continue
                if recorded is not None:
                    return self._fold(recorded)

    async def refresh(self) -> None:
        """Reads what other writers appended meanwhile. Fenced: this attempt is over."""
        async with self._append_lock:
            await self._catch_up()
        if self.work.ended or self.work.attempt != self.number:
            raise Fenced(f"attempt {self.work.attempt} holds the work now, or it has ended ({self.work.state})")

    async def _append(self, commit: Commit, revision: StreamRevision) -> RecordedCommit | None:
        """None: another writer's commit came first; it is folded now, and the report has to be checked again."""
        try:
            return await self._log.append(commit, revision)
        except Conflict:
            await self._catch_up()
            return None

    async def _catch_up(self) -> None:
        known_commits = len(self._history.commits)
        newer = await self._log.load(KIND_OF[self._worker.work], self.aggregate_id, since=self._history)
        for recorded in newer.commits[known_commits:]:
            self._fold(recorded)

    def _fold(self, recorded: RecordedCommit) -> RecordedCommit:
        self._history = AggregateHistory([*self._history.commits, recorded])
        self.work = fold([(event, recorded.sequence) for event in recorded.commit.events], self.work)
        if self.work.state == "cancelling":
            self.cancel_requested.set()
        return recorded

    def _start(self) -> RecordedCommit:
        return next(recorded for recorded in self._history.commits if recorded.sequence == self.number)
