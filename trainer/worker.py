"""Runs training jobs: sends each to the engine process, from the newest checkpoint that can be read."""

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from contracts.wire.blobs.store import Blobs
from contracts.wire.service.bus import Bus
from contracts.wire.workers.worker import Attempt, Crash
from trainer.domain import JobState, fold
from trainer.engine_reporter import CheckpointRejected, EngineReporter
from trainer.engine_run import EngineRun
from trainer.settings import Settings
from trainer.training_request import RequestBuilder
from trainer.warm_engine import WarmEngine

ENGINE_START_SECONDS = 300.0
"""Extra time before an attempt counts as stalled while a new engine imports torch."""

_log = structlog.get_logger()


@dataclass(frozen=True)
class Trainer:
    """Training on one device, one attempt at a time. Each attempt has a folder of its own in `work_dir`."""

    bus: Bus
    blobs: Blobs
    settings: Settings
    engine: WarmEngine
    work_dir: Path

    async def run(self, attempt: Attempt) -> None:
        """Run an attempt to its end."""
        heartbeat = self.engine.heartbeat
        heartbeat.state, heartbeat.holds = "busy", attempt.aggregate_id
        folder = self.work_dir / f"{attempt.aggregate_id}-{attempt.number}"
        try:
            await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
            await self._train(attempt, fold(attempt.history.events()), folder)
        finally:
            heartbeat.state, heartbeat.holds = "idle", None
            # Only its own folder, never a blob: another attempt may have written the same one.
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _train(self, attempt: Attempt, job: JobState, folder: Path) -> None:
        attempt.touch(grace=ENGINE_START_SECONDS)
        engine = await self.engine.start()
        attempt.touch()
        reporter = EngineReporter.of(attempt, job, bus=self.bus, blobs=self.blobs, software=self.engine.software)
        requests = RequestBuilder(self.bus, self.blobs, self.settings, folder)
        run = EngineRun(engine, reporter)
        async with run.attended():
            try:
                await _resume(run, requests, job)
            except Crash:
                if not attempt.cancel_requested.is_set():
                    raise
                await reporter.events.cancelled(attempt.work.completed_units)


async def _resume(run: EngineRun, requests: RequestBuilder, job: JobState) -> None:
    """Continue from the newest checkpoint that is not missing or damaged, else train from the beginning."""
    request = await requests.build(run.attempt, job)
    for checkpoint in job.checkpoints:
        path = await requests.local_file(checkpoint.checkpoint)
        if path is None:
            continue
        try:
            await run.train(msgspec.structs.replace(request, resume_from=str(path)))
        except CheckpointRejected as error:
            _log.warning("checkpoint_skipped", step=checkpoint.step, error=str(error))
        else:
            return
    await run.train(request)
