"""A catalog whose answers a test can choose: for timing and faults, and for what a real one needs minutes to reach."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Self

import msgspec

from contracts import queries
from contracts.commands import (
    Command,
    CreateDataset,
    DatasetCommand,
    ImportedFile,
    ImportImages,
    JobCommand,
    Origin,
    PresetCommand,
    Receipt,
    TaggingCommand,
    Wish,
)
from contracts.errors import NotFound, Unavailable
from contracts.events import AnyFact, DatasetRenamed, Stored
from contracts.ids import Digest, ImageId, new_command_id
from contracts.queries import DatasetView, EventView, ImageView, JobView, LogView, Page, Query
from contracts.recipe import Recipe
from contracts.telemetry import Applied
from contracts.wire.bus import Bus
from contracts.wire.log import EventLog, Head, draw_up, head_of
from contracts.wire.service import Service
from contracts.wire.telling import tell_applied

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ZERO = Digest("0" * 64)
Answer = Callable[[Any], Awaitable[msgspec.Struct]]


class StandInCatalog:
    """Answers from `answers` by type of query, and `wishes` by type of wish; announces the log's end as applied."""

    def __init__(self, bus: Bus, log_id: str) -> None:
        self._bus = bus
        self.log = EventLog(bus)
        self.log_id = log_id
        self.silent = False
        self.applied: int | None = None
        """What is announced; none = the log's end."""
        self.told: list[Command] = []
        self.asked: list[Query[Any]] = []
        self.answers: dict[type, Any] = {}
        self.wishes: dict[type[Wish], Any] = {}
        self.fault: Exception | None = None
        """What every question is answered with, while it is set."""
        self.faults = 0
        self._heads: dict[str, Head] = {}
        self._service = Service(bus, "catalog", "1.0.0")

    async def __aenter__(self) -> Self:
        self._announcing = asyncio.create_task(self._announce())
        commands = (DatasetCommand, TaggingCommand, PresetCommand, JobCommand)
        await self._service.start(
            commands=dict.fromkeys(commands, self._on_command),
            queries=dict.fromkeys(queries.QUERIES, self._on_query),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        self._announcing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._announcing
        await self._service.close()

    async def append(self, thing: str, *facts: AnyFact) -> Stored:
        """One commit, as the catalog would write it."""
        kind = str(msgspec.to_builtins(facts[0])["type"]).partition(".")[0]
        head = self._heads.get(thing, Head())
        origin = Origin(command=new_command_id(), actor="user:test", at=AT)
        stored = await self.log.append(draw_up(kind, thing, facts, after=head, origin=origin), head)
        self._heads[thing] = head_of(stored)
        return stored

    async def rename(self, name: str) -> Stored:
        return await self.append("d1", DatasetRenamed(name=name))

    async def _announce(self) -> None:
        while True:
            with contextlib.suppress(Unavailable):  # it announces again when NATS is back
                _, end = await self.log.end()
                sequence = end if self.applied is None else self.applied
                if not self.silent:
                    await tell_applied(self._bus, Applied(log_id=self.log_id, sequence=sequence, verified=True))
            await asyncio.sleep(0.05)

    async def _on_command(self, command: Command) -> msgspec.Struct:
        self.told.append(command)
        answer = self.wishes.get(type(command.wish))
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            return answer(command)
        if isinstance(command.wish, ImportImages):
            return imported(command)
        if isinstance(command.wish, CreateDataset):
            return Receipt(id="d1", sequence=7)
        return Receipt(id="x1", sequence=7)

    async def _on_query(self, query: Query[Any]) -> msgspec.Struct:
        self.asked.append(query)
        if self.fault is not None:
            self.faults += 1
            raise self.fault
        if isinstance(query, queries.ListEvents):
            return await self._events(query)
        answer = self.answers.get(type(query), NotFound("there is no such thing"))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _events(self, query: queries.ListEvents) -> Page[EventView]:
        _, end = await self.log.end()
        found: list[EventView] = []
        at = query.after
        while at < end and len(found) < query.limit:
            at += 1
            stored = await self.log.stored(at)
            assert stored is not None
            if query.kind in (None, stored.commit.kind) and query.thing in (None, stored.commit.thing):
                found += [one for one in events_of(stored) if fits(query, one)]
        return Page(items=tuple(found), total=end, next=str(at) if at < end else None)


def fits(query: queries.ListEvents, event: EventView) -> bool:
    return (
        query.type in (None, event.type)
        and query.actor in (None, event.actor)
        and (query.until is None or event.recorded < query.until)
    )


def events_of(stored: Stored) -> list[EventView]:
    commit = stored.commit
    return [
        EventView(
            sequence=stored.sequence,
            index=index,
            type=msgspec.to_builtins(fact)["type"],
            kind=commit.kind,
            thing=commit.thing,
            version=commit.version,
            time=commit.at,
            recorded=stored.recorded,
            actor=commit.actor,
            command=commit.command,
            correlation=commit.correlation,
            causation=commit.causation,
            data=msgspec.Raw(msgspec.json.encode(fact)),
        )
        for index, fact in enumerate(commit.facts)
    ]


def imported(command: Command) -> Receipt:
    files = tuple(
        ImportedFile(name=file.name, outcome="added", image=ImageId(f"img_{file.digest[:8]}"), ordinal=place)
        for place, file in enumerate(command.wish.files)
    )
    return Receipt(id="d1", sequence=9, files=files)


def log_view(log_id: str = "L") -> LogView:
    return LogView(log_id=log_id, applied=1, archived=1, head=ZERO, verified=True)


def dataset(**changes: Any) -> DatasetView:
    fields: dict[str, Any] = {
        "id": "d1",
        "name": "dog",
        "description": "",
        "images": 1,
        "tagged": 0,
        "captioned": 0,
        "refused": 0,
        "general_threshold": 0.35,
        "character_threshold": 0.85,
        "latest_version": None,
        "cover": None,
        "created_at": AT,
        "changed_at": AT,
        "etag": 5,
    }
    return DatasetView(**fields | changes)


def image(**changes: Any) -> ImageView:
    fields: dict[str, Any] = {
        "id": "img_1",
        "dataset_id": "d1",
        "dataset": "dog",
        "ordinal": 0,
        "name": "ein Hund.png",
        "format": "PNG",
        "width": 8,
        "height": 8,
        "size": 8,
        "animated": False,
        "picture": ZERO,
        "source": ZERO,
        "thumbnail": ZERO,
        "tags": (),
        "rejected": (),
        "suggestions": (),
        "rating": None,
        "caption": "a dog",
        "caption_source": "person",
        "created_at": AT,
        "etag": 6,
    }
    return ImageView(**fields | changes)


def job(**changes: Any) -> JobView:
    fields: dict[str, Any] = {
        "id": "job_1",
        "name": "",
        "description": "",
        "labels": (),
        "mode": "single",
        "status": "pending",
        "phase": "queued",
        "priority": "normal",
        "preset": None,
        "dataset_id": "d1",
        "dataset": "dog",
        "version": 1,
        "version_id": "v1",
        "images": 1,
        "trigger": "",
        "recipe": Recipe(),
        "step": 0,
        "steps": None,
        "device": None,
        "precision": None,
        "attempts": (),
        "artifacts": (),
        "checkpoints": 0,
        "samples": 0,
        "position": 1,
        "error_code": None,
        "error": None,
        "actor": "user:local",
        "created_at": AT,
        "started_at": None,
        "ended_at": None,
        "etag": 8,
    }
    return JobView(**fields | changes)
