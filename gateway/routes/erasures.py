"""Permanent erasure, in contrast to removal: bytes, file names and captions are destroyed wherever they are stored."""

from litestar import Response, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from contracts import commands, queries
from contracts.commands import CommandMetadata, CommandResult
from contracts.ids import ImageId
from gateway.clients import CatalogClient
from gateway.http.problems import problem_responses
from gateway.http.responses import SEQUENCE_HEADER
from gateway.routes.bodies import ErasureResult


@post("/images/{image:str}/erase", status_code=200, responses=problem_responses(404, 409))
async def erase_image(
    image: FromPath[str], metadata: NamedDependency[CommandMetadata], catalog: NamedDependency[CatalogClient]
) -> Response[ErasureResult]:
    """Permanently erase an image's bytes, file name and caption, also of a removed image.

    It cannot be undone. 409 `in-use` names the pending or running jobs that use it. LoRAs trained on it are listed and
    stay. A repeated request returns the current state of the erasure.
    """
    result = await catalog.command(metadata, commands.EraseImage(image=ImageId(image)))
    return await _erasure_response(catalog, result)


@post("/datasets/{dataset:str}/erase", status_code=200, responses=problem_responses(404, 409))
async def erase_dataset(
    dataset: FromPath[str], metadata: NamedDependency[CommandMetadata], catalog: NamedDependency[CatalogClient]
) -> Response[ErasureResult]:
    """Permanently erase all images a data set ever had, and the names of refused files; the data set is removed too.

    It cannot be undone. Afterwards the data set is found only by its id, and its name can be used again. 409 `in-use`
    names the pending or running jobs on it.
    """
    result = await catalog.command(metadata, commands.EraseDataset(dataset=dataset))
    return await _erasure_response(catalog, result)


async def _erasure_response(catalog: CatalogClient, result: CommandResult) -> Response[ErasureResult]:
    view = await catalog.query(queries.GetErasure(aggregate_id=result.id, min_seq=result.sequence))
    body = ErasureResult(
        id=view.id,
        sequence=result.sequence,
        changed=result.changed,
        images=view.images,
        erased_at=view.erased_at,
        loras=view.loras,
        pending=view.pending,
    )
    return Response(body, headers={SEQUENCE_HEADER: str(result.sequence)})


ROUTES = [erase_image, erase_dataset]
