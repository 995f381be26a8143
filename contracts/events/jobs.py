"""Events of jobs. The catalog appends what was requested, the trainer what happened."""

from typing import Literal

import msgspec

from contracts.definitions import union_in
from contracts.events.base import Event
from contracts.events.work import AttemptEvent, define_work
from contracts.ids import DatasetId, Digest, VersionId
from contracts.recipe import Recipe
from contracts.subjects import Priority
from contracts.wording import count, enumerated, listed, size_of


class JobCreated(Event, frozen=True, tag="job.created"):
    """A training was requested. Only name, description, labels and priority can change later.

    Until `job.version_set` says what it trains on, the data set is being frozen for it.
    """

    name: str
    mode: Literal["single", "batch", "variations", "quick-start"]
    dataset_id: DatasetId
    dataset: str
    recipe: Recipe
    preset: str | None = None
    trigger: str = ""
    priority: Priority = "normal"
    description: str = ""
    labels: tuple[str, ...] = ()

    def describe(self) -> str:
        return f"Created job {self.name!r} on data set {self.dataset!r}"


class JobStartRequested(Event, frozen=True, tag="job.start_requested"):
    """It is to be queued as soon as it has its version."""

    def describe(self) -> str:
        return "Start requested, as soon as the data set is frozen"


class JobVersionSet(Event, frozen=True, tag="job.version_set"):
    """The version of the data set it trains on: the one that was named, or the one frozen for it.

    `captions_lost`: images that it trains with their tags, because the keys of their captions were given up.
    """

    version: int
    version_id: VersionId
    manifest: Digest
    images: int
    captions_lost: int = 0

    def describe(self) -> str:
        lost = f", {self.captions_lost} of them without a lost caption" if self.captions_lost else ""
        return f"Set version {self.version} of the data set, with {count(self.images, 'image')}{lost}"


class JobEdited(Event, frozen=True, tag="job.edited"):
    """Changed name, description or labels; none = unchanged."""

    name: str | None = None
    description: str | None = None
    labels: tuple[str, ...] | None = None

    def describe(self) -> str:
        changed = [field for field in ("name", "description", "labels") if getattr(self, field) is not None]
        return f"Changed the {enumerated(changed)} of the job"


class JobPrioritised(Event, frozen=True, tag="job.prioritised"):
    priority: Priority

    def describe(self) -> str:
        return f"Changed the priority to {self.priority}"


class JobRemoved(Event, frozen=True, tag="job.removed"):
    """No longer listed. Its adapter and its history stay."""

    def describe(self) -> str:
        return "Removed the job"


class JobPlanned(AttemptEvent, frozen=True, tag="job.planned"):
    """The plan of the attempt, computed before its first step, and the device it runs on.

    `unused_masks`: images that have masks, which have no effect on training yet.
    """

    steps: int
    epochs: int
    device: str
    precision: str
    base: Digest
    """Digest over the base's weight files."""
    software: dict[str, str] = {}
    unused_masks: int = 0

    def describe(self) -> str:
        length = f"{count(self.steps, 'step')} ({count(self.epochs, 'epoch')})"
        masks = f"; the masks of {count(self.unused_masks, 'image')} have no effect yet" if self.unused_masks else ""
        return f"Planned {length} on {self.device} in {self.precision}{masks}"


class JobCheckpointed(AttemptEvent, frozen=True, tag="job.checkpointed"):
    """Adapter, optimizer and position in the data after `step`, in one complete blob."""

    step: int
    checkpoint: Digest
    size: int

    def describe(self) -> str:
        return f"Saved a checkpoint at step {self.step} ({size_of(self.size)})"


class JobSampled(AttemptEvent, frozen=True, tag="job.sampled"):
    """A sample rendered after `step`. Its prompt is the recipe's, or the caption of manifest entry `index`."""

    step: int
    index: int
    picture: Digest
    seed: int

    def describe(self) -> str:
        return f"Rendered sample {self.index + 1} at step {self.step}"


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A finished file: `format` is `kohya` or `diffusers`; `tensors` the sha256 of the data after the header."""

    name: str
    format: str
    digest: Digest
    size: int
    tensors: Digest


class JobSucceeded(AttemptEvent, frozen=True, tag="job.succeeded"):
    step: int
    artifacts: tuple[Artifact, ...]

    def describe(self) -> str:
        files = listed([artifact.name for artifact in self.artifacts])
        return f"Training completed after {count(self.step, 'step')}" + (f": {files}" if files else "")


JOB_WORK = define_work("job", "train", "trainer", __name__)
JobQueued = JOB_WORK.queued
JobAttemptStarted = JOB_WORK.attempt_started
JobInterrupted = JOB_WORK.interrupted
JobAttemptFailed = JOB_WORK.attempt_failed
JobCancelRequested = JOB_WORK.cancel_requested
JobCancelled = JOB_WORK.cancelled
JobFailed = JOB_WORK.failed

JobEvent = union_in(__name__, Event)
