"""Freezes data sets for jobs that were created without a version; the job is queued by the commit of its version.

What is to be done is read from the read model, at the start and whenever a job was created: so a freeze that a crash
interrupted goes on.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import msgspec
import structlog

from catalog.domain import jobs as rules
from catalog.service.context import CommandContext
from catalog.service.execution import Change, CommandOutcome
from catalog.service.freezing import Freezer, VersionDraft, version_id_for
from catalog.service.locks import Scope
from catalog.views import jobs, work
from catalog.watch.requirements import require_pictures
from contracts.aggregates import AnyEvent
from contracts.commands.base import CommandMetadata, CommandResult
from contracts.commands.jobs import JobResult
from contracts.commits import RecordedCommit
from contracts.errors import Behind, Conflict, LogFull, LoratoryError, Unavailable
from contracts.events.jobs import JobCancelled, JobCreated
from contracts.ids import CommandId, JobId, derived
from contracts.jobs import fold, status_of
from contracts.retry import Outage, repeat

PASSING_ERRORS = (Unavailable, Behind, LogFull, Conflict, OSError)
"""Errors that say nothing about the job: it is tried again."""

_log = structlog.get_logger()


class JobFreezeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`interval` seconds, after which what failed in passing is tried again; `jobs` that are worked on at a time."""

    interval: float = 10.0
    jobs: int = 16


DEFAULT_JOB_FREEZE_LIMITS = JobFreezeLimits()


@dataclass
class JobFreezer:
    """`run` is the background task."""

    context: CommandContext
    freezer: Freezer
    limits: JobFreezeLimits = DEFAULT_JOB_FREEZE_LIMITS
    _running: dict[JobId, asyncio.Task[None]] = field(default_factory=dict)
    _wake_up: asyncio.Event = field(default_factory=asyncio.Event)
    _outage: Outage = field(default_factory=lambda: Outage("jobs_not_frozen"))

    def on_appended(self, commits: Sequence[RecordedCommit]) -> None:
        """Begin at once when a job was created, and stop when it was cancelled."""
        for recorded in commits:
            for event in recorded.commit.events:
                match event:
                    case JobCreated():
                        self._wake_up.set()
                    case JobCancelled():
                        if (task := self._running.get(JobId(recorded.commit.aggregate_id))) is not None:
                            task.cancel()
                    case _:
                        pass

    async def run(self) -> None:
        """Runs until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            start = partial(self._start_tasks, tasks)
            every, wake = self.limits.interval, self._wake_up
            await repeat(start, every=every, on=PASSING_ERRORS, warn="jobs_to_freeze_not_read", wake=wake)

    async def _start_tasks(self, tasks: asyncio.TaskGroup) -> None:
        for job_id in await self.context.read(work.freezing_jobs):
            if len(self._running) >= self.limits.jobs:
                return
            if job_id not in self._running:
                task = tasks.create_task(self._freeze_or_retry(job_id), name=f"freeze for {job_id}")
                self._running[job_id] = task
                task.add_done_callback(partial(self._on_ended, job_id))

    def _on_ended(self, job_id: JobId, _: asyncio.Task[None]) -> None:
        del self._running[job_id]
        if not self._outage.failures:  # else it waits for the next interval
            self._wake_up.set()

    async def _freeze_or_retry(self, job_id: JobId) -> None:
        try:
            await self.freeze(job_id)
        except PASSING_ERRORS as error:
            self._outage.begun(error, job_id=job_id)
        else:
            self._outage.ended()

    async def freeze(self, job_id: JobId) -> None:
        """Give a job its version, or end it as failed where that is impossible. PASSING_ERRORS: not now."""
        job = await self.context.read(lambda connection: jobs.find(connection, job_id))
        if job is None:
            return
        metadata = await self._metadata(job_id)
        await self.context.executor.execute_once(metadata, lambda _: job, partial(self._freeze, metadata))

    async def _freeze(self, metadata: CommandMetadata, job: jobs.JobRow) -> CommandResult:
        executor = self.context.executor
        await executor.wait_until_applied()
        try:
            async with self.freezer.draft(job.request.dataset_id, job.request.trigger) as draft:
                # The data set's lock too, so that no picture is erased before the job that trains on it is queued.
                scope = Scope((job.id, draft.dataset_id))
                return await executor.execute(metadata, scope, lambda: self._set_version(metadata, job.id, draft))
        except PASSING_ERRORS:
            raise
        except LoratoryError as error:
            _log.warning("job_not_frozen", job_id=job.id, code=error.code, error=error.detail)
            return await executor.execute(metadata, Scope((job.id,)), partial(self._fail, job.id, error))

    async def _metadata(self, job_id: JobId) -> CommandMetadata:
        """In the name of whoever created the job; the same command id at every try."""
        created = (await self.context.executor.log.load("job", job_id)).commits[0].commit
        return CommandMetadata(
            command_id=CommandId(derived("freeze", job_id)),
            actor=created.actor,
            at=datetime.now(UTC),
            correlation_id=created.correlation_id,
            causation_id=created.id,
        )

    async def _set_version(self, metadata: CommandMetadata, job_id: JobId, draft: VersionDraft) -> CommandOutcome:
        history = await self.context.executor.log.load("job", job_id)
        job = rules.fold(history.events())
        if job.work.state != "freezing":
            return _outcome(job_id, [], job)
        frozen = await self.freezer.finish(draft, version_id_for(metadata))
        row, losses = frozen.dataset, self.context.losses()
        await self.context.read(lambda now: require_pictures(now, row.id, frozen.version, losses))
        change = Change("job", job_id, rules.set_version(job, frozen.version), history.revision)
        return _outcome(job_id, [frozen.change, change], job)

    async def _fail(self, job_id: JobId, error: LoratoryError) -> CommandOutcome:
        history = await self.context.executor.log.load("job", job_id)
        job = rules.fold(history.events())
        change = Change("job", job_id, rules.fail_freezing(job, error), history.revision)
        return _outcome(job_id, [change], job)


def _outcome(job_id: JobId, changes: Sequence[Change], job: rules.JobState) -> CommandOutcome:
    events: list[AnyEvent] = [event for change in changes if change.aggregate_id == job_id for event in change.events]
    state = fold([(event, job.work.dispatch) for event in events], job.work).state
    return CommandOutcome(JobResult(id=job_id, status=status_of(state)), changes)
