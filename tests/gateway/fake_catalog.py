"""A fake catalog with configurable results: for timing and faults, and states a real one needs minutes to reach."""

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Any, Self

import msgspec

from contracts import queries
from contracts.commands import (
    Command,
    CommandEnvelope,
    CommandMetadata,
    CreateDataset,
    DatasetEnvelope,
    DatasetResult,
    ImportedFile,
    ImportImages,
    ImportResult,
    JobEnvelope,
    PresetEnvelope,
    TaggingEnvelope,
    result_type_of,
)
from contracts.descriptions import describe
from contracts.errors import NotFound, Unavailable
from contracts.events import AnyEvent, DatasetRenamed, RecordedCommit
from contracts.ids import Digest, ImageId, new_command_id
from contracts.queries import DatasetView, EventView, ImageView, JobView, LogView, Page, Query
from contracts.recipe import Recipe
from contracts.telemetry import Applied
from contracts.wire.bus import Bus
from contracts.wire.log import EventLog, StreamRevision, build_commit, revision_of
from contracts.wire.service import Service
from contracts.wire.telemetry_bus import publish_applied

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ZERO = Digest("0" * 64)


class FakeCatalog:
    """Replies with `query_results` and `command_results` by type, and announces the log's end as applied."""

    def __init__(self, bus: Bus, log_id: str) -> None:
        self._bus = bus
        self.log = EventLog(bus)
        self.log_id = log_id
        self.is_silent = False
        self.applied: int | None = None
        """The announced sequence; None = the log's end."""
        self.received_commands: list[CommandEnvelope] = []
        self.received_queries: list[Query[Any]] = []
        self.query_results: dict[type, Any] = {}
        self.command_results: dict[type[Command], Any] = {}
        """A result is an exception to raise, or a function of the command."""
        self.fault: Exception | None = None
        """The error with which every query fails, while it is set."""
        self.fault_count = 0
        self._revisions: dict[str, StreamRevision] = {}
        self._service = Service(bus, "catalog", "1.0.0")

    async def __aenter__(self) -> Self:
        self._announcing = asyncio.create_task(self._announce())
        commands = (DatasetEnvelope, TaggingEnvelope, PresetEnvelope, JobEnvelope)
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

    async def append(self, aggregate_id: str, *events: AnyEvent) -> RecordedCommit:
        """One commit, as the catalog would write it."""
        kind = str(msgspec.to_builtins(events[0])["type"]).partition(".")[0]
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
                    await publish_applied(self._bus, Applied(log_id=self.log_id, sequence=sequence, verified=True))
            await asyncio.sleep(0.05)

    async def _on_command(self, envelope: CommandEnvelope) -> msgspec.Struct:
        self.received_commands.append(envelope)
        result = self.command_results.get(type(envelope.command))
        if isinstance(result, Exception):
            raise result
        if result is not None:
            return result(envelope)
        if isinstance(envelope.command, ImportImages):
            return import_all(envelope)
        if isinstance(envelope.command, CreateDataset):
            return DatasetResult(id="d1", name=envelope.command.name, sequence=7)
        return default_result(envelope.command)

    async def _on_query(self, query: Query[Any]) -> msgspec.Struct:
        self.received_queries.append(query)
        if self.fault is not None:
            self.fault_count += 1
            raise self.fault
        if isinstance(query, queries.ListEvents):
            return await self._list_events(query)
        result = self.query_results.get(type(query), NotFound("not found"))
        if isinstance(result, Exception):
            raise result
        return result

    async def _list_events(self, query: queries.ListEvents) -> Page[EventView]:
        _, end = await self.log.end()
        found: list[EventView] = []
        sequence = query.after
        while sequence < end and len(found) < query.limit:
            sequence += 1
            recorded = await self.log.commit_at(sequence)
            assert recorded is not None
            found += [event for event in event_views(recorded) if matches(query, event)]
        return Page(items=tuple(found), total=end, next=str(sequence) if sequence < end else None)


def matches(query: queries.ListEvents, event: EventView) -> bool:
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
            type=msgspec.to_builtins(event)["type"],
            aggregate_kind=commit.aggregate_kind,
            aggregate_id=commit.aggregate_id,
            version=commit.version,
            time=commit.at,
            recorded_at=recorded.recorded_at,
            actor=commit.actor,
            command_id=commit.command_id,
            correlation_id=commit.correlation_id,
            causation_id=commit.causation_id,
            description=describe(event),
            data=msgspec.Raw(msgspec.json.encode(event)),
        )
        for index, event in enumerate(commit.events)
    ]


def default_result(command: Command[Any]) -> Any:
    """Some result of the command's own type."""
    kind = result_type_of(type(command))
    fields = {"id": "x1", "sequence": 7, "name": "cats", "status": "pending", "version": 1}
    return kind(**{name: fields[name] for name in kind.__struct_fields__ if name in fields})


def import_all(envelope: CommandEnvelope) -> ImportResult:
    assert isinstance(envelope.command, ImportImages)
    files = tuple(
        ImportedFile(name=file.name, outcome="added", image=ImageId(f"img_{file.digest[:8]}"), ordinal=ordinal)
        for ordinal, file in enumerate(envelope.command.files)
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
