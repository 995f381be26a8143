"""Jobs: trainings that were asked for, and how they go."""

import asyncio
from contextlib import aclosing, suppress
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from contracts import commands, queries
from contracts.commands import Origin, Receipt
from contracts.errors import Invalid
from contracts.ids import JobId
from contracts.jobs import Status
from contracts.queries import History, JobView, Page
from contracts.telemetry import TrainingProgress
from gateway.http import answers
from gateway.http.answers import asked_for, done, listed, narrated, viewed
from gateway.http.asking import Listing, MinSeq, Moment
from gateway.http.problems import also, problems
from gateway.live import LiveFeed
from gateway.owners import Catalog
from gateway.routes.bodies import JobBody, JobPatch, JobStatus, Mode, TrainingBody, TrainingStatus
from gateway.routes.images import DatasetFilter
from gateway.waiting import JobNow, LiveJob, job_now

ENDED: frozenset[Status] = frozenset({"completed", "failed", "cancelled"})
STATUSES: tuple[Status, ...] = ("pending", "running", "paused", "completed", "failed", "cancelled")
MODES = (Mode(name="single", description="One data set, one recipe, one LoRA.", endpoint="/api/v1/training/single"),)

StatusFilter = Annotated[Status | None, QueryParameter(description="Only jobs in this status.")]
Wait = Annotated[
    int, QueryParameter(ge=0, le=60, description="Answer after so many seconds at the latest (long poll).")
]
Until = Annotated[
    Literal["change", "terminal"],
    QueryParameter(description="What `wait` waits for: the next event of the job, or its end."),
]


@post(
    "/training/single",
    status_code=202,
    responses={**also(201, Receipt, "It was drawn up, not started"), **problems(404, 409, 415, 422)},
)
async def train_single(
    data: JSONBody[TrainingBody], origin: NamedDependency[Origin], catalog: NamedDependency[Catalog]
) -> Response[Receipt]:
    """Train a LoRA on a data set. It starts as soon as a trainer is free, unless `auto_start` is false."""
    return await _created(data, origin, catalog)


@get("/training/status", responses=problems())
async def training_status(
    catalog: NamedDependency[Catalog], feed: NamedDependency[LiveFeed], min_seq: MinSeq = 0
) -> TrainingStatus:
    """How many jobs are in each status, and which trainers are here."""
    workers = tuple(presence for presence in feed.presences if presence.service == "trainer")
    return TrainingStatus(jobs=await count_jobs(catalog, min_seq), workers=workers)


@get("/training/modes", responses=problems())
async def training_modes() -> Page[Mode]:
    """The ways to train."""
    return answers.whole(MODES)


@post(
    "/jobs", status_code=201, responses={**also(202, Receipt, "It was started as well"), **problems(404, 409, 415, 422)}
)
async def create_job(
    data: JSONBody[JobBody], origin: NamedDependency[Origin], catalog: NamedDependency[Catalog]
) -> Response[Receipt]:
    """Draw up a training without starting it (201), or with `auto_start` start it at once (202)."""
    return await _created(data, origin, catalog)


@get("/jobs", responses=problems(404))
async def list_jobs(  # noqa: PLR0913, PLR0917 - what a list can be narrowed by
    request: Request[Any, Any, Any],
    page: NamedDependency[Listing],
    catalog: NamedDependency[Catalog],
    feed: NamedDependency[LiveFeed],
    status: StatusFilter = None,
    dataset: DatasetFilter = None,
) -> Response[Page[JobNow]]:
    """All jobs, newest first."""
    found = await catalog.ask(queries.ListJobs(status=status, dataset=dataset, **page.asked))
    items = tuple(_now(feed, view) for view in found.items)
    return listed(request, Page(items=items, total=found.total, next=found.next))


@get("/jobs/{job:str}", responses=problems(404))
async def get_job(  # noqa: PLR0913, PLR0917 - long polling takes two arguments of its own
    job: FromPath[str],
    catalog: NamedDependency[Catalog],
    feed: NamedDependency[LiveFeed],
    at: NamedDependency[Moment],
    wait: Wait = 0,
    until: Until = "change",
) -> Response[JobNow]:
    """One job: what was asked, how far it is, what came of it. `live` is what is only true now.

    With `wait` the answer comes when something happened (`until=change`) or the job has ended (`until=terminal`).
    With `at_seq` or `at_time` it is the job as it was then.
    """
    query = queries.GetJob(job=JobId(job), **at.asked)
    if at.past:
        if wait:
            raise Invalid("wait is for what is to come; a job as it was does not change")
        view = await catalog.ask(query)
        return viewed(JobNow(**msgspec.structs.asdict(view), live=LiveJob()), view.etag)
    view = await _awaited(catalog, feed, query, wait, until)
    return viewed(_now(feed, view), view.etag)


