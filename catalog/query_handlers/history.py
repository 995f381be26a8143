"""The history of a job, an image, a data set or one of its tags, event by event, read from the archive."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from catalog import entries
from catalog.database import MAX_SEQUENCE, Connection
from catalog.domain.event_scope import affects_all_images, scope_to_image, scope_to_tag
from catalog.entries import MAX_SCANNED_COMMITS, AggregateKey
from catalog.keys import CAPTION, NAME, open_if_present
from catalog.query_handlers.context import QueryContext, require_dataset
from catalog.query_handlers.images import dataset_and_ordinal
from catalog.query_handlers.paging import MAX_PAGE_BYTES, decode_cursor, encode_cursor
from catalog.views import images, jobs, sets, tagging
from contracts.descriptions import describe
from contracts.errors import NotFound
from contracts.events import (
    AnyEvent,
    CaptionSet,
    ImageAdded,
    ImageRefused,
    ImagesRemoved,
    RecordedCommit,
    Sealed,
    TaggingRequested,
    TagsEdited,
)
from contracts.ids import ImageId
from contracts.queries import HistoryEntry, HistoryPage, ListDatasetHistory, ListImageHistory, ListJobHistory
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
class _SearchResult:
    """The events found, and the position where the search stopped (none = at the end of the log)."""

    events: list[_ScopedEvent]
    stopped_at: EventPosition | None


@dataclass(frozen=True)
class _PrivateTexts:
    """Opens sealed texts: `images` maps the ordinals of captions to image ids; `keys` lacks destroyed keys."""

    images: dict[int, ImageId]
    keys: dict[ImageId, bytes]

    def open(self, image: ImageId | None, sealed: Sealed, context: str) -> str | None:
        """None if the image was erased."""
        return None if image is None or image not in self.keys else open_if_present(self.keys, image, sealed, context)


async def list_job_history(context: QueryContext, query: ListJobHistory) -> HistoryPage:
    def read(connection: Connection) -> list[AggregateKey]:
        if jobs.find(connection, query.job) is None:
            raise NotFound(f"there is no job {query.job!r}")
        return [("job", query.job)]

    aggregates = await context.read(query, read)
    return await _history_page(context, query, aggregates, lambda event: event)


async def list_image_history(context: QueryContext, query: ListImageHistory) -> HistoryPage:
    def read(connection: Connection) -> tuple[int, list[AggregateKey]]:
        dataset_id, ordinal = dataset_and_ordinal(connection, query.image)
        return ordinal, _aggregates_of_dataset(connection, dataset_id)

    ordinal, aggregates = await context.read(query, read)

    def scope(event: AnyEvent) -> AnyEvent | None:
        return event if affects_all_images(event) else scope_to_image(event, ordinal)

    return await _history_page(context, query, aggregates, scope, query.image)


async def list_dataset_history(context: QueryContext, query: ListDatasetHistory) -> HistoryPage:
    tag = None if query.tag is None else canonicalize(query.tag)

    def scope(event: AnyEvent) -> AnyEvent | None:
        return event if tag is None or affects_all_images(event) else scope_to_tag(event, tag)

    def read(connection: Connection) -> list[AggregateKey]:
        return _aggregates_of_dataset(connection, require_dataset(connection, query.dataset).id)

    return await _history_page(context, query, await context.read(query, read), scope)


def _aggregates_of_dataset(connection: Connection, dataset_id: str) -> list[AggregateKey]:
    """The data set and the tagging runs on it."""
    runs = tagging.run_ids_of_dataset(connection, dataset_id, MAX_SEQUENCE)
    return [("dataset", dataset_id), *(("tagging", run) for run in runs)]


async def _history_page(
    context: QueryContext,
    query: ListJobHistory | ListImageHistory | ListDatasetHistory,
    aggregates: Sequence[AggregateKey],
    scope: EventFilter,
    image: ImageId | None = None,
) -> HistoryPage:
    start = decode_cursor(query.cursor, (0, END_OF_COMMIT))
    found = await context.archive.read(lambda log: _search(log, aggregates, scope, start, query.limit))
    captioned = await _captioned_images(context, aggregates[0][1], found, image)
    keys = await context.keys.keys_of({*captioned.values(), *_named_images(found)})
    items = tuple(_history_entry(event, _PrivateTexts(captioned, keys)) for event in found.events)
    return HistoryPage(items=items, next=None if found.stopped_at is None else encode_cursor(found.stopped_at))


def _search(
    log: Connection, aggregates: Sequence[AggregateKey], scope: EventFilter, start: EventPosition, limit: int
) -> _SearchResult:
    """The events after a position that are in scope, from at most MAX_SCANNED_COMMITS, as many as fit in a message."""
    last = entries.last_sequence(log)
    sequences = entries.sequences_of(log, aggregates, after=max(0, start[0] - 1), last=last, limit=MAX_SCANNED_COMMITS)
    events: list[_ScopedEvent] = []
    size = 0
    for recorded in entries.commits_at(log, sequences):
        for index, event in enumerate(recorded.commit.events):
            if (recorded.sequence, index) <= start or (scoped := scope(event)) is None:
                continue
            size += 2 * len(msgspec.json.encode(scoped)) + ENVELOPE_BYTES
            if events and (len(events) == limit or size > MAX_PAGE_BYTES):
                return _SearchResult(events, (events[-1].recorded.sequence, events[-1].index))
            events.append(_ScopedEvent(recorded, index, scoped))
    is_partial = len(sequences) == MAX_SCANNED_COMMITS
    return _SearchResult(events, (sequences[-1], END_OF_COMMIT) if is_partial else None)


async def _captioned_images(
    context: QueryContext, dataset_id: str, found: _SearchResult, image: ImageId | None
) -> dict[int, ImageId]:
    """The images whose captions are shown, by ordinal."""
    ordinals = {scoped.event.ordinal for scoped in found.events if isinstance(scoped.event, CaptionSet)}
    if image is not None:
        return dict.fromkeys(ordinals, image)
    rows = await context.store.read(lambda connection: images.by_ordinals(connection, dataset_id, ordinals))
    return {row.ordinal: row.id for row in rows}


def _named_images(found: _SearchResult) -> set[ImageId]:
    """The images whose file names are shown."""
    events = (scoped.event for scoped in found.events)
    return {event.image_id for event in events if isinstance(event, ImageAdded | ImageRefused)}


def _history_entry(scoped: _ScopedEvent, texts: _PrivateTexts) -> HistoryEntry:
    commit = scoped.recorded.commit
    return HistoryEntry(
        sequence=scoped.recorded.sequence,
        index=scoped.index,
        type=str(type(scoped.event).__struct_config__.tag),
        aggregate_kind=commit.aggregate_kind,
        aggregate_id=commit.aggregate_id,
        time=commit.at,
        recorded_at=scoped.recorded.recorded_at,
        actor=commit.actor,
        command_id=commit.command_id,
        correlation_id=commit.correlation_id,
        causation_id=commit.causation_id,
        description=describe(scoped.event),
        change=_plain_change(scoped.event, texts),
    )


def _plain_change(event: AnyEvent, texts: _PrivateTexts) -> dict[str, object]:
    """The event as plain values: sets of images as numbers, sealed texts opened."""
    change: dict[str, object] = msgspec.to_builtins(event)
    del change["type"]
    match event:
        case ImageAdded(image_id=image, name=name) | ImageRefused(image_id=image, name=name):
            change["name"] = texts.open(image, name, NAME)
        case CaptionSet(ordinal=ordinal, caption=bytes(caption)):
            change["caption"] = texts.open(texts.images.get(ordinal), caption, CAPTION)
        case TagsEdited(images=images) | ImagesRemoved(images=images) | TaggingRequested(images=images):
            ordinals = sets.ordinals(images)
            change["images"] = {"count": len(ordinals), "ordinals": ordinals[:MAX_LISTED_ORDINALS]}
        case _:
            pass
    return change
