"""Texts that came with images, read another way."""

from functools import reduce
from operator import add

import msgspec
from litestar import Response, post
from litestar.params import FromPath, JSONBody

from contracts.commands.datasets import ReadTexts, ReadTextsResult, TextCounts
from contracts.events.base import ReadAs
from contracts.ids import CommandId, DatasetId, derived
from contracts.queries.datasets import PreviewTexts
from gateway.http.problems import not_shown_response, problem_responses
from gateway.http.responses import ok
from gateway.routes.shared import Catalog, Metadata, SelectionBody

MAX_NEW_TAGS = 100
"""Of a preview, in which they are named."""


class ReadTextsBody(SelectionBody, frozen=True, kw_only=True):
    """`read_as`: `tags`, `caption`, or `auto`, by the rule of docs/texts.md."""

    read_as: ReadAs


class TextsPreviewBody(msgspec.Struct, frozen=True, kw_only=True):
    """What reading texts another way would do. `new_tags`: the first that would be in the log, unencrypted."""

    dataset_id: DatasetId
    dataset: str
    counts: TextCounts
    new_tags: tuple[str, ...]


@post(
    "/datasets/{dataset:str}/texts/read",
    status_code=200,
    responses=not_shown_response(ReadTextsResult) | problem_responses(404, 409, 415, 422),
)
async def read_texts(
    dataset: FromPath[str], data: JSONBody[ReadTextsBody], metadata: Metadata, catalog: Catalog
) -> Response[ReadTextsResult]:
    """Read the texts that came with images another way: as tags, as captions, or by the rule.

    What the earlier reading of a text gave is withdrawn where no person decided about it since. Many images take
    several commits; if the request is interrupted, some of them are read, and repeating it reads the rest. Undoing one
    of the commits undoes all of the request.
    """
    selection, results, after = data.selection(), list[ReadTextsResult](), -1
    while not results or results[-1].next is not None:
        command = ReadTexts(dataset=dataset, selection=selection, read_as=data.read_as, after=after)
        own_id = metadata.command_id if after < 0 else CommandId(derived("k", metadata.command_id, str(after)))
        result = await catalog.command_with_retry(msgspec.structs.replace(metadata, command_id=own_id), command)
        results.append(result)
        dataset, after = result.id, result.next or 0
    return ok(
        msgspec.structs.replace(
            results[-1],
            counts=reduce(add, (result.counts for result in results)),
            sequence=max(result.sequence for result in results),
            changed=any(result.changed for result in results),
            shown=all(result.shown for result in results),
        )
    )


@post("/datasets/{dataset:str}/texts/read/preview", status_code=200, responses=problem_responses(404, 415, 422))
async def preview_texts(dataset: FromPath[str], data: JSONBody[ReadTextsBody], catalog: Catalog) -> TextsPreviewBody:
    """How many texts would become what, and which tags would be in the log, which is not encrypted."""
    query = PreviewTexts(dataset=dataset, selection=data.selection(), read_as=data.read_as)
    counts, new_tags = TextCounts(), dict[str, None]()
    while True:
        view = await catalog.query(query)
        counts += view.counts
        new_tags |= dict.fromkeys(view.new_tags[: MAX_NEW_TAGS - len(new_tags)])
        if view.next is None:
            named = tuple(new_tags)
            return TextsPreviewBody(dataset_id=view.dataset_id, dataset=view.dataset, counts=counts, new_tags=named)
        query = msgspec.structs.replace(query, dataset=view.dataset_id, after=view.next)
