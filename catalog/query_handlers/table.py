"""The table of all queries of the catalog and the functions that answer them, those of audits and replays apart."""

from functools import partial

from catalog.query_handlers import (
    bulk_edits,
    datasets,
    exports,
    historical,
    history,
    image_lists,
    presets,
    tag_lists,
    text_readings,
    work,
)
from catalog.query_handlers.context import QueryContext
from contracts.wire.service.handlers import handlers_in
from contracts.wire.service.requests import QueryHandlers

HANDLERS = handlers_in(
    *(bulk_edits, datasets, exports, historical, history, image_lists, presets, tag_lists, text_readings, work),
    parameter="query",
)


def query_handlers(context: QueryContext) -> QueryHandlers:
    """The argument `queries` of `contracts.wire.service.requests.Service.start`."""
    return {query: partial(handler, context) for query, handler in HANDLERS.items()}
