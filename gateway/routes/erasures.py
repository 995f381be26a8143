"""Permanent erasure, in contrast to removal: bytes, file names and captions are destroyed wherever they are stored."""

import msgspec
from litestar import Response, post
from litestar.params import FromPath

from contracts.commands.base import CommandResult
from contracts.commands.datasets import EraseDataset, EraseImage
from contracts.ids import ImageId
from contracts.queries.datasets import ErasureView, GetErasure
from gateway.clients import CatalogClient
from gateway.http.problems import not_shown_response, problem_responses
from gateway.http.responses import SEQUENCE_HEADER, ok
from gateway.routes.shared import Catalog, Metadata


class ErasureResult(ErasureView, frozen=True, kw_only=True):
    """The erasure; `changed` is false if it had been requested before."""

    sequence: int
    changed: bool


@post(
    "/images/{image:str}/erase",
    status_code=200,
    responses=not_shown_response(CommandResult) | problem_responses(404, 409),
)
async def erase_image(
    image: FromPath[ImageId], metadata: Metadata, catalog: Catalog
) -> Response[ErasureResult] | Response[CommandResult]:
    """Permanently erase an image's bytes, file name and caption, also of a removed image.

    It cannot be undone. 409 `in-use` names the pending or running jobs that use it. LoRAs trained on it are listed and
    stay. A repeated request returns the current state of the erasure.
    """
    result = await catalog.command(metadata, EraseImage(image=image))
    return await _erasure_response(catalog, result)


@post(
    "/datasets/{dataset:str}/erase",
    status_code=200,
    responses=not_shown_response(CommandResult) | problem_responses(404, 409),
)
async def erase_dataset(
    dataset: FromPath[str], metadata: Metadata, catalog: Catalog
) -> Response[ErasureResult] | Response[CommandResult]:
    """Permanently erase all images a data set ever had, and the names of refused files; the data set is removed too.

    It cannot be undone. Afterwards the data set is found only by its id, and its name can be used again. 409 `in-use`
    names the pending or running jobs on it.
    """
    result = await catalog.command(metadata, EraseDataset(dataset=dataset))
    return await _erasure_response(catalog, result)


async def _erasure_response(
    catalog: CatalogClient, result: CommandResult
) -> Response[ErasureResult] | Response[CommandResult]:
    if not result.shown:
        return ok(result)
    view = await catalog.query(GetErasure(aggregate_id=result.id, min_seq=result.sequence))
    body = ErasureResult(**msgspec.structs.asdict(view), sequence=result.sequence, changed=result.changed)
    return Response(body, headers={SEQUENCE_HEADER: str(result.sequence)})
