"""Training jobs and their progress."""

import asyncio
from contextlib import aclosing, suppress
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from contracts import commands, queries
from contracts.commands import CommandMetadata, JobResult
from contracts.errors import Invalid
from contracts.ids import JobId
from contracts.queries import HistoryPage, JobView, Page
from contracts.subjects import Status
from contracts.telemetry import TrainingProgress
from gateway.clients import CatalogClient
from gateway.http import responses
from gateway.http.problems import problem_responses, response_spec
from gateway.http.request_context import AsOf, MinSeq, PageRequest
from gateway.http.responses import accepted, history_page, ok, page, with_etag
from gateway.live import LiveFeed
from gateway.live_views import JobLiveState, JobWithLiveState, add_job_live_state
from gateway.routes.bodies import JobBody, JobPatch, JobStatus, TrainingBody, TrainingMode, TrainingStatus
from gateway.routes.images import DatasetFilter

TERMINAL_STATUSES: frozenset[Status] = frozenset({"completed", "failed", "cancelled"})
STATUSES: tuple[Status, ...] = ("pending", "running", "paused", "completed", "failed", "cancelled")
TRAINING_MODES = (
    TrainingMode(name="single", description="One data set, one recipe, one LoRA.", endpoint="/api/v1/training/single"),
)

StatusFilter = Annotated[Status | None, QueryParameter(description="Only jobs in this status.")]
Wait = Annotated[int, QueryParameter(ge=0, le=60, description="Maximum time to wait, in seconds (long poll).")]
Until = Annotated[
    Literal["change", "terminal"],
    QueryParameter(description="What to wait for: the next event of the job, or its end."),
]


@post(
    "/training/single",
    status_code=202,
    responses={
        **response_spec(201, JobResult, "It was created, not started"),
        **problem_responses(404, 409, 415, 422),
    },
)
async def train_single(
    data: JSONBody[TrainingBody], metadata: NamedDependency[CommandMetadata], catalog: NamedDependency[CatalogClient]
) -> Response[JobResult]:
    """Train a LoRA on a data set. It starts as soon as a trainer is free, unless `auto_start` is false."""
    return await _create_job(data, metadata, catalog)


@get("/training/status", responses=problem_responses())
async def training_status(
    catalog: NamedDependency[CatalogClient], feed: NamedDependency[LiveFeed], min_seq: MinSeq = 0
) -> TrainingStatus:
    """The number of jobs in each status, and the connected trainers."""
    workers = tuple(presence for presence in feed.presences if presence.service == "trainer")
    return TrainingStatus(jobs=await count_jobs(catalog, min_seq), workers=workers)


@get("/training/modes", responses=problem_responses())
async def training_modes() -> Page[TrainingMode]:
    """The training modes."""
    return responses.single_page(TRAINING_MODES)


@post(
    "/jobs",
    status_code=201,
    responses={**response_spec(202, JobResult, "It was started as well"), **problem_responses(404, 409, 415, 422)},
)
async def create_job(
    data: JSONBody[JobBody], metadata: NamedDependency[CommandMetadata], catalog: NamedDependency[CatalogClient]
) -> Response[JobResult]:
    """Create a job without starting it (201), or with `auto_start` start it as well (202)."""
    return await _create_job(data, metadata, catalog)


@get("/jobs", responses=problem_responses(404))
async def list_jobs(  # noqa: PLR0913, PLR0917 - one parameter per filter
    request: Request[Any, Any, Any],
    paging: NamedDependency[PageRequest],
    catalog: NamedDependency[CatalogClient],
    feed: NamedDependency[LiveFeed],
    status: StatusFilter = None,
    dataset: DatasetFilter = None,
) -> Response[Page[JobWithLiveState]]:
    """All jobs, newest first."""
    found = await catalog.query(queries.ListJobs(status=status, dataset=dataset, **paging.query_args))
    items = tuple(_with_live_state(feed, view) for view in found.items)
    return page(request, Page(items=items, total=found.total, next=found.next))


@get("/jobs/{job:str}", responses=problem_responses(404))
async def get_job(  # noqa: PLR0913, PLR0917 - long polling adds two parameters
    job: FromPath[str],
    catalog: NamedDependency[CatalogClient],
    feed: NamedDependency[LiveFeed],
    as_of: NamedDependency[AsOf],
    wait: Wait = 0,
    until: Until = "change",
) -> Response[JobWithLiveState]:
    """One job: its recipe, progress and results. `live` is its current, unrecorded state.

    With `wait` the response is sent after the next event (`until=change`) or when the job has ended (`until=terminal`).
    With `at_seq` or `at_time` it is the job's state at that point.
    """
    query = queries.GetJob(job=JobId(job), **as_of.query_args)
    if as_of.is_past:
        if wait:
            raise Invalid("wait cannot be combined with at_seq or at_time: a past state does not change")
        view = await catalog.query(query)
        return with_etag(JobWithLiveState(**msgspec.structs.asdict(view), live=JobLiveState()), view.etag)
    view = await _wait_for_job(catalog, feed, query, wait, until)
    return with_etag(_with_live_state(feed, view), view.etag)


