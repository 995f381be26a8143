"""Executes tagging runs and records predictions. Which predictions become tags is decided by the catalog."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from contracts.cancellation import is_cancelled
from contracts.errors import NotFound
from contracts.events.tagging import (
    ImagePredictions,
    TaggingModelLoaded,
    TaggingPredicted,
    TaggingSucceeded,
)
from contracts.ids import Digest, RunId, ulid
from contracts.queries.tagging import ReadTaggingWork, TaggingImage
from contracts.telemetry import TaggingProgress
from contracts.wire.blobs.store import Blobs, Damaged
from contracts.wire.service.bus import Bus
from contracts.wire.service.telemetry import publish
from contracts.wire.system.threads import run_cancellable
from contracts.wire.workers.pages import read_pages
from contracts.wire.workers.worker import Attempt
from tagger import domain
from tagger.model_loader import ModelLoader
from tagger.settings import Settings
from tagger.wd.tagger import Predicted, Tagger, Unreadable


@dataclass
class Runner:
    """Executes one attempt at a time; the last used model stays loaded."""

    bus: Bus
    blobs: Blobs
    settings: Settings
    batch_size: int = 16
    """Images read, tagged and recorded at a time."""
    models: "ModelLoader" = field(init=False)

    def __post_init__(self) -> None:
        self.models = ModelLoader(self.settings)

    async def run(self, attempt: Attempt) -> None:
        """Tag all images without recorded predictions. Rejected: the model does not exist or cannot be used."""
        run = domain.fold(attempt.history.events())
        progress = ProgressPublisher(self.bus, attempt, run.request.count)
        await progress.publish("loading")
        tagger = await self.models.load(run.request.model)
        loaded = TaggingModelLoaded(
            attempt=attempt.number,
            model=tagger.identity.model,
            tags=tagger.identity.tags,
            preprocessing=tagger.identity.preprocessing,
            provider=tagger.identity.provider,
        )
        run.check_same_model(loaded)
        await attempt.report(loaded)
        completed = dict(run.completed)
        async for batch in self._batches(RunId(attempt.aggregate_id), run):
            if is_cancelled():
                raise asyncio.CancelledError
            predictions = await self._predict(tagger, batch)
            for group in domain.split_into_commits(predictions):
                await attempt.report(TaggingPredicted(attempt=attempt.number, images=group))
            completed |= {prediction.ordinal: prediction.unreadable is not None for prediction in predictions}
            attempt.touch()
            await progress.publish("tagging", done=len(completed))
        unreadable = sum(completed.values())
        await attempt.report(TaggingSucceeded(attempt=attempt.number, images=len(completed), unreadable=unreadable))

    async def _batches(self, run_id: RunId, run: domain.RunState) -> AsyncIterator[list[TaggingImage]]:
        query = ReadTaggingWork(run=run_id, min_seq=run.requested_at)
        async for page in read_pages(self.bus, query):
            remaining = run.remaining(page)
            for start in range(0, len(remaining), self.batch_size):
                yield remaining[start : start + self.batch_size]

    async def _predict(self, tagger: Tagger, batch: Sequence[TaggingImage]) -> list[ImagePredictions]:
        async with self._local_files(batch) as files:
            readable = {image.ordinal: path for image, path in zip(batch, files, strict=True) if isinstance(path, Path)}
            results = await run_cancellable(partial(tagger.tag, list(readable.values())))
        by_ordinal = dict(zip(readable, results, strict=True))
        return [
            _to_image_predictions(
                image.ordinal, by_ordinal.get(image.ordinal) or Unreadable("its file is missing or damaged")
            )
            for image in batch
        ]

    @asynccontextmanager
    async def _local_files(self, batch: Sequence[TaggingImage]) -> AsyncIterator[list[Path | None]]:
        """Each picture as a local file, fetched temporarily if the blob store is remote. None: missing or damaged."""
        fetched: list[Path] = []

        async def local_file(image: TaggingImage) -> Path | None:
            try:
                local = self.blobs.path(image.picture)
                if local is None:
                    local = self.settings.work / f"{image.picture}-{ulid()}"
                    fetched.append(local)
                    await self.blobs.fetch(image.picture, local)
                return local if local.is_file() else None
            except (NotFound, Damaged):
                return None

        try:
            yield [await local_file(image) for image in batch]
        finally:
            for path in fetched:
                path.unlink(missing_ok=True)


def delete_temporary_files(pictures: Collection[Digest], *, work: Path) -> None:
    """Delete temporary files of these pictures that a killed tagger left behind."""
    for file in list(work.iterdir()):
        if file.name.partition("-")[0] in pictures:
            file.unlink(missing_ok=True)


@dataclass(frozen=True)
class ProgressPublisher:
    """Publishes the progress of a run after each batch."""

    bus: Bus
    attempt: Attempt
    total: int

    async def publish(self, phase: str, *, done: int = 0) -> None:
        await publish(
            self.bus,
            TaggingProgress(
                run_id=RunId(self.attempt.aggregate_id),
                attempt=self.attempt.number,
                phase=phase,
                at=datetime.now(UTC),
                done=done,
                total=self.total,
            ),
        )


def _to_image_predictions(ordinal: int, result: Predicted | Unreadable) -> ImagePredictions:
    match result:
        case Predicted(predictions=predictions):
            return ImagePredictions(ordinal=ordinal, predictions=predictions)
        case Unreadable(reason=reason):
            return ImagePredictions(ordinal=ordinal, predictions=(), unreadable=reason)
