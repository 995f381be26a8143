"""How often images of a data set are seen in an epoch."""

from litestar import Response, put
from litestar.params import FromPath, JSONBody

from contracts.commands.base import Repeats
from contracts.commands.datasets import RepeatsResult, SetRepeats
from gateway.http.problems import not_shown_response, problem_responses
from gateway.http.responses import ok
from gateway.routes.shared import Catalog, Metadata, SelectionBody


class RepeatsBody(SelectionBody, frozen=True, kw_only=True):
    """`repeats`: 1 to 10,000, multiplied by the repeats of a recipe."""

    repeats: Repeats


@put(
    "/datasets/{dataset:str}/repeats",
    responses=not_shown_response(RepeatsResult) | problem_responses(404, 409, 415, 422),
)
async def set_repeats(
    dataset: FromPath[str], data: JSONBody[RepeatsBody], metadata: Metadata, catalog: Catalog
) -> Response[RepeatsResult]:
    """Set how often images are seen in an epoch. `images` counts those whose repeats changed."""
    command = SetRepeats(dataset=dataset, selection=data.selection(), repeats=data.repeats)
    return ok(await catalog.command(metadata, command))
