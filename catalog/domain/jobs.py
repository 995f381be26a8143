"""The rules of job commands; the state machine that workers drive is in `contracts.jobs`. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from contracts import jobs
from contracts.commands import CancelJob, CreateJob, EditJob, JobCommand, RemoveJob, StartJob
from contracts.errors import IllegalTransition, NotFound, Rejected
from contracts.events import AnyEvent, Event, JobCreated, JobEdited, JobPrioritised, JobQueued, JobRemoved
from contracts.jobs import Work
from contracts.recipe import Recipe, apply_changes, validate_recipe


@dataclass(frozen=True)
class JobState:
    """The state that job commands are decided on: the work's state and the editable details."""

    work: Work = field(default_factory=Work)
    name: str = ""
    description: str = ""
    labels: tuple[str, ...] = ()


def evolve(job: JobState, event: AnyEvent, sequence: int) -> JobState:
    job = replace(job, work=jobs.evolve(job.work, event, sequence))
    match event:
        case JobCreated(name=name, description=description, labels=labels):
            return replace(job, name=name, description=description, labels=labels)
        case JobEdited(name=name, description=description, labels=labels):
            return replace(
                job,
                name=job.name if name is None else name,
                description=job.description if description is None else description,
                labels=job.labels if labels is None else labels,
            )
        case _:
            return job


def fold(history: Iterable[tuple[AnyEvent, int]]) -> JobState:
    job = JobState()
    for event, sequence in history:
        job = evolve(job, event, sequence)
    return job


def decide(job: JobState, command: JobCommand) -> list[Event]:
    """The events that a command causes in an existing job; none if nothing changes."""
    if job.work.state in ("absent", "removed"):
        raise NotFound("there is no such job")
    match command:
        case StartJob():
            queued = jobs.enqueue(job.work, "train")
            return [] if queued is None else [queued]
        case CancelJob(reason=reason):
            return jobs.cancel(job.work, "train", reason)
        case EditJob():
            return [*_edit_details(job, command), *_change_priority(job, command)]
        case RemoveJob():
            if job.work.ended or job.work.state == "draft":
                return [JobRemoved()]
            detail = "a job that waits or runs cannot be removed; cancel it first"
            raise IllegalTransition(detail, state=job.work.state, allowed=["cancel"])
        case CreateJob():
            raise Rejected("the job exists already")


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
