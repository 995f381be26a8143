"""What a job brings forth: checkpoints, samples, loss curves, and the files of the LoRA."""

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
from gateway.http.answers import listed, whole
from gateway.http.asking import Listing, MinSeq
from gateway.http.files import OCTETS, blob_answer, file_answers
from gateway.http.problems import problems
from gateway.owners import Catalog
from gateway.routes.bodies import Losses

SinceStep = Annotated[int, QueryParameter(ge=0, description="Only steps after this one.")]
MostPoints = Annotated[
    int, QueryParameter(ge=2, le=50_000, description="So many points at most: of a longer curve every n-th is given.")
]


@get("/jobs/{job:str}/checkpoints", responses=problems(404))
async def list_checkpoints(
    job: FromPath[str],
    request: Request[Any, Any, Any],
    page: NamedDependency[Listing],
    catalog: NamedDependency[Catalog],
) -> Response[Page[CheckpointView]]:
    """The checkpoints of a job: weights and all that resuming needs."""
    return listed(request, await catalog.ask(queries.ListCheckpoints(job=JobId(job), **page.asked)))


@get("/jobs/{job:str}/samples", responses=problems(404))
async def list_samples(
    job: FromPath[str],
    request: Request[Any, Any, Any],
    page: NamedDependency[Listing],
    catalog: NamedDependency[Catalog],
) -> Response[Page[SampleView]]:
    """The pictures rendered while training, with prompt and seed."""
    return listed(request, await catalog.ask(queries.ListSamples(job=JobId(job), **page.asked)))


@route("/jobs/{job:str}/samples/{step:int}/{index:int}", http_method=["GET", "HEAD"], responses=file_answers())
async def get_sample(  # noqa: PLR0913, PLR0917 - its address has three parts
    job: FromPath[str],
    step: FromPath[int],
    index: FromPath[int],
    request: Request[Any, Any, Any],
    catalog: NamedDependency[Catalog],
    blobs: NamedDependency[Blobs],
) -> Response[Any]:
    """One sample: the picture of prompt `index` after `step`."""
    sample = await _sample(catalog, JobId(job), step, index)
    return await blob_answer(request, blobs, sample.picture)


@get("/jobs/{job:str}/metrics", responses=problems(404))
async def get_metrics(
    job: FromPath[str],
    catalog: NamedDependency[Catalog],
    since_step: SinceStep = 0,
    max_points: MostPoints = 5_000,
    min_seq: MinSeq = 0,
) -> Losses:
    """The loss curve, in columns. It is told apart from the events, and may have holes after a crash."""
    view = await catalog.ask(queries.GetJob(job=JobId(job), min_seq=min_seq))
    return curve(view.id, await catalog.losses(view.id), since_step, max_points)


@get("/jobs/{job:str}/artifacts", responses=problems(404))
async def list_artifacts(job: FromPath[str], catalog: NamedDependency[Catalog], min_seq: MinSeq = 0) -> Page[Artifact]:
    """The finished files of a job; download them by name."""
    return whole((await catalog.ask(queries.GetJob(job=JobId(job), min_seq=min_seq))).artifacts)


@route("/jobs/{job:str}/artifacts/{name:str}", http_method=["GET", "HEAD"], responses=file_answers(OCTETS))
async def get_artifact(
    job: FromPath[str],
    name: FromPath[str],
    request: Request[Any, Any, Any],
    catalog: NamedDependency[Catalog],
    blobs: NamedDependency[Blobs],
) -> Response[Any]:
    """A finished file. Broken downloads go on with Range; ETag and Repr-Digest are its sha256."""
    artifacts = (await catalog.ask(queries.GetJob(job=JobId(job)))).artifacts
    found = next((artifact for artifact in artifacts if artifact.name == name), None)
    if found is None:
        raise NotFound(f"this job has no file {name!r}", names=[artifact.name for artifact in artifacts])
    return await blob_answer(request, blobs, found.digest, attach=found.name)


def curve(job: JobId, blocks: list[LossBlock], since: int, most: int) -> Losses:
    """Blocks as columns: a later block replaces steps of an earlier one; always with the last step."""
    points = {
        block.first + place: (loss, rate)
        for block in blocks
        for place, (loss, rate) in enumerate(zip(block.losses, block.rates, strict=True))
    }
    steps = sorted(step for step in points if step > since)
    stride = -(-len(steps) // most) or 1
    steps = steps[::-stride][::-1]
    losses = tuple(points[step][0] for step in steps)
    return Losses(job_id=job, steps=tuple(steps), losses=losses, rates=tuple(points[step][1] for step in steps))


async def _sample(catalog: Catalog, job: JobId, step: int, index: int) -> SampleView:
    cursor = None
    while True:
        page = await catalog.ask(queries.ListSamples(job=job, cursor=cursor))
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
