"""Typed clients of the services that own data. At present all commands and queries go to the catalog."""

from typing import Any, TypeVar

from contracts.audit import AuditReport
from contracts.commands.base import Command, CommandMetadata, R
from contracts.errors import Behind, Unavailable
from contracts.filters import Matching, uses_text
from contracts.ids import JobId, RunId
from contracts.queries.base import EncodedPage, Query, QueryAt
from contracts.queries.datasets import ListImages, ListTags, PreviewEdit, PreviewTexts
from contracts.queries.exports import ReadExport
from contracts.queries.log import VerifyLog
from contracts.retry import RetryPolicy, retry
from contracts.sorting import SortBy
from contracts.subjects import WorkClass
from contracts.telemetry import LossBlock
from contracts.wire.service.bus import Bus
from contracts.wire.service.requests import ServiceClient
from contracts.wire.service.telemetry import read_loss_curve, wake

T = TypeVar("T")

COMMAND_TIMEOUT_SECONDS = 75.0
"""More than the catalog takes at most, so that an error says for sure that this request changes nothing any more."""
IMPORT_RETRIES = RetryPolicy(first_delay=0.5, time_limit=30.0)
"""How long an import is retried while the catalog restarts; its files are staged here and expensive to resend."""
RECONNECT_SECONDS = 0.5
"""How long a request waits for the connection to NATS: it is away for a moment when keys are rotated."""
QUERY_TIMEOUT_SECONDS = 5.0
SLOW_QUERY_TIMEOUT_SECONDS = 60.0
IMPORT_TIMEOUT_SECONDS = 120.0
"""Timeout of one import command; large images decode slowly."""

VERIFY_TIMEOUT_SECONDS = 115.0
"""Timeout of a log verification; the bus allows no reply after two minutes."""


class CatalogClient:
    """Sends queries and commands to the catalog; refusals are raised as the errors of `contracts.errors`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._client = ServiceClient(bus)

    async def query(self, query: Query[T]) -> T:
        await self._check_connected()
        return await self._client.query(query, timeout=timeout_of(query))

    async def list_images(self, query: ListImages) -> EncodedPage:
        """As `query`; the images are passed on as the catalog encoded them."""
        await self._check_connected()
        return await self._client.query_encoded(query, timeout=timeout_of(query))

    async def verify(self, query: VerifyLog) -> AuditReport:
        """Verifying a long log takes minutes."""
        await self._check_connected()
        return await self._client.query(query, timeout=VERIFY_TIMEOUT_SECONDS)

    async def command(self, metadata: CommandMetadata, command: Command[R]) -> R:
        await self._check_connected()
        return await self._client.command(metadata, command, timeout=COMMAND_TIMEOUT_SECONDS)

    async def command_with_retry(self, metadata: CommandMetadata, command: Command[R]) -> R:
        """Resends the command while the catalog is unavailable or behind: its id makes that safe."""
        return await retry(
            lambda: self._client.command(metadata, command, timeout=IMPORT_TIMEOUT_SECONDS),
            IMPORT_RETRIES,
            on=(Unavailable, Behind),
            warn="command_retried",
        )

    async def wake_worker(self, work: WorkClass, work_id: JobId | RunId) -> None:
        """Make the worker that holds this job or tagging run read its new events now."""
        await wake(self._bus, work, work_id)

    async def read_loss_curve(self, job: JobId) -> list[LossBlock]:
        return await read_loss_curve(self._bus, job)

    async def _check_connected(self) -> None:
        """Fail soon while NATS is disconnected; the NATS client would buffer the request until it timed out."""
        if not await self._bus.wait_connected(RECONNECT_SECONDS):
            raise Unavailable("NATS is not connected; the gateway keeps trying", service="nats")


def timeout_of(query: Query[Any]) -> float:
    """Seconds. More where much is read first: histories for the past, all names and captions where these are needed."""
    match query:
        case QueryAt() | ListImages() if query.is_past:
            return SLOW_QUERY_TIMEOUT_SECONDS
        case ListImages(sort=SortBy(key="name")):
            return SLOW_QUERY_TIMEOUT_SECONDS
        case (
            ListImages(filter=filter_)
            | ListTags(filter=filter_)
            | ReadExport(filter=filter_)
            | PreviewEdit(selection=Matching(filter=filter_))
            | PreviewTexts(selection=Matching(filter=filter_))
        ) if filter_ is not None and uses_text(filter_):
            return SLOW_QUERY_TIMEOUT_SECONDS
        case _:
            return QUERY_TIMEOUT_SECONDS
