"""Runs training jobs: sends each to the engine process, from the newest checkpoint that can be read.

An attempt that is cancelled, fenced or stopped gets a CancelledError wherever it is. Whatever phase that is, the engine
then stops working on it within `EngineTimings.stop`, and its folders are deleted.
"""

import asyncio
import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
import structlog

from contracts.errors import Rejected
from contracts.ids import Digest
from contracts.wire.blobs.store import Blobs
from contracts.wire.service.bus import Bus
from contracts.wire.workers.worker import Attempt
from trainer.domain import JobState, fold
from trainer.engine_reporter import CheckpointRejected, EngineReporter
from trainer.engine_run import EngineRun
from trainer.erasure import purge_pictures
from trainer.messages import Train
from trainer.settings import Settings
from trainer.training_request import RequestBuilder
from trainer.warm_engine import WarmEngine

_log = structlog.get_logger()


@dataclass
class CurrentAttempt:
    """The attempt that runs, and the pictures that it trains on."""

    attempt: Attempt
    pictures: frozenset[Digest] = frozenset()
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Trainer:
    """Training on one device, one attempt at a time. Each attempt has a folder of its own in `work_dir`."""

    bus: Bus
    blobs: Blobs
    settings: Settings
    engine: WarmEngine
    work_dir: Path
    _current: CurrentAttempt | None = None

    async def run(self, attempt: Attempt) -> None:
        """Run an attempt to its end."""
        heartbeat = self.engine.heartbeat
        heartbeat.state, heartbeat.holds = "busy", attempt.aggregate_id
        current = self._current = CurrentAttempt(attempt)
        name = f"{attempt.aggregate_id}-{attempt.number}"
        requests = RequestBuilder(
            self.bus, self.blobs, self.settings, self.work_dir / name, draft_name=f"{self.work_dir.name}-{name}"
        )
        try:
            await asyncio.to_thread(requests.folder.mkdir, parents=True, exist_ok=True)
            await self._train(current, fold(attempt.history.events()), requests)
        finally:
            heartbeat.state, heartbeat.holds = "idle", None
            try:
                # Only its own folders, never a blob: another attempt may have written the same one.
                await asyncio.to_thread(_delete_folders, requests.folder, requests.draft_folder)
            finally:
                self._current = None
                current.ended.set()

    async def delete_erased(self, pictures: Collection[Digest]) -> None:
        """Delete what was derived from erased pictures. An attempt that trains on one ends first: it would go on."""
        current = self._current
        if current is not None and not current.pictures.isdisjoint(pictures):
            current.attempt.stop(Rejected("a picture of its version was erased; freeze a version without it"))
            await current.ended.wait()
        purge = partial(purge_pictures, pictures, cache=self.settings.cache, work=self.settings.work)
        await asyncio.to_thread(purge)

    async def _train(self, current: CurrentAttempt, job: JobState, requests: RequestBuilder) -> None:
        attempt = current.attempt
        attempt.touch(grace=self.engine.timings.start)
        engine = await self.engine.start()
        attempt.touch()
        reporter = EngineReporter.of(attempt, job, bus=self.bus, blobs=self.blobs, software=self.engine.software)
        async with reporter.progress.published():
            entries = await requests.read_manifest(job)
            current.pictures = frozenset(entry.picture for entry in entries)
            request = await requests.build(attempt, job, entries)
            await _resume(EngineRun(engine, reporter), request, requests, job)


async def _resume(run: EngineRun, request: Train, requests: RequestBuilder, job: JobState) -> None:
    """Continue from the newest checkpoint that is not missing or damaged, else train from the beginning."""
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


def _delete_folders(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
