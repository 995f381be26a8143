"""Reports each update of the engine: as an event of the job, as progress, in the loss curve, or as an error."""

import asyncio
import errno
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from contracts.errors import LoratoryError
from contracts.ids import JobId
from contracts.wire.blobs.store import Blobs
from contracts.wire.service.bus import Bus
from contracts.wire.workers.worker import Attempt, Crash
from trainer.domain import JobState
from trainer.job_events import JobEvents
from trainer.loss_curve import LossCurve
from trainer.messages import Finished, Loading, Planned, RequestFailed, Sampled, Saved, Stepped, Stopped, Update
from trainer.progress import ProgressPublisher

LAST_LOSSES_SECONDS = 0.2


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

    attempt: Attempt
    events: JobEvents
    progress: ProgressPublisher
    losses: LossCurve
    software: dict[str, str]
    has_unsaved_steps: bool = False
    """Whether steps were trained that no recorded checkpoint contains."""

    @classmethod
    def of(
        cls, attempt: Attempt, job: JobState, *, bus: Bus, blobs: Blobs, software: dict[str, str]
    ) -> "EngineReporter":
        """Reports to this bus and these blobs."""
        losses = LossCurve(bus, JobId(attempt.aggregate_id), attempt.number)
        return cls(attempt, JobEvents(blobs, attempt, job), ProgressPublisher(bus, attempt), losses, software)

    async def handle(self, update: Update) -> bool:
        """Report an update; true if the attempt has ended and its end was reported."""
        self.attempt.touch()
        match update:
            case Loading():
                await self.progress.loading(update)
            case Planned():
                self.progress.planned(update)
                await self.events.planned(update, self.software)
            case Stepped(step=step):
                self.attempt.last_step, self.has_unsaved_steps = step, True
                await self.losses.add(update)
                await self.progress.stepped(update)
            case Saved(step=step, path=path):
                await self.losses.flush()
                await self.events.checkpointed(step, Path(path))
                self.has_unsaved_steps = False
            case Sampled():
                self.progress.phase = "sampling"
                await self.events.sampled(update)
            case Finished():
                await self._finished(update)
                return True
            case Stopped():
                raise Crash("the training process stopped without a request")
            case RequestFailed():
                raise _error_of(update)
            case _:
                pass
        return False

    async def _finished(self, finished: Finished) -> None:
        await self.losses.flush()
        self.progress.phase = "saving"
        await self.events.succeeded(finished)
        await self.losses.flush()  # the report returned, so the bus is available again

    async def store_last_losses(self) -> None:
        """Those of a cancelled job, if the bus is available. (Those of a fenced attempt are no longer of interest.)"""
        if self.attempt.work.state == "cancelling":
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_LOSSES_SECONDS):
                    await self.losses.flush()


def _error_of(failed: RequestFailed) -> Exception:
    """Crash: another attempt may succeed; CannotTrain: it would fail the same way."""
    match failed:
        case RequestFailed(code="bad-checkpoint", reason=reason):
            return CheckpointRejected(reason)
        case RequestFailed(code="internal", reason=reason):
            return Crash(reason)
        case RequestFailed(code="disk-full", reason=reason):
            return OSError(errno.ENOSPC, reason)
        case RequestFailed(code=code, reason=reason):
            return CannotTrain(code, reason)
