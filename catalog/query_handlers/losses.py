"""Queries about lost blobs and keys."""

from itertools import islice

from catalog.query_handlers.context import QueryContext
from catalog.query_handlers.paging import build_page, decode_cursor
from contracts.losses import BlobCheck, Loss
from contracts.queries.base import Page
from contracts.queries.losses import BlobView, GetBlobCheck, ListLosses, RequireBlob, StartBlobCheck


async def list_losses(context: QueryContext, query: ListLosses) -> Page[Loss]:
    """Blobs first, in no order, then keys; a cursor is the number of losses before the page."""
    await context.wait_for(query)
    start = max(0, *decode_cursor(query.cursor, (0,)))
    rows = list(enumerate(islice(context.watch.losses.all(), start, start + query.limit + 1), start=start + 1))
    return build_page(query, rows, lambda row: row[1], lambda row: (row[0],), context.watch.report.total)


async def require_blob(context: QueryContext, query: RequireBlob) -> BlobView:
    await context.wait_for(query)
    return BlobView(blob=query.blob, size=await context.watch.require_blob(query.blob))


async def start_blob_check(context: QueryContext, query: StartBlobCheck) -> BlobCheck:
    await context.wait_for(query)
    return context.watch.patrol.start_check()


async def get_blob_check(context: QueryContext, query: GetBlobCheck) -> BlobCheck:
    await context.wait_for(query)
    return context.watch.patrol.last_check
