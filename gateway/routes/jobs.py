"""Training jobs and their progress."""

import asyncio
from contextlib import aclosing, suppress
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from litestar import Response, delete, get, patch, post
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta

from contracts.commands.base import CommandMetadata, Description, Name, Trigger
from contracts.commands.jobs import CancelJob, CreateJob, EditJob, JobResult, RemoveJob, StartJob
from contracts.errors import Invalid
from contracts.ids import JobId
from contracts.queries.base import Page
from contracts.queries.jobs import GetJob, JobView, ListJobs
from contracts.queries.log import HistoryPage, ListJobHistory
from contracts.recipe import Recipe
from contracts.subjects import Priority, Status
from contracts.telemetry import Presence, TrainingProgress
from gateway.clients import CatalogClient
from gateway.http.problems import not_shown_response, problem_responses, response_spec
from gateway.http.request_context import MinSeq
from gateway.http.responses import accepted, ok, single_page, with_etag
from gateway.live.feed import LiveFeed
from gateway.live_views import JobLiveState, JobWithLiveState, add_job_live_state, job_progress, with_live_state
from gateway.routes.aliases import DatasetAndPreset
from gateway.routes.shared import AsOf, Body, Catalog, DatasetFilter, Feed, Metadata, Paging

TERMINAL_STATUSES: frozenset[Status] = frozenset({"completed", "failed", "cancelled"})
STATUSES: tuple[Status, ...] = ("pending", "running", "paused", "completed", "failed", "cancelled")

StatusFilter = Annotated[Status | None, QueryParameter(description="Only jobs in this status.")]
Wait = Annotated[int, QueryParameter(ge=0, le=60, description="Maximum time to wait, in seconds (long poll).")]
Until = Annotated[
    Literal["change", "terminal"],
    QueryParameter(description="What to wait for: the next event of the job, or its end."),
]
Labels = Annotated[tuple[Name, ...], Meta(max_length=32)]


class JobBody(DatasetAndPreset, frozen=True):
    """A training: a data set (frozen now, or an existing version) and a recipe.

    The recipe is the preset's, or `recipe`, or the default one, with `changes` applied to it. `trigger`: that of the
    version or of the data set if it is left out; an empty one is none.
    """

    version: Annotated[int, Meta(ge=1)] | None = None
    recipe: Recipe | None = None
    changes: dict[str, object] = {}
    mode: Literal["single"] = "single"
    name: Annotated[str, Meta(max_length=100)] = ""
    trigger: Trigger | None = None
    priority: Priority = "normal"
    description: Description = ""
    labels: Labels = ()
    auto_start: bool = False


class TrainingBody(JobBody, frozen=True):
    """The same as for a job, but `auto_start` is true by default."""

    auto_start: bool = True


class QuickStartBody(DatasetAndPreset, frozen=True):
    """A data set, and a preset if the default recipe is not meant."""

    name: Annotated[str, Meta(max_length=100)] = ""
    trigger: Trigger | None = None


class JobPatch(Body, frozen=True):
    """Name, description, labels and priority; omitted fields stay. The status changes only by start and cancel."""

    name: Name | None = None
    description: Description | None = None
    labels: Labels | None = None
    priority: Priority | None = None


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A job's progress in brief. `seq` is the ETag of the job.

    `current_step`, `total_steps` and `progress_percentage` say the same in the words of progress frames.
    """

    id: JobId
    status: str
    phase: str
    step: int
    steps: int | None
    loss: float | None
    eta: float | None
    position: int | None
    progress_percentage: float
    current_step: int
    total_steps: int | None
    completed_at: datetime | None
    seq: int


class TrainingMode(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    description: str
    endpoint: str


class TrainingStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The number of jobs in each status, and the connected trainers."""

    jobs: dict[str, int]
    workers: tuple[Presence, ...]


TRAINING_MODES = (
    TrainingMode(name="single", description="One data set, one recipe, one LoRA.", endpoint="/api/v1/training/single"),
    TrainingMode(
        name="quick-start",
        description="The same with a preset as it is, started at once.",
        endpoint="/api/v1/training/quick-start",
    ),
)


