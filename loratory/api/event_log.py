"""The event log: events, histories, audits and replays."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypedDict, Unpack

import httpx
import msgspec

from contracts.audit import AuditHead, AuditReport, ReplayReport
from contracts.errors import Behind, Unavailable
from contracts.losses import BlobAudit, Loss
from contracts.queries.log import ForeignView, HistoryEntry
from contracts.retry import Outage
from loratory.api.base import LONG_POLL_SECONDS, Api, SyncApi, Timestamp, path, sync, sync_iterator
from loratory.http import RECONNECT, Items, decode, query_parameters
from loratory.responses import LoggedEvent

SSE = "text/event-stream"
AUDIT_TIMEOUT_SECONDS = 120.0


class EventFilters(TypedDict, total=False):
    """`aggregate_kind`: such as `job`; `type`: such as `job.succeeded` or `job.*`.

    `actor`: such as `user:local` or `svc:trainer/*`. `since` and `until`: when the log recorded the event.
    """

    aggregate_kind: str | None
    aggregate_id: str | None
    type: str | None
    actor: str | None
    since: Timestamp | None
    until: Timestamp | None


class EventLogApi(Api):
    async def events(
        self, *, after: str = "", follow: bool = False, **filters: Unpack[EventFilters]
    ) -> AsyncGenerator[LoggedEvent, None]:
        """Events after a cursor, oldest first; `follow`: then wait for new ones, across reconnections."""
        query = query_parameters({"from" if name == "since" else name: value for name, value in filters.items()})
        listed = self._http.items(path("events"), Items[LoggedEvent], cursor="after", start=after, **query)
        async with aclosing(self._follow(after, query) if follow else listed) as events:
            async for event in events:
                yield event

    def job_history(self, job: str) -> AsyncGenerator[HistoryEntry, None]:
        """Everything that happened to a job, oldest first."""
        return self._http.items(path("jobs", job, "history"), Items[HistoryEntry])

    def image_history(self, image: str) -> AsyncGenerator[HistoryEntry, None]:
        """Everything that affected an image: tags, caption, predictions, thresholds, removal."""
        return self._http.items(path("images", image, "history"), Items[HistoryEntry])

    def dataset_history(self, dataset: str, *, tag: str | None = None) -> AsyncGenerator[HistoryEntry, None]:
        """Everything that happened to a data set and its tagging runs; `tag`: only what affected this tag."""
        return self._http.items(path("datasets", dataset, "history"), Items[HistoryEntry], tag=tag)

    def audit_foreign(self) -> AsyncGenerator[ForeignView, None]:
        """Messages of the log that nobody known appended, oldest first; they changed nothing."""
        return self._http.items(path("audit", "foreign"), Items[ForeignView], cursor="after")

    async def audit_replay(self) -> ReplayReport:
        """Rebuild every read model from the log next to the live one, compare them, and return the report.

        Conflict: a replay is already running.
        """
        replay = path("audit", "replay")
        report = await self._http.post(f"{replay}?wait={LONG_POLL_SECONDS}", ReplayReport)
        while not report.ended:
            report = await self._http.get(replay, ReplayReport, wait=LONG_POLL_SECONDS)
        return report

    async def audit_head(self) -> AuditHead:
        """The signed head of the log; stored elsewhere, it proves later whether history was rewritten."""
        return await self._http.get(path("audit", "head"), AuditHead)

    async def audit_verify(self, head: AuditHead | None = None) -> AuditReport:
        """Verify the log against its archive, and against a stored head if given."""
        body = {"json": msgspec.to_builtins({"head": head}), "timeout": AUDIT_TIMEOUT_SECONDS}
        return await self._http.post(path("audit", "verify"), AuditReport, lambda: body)

    def losses(self) -> AsyncGenerator[Loss, None]:
        """Blobs, and keys of images, that should be stored and are missing."""
        return self._http.items(path("losses"), Items[Loss])

    async def audit_blobs(self) -> BlobAudit:
        """Read all stored blobs and compare their bytes with their digests. Conflict: that is being done already."""
        blobs = path("audit", "blobs")
        audit = await self._http.post(f"{blobs}?wait={LONG_POLL_SECONDS}", BlobAudit)
        while audit.state == "running":
            audit = await self._http.get(blobs, BlobAudit, wait=LONG_POLL_SECONDS)
        return audit

    async def _follow(self, after: str, query: dict[str, str]) -> AsyncGenerator[LoggedEvent, None]:
        """Each event exactly once across reconnections. Unavailable: no stream for as long as RECONNECT says."""
        outage = Outage(None, RECONNECT)
        while True:
            try:
                headers = {"Accept": SSE, **({"Last-Event-ID": after} if after else {})}
                async with self._http.stream("GET", path("events"), params=query, headers=headers) as response:
                    outage.ended()
                    async with aclosing(_parse_sse(response)) as messages:
                        async for cursor, event in messages:
                            outage.ended()
                            after = cursor
                            if event is not None:
                                yield event
                if "until" in query:
                    return
                raise Unavailable("the server closed the event stream")
            except (Unavailable, Behind) as error:
                await outage.wait(error)


class SyncEventLogApi(SyncApi):
    audit_head = sync(EventLogApi.audit_head)
    audit_verify = sync(EventLogApi.audit_verify)
    events = sync_iterator(EventLogApi.events)
    job_history = sync_iterator(EventLogApi.job_history)
    image_history = sync_iterator(EventLogApi.image_history)
    dataset_history = sync_iterator(EventLogApi.dataset_history)
    audit_replay = sync(EventLogApi.audit_replay)
    audit_foreign = sync_iterator(EventLogApi.audit_foreign)
    audit_blobs = sync(EventLogApi.audit_blobs)
    losses = sync_iterator(EventLogApi.losses)


async def _parse_sse(response: httpx.Response) -> AsyncGenerator[tuple[str, LoggedEvent | None], None]:
    """Server-sent events: the new cursor and the event; a message with only an id has none."""
    cursor, data = "", ""
    async for line in response.aiter_lines():
        field, _, value = line.partition(": ")
        if field == "id":
            cursor = value
        elif field == "data":
            data = value
        elif not line and cursor:
            yield cursor, decode(data, LoggedEvent, "the server sent an event") if data else None
            cursor, data = "", ""
