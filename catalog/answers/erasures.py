"""Answers about what was erased for good."""

from collections.abc import Callable
from functools import partial

from catalog.answers.paging import cursor_of, key_of, paged
from catalog.answers.shelf import Shelf, any_dataset_of
from catalog.database import Connection
from catalog.views import erasures, images
from catalog.views.erasures import ErasedRow
from contracts.errors import NotFound
from contracts.queries import ErasedImage, ErasureView, GetErasure, ListErased, Page

Left = Callable[[int], tuple[str, ...]]
"""Where something that was erased up to a sequence may still lie, in words."""


async def get_erasure(shelf: Shelf, left: Left, query: GetErasure) -> ErasureView:
    """NotFound for a thing that never was, and for one that was not erased."""
    return await shelf.look(query, partial(_erasure, query.thing, left))


async def list_erased(shelf: Shelf, query: ListErased) -> Page[ErasedImage]:
    after = key_of(query.cursor, (0, ""))

    def look(connection: Connection) -> Page[ErasedImage]:
        rows = erasures.pictures(connection, after, query.limit + 1)
        total = erasures.count(connection)
        return paged(
            rows,
            lambda row: ErasedImage(image=row.image_id, picture=row.picture, cursor=cursor_of(_place(row))),
            _place,
            total=total,
            limit=query.limit,
        )

    return await shelf.look(query, look)


def _place(row: ErasedRow) -> tuple[int, str]:
    return row.sequence, row.image_id


def _erasure(thing: str, left: Left, connection: Connection) -> ErasureView:
    image = erasures.find(connection, thing)
    if image is not None:
        return ErasureView(
            id=thing,
            dataset_id=image.dataset_id,
            images=1,
            erased_at=image.at,
            loras=tuple(erasures.saw(connection, image.dataset_id, image.span)),
            left=left(image.sequence),
            etag=image.sequence,
        )
    if images.find(connection, thing) is not None:
        raise NotFound(f"the image {thing!r} was not erased")
    return _of_dataset(thing, left, connection)


def _of_dataset(ref: str, left: Left, connection: Connection) -> ErasureView:
    row = any_dataset_of(connection, ref)
    if not row.erased:
        raise NotFound(f"the data set {row.name!r} was not erased")
    return ErasureView(
        id=row.id,
        dataset_id=row.id,
        images=erasures.of_dataset(connection, row.id),
        erased_at=row.changed_at,
        loras=tuple(erasures.saw(connection, row.id)),
        left=left(row.head.sequence),
        etag=row.touched,
    )
