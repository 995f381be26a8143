"""A worker says every second that it lives, and what it is at."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import msgspec

from contracts.ids import WorkerId
from contracts.telemetry import Presence
from contracts.wire.bus import Bus
from contracts.wire.tasks import wanted
from contracts.wire.telling import tell_presence

EVERY_SECONDS = 1.0
State = Literal["starting", "idle", "busy", "stopping"]


@dataclass
class Sign:
    """The sign that hangs at a worker's door; whoever changes it is heard within a second."""

    service: Literal["trainer", "tagger"]
    worker: WorkerId
    models: Callable[[], tuple[str, ...]] = tuple
    state: State = "starting"
    holds: str | None = None
    device: str = ""
    message: str = ""

    def presence(self, at: datetime) -> Presence:
        return Presence(
            service=self.service,
            worker=self.worker,
            state=self.state,
            at=at,
            holds=self.holds,
            device=self.device,
            message=self.message,
            models=self.models(),
        )

    async def show(self, bus: Bus) -> None:
        """Ends only when it is cancelled; then it says once more that this worker goes."""
        try:
            while wanted():
                await tell_presence(bus, self.presence(datetime.now(UTC)))
                await asyncio.sleep(EVERY_SECONDS)
        finally:
            await tell_presence(bus, msgspec.structs.replace(self.presence(datetime.now(UTC)), state="stopping"))
