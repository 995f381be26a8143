"""Queries about the log, read from the archive: its events, and the history of a job, an image, a data set or a tag."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from catalog import entries
from catalog.database import MAX_SEQUENCE, Connection
from catalog.domain.compose import compose
from catalog.domain.event_scope import affects_all_images, scope_to_image, scope_to_tag
from catalog.domain.image_sets import bitmap_of, with_bitmaps
from catalog.entries import AggregateKey
from catalog.keys import open_if_present
from catalog.lookup import aggregates_of_dataset, known_dataset, known_job, ordinal_of
from catalog.query_handlers.context import QueryContext
from catalog.query_handlers.paging import MAX_PAGE_BYTES, decode_cursor, encode_cursor
from catalog.store import checkpoint
from catalog.views import foreign, images, set_blobs
from contracts.aggregates import AnyEvent
from contracts.commits import RecordedCommit
from contracts.events.base import Sealed
from contracts.events.datasets import CaptionSet, ImageAdded, ImageRefused, TextReceived
from contracts.events.image_sets import ImageSetEvent
from contracts.ids import Digest, ImageId
from contracts.queries import log as queries
from contracts.queries.base import Page
from contracts.sealed import CAPTION, NAME, TEXT
from contracts.tags import canonicalize

EventPosition = tuple[int, int]
"""The sequence of an event's commit and its index there. A cursor is the position of the last event of its page."""
EventFilter = Callable[[AnyEvent], AnyEvent | None]
"""The part of an event that belongs to a history, or none."""

END_OF_COMMIT = 2**31
"""An index after all events of a commit."""
ENVELOPE_BYTES = 1_000
"""Maximum size of an entry without its event; the description is never longer than the event."""
MAX_LISTED_ORDINALS = 100
"""Maximum number of ordinals listed of a set of images; its `count` is the total."""


@dataclass(frozen=True)
class _ScopedEvent:
    """An event of a commit, reduced to the part that belongs to the history."""

    recorded: RecordedCommit
    index: int
    event: AnyEvent


@dataclass(frozen=True)
class _Search:
    """A search for the events after a position and up to commit `last` that are in scope, in at most `max_commits`.

    `images`: the sets that lie in blobs.
    """

    aggregates: Sequence[AggregateKey]
    last: int
    images: dict[Digest, bytes]
    scope: EventFilter
    start: EventPosition
    limit: int
    max_commits: int

    def run(self, log: Connection) -> tuple[list[_ScopedEvent], EventPosition | None]:
        """As many events as `limit`, and as fit in a message; and where the search stopped, none = at the end."""
        after = max(0, self.start[0] - 1)
        sequences = entries.sequences_of(log, self.aggregates, after=after, last=self.last, limit=self.max_commits)
        events: list[_ScopedEvent] = []
        size = 0
        for recorded in (with_bitmaps(one, self.images.__getitem__) for one in entries.commits_at(log, sequences)):
            for index, event in enumerate(recorded.commit.events):
                if (recorded.sequence, index) <= self.start or (scoped := self.scope(event)) is None:
                    continue
                size += 2 * len(msgspec.json.encode(scoped)) + ENVELOPE_BYTES
                if events and (len(events) == self.limit or size > MAX_PAGE_BYTES):
                    return events, (events[-1].recorded.sequence, events[-1].index)
                events.append(_ScopedEvent(recorded, index, scoped))
        is_partial = len(sequences) == self.max_commits
        return events, (sequences[-1], END_OF_COMMIT) if is_partial else None


async def list_events(context: QueryContext, query: queries.ListEvents) -> Page[queries.EventView]:
    await context.wait_for(query)
    return await context.archive.read(lambda connection: entries.list_events(connection, query))


async def list_foreign(context: QueryContext, query: queries.ListForeign) -> Page[queries.ForeignView]:
    def read(connection: Connection) -> tuple[list[foreign.ForeignRow], int]:
        last = MAX_SEQUENCE if query.until is None else query.until
        rows = foreign.page(
            *(connection, query.after, last, query.limit),
            kind=query.aggregate_kind,
            aggregate_id=query.aggregate_id,
        )
        return rows, foreign.count(connection)

    rows, total = await context.read(query, read)
    items = tuple(compose(queries.ForeignView, row) for row in rows)
    return Page(items=items, total=total, next=str(rows[-1].sequence) if len(rows) == query.limit else None)


async def get_log(context: QueryContext, query: queries.GetLog) -> queries.LogView:
    await context.wait_for(query)
    tail = context.archive.tail
    return queries.LogView(
        log_id=context.archive.log_id,
        applied=context.store.applied,
        archived=tail.sequence,
        head=tail.digest,
        verified=context.archive.verified,
    )


