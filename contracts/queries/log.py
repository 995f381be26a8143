"""Queries about the log itself: events, histories, audits."""

from datetime import datetime

import msgspec

from contracts.audit import AuditHead, AuditReport, ReplayReport
from contracts.ids import CommandId, Digest, ImageId, JobId
from contracts.queries.base import Limit, Page, Query, QueryPage, View


class RecordedEvent(View, frozen=True):
    """One event with the metadata of its commit.

    `description` is a sentence for people. `time` is when the command was sent, `recorded_at` when the log stored the
    commit.
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


class EventView(RecordedEvent, frozen=True):
    """One event with the metadata of its commit. `data` is as stored: in `schema`, with private text still sealed."""

    version: int
    schema: int
    data: msgspec.Raw


class ListEvents(Query[Page[EventView]], frozen=True):
    """Events after a sequence, oldest first. `total` is the sequence of the last archived commit.

    `type` and `actor` may end with `*` as a prefix match. `since` (inclusive) and `until` (exclusive) are times of
    recording.
    """

    after: int = 0
    aggregate_kind: str | None = None
    aggregate_id: str | None = None
    type: str | None = None
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: Limit = 500


class HistoryEntry(RecordedEvent, frozen=True):
    """One event in the history of an object: who did what, when and why.

    `change` is the event reduced to that object, in plain text; private text whose key is gone is null.
    """

    change: dict[str, object]


class HistoryPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of a history, oldest first. A request scans a bounded number of commits: a page may have few items or
    none, and still a `next`."""

    items: tuple[HistoryEntry, ...]
    next: str | None = None


class ListJobHistory(QueryPage[HistoryPage], frozen=True):
    job: JobId


class ListImageHistory(QueryPage[HistoryPage], frozen=True):
    """Everything that affected one image: import, tags, captions, predictions, thresholds, removal."""

    image: ImageId


class ListDatasetHistory(QueryPage[HistoryPage], frozen=True):
    """Of the data set and its tagging runs; `tag` = only what affected which images have this tag."""

    dataset: str
    tag: str | None = None


class ForeignView(View, frozen=True):
    """A message of the log that no known writer appended: it changed nothing. `size` in bytes; `reason` a sentence."""

    sequence: int
    aggregate_kind: str
    aggregate_id: str
    recorded_at: datetime
    size: int
    reason: str


class ListForeign(Query[Page[ForeignView]], frozen=True):
    """Foreign messages after a sequence (and up to `until`), oldest first, of one aggregate or of all."""

    after: int = 0
    until: int | None = None
    aggregate_kind: str | None = None
    aggregate_id: str | None = None
    limit: Limit = 500


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
