"""One request to the engine: it goes down, updates come up and are reported, until one of them is the end."""

import asyncio
from dataclasses import dataclass

import structlog

from contracts.cancellation import is_cancelled
from contracts.errors import Fenced
from contracts.wire.workers.worker import Attempt, Crash
from trainer.engine_process import EngineProcess
from trainer.engine_reporter import CannotTrain, CheckpointRejected, EngineReporter
from trainer.messages import Saved, Stop, Stopped, Train

_log = structlog.get_logger()


@dataclass(frozen=True)
class EngineRun:
    """An attempt on an engine."""

    engine: EngineProcess
    reporter: EngineReporter

    @property
    def attempt(self) -> Attempt:
        return self.reporter.attempt

    async def train(self, request: Train) -> None:
        """Report the updates of a request until its end. When it is cancelled, no engine works on it any more."""
        try:
            await self.engine.send(request)
            while not await self.reporter.handle(await self.engine.next_update()):
                if is_cancelled():
                    raise asyncio.CancelledError
        except asyncio.CancelledError:
            if self.attempt.is_current and self.reporter.has_unsaved_steps:
                await self._save_on_shutdown()
            raise
        finally:
            await self.engine.cancel_request()
            await self.reporter.store_last_losses()

    async def _save_on_shutdown(self) -> None:
        """The trainer is stopped: write a checkpoint, so that steps since the last one are not trained again."""
        try:
            async with asyncio.timeout(self.engine.timings.checkpoint):
                await self.engine.send(Stop(save=True))
                await self._report_until_stopped()
        except (TimeoutError, Crash, Fenced, CheckpointRejected, CannotTrain) as error:
            _log.warning("shutdown_checkpoint_failed", error=repr(error))

    async def _report_until_stopped(self) -> None:
        while True:
            update = await self.engine.next_update()
            match update:
                case Stopped(step=step, path=str(path)):
                    await self.reporter.handle(Saved(step=step, path=path))
                    return
                case Stopped():
                    return
                case _ if await self.reporter.handle(update):
                    return
