"""Results of a job: checkpoints, samples, loss curves, and the files of the LoRA."""

from typing import Annotated, Any

import msgspec
from litestar import Response, get, route
from litestar.params import FromPath, QueryParameter

from contracts.errors import NotFound
from contracts.events.jobs import Artifact
from contracts.ids import JobId
from contracts.queries.base import Page
from contracts.queries.jobs import CheckpointView, GetJob, ListCheckpoints, ListSamples, SampleView
from contracts.telemetry import LossBlock
from gateway.clients import CatalogClient
from gateway.http.files import OCTET_STREAM, blob_response, file_responses
from gateway.http.problems import problem_responses
from gateway.http.request_context import MinSeq
from gateway.http.responses import single_page
from gateway.routes.shared import AnyRequest, Catalog, Files, Paging

SinceStep = Annotated[int, QueryParameter(ge=0, description="Only steps after this one.")]
MaxPoints = Annotated[
    int, QueryParameter(ge=2, le=50_000, description="Maximum number of points; a longer curve is reduced evenly.")
]


class LossCurve(msgspec.Struct, frozen=True, kw_only=True):
    """A loss curve as columns of equal length: steps, losses, learning rates."""

    job_id: JobId
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    rates: tuple[float, ...]


@get("/jobs/{job:str}/checkpoints", responses=problem_responses(404))
async def list_checkpoints(job: FromPath[JobId], paging: Paging, catalog: Catalog) -> Response[Page[CheckpointView]]:
    """The checkpoints of a job: weights, and the state to resume from."""
    return paging.response(await catalog.query(ListCheckpoints(job=job, **paging.query_args)))


@get("/jobs/{job:str}/samples", responses=problem_responses(404))
async def list_samples(job: FromPath[JobId], paging: Paging, catalog: Catalog) -> Response[Page[SampleView]]:
    """The images rendered while training, with prompt and seed."""
    return paging.response(await catalog.query(ListSamples(job=job, **paging.query_args)))


@route("/jobs/{job:str}/samples/{step:int}/{index:int}", http_method=["GET", "HEAD"], responses=file_responses())
async def get_sample(  # noqa: PLR0913, PLR0917 - its path has three parameters
    job: FromPath[JobId],
    step: FromPath[int],
    index: FromPath[int],
    request: AnyRequest,
    catalog: Catalog,
    files: Files,
    min_seq: MinSeq = 0,
) -> Response[Any]:
    """One sample: the image rendered for prompt `index` after `step`."""
    sample = await _find_sample(catalog, job, step, index, min_seq)
    return await blob_response(request, files, sample.picture)


@get("/jobs/{job:str}/metrics", responses=problem_responses(404))
async def get_metrics(
    job: FromPath[JobId],
    catalog: Catalog,
    since_step: SinceStep = 0,
    max_points: MaxPoints = 5_000,
    min_seq: MinSeq = 0,
) -> LossCurve:
    """The loss curve, in columns. It is telemetry, not events, and may have gaps after a crash."""
    view = await catalog.query(GetJob(job=job, min_seq=min_seq))
    return build_loss_curve(view.id, await catalog.read_loss_curve(view.id), since_step, max_points)


@get("/jobs/{job:str}/artifacts", responses=problem_responses(404))
async def list_artifacts(job: FromPath[JobId], catalog: Catalog, min_seq: MinSeq = 0) -> Page[Artifact]:
    """The finished files of a job; download them by name."""
    return single_page((await catalog.query(GetJob(job=job, min_seq=min_seq))).artifacts)


@route("/jobs/{job:str}/artifacts/{name:str}", http_method=["GET", "HEAD"], responses=file_responses(OCTET_STREAM))
async def get_artifact(  # noqa: PLR0913, PLR0917 - dependencies
    job: FromPath[JobId],
    name: FromPath[str],
    request: AnyRequest,
    catalog: Catalog,
    files: Files,
    min_seq: MinSeq = 0,
) -> Response[Any]:
    """A finished file. Interrupted downloads resume with Range; ETag and Repr-Digest are its sha256."""
    artifacts = (await catalog.query(GetJob(job=job, min_seq=min_seq))).artifacts
    found = next((artifact for artifact in artifacts if artifact.name == name), None)
    if found is None:
        raise NotFound(f"this job has no file {name!r}", names=[artifact.name for artifact in artifacts])
    return await blob_response(request, files, found.digest, attachment_name=found.name)


def build_loss_curve(job: JobId, blocks: list[LossBlock], since: int, max_points: int) -> LossCurve:
    """Blocks as columns. A later block replaces steps of an earlier one; the last step is always included."""
    points = {
        block.first + offset: (loss, rate)
        for block in blocks
        for offset, (loss, rate) in enumerate(zip(block.losses, block.rates, strict=True))
    }
    steps = sorted(step for step in points if step > since)
    stride = -(-len(steps) // max_points) or 1
    steps = steps[::-stride][::-1]
    losses = tuple(points[step][0] for step in steps)
    return LossCurve(job_id=job, steps=tuple(steps), losses=losses, rates=tuple(points[step][1] for step in steps))


async def _find_sample(catalog: CatalogClient, job: JobId, step: int, index: int, min_seq: int) -> SampleView:
    cursor = None
    while True:
        page = await catalog.query(ListSamples(job=job, cursor=cursor, min_seq=min_seq))
        for sample in page.items:
            if (sample.step, sample.index) == (step, index):
                return sample
        if page.next is None or page.next == cursor:
            raise NotFound(f"this job has no sample {index} after step {step}")
        cursor = page.next
