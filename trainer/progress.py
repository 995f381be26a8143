"""Publishes the progress of an attempt: with each step, at most five times a second, and repeated every second."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from contracts.ids import JobId
from contracts.retry import repeat
from contracts.telemetry import TrainingProgress
from contracts.wire.service.bus import Bus
from contracts.wire.service.telemetry import publish
from contracts.wire.workers.worker import Attempt
from trainer.messages import Loading, Planned, Stepped

MIN_INTERVAL_SECONDS = 0.2
"""Minimum time between messages while steps complete."""
RATE_WINDOW_STEPS = 30


@dataclass
class ProgressPublisher:
    """Receives the engine's updates; `phase` is one of those of `TrainingProgress`."""

    bus: Bus
    attempt: Attempt
    phase: str = "loading"
    _message: str = ""
    _steps: int = 0
    _last: Stepped | None = None
    _step_times: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=RATE_WINDOW_STEPS))
    _published_at: float = 0.0

    @asynccontextmanager
    async def published(self) -> AsyncIterator[None]:
        """Meanwhile it is published every second, so that new subscribers soon have it."""
        publishing = asyncio.create_task(repeat(self._publish, every=1.0), name="progress")
        try:
            yield
        finally:
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)

    async def loading(self, loading: Loading) -> None:
        what, done, total = loading.what, loading.done, loading.total
        self.phase = "caching" if what in ("latents", "texts") else "loading"
        self._message = f"{what} {done}/{total}" if total > 1 else what
        await self._publish()

    def planned(self, planned: Planned) -> None:
        self._steps, self.phase, self._message = planned.steps, "training", ""

    async def stepped(self, stepped: Stepped) -> None:
        self._last, self.phase = stepped, "training"
        self._step_times.append((stepped.step, time.monotonic()))
        if time.monotonic() - self._published_at >= MIN_INTERVAL_SECONDS:
            await self._publish()

    async def _publish(self) -> None:
        self._published_at = time.monotonic()
        last, rate = self._last, self._steps_per_second()
        step = last.step if last else self.attempt.work.completed_units
        await publish(
            self.bus,
            TrainingProgress(
                job_id=JobId(self.attempt.aggregate_id),
                attempt=self.attempt.number,
                phase=self.phase,
                at=datetime.now(UTC),
                step=step,
                steps=self._steps,
                epoch=last.epoch if last else 0,
                loss=last.loss if last else None,
                learning_rate=last.lr if last else None,
                rate=rate,
                eta=(self._steps - step) / rate if rate else None,
                message=self._message,
            ),
        )

    def _steps_per_second(self) -> float | None:
        """Steps per second over the last `RATE_WINDOW_STEPS`."""
        if len(self._step_times) < 2:
            return None
        (first_step, started), (last_step, ended) = self._step_times[0], self._step_times[-1]
        return (last_step - first_step) / (ended - started) if ended > started else None