@get("/jobs/{job:str}/history", responses=problem_responses(404))
async def get_job_history(
    job: FromPath[str],
    request: Request[Any, Any, Any],
    paging: NamedDependency[PageRequest],
    catalog: NamedDependency[CatalogClient],
) -> Response[HistoryPage]:
    """The history of a job, oldest first: who did what, when and why, each with a description."""
    return history_page(request, await catalog.query(queries.ListJobHistory(job=JobId(job), **paging.query_args)))


@patch("/jobs/{job:str}", responses=problem_responses(404, 409, 415, 422))
async def edit_job(
    job: FromPath[str],
    data: JSONBody[JobPatch],
    metadata: NamedDependency[CommandMetadata],
    catalog: NamedDependency[CatalogClient],
) -> Response[JobResult]:
    """Change a job's name, description, labels or priority. A running training is not affected."""
    command = commands.EditJob(
        job=JobId(job), name=data.name, description=data.description, labels=data.labels, priority=data.priority
    )
    return ok(await catalog.command(metadata, command))


@delete("/jobs/{job:str}", status_code=200, responses=problem_responses(404, 409))
async def remove_job(
    job: FromPath[str], metadata: NamedDependency[CommandMetadata], catalog: NamedDependency[CatalogClient]
) -> Response[JobResult]:
    """Remove a job that has ended or was never started. Its LoRA and its history stay."""
    return ok(await catalog.command(metadata, commands.RemoveJob(job=JobId(job))))


@post(
    "/jobs/{job:str}/start",
    status_code=202,
    responses={**response_spec(200, JobResult, "It is pending or running already"), **problem_responses(404, 409)},
)
async def start_job(
    job: FromPath[str], metadata: NamedDependency[CommandMetadata], catalog: NamedDependency[CatalogClient]
) -> Response[JobResult]:
    """Start a created job: 202, or 200 if it is pending or running already."""
    return accepted(await catalog.command(metadata, commands.StartJob(job=JobId(job))))


@post(
    "/jobs/{job:str}/cancel",
    status_code=202,
    responses={**response_spec(200, JobResult, "It was cancelled already"), **problem_responses(404, 409)},
)
async def cancel_job(
    job: FromPath[str], metadata: NamedDependency[CommandMetadata], catalog: NamedDependency[CatalogClient]
) -> Response[JobResult]:
    """Cancel a job; training stops within two seconds. 202, or 200 if it was cancelled already."""
    result = await catalog.command(metadata, commands.CancelJob(job=JobId(job)))
    await catalog.wake_worker("train", JobId(job))
    return accepted(result)


@get("/jobs/{job:str}/status", responses=problem_responses(404))
async def get_job_status(
    job: FromPath[str], catalog: NamedDependency[CatalogClient], feed: NamedDependency[LiveFeed], min_seq: MinSeq = 0
) -> Response[JobStatus]:
    """A job's progress in brief."""
    view = await catalog.query(queries.GetJob(job=JobId(job), min_seq=min_seq))
    progress = _with_live_state(feed, view).live.progress or TrainingProgress(
        job_id=view.id, attempt=0, phase=view.phase, at=view.created_at, step=view.step
    )
    body = JobStatus(
        id=view.id,
        status=view.status,
        phase=progress.phase,
        step=max(progress.step, view.step),
        steps=view.steps,
        loss=progress.loss,
        eta=progress.eta,
        position=view.position,
        seq=view.etag,
    )
    return with_etag(body, view.etag)


async def _create_job(data: JobBody, metadata: CommandMetadata, catalog: CatalogClient) -> Response[JobResult]:
    command = commands.CreateJob(
        dataset=data.dataset,
        version=data.version,
        preset=data.preset,
        recipe=data.recipe,
        changes=data.changes,
        name=data.name,
        trigger=data.trigger,
        mode=data.mode,
        priority=data.priority,
        description=data.description,
        labels=data.labels,
        start=data.auto_start,
    )
    result = await catalog.command(metadata, command)
    return ok(result, 202 if data.auto_start else 201, responses.url_path("jobs", result.id))


async def _wait_for_job(
    catalog: CatalogClient, feed: LiveFeed, query: queries.GetJob, wait: int, until: str
) -> JobView:
    if not wait:
        return await catalog.query(query)
    with feed.subscribe(job_id=query.job) as subscriber:  # before the query, so that no event is missed
        view = await catalog.query(query)
        with suppress(TimeoutError):
            async with asyncio.timeout(wait), aclosing(feed.changes(subscriber)) as changes:
                while not (until == "terminal" and view.status in TERMINAL_STATUSES):
                    sequence = await anext(changes)
                    view = await catalog.query(queries.GetJob(job=query.job, min_seq=sequence))
                    if until == "change":
                        break
    return view


async def count_jobs(catalog: CatalogClient, min_seq: int = 0) -> dict[str, int]:
    """The number of jobs in each status."""
    return {
        status: (await catalog.query(queries.ListJobs(status=status, limit=1, min_seq=min_seq))).total
        for status in STATUSES
    }


def _with_live_state(feed: LiveFeed, view: JobView) -> JobWithLiveState:
    return add_job_live_state(view, feed.progress_of(view.id), feed.presences, feed.absent_since("trainer"))


ROUTES = [
    train_single,
    training_status,
    training_modes,
    create_job,
    list_jobs,
    get_job,
    get_job_history,
    edit_job,
    remove_job,
    start_job,
    cancel_job,
    get_job_status,
]