@post(
    "/training/single",
    status_code=202,
    responses=response_spec(201, JobResult, "It was created, not started") | problem_responses(404, 409, 415, 422),
)
async def train_single(data: JSONBody[TrainingBody], metadata: Metadata, catalog: Catalog) -> Response[JobResult]:
    """Train a LoRA on a data set. It starts as soon as a trainer is free, unless `auto_start` is false."""
    return await _create_job(data, metadata, catalog)


@post("/training/quick-start", status_code=202, responses=problem_responses(404, 409, 415, 422))
async def quick_start(data: JSONBody[QuickStartBody], metadata: Metadata, catalog: Catalog) -> Response[JobResult]:
    """Train a LoRA on a data set with a preset as it is. It starts as soon as a trainer is free."""
    training = TrainingBody(**msgspec.structs.asdict(data))
    return await _create_job(training, metadata, catalog, mode="quick-start")


@get("/training/status", responses=problem_responses())
async def training_status(catalog: Catalog, feed: Feed, min_seq: MinSeq = 0) -> TrainingStatus:
    """The number of jobs in each status, and the connected trainers."""
    return TrainingStatus(jobs=await count_jobs(catalog, min_seq), workers=tuple(feed.workers("trainer")))


@get("/training/modes", responses=problem_responses())
async def training_modes() -> Page[TrainingMode]:
    """The training modes."""
    return single_page(TRAINING_MODES)


@post(
    "/jobs",
    status_code=201,
    responses=response_spec(202, JobResult, "It was started as well, or is not shown yet")
    | problem_responses(404, 409, 415, 422),
)
async def create_job(data: JSONBody[JobBody], metadata: Metadata, catalog: Catalog) -> Response[JobResult]:
    """Create a job without starting it (201), or with `auto_start` start it as well (202)."""
    return await _create_job(data, metadata, catalog)


@get("/jobs", responses=problem_responses(404))
async def list_jobs(
    paging: Paging, catalog: Catalog, feed: Feed, status: StatusFilter = None, dataset: DatasetFilter = None
) -> Response[Page[JobWithLiveState]]:
    """All jobs, newest first."""
    found = await catalog.query(ListJobs(status=status, dataset=dataset, **paging.query_args))
    items = tuple(add_job_live_state(feed, view) for view in found.items)
    return paging.response(Page(items=items, total=found.total, next=found.next))


@get("/jobs/{job:str}", responses=problem_responses(404))
async def get_job(  # noqa: PLR0913, PLR0917 - long polling adds two parameters
    job: FromPath[JobId], catalog: Catalog, feed: Feed, as_of: AsOf, wait: Wait = 0, until: Until = "change"
) -> Response[JobWithLiveState]:
    """One job: its recipe, progress and results. `live` is its current, unrecorded state.

    With `wait` the response is sent after the next event (`until=change`) or when the job has ended (`until=terminal`).
    With `at_seq` or `at_time` it is the job's state at that point.
    """
    query = GetJob(job=job, **as_of.query_args)
    if as_of.is_past:
        if wait:
            raise Invalid("wait cannot be combined with at_seq or at_time: a past state does not change")
        view = await catalog.query(query)
        return with_etag(with_live_state(view, JobLiveState()), view.etag)
    view = await _wait_for_job(catalog, feed, query, wait, until)
    return with_etag(add_job_live_state(feed, view), view.etag)


@get("/jobs/{job:str}/history", responses=problem_responses(404))
async def get_job_history(job: FromPath[JobId], paging: Paging, catalog: Catalog) -> Response[HistoryPage]:
    """The history of a job, oldest first: who did what, when and why, each with a description."""
    return paging.response(await catalog.query(ListJobHistory(job=job, **paging.query_args)))


@patch("/jobs/{job:str}", responses=not_shown_response(JobResult) | problem_responses(404, 409, 415, 422))
async def edit_job(
    job: FromPath[JobId], data: JSONBody[JobPatch], metadata: Metadata, catalog: Catalog
) -> Response[JobResult]:
    """Change a job's name, description, labels or priority. A running training is not affected."""
    command = EditJob(job=job, name=data.name, description=data.description, labels=data.labels, priority=data.priority)
    return ok(await catalog.command(metadata, command))


