"""Takes a job, drives the child, reports."""

import asyncio
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from contracts.errors import Fenced, NotFound, Rejected
from contracts.events import JobCheckpointed, JobCreated
from contracts.ids import Digest
from contracts.jobs import cancelled
from contracts.queries import ManifestEntry, ReadManifest
from contracts.wire.blobs import Blobs, Damaged
from contracts.wire.bus import Bus
from contracts.wire.log import History
from contracts.wire.presence import Sign
from contracts.wire.service import Door
from contracts.wire.tasks import wanted
from contracts.wire.work import Attempt, Crash
from trainer import domain
from trainer.bases import base_folder
from trainer.child import Child
from trainer.listener import BadCheckpoint, CannotTrain, Listener
from trainer.messages import Example, Ready, Saved, Stop, Stopped, Train
from trainer.settings import Settings
from trainer.shelf import Shelf

PATIENCE = 120.0
"""Seconds the catalog may be away while a job is held."""
WARM_UP_SECONDS = 300.0
"""How long a new child may say nothing while it imports torch."""
STOP_SECONDS = 1.0
"""A cancelled job stops between two steps; a child that does not by then is killed: two seconds are promised."""
POLITE_SECONDS = 8.0
"""How long a child may take to leave a checkpoint when the trainer itself is stopped."""

_log = structlog.get_logger()


@dataclass(frozen=True)
class Task:
    """What one attempt works with."""

    attempt: Attempt
    asked: JobCreated
    entries: list[ManifestEntry]
    folder: Path


