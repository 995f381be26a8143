"""One request to the engine: it goes down, updates come up and are reported, until one of them is the end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import structlog

from contracts.cancellation import is_cancelled
from contracts.errors import Fenced
from contracts.wire.workers.worker import Attempt, Crash
from trainer.engine_process import EngineProcess
from trainer.engine_reporter import CannotTrain, CheckpointRejected, EngineReporter
from trainer.messages import Saved, Stop, Stopped, Train

CANCEL_KILL_SECONDS = 1.0
"""After a cancellation the engine stops between two steps; it is killed after this: two seconds are promised."""
SHUTDOWN_CHECKPOINT_SECONDS = 8.0
"""Time for the engine to write a checkpoint when the trainer itself is stopped."""

_log = structlog.get_logger()


@dataclass(frozen=True)
class EngineRun:
    """An attempt on an engine."""

    engine: EngineProcess
    reporter: EngineReporter

    @property
    def attempt(self) -> Attempt:
        return self.reporter.attempt

    @asynccontextmanager
    async def attended(self) -> AsyncIterator[None]:
        """Meanwhile progress is published, and the engine is stopped when the job is cancelled."""
        background = [
            asyncio.create_task(self._stop_when_cancelled(), name="stop"),
            asyncio.create_task(self.reporter.progress.run(), name="progress"),
        ]
        try:
            yield
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)

    async def train(self, request: Train) -> None:
        """Report the updates of a request until its end; an engine with an unfinished request is killed."""
        pending = True
        try:
            await self.engine.send(request)
            while not await self.reporter.handle(await self.engine.next_update()):
                if is_cancelled():
                    raise asyncio.CancelledError
            pending = False
        except (CheckpointRejected, CannotTrain):
            pending = False
            raise
        except asyncio.CancelledError:
            if not self.attempt.is_stalled:
                await self._save_on_shutdown()
            raise
        finally:
            if pending:
                await self.engine.kill()

    async def _stop_when_cancelled(self) -> None:
        await self.attempt.cancel_requested.wait()
        with suppress(Crash):
            await self.engine.send(Stop(save=False))
        await asyncio.sleep(CANCEL_KILL_SECONDS)
        _log.warning("engine_killed", reason="it did not stop in time")
        await self.engine.kill()

    async def _save_on_shutdown(self) -> None:
        """The trainer is stopped: write a checkpoint, so that steps since the last one are not trained again."""
        work = self.attempt.work
        if work.ended or work.attempt != self.attempt.number or self.attempt.cancel_requested.is_set():
            return
        try:
            async with asyncio.timeout(SHUTDOWN_CHECKPOINT_SECONDS):
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
