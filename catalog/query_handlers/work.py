"""Queries about work: jobs with their outputs, and tagging runs."""

import msgspec

from catalog.database import MAX_SEQUENCE, Connection
from catalog.domain.compose import compose
from catalog.domain.image_sets import bitmap_of
from catalog.lookup import known_dataset, require_job, require_run
from catalog.query_handlers.context import QueryContext, on_snapshot
from catalog.query_handlers.paging import build_page, decode_cursor
from catalog.query_handlers.results import read_job, read_run, training_text_of
from catalog.views import images, jobs, tagging
from contracts.ids import Digest
from contracts.queries.base import Page
from contracts.queries.jobs import CheckpointView, JobView, ListCheckpoints, ListJobs, ListSamples, SampleView
from contracts.queries.tagging import GetTagging, ListTagging, ReadTaggingWork, TaggingImage, TaggingView


@on_snapshot
def list_jobs(connection: Connection, query: ListJobs) -> Page[JobView]:
    """Newest first."""
    (before,) = decode_cursor(query.cursor, (MAX_SEQUENCE,))
    dataset_id = None if query.dataset is None else known_dataset(connection, query.dataset).id
    rows = jobs.page(connection, query.status, dataset_id, before, query.limit + 1)
    total = jobs.count(connection, query.status, dataset_id)
    return build_page(query, rows, lambda row: read_job(connection, row.id), lambda row: (row.created_sequence,), total)


@on_snapshot
def list_checkpoints(connection: Connection, query: ListCheckpoints) -> Page[CheckpointView]:
    (after,) = decode_cursor(query.cursor, (-1,))
    job, _ = require_job(connection, query.job)
    rows = jobs.checkpoints(connection, job.id, after, query.limit + 1)
    total, _ = jobs.count_outputs(connection, job.id)
    return build_page(query, rows, lambda row: row, lambda row: (row.step,), total)


async def list_samples(context: QueryContext, query: ListSamples) -> Page[SampleView]:
    """By step. Prompts are the recipe's, or else the first captions of the version that the job trains on."""
    after = decode_cursor(query.cursor, (-1, -1))

    def read(connection: Connection) -> tuple[jobs.JobRow, list[SampleView], int]:
        job, _ = require_job(connection, query.job)
        _, total = jobs.count_outputs(connection, job.id)
        return job, jobs.samples(connection, job.id, after, query.limit + 1), total

    job, rows, total = await context.read(query, read)
    prompts = list(job.request.recipe.sampling.prompts)
    if rows and not prompts and job.version is not None:
        prompts = await _captions(context, job.version.manifest, 1 + max(row.index for row in rows))

    def view(row: SampleView) -> SampleView:
        return msgspec.structs.replace(row, prompt=prompts[row.index] if row.index < len(prompts) else "")

    return build_page(query, rows, view, lambda row: (row.step, row.index), total)


async def _captions(context: QueryContext, digest: Digest, count: int) -> list[str]:
    """The first captions of a manifest: the sample prompts of a job that has none of its own."""
    root = await context.manifests.root(digest)
    lines = await context.manifests.lines(root, -1, count)
    keys, absent = await context.keys_of(line.image for line in lines)
    return [training_text_of(root, line, keys, absent) for line in lines]


@on_snapshot
def list_tagging(connection: Connection, query: ListTagging) -> Page[TaggingView]:
    """Newest first."""
    (before,) = decode_cursor(query.cursor, (MAX_SEQUENCE,))
    dataset_id = None if query.dataset is None else known_dataset(connection, query.dataset).id
    rows = tagging.page(connection, dataset_id, before, query.limit + 1)
    total = tagging.count(connection, dataset_id)
    return build_page(query, rows, lambda row: read_run(connection, row.id), lambda row: (row.created_sequence,), total)


@on_snapshot
def get_tagging(connection: Connection, query: GetTagging) -> TaggingView:
    return read_run(connection, query.run)


@on_snapshot
def read_tagging_work(connection: Connection, query: ReadTaggingWork) -> Page[TaggingImage]:
    """By ordinal; images removed since the request remain part of the run."""
    (after,) = decode_cursor(query.cursor, (-1,))
    request = require_run(connection, query.run)[0].request
    ordinals = [ordinal for ordinal in bitmap_of(request.images) if ordinal > after][: query.limit + 1]
    rows = images.by_ordinals(connection, request.dataset_id, ordinals)
    return build_page(query, rows, lambda row: compose(TaggingImage, row), lambda row: (row.ordinal,), request.count)
