"""Edits of the tags of many images at once, and what they would change."""

from typing import Annotated

from litestar import Response, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from contracts.commands.datasets import EditedTags, EditMany, EditManyResult
from contracts.queries.datasets import EditPreview, PreviewEdit
from gateway.http.problems import not_shown_response, problem_responses
from gateway.http.responses import ok
from gateway.routes.shared import Catalog, Metadata, SelectionBody


class EditPreviewBody(SelectionBody, frozen=True):
    """A removed tag is rejected, a withdrawn one left to the models."""

    add: EditedTags = ()
    remove: EditedTags = ()
    withdraw: EditedTags = ()


class EditManyBody(EditPreviewBody, frozen=True):
    """`as_of`: that of a preview; the edit is refused if an image of the data set has changed since."""

    as_of: Annotated[int, Meta(ge=0, le=2**53)] | None = None


@post(
    "/datasets/{dataset:str}/edits",
    status_code=200,
    responses=not_shown_response(EditManyResult) | problem_responses(404, 409, 415, 422),
)
async def edit_many(
    dataset: FromPath[str], data: JSONBody[EditManyBody], metadata: Metadata, catalog: Catalog
) -> Response[EditManyResult]:
    """Add, remove and withdraw tags of many images in one commit, which can be undone as one.

    `images` counts those with a new decision, `selected` all. A tag that a model gives becomes the person's.
    """
    command = EditMany(
        dataset=dataset,
        selection=data.selection(),
        add=data.add,
        remove=data.remove,
        withdraw=data.withdraw,
        as_of=data.as_of,
    )
    return ok(await catalog.command(metadata, command))


@post("/datasets/{dataset:str}/edits/preview", status_code=200, responses=problem_responses(404, 415, 422))
async def preview_edit(dataset: FromPath[str], data: JSONBody[EditPreviewBody], catalog: Catalog) -> EditPreview:
    """What an edit of many images would change, and `as_of`: with it the edit changes exactly that, or is refused."""
    return await catalog.query(
        PreviewEdit(
            dataset=dataset, selection=data.selection(), add=data.add, remove=data.remove, withdraw=data.withdraw
        )
    )
