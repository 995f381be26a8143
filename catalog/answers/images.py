"""Answers about images."""

from dataclasses import dataclass

from catalog.answers.paging import key_of, paged
from catalog.answers.shelf import Shelf, dataset_of
from catalog.database import Connection
from catalog.domain.manifest import joined
from catalog.domain.standing import Standing
from catalog.keys import CAPTION, NAME, opened
from catalog.views import erasures, images, tags
from catalog.views.images import ImageRow
from contracts.errors import Gone, NotFound
from contracts.ids import DatasetId, ImageId
from contracts.queries import GetImage, ImageView, ListImages, Page
from contracts.tags import canonical


@dataclass(frozen=True)
class Found:
    """Rows and what was decided and seen, all of one snapshot."""

    rows: list[ImageRow]
    standings: dict[ImageId, Standing]
    total: int = 0


async def list_images(shelf: Shelf, query: ListImages) -> Page[ImageView]:
    """In the order they came in."""
    after = key_of(query.cursor, (0, -1))
    tag = None if query.tag is None else canonical(query.tag)

    def look(connection: Connection) -> Found:
        dataset_id = None if query.dataset is None else dataset_of(connection, query.dataset).id
        rows = tags.page(connection, dataset_id, tag, after, query.limit + 1)
        total = tags.count_images(connection, dataset_id, tag)
        return Found(rows, _standings(connection, rows), total)

    found = await shelf.look(query, look)
    keys = await shelf.keys.keys_of(row.id for row in found.rows)

    def view(row: ImageRow) -> ImageView:
        return _image(row, found.standings[row.id], keys)

    return paged(found.rows, view, lambda row: (row.added, row.ordinal), total=found.total, limit=query.limit)


async def get_image(shelf: Shelf, query: GetImage) -> ImageView:
    found = await shelf.look(query, lambda connection: found_image(connection, query.image))
    keys = await shelf.keys.keys_of([query.image])
    if not keys:  # a log from before the erasure, restored, does not know of it yet
        raise erased(query.image)
    return image_view(found, keys)


def erased(image_id: str) -> Gone:
    return Gone(f"the image {image_id!r} was erased for good", reason="erased")


def found_image(connection: Connection, image_id: str) -> Found:
    """NotFound where there is none, Gone where it or its data set was removed, or it was erased."""
    row = images.find(connection, image_id)
    if row is None and erasures.find(connection, image_id) is not None:
        raise erased(image_id)
    if row is None:
        raise NotFound(f"there is no image {image_id!r}")
    if row.removed:
        raise Gone(f"the image {image_id!r} has been removed")
    dataset_of(connection, row.dataset_id)
    return Found([row], _standings(connection, [row]))


def image_view(found: Found, keys: dict[ImageId, bytes]) -> ImageView:
    """The one image found."""
    (row,) = found.rows
    return _image(row, found.standings[row.id], keys)


def place_of(connection: Connection, image_id: str) -> tuple[DatasetId, int]:
    """The data set and the ordinal of an image that is or was there; NotFound where there never was one."""
    row = images.find(connection, image_id) or erasures.find(connection, image_id)
    if row is None or row.ordinal is None:
        raise NotFound(f"there is no image {image_id!r}")
    return row.dataset_id, row.ordinal


def _standings(connection: Connection, rows: list[ImageRow]) -> dict[ImageId, Standing]:
    found: dict[ImageId, Standing] = {}
    for dataset_id in dict.fromkeys(row.dataset_id for row in rows):
        ids = {row.ordinal: row.id for row in rows if row.dataset_id == dataset_id}
        standings = images.standings(connection, dataset_id, list(ids))
        found |= {ids[ordinal]: standing for ordinal, standing in standings.items()}
    return found


def _image(row: ImageRow, standing: Standing, keys: dict[ImageId, bytes]) -> ImageView:
    written = None if row.caption is None else opened(keys, row.id, row.caption, CAPTION)
    return ImageView(
        id=row.id,
        dataset_id=row.dataset_id,
        dataset=row.dataset,
        ordinal=row.ordinal,
        name=opened(keys, row.id, row.name, NAME),
        format=row.format,
        width=row.width,
        height=row.height,
        size=row.size,
        animated=row.animated,
        picture=row.picture,
        source=row.source,
        thumbnail=row.thumbnail,
        tags=standing.tags,
        rejected=standing.rejected,
        suggestions=standing.suggestions,
        rating=standing.rating,
        caption=joined(standing.names) if written is None else written,
        caption_source=row.caption_source or "tags",
        created_at=row.created_at,
        etag=row.etag,
        erased=row.id not in keys,
    )
