"""Queries about work: jobs with their outputs, and tagging runs."""

import functools

from catalog.database import MAX_SEQUENCE, Connection
from catalog.query_handlers.context import QueryContext, optional_dataset_id
from catalog.query_handlers.datasets import ManifestReader
from catalog.query_handlers.paging import build_page, decode_cursor
from catalog.views import images, jobs, sets, tagging, work
from catalog.views.jobs import JobRow, SampleRow
from catalog.views.tagging import RunRow
from catalog.views.work import WorkRow
from contracts.errors import Gone, NotFound
from contracts.jobs import status_of
from contracts.queries import (
    CheckpointView,
    GetJob,
    GetTagging,
    JobView,
    ListCheckpoints,
    ListJobs,
    ListSamples,
    ListTagging,
    Page,
    ReadTaggingWork,
    SampleView,
    TaggingImage,
    TaggingView,
)


async def list_jobs(context: QueryContext, query: ListJobs) -> Page[JobView]:
    """Newest first."""
    (before,) = decode_cursor(query.cursor, (MAX_SEQUENCE,))

    def read(connection: Connection) -> Page[JobView]:
        dataset_id = optional_dataset_id(connection, query.dataset)
        rows = jobs.page(connection, query.status, dataset_id, before, query.limit + 1)
        total = jobs.count(connection, query.status, dataset_id)
        view = functools.partial(_view_of_job_row, connection)
        return build_page(rows, view, lambda row: (row.created_sequence,), total=total, limit=query.limit)

    return await context.read(query, read)


async def get_job(context: QueryContext, query: GetJob) -> JobView:
    return await context.read(query, lambda connection: read_job(connection, query.job))


async def list_checkpoints(context: QueryContext, query: ListCheckpoints) -> Page[CheckpointView]:
    (after,) = decode_cursor(query.cursor, (-1,))

    def read(connection: Connection) -> Page[CheckpointView]:
        job, _ = _require_job(connection, query.job)
        rows = jobs.checkpoints(connection, job.id, after, query.limit + 1)
        total, _ = jobs.count_outputs(connection, job.id)
        return build_page(rows, lambda row: row, lambda row: (row.step,), total=total, limit=query.limit)

    return await context.read(query, read)


async def list_samples(context: QueryContext, manifests: ManifestReader, query: ListSamples) -> Page[SampleView]:
    """By step. Prompts are the recipe's, or else the first captions of the version that the job trains on."""
    after = decode_cursor(query.cursor, (-1, -1))

    def read(connection: Connection) -> tuple[JobRow, list[SampleRow], int]:
        job, _ = _require_job(connection, query.job)
        _, total = jobs.count_outputs(connection, job.id)
        return job, jobs.samples(connection, job.id, after, query.limit + 1), total

    job, rows, total = await context.read(query, read)
    prompts = list(job.request.recipe.sampling.prompts)
    if rows and not prompts:
        prompts = await manifests.captions(job.request.manifest, 1 + max(row.number for row in rows))

    def view(row: SampleRow) -> SampleView:
        prompt = prompts[row.number] if row.number < len(prompts) else ""
        return SampleView(step=row.step, index=row.number, prompt=prompt, seed=row.seed, picture=row.picture, at=row.at)

    return build_page(rows, view, lambda row: (row.step, row.number), total=total, limit=query.limit)


async def list_tagging(context: QueryContext, query: ListTagging) -> Page[TaggingView]:
    """Newest first."""
    (before,) = decode_cursor(query.cursor, (MAX_SEQUENCE,))

    def read(connection: Connection) -> Page[TaggingView]:
        dataset_id = optional_dataset_id(connection, query.dataset)
        rows = tagging.page(connection, dataset_id, before, query.limit + 1)
        total = tagging.count(connection, dataset_id)
        view = functools.partial(_view_of_run_row, connection)
        return build_page(rows, view, lambda row: (row.created_sequence,), total=total, limit=query.limit)

    return await context.read(query, read)


async def get_tagging(context: QueryContext, query: GetTagging) -> TaggingView:
    return await context.read(query, lambda connection: _run_view(connection, *_require_run(connection, query.run)))


