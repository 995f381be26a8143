"""Executes tagging runs and records predictions. Which predictions become tags is decided by the catalog."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
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
from contracts.wire.system.ahead import ahead
from contracts.wire.system.threads import run_cancellable
from contracts.wire.workers.pages import read_pages
from contracts.wire.workers.worker import Attempt
from tagger import domain
from tagger.model_loader import ModelLoader
from tagger.settings import Settings
from tagger.wd.decoder_messages import Square, Unreadable
from tagger.wd.decoders import Decoders
from tagger.wd.tagger import Predicted, Tagger

Batch = Sequence[TaggingImage]
MAX_BATCH_BYTES = 64 << 20
"""Of the decoded pictures of a batch, of which at most four are in memory."""
MISSING = Unreadable("its file is missing or damaged")


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
        decoders = Decoders(self.settings.decoders or os.cpu_count() or 1)
        async with decoders, aclosing(self._predictions(tagger, decoders, attempt, run)) as made:
            async for predictions in made:
                if is_cancelled():
                    raise asyncio.CancelledError
                for group in domain.split_into_commits(predictions):
                    await attempt.report(TaggingPredicted(attempt=attempt.number, images=group))
                completed |= {prediction.ordinal: prediction.unreadable is not None for prediction in predictions}
                attempt.touch()
                await progress.publish("tagging", done=len(completed))
        unreadable = sum(completed.values())
        await attempt.report(TaggingSucceeded(attempt=attempt.number, images=len(completed), unreadable=unreadable))

    def _predictions(
        self, tagger: Tagger, decoders: Decoders, attempt: Attempt, run: domain.RunState
    ) -> AsyncGenerator[list[ImagePredictions], None]:
        """By batches, in order. Pictures are read while the model computes, and that while others are recorded."""

        async def decoded() -> AsyncGenerator[tuple[Batch, list[Square | Unreadable]], None]:
            size = min(self.batch_size, max(1, MAX_BATCH_BYTES // (3 * tagger.size**2)))
            async for batch in self._batches(RunId(attempt.aggregate_id), run, size):
                yield batch, await self._decode(decoders, batch, tagger.size)

        async def predicted() -> AsyncGenerator[list[ImagePredictions], None]:
            async with aclosing(ahead(decoded())) as ready:
                async for batch, squares in ready:
                    results = await run_cancellable(partial(tagger.tag, squares))
                    yield [_to_image_predictions(*one) for one in zip(batch, results, strict=True)]

        return ahead(predicted())

    async def _batches(self, run_id: RunId, run: domain.RunState, size: int) -> AsyncIterator[Batch]:
        query = ReadTaggingWork(run=run_id, min_seq=run.requested_at)
        async for page in read_pages(self.bus, query):
            remaining = run.remaining(page)
            for start in range(0, len(remaining), size):
                yield remaining[start : start + size]

    async def _decode(self, decoders: Decoders, batch: Batch, size: int) -> list[Square | Unreadable]:
        async def read(path: Path | None) -> Square | Unreadable:
            return MISSING if path is None else await decoders.read(path, size)

        async with self._local_files(batch) as files, asyncio.TaskGroup() as tasks:
            reading = [tasks.create_task(read(path)) for path in files]
        return [each.result() for each in reading]

    @asynccontextmanager
    async def _local_files(self, batch: Batch) -> AsyncIterator[list[Path | None]]:
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


def _to_image_predictions(image: TaggingImage, result: Predicted | Unreadable) -> ImagePredictions:
    match result:
        case Predicted(predictions=predictions):
            return ImagePredictions(ordinal=image.ordinal, predictions=predictions)
        case Unreadable(reason=reason):
            return ImagePredictions(ordinal=image.ordinal, predictions=(), unreadable=reason)