@get("/jobs/{job:str}/history", responses=problems(404))
async def get_job_history(
    job: FromPath[str],
    request: Request[Any, Any, Any],
    page: NamedDependency[Listing],
    catalog: NamedDependency[Catalog],
) -> Response[History]:
    """The story of a job, oldest first: who did what, when and why, in words and in fields."""
    return narrated(request, await catalog.ask(queries.ListJobHistory(job=JobId(job), **page.asked)))


@patch("/jobs/{job:str}", responses=problems(404, 409, 415, 422))
async def edit_job(
    job: FromPath[str],
    data: JSONBody[JobPatch],
    origin: NamedDependency[Origin],
    catalog: NamedDependency[Catalog],
) -> Response[Receipt]:
    """Change words about a job, or its priority. A training goes on undisturbed."""
    wish = commands.EditJob(
        job=JobId(job), name=data.name, description=data.description, labels=data.labels, priority=data.priority
    )
    return done(await catalog.tell(origin, wish))


@delete("/jobs/{job:str}", status_code=200, responses=problems(404, 409))
async def remove_job(
    job: FromPath[str], origin: NamedDependency[Origin], catalog: NamedDependency[Catalog]
) -> Response[Receipt]:
    """Take a job that has ended or never started off the list. Its LoRA and its history stay."""
    return done(await catalog.tell(origin, commands.RemoveJob(job=JobId(job))))


@post(
    "/jobs/{job:str}/start",
    status_code=202,
    responses={**also(200, Receipt, "It waits or runs already"), **problems(404, 409)},
)
async def start_job(
    job: FromPath[str], origin: NamedDependency[Origin], catalog: NamedDependency[Catalog]
) -> Response[Receipt]:
    """Start a job that was drawn up: 202, or 200 when it waits or runs already."""
    return asked_for(await catalog.tell(origin, commands.StartJob(job=JobId(job))))


@post(
    "/jobs/{job:str}/cancel",
    status_code=202,
    responses={**also(200, Receipt, "It was being stopped already"), **problems(404, 409)},
)
async def cancel_job(
    job: FromPath[str], origin: NamedDependency[Origin], catalog: NamedDependency[Catalog]
) -> Response[Receipt]:
    """Stop a job; a training ends within two seconds. 202, or 200 when that was asked already."""
    receipt = await catalog.tell(origin, commands.CancelJob(job=JobId(job)))
    await catalog.nudge("train", JobId(job))
    return asked_for(receipt)


@get("/jobs/{job:str}/status", responses=problems(404))
async def get_job_status(
    job: FromPath[str], catalog: NamedDependency[Catalog], feed: NamedDependency[LiveFeed], min_seq: MinSeq = 0
) -> Response[JobStatus]:
    """The little that a progress bar needs."""
    view = await catalog.ask(queries.GetJob(job=JobId(job), min_seq=min_seq))
    told = _now(feed, view).live.progress or TrainingProgress(
        job_id=view.id, attempt=0, phase=view.phase, at=view.created_at, step=view.step
    )
    body = JobStatus(
        id=view.id,
        status=view.status,
        phase=told.phase,
        step=max(told.step, view.step),
        steps=view.steps,
        loss=told.loss,
        eta=told.eta,
        position=view.position,
        seq=view.etag,
    )
    return viewed(body, view.etag)


async def _created(data: JobBody, origin: Origin, catalog: Catalog) -> Response[Receipt]:
    wish = commands.CreateJob(
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
    receipt = await catalog.tell(origin, wish)
    return done(receipt, 202 if data.auto_start else 201, answers.path("jobs", receipt.id))


async def _awaited(catalog: Catalog, feed: LiveFeed, query: queries.GetJob, wait: int, until: str) -> JobView:
    if not wait:
        return await catalog.ask(query)
    with feed.join(thing=query.job) as listener:  # before the question, so that nothing falls between
        view = await catalog.ask(query)
        with suppress(TimeoutError):
            async with asyncio.timeout(wait), aclosing(feed.changes(listener)) as changes:
                while not (until == "terminal" and view.status in ENDED):
                    sequence = await anext(changes)
                    view = await catalog.ask(queries.GetJob(job=query.job, min_seq=sequence))
                    if until == "change":
                        break
    return view


async def count_jobs(catalog: Catalog, min_seq: int = 0) -> dict[str, int]:
    """How many jobs are in each status."""
    pages = [await catalog.ask(queries.ListJobs(status=one, limit=1, min_seq=min_seq)) for one in STATUSES]
    return {status: page.total for status, page in zip(STATUSES, pages, strict=True)}


def _now(feed: LiveFeed, view: JobView) -> JobNow:
    return job_now(view, feed.progress_of(view.id), feed.presences, feed.without("trainer"))


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
