"""Queries about tagging runs."""

from datetime import datetime

import msgspec

from contracts.ids import DatasetId, Digest, RunId, WorkerId
from contracts.queries.base import Limit, Page, Query, QueryPage, View
from contracts.subjects import Priority, Status


class TaggingView(View, frozen=True):
    """`done` and `total` in images. `position` in the queue (1 = next), none when it is not queued."""

    id: RunId
    dataset_id: DatasetId
    dataset: str
    model: str
    status: Status
    phase: str
    priority: Priority
    done: int
    total: int
    unreadable: int
    model_digest: Digest | None
    tags_digest: Digest | None
    preprocessing: str | None
    provider: str | None
    attempts: int
    worker: WorkerId | None
    error: str | None
    position: int | None
    actor: str
    created_at: datetime
    ended_at: datetime | None
    etag: int


class ListTagging(QueryPage[Page[TaggingView]], frozen=True):
    dataset: str | None = None


class GetTagging(Query[TaggingView], frozen=True):
    run: RunId


class TaggingImage(msgspec.Struct, frozen=True, kw_only=True):
    ordinal: int
    picture: Digest


class ReadTaggingWork(QueryPage[Page[TaggingImage]], frozen=True, kw_only=True):
    """The images of a run, in the order of their ordinals."""

    run: RunId
    limit: Limit = 500
