"""Runs training jobs: sends them to the engine process and reports the results."""

import asyncio
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from contracts.errors import Fenced, NotFound, Rejected
from contracts.events import JobCreated
from contracts.ids import Digest
from contracts.jobs import cancelled
from contracts.queries import ManifestEntry, ReadManifest
from contracts.wire.blobs import Blobs, Damaged
from contracts.wire.bus import Bus
from contracts.wire.cancellation import is_cancelled
from contracts.wire.heartbeat import HeartbeatPublisher
from contracts.wire.log import AggregateHistory
from contracts.wire.service import ServiceClient
from contracts.wire.worker import Attempt, Crash
from trainer import domain
from trainer.bases import base_folder
from trainer.engine_process import EngineProcess
from trainer.engine_reporter import CannotTrain, CheckpointRejected, EngineReporter
from trainer.lora_folder import LoraFolder
from trainer.messages import EngineReady, Example, Saved, Stop, Stopped, Train
from trainer.settings import Settings

CATALOG_RETRY_SECONDS = 120.0
"""How long the manifest is requested again while the catalog is unavailable."""
ENGINE_START_SECONDS = 300.0
"""Extra time before an attempt counts as stalled while a new engine imports torch."""
CANCEL_KILL_SECONDS = 1.0
"""After a cancellation the engine stops between two steps; it is killed after this: two seconds are promised."""
SHUTDOWN_CHECKPOINT_SECONDS = 8.0
"""Time for the engine to write a checkpoint when the trainer itself is stopped."""

_log = structlog.get_logger()


@dataclass(frozen=True)
class TrainingTask:
    """One attempt, the job it trains, and its work folder."""

    attempt: Attempt
    job: JobCreated
    entries: list[ManifestEntry]
    folder: Path


