"""Answers about work: jobs with what came of them, and tagging runs."""

import functools

from catalog.answers.datasets import Manifests
from catalog.answers.paging import key_of, paged
from catalog.answers.shelf import Shelf, id_of
from catalog.database import Connection
from catalog.views import images, jobs, tagging, work
from catalog.views.jobs import JobRow, SampleRow
from catalog.views.sets import unpacked
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

NEVER = 2**62
"""A sequence after all others: lists that begin with the newest begin before it."""


async def list_jobs(shelf: Shelf, query: ListJobs) -> Page[JobView]:
    (before,) = key_of(query.cursor, (NEVER,))

    def look(connection: Connection) -> Page[JobView]:
        dataset_id = id_of(connection, query.dataset)
        rows = jobs.page(connection, query.status, dataset_id, before, query.limit + 1)
        view = functools.partial(_listed_job, connection)
        total = jobs.count(connection, query.status, dataset_id)
        return paged(rows, view, lambda row: (row.created,), total=total, limit=query.limit)

    return await shelf.look(query, look)


async def get_job(shelf: Shelf, query: GetJob) -> JobView:
    return await shelf.look(query, lambda connection: job_of(connection, query.job))


async def list_checkpoints(shelf: Shelf, query: ListCheckpoints) -> Page[CheckpointView]:
    (after,) = key_of(query.cursor, (-1,))

    def look(connection: Connection) -> Page[CheckpointView]:
        job, _ = _present(connection, query.job)
        rows = jobs.checkpoints(connection, job.id, after, query.limit + 1)
        total, _ = jobs.kept(connection, job.id)
        return paged(rows, lambda row: row, lambda row: (row.step,), total=total, limit=query.limit)

    return await shelf.look(query, look)


async def list_samples(shelf: Shelf, manifests: Manifests, query: ListSamples) -> Page[SampleView]:
    """By step. Their prompts are the recipe's, or the first captions of what the job trains on."""
    after = key_of(query.cursor, (-1, -1))

    def look(connection: Connection) -> tuple[JobRow, list[SampleRow], int]:
        job, _ = _present(connection, query.job)
        _, total = jobs.kept(connection, job.id)
        return job, jobs.samples(connection, job.id, after, query.limit + 1), total

    job, rows, total = await shelf.look(query, look)
    prompts = list(job.asked.recipe.sampling.prompts)
    if rows and not prompts:
        prompts = await manifests.captions(job.asked.manifest, 1 + max(row.number for row in rows))

    def view(row: SampleRow) -> SampleView:
        prompt = prompts[row.number] if row.number < len(prompts) else ""
        return SampleView(step=row.step, index=row.number, prompt=prompt, seed=row.seed, picture=row.picture, at=row.at)

    return paged(rows, view, lambda row: (row.step, row.number), total=total, limit=query.limit)


async def list_tagging(shelf: Shelf, query: ListTagging) -> Page[TaggingView]:
    """The newest first."""
    (before,) = key_of(query.cursor, (NEVER,))

    def look(connection: Connection) -> Page[TaggingView]:
        dataset_id = id_of(connection, query.dataset)
        rows = tagging.page(connection, dataset_id, before, query.limit + 1)
        view = functools.partial(_listed_run, connection)
        total = tagging.count(connection, dataset_id)
        return paged(rows, view, lambda row: (row.created,), total=total, limit=query.limit)

    return await shelf.look(query, look)


async def get_tagging(shelf: Shelf, query: GetTagging) -> TaggingView:
    return await shelf.look(query, lambda connection: _run(connection, *_asked(connection, query.run)))


async def read_tagging_work(shelf: Shelf, query: ReadTaggingWork) -> Page[TaggingImage]:
    """Rising by ordinal; an image that was removed since stays part of what was asked."""
    (after,) = key_of(query.cursor, (-1,))

    def look(connection: Connection) -> Page[TaggingImage]:
        run, _ = _asked(connection, query.run)
        wanted = [ordinal for ordinal in unpacked(run.asked.images) if ordinal > after][: query.limit + 1]
        rows = images.at(connection, run.asked.dataset_id, wanted)
        found = [TaggingImage(ordinal=row.ordinal, picture=row.picture) for row in rows]
        return paged(found, lambda row: row, lambda row: (row.ordinal,), total=run.asked.count, limit=query.limit)

    return await shelf.look(query, look)


def _present(connection: Connection, job_id: str) -> tuple[JobRow, WorkRow]:
    found = jobs.find(connection, job_id)
    if found is None:
        raise NotFound(f"there is no job {job_id!r}")
    if found[1].work.state == "removed":
        raise Gone(f"the job {job_id!r} has been removed")
    return found


def _asked(connection: Connection, run_id: str) -> tuple[RunRow, WorkRow]:
    found = tagging.find(connection, run_id)
    if found is None:
        raise NotFound(f"there is no tagging run {run_id!r}")
    return found


def job_of(connection: Connection, job_id: str) -> JobView:
    """NotFound where there is none, Gone where it was removed."""
    return _job(connection, *_present(connection, job_id))


def _listed_job(connection: Connection, row: JobRow) -> JobView:
    return job_of(connection, row.id)


def _listed_run(connection: Connection, row: RunRow) -> TaggingView:
    return _run(connection, *_asked(connection, row.id))


def _job(connection: Connection, job: JobRow, held: WorkRow) -> JobView:
    asked, planned, state = job.asked, job.planned, held.work
    checkpoints, samples = jobs.kept(connection, job.id)
    return JobView(
        id=job.id,
        name=asked.name,
        description=asked.description,
        labels=asked.labels,
        mode=asked.mode,
        status=status_of(state.state),
        phase=state.state,
        priority=state.priority,
        preset=asked.preset,
        dataset_id=asked.dataset_id,
        dataset=asked.dataset,
        version=asked.version,
        version_id=asked.version_id,
        images=asked.images,
        trigger=asked.trigger,
        recipe=asked.recipe,
        step=state.kept,
        steps=None if planned is None else planned.steps,
        device=None if planned is None else planned.device,
        precision=None if planned is None else planned.precision,
        attempts=work.attempts(connection, "train", job.id),
        artifacts=job.artifacts,
        checkpoints=checkpoints,
        samples=samples,
        position=work.position(connection, "train", state),
        error_code=held.error_code,
        error=held.error,
        actor=held.actor,
        created_at=held.created_at,
        started_at=held.started_at,
        ended_at=held.ended_at,
        etag=held.touched,
    )


def _run(connection: Connection, run: RunRow, held: WorkRow) -> TaggingView:
    asked, loaded, state = run.asked, run.loaded, held.work
    return TaggingView(
        id=run.id,
        dataset_id=asked.dataset_id,
        dataset=asked.dataset,
        model=asked.model,
        status=status_of(state.state),
        phase=state.state,
        priority=state.priority,
        done=state.kept,
        total=asked.count,
        unreadable=run.unreadable,
        model_digest=None if loaded is None else loaded.model,
        tags_digest=None if loaded is None else loaded.tags,
        preprocessing=None if loaded is None else loaded.preprocessing,
        provider=None if loaded is None else loaded.provider,
        attempts=state.attempts,
        worker=held.worker,
        error=held.error,
        position=work.position(connection, "tag", state),
        actor=held.actor,
        created_at=held.created_at,
        ended_at=held.ended_at,
        etag=held.touched,
    )
