"""Things as they were: their facts up to a place in the log, put through the same views once more.

What is asked about now goes to the read model. A job and an image need few facts; a data set needs all of its own and
of its tagging runs, so the number of commits is bounded, and so is how many such questions are answered at once.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

import msgspec

from catalog import entries, views
from catalog.answers import datasets, images, work
from catalog.answers.shelf import Shelf, any_dataset_of
from catalog.database import Connection, scratch
from catalog.domain.narrowing import for_image
from catalog.entries import Thing
from catalog.views import tagging
from catalog.views import work as work_rows
from contracts.errors import Invalid, NotFound, Rejected, Unavailable
from contracts.events import Stored
from contracts.queries import DatasetView, GetDataset, GetImage, GetJob, ImageView, JobView, QueryAt

T = TypeVar("T")

MOST_COMMITS = 100_000
"""So many commits one question puts through the views again."""
BATCH = 1000
AT_ONCE = 2
MOST_WAITING = 16
"""So many questions about the past are answered at once, and so many may wait; what comes beyond is turned away."""


class Past:
    """The answers that can be asked for as of a sequence or a time."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._asked = 0

    async def get_job(self, query: GetJob) -> JobView:
        """Its place in the queue depends on others; they are looked at where it waited."""
        last = await self._place(query)
        if last is None:
            return await work.get_job(self._shelf, query)
        things: list[Thing] = [("job", query.job)]
        view = await self._seen(things, last, lambda then: work.job_of(then, query.job))
        if view.position is None:
            return view
        others = await self._shelf.store.read(lambda now: work_rows.not_settled(now, "train", last))
        things += [("job", job) for job in others if job != query.job]
        return await self._seen(things, last, lambda then: work.job_of(then, query.job))

    async def get_dataset(self, query: GetDataset) -> DatasetView:
        last = await self._place(query)
        if last is None:
            return await datasets.get_dataset(self._shelf, query)
        dataset_id = await self._shelf.store.read(lambda now: any_dataset_of(now, query.dataset).id)
        things = await self._facts_of(dataset_id, last)
        return await self._seen(things, last, lambda then: datasets.dataset_view(then, dataset_id))

    async def get_image(self, query: GetImage) -> ImageView:
        last = await self._place(query)
        if last is None:
            return await images.get_image(self._shelf, query)
        dataset_id, ordinal = await self._shelf.store.read(lambda now: images.place_of(now, query.image))
        things = await self._facts_of(dataset_id, last)

        def narrowed(stored: Stored) -> Stored:
            return msgspec.structs.replace(stored, commit=for_image(stored.commit, ordinal))

        found = await self._seen(things, last, lambda then: images.found_image(then, query.image), narrowed)
        return images.image_view(found, await self._shelf.keys.keys_of([query.image]))

    async def _place(self, query: QueryAt[Any]) -> int | None:
        """The sequence that is asked about, which the read model has seen; none = now."""
        if query.at_seq is None and query.at_time is None:
            return None
        await self._shelf.store.wait_for(query.min_seq)
        last = await self._shelf.archive.read(lambda log: _sequence(log, query.at_seq, query.at_time))
        await self._shelf.store.wait_for(last)
        return last

    async def _facts_of(self, dataset_id: str, last: int) -> list[Thing]:
        """Where the facts about a data set lie: with itself, and with the tagging runs over its images."""
        runs = await self._shelf.store.read(lambda now: tagging.runs_of(now, dataset_id, last))
        return [("dataset", dataset_id), *(("tagging", run) for run in runs)]

    async def _seen(
        self,
        things: Sequence[Thing],
        last: int,
        look: Callable[[Connection], T],
        narrowed: Callable[[Stored], Stored] = lambda stored: stored,
    ) -> T:
        """What a look into the read model would have shown after commit `last`, as far as these things go."""
        if self._asked >= AT_ONCE + MOST_WAITING:
            raise Unavailable("too many questions about the past at once; ask again", service="catalog")
        self._asked += 1
        try:
            async with self._turns:
                return await self._shelf.archive.read(lambda log: _replayed(log, things, last, look, narrowed))
        except NotFound as error:
            raise NotFound(f"{error.detail} at sequence {last} of the log", sequence=last) from error
        finally:
            self._asked -= 1


def _sequence(log: Connection, at_seq: int | None, at_time: datetime | None) -> int:
    if at_seq is not None and at_time is not None:
        raise Invalid("at_seq and at_time both say when; give one of them")
    if at_time is not None:
        return entries.sequence_at(log, at_time)
    head = entries.last_sequence(log)
    if at_seq is None or at_seq > head:
        raise Rejected(f"the log ends at {head}; it has not come to {at_seq} yet", head=head)
    return at_seq


def _replayed(
    log: Connection,
    things: Sequence[Thing],
    last: int,
    look: Callable[[Connection], T],
    narrowed: Callable[[Stored], Stored],
) -> T:
    found = entries.sequences_of(log, things, after=0, last=last, limit=MOST_COMMITS + 1)
    if len(found) > MOST_COMMITS:
        raise Rejected(f"it takes more than {MOST_COMMITS} commits to say how it was then; that is too many")
    with closing(scratch(views.TABLES)) as then:
        then.execute("BEGIN")
        commits = (stored for stored in map(narrowed, entries.commits_at(log, found)) if stored.commit.facts)
        while batch := list(islice(commits, BATCH)):
            views.apply(then, batch)
        return look(then)