async def read_tagging_work(context: QueryContext, query: ReadTaggingWork) -> Page[TaggingImage]:
    """By ordinal; images removed since the request remain part of the run."""
    (after,) = decode_cursor(query.cursor, (-1,))

    def read(connection: Connection) -> Page[TaggingImage]:
        run, _ = _require_run(connection, query.run)
        request = run.request
        ordinals = [ordinal for ordinal in sets.ordinals(request.images) if ordinal > after][: query.limit + 1]
        rows = images.by_ordinals(connection, request.dataset_id, ordinals)
        found = [TaggingImage(ordinal=row.ordinal, picture=row.picture) for row in rows]
        return build_page(found, lambda row: row, lambda row: (row.ordinal,), total=request.count, limit=query.limit)

    return await context.read(query, read)


def _require_job(connection: Connection, job_id: str) -> tuple[JobRow, WorkRow]:
    found = jobs.find(connection, job_id)
    if found is None:
        raise NotFound(f"there is no job {job_id!r}")
    if found[1].work.state == "removed":
        raise Gone(f"the job {job_id!r} has been removed")
    return found


def _require_run(connection: Connection, run_id: str) -> tuple[RunRow, WorkRow]:
    found = tagging.find(connection, run_id)
    if found is None:
        raise NotFound(f"there is no tagging run {run_id!r}")
    return found


def read_job(connection: Connection, job_id: str) -> JobView:
    """NotFound if there is none, Gone if it was removed."""
    return _job_view(connection, *_require_job(connection, job_id))


def _view_of_job_row(connection: Connection, row: JobRow) -> JobView:
    return read_job(connection, row.id)


def _view_of_run_row(connection: Connection, row: RunRow) -> TaggingView:
    return _run_view(connection, *_require_run(connection, row.id))


def _job_view(connection: Connection, job: JobRow, work_row: WorkRow) -> JobView:
    request, plan, state = job.request, job.plan, work_row.work
    checkpoints, samples = jobs.count_outputs(connection, job.id)
    return JobView(
        id=job.id,
        name=request.name,
        description=request.description,
        labels=request.labels,
        mode=request.mode,
        status=status_of(state.state),
        phase=state.state,
        priority=state.priority,
        preset=request.preset,
        dataset_id=request.dataset_id,
        dataset=request.dataset,
        version=request.version,
        version_id=request.version_id,
        images=request.images,
        trigger=request.trigger,
        recipe=request.recipe,
        step=state.completed_units,
        steps=None if plan is None else plan.steps,
        device=None if plan is None else plan.device,
        precision=None if plan is None else plan.precision,
        attempts=work.attempts(connection, "train", job.id),
        artifacts=job.artifacts,
        checkpoints=checkpoints,
        samples=samples,
        position=work.queue_position(connection, "train", state),
        error_code=work_row.error_code,
        error=work_row.error,
        actor=work_row.actor,
        created_at=work_row.created_at,
        started_at=work_row.started_at,
        ended_at=work_row.ended_at,
        etag=work_row.etag,
    )


def _run_view(connection: Connection, run: RunRow, work_row: WorkRow) -> TaggingView:
    request, loaded, state = run.request, run.loaded_model, work_row.work
    return TaggingView(
        id=run.id,
        dataset_id=request.dataset_id,
        dataset=request.dataset,
        model=request.model,
        status=status_of(state.state),
        phase=state.state,
        priority=state.priority,
        done=state.completed_units,
        total=request.count,
        unreadable=run.unreadable,
        model_digest=None if loaded is None else loaded.model,
        tags_digest=None if loaded is None else loaded.tags,
        preprocessing=None if loaded is None else loaded.preprocessing,
        provider=None if loaded is None else loaded.provider,
        attempts=state.attempts,
        worker=work_row.worker,
        error=work_row.error,
        position=work.queue_position(connection, "tag", state),
        actor=work_row.actor,
        created_at=work_row.created_at,
        ended_at=work_row.ended_at,
        etag=work_row.etag,
    )