@delete("/jobs/{job:str}", status_code=200, responses=not_shown_response(JobResult) | problem_responses(404, 409))
async def remove_job(job: FromPath[JobId], metadata: Metadata, catalog: Catalog) -> Response[JobResult]:
    """Remove a job that has ended or was never started. Its LoRA and its history stay."""
    return ok(await catalog.command(metadata, RemoveJob(job=job)))


@post(
    "/jobs/{job:str}/start",
    status_code=202,
    responses=response_spec(200, JobResult, "It is pending or running already") | problem_responses(404, 409),
)
async def start_job(job: FromPath[JobId], metadata: Metadata, catalog: Catalog) -> Response[JobResult]:
    """Start a created job: 202, or 200 if it is pending or running already."""
    return accepted(await catalog.command(metadata, StartJob(job=job)))


@post(
    "/jobs/{job:str}/cancel",
    status_code=202,
    responses=response_spec(200, JobResult, "It was cancelled already") | problem_responses(404, 409),
)
async def cancel_job(job: FromPath[JobId], metadata: Metadata, catalog: Catalog) -> Response[JobResult]:
    """Cancel a job; it stops within a second, whatever it is doing. 202, or 200 if it was cancelled already."""
    result = await catalog.command(metadata, CancelJob(job=job))
    await catalog.wake_worker("train", job)
    return accepted(result)


@get("/jobs/{job:str}/status", responses=problem_responses(404))
async def get_job_status(
    job: FromPath[JobId], catalog: Catalog, feed: Feed, min_seq: MinSeq = 0
) -> Response[JobStatus]:
    """A job's progress in brief."""
    view = await catalog.query(GetJob(job=job, min_seq=min_seq))
    live = add_job_live_state(feed, view).live.progress
    progress = live or TrainingProgress(job_id=view.id, attempt=0, phase=view.phase, at=view.created_at, step=view.step)
    body = JobStatus(
        id=view.id,
        status=view.status,
        phase=progress.phase,
        step=max(progress.step, view.step),
        steps=view.steps,
        loss=progress.loss,
        eta=progress.eta,
        position=view.position,
        **job_progress(view, live)._asdict(),
        seq=view.etag,
    )
    return with_etag(body, view.etag)


async def _create_job(
    data: JobBody,
    metadata: CommandMetadata,
    catalog: CatalogClient,
    *,
    mode: Literal["single", "quick-start"] = "single",
) -> Response[JobResult]:
    command = CreateJob(
        dataset=data.dataset_ref(),
        version=data.version,
        preset=data.preset_ref(),
        recipe=data.recipe,
        changes=data.changes,
        mode=mode,
        name=data.name,
        trigger=data.trigger,
        priority=data.priority,
        description=data.description,
        labels=data.labels,
        start=data.auto_start,
    )
    result = await catalog.command(metadata, command)
    return ok(result, "jobs", result.id, status=202 if data.auto_start else 201)


async def _wait_for_job(catalog: CatalogClient, feed: LiveFeed, query: GetJob, wait: int, until: str) -> JobView:
    if not wait:
        return await catalog.query(query)
    with feed.subscribe(job_id=query.job) as subscriber:  # before the query, so that no event is missed
        view = await catalog.query(query)
        with suppress(TimeoutError):
            async with asyncio.timeout(wait), aclosing(feed.changes(subscriber)) as changes:
                while not (until == "terminal" and view.status in TERMINAL_STATUSES):
                    sequence = await anext(changes)
                    view = await catalog.query(GetJob(job=query.job, min_seq=sequence))
                    if until == "change":
                        break
    return view


async def count_jobs(catalog: CatalogClient, min_seq: int = 0) -> dict[str, int]:
    """The number of jobs in each status."""
    return {
        status: (await catalog.query(ListJobs(status=status, limit=1, min_seq=min_seq))).total for status in STATUSES
    }
