"""Turns the engine's updates about one attempt into events, progress messages and loss curves."""

import asyncio
import errno
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import structlog

from contracts.errors import LoratoryError, Unavailable
from contracts.events import Artifact, JobCheckpointed, JobPlanned, JobSampled, JobSucceeded
from contracts.ids import Digest, JobId
from contracts.jobs import cancelled
from contracts.telemetry import BLOCK_STEPS, LossBlock, TrainingProgress
from contracts.wire.blobs import Blobs
from contracts.wire.bus import Bus
from contracts.wire.cancellation import not_cancelled
from contracts.wire.telemetry_bus import publish_progress, store_loss_block
from contracts.wire.worker import Attempt, Crash
from trainer import domain
from trainer.messages import (
    Finished,
    Loading,
    Planned,
    RequestFailed,
    Sampled,
    Saved,
    Stepped,
    Stopped,
    TensorFile,
    Update,
)

PROGRESS_INTERVAL_SECONDS = 0.2
"""Minimum time between progress messages while steps complete; progress is also repeated every second."""
LOSS_FLUSH_SECONDS = 3.0
"""Maximum age of losses that are not stored yet: a page opened later does not see them."""
RATE_WINDOW_STEPS = 30
MAX_UNSENT_BLOCKS = 1000
"""Maximum loss blocks buffered while the bus is unavailable; beyond this the oldest are dropped."""

_log = structlog.get_logger()


