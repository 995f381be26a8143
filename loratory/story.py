"""The part of the client that reads the log: events as they come, stories, and replays."""

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
from contracts.queries import Happening, History
from loratory.answers import Event, EventPage
from loratory.http import Http

P = "/api/v1"
PAGE = 500
SSE = "text/event-stream"
PAUSE = 0.5
PATIENCE = 60.0
"""Seconds without a stream after which following is given up."""
REPLAY_WAIT = 20
"""Seconds one request waits for the end of a replay."""
Time = datetime | str
"""A time, or one as RFC 3339 writes it, with its offset or Z."""


class Story:
    """What `AsyncClient` can do with the log."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def events(  # noqa: PLR0913 - what a log can be narrowed by
        self,
        *,
        after: str = "",
        kind: str | None = None,
        thing: str | None = None,
        type: str | None = None,
        actor: str | None = None,
        since: Time | None = None,
        until: Time | None = None,
        follow: bool = False,
    ) -> AsyncGenerator[Event, None]:
        """All facts after a cursor, oldest first; `follow` = and all to come, over lost connections.

        `type` such as `job.succeeded` or `job.*`, `actor` such as `user:local` or `svc:trainer/*`; `since` and `until`
        are times at which the log recorded a fact.
        """
        asked = {"kind": kind, "thing": thing, "type": type, "actor": actor, "from": since, "until": until}
        query = {name: _text(value) for name, value in asked.items() if value is not None}
        async with aclosing(self._followed(after, query) if follow else self._pages(after, query)) as found:
            async for event in found:
                yield event

    def job_history(self, job: str) -> AsyncGenerator[Happening, None]:
        """What happened to a job, oldest first: who, what, when and why."""
        return self._history(f"{P}/jobs/{quote(job, safe='')}/history")

    def image_history(self, image: str) -> AsyncGenerator[Happening, None]:
        """All that decided what an image is: tags, captions, predictions, thresholds, its end."""
        return self._history(f"{P}/images/{quote(image, safe='')}/history")

    def dataset_history(self, dataset: str, *, tag: str | None = None) -> AsyncGenerator[Happening, None]:
        """Of a data set and its tagging runs; `tag` = only what decided where this tag holds."""
        return self._history(f"{P}/datasets/{quote(dataset, safe='')}/history", tag=tag)

    async def audit_replay(self) -> ReplayReport:
        """Every read model made anew beside the live one and compared; the report when it is over.

        Conflict: one is under way. Any other client may ask for its report as well.
        """
        report = await self._http.post(f"{P}/audit/replay?wait={REPLAY_WAIT}", ReplayReport)
        while not report.ended:
            report = await self._http.get(f"{P}/audit/replay", ReplayReport, wait=REPLAY_WAIT)
        return report

    async def _pages(self, after: str, query: dict[str, str]) -> AsyncGenerator[Event, None]:
        """A page may have nothing of what is asked for, and yet another one behind it."""
        cursor: str | None = after
        while cursor is not None:
            page = await self._http.get(f"{P}/events", EventPage, after=cursor or None, limit=PAGE, **query)
            for event in page.items:
                yield event
            cursor = page.next

    async def _followed(self, after: str, query: dict[str, str]) -> AsyncGenerator[Event, None]:
        """Each fact once, over as many connections as it takes. Unavailable: none for PATIENCE seconds."""
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            try:
                headers = {"Accept": SSE, **({"Last-Event-ID": after} if after else {})}
                async with self._http.stream("GET", f"{P}/events", params=query, headers=headers) as answer:
                    last = loop.time()
                    async with aclosing(_told(answer)) as told:
                        async for cursor, event in told:
                            last, after = loop.time(), cursor
                            if event is not None:
                                yield event
                if "until" in query:
                    return
            except (Unavailable, Behind):
                if loop.time() - last > PATIENCE:
                    raise
            await asyncio.sleep(PAUSE)

    async def _history(self, path: str, **query: object) -> AsyncGenerator[Happening, None]:
        cursor: str | None = None
        while True:
            page = await self._http.get(path, History, cursor=cursor, limit=PAGE, **query)
            for one in page.items:
                yield one
            if page.next is None:
                return
            cursor = page.next


async def _told(answer: httpx.Response) -> AsyncGenerator[tuple[str, Event | None], None]:
    """The server-sent events of an answer: the cursor after each, and the fact; an id alone has none."""
    cursor, data = "", ""
    async for line in answer.aiter_lines():
        field, _, value = line.partition(": ")
        if field == "id":
            cursor = value
        elif field == "data":
            data = value
        elif not line and cursor:
            yield cursor, _event(data) if data else None
            cursor, data = "", ""


def _event(data: str) -> Event:
    try:
        return msgspec.json.decode(data, type=Event)
    except msgspec.DecodeError as error:
        raise LoratoryError(f"the server tells of an event this client does not know: {error}") from error


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
