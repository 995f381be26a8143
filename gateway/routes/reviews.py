"""Marking images of a data set as reviewed."""

from litestar import Response, post
from litestar.params import FromPath, JSONBody

from contracts.commands.datasets import ReviewImages, ReviewResult
from gateway.http.problems import problem_responses
from gateway.http.responses import ok
from gateway.routes.shared import Catalog, Metadata, SelectionBody


class ReviewBody(SelectionBody, frozen=True):
    """`reviewed` false: they are to be looked at again."""

    reviewed: bool = True


@post("/datasets/{dataset:str}/reviewed", status_code=200, responses=problem_responses(404, 409, 415, 422))
async def review_images(
    dataset: FromPath[str], data: JSONBody[ReviewBody], metadata: Metadata, catalog: Catalog
) -> Response[ReviewResult]:
    """Mark images as reviewed, or as not reviewed. `images` counts those whose state changed."""
    command = ReviewImages(dataset=dataset, selection=data.selection(), reviewed=data.reviewed)
    return ok(await catalog.command(metadata, command))