class CannotTrain(LoratoryError):
    """The request failed, and a retry would fail the same way."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code  # type: ignore[misc]  # the engine's code, one of several


class CheckpointRejected(Exception):
    """The checkpoint to resume from is damaged or of another run; an older one may work."""


@dataclass
class EngineReporter:
    """Call `handle` with each update in turn."""

    bus: Bus
    blobs: Blobs
    attempt: Attempt
    software: dict[str, str]
    stem: str
    """Name of the finished files, without suffix."""
    _phase: str = "loading"
    _message: str = ""
    _steps: int = 0
    _last: Stepped | None = None
    _step_times: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=RATE_WINDOW_STEPS))
    _last_progress: float = 0.0
    _last_flush: float = field(default_factory=time.monotonic)
    _first_step: int = 0
    _losses: list[float] = field(default_factory=list)
    _learning_rates: list[float] = field(default_factory=list)
    _unsent: deque[LossBlock] = field(default_factory=lambda: deque(maxlen=MAX_UNSENT_BLOCKS))

    async def handle(self, update: Update) -> bool:
        """Report an update; true if the attempt has ended and its end was reported."""
        self.attempt.touch()
        match update:
            case Loading(what=what, done=done, total=total):
                self._phase = "caching" if what in ("latents", "texts") else "loading"
                self._message = f"{what} {done}/{total}" if total > 1 else what
                await self._publish_progress()
            case Planned():
                await self._planned(update)
            case Stepped():
                await self._stepped(update)
            case Saved(step=step, path=path):
                await self._saved(step, Path(path))
            case Sampled():
                await self._sampled(update)
            case Finished():
                await self._finished(update)
                return True
            case Stopped():
                return await self._stopped(update)
            case RequestFailed(code="bad-checkpoint", reason=reason):
                raise CheckpointRejected(reason)
            case RequestFailed(code="internal", reason=reason):
                raise Crash(reason)
            case RequestFailed(code="disk-full", reason=reason):
                raise OSError(errno.ENOSPC, reason)
            case RequestFailed(code=code, reason=reason):
                raise CannotTrain(code, reason)
            case _:
                pass
        return False

    async def publish_progress_periodically(self) -> None:
        """Every second, so that new subscribers soon have it; runs until cancelled."""
        while not_cancelled():
            await self._publish_progress()
            await asyncio.sleep(1)

    async def flush_losses(self) -> None:
        """Store the losses since the last block, and blocks buffered while the bus was unavailable."""
        if self._losses:
            block = LossBlock(
                job_id=JobId(self.attempt.aggregate_id),
                attempt=self.attempt.number,
                first=self._first_step,
                losses=tuple(self._losses),
                rates=tuple(self._learning_rates),
            )
            self._losses, self._learning_rates = [], []
            self._unsent.append(block)
        self._last_flush = time.monotonic()
        try:
            while self._unsent:
                await store_loss_block(self.bus, self._unsent[0])
                self._unsent.popleft()
        except Unavailable as error:
            _log.warning("loss_blocks_delayed", blocks=len(self._unsent), error=error.detail)

    async def _planned(self, planned: Planned) -> None:
        self._steps, self._phase, self._message = planned.steps, "training", ""
        await self.attempt.report(
            JobPlanned(
                attempt=self.attempt.number,
                steps=planned.steps,
                epochs=planned.epochs,
                device=planned.device,
                precision=planned.precision,
                base=Digest(planned.base),
                software=self.software,
            )
        )

    async def _stepped(self, stepped: Stepped) -> None:
        self._last, self._phase = stepped, "training"
        self._step_times.append((stepped.step, time.monotonic()))
        if not self._losses:
            self._first_step = stepped.step
        self._losses.append(stepped.loss)
        self._learning_rates.append(stepped.lr)
        if len(self._losses) >= BLOCK_STEPS or time.monotonic() - self._last_flush >= LOSS_FLUSH_SECONDS:
            await self.flush_losses()
        if time.monotonic() - self._last_progress >= PROGRESS_INTERVAL_SECONDS:
            await self._publish_progress()

    async def _saved(self, step: int, path: Path) -> None:
        await self.flush_losses()
        size = path.stat().st_size
        digest = await self.blobs.put(path)
        saved = JobCheckpointed(attempt=self.attempt.number, step=step, checkpoint=digest, size=size)
        await self.attempt.report(saved)
        _log.info("checkpoint_saved", step=step, bytes=size)

    async def _sampled(self, sampled: Sampled) -> None:
        self._phase = "sampling"
        if (sampled.step, sampled.index) in domain.recorded_samples(self.attempt.events):
            return
        picture = await self.blobs.put(Path(sampled.path))
        await self.attempt.report(
            JobSampled(
                attempt=self.attempt.number,
                step=sampled.step,
                index=sampled.index,
                picture=picture,
                seed=sampled.seed,
            )
        )

    async def _finished(self, finished: Finished) -> None:
        await self.flush_losses()
        self._phase = "saving"
        artifacts = (
            await self._artifact("kohya", f"{self.stem}.safetensors", finished.kohya),
            await self._artifact("diffusers", f"{self.stem}-diffusers.safetensors", finished.diffusers),
        )
        await self.attempt.report(JobSucceeded(attempt=self.attempt.number, step=finished.step, artifacts=artifacts))
        await self.flush_losses()  # the report returned, so the bus is available again

    async def _artifact(self, form: str, name: str, file: TensorFile) -> Artifact:
        path = Path(file.path)
        digest = await self.blobs.put(path)
        size = path.stat().st_size
        return Artifact(name=name, format=form, digest=digest, size=size, tensors=Digest(file.tensors))

    async def _stopped(self, stopped: Stopped) -> bool:
        await self.flush_losses()
        if not self.attempt.cancel_requested.is_set():
            raise Crash("the training process stopped without a request")
        await self.attempt.report(cancelled("train", attempt=self.attempt.number, step=stopped.step))  # type: ignore[arg-type]
        return True

    async def _publish_progress(self) -> None:
        self._last_progress = time.monotonic()
        last, rate = self._last, self._steps_per_second()
        step = last.step if last else self.attempt.work.completed_units
        await publish_progress(
            self.bus,
            TrainingProgress(
                job_id=JobId(self.attempt.aggregate_id),
                attempt=self.attempt.number,
                phase=self._phase,
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
