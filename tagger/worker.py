"""Takes a run, drives the model, reports. Predictions only: what becomes of them is the catalog's affair."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from contracts.errors import NotFound, SetupError
from contracts.events import ImagePredictions, TaggingModelLoaded, TaggingPredicted, TaggingSucceeded
from contracts.ids import Digest, RunId, ulid
from contracts.jobs import cancelled
from contracts.queries import ReadTaggingWork, TaggingImage
from contracts.telemetry import TaggingProgress
from contracts.wire.blobs import Blobs, Damaged
from contracts.wire.bus import Bus
from contracts.wire.service import Door
from contracts.wire.tasks import wanted
from contracts.wire.telling import tell_progress
from contracts.wire.work import Attempt
from tagger import domain, models
from tagger.settings import Settings
from tagger.wd.tagger import Predicted, Tagger, Unreadable

BATCH = 16
"""So many images are looked at between two looks at whether the run is still wanted."""
PATIENCE = 120.0
"""Seconds the catalog may be away while a run is held."""


@dataclass
class Runner:
    """Runs one attempt after the other; the model of the last one stays loaded."""

    bus: Bus
    blobs: Blobs
    settings: Settings
    _loaded: dict[str, Tagger] = field(default_factory=dict)

    async def run(self, attempt: Attempt) -> None:
        """From the first image that is not kept yet to the last. Rejected: no such model, or none that can be used."""
        asked, sequence = domain.requested(attempt.facts)
        progress = Progress(self.bus, attempt, asked.count)
        await progress.tell("loading")
        tagger = await self._model(asked.model)
        kept = domain.done(attempt.facts)
        loaded = TaggingModelLoaded(
            attempt=attempt.number,
            model=tagger.identity.model,
            tags=tagger.identity.tags,
            preprocessing=tagger.identity.preprocessing,
            provider=tagger.identity.provider,
        )
        domain.same_model(attempt.facts, loaded)
        await attempt.report(loaded)
        async for batch in self._batches(RunId(attempt.thing), sequence, kept):
            if not wanted():
                raise asyncio.CancelledError
            if attempt.stop_asked.is_set():
                await attempt.report(cancelled("tag", attempt=attempt.number, step=len(kept)))  # type: ignore[arg-type]
                return
            answers = await self._look(tagger, batch)
            for group in domain.packed(answers):
                await attempt.report(TaggingPredicted(attempt=attempt.number, images=group))
            kept |= {answer.ordinal: answer.unreadable is not None for answer in answers}
            attempt.moved()
            await progress.tell("tagging", done=len(kept))
        unreadable = sum(kept.values())
        await attempt.report(TaggingSucceeded(attempt=attempt.number, images=len(kept), unreadable=unreadable))

    async def _model(self, name: str) -> Tagger:
        folder = models.folder_of(name, self.settings.models)
        if name not in self._loaded:
            self._loaded.clear()
            try:
                self._loaded[name] = await asyncio.to_thread(
                    Tagger, folder, providers=self.settings.providers, threads=self.settings.threads
                )
            except SetupError as error:
                raise models.unusable(name, error.detail) from error
        return self._loaded[name]

    async def _batches(self, run: RunId, sequence: int, kept: dict[int, bool]) -> AsyncIterator[list[TaggingImage]]:
        cursor: str | None = None
        while True:
            question = ReadTaggingWork(run=run, cursor=cursor, min_seq=sequence)
            page = await Door(self.bus).ask(question, patience=PATIENCE)
            left = domain.left(page.items, kept)
            for start in range(0, len(left), BATCH):
                yield left[start : start + BATCH]
            cursor = page.next
            if cursor is None:
                return

    async def _look(self, tagger: Tagger, batch: Sequence[TaggingImage]) -> list[ImagePredictions]:
        async with self._files(batch) as files:
            there = {image.ordinal: path for image, path in zip(batch, files, strict=True) if isinstance(path, Path)}
            seen = dict(zip(there, await asyncio.to_thread(tagger.tag, list(there.values())), strict=True))
        return [
            _answer(image.ordinal, seen.get(image.ordinal) or Unreadable("its bytes are gone or damaged"))
            for image in batch
        ]

    @asynccontextmanager
    async def _files(self, batch: Sequence[TaggingImage]) -> AsyncIterator[list[Path | None]]:
        """Each picture as a file: where it lies, or fetched for as long as it is needed. None: it cannot be had."""
        fetched: list[Path] = []

        async def file_of(image: TaggingImage) -> Path | None:
            try:
                here = self.blobs.path(image.picture)
                if here is None:
                    here = self.settings.work / f"{image.picture}-{ulid()}"
                    await self.blobs.fetch(image.picture, here)
                    fetched.append(here)
                return here if here.is_file() else None
            except (NotFound, Damaged):
                return None

        try:
            yield [await file_of(image) for image in batch]
        finally:
            for path in fetched:
                path.unlink(missing_ok=True)


def drop(pictures: Collection[Digest], *, work: Path) -> None:
    """Delete what a killed tagger left of these pictures."""
    for file in list(work.iterdir()):
        if file.name.partition("-")[0] in pictures:
            file.unlink(missing_ok=True)


@dataclass(frozen=True)
class Progress:
    """Where the run is, told after each batch."""

    bus: Bus
    attempt: Attempt
    total: int

    async def tell(self, phase: str, *, done: int = 0) -> None:
        await tell_progress(
            self.bus,
            TaggingProgress(
                run_id=RunId(self.attempt.thing),
                attempt=self.attempt.number,
                phase=phase,
                at=datetime.now(UTC),
                done=done,
                total=self.total,
            ),
        )


def _answer(ordinal: int, seen: Predicted | Unreadable) -> ImagePredictions:
    match seen:
        case Predicted(predictions=predictions):
            return ImagePredictions(ordinal=ordinal, predictions=predictions)
        case Unreadable(reason=reason):
            return ImagePredictions(ordinal=ordinal, predictions=(), unreadable=reason)
