"""What the child tells of one attempt, made into facts, progress and loss curves."""

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
from contracts.wire.tasks import wanted
from contracts.wire.telling import keep_losses, tell_progress
from contracts.wire.work import Attempt, Crash
from trainer import domain
from trainer.messages import (
    Failed,
    Finished,
    Loading,
    Planned,
    Sampled,
    Saved,
    Stepped,
    Stopped,
    TensorFile,
    Update,
)

TOLD_EVERY = 0.2
"""Seconds between two tellings of progress while steps go by; it is repeated every second in any case."""
KEPT_EVERY = 3.0
"""Seconds of a loss curve that who opens the page late does not see yet."""
RATE_STEPS = 30
MOST_UNKEPT = 1000
"""Blocks of the loss curve that wait for the bus at most; beyond, the oldest are lost."""

_log = structlog.get_logger()


class CannotTrain(LoratoryError):
    """The order cannot be carried out, and trying again would end the same."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code  # type: ignore[misc]  # the engine's code, one of several


class BadCheckpoint(Exception):
    """The checkpoint to resume from is torn or of another run; an older one may do."""


@dataclass
class Listener:
    """`hear` each update in turn; true when the attempt has come to its end and that was reported."""

    bus: Bus
    blobs: Blobs
    attempt: Attempt
    software: dict[str, str]
    stem: str
    """What the finished files are called, without their ending."""
    _phase: str = "loading"
    _message: str = ""
    _steps: int = 0
    _last: Stepped | None = None
    _times: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=RATE_STEPS))
    _told: float = 0.0
    _kept: float = field(default_factory=time.monotonic)
    _first: int = 0
    _losses: list[float] = field(default_factory=list)
    _rates: list[float] = field(default_factory=list)
    _unkept: deque[LossBlock] = field(default_factory=lambda: deque(maxlen=MOST_UNKEPT))

    async def hear(self, update: Update) -> bool:
        self.attempt.moved()
        match update:
            case Loading(what=what, done=done, total=total):
                self._phase = "caching" if what in ("latents", "texts") else "loading"
                self._message = f"{what} {done}/{total}" if total > 1 else what
                await self._tell()
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
            case Failed(code="bad-checkpoint", reason=reason):
                raise BadCheckpoint(reason)
            case Failed(code="internal", reason=reason):
                raise Crash(reason)
            case Failed(code="disk-full", reason=reason):
                raise OSError(errno.ENOSPC, reason)
            case Failed(code=code, reason=reason):
                raise CannotTrain(code, reason)
            case _:
                pass
        return False

    async def keep_telling(self) -> None:
        """Once a second, so that who joins late knows at once; ends when it is cancelled."""
        while wanted():
            await self._tell()
            await asyncio.sleep(1)

    async def flush(self) -> None:
        """Store the steps since the last block, and the blocks that the bus was not there for."""
        if self._losses:
            block = LossBlock(
                job_id=JobId(self.attempt.thing),
                attempt=self.attempt.number,
                first=self._first,
                losses=tuple(self._losses),
                rates=tuple(self._rates),
            )
            self._losses, self._rates = [], []
            self._unkept.append(block)
        self._kept = time.monotonic()
        try:
            while self._unkept:
                await keep_losses(self.bus, self._unkept[0])
                self._unkept.popleft()
        except Unavailable as error:
            _log.warning("losses_wait", blocks=len(self._unkept), error=error.detail)

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
        self._times.append((stepped.step, time.monotonic()))
        if not self._losses:
            self._first = stepped.step
        self._losses.append(stepped.loss)
        self._rates.append(stepped.lr)
        if len(self._losses) >= BLOCK_STEPS or time.monotonic() - self._kept >= KEPT_EVERY:
            await self.flush()
        if time.monotonic() - self._told >= TOLD_EVERY:
            await self._tell()

    async def _saved(self, step: int, path: Path) -> None:
        await self.flush()
        size = path.stat().st_size
        digest = await self.blobs.put(path)
        saved = JobCheckpointed(attempt=self.attempt.number, step=step, checkpoint=digest, size=size)
        await self.attempt.report(saved)
        _log.info("checkpoint_saved", step=step, bytes=size)

    async def _sampled(self, sampled: Sampled) -> None:
        self._phase = "sampling"
        if (sampled.step, sampled.index) in domain.sampled(self.attempt.facts):
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
        await self.flush()
        self._phase = "saving"
        artifacts = (
            await self._artifact("kohya", f"{self.stem}.safetensors", finished.kohya),
            await self._artifact("diffusers", f"{self.stem}-diffusers.safetensors", finished.diffusers),
        )
        await self.attempt.report(JobSucceeded(attempt=self.attempt.number, step=finished.step, artifacts=artifacts))
        await self.flush()  # the report waited until the bus was back

    async def _artifact(self, form: str, name: str, file: TensorFile) -> Artifact:
        path = Path(file.path)
        digest = await self.blobs.put(path)
        size = path.stat().st_size
        return Artifact(name=name, format=form, digest=digest, size=size, tensors=Digest(file.tensors))

    async def _stopped(self, stopped: Stopped) -> bool:
        await self.flush()
        if not self.attempt.stop_asked.is_set():
            raise Crash("the training process stopped although nobody asked it to")
        await self.attempt.report(cancelled("train", attempt=self.attempt.number, step=stopped.step))  # type: ignore[arg-type]
        return True

    async def _tell(self) -> None:
        self._told = time.monotonic()
        last, rate = self._last, self._rate()
        step = last.step if last else self.attempt.work.kept
        await tell_progress(
            self.bus,
            TrainingProgress(
                job_id=JobId(self.attempt.thing),
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

    def _rate(self) -> float | None:
        """Steps a second over the last ones."""
        if len(self._times) < 2:
            return None
        (first, began), (last, ended) = self._times[0], self._times[-1]
        return (last - first) / (ended - began) if ended > began else None
