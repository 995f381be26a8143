"""Results of a job: checkpoints, samples, loss curves, and the files of the LoRA."""

from typing import Annotated, Any

from litestar import Request, Response, get, route
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from contracts import queries
from contracts.errors import NotFound
from contracts.events import Artifact
from contracts.ids import JobId
from contracts.queries import CheckpointView, Page, SampleView
from contracts.telemetry import LossBlock
from contracts.wire.blobs import Blobs
from gateway.clients import CatalogClient
from gateway.http.files import OCTET_STREAM, blob_response, file_responses
from gateway.http.problems import problem_responses
from gateway.http.request_context import MinSeq, PageRequest
from gateway.http.responses import page, single_page
from gateway.routes.bodies import LossCurve

SinceStep = Annotated[int, QueryParameter(ge=0, description="Only steps after this one.")]
MaxPoints = Annotated[
    int, QueryParameter(ge=2, le=50_000, description="Maximum number of points; a longer curve is reduced evenly.")
]


@get("/jobs/{job:str}/checkpoints", responses=problem_responses(404))
async def list_checkpoints(
    job: FromPath[str],
    request: Request[Any, Any, Any],
    paging: NamedDependency[PageRequest],
    catalog: NamedDependency[CatalogClient],
) -> Response[Page[CheckpointView]]:
    """The checkpoints of a job: weights, and the state to resume from."""
    return page(request, await catalog.query(queries.ListCheckpoints(job=JobId(job), **paging.query_args)))


@get("/jobs/{job:str}/samples", responses=problem_responses(404))
async def list_samples(
    job: FromPath[str],
    request: Request[Any, Any, Any],
    paging: NamedDependency[PageRequest],
    catalog: NamedDependency[CatalogClient],
) -> Response[Page[SampleView]]:
    """The images rendered while training, with prompt and seed."""
    return page(request, await catalog.query(queries.ListSamples(job=JobId(job), **paging.query_args)))


@route("/jobs/{job:str}/samples/{step:int}/{index:int}", http_method=["GET", "HEAD"], responses=file_responses())
async def get_sample(  # noqa: PLR0913, PLR0917 - its path has three parameters
    job: FromPath[str],
    step: FromPath[int],
    index: FromPath[int],
    request: Request[Any, Any, Any],
    catalog: NamedDependency[CatalogClient],
    blobs: NamedDependency[Blobs],
) -> Response[Any]:
    """One sample: the image rendered for prompt `index` after `step`."""
    sample = await _find_sample(catalog, JobId(job), step, index)
    return await blob_response(request, blobs, sample.picture)


@get("/jobs/{job:str}/metrics", responses=problem_responses(404))
async def get_metrics(
    job: FromPath[str],
    catalog: NamedDependency[CatalogClient],
    since_step: SinceStep = 0,
    max_points: MaxPoints = 5_000,
    min_seq: MinSeq = 0,
) -> LossCurve:
    """The loss curve, in columns. It is telemetry, not events, and may have gaps after a crash."""
    view = await catalog.query(queries.GetJob(job=JobId(job), min_seq=min_seq))
    return build_loss_curve(view.id, await catalog.read_loss_curve(view.id), since_step, max_points)


@get("/jobs/{job:str}/artifacts", responses=problem_responses(404))
async def list_artifacts(
    job: FromPath[str], catalog: NamedDependency[CatalogClient], min_seq: MinSeq = 0
) -> Page[Artifact]:
    """The finished files of a job; download them by name."""
    return single_page((await catalog.query(queries.GetJob(job=JobId(job), min_seq=min_seq))).artifacts)


@route("/jobs/{job:str}/artifacts/{name:str}", http_method=["GET", "HEAD"], responses=file_responses(OCTET_STREAM))
async def get_artifact(
    job: FromPath[str],
    name: FromPath[str],
    request: Request[Any, Any, Any],
    catalog: NamedDependency[CatalogClient],
    blobs: NamedDependency[Blobs],
) -> Response[Any]:
    """A finished file. Interrupted downloads resume with Range; ETag and Repr-Digest are its sha256."""
    artifacts = (await catalog.query(queries.GetJob(job=JobId(job)))).artifacts
    found = next((artifact for artifact in artifacts if artifact.name == name), None)
    if found is None:
        raise NotFound(f"this job has no file {name!r}", names=[artifact.name for artifact in artifacts])
    return await blob_response(request, blobs, found.digest, attachment_name=found.name)


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


async def _find_sample(catalog: CatalogClient, job: JobId, step: int, index: int) -> SampleView:
    cursor = None
    while True:
        page = await catalog.query(queries.ListSamples(job=job, cursor=cursor))
        for sample in page.items:
            if (sample.step, sample.index) == (step, index):
                return sample
        if page.next is None or page.next == cursor:
            raise NotFound(f"this job has no sample {index} after step {step}")
        cursor = page.next


ROUTES = [
    list_checkpoints,
    list_samples,
    get_sample,
    get_metrics,
    list_artifacts,
    get_artifact,
]
