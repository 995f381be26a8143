"""Queries about one job, data set or image, now or in the past.

The past of data sets and images is in their histories, which the views keep: edits, captions, reviews, predictions and
settings with their sequences, undos, comings and goings. A job has few events, so its past state is that of an empty
read model after them. What may take long has a time limit, and is done a few at a time.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

from msgspec import structs

from catalog import entries, views
from catalog.database import Connection, open_scratch
from catalog.entries import AggregateKey
from catalog.lookup import aggregates_of_dataset, dataset_at, erased, known_image, not_found, not_found_at, removed
from catalog.query_handlers.context import QueryContext
from catalog.query_handlers.results import (
    TaggedImage,
    counted_dataset,
    image_view,
    read_dataset,
    read_image,
    read_job,
    with_tags,
)
from catalog.views import past, work
from catalog.views.erasures import ErasedRow
from catalog.views.tag_names import Names
from catalog.watch.losses import keys_missing
from contracts.errors import NotFound, Rejected
from contracts.queries.datasets import DatasetView, GetDataset, GetImage, ImageView
from contracts.queries.jobs import GetJob, JobView

T = TypeVar("T")

BATCH_SIZE = 1000


@dataclass(frozen=True)
class _Replay:
    """The commits of some aggregates up to commit `last`."""

    aggregates: Sequence[AggregateKey]
    last: int

    async def read(self, context: QueryContext, work: Callable[[Connection], T]) -> T:
        """What `work` would have read from the read model after the last commit, as far as these aggregates go."""
        check = _time_limit(context, f"the state at sequence {self.last} takes a replay", "ask for an earlier sequence")
        try:
            async with context.past_slots.hold():
                return await context.archive.read(lambda log: self._run(log, check, work))
        except NotFound as error:
            raise not_found_at(error, self.last) from error

    def _run(self, log: Connection, check: Callable[[int], None], work: Callable[[Connection], T]) -> T:
        sequences = entries.sequences_of(log, self.aggregates, after=0, last=self.last, limit=self.last)
        with closing(open_scratch(views.TABLES)) as scratch:
            scratch.execute("BEGIN")
            commits = entries.commits_at(log, sequences)
            left = len(sequences)
            while batch := list(islice(commits, BATCH_SIZE)):
                check(left)
                views.apply(scratch, batch)
                left -= len(batch)
            return work(scratch)


def _time_limit(context: QueryContext, what: str, advice: str) -> Callable[[int], None]:
    """To be called with what is left to do, while it is done. Rejected: it takes too long."""
    seconds = context.limits.past_seconds
    end = time.monotonic() + seconds

    def check(left: int) -> None:
        if time.monotonic() >= end:
            detail = f"{what}, more than {seconds:g} seconds, with {left} left to do; {advice}"
            raise Rejected(detail, reason="past-too-large", left=left)

    return check


async def get_job(context: QueryContext, query: GetJob) -> JobView:
    """The queue position depends on other jobs, so they are replayed too if the job was queued."""

    def read(connection: Connection) -> JobView:
        return read_job(connection, query.job)

    last = await context.sequence_of(query)
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
    last = await context.sequence_of(query)
    if last is None:
        return await context.read(query, lambda now: read_dataset(now, query.dataset))
    advice = "ask for a later sequence, for images of it, or for a version that was frozen then"
    check = _time_limit(context, f"counting the images that have changed since sequence {last} takes long", advice)

    def read(now: Connection) -> tuple[DatasetView, list[AggregateKey]]:
        row = dataset_at(now, query.dataset, last)
        counts = past.count_images(now, row.id, last, check)
        return counted_dataset(row, counts), aggregates_of_dataset(now, row.id, last)

    async with context.past_slots.hold():
        view, aggregates = await context.read(query, read)
    changed = await context.archive.read(lambda log: entries.last_of(log, aggregates, last))
    return view if changed is None else structs.replace(view, etag=changed.sequence, changed_at=changed.commit.at)


async def get_image(context: QueryContext, query: GetImage) -> ImageView:
    last = await context.sequence_of(query)
    image = await context.read(query, partial(_read_image, query.image, last, context.names))
    keys, absent = await context.keys_of([query.image])
    if absent.erased:  # a restored log from before the erasure does not contain it
        raise erased(query.image)
    if absent.missing and last is None:
        raise keys_missing(absent.missing)
    return image_view(image, keys, absent)


def _read_image(image_id: str, last: int | None, known: Names, now: Connection) -> TaggedImage:
    if last is None:
        return read_image(now, image_id, known)
    row = known_image(now, image_id)
    if isinstance(row, ErasedRow):
        raise erased(image_id)
    if row.added_sequence > last:
        raise not_found_at(not_found("image", image_id), last)
    dataset_at(now, row.dataset_id, last)  # Gone if it was removed
    if not past.was_present(now, row, last):
        raise removed("image", image_id)
    (image,) = with_tags(now, past.rows_at(now, [row], last), known, last)
    return image
