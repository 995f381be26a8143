"""The story of a job, an image, a data set or one of its tags, told from the archive fact by fact."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from catalog import entries
from catalog.answers.images import place_of
from catalog.answers.paging import PAGE_BYTES, cursor_of, key_of
from catalog.answers.shelf import Shelf, any_dataset_of
from catalog.database import Connection
from catalog.domain.narrowing import concerns_all, to_image, to_tag
from catalog.domain.words import words_of
from catalog.entries import SCAN, Thing
from catalog.keys import CAPTION, NAME, opened
from catalog.views import images, jobs, tagging
from catalog.views.predictions import NOW
from catalog.views.sets import unpacked
from contracts.errors import NotFound
from contracts.events import (
    AnyFact,
    CaptionSet,
    ImageAdded,
    ImageRefused,
    ImagesRemoved,
    Sealed,
    Stored,
    TaggingRequested,
    TagsEdited,
)
from contracts.ids import ImageId
from contracts.queries import Happening, History, ListDatasetHistory, ListImageHistory, ListJobHistory
from contracts.tags import canonical

Place = tuple[int, int]
"""After a fact: the sequence of its commit and its index there."""
Pick = Callable[[AnyFact], AnyFact | None]

WHOLE = 2**31
"""The index after all facts of a commit."""
ENVELOPE_BYTES = 1_000
"""Who, when and why of one fact on the wire, at most; its words are no longer than itself."""
NAMED = 100
"""So many ordinals of a set of images are named; `count` says how many there are."""


@dataclass(frozen=True)
class _Told:
    """A fact of a commit, cut down to what was asked."""

    stored: Stored
    index: int
    fact: AnyFact


@dataclass(frozen=True)
class _Story:
    """What was found, and where the search ended (none = at the log's head)."""

    told: list[_Told]
    end: Place | None


@dataclass(frozen=True)
class _Texts:
    """What opens private text: which image has the caption of an ordinal, and the keys that are still there."""

    captioned: dict[int, ImageId]
    keys: dict[ImageId, bytes]

    def plain(self, image: ImageId | None, sealed: Sealed, context: str) -> str | None:
        """None when the image was erased."""
        return None if image is None or image not in self.keys else opened(self.keys, image, sealed, context)


async def list_job_history(shelf: Shelf, query: ListJobHistory) -> History:
    def look(connection: Connection) -> list[Thing]:
        if jobs.find(connection, query.job) is None:
            raise NotFound(f"there is no job {query.job!r}")
        return [("job", query.job)]

    things = await shelf.look(query, look)
    return await _history(shelf, query, things, lambda fact: fact)


async def list_image_history(shelf: Shelf, query: ListImageHistory) -> History:
    def look(connection: Connection) -> tuple[int, list[Thing]]:
        dataset_id, ordinal = place_of(connection, query.image)
        return ordinal, _of_dataset(connection, dataset_id)

    ordinal, things = await shelf.look(query, look)
    return await _history(
        shelf, query, things, lambda fact: fact if concerns_all(fact) else to_image(fact, ordinal), query.image
    )


async def list_dataset_history(shelf: Shelf, query: ListDatasetHistory) -> History:
    tag = None if query.tag is None else canonical(query.tag)

    def pick(fact: AnyFact) -> AnyFact | None:
        return fact if tag is None or concerns_all(fact) else to_tag(fact, tag)

    def look(connection: Connection) -> list[Thing]:
        return _of_dataset(connection, any_dataset_of(connection, query.dataset).id)

    return await _history(shelf, query, await shelf.look(query, look), pick)


def _of_dataset(connection: Connection, dataset_id: str) -> list[Thing]:
    return [("dataset", dataset_id), *(("tagging", run) for run in tagging.runs_of(connection, dataset_id, NOW))]


async def _history(
    shelf: Shelf,
    query: ListJobHistory | ListImageHistory | ListDatasetHistory,
    things: Sequence[Thing],
    pick: Pick,
    image: ImageId | None = None,
) -> History:
    start = key_of(query.cursor, (0, WHOLE))
    story = await shelf.archive.read(lambda log: _searched(log, things, pick, start, query.limit))
    captioned = await _captioned(shelf, things[0][1], story, image)
    keys = await shelf.keys.keys_of({*captioned.values(), *_arrived(story)})
    items = tuple(_happening(one, _Texts(captioned, keys)) for one in story.told)
    return History(items=items, next=None if story.end is None else cursor_of(story.end))


def _searched(log: Connection, things: Sequence[Thing], pick: Pick, start: Place, limit: int) -> _Story:
    """The facts after a place that `pick` keeps, from at most SCAN commits and so many as fit in one message."""
    head = entries.last_sequence(log)
    found = entries.sequences_of(log, things, after=max(0, start[0] - 1), last=head, limit=SCAN)
    told: list[_Told] = []
    size = 0
    for stored in entries.commits_at(log, found):
        for index, fact in enumerate(stored.commit.facts):
            if (stored.sequence, index) <= start or (kept := pick(fact)) is None:
                continue
            size += 2 * len(msgspec.json.encode(kept)) + ENVELOPE_BYTES
            if told and (len(told) == limit or size > PAGE_BYTES):
                return _Story(told, (told[-1].stored.sequence, told[-1].index))
            told.append(_Told(stored, index, kept))
    return _Story(told, (found[-1], WHOLE) if len(found) == SCAN else None)


async def _captioned(shelf: Shelf, dataset_id: str, story: _Story, image: ImageId | None) -> dict[int, ImageId]:
    """The images whose captions are told, by ordinal."""
    ordinals = {one.fact.ordinal for one in story.told if isinstance(one.fact, CaptionSet)}
    if image is not None:
        return dict.fromkeys(ordinals, image)
    rows = await shelf.store.read(lambda now: images.at(now, dataset_id, ordinals))
    return {row.ordinal: row.id for row in rows}


def _arrived(story: _Story) -> set[ImageId]:
    """The images whose file names are told."""
    return {one.fact.image_id for one in story.told if isinstance(one.fact, ImageAdded | ImageRefused)}


def _happening(one: _Told, texts: _Texts) -> Happening:
    commit = one.stored.commit
    return Happening(
        sequence=one.stored.sequence,
        index=one.index,
        type=str(type(one.fact).__struct_config__.tag),
        kind=commit.kind,
        thing=commit.thing,
        time=commit.at,
        recorded=one.stored.recorded,
        actor=commit.actor,
        command=commit.command,
        correlation=commit.correlation,
        causation=commit.causation,
        words=words_of(one.fact),
        change=_change(one.fact, texts),
    )


def _change(fact: AnyFact, texts: _Texts) -> dict[str, object]:
    """The fact as plain values: sets of images as numbers, sealed text opened."""
    change: dict[str, object] = msgspec.to_builtins(fact)
    del change["type"]
    match fact:
        case ImageAdded(image_id=image, name=name) | ImageRefused(image_id=image, name=name):
            change["name"] = texts.plain(image, name, NAME)
        case CaptionSet(ordinal=ordinal, caption=bytes(caption)):
            change["caption"] = texts.plain(texts.captioned.get(ordinal), caption, CAPTION)
        case TagsEdited(images=some) | ImagesRemoved(images=some) | TaggingRequested(images=some):
            ordinals = unpacked(some)
            change["images"] = {"count": len(ordinals), "ordinals": ordinals[:NAMED]}
        case _:
            pass
    return change
