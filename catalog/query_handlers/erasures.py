"""Queries about erased images and data sets."""

from collections.abc import Callable
from functools import partial

from catalog.database import Connection
from catalog.query_handlers.context import QueryContext, require_dataset
from catalog.query_handlers.paging import build_page, decode_cursor, encode_cursor
from catalog.views import erasures, images
from catalog.views.erasures import ErasedRow
from contracts.errors import NotFound
from contracts.queries import ErasedImage, ErasureView, GetErasure, ListErased, Page

PendingPurges = Callable[[int], tuple[str, ...]]
"""Where data erased up to a sequence may still exist, one sentence per place."""


async def get_erasure(context: QueryContext, pending_purges: PendingPurges, query: GetErasure) -> ErasureView:
    """NotFound if the id is unknown, or not erased."""
    return await context.read(query, partial(_erasure, query.aggregate_id, pending_purges))


async def list_erased(context: QueryContext, query: ListErased) -> Page[ErasedImage]:
    after = decode_cursor(query.cursor, (0, ""))

    def read(connection: Connection) -> Page[ErasedImage]:
        rows = erasures.image_page(connection, after, query.limit + 1)
        total = erasures.count_images(connection)
        return build_page(
            rows,
            lambda row: ErasedImage(image=row.image_id, picture=row.picture, cursor=encode_cursor(_sort_key(row))),
            _sort_key,
            total=total,
            limit=query.limit,
        )

    return await context.read(query, read)


def _sort_key(row: ErasedRow) -> tuple[int, str]:
    return row.sequence, row.image_id


def _erasure(ref: str, pending_purges: PendingPurges, connection: Connection) -> ErasureView:
    image = erasures.find(connection, ref)
    if image is not None:
        return ErasureView(
            id=ref,
            dataset_id=image.dataset_id,
            images=1,
            erased_at=image.at,
            loras=tuple(erasures.jobs_trained_on(connection, image.dataset_id, image.span)),
            pending=pending_purges(image.sequence),
            etag=image.sequence,
        )
    if images.find(connection, ref) is not None:
        raise NotFound(f"the image {ref!r} was not erased")
    return _dataset_erasure(ref, pending_purges, connection)


def _dataset_erasure(ref: str, pending_purges: PendingPurges, connection: Connection) -> ErasureView:
    row = require_dataset(connection, ref)
    if not row.erased:
        raise NotFound(f"the data set {row.name!r} was not erased")
    return ErasureView(
        id=row.id,
        dataset_id=row.id,
        images=erasures.count_of_dataset(connection, row.id),
        erased_at=row.changed_at,
        loras=tuple(erasures.jobs_trained_on(connection, row.id)),
        pending=pending_purges(row.revision.sequence),
        etag=row.etag,
    )