@dataclass
class Trainer:
    """Training on one device: a warm engine process, and one attempt at a time."""

    bus: Bus
    blobs: Blobs
    settings: Settings
    work_dir: Path
    heartbeat: HeartbeatPublisher
    environment: Mapping[str, str]
    """Environment of this process; the engine's is derived from it."""
    _engine: EngineProcess | None = None
    _software: dict[str, str] = field(default_factory=dict)

    async def warm_up(self) -> EngineProcess:
        """An engine that accepts requests, started if needed: importing torch takes seconds to a minute."""
        if self._engine is not None and self._engine.is_running:
            return self._engine
        self.heartbeat.message = "importing torch"
        engine = self._engine = await EngineProcess.start(self.environment)
        while not isinstance(update := await engine.next_update(), EngineReady):
            continue
        self.heartbeat.device, self.heartbeat.message, self._software = update.device, "", update.versions
        _log.info("engine_ready", device=update.device, seconds=round(update.seconds, 1), pid=engine.pid)
        return engine

    async def close(self) -> None:
        if self._engine is not None:
            await self._engine.close()

    async def run(self, attempt: Attempt) -> None:
        """Run an attempt to its end, from the newest readable checkpoint."""
        self.heartbeat.state, self.heartbeat.holds = "busy", attempt.aggregate_id
        folder = self.work_dir / f"{attempt.aggregate_id}-{attempt.number}"
        try:
            job, sequence = domain.find_created(attempt.events)
            entries = await self._read_manifest(job, sequence)
            await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
            await self._train(TrainingTask(attempt, job, entries, folder))
        finally:
            self.heartbeat.state, self.heartbeat.holds = "idle", None
            # Only its own folder, never a blob: another attempt may have written the same one.
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def publish_artifacts(self, history: AggregateHistory) -> None:
        """Copy the files of an ended job into the LoRA folder, if it succeeded."""
        succeeded = domain.find_succeeded(history.events())
        if succeeded is not None:
            stem = domain.safe_file_stem(domain.job_name(history.events()))
            lora_folder = LoraFolder(self.settings.loras, self.blobs)
            paths = await lora_folder.publish(stem, history.commits[0].commit.aggregate_id, succeeded.artifacts)
            _log.info("lora_published", names=[path.name for path in paths])

    async def _train(self, task: TrainingTask) -> None:
        """Resume from the newest checkpoint that is not missing or damaged, else from the beginning."""
        for checkpoint in domain.checkpoints_newest_first(task.attempt.events):
            path = await self._local_file(checkpoint.checkpoint, task.folder)
            if path is None:
                continue
            try:
                await self._run_engine(task, path)
                return
            except CheckpointRejected as error:
                _log.warning("checkpoint_skipped", step=checkpoint.step, error=str(error))
        await self._run_engine(task, None)

    async def _run_engine(self, task: TrainingTask, resume_from: Path | None) -> None:
        """Send the request and report updates until the end. An engine with an unfinished request is killed."""
        task.attempt.touch(grace=ENGINE_START_SECONDS)
        engine = await self.warm_up()
        task.attempt.touch()
        stem = domain.safe_file_stem(task.job.name)
        reporter = EngineReporter(self.bus, self.blobs, task.attempt, self._software, stem)
        background = [
            asyncio.create_task(_stop_when_cancelled(engine, task.attempt), name="stop"),
            asyncio.create_task(reporter.publish_progress_periodically(), name="progress"),
        ]
        request_pending = False
        try:
            request = await self._build_request(task, resume_from)
            request_pending = True
            await engine.send(request)
            while not await reporter.handle(await engine.next_update()):
                if is_cancelled():
                    raise asyncio.CancelledError
            request_pending = False
        except (CheckpointRejected, CannotTrain):
            request_pending = False
            raise
        except Crash:
            if not task.attempt.cancel_requested.is_set():
                raise
            event = cancelled("train", attempt=task.attempt.number, step=task.attempt.work.completed_units)
            await task.attempt.report(event)  # type: ignore[arg-type]  # a JobCancelled
        except asyncio.CancelledError:
            if request_pending and not task.attempt.is_stalled:
                await _save_on_shutdown(engine, reporter)
            raise
        finally:
            for background_task in background:
                background_task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            if request_pending:
                await engine.kill()
                self._engine = None

    async def _build_request(self, task: TrainingTask, resume_from: Path | None) -> Train:
        base = task.job.recipe.base
        folder = base_folder(base, builtin=self.settings.cache / "bases", bases=self.settings.bases)
        return Train(
            recipe=task.job.recipe,
            base_folder=str(folder.resolve()),
            examples=[await self._example(entry, task) for entry in task.entries],
            work_folder=str(task.folder.resolve()),
            cache_folder=str(self.settings.cache.resolve()),
            metadata=domain.build_metadata(task.attempt.aggregate_id, task.job, task.entries),
            resume_from=None if resume_from is None else str(resume_from.resolve()),
        )

    async def _read_manifest(self, job: JobCreated, sequence: int) -> list[ManifestEntry]:
        entries: list[ManifestEntry] = []
        cursor: str | None = None
        while True:
            query = ReadManifest(version_id=job.version_id, cursor=cursor, min_seq=sequence)
            page = await ServiceClient(self.bus).query(query, retry_timeout=CATALOG_RETRY_SECONDS)
            entries += page.items
            cursor = page.next
            if cursor is None:
                return entries

    async def _example(self, entry: ManifestEntry, task: TrainingTask) -> Example:
        if task.attempt.cancel_requested.is_set():
            raise Crash("it was cancelled while its pictures were fetched")
        path = await self._local_file(entry.picture, task.folder)
        if path is None:
            raise Rejected(f"the file of image {entry.image} is missing or damaged; freeze a version without it")
        task.attempt.touch()
        return Example(path=str(path.resolve()), digest=entry.picture, caption=entry.caption, ordinal=entry.ordinal)

    async def _local_file(self, digest: Digest, folder: Path) -> Path | None:
        """The local path of a blob, fetched into `folder` if needed; None if it is missing or damaged."""
        try:
            path = self.blobs.path(digest)
            if path is None:
                path = folder / digest
                await self.blobs.fetch(digest, path)
            return path if path.is_file() else None
        except (NotFound, Damaged):
            return None


async def _stop_when_cancelled(engine: EngineProcess, attempt: Attempt) -> None:
    await attempt.cancel_requested.wait()
    with suppress(Crash):
        await engine.send(Stop(save=False))
    await asyncio.sleep(CANCEL_KILL_SECONDS)
    _log.warning("engine_killed", reason="it did not stop in time")
    await engine.kill()


async def _save_on_shutdown(engine: EngineProcess, reporter: EngineReporter) -> None:
    """The trainer is stopped: write a checkpoint, so that steps since the last one are not trained again."""
    attempt = reporter.attempt
    if attempt.work.ended or attempt.work.attempt != attempt.number or attempt.cancel_requested.is_set():
        return
    try:
        async with asyncio.timeout(SHUTDOWN_CHECKPOINT_SECONDS):
            await engine.send(Stop(save=True))
            while True:
                update = await engine.next_update()
                match update:
                    case Stopped(step=step, path=str(path)):
                        await reporter.handle(Saved(step=step, path=path))
                        return
                    case Stopped():
                        return
                    case _ if await reporter.handle(update):
                        return
    except (TimeoutError, Crash, Fenced, CheckpointRejected, CannotTrain) as error:
        _log.warning("shutdown_checkpoint_failed", error=repr(error))
