"""Queries about one job, data set or image, now or in the past.

A past state is that of an empty read model after the aggregate's events up to a sequence of the log. A job or an image
needs few events; a data set needs all of its own and those of its tagging runs, so the number of commits and of
concurrent queries are limited.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

import msgspec

from catalog import entries, views
from catalog.database import Connection, open_scratch
from catalog.domain.event_scope import scope_commit_to_image
from catalog.domain.image_sets import with_bitmaps
from catalog.entries import AggregateKey
from catalog.lookup import aggregates_of_dataset, erased, known_dataset, ordinal_of
from catalog.query_handlers.context import QueryContext
from catalog.query_handlers.results import image_view, read_dataset, read_image, read_job
from catalog.views import set_blobs, work
from catalog.watch.losses import keys_missing
from contracts.commits import RecordedCommit
from contracts.errors import Invalid, NotFound, Rejected
from contracts.ids import Digest
from contracts.queries.base import QueryAt
from contracts.queries.datasets import DatasetView, GetDataset, GetImage, ImageView
from contracts.queries.jobs import GetJob, JobView

T = TypeVar("T")

BATCH_SIZE = 1000


@dataclass(frozen=True)
class _Replay:
    """The commits of some aggregates up to commit `last`; `scope` cuts each down to what is asked about."""

    aggregates: Sequence[AggregateKey]
    last: int
    scope: Callable[[RecordedCommit], RecordedCommit] = lambda recorded: recorded

    async def read(self, context: QueryContext, work: Callable[[Connection], T]) -> T:
        """What `work` would have read from the read model after the last commit, as far as these aggregates go."""
        try:
            async with context.replays.hold():
                ids = [aggregate_id for _, aggregate_id in self.aggregates]
                images = await context.store.read(lambda now: set_blobs.of_owners(now, ids))
                limit = context.limits.replayed_commits
                return await context.archive.read(lambda log: self._run(log, limit, images, work))
        except NotFound as error:
            raise NotFound(f"{error.detail} at sequence {self.last} of the log", sequence=self.last) from error

    def _run(self, log: Connection, limit: int, images: dict[Digest, bytes], work: Callable[[Connection], T]) -> T:
        """`images`: the sets that lie in blobs."""
        sequences = entries.sequences_of(log, self.aggregates, after=0, last=self.last, limit=limit + 1)
        if len(sequences) > limit:
            raise Rejected(f"this past state takes a replay of more than {limit} commits, the limit")
        with closing(open_scratch(views.TABLES)) as past:
            past.execute("BEGIN")
            read = (with_bitmaps(one, images.__getitem__) for one in entries.commits_at(log, sequences))
            scoped = map(self.scope, read)
            commits = (recorded for recorded in scoped if recorded.commit.events)
            while batch := list(islice(commits, BATCH_SIZE)):
                views.apply(past, batch)
            return work(past)


async def get_job(context: QueryContext, query: GetJob) -> JobView:
    """The queue position depends on other jobs, so they are replayed too if the job was queued."""

    def read(connection: Connection) -> JobView:
        return read_job(connection, query.job)

    last = await _sequence(context, query)
    if last is None:
        return await context.read(query, read)
    aggregates: list[AggregateKey] = [("job", query.job)]
    view = await _Replay(aggregates, last).read(context, read)
    if view.position is None:
        return view
    others = await context.store.read(lambda now: work.unfinished_since(now, "train", last))
    aggregates += [("job", job) for job in others if job != query.job]
    return await _Replay(aggregates, last).read(context, read)


async def get_dataset(context: QueryContext, query: GetDataset) -> DatasetView:
    last = await _sequence(context, query)
    if last is None:
        return await context.read(query, lambda now: read_dataset(now, query.dataset))
    dataset_id = await context.store.read(lambda now: known_dataset(now, query.dataset).id)
    aggregates = await context.store.read(lambda now: aggregates_of_dataset(now, dataset_id, last))
    return await _Replay(aggregates, last).read(context, lambda past: read_dataset(past, dataset_id))


async def get_image(context: QueryContext, query: GetImage) -> ImageView:
    last = await _sequence(context, query)
    if last is None:
        image = await context.read(query, lambda now: read_image(now, query.image))
        keys, absent = await context.keys_of([query.image])
        if absent.erased:  # a restored log from before the erasure does not contain it
            raise erased(query.image)
        if absent.missing:
            raise keys_missing(absent.missing)
        return image_view(image, keys, absent)
    dataset_id, ordinal = await context.store.read(lambda now: ordinal_of(now, query.image))

    def scope(recorded: RecordedCommit) -> RecordedCommit:
        return msgspec.structs.replace(recorded, commit=scope_commit_to_image(recorded.commit, ordinal))

    aggregates = await context.store.read(lambda now: aggregates_of_dataset(now, dataset_id, last))
    past_image = await _Replay(aggregates, last, scope).read(context, lambda past: read_image(past, query.image))
    return image_view(past_image, *await context.keys_of([query.image]))


async def _sequence(context: QueryContext, query: QueryAt[Any]) -> int | None:
    """The sequence that the query asks for, once the read model has applied it; none = now."""
    if query.at_seq is None and query.at_time is None:
        return None
    await context.wait_for(query)
    last = await context.archive.read(lambda log: _resolve_sequence(log, query.at_seq, query.at_time))
    await context.store.wait_for(last)
    return last


def _resolve_sequence(log: Connection, at_seq: int | None, at_time: datetime | None) -> int:
    if at_seq is not None and at_time is not None:
        raise Invalid("at_seq and at_time both say when; give one of them")
    if at_time is not None:
        return entries.sequence_at(log, at_time)
    head = entries.last_sequence(log)
    if at_seq is None or at_seq > head:
        raise Rejected(f"the log ends at {head}; it has not reached {at_seq} yet", head=head)
    return at_seq
