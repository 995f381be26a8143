"""Queries about images."""

from dataclasses import dataclass

from catalog.database import Connection
from catalog.domain.effective_tags import EffectiveTags
from catalog.domain.manifest import caption_from_tags
from catalog.keys import CAPTION, NAME, open_if_present
from catalog.query_handlers.context import QueryContext, require_live_dataset
from catalog.query_handlers.paging import build_page, decode_cursor
from catalog.views import erasures, images, tags
from catalog.views.images import ImageRow
from contracts.errors import Gone, NotFound
from contracts.ids import DatasetId, ImageId
from contracts.queries import GetImage, ImageView, ListImages, Page
from contracts.tags import canonicalize


@dataclass(frozen=True)
class ImageSnapshot:
    """Image rows and their effective tags, read in one transaction."""

    rows: list[ImageRow]
    effective_tags: dict[ImageId, EffectiveTags]
    total: int = 0


async def list_images(context: QueryContext, query: ListImages) -> Page[ImageView]:
    """In import order."""
    after = decode_cursor(query.cursor, (0, -1))
    tag = None if query.tag is None else canonicalize(query.tag)

    def read(connection: Connection) -> ImageSnapshot:
        dataset_id = None if query.dataset is None else require_live_dataset(connection, query.dataset).id
        rows = tags.page(connection, dataset_id, tag, after, query.limit + 1)
        total = tags.count_images(connection, dataset_id, tag)
        return ImageSnapshot(rows, _effective_tags(connection, rows), total)

    found = await context.read(query, read)
    keys = await context.keys.keys_of(row.id for row in found.rows)

    def view(row: ImageRow) -> ImageView:
        return _image_view(row, found.effective_tags[row.id], keys)

    return build_page(
        found.rows, view, lambda row: (row.added_sequence, row.ordinal), total=found.total, limit=query.limit
    )


async def get_image(context: QueryContext, query: GetImage) -> ImageView:
    snapshot = await context.read(query, lambda connection: read_image(connection, query.image))
    keys = await context.keys.keys_of([query.image])
    if not keys:  # a restored log from before the erasure does not contain it
        raise erased_error(query.image)
    return image_view(snapshot, keys)


def erased_error(image_id: str) -> Gone:
    return Gone(f"the image {image_id!r} was erased for good", reason="erased")


def read_image(connection: Connection, image_id: str) -> ImageSnapshot:
    """NotFound if there is none, Gone if it or its data set was removed, or if it was erased."""
    row = images.find(connection, image_id)
    if row is None and erasures.find(connection, image_id) is not None:
        raise erased_error(image_id)
    if row is None:
        raise NotFound(f"there is no image {image_id!r}")
    if row.removed:
        raise Gone(f"the image {image_id!r} has been removed")
    require_live_dataset(connection, row.dataset_id)
    return ImageSnapshot([row], _effective_tags(connection, [row]))


def image_view(snapshot: ImageSnapshot, keys: dict[ImageId, bytes]) -> ImageView:
    """The view of a snapshot's only image."""
    (row,) = snapshot.rows
    return _image_view(row, snapshot.effective_tags[row.id], keys)


def dataset_and_ordinal(connection: Connection, image_id: str) -> tuple[DatasetId, int]:
    """Of an image, also a removed or erased one; NotFound if there never was one."""
    row = images.find(connection, image_id) or erasures.find(connection, image_id)
    if row is None or row.ordinal is None:
        raise NotFound(f"there is no image {image_id!r}")
    return row.dataset_id, row.ordinal


def _effective_tags(connection: Connection, rows: list[ImageRow]) -> dict[ImageId, EffectiveTags]:
    found: dict[ImageId, EffectiveTags] = {}
    for dataset_id in dict.fromkeys(row.dataset_id for row in rows):
        ids = {row.ordinal: row.id for row in rows if row.dataset_id == dataset_id}
        by_ordinal = images.effective_tags(connection, dataset_id, list(ids))
        found |= {ids[ordinal]: effective for ordinal, effective in by_ordinal.items()}
    return found


def _image_view(row: ImageRow, effective: EffectiveTags, keys: dict[ImageId, bytes]) -> ImageView:
    written = None if row.caption is None else open_if_present(keys, row.id, row.caption, CAPTION)
    return ImageView(
        id=row.id,
        dataset_id=row.dataset_id,
        dataset=row.dataset,
        ordinal=row.ordinal,
        name=open_if_present(keys, row.id, row.name, NAME),
        format=row.format,
        width=row.width,
        height=row.height,
        size=row.size,
        animated=row.animated,
        picture=row.picture,
        source=row.source,
        thumbnail=row.thumbnail,
        tags=effective.tags,
        rejected=effective.rejected,
        suggestions=effective.suggestions,
        rating=effective.rating,
        caption=caption_from_tags(effective.names) if written is None else written,
        caption_source=row.caption_source or "tags",
        created_at=row.created_at,
        etag=row.etag,
        erased=row.id not in keys,
    )
