"""Events of jobs. The catalog appends what was requested, the trainer what happened."""

from typing import Literal

import msgspec

from contracts.events.base import Event
from contracts.events.work import AttemptFailed, AttemptStarted, Cancelled, CancelRequested, Failed, Interrupted, Queued
from contracts.ids import DatasetId, Digest, VersionId
from contracts.recipe import Recipe
from contracts.subjects import Priority


class JobCreated(Event, frozen=True, tag="job.created"):
    """A training was requested. Only name, description, labels and priority can change later."""

    name: str
    mode: Literal["single", "batch", "variations", "quick-start"]
    dataset_id: DatasetId
    dataset: str
    version: int
    version_id: VersionId
    manifest: Digest
    images: int
    recipe: Recipe
    preset: str | None = None
    trigger: str = ""
    priority: Priority = "normal"
    description: str = ""
    labels: tuple[str, ...] = ()
    group: str | None = None


class JobEdited(Event, frozen=True, tag="job.edited"):
    """Changed name, description or labels; none = unchanged."""

    name: str | None = None
    description: str | None = None
    labels: tuple[str, ...] | None = None


class JobPrioritised(Event, frozen=True, tag="job.prioritised"):
    priority: Priority


class JobRemoved(Event, frozen=True, tag="job.removed"):
    """No longer listed. Its adapter and its history stay."""


class JobQueued(Queued, frozen=True, tag="job.queued"):
    pass


class JobAttemptStarted(AttemptStarted, frozen=True, tag="job.attempt_started"):
    pass


class JobPlanned(Event, frozen=True, tag="job.planned"):
    """The plan of the attempt, computed before its first step, and the device it runs on."""

    attempt: int
    steps: int
    epochs: int
    device: str
    precision: str
    base: Digest
    """Digest over the base's weight files."""
    software: dict[str, str] = {}


class JobCheckpointed(Event, frozen=True, tag="job.checkpointed"):
    """Adapter, optimizer and position in the data after `step`, in one complete blob."""

    attempt: int
    step: int
    checkpoint: Digest
    size: int


class JobSampled(Event, frozen=True, tag="job.sampled"):
    """A sample rendered after `step`. Its prompt is the recipe's, or the caption of manifest entry `index`."""

    attempt: int
    step: int
    index: int
    picture: Digest
    seed: int


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A finished file: `format` is `kohya` or `diffusers`; `tensors` the sha256 of the data after the header."""

    name: str
    format: str
    digest: Digest
    size: int
    tensors: Digest


class JobSucceeded(Event, frozen=True, tag="job.succeeded"):
    attempt: int
    step: int
    artifacts: tuple[Artifact, ...]


class JobInterrupted(Interrupted, frozen=True, tag="job.interrupted"):
    pass


class JobAttemptFailed(AttemptFailed, frozen=True, tag="job.attempt_failed"):
    pass


class JobCancelRequested(CancelRequested, frozen=True, tag="job.cancel_requested"):
    pass


class JobCancelled(Cancelled, frozen=True, tag="job.cancelled"):
    pass


class JobFailed(Failed, frozen=True, tag="job.failed"):
    pass


JobEvent = (
    JobCreated
    | JobEdited
    | JobPrioritised
    | JobRemoved
    | JobQueued
    | JobAttemptStarted
    | JobPlanned
    | JobCheckpointed
    | JobSampled
    | JobSucceeded
    | JobInterrupted
    | JobAttemptFailed
    | JobCancelRequested
    | JobCancelled
    | JobFailed
)
