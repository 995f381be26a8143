"""The rules of jobs as they are asked for; what workers do to them is in `contracts.jobs`. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from contracts import jobs
from contracts.commands import CancelJob, CreateJob, EditJob, JobWish, RemoveJob, StartJob
from contracts.errors import IllegalTransition, NotFound, Rejected
from contracts.events import AnyFact, Fact, JobCreated, JobEdited, JobPrioritised, JobQueued, JobRemoved
from contracts.jobs import Work
from contracts.recipe import Recipe, checked, overlaid


@dataclass(frozen=True)
class Job:
    """A job as far as the rules of asking go: the work, and the words about it."""

    work: Work = field(default_factory=Work)
    name: str = ""
    description: str = ""
    labels: tuple[str, ...] = ()


def evolve(job: Job, fact: AnyFact, sequence: int) -> Job:
    job = replace(job, work=jobs.evolve(job.work, fact, sequence))
    match fact:
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


def fold(history: Iterable[tuple[AnyFact, int]]) -> Job:
    job = Job()
    for fact, sequence in history:
        job = evolve(job, fact, sequence)
    return job


def decide(job: Job, wish: JobWish) -> list[Fact]:
    """What happens to a job that exists; nothing where it is so already."""
    if job.work.state in ("absent", "removed"):
        raise NotFound("there is no such job")
    match wish:
        case StartJob():
            queued = jobs.queue_up(job.work, "train")
            return [] if queued is None else [queued]
        case CancelJob(reason=reason):
            return jobs.cancel(job.work, "train", reason)
        case EditJob():
            return [*_words(job, wish), *_priority(job, wish)]
        case RemoveJob():
            if job.work.ended or job.work.state == "draft":
                return [JobRemoved()]
            sentence = "a job that waits or runs cannot be removed; cancel it first"
            raise IllegalTransition(sentence, state=job.work.state, allowed=["cancel"])
        case CreateJob():
            raise Rejected("the job exists already")


def _words(job: Job, wish: EditJob) -> list[Fact]:
    edit = JobEdited(
        name=wish.name if wish.name != job.name else None,
        description=wish.description if wish.description != job.description else None,
        labels=wish.labels if wish.labels != job.labels else None,
    )
    return [] if edit == JobEdited() else [edit]


def _priority(job: Job, wish: EditJob) -> list[Fact]:
    """Another priority gives what waits a new place in the queue; what runs only remembers it."""
    if wish.priority is None or wish.priority == job.work.priority:
        return []
    if job.work.ended:
        raise IllegalTransition("the job has ended", state=job.work.state, allowed=["delete"])
    moved: list[Fact] = [JobPrioritised(priority=wish.priority)]
    return [*moved, JobQueued(priority=wish.priority)] if job.work.state == "queued" else moved


def resolved(wish: CreateJob, preset: Recipe | None) -> Recipe:
    """The recipe a job carries: the preset's, the one given, or the plain one, with the wish's changes on top."""
    if wish.preset is not None and wish.recipe is not None:
        raise Rejected("give a preset or a whole recipe, not both")
    return checked(overlaid(preset or wish.recipe or Recipe(), wish.changes))
