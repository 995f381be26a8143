"""What the trainer knows of a job, folded from its history once for each attempt. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from contracts.errors import LogDamaged
from contracts.events.base import Event
from contracts.events.jobs import Artifact, JobCheckpointed, JobCreated, JobEdited, JobSampled, JobSucceeded


@dataclass(frozen=True)
class JobState:
    """A job: what was requested, and what earlier attempts recorded of it."""

    request: JobCreated
    requested_at: int
    """Sequence of the request."""
    name: str
    """The current name; the request has the original one."""
    checkpoints: tuple[JobCheckpointed, ...] = ()
    """One per step, the newest first: if it cannot be read, an older one may work."""
    samples: frozenset[tuple[int, int]] = frozenset()
    """(step, index) of each recorded sample."""
    artifacts: tuple[Artifact, ...] = ()
    """The finished files; none before the job has succeeded."""


def fold(history: Sequence[tuple[Event, int]]) -> JobState:
    """The job after a history of (event, sequence of its commit)."""
    match history:
        case [(JobCreated() as request, sequence), *later]:
            job = JobState(request, sequence, request.name)
        case _:
            raise LogDamaged("the history of the job does not begin with its creation")
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
