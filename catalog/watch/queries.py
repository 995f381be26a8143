"""Answers queries about lost blobs and keys."""

from itertools import islice

from catalog.store import Store
from catalog.watch.watch import Watch
from contracts.errors import Invalid
from contracts.losses import BlobAudit, Loss
from contracts.queries.base import Page
from contracts.queries.losses import BlobView, GetBlob, GetBlobAudit, ListLosses, StartBlobAudit
from contracts.wire.service.requests import QueryHandlers


def handlers(watch: Watch, store: Store) -> QueryHandlers:
    async def list_losses(query: ListLosses) -> Page[Loss]:
        """Blobs first, then keys; a cursor is the number of losses before the page."""
        await store.wait_for(query.min_seq)
        start = _position(query.cursor)
        items = tuple(islice(watch.losses.all(), start, start + query.limit))
        end, total = start + len(items), watch.report.total
        return Page(items=items, total=total, next=str(end) if items and end < total else None)

    async def get_blob(query: GetBlob) -> BlobView:
        await store.wait_for(query.min_seq)
        return BlobView(blob=query.blob, size=await watch.require_blob(query.blob))

    async def start_blob_audit(query: StartBlobAudit) -> BlobAudit:
        await store.wait_for(query.min_seq)
        return watch.patrol.start_audit()

    async def get_blob_audit(query: GetBlobAudit) -> BlobAudit:
        await store.wait_for(query.min_seq)
        return watch.patrol.last_audit

    return {
        ListLosses: list_losses,
        GetBlob: get_blob,
        StartBlobAudit: start_blob_audit,
        GetBlobAudit: get_blob_audit,
    }


def _position(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not cursor.isdecimal() or len(cursor) > 9:
        raise Invalid("the cursor is not one of this list")
    return int(cursor)
