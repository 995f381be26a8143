"""Marking images of a data set as reviewed."""

from typing import Annotated

from litestar import Response, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from contracts.commands.datasets import ReviewImages, ReviewResult
from contracts.errors import Invalid
from contracts.filter_parser import MAX_FILTER_CHARACTERS
from contracts.filter_text import read_filter
from contracts.filters import MAX_SELECTED_IDS, AllImages, Matching, Selection, TheseImages
from contracts.ids import ImageId
from gateway.http.problems import problem_responses
from gateway.http.responses import ok
from gateway.routes.shared import Body, Catalog, Metadata


class ReviewBody(Body, frozen=True):
    """Which images: `images` by id, those that a `filter` selects (as in lists of images), or `all`; one of the three.

    `reviewed` false: they are to be looked at again.
    """

    images: Annotated[tuple[ImageId, ...], Meta(min_length=1, max_length=MAX_SELECTED_IDS)] | None = None
    filter: Annotated[str, Meta(max_length=MAX_FILTER_CHARACTERS)] | None = None
    all: bool = False
    reviewed: bool = True

    def selection(self) -> Selection:
        """Invalid: none or several are given, or the filter cannot be read."""
        match self.images, self.filter, self.all:
            case (ids, None, False) if ids is not None:
                return TheseImages(ids=ids)
            case (None, str(text), False):
                return Matching(filter=read_filter(text))
            case (None, None, True):
                return AllImages()
            case _:
                raise Invalid("name the images by exactly one of images, filter and all")


@post("/datasets/{dataset:str}/reviewed", status_code=200, responses=problem_responses(404, 409, 415, 422))
async def review_images(
    dataset: FromPath[str], data: JSONBody[ReviewBody], metadata: Metadata, catalog: Catalog
) -> Response[ReviewResult]:
    """Mark images as reviewed, or as not reviewed. `images` counts those whose state changed."""
    command = ReviewImages(dataset=dataset, selection=data.selection(), reviewed=data.reviewed)
    return ok(await catalog.command(metadata, command))