@dataclass
class Trainer:
    """One device's worth of training: a warm child, and one attempt at a time."""

    bus: Bus
    blobs: Blobs
    settings: Settings
    workshop: Path
    sign: Sign
    environment: Mapping[str, str]
    """Of this process; the engine's is made from it."""
    _child: Child | None = None
    _software: dict[str, str] = field(default_factory=dict)

    async def warm_up(self) -> Child:
        """A child that is ready for an order. Importing torch takes seconds to a minute; the sign says so meanwhile."""
        if self._child is not None and self._child.alive:
            return self._child
        self.sign.message = "importing torch"
        child = self._child = await Child.start(self.environment)
        while not isinstance(update := await child.next(), Ready):
            continue
        self.sign.device, self.sign.message, self._software = update.device, "", update.versions
        _log.info("engine_ready", device=update.device, seconds=round(update.seconds, 1), pid=child.pid)
        return child

    async def close(self) -> None:
        if self._child is not None:
            await self._child.end()

    async def run(self, attempt: Attempt) -> None:
        """Train a job to its end, from the newest checkpoint that can be read."""
        self.sign.state, self.sign.holds = "busy", attempt.thing
        folder = self.workshop / f"{attempt.thing}-{attempt.number}"
        try:
            asked, sequence = domain.created(attempt.facts)
            entries = await self._manifest(asked, sequence)
            await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
            await self._train(Task(attempt, asked, entries, folder))
        finally:
            self.sign.state, self.sign.holds = "idle", None
            # Only its own folder, never a blob: that may be the winner's.
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def settle(self, history: History) -> None:
        """A job has ended: lay its files among the finished ones, if it has any."""
        done = domain.succeeded(history.facts())
        if done is not None:
            stem = domain.file_stem(domain.name_of(history.facts()))
            shelf = Shelf(self.settings.loras, self.blobs)
            paths = await shelf.publish(stem, history.commits[0].commit.thing, done.artifacts)
            _log.info("lora_published", names=[path.name for path in paths])

    async def _train(self, task: Task) -> None:
        """Checkpoints from the newest on; one that is torn or gone gives way to the one before, at last to none."""
        for checkpoint in domain.checkpoints(task.attempt.facts):
            path = await self._fetched(checkpoint, task.folder)
            if path is None:
                continue
            try:
                await self._carry_out(task, path)
                return
            except BadCheckpoint as error:
                _log.warning("checkpoint_passed_over", step=checkpoint.step, error=str(error))
        await self._carry_out(task, None)

    async def _carry_out(self, task: Task, resume: Path | None) -> None:
        """Give the order and listen to its end. A child that was not heard to the end does not get another order."""
        task.attempt.moved(grace=WARM_UP_SECONDS)
        child = await self.warm_up()
        task.attempt.moved()
        listener = Listener(self.bus, self.blobs, task.attempt, self._software, domain.file_stem(task.asked.name))
        beside = [
            asyncio.create_task(_stop_when_asked(child, task.attempt), name="stop"),
            asyncio.create_task(listener.keep_telling(), name="telling"),
        ]
        owes_an_end = False
        try:
            order = await self._order(task, resume)
            owes_an_end = True
            await child.order(order)
            while not await listener.hear(await child.next()):
                if not wanted():
                    raise asyncio.CancelledError
            owes_an_end = False
        except (BadCheckpoint, CannotTrain):
            owes_an_end = False
            raise
        except Crash:
            if not task.attempt.stop_asked.is_set():
                raise
            fact = cancelled("train", attempt=task.attempt.number, step=task.attempt.work.kept)
            await task.attempt.report(fact)  # type: ignore[arg-type]  # a JobCancelled
        except asyncio.CancelledError:
            if owes_an_end and not task.attempt.hung:
                await _leave_checkpoint(child, listener)
            raise
        finally:
            for other in beside:
                other.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            if owes_an_end:
                await child.kill()
                self._child = None

    async def _order(self, task: Task, resume: Path | None) -> Train:
        base = task.asked.recipe.base
        folder = base_folder(base, made=self.settings.cache / "bases", bases=self.settings.bases)
        return Train(
            recipe=task.asked.recipe,
            base_folder=str(folder.resolve()),
            examples=[await self._example(entry, task) for entry in task.entries],
            work_folder=str(task.folder.resolve()),
            cache_folder=str(self.settings.cache.resolve()),
            facts=domain.facts_for(task.attempt.thing, task.asked, task.entries),
            resume_from=None if resume is None else str(resume.resolve()),
        )

    async def _manifest(self, asked: JobCreated, sequence: int) -> list[ManifestEntry]:
        entries: list[ManifestEntry] = []
        cursor: str | None = None
        while True:
            question = ReadManifest(version_id=asked.version_id, cursor=cursor, min_seq=sequence)
            page = await Door(self.bus).ask(question, patience=PATIENCE)
            entries += page.items
            cursor = page.next
            if cursor is None:
                return entries

    async def _example(self, entry: ManifestEntry, task: Task) -> Example:
        if task.attempt.stop_asked.is_set():
            raise Crash("it was cancelled while its pictures were fetched")
        path = await self._file(entry.picture, task.folder)
        if path is None:
            raise Rejected(f"the bytes of image {entry.image} are gone or damaged; freeze a version without it")
        task.attempt.moved()
        return Example(path=str(path.resolve()), digest=entry.picture, caption=entry.caption, ordinal=entry.ordinal)

    async def _fetched(self, checkpoint: JobCheckpointed, folder: Path) -> Path | None:
        return await self._file(checkpoint.checkpoint, folder)

    async def _file(self, digest: Digest, folder: Path) -> Path | None:
        """A blob as a file: where it lies, or fetched into the attempt's folder. None: it cannot be had."""
        try:
            path = self.blobs.path(digest)
            if path is None:
                path = folder / digest
                await self.blobs.fetch(digest, path)
            return path if path.is_file() else None
        except (NotFound, Damaged):
            return None


async def _stop_when_asked(child: Child, attempt: Attempt) -> None:
    await attempt.stop_asked.wait()
    with suppress(Crash):
        await child.order(Stop(save=False))
    await asyncio.sleep(STOP_SECONDS)
    _log.warning("child_killed", reason="it did not stop in time")
    await child.kill()


async def _leave_checkpoint(child: Child, listener: Listener) -> None:
    """The trainer itself is stopped: what was trained since the last checkpoint need not be trained again."""
    attempt = listener.attempt
    if attempt.work.ended or attempt.work.attempt != attempt.number or attempt.stop_asked.is_set():
        return
    try:
        async with asyncio.timeout(POLITE_SECONDS):
            await child.order(Stop(save=True))
            while True:
                update = await child.next()
                match update:
                    case Stopped(step=step, path=str(path)):
                        await listener.hear(Saved(step=step, path=path))
                        return
                    case Stopped():
                        return
                    case _ if await listener.hear(update):
                        return
    except (TimeoutError, Crash, Fenced, BadCheckpoint, CannotTrain) as error:
        _log.warning("no_checkpoint_left", error=repr(error))