async def list_job_history(context: QueryContext, query: queries.ListJobHistory) -> queries.HistoryPage:
    job, _ = await context.read(query, lambda connection: known_job(connection, query.job))
    return await _history_page(context, query, [("job", job.id)], lambda event: event)


async def list_image_history(context: QueryContext, query: queries.ListImageHistory) -> queries.HistoryPage:
    def read(connection: Connection) -> tuple[int, list[AggregateKey]]:
        dataset_id, ordinal = ordinal_of(connection, query.image)
        return ordinal, aggregates_of_dataset(connection, dataset_id)

    ordinal, aggregates = await context.read(query, read)

    def scope(event: AnyEvent) -> AnyEvent | None:
        return event if affects_all_images(event) else scope_to_image(event, ordinal)

    return await _history_page(context, query, aggregates, scope, query.image)


async def list_dataset_history(context: QueryContext, query: queries.ListDatasetHistory) -> queries.HistoryPage:
    tag = None if query.tag is None else canonicalize(query.tag)

    def scope(event: AnyEvent) -> AnyEvent | None:
        return event if tag is None or affects_all_images(event) else scope_to_tag(event, tag)

    def read(connection: Connection) -> list[AggregateKey]:
        return aggregates_of_dataset(connection, known_dataset(connection, query.dataset).id)

    return await _history_page(context, query, await context.read(query, read), scope)


async def _history_page(
    context: QueryContext,
    query: queries.ListJobHistory | queries.ListImageHistory | queries.ListDatasetHistory,
    aggregates: Sequence[AggregateKey],
    scope: EventFilter,
    image: ImageId | None = None,
) -> queries.HistoryPage:
    start = decode_cursor(query.cursor, (0, END_OF_COMMIT))

    def read(connection: Connection) -> tuple[int, dict[Digest, bytes]]:
        return checkpoint(connection).sequence, set_blobs.of_owners(connection, [one for _, one in aggregates])

    last, sets = await context.store.read(read)
    search = _Search(aggregates, last, sets, scope, start, query.limit, context.limits.scanned_commits)
    found, stopped_at = await context.archive.read(search.run)
    captioned = await _captioned_images(context, aggregates[0][1], found, image)
    named = {one.event.image_id for one in found if isinstance(one.event, ImageAdded | ImageRefused)}
    keys = await context.keys.keys_of({*captioned.values(), *named})
    items = tuple(_history_entry(event, captioned, keys) for event in found)
    return queries.HistoryPage(items=items, next=None if stopped_at is None else encode_cursor(stopped_at))


async def _captioned_images(
    context: QueryContext, dataset_id: str, found: Sequence[_ScopedEvent], image: ImageId | None
) -> dict[int, ImageId]:
    """The images whose captions and texts are shown, by ordinal."""
    ordinals = {scoped.event.ordinal for scoped in found if isinstance(scoped.event, CaptionSet | TextReceived)}
    if image is not None:
        return dict.fromkeys(ordinals, image)
    rows = await context.store.read(lambda connection: images.by_ordinals(connection, dataset_id, ordinals))
    return {row.ordinal: row.id for row in rows}


def _history_entry(
    scoped: _ScopedEvent, captioned: dict[int, ImageId], keys: dict[ImageId, bytes]
) -> queries.HistoryEntry:
    commit, event = scoped.recorded.commit, scoped.event
    return compose(
        queries.HistoryEntry,
        scoped,
        scoped.recorded,
        commit,
        type=event.type_name,
        time=commit.at,
        description=event.describe(),
        change=_plain_change(event, captioned, keys),
    )


def _plain_change(event: AnyEvent, captioned: dict[int, ImageId], keys: dict[ImageId, bytes]) -> dict[str, object]:
    """The event as plain values: sets of images as numbers, sealed texts opened, those of erased images none.

    `captioned` maps the ordinals of captions to image ids; `keys` lacks destroyed keys.
    """
    change: dict[str, object] = msgspec.to_builtins(event)
    del change["type"]
    match event:
        case ImageAdded(image_id=image, name=name) | ImageRefused(image_id=image, name=name):
            change["name"] = _open(keys, image, name, NAME)
        case CaptionSet(ordinal=ordinal, caption=bytes(caption)):
            change["caption"] = _open(keys, captioned.get(ordinal), caption, CAPTION)
        case TextReceived(ordinal=ordinal, text=text):
            change["text"] = _open(keys, captioned.get(ordinal), text, TEXT)
        case ImageSetEvent(images=images):
            ordinals = bitmap_of(images)
            change["images"] = {"count": len(ordinals), "ordinals": list(ordinals[:MAX_LISTED_ORDINALS])}
        case _:
            pass
    return change


def _open(keys: dict[ImageId, bytes], image: ImageId | None, sealed: Sealed, context: str) -> str | None:
    return None if image is None or image not in keys else open_if_present(keys, image, sealed, context)
