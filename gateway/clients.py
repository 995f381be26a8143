"""Typed clients of the services that own data. At present all commands and queries go to the catalog."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar, get_args

import msgspec
import structlog

from contracts.audit import AuditReport
from contracts.commands import (
    Command,
    CommandEnvelope,
    CommandMetadata,
    DatasetCommand,
    DatasetEnvelope,
    JobCommand,
    JobEnvelope,
    PresetCommand,
    PresetEnvelope,
    R,
    TaggingCommand,
    TaggingEnvelope,
    result_type_of,
)
from contracts.errors import Unavailable
from contracts.ids import JobId, RunId
from contracts.queries import EventView, ListEvents, Query, QueryAt, VerifyLog
from contracts.subjects import WorkClass
from contracts.telemetry import LossBlock
from contracts.wire.bus import Bus
from contracts.wire.service import ServiceClient
from contracts.wire.telemetry_bus import read_loss_curve, wake

T = TypeVar("T")

IMPORT_RETRY_SECONDS = 30.0
"""How long an import is retried while the catalog restarts; its files are staged here and expensive to resend."""
QUERY_TIMEOUT_SECONDS = 5.0
HISTORICAL_QUERY_TIMEOUT_SECONDS = 60.0
IMPORT_TIMEOUT_SECONDS = 120.0
"""Timeout of one import command; large images decode slowly."""

VERIFY_TIMEOUT_SECONDS = 115.0
"""Timeout of a log verification; the bus allows no reply after two minutes."""

_log = structlog.get_logger()


class CatalogClient:
    """Sends queries and commands to the catalog; refusals are raised as the errors of `contracts.errors`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._client = ServiceClient(bus, "catalog")

    async def query(self, query: Query[T]) -> T:
        """Historical queries have a longer timeout: their result is computed from the events."""
        self._check_connected()
        historical = isinstance(query, QueryAt) and (query.at_seq is not None or query.at_time is not None)
        timeout = HISTORICAL_QUERY_TIMEOUT_SECONDS if historical else QUERY_TIMEOUT_SECONDS
        return await self._client.query(query, timeout=timeout)

    async def verify(self, query: VerifyLog) -> AuditReport:
        """Verifying a long log takes minutes."""
        self._check_connected()
        return await self._client.query(query, timeout=VERIFY_TIMEOUT_SECONDS)

    async def command(self, metadata: CommandMetadata, command: Command[R]) -> R:
        self._check_connected()
        return _check_result_type(command, await self._client.command(_envelope(metadata, command)))

    async def command_with_retry(self, metadata: CommandMetadata, command: Command[R]) -> R:
        """Resends the command while the catalog is unavailable, which is safe as its id makes it idempotent."""
        deadline = asyncio.get_running_loop().time() + IMPORT_RETRY_SECONDS
        while True:
            try:
                envelope = _envelope(metadata, command)
                return _check_result_type(command, await self._client.command(envelope, timeout=IMPORT_TIMEOUT_SECONDS))
            except Unavailable as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                _log.warning("command_retried", command_id=metadata.command_id, error=error.detail)
            await asyncio.sleep(0.5)

    async def wake_worker(self, work: WorkClass, work_id: JobId | RunId) -> None:
        """Make the worker that holds this job or tagging run read its new events now."""
        await wake(self._bus, work, work_id)

    async def read_loss_curve(self, job: JobId) -> list[LossBlock]:
        return await read_loss_curve(self._bus, job)

    async def events(self, query: ListEvents) -> AsyncIterator[tuple[EventView, ...]]:
        """All pages of matching events (whole commits; a page may be empty), up to the current end of the log."""
        while True:
            page = await self.query(query)
            yield page.items
            if page.next is None:
                return
            query = msgspec.structs.replace(query, after=int(page.next))

    def _check_connected(self) -> None:
        """Fail at once while NATS is disconnected; the NATS client would buffer the request until it timed out."""
        if not self._bus.is_connected:
            raise Unavailable("NATS is not connected; the gateway keeps trying", service="nats")


def _check_result_type(command: Command[R], result: object) -> R:
    """The same result; TypeError if it is not of the command's result type."""
    if not isinstance(result, result_type_of(type(command))):
        raise TypeError(f"the catalog answered {type(command).__name__} with a {type(result).__name__}")
    return result


def _envelope(metadata: CommandMetadata, command: Command[R]) -> CommandEnvelope:
    if isinstance(command, get_args(DatasetCommand)):
        return DatasetEnvelope(metadata=metadata, command=command)
    if isinstance(command, get_args(TaggingCommand)):
        return TaggingEnvelope(metadata=metadata, command=command)
    if isinstance(command, get_args(PresetCommand)):
        return PresetEnvelope(metadata=metadata, command=command)
    if isinstance(command, get_args(JobCommand)):
        return JobEnvelope(metadata=metadata, command=command)
    raise TypeError(type(command).__name__)
