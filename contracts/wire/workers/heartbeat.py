"""A worker publishes every second that it is alive and what it is doing."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import msgspec

from contracts.ids import WorkerId
from contracts.retry import repeat
from contracts.telemetry import Presence
from contracts.wire.service.bus import Bus
from contracts.wire.service.telemetry import publish

HEARTBEAT_SECONDS = 1.0
WorkerState = Literal["starting", "idle", "busy", "stopping"]


@dataclass
class HeartbeatPublisher:
    """The worker's current status, published every second; set a field and the next message has it."""

    service: Literal["trainer", "tagger"]
    worker: WorkerId
    models: Callable[[], tuple[str, ...]] = tuple
    state: WorkerState = "starting"
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

    async def run(self, bus: Bus) -> None:
        """Runs until cancelled; then publishes once more, with the state `stopping`."""
        try:
            await repeat(lambda: publish(bus, self.presence(datetime.now(UTC))), every=HEARTBEAT_SECONDS)
        finally:
            await publish(bus, msgspec.structs.replace(self.presence(datetime.now(UTC)), state="stopping"))
