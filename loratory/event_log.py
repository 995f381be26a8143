"""Client methods that read the event log: events, histories and replays."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx
import msgspec

from contracts.audit import ReplayReport
from contracts.errors import Behind, LoratoryError, Unavailable
from contracts.queries import HistoryEntry, HistoryPage
from loratory.http import Http
from loratory.responses import EventPage, LoggedEvent

API = "/api/v1"
PAGE_SIZE = 500
SSE = "text/event-stream"
RECONNECT_DELAY_SECONDS = 0.5
RECONNECT_TIMEOUT_SECONDS = 60.0
"""Maximum time without a stream before following fails."""
REPLAY_LONG_POLL_SECONDS = 20
Timestamp = datetime | str
"""A time, or an RFC 3339 string with an offset or Z."""


class EventLogApi:
    """The part of `AsyncClient` that reads the event log."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def events(  # noqa: PLR0913 - the filters of the event log
        self,
        *,
        after: str = "",
        aggregate_kind: str | None = None,
        aggregate_id: str | None = None,
        type: str | None = None,
        actor: str | None = None,
        since: Timestamp | None = None,
        until: Timestamp | None = None,
        follow: bool = False,
    ) -> AsyncGenerator[LoggedEvent, None]:
        """Events after a cursor, oldest first; `follow`: then wait for new ones, across reconnections.

        `aggregate_kind`: such as `job`; `type`: such as `job.succeeded` or `job.*`.
        `actor`: such as `user:local` or `svc:trainer/*`. `since` and `until`: when the log recorded the event.
        """
        filters = {
            "aggregate_kind": aggregate_kind,
            "aggregate_id": aggregate_id,
            "type": type,
            "actor": actor,
            "from": since,
            "until": until,
        }
        query = {name: _query_value(value) for name, value in filters.items() if value is not None}
        async with aclosing(self._follow(after, query) if follow else self._pages(after, query)) as events:
            async for event in events:
                yield event

    def job_history(self, job: str) -> AsyncGenerator[HistoryEntry, None]:
        """Everything that happened to a job, oldest first."""
        return self._history(f"{API}/jobs/{quote(job, safe='')}/history")

    def image_history(self, image: str) -> AsyncGenerator[HistoryEntry, None]:
        """Everything that affected an image: tags, caption, predictions, thresholds, removal."""
        return self._history(f"{API}/images/{quote(image, safe='')}/history")

    def dataset_history(self, dataset: str, *, tag: str | None = None) -> AsyncGenerator[HistoryEntry, None]:
        """Everything that happened to a data set and its tagging runs; `tag`: only what affected this tag."""
        return self._history(f"{API}/datasets/{quote(dataset, safe='')}/history", tag=tag)

    async def audit_replay(self) -> ReplayReport:
        """Rebuild every read model from the log next to the live one, compare them, and return the report.

        Conflict: a replay is already running.
        """
        report = await self._http.post(f"{API}/audit/replay?wait={REPLAY_LONG_POLL_SECONDS}", ReplayReport)
        while not report.ended:
            report = await self._http.get(f"{API}/audit/replay", ReplayReport, wait=REPLAY_LONG_POLL_SECONDS)
        return report

    async def _pages(self, after: str, query: dict[str, str]) -> AsyncGenerator[LoggedEvent, None]:
        """An empty page may still have a next one: the server bounds each search."""
        cursor: str | None = after
        while cursor is not None:
            page = await self._http.get(f"{API}/events", EventPage, after=cursor or None, limit=PAGE_SIZE, **query)
            for event in page.items:
                yield event
            cursor = page.next

    async def _follow(self, after: str, query: dict[str, str]) -> AsyncGenerator[LoggedEvent, None]:
        """Each event exactly once across reconnections. Unavailable: no stream for RECONNECT_TIMEOUT_SECONDS."""
        loop = asyncio.get_running_loop()
        last_contact = loop.time()
        while True:
            try:
                headers = {"Accept": SSE, **({"Last-Event-ID": after} if after else {})}
                async with self._http.stream("GET", f"{API}/events", params=query, headers=headers) as response:
                    last_contact = loop.time()
                    async with aclosing(_parse_sse(response)) as messages:
                        async for cursor, event in messages:
                            last_contact, after = loop.time(), cursor
                            if event is not None:
                                yield event
                if "until" in query:
                    return
            except (Unavailable, Behind):
                if loop.time() - last_contact > RECONNECT_TIMEOUT_SECONDS:
                    raise
            await asyncio.sleep(RECONNECT_DELAY_SECONDS)

    async def _history(self, path: str, **query: object) -> AsyncGenerator[HistoryEntry, None]:
        cursor: str | None = None
        while True:
            page = await self._http.get(path, HistoryPage, cursor=cursor, limit=PAGE_SIZE, **query)
            for entry in page.items:
                yield entry
            if page.next is None:
                return
            cursor = page.next


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
            yield cursor, _decode_event(data) if data else None
            cursor, data = "", ""


def _decode_event(data: str) -> LoggedEvent:
    try:
        return msgspec.json.decode(data, type=LoggedEvent)
    except msgspec.DecodeError as error:
        raise LoratoryError(f"the server sent an event that this client cannot read: {error}") from error


def _query_value(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
