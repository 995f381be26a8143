"""Questions about the log itself: events, histories, the audit."""

from datetime import datetime

import msgspec

from contracts.audit import AuditHead, AuditReport, ReplayReport
from contracts.ids import CommandId, Digest, ImageId, JobId
from contracts.queries.asking import Limit, Page, Query, View
from contracts.subjects import Kind


class EventView(View, frozen=True):
    """One fact with its commit around it: what, where, when, who, why. `data` is the fact as stored, still sealed."""

    sequence: int
    index: int
    type: str
    kind: str
    thing: str
    version: int
    time: datetime
    recorded: datetime
    actor: str
    command: CommandId
    correlation: str
    causation: str
    data: msgspec.Raw


class ListEvents(Query[Page[EventView]], frozen=True):
    """Facts after a sequence, oldest first. `total` is the sequence of the log's head as archived.

    `type` and `actor` may end with `*`: what begins so. `since` (with it) and `until` (without it) are times at which
    the log recorded a commit.
    """

    after: int = 0
    kind: Kind | None = None
    thing: str | None = None
    type: str | None = None
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: Limit = 500


class Happening(View, frozen=True):
    """One fact in the story of something: who did it, what, when and why.

    `words` tell it to people. `change` is the fact cut down to what the story is about, in plain text; private text
    whose key is gone is null. `time` is when it was asked for, `recorded` when the log took it in.
    """

    sequence: int
    index: int
    type: str
    kind: str
    thing: str
    time: datetime
    recorded: datetime
    actor: str
    command: CommandId
    correlation: str
    causation: str
    words: str
    change: dict[str, object]


class History(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a story, oldest first. A search is bounded: it may have few items, even none, and yet a `next`."""

    items: tuple[Happening, ...]
    next: str | None = None


class ListJobHistory(Query[History], frozen=True):
    job: JobId
    cursor: str | None = None
    limit: Limit = 100


class ListImageHistory(Query[History], frozen=True):
    """All that decided what one image is: its coming, tags, captions, predictions, thresholds, its end."""

    image: ImageId
    cursor: str | None = None
    limit: Limit = 100


class ListDatasetHistory(Query[History], frozen=True):
    """Of the data set and its tagging runs; `tag` = only what decided where this tag holds."""

    dataset: str
    tag: str | None = None
    cursor: str | None = None
    limit: Limit = 100


class LogView(View, frozen=True):
    """The log as the catalog sees it: its id, how far the read model has come, what the archive ends with."""

    log_id: str
    applied: int
    archived: int
    head: Digest
    verified: bool


class GetLog(Query[LogView], frozen=True):
    pass


class GetAuditHead(Query[AuditHead], frozen=True):
    """Where the log ends, signed."""


class VerifyLog(Query[AuditReport], frozen=True):
    """Compute all hashes again and lay the log beside its archive; `head`: one that was exported before."""

    head: AuditHead | None = None


class StartReplay(Query[ReplayReport], frozen=True):
    """Make every read model anew beside the live one and compare. Conflict: that is being done already."""


class GetReplay(Query[ReplayReport], frozen=True):
    """The replay under way, or what came of the last one."""
