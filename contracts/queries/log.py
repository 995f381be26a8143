"""Queries about the log itself: events, histories, audits."""

from datetime import datetime

import msgspec

from contracts.audit import AuditHead, AuditReport, ReplayReport
from contracts.ids import CommandId, Digest, ImageId, JobId
from contracts.queries.base import Limit, Page, Query, View
from contracts.subjects import AggregateKind


class EventView(View, frozen=True):
    """One event with the metadata of its commit. `data` is the event as stored, with private text still sealed."""

    sequence: int
    index: int
    type: str
    aggregate_kind: str
    aggregate_id: str
    version: int
    time: datetime
    recorded_at: datetime
    actor: str
    command_id: CommandId
    correlation_id: str
    causation_id: str
    description: str
    data: msgspec.Raw


class ListEvents(Query[Page[EventView]], frozen=True):
    """Events after a sequence, oldest first. `total` is the sequence of the last archived commit.

    `type` and `actor` may end with `*` as a prefix match. `since` (inclusive) and `until` (exclusive) are times of
    recording.
    """

    after: int = 0
    aggregate_kind: AggregateKind | None = None
    aggregate_id: str | None = None
    type: str | None = None
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: Limit = 500


class HistoryEntry(View, frozen=True):
    """One event in the history of an object: who did what, when and why.

    `description` is a sentence for people. `change` is the event reduced to that object, in plain text; private text
    whose key is gone is null. `time` is when the command was sent, `recorded_at` when the log stored the commit.
    """

    sequence: int
    index: int
    type: str
    aggregate_kind: str
    aggregate_id: str
    time: datetime
    recorded_at: datetime
    actor: str
    command_id: CommandId
    correlation_id: str
    causation_id: str
    description: str
    change: dict[str, object]


class HistoryPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of a history, oldest first. A request scans a bounded number of commits: a page may have few items or
    none, and still a `next`."""

    items: tuple[HistoryEntry, ...]
    next: str | None = None


class ListJobHistory(Query[HistoryPage], frozen=True):
    job: JobId
    cursor: str | None = None
    limit: Limit = 100


class ListImageHistory(Query[HistoryPage], frozen=True):
    """Everything that affected one image: import, tags, captions, predictions, thresholds, removal."""

    image: ImageId
    cursor: str | None = None
    limit: Limit = 100


class ListDatasetHistory(Query[HistoryPage], frozen=True):
    """Of the data set and its tagging runs; `tag` = only what affected which images have this tag."""

    dataset: str
    tag: str | None = None
    cursor: str | None = None
    limit: Limit = 100


class LogView(View, frozen=True):
    """The log as the catalog sees it: its id, the sequence applied to the read model, the end of the archive."""

    log_id: str
    applied: int
    archived: int
    head: Digest
    verified: bool


class GetLog(Query[LogView], frozen=True):
    pass


class GetAuditHead(Query[AuditHead], frozen=True):
    """The signed end of the log."""


class VerifyLog(Query[AuditReport], frozen=True):
    """Recompute all hashes and compare the log with its archive; `head`: one that was exported earlier."""

    head: AuditHead | None = None


class StartReplay(Query[ReplayReport], frozen=True):
    """Rebuild every read model next to the live one and compare. Conflict: a replay is already running."""


class GetReplay(Query[ReplayReport], frozen=True):
    """The replay in progress, or the result of the last one."""
