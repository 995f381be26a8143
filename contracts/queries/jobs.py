"""Queries about training jobs."""

from datetime import datetime

from contracts.events.jobs import Artifact
from contracts.ids import DatasetId, Digest, JobId, VersionId, WorkerId
from contracts.queries.base import Limit, Page, QueryAt, QueryPage, View
from contracts.recipe import Recipe
from contracts.subjects import Priority, Status


class CheckpointView(View, frozen=True):
    step: int
    attempt: int
    checkpoint: Digest
    size: int
    at: datetime


class SampleView(View, frozen=True):
    step: int
    index: int
    prompt: str
    seed: int
    picture: Digest
    at: datetime


class AttemptView(View, frozen=True):
    """`ended` says how: succeeded, failed, cancelled, interrupted, crashed; none while it is open."""

    attempt: int
    worker: WorkerId
    resumes: int
    started_at: datetime
    ended: str | None
    reason: str | None


class JobView(View, frozen=True):
    """`phase` refines `status`: freezing, draft, queued, running and so on. `step` is the last checkpointed step.

    `position` in the queue of its class (1 = next), none when it is not queued. `version`, `version_id` and `images`
    are none until the data set is frozen for it. `captions_lost`: number of images it trains with their tags, because
    the keys of their captions were given up.
    """

    id: JobId
    name: str
    description: str
    labels: tuple[str, ...]
    mode: str
    status: Status
    phase: str
    priority: Priority
    preset: str | None
    dataset_id: DatasetId
    dataset: str
    version: int | None
    version_id: VersionId | None
    images: int | None
    captions_lost: int
    trigger: str
    recipe: Recipe
    step: int
    steps: int | None
    device: str | None
    precision: str | None
    attempts: tuple[AttemptView, ...]
    artifacts: tuple[Artifact, ...]
    checkpoints: int
    samples: int
    position: int | None
    error_code: str | None
    error: str | None
    actor: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    etag: int


class ListJobs(QueryPage[Page[JobView]], frozen=True):
    """Newest first."""

    status: Status | None = None
    dataset: str | None = None


class GetJob(QueryAt[JobView], frozen=True):
    job: JobId


class ListCheckpoints(QueryPage[Page[CheckpointView]], frozen=True, kw_only=True):
    job: JobId
    limit: Limit = 500


class ListSamples(QueryPage[Page[SampleView]], frozen=True, kw_only=True):
    job: JobId
    limit: Limit = 500
