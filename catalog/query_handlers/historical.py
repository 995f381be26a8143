"""Past states: an aggregate's events up to a sequence of the log, applied to an empty read model.

Queries about the present read the live read model. A job or an image needs few events; a data set needs all of its own
and those of its tagging runs, so the number of commits and of concurrent queries are limited.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

import msgspec

from catalog import entries, views
from catalog.database import Connection, open_scratch
from catalog.domain.event_scope import scope_commit_to_image
from catalog.entries import AggregateKey
from catalog.query_handlers import datasets, images, work
from catalog.query_handlers.context import QueryContext, require_dataset
from catalog.views import tagging
from catalog.views import work as work_views
from contracts.errors import Invalid, NotFound, Rejected, Unavailable
from contracts.events import RecordedCommit
from contracts.queries import DatasetView, GetDataset, GetImage, GetJob, ImageView, JobView, QueryAt

T = TypeVar("T")

MAX_REPLAYED_COMMITS = 100_000
"""Replay limit of a historical query."""
BATCH_SIZE = 1000
MAX_CONCURRENT_QUERIES = 2
MAX_QUEUED_QUERIES = 16
"""Maximum concurrent and maximum queued historical queries; further ones are rejected."""


class HistoricalQueries:
    """The queries that can be asked as of a sequence or a time."""

    def __init__(self, context: QueryContext) -> None:
        self._context = context
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_QUERIES)
        self._open_queries = 0

    async def get_job(self, query: GetJob) -> JobView:
        """The queue position depends on other jobs, so they are replayed too if the job was queued."""
        last = await self._sequence(query)
        if last is None:
            return await work.get_job(self._context, query)
        aggregates: list[AggregateKey] = [("job", query.job)]
        view = await self._read_at(aggregates, last, lambda past: work.read_job(past, query.job))
        if view.position is None:
            return view
        others = await self._context.store.read(lambda now: work_views.unfinished_since(now, "train", last))
        aggregates += [("job", job) for job in others if job != query.job]
        return await self._read_at(aggregates, last, lambda past: work.read_job(past, query.job))

    async def get_dataset(self, query: GetDataset) -> DatasetView:
        last = await self._sequence(query)
        if last is None:
            return await datasets.get_dataset(self._context, query)
        dataset_id = await self._context.store.read(lambda now: require_dataset(now, query.dataset).id)
        aggregates = await self._aggregates_of_dataset(dataset_id, last)
        return await self._read_at(aggregates, last, lambda past: datasets.read_dataset(past, dataset_id))

    async def get_image(self, query: GetImage) -> ImageView:
        last = await self._sequence(query)
        if last is None:
            return await images.get_image(self._context, query)
        dataset_id, ordinal = await self._context.store.read(lambda now: images.dataset_and_ordinal(now, query.image))
        aggregates = await self._aggregates_of_dataset(dataset_id, last)

        def scope(recorded: RecordedCommit) -> RecordedCommit:
            return msgspec.structs.replace(recorded, commit=scope_commit_to_image(recorded.commit, ordinal))

        snapshot = await self._read_at(aggregates, last, lambda past: images.read_image(past, query.image), scope)
        return images.image_view(snapshot, await self._context.keys.keys_of([query.image]))

    async def _sequence(self, query: QueryAt[Any]) -> int | None:
        """The sequence that the query asks for, once the read model has applied it; none = now."""
        if query.at_seq is None and query.at_time is None:
            return None
        await self._context.store.wait_for(query.min_seq)
        last = await self._context.archive.read(lambda log: _resolve_sequence(log, query.at_seq, query.at_time))
        await self._context.store.wait_for(last)
        return last

    async def _aggregates_of_dataset(self, dataset_id: str, last: int) -> list[AggregateKey]:
        """The aggregates with events about a data set: itself and the tagging runs on it."""
        runs = await self._context.store.read(lambda now: tagging.run_ids_of_dataset(now, dataset_id, last))
        return [("dataset", dataset_id), *(("tagging", run) for run in runs)]

    async def _read_at(
        self,
        aggregates: Sequence[AggregateKey],
        last: int,
        work: Callable[[Connection], T],
        scope: Callable[[RecordedCommit], RecordedCommit] = lambda recorded: recorded,
    ) -> T:
        """What `work` would have read from the read model after commit `last`, as far as these aggregates go."""
        if self._open_queries >= MAX_CONCURRENT_QUERIES + MAX_QUEUED_QUERIES:
            raise Unavailable("too many historical queries at once; try again", service="catalog")
        self._open_queries += 1
        try:
            async with self._slots:
                return await self._context.archive.read(lambda log: _replay(log, aggregates, last, work, scope))
        except NotFound as error:
            raise NotFound(f"{error.detail} at sequence {last} of the log", sequence=last) from error
        finally:
            self._open_queries -= 1


def _resolve_sequence(log: Connection, at_seq: int | None, at_time: datetime | None) -> int:
    if at_seq is not None and at_time is not None:
        raise Invalid("at_seq and at_time both say when; give one of them")
    if at_time is not None:
        return entries.sequence_at(log, at_time)
    head = entries.last_sequence(log)
    if at_seq is None or at_seq > head:
        raise Rejected(f"the log ends at {head}; it has not reached {at_seq} yet", head=head)
    return at_seq


def _replay(
    log: Connection,
    aggregates: Sequence[AggregateKey],
    last: int,
    work: Callable[[Connection], T],
    scope: Callable[[RecordedCommit], RecordedCommit],
) -> T:
    sequences = entries.sequences_of(log, aggregates, after=0, last=last, limit=MAX_REPLAYED_COMMITS + 1)
    if len(sequences) > MAX_REPLAYED_COMMITS:
        raise Rejected(f"this past state takes a replay of more than {MAX_REPLAYED_COMMITS} commits, the limit")
    with closing(open_scratch(views.TABLES)) as past:
        past.execute("BEGIN")
        scoped = map(scope, entries.commits_at(log, sequences))
        commits = (recorded for recorded in scoped if recorded.commit.events)
        while batch := list(islice(commits, BATCH_SIZE)):
            views.apply(past, batch)
        return work(past)
