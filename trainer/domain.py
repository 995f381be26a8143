"""What the trainer knows of a job, folded from its history once for each attempt. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from contracts.errors import LogDamaged
from contracts.events.base import Event
from contracts.events.jobs import (
    Artifact,
    JobCheckpointed,
    JobCreated,
    JobEdited,
    JobSampled,
    JobSucceeded,
    JobVersionSet,
)


@dataclass(frozen=True)
class JobState:
    """A job: what was requested, and what earlier attempts recorded of it."""

    request: JobCreated
    version: JobVersionSet
    version_set_at: int
    """Sequence of `version`."""
    name: str
    """The current name; the request has the original one."""
    checkpoints: tuple[JobCheckpointed, ...] = ()
    """One per step, the newest first: if it cannot be read, an older one may work."""
    samples: frozenset[tuple[int, int]] = frozenset()
    """(step, index) of each recorded sample."""
    artifacts: tuple[Artifact, ...] = ()
    """The finished files; none before the job has succeeded."""


def fold(history: Sequence[tuple[Event, int]]) -> JobState:
    """The job after a history of (event, sequence of its commit). A worker fetches no job without a version."""
    version = next(((event, sequence) for event, sequence in history if isinstance(event, JobVersionSet)), None)
    match history:
        case [(JobCreated() as request, _), *later] if version is not None:
            job = JobState(request, *version, request.name)
        case _:
            raise LogDamaged("the history of the job does not begin with its creation, or lacks its version")
    checkpoint_of_step: dict[int, JobCheckpointed] = {}
    samples: set[tuple[int, int]] = set()
    for event, _ in later:
        match event:
            case JobEdited(name=str(name)):
                job = replace(job, name=name)
            case JobCheckpointed(step=step):
                checkpoint_of_step[step] = event
            case JobSampled(step=step, index=index):
                samples.add((step, index))
            case JobSucceeded(artifacts=artifacts):
                job = replace(job, artifacts=artifacts)
            case _:
                pass
    newest_first = sorted(checkpoint_of_step.values(), key=lambda checkpoint: checkpoint.step, reverse=True)
    return replace(job, checkpoints=tuple(newest_first), samples=frozenset(samples))
