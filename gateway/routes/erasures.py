"""Erasing for good, which is not taking off a list: bytes and words are destroyed wherever they are."""

from litestar import Response, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from contracts import commands, queries
from contracts.commands import Origin, Receipt
from contracts.ids import ImageId
from gateway.http.answers import SEQUENCE
from gateway.http.problems import problems
from gateway.owners import Catalog
from gateway.routes.bodies import Erased


@post("/images/{image:str}/erase", status_code=200, responses=problems(404, 409))
async def erase_image(
    image: FromPath[str], origin: NamedDependency[Origin], catalog: NamedDependency[Catalog]
) -> Response[Erased]:
    """Destroy an image's bytes, file name and caption wherever they are; also of one that was removed before.

    It cannot be taken back. 409 `in-use` names the jobs that wait or train on it. LoRAs that saw it are listed, and
    stay. Asked again, it answers how things stand now.
    """
    return await _answered(catalog, await catalog.tell(origin, commands.EraseImage(image=ImageId(image))))


@post("/datasets/{dataset:str}/erase", status_code=200, responses=problems(404, 409))
async def erase_dataset(
    dataset: FromPath[str], origin: NamedDependency[Origin], catalog: NamedDependency[Catalog]
) -> Response[Erased]:
    """The same for all images a data set ever had and the names of refused files; the data set is removed as well.

    Afterwards only its id finds it: its name is free again.
    """
    return await _answered(catalog, await catalog.tell(origin, commands.EraseDataset(dataset=dataset)))


async def _answered(catalog: Catalog, receipt: Receipt) -> Response[Erased]:
    view = await catalog.ask(queries.GetErasure(thing=receipt.id, min_seq=receipt.sequence))
    body = Erased(
        id=view.id,
        sequence=receipt.sequence,
        changed=receipt.changed,
        images=view.images,
        erased_at=view.erased_at,
        loras=view.loras,
        left=view.left,
    )
    return Response(body, headers={SEQUENCE: str(receipt.sequence)})


ROUTES = [erase_image, erase_dataset]
