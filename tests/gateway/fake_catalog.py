"""A fake catalog with configurable results: for timing and faults, and states a real one needs minutes to reach."""

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Any, Self

import msgspec

from contracts.aggregates import REGISTRY, AnyEvent, CommandEnvelope
from contracts.commands.base import Command, CommandMetadata, CommandResult, result_type_of
from contracts.commands.datasets import CreateDataset, DatasetResult, ImportedFile, ImportImages, ImportResult
from contracts.commits import RecordedCommit, StreamRevision, build_commit, revision_of
from contracts.errors import NotFound, Unavailable
from contracts.events.datasets import DatasetRenamed
from contracts.ids import Digest, ImageId, new_command_id
from contracts.queries.base import Page, Query
from contracts.queries.datasets import DatasetView, ImageView
from contracts.queries.jobs import JobView
from contracts.queries.log import EventView, ListEvents, LogView
from contracts.queries.owners import QUERIES
from contracts.recipe import Recipe
from contracts.telemetry import Applied, PendingAggregate
from contracts.wire.log.event_log import EventLog
from contracts.wire.service import request_ids
from contracts.wire.service.bus import Bus
from contracts.wire.service.requests import Service
from contracts.wire.service.telemetry import publish

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ZERO = Digest("0" * 64)


class FakeCatalog:
    """Replies with `query_results` and `command_results` by type, and announces the log's end as applied."""

    def __init__(self, bus: Bus, log_id: str) -> None:
        self.bus = bus
        self.log = EventLog(bus)
        self.log_id = log_id
        self.reset()
        self._revisions: dict[str, StreamRevision] = {}
        self._service = Service(bus, "catalog", "1.0.0")

    def reset(self) -> None:
        """As after the start; only the log stays."""
        self.is_silent = False
        self.damage = ""
        """What it says is wrong with the log."""
        self.applied: int | None = None
        """The announced sequence; None = the log's end."""
        self.pending: tuple[PendingAggregate, ...] = ()
        """What it says it still works in."""
        self.received_commands: list[CommandEnvelope[Any]] = []
        self.received_queries: list[Any] = []
        self.request_ids: list[str] = []
        """Of all commands and queries, in the order in which they came."""
        self.query_results: dict[type, Any] = {}
        self.command_results: dict[type[Command[Any]], Any] = {}
        """A result is an exception to raise, or a function of the command."""
        self.fault: Exception | None = None
        """The error with which every query fails, while it is set."""
        self.fault_count = 0

    async def __aenter__(self) -> Self:
        self._announcing = asyncio.create_task(self._announce())
        await self._service.start(
            commands=dict.fromkeys(REGISTRY.commands_of("catalog"), self._on_command),
            queries=dict.fromkeys(QUERIES["catalog"], self._on_query),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        self._announcing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._announcing
        await self._service.close()

    async def append(self, aggregate_id: str, *events: AnyEvent) -> RecordedCommit:
        """One commit, as the catalog would write it."""
        kind = events[0].type_name.partition(".")[0]
        revision = self._revisions.get(aggregate_id, StreamRevision())
        metadata = CommandMetadata(command_id=new_command_id(), actor="user:test", at=AT)
        commit = build_commit(kind, aggregate_id, events, expected_revision=revision, metadata=metadata)
        recorded = await self.log.append(commit, revision)
        self._revisions[aggregate_id] = revision_of(recorded)
        return recorded

    async def rename(self, name: str) -> RecordedCommit:
        return await self.append("d1", DatasetRenamed(name=name))

    async def _announce(self) -> None:
        while True:
            with contextlib.suppress(Unavailable):  # announced again when NATS is back
                _, end = await self.log.end()
                sequence = end if self.applied is None else self.applied
                if not self.is_silent:
                    await publish(self.bus, self._applied(sequence))
            await asyncio.sleep(0.05)

    async def announce_last(self) -> PendingAggregate:
        """Announce nothing after this; it names something pending by which those who received it know it."""
        self.is_silent = True
        last = PendingAggregate(aggregate_kind="preset", aggregate_id=new_command_id(), sequence=1)
        applied = Applied(log_id=self.log_id, sequence=(await self.log.end())[1], verified=True, pending=(last,))
        await publish(self.bus, applied)
        return last

    def _applied(self, sequence: int) -> Applied:
        if self.damage:
            return Applied(log_id="", sequence=0, verified=False, damage=self.damage)
        return Applied(log_id=self.log_id, sequence=sequence, verified=True, pending=self.pending)

    async def _on_command(self, metadata: CommandMetadata, command: Command[Any]) -> CommandResult:
        envelope = CommandEnvelope(metadata=metadata, command=command)
        self.received_commands.append(envelope)
        self.request_ids.append(request_ids.current())
        match self.command_results.get(type(command)):
            case Exception() as error:
                raise error
            case None:
                return default_result(command)
            case result:
                return result(envelope)  # type: ignore[no-any-return]  # a test's function of the command

    async def _on_query(self, query: Query[Any]) -> msgspec.Struct:
        self.received_queries.append(query)
        self.request_ids.append(request_ids.current())
        if self.fault is not None:
            self.fault_count += 1
            raise self.fault
        if isinstance(query, ListEvents):
            return await self._list_events(query)
        result = self.query_results.get(type(query), NotFound("not found"))
        if isinstance(result, Exception):
            raise result
        return result(query) if callable(result) else result  # type: ignore[no-any-return]  # of the query's type

    async def _list_events(self, query: ListEvents) -> Page[EventView]:
        _, end = await self.log.end()
        found: list[EventView] = []
        sequence = query.after
        while sequence < end and len(found) < query.limit:
            sequence += 1
            recorded = await self.log.commit_at(sequence)
            assert recorded is not None
            found += [event for event in event_views(recorded) if matches(query, event)]
        return Page(items=tuple(found), total=end, next=str(sequence) if sequence < end else None)


def matches(query: ListEvents, event: EventView) -> bool:
    return (
        query.aggregate_kind in (None, event.aggregate_kind)
        and query.aggregate_id in (None, event.aggregate_id)
        and query.type in (None, event.type)
        and query.actor in (None, event.actor)
        and (query.until is None or event.recorded_at < query.until)
    )


def event_views(recorded: RecordedCommit) -> list[EventView]:
    commit = recorded.commit
    return [
        EventView(
            sequence=recorded.sequence,
            index=index,
            type=event.type_name,
            aggregate_kind=commit.aggregate_kind,
            aggregate_id=commit.aggregate_id,
            version=commit.version,
            time=commit.at,
            recorded_at=recorded.recorded_at,
            actor=commit.actor,
            command_id=commit.command_id,
            correlation_id=commit.correlation_id,
            causation_id=commit.causation_id,
            description=event.describe(),
            schema=commit.schema,
            data=msgspec.Raw(msgspec.json.encode(event)),
        )
        for index, event in enumerate(commit.events)
    ]


def default_result(command: Command[Any]) -> CommandResult:
    """Some result of the command's own type."""
    match command:
        case ImportImages():
            return import_all(command)
        case CreateDataset(name=name):
            return DatasetResult(id="d1", name=name, sequence=7)
        case _:
            kind: type[CommandResult] = result_type_of(type(command))
            fields: dict[str, Any] = {"id": "x1", "sequence": 7, "name": "cats", "status": "pending", "version": 1}
            return kind(**{name: fields[name] for name in kind.__struct_fields__ if name in fields})


def import_all(command: ImportImages) -> ImportResult:
    files = tuple(
        ImportedFile(name=file.name, outcome="added", image=ImageId(f"img_{file.digest[:8]}"), ordinal=ordinal)
        for ordinal, file in enumerate(command.files)
    )
    return ImportResult(id="d1", name="cats", sequence=9, files=files)


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
        "thresholds": {"general": 0.35, "character": 0.85},
        "tag_thresholds": {},
        "denied_tags": [],
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
        "cut": None,
        "tags": (),
        "rejected": (),
        "suggestions": (),
        "rating": None,
        "caption": "a dog",
        "training_text": changes.get("caption", "a dog"),
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
        "captions_lost": 0,
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
