"""The rules of job commands; the state machine that workers drive is in `contracts.jobs`. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import reduce

import msgspec

from catalog.domain.compose import compose
from catalog.domain.versions import refuse_erased_images
from contracts import jobs
from contracts.aggregates import AnyEvent
from contracts.commands.jobs import CancelJob, CreateJob, EditJob, RemoveJob, StartJob
from contracts.errors import IllegalTransition, LoratoryError, NotFound, Rejected
from contracts.events.base import Event
from contracts.events.datasets import VersionFrozen
from contracts.events.jobs import (
    JOB_WORK,
    JobCreated,
    JobEdited,
    JobFailed,
    JobPrioritised,
    JobQueued,
    JobRemoved,
    JobStartRequested,
    JobVersionSet,
)
from contracts.ids import DatasetId
from contracts.names import require_printable
from contracts.recipe import Recipe, apply_changes, validate_recipe


@dataclass(frozen=True)
class JobState:
    """What job commands are decided from: the work, the editable details, and its version of the data set.

    `erased_images` of that version is no part of the history: the caller fills it in.
    """

    work: jobs.Work = field(default_factory=jobs.Work)
    name: str = ""
    description: str = ""
    labels: tuple[str, ...] = ()
    version: int = 0
    """0: its data set is being frozen."""
    erased_images: int = 0


@dataclass(frozen=True, kw_only=True)
class TrainedDataset:
    """What a new job takes from its data set; `trigger` is that of its text settings."""

    id: DatasetId
    name: str
    trigger: str = ""


def evolve(job: JobState, event: AnyEvent, sequence: int) -> JobState:
    job = replace(job, work=jobs.evolve(job.work, event, sequence))
    match event:
        case JobCreated(name=name, description=description, labels=labels):
            return replace(job, name=name, description=description, labels=labels)
        case JobVersionSet(version=version):
            return replace(job, version=version)
        case JobEdited():
            changes = msgspec.structs.asdict(event)
            return replace(job, **{field: value for field, value in changes.items() if value is not None})
        case _:
            return job


def fold(history: Iterable[tuple[AnyEvent, int]]) -> JobState:
    return reduce(lambda job, recorded: evolve(job, *recorded), history, JobState())


def create(
    command: CreateJob, recipe: Recipe, *, dataset: TrainedDataset, version: VersionFrozen | None
) -> list[Event]:
    """The events of a new job that trains on this version of a data set; None: it is yet to be frozen.

    Rejected: the version has another trigger, or a name has control characters.
    """
    _check_names(command)
    own = None if command.trigger is None else command.trigger.strip()
    require_printable("trigger", own)
    if version is not None and own not in (None, version.trigger):
        raise Rejected(f"version {version.version} was frozen with the trigger {version.trigger!r}; freeze another")
    default = dataset.trigger if version is None else version.trigger
    created = compose(
        JobCreated,
        command,
        name=command.name or dataset.name,
        dataset_id=dataset.id,
        dataset=dataset.name,
        recipe=recipe,
        trigger=default if own is None else own,
    )
    if version is None:
        return [created, JobStartRequested()] if command.start else [created]
    queued = [JobQueued(priority=command.priority)] if command.start else []
    return [created, compose(JobVersionSet, version), *queued]


def set_version(job: JobState, version: VersionFrozen) -> list[Event]:
    """The events of a job whose data set was frozen for it; none if it has ended meanwhile."""
    if job.work.state != "freezing":
        return []
    queued = [JobQueued(priority=job.work.priority)] if job.work.start_requested else []
    return [compose(JobVersionSet, version), *queued]


def fail_freezing(job: JobState, error: LoratoryError) -> list[Event]:
    """The end of a job whose data set cannot be frozen; none if it has ended meanwhile."""
    if job.work.state != "freezing":
        return []
    return [JobFailed(attempt=0, code=str(error.extra.get("reason", error.code)), reason=error.detail)]


def decide(job: JobState, command: EditJob | StartJob | CancelJob | RemoveJob) -> list[Event]:
    """The events that a command causes in an existing job; none if nothing changes."""
    if job.work.state in ("absent", "removed"):
        raise NotFound("there is no such job")
    match command:
        case StartJob():
            queued = jobs.enqueue(job.work, JOB_WORK)
            if queued is None:
                return []
            refuse_erased_images(job.version, job.erased_images)
            return [queued]
        case CancelJob(reason=reason):
            return jobs.cancel(job.work, JOB_WORK, reason)
        case EditJob():
            _check_names(command)
            return [*_edit_details(job, command), *_change_priority(job, command)]
        case RemoveJob():
            if job.work.ended or job.work.state == "draft":
                return [JobRemoved()]
            detail = "a job that waits or runs cannot be removed; cancel it first"
            raise IllegalTransition(detail, state=job.work.state, allowed=["cancel"])


def _check_names(command: CreateJob | EditJob) -> None:
    require_printable("name", command.name)
    require_printable("labels", *(command.labels or ()))


def _edit_details(job: JobState, command: EditJob) -> list[Event]:
    edit = JobEdited(
        name=command.name if command.name != job.name else None,
        description=command.description if command.description != job.description else None,
        labels=command.labels if command.labels != job.labels else None,
    )
    return [] if edit == JobEdited() else [edit]


def _change_priority(job: JobState, command: EditJob) -> list[Event]:
    """A new priority re-queues a waiting job; a running one only records it."""
    if command.priority is None or command.priority == job.work.priority:
        return []
    if job.work.ended:
        raise IllegalTransition("the job has ended", state=job.work.state, allowed=["delete"])
    moved: list[Event] = [JobPrioritised(priority=command.priority)]
    return [*moved, JobQueued(priority=command.priority)] if job.work.state == "queued" else moved


def resolve_recipe(command: CreateJob, preset: Recipe | None) -> Recipe:
    """The recipe of a job: the preset's, the given one, or the default, with the command's changes on top."""
    if command.preset is not None and command.recipe is not None:
        raise Rejected("give a preset or a whole recipe, not both")
    return validate_recipe(apply_changes(preset or command.recipe or Recipe(), command.changes))
