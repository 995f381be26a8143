"""What exports are written from: the images of a data set or of a frozen version, with their texts in plain."""

import hashlib
from functools import partial
from itertools import islice

import msgspec

from catalog import index_memory
from catalog.database import Connection
from catalog.domain.manifest import ManifestLine, ManifestRoot
from catalog.domain.selection import evaluate
from catalog.keys import open_if_present
from catalog.lookup import known_dataset, require_dataset, require_version
from catalog.query_handlers.context import QueryContext
from catalog.query_handlers.paging import build_page, decode_cursor
from catalog.query_handlers.results import TaggedImage, with_tags
from catalog.views import images, texts
from catalog.views.images import ImageRow
from catalog.views.index import DatasetIndex
from catalog.views.texts import ReceivedText
from catalog.watch.absent_keys import AbsentKeys
from contracts.errors import Invalid
from contracts.filter_text import canonical
from contracts.ids import Digest, ImageId
from contracts.queries.base import Page
from contracts.queries.exports import ExportEntry, ReadExport
from contracts.sealed import CAPTION, NAME, TEXT, open_sealed
from contracts.training_text import TEXT_VERSION

Keys = dict[ImageId, bytes]


async def read_export(context: QueryContext, query: ReadExport) -> Page[ExportEntry]:
    if query.version is None:
        return await _read_current(context, query)
    if query.filter is not None:
        raise Invalid("a version is exported as a whole; filter the data set")
    return await _read_version(context, query, query.version)


async def _read_current(context: QueryContext, query: ReadExport) -> Page[ExportEntry]:
    (after,) = decode_cursor(query.cursor, (-1,))
    filter_, known = None if query.filter is None else canonical(query.filter), context.names
    dataset = await context.read(query, lambda connection: require_dataset(connection, query.dataset))
    memory = await index_memory.for_filter(context, dataset.id, filter_)

    def read(connection: Connection) -> tuple[list[TaggedImage], int, dict[int, ReceivedText]]:
        index = DatasetIndex(connection, dataset.id, memory)
        selected = index.universe() if filter_ is None else evaluate(filter_, index)
        ordinals = islice(selected.iter_equal_or_larger(after + 1), query.limit + 1)
        found = with_tags(connection, images.by_ordinals(connection, dataset.id, ordinals), known)
        asked = [image.row.ordinal for image in found] if query.received else []
        return found, len(selected), texts.received(connection, dataset.id, asked)

    found, total, received = await context.read_dataset(dataset.id, read)
    keys, absent = await context.keys_of(image.row.id for image in found)
    # A key that is missing although nobody gave it up must not make an export with fewer texts.
    absent.refuse_missing()

    def entry(image: TaggedImage) -> ExportEntry:
        current = _current_entry(image, keys, absent)
        if not query.received or image.row.id not in keys:
            return current
        text = _received(image.row, received.get(image.row.ordinal), keys[image.row.id])
        digest = None if text is None else Digest(hashlib.sha256(text.encode()).hexdigest())
        return msgspec.structs.replace(current, received=digest)

    return build_page(query, found, entry, lambda image: (image.row.ordinal,), total)


def _received(row: ImageRow, received: ReceivedText | None, key: bytes) -> str | None:
    """Before texts were kept, what stood beside a file was its caption."""
    if received is not None:
        return open_sealed(key, received.text, TEXT)
    if row.caption is None or row.caption_source != "import":
        return None
    return open_sealed(key, row.caption, CAPTION)


def _current_entry(image: TaggedImage, keys: Keys, absent: AbsentKeys) -> ExportEntry:
    row, effective, settings = image.row, image.tags, image.text_settings
    entry = partial(
        ExportEntry,
        ordinal=row.ordinal,
        image=row.id,
        picture=row.picture,
        width=row.width,
        height=row.height,
        repeats=image.repeats,
        template=settings.template,
        text=TEXT_VERSION,
        style=settings.style,
    )
    if row.id in absent.erased:
        return entry(erased=True)
    caption = row.caption if row.id in keys else None
    return entry(
        source=row.source,
        mask=row.mask,
        size=row.size,
        name=open_if_present(keys, row.id, row.name, NAME),
        tags=effective.names,
        caption=None if caption is None else open_sealed(keys[row.id], caption, CAPTION),
        caption_source="tags" if caption is None else row.caption_source or "written",
        caption_lost=row.caption is not None and caption is None,
    )


async def _read_version(context: QueryContext, query: ReadExport, number: int) -> Page[ExportEntry]:
    (after,) = decode_cursor(query.cursor, (-1,))
    version = await context.read(
        query, lambda connection: require_version(connection, known_dataset(connection, query.dataset), number)
    )
    root = await context.manifests.root(version.manifest)
    lines = await context.manifests.lines(root, after, query.limit + 1)
    ordinals = [line.ordinal for line in lines]

    def read(connection: Connection) -> dict[ImageId, ImageRow]:
        return {row.id: row for row in images.by_ordinals(connection, version.dataset_id, ordinals)}

    rows = await context.store.read(read)
    keys, absent = await context.keys_of(line.image for line in lines)
    absent.among({line.image for line in lines if line.caption is not None}).require()

    def entry(line: ManifestLine) -> ExportEntry:
        row = None if line.image in absent.erased else rows.get(line.image)
        return _frozen_entry(root, line, row, keys)

    return build_page(query, lines, entry, lambda line: (line.ordinal,), root.images)


def _frozen_entry(root: ManifestRoot, line: ManifestLine, row: ImageRow | None, keys: Keys) -> ExportEntry:
    """Tags and caption as frozen; the name, which never changes, and the source are those of the image."""
    entry = partial(
        ExportEntry,
        ordinal=line.ordinal,
        image=line.image,
        picture=line.picture,
        width=line.width,
        height=line.height,
        repeats=line.repeats,
        template=root.template,
        text=root.text,
        style=root.style,
    )
    if row is None:
        return entry(erased=True)
    caption = None if line.caption is None else open_sealed(keys[line.image], line.caption, CAPTION)
    # Who wrote it is known of the current caption only.
    writer = row.caption_source if line.caption == row.caption else None
    return entry(
        source=row.source,
        mask=line.mask,
        size=row.size,
        name=open_if_present(keys, row.id, row.name, NAME),
        tags=line.tags,
        caption=caption,
        caption_source="tags" if caption is None else writer or "written",
        caption_lost=line.caption_lost,
    )
