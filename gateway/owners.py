"""Typed doors to the services that own things. Today all wishes and questions go to the catalog."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar, get_args

import msgspec
import structlog

from contracts.audit import AuditReport
from contracts.commands import (
    Command,
    DatasetCommand,
    DatasetWish,
    JobCommand,
    JobWish,
    Origin,
    PresetCommand,
    PresetWish,
    Receipt,
    TaggingCommand,
    TaggingWish,
    Wish,
)
from contracts.errors import Unavailable
from contracts.ids import JobId, RunId
from contracts.queries import EventView, ListEvents, Query, QueryAt, VerifyLog
from contracts.subjects import WorkClass
from contracts.telemetry import LossBlock
from contracts.wire.bus import Bus
from contracts.wire.service import Door
from contracts.wire.telling import nudge, read_losses

T = TypeVar("T")

PATIENCE_SECONDS = 30.0
"""So long an import waits for a catalog that is being restarted; its files are staged here and cost much to resend."""
NOW_SECONDS, PAST_SECONDS = 5.0, 60.0
IMPORT_SECONDS = 120.0
"""So long the catalog may take for one command of an import; large pictures decode slowly."""

VERIFY_SECONDS = 115.0
"""So long the log may be verified while somebody waits; the bus lets nobody answer later than two minutes."""

_log = structlog.get_logger()


class Catalog:
    """Asks and tells the catalog; what it refuses comes back as the errors of `contracts.errors`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._door = Door(bus, "catalog")

    async def ask(self, query: Query[T]) -> T:
        """What is asked about the past takes longer: it is worked out from the events."""
        self._check_line()
        past = isinstance(query, QueryAt) and (query.at_seq is not None or query.at_time is not None)
        return await self._door.ask(query, within=PAST_SECONDS if past else NOW_SECONDS)

    async def verify(self, query: VerifyLog) -> AuditReport:
        """Of a long log it takes minutes."""
        self._check_line()
        return await self._door.ask(query, within=VERIFY_SECONDS)

    async def tell(self, origin: Origin, wish: Wish) -> Receipt:
        self._check_line()
        return await self._door.tell(_command(origin, wish))

    async def tell_patiently(self, origin: Origin, wish: Wish) -> Receipt:
        """The same, told again while the catalog is away: the command's id makes that harmless."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while True:
            try:
                return await self._door.tell(_command(origin, wish), within=IMPORT_SECONDS)
            except Unavailable as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                _log.warning("told_again", command=origin.command, error=error.detail)
            await asyncio.sleep(0.5)

    async def nudge(self, work: WorkClass, thing: JobId | RunId) -> None:
        """Tell whoever holds this work to look at the log now."""
        await nudge(self._bus, work, thing)

    async def losses(self, job: JobId) -> list[LossBlock]:
        return await read_losses(self._bus, job)

    async def events(self, asked: ListEvents) -> AsyncIterator[tuple[EventView, ...]]:
        """All pages of facts after a place (whole commits; some may be empty), up to where the catalog is now."""
        while True:
            page = await self.ask(asked)
            yield page.items
            if page.next is None:
                return
            asked = msgspec.structs.replace(asked, after=int(page.next))

    def _check_line(self) -> None:
        """Without a line to NATS a request would only wait in the client's buffer until it is too late."""
        if not self._bus.is_connected:
            raise Unavailable("NATS is not connected; the gateway keeps trying", service="nats")


def _command(origin: Origin, wish: Wish) -> Command:
    if isinstance(wish, get_args(DatasetWish)):
        return DatasetCommand(origin=origin, wish=wish)
    if isinstance(wish, get_args(TaggingWish)):
        return TaggingCommand(origin=origin, wish=wish)
    if isinstance(wish, get_args(PresetWish)):
        return PresetCommand(origin=origin, wish=wish)
    if isinstance(wish, get_args(JobWish)):
        return JobCommand(origin=origin, wish=wish)
    raise TypeError(type(wish).__name__)
