"""Tagging runs from a real queue, recorded in a real log, with the tiny-random model."""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from PIL import Image

from catalog.domain.image_sets import image_set
from contracts.aggregates import AnyEvent
from contracts.events.tagging import (
    TAGGING_WORK,
    TaggingAttemptStarted,
    TaggingCancelled,
    TaggingFailed,
    TaggingInterrupted,
    TaggingModelLoaded,
    TaggingPredicted,
    TaggingQueued,
    TaggingRequested,
    TaggingSucceeded,
)
from contracts.ids import DatasetId, Digest, WorkerId
from contracts.jobs import cancel, fold
from contracts.queries.base import Page
from contracts.queries.log import ForeignView, ListForeign
from contracts.queries.tagging import ReadTaggingWork, TaggingImage
from contracts.shipped_models import shipped_models
from contracts.wire.blobs.store import Blobs, LocalBlobs, blobs_at
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.service_keys import serve_key_requests
from contracts.wire.service.bus import Bus
from contracts.wire.service.requests import Service
from contracts.wire.service.telemetry import wake
from contracts.wire.workers.queue import QueueMessage, WorkQueue
from contracts.wire.workers.worker import Worker, WorkerIdentity
from tagger.settings import Settings
from tagger.worker import Runner
from tests.conftest import LEASE, BusOf, append_events
from tests.limits import WAIT
from tests.object_server import ObjectServer
from tests.tagger.model_folders import endless_model, write_model_folder

RUN = "run_1"
PAGE_SIZE = 10
BATCH_SIZE = 4
E = TypeVar("E")


def png(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (24, 24), (number * 40 % 256, 30, 30)).save(out, "PNG")
    return out.getvalue()


class FakeCatalog:
    """Plays the catalog: requests a run and returns its images page by page."""

    def __init__(self, bus: Bus, blobs: Blobs) -> None:
        self.bus, self.blobs = bus, blobs
        self.images: list[TaggingImage] = []
        self.second_page = asyncio.Event()
        """All pages but the first one are returned once it is set."""
        self.second_page.set()

    async def tagging_work(self, query: ReadTaggingWork) -> Page[TaggingImage]:
        start = int(query.cursor or 0)
        if start:
            await self.second_page.wait()
        next_cursor = str(start + PAGE_SIZE) if start + PAGE_SIZE < len(self.images) else None
        return Page(items=tuple(self.images[start : start + PAGE_SIZE]), total=len(self.images), next=next_cursor)

    async def foreign(self, _: ListForeign) -> Page[ForeignView]:
        """It verifies nothing."""
        return Page(items=(), total=0)

    async def register_key(self, *_: object) -> str:
        return (await EventLog(self.bus).end())[0]

    async def request_run(self, pictures: list[bytes], model: str = "tiny-random", run: str = RUN) -> None:
        for ordinal, picture in enumerate(pictures):
            self.images.append(TaggingImage(ordinal=ordinal, picture=await self.blobs.put(picture)))
        all_ordinals = image_set(range(len(pictures)))
        requested = TaggingRequested(
            dataset_id=DatasetId("ds_1"), dataset="cats", model=model, images=all_ordinals, count=len(pictures)
        )
        dispatch = await append_events(self.bus, "tagging", run, requested, TaggingQueued(priority="normal"))
        await WorkQueue(self.bus, "tag").put(QueueMessage(id=run, dispatch=dispatch), "normal")

    async def append(self, *events: AnyEvent) -> int:
        return await append_events(self.bus, "tagging", RUN, *events)

    async def events(self, run: str = RUN) -> list[AnyEvent]:
        return [event for event, _ in (await EventLog(self.bus).load("tagging", run)).events()]

    async def wait_for(self, event_type: type[E], run: str = RUN) -> tuple[E, list[AnyEvent]]:
        """The last event of this type, and all events."""
        async with asyncio.timeout(WAIT):
            while not (found := only(events := await self.events(run), event_type)):  # noqa: ASYNC110 - the log has no condition to wait on
                await asyncio.sleep(0.02)
        return found[-1], events


@pytest.fixture
async def catalog(bus_of: BusOf, tmp_path: Path) -> AsyncIterator[FakeCatalog]:
    bus = await bus_of("catalog")
    fake = FakeCatalog(bus, LocalBlobs(tmp_path / "blobs"))
    service = Service(bus, "catalog", "1")
    await service.start(queries={ReadTaggingWork: fake.tagging_work, ListForeign: fake.foreign})
    keys = asyncio.create_task(serve_key_requests(bus, ["tagger"], fake.register_key))
    yield fake
    keys.cancel()
    await asyncio.gather(keys, return_exceptions=True)
    await service.close()


@asynccontextmanager
async def running_tagger(
    bus: Bus, catalog: FakeCatalog, folder: Path, name: str = "t1", models: Path | None = None
) -> AsyncIterator[Runner]:
    settings = Settings(work=folder, threads=1, models=models)
    folder.mkdir(exist_ok=True)
    runner = Runner(bus, catalog.blobs, settings, batch_size=BATCH_SIZE)
    identity = WorkerIdentity(kind=TAGGING_WORK, worker=WorkerId(name), boot="b1", lease=LEASE)
    task = asyncio.create_task(Worker(bus, identity, runner.run).run())
    yield runner
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def only(events: list[AnyEvent], event_type: type[E]) -> list[E]:
    return [event for event in events if isinstance(event, event_type)]


def ordinals(events: list[AnyEvent]) -> list[int]:
    return [image.ordinal for event in only(events, TaggingPredicted) for image in event.images]


async def test_a_run_tags_every_image_and_records_the_model_behind_the_predictions(
    catalog: FakeCatalog, bus_of: BusOf, tmp_path: Path
) -> None:
    await catalog.request_run([png(number) for number in range(12)] + [b"no picture"])
    catalog.images.append(TaggingImage(ordinal=13, picture=Digest("f" * 64)))
    async with running_tagger(await bus_of("tagger"), catalog, tmp_path / "work"):
        succeeded, events = await catalog.wait_for(TaggingSucceeded)
    assert events[-1] == succeeded
    assert (succeeded.images, succeeded.unreadable) == (14, 2)
    assert ordinals(events) == list(range(14))
    (loaded,) = only(events, TaggingModelLoaded)
    model = shipped_models("taggers")["tiny-random"] / "model.onnx"
    assert loaded.model == hashlib.sha256(model.read_bytes()).hexdigest()
    predictions = [image for event in only(events, TaggingPredicted) for image in event.images]
    assert all(image.predictions for image in predictions[:12])
    assert [bool(image.unreadable) for image in predictions] == [False] * 12 + [True] * 2
    assert "blobs" not in str([image.unreadable for image in predictions])


async def test_an_interrupted_run_resumes_with_the_next_image(
    catalog: FakeCatalog, bus_of: BusOf, tmp_path: Path
) -> None:
    count = 2 * PAGE_SIZE
    await catalog.request_run([png(number) for number in range(count)])
    catalog.second_page.clear()
    async with running_tagger(await bus_of("tagger"), catalog, tmp_path / "work"):
        await catalog.wait_for(TaggingPredicted)
    interrupted, events = await catalog.wait_for(TaggingInterrupted)
    assert events[-1] == interrupted
    assert 0 < interrupted.step < count
    catalog.second_page.set()
    async with running_tagger(await bus_of("tagger"), catalog, tmp_path / "work", "t2"):
        _, events = await catalog.wait_for(TaggingSucceeded)
    assert ordinals(events) == list(range(count))
    started = only(events, TaggingAttemptStarted)
    assert [event.worker for event in started] == ["t1", "t2"]
    assert events.index(started[1]) == events.index(interrupted) + 1
    assert started[1].resumes == interrupted.step


async def cancel_run(catalog: FakeCatalog) -> list[AnyEvent]:
    """Cancel it as the catalog does; the events at its end."""
    await catalog.append(*cancel(fold((await EventLog(catalog.bus).load("tagging", RUN)).events()), TAGGING_WORK))
    await wake(catalog.bus, "tag", RUN)
    cancelled, events = await catalog.wait_for(TaggingCancelled)
    assert events[-1] == cancelled
    assert len(ordinals(events)) == cancelled.step
    return events


async def test_a_cancelled_run_stops_while_it_waits_for_the_catalog(
    catalog: FakeCatalog, bus_of: BusOf, tmp_path: Path
) -> None:
    await catalog.request_run([png(number) for number in range(2 * PAGE_SIZE)])
    catalog.second_page.clear()
    async with running_tagger(await bus_of("tagger"), catalog, tmp_path / "work"):
        await catalog.wait_for(TaggingPredicted)
        events = await cancel_run(catalog)
    assert 0 < len(ordinals(events)) <= PAGE_SIZE


async def test_a_cancelled_run_stops_in_the_middle_of_a_forward_pass(
    catalog: FakeCatalog, bus_of: BusOf, tmp_path: Path
) -> None:
    write_model_folder(tmp_path / "models" / "endless", endless_model())
    await catalog.request_run([png(1)], model="endless")
    async with running_tagger(await bus_of("tagger"), catalog, tmp_path / "work", models=tmp_path / "models"):
        await catalog.wait_for(TaggingModelLoaded)
        assert ordinals(await cancel_run(catalog)) == []
        # The thread has ended too: the end of this loop, which waits for its threads, does not hang.
        await asyncio.get_running_loop().shutdown_default_executor()


@pytest.mark.slow
async def test_a_cancelled_run_does_not_wait_for_its_model_but_the_next_one_does(
    catalog: FakeCatalog, bus_of: BusOf, tmp_path: Path
) -> None:
    write_model_folder(tmp_path / "models" / "slow", endless_model(iterations_of_white=500_000))
    await catalog.request_run([png(1)], model="slow")
    async with running_tagger(await bus_of("tagger"), catalog, tmp_path / "work", models=tmp_path / "models") as runner:
        await catalog.wait_for(TaggingAttemptStarted)
        await cancel_run(catalog)
        assert runner.models.is_loading
        catalog.images.clear()
        await catalog.request_run([png(1)], run="run_2")
        succeeded, _ = await catalog.wait_for(TaggingSucceeded, run="run_2")
    assert succeeded.images == 1


async def test_a_cancelled_run_stops_while_it_fetches_a_picture(
    catalog: FakeCatalog, bus_of: BusOf, tmp_path: Path
) -> None:
    async with ObjectServer(tmp_path / "bucket") as server:
        catalog.blobs = server.blobs()
        await catalog.request_run([png(number) for number in range(3)])
        server.hold("GET")
        async with running_tagger(await bus_of("tagger"), catalog, tmp_path / "work"):
            await server.held.wait()
            assert ordinals(await cancel_run(catalog)) == []
            assert list((tmp_path / "work").iterdir()) == []


async def test_an_unknown_model_fails_the_run_and_the_reason_lists_the_available_ones(
    catalog: FakeCatalog, bus_of: BusOf, tmp_path: Path
) -> None:
    await catalog.request_run([png(1)], model="../secret")
    async with running_tagger(await bus_of("tagger"), catalog, tmp_path / "work"):
        failed, events = await catalog.wait_for(TaggingFailed)
    assert events[-1] == failed
    assert failed.reason.endswith("available: demo")
    assert ordinals(events) == []


async def test_pictures_from_an_object_store_are_fetched_and_deleted_afterwards(
    catalog: FakeCatalog, bus_of: BusOf, tmp_path: Path
) -> None:
    catalog.blobs = blobs_at("memory://")
    await catalog.request_run([png(number) for number in range(3)])
    catalog.images.append(TaggingImage(ordinal=3, picture=Digest("f" * 64)))
    async with running_tagger(await bus_of("tagger"), catalog, tmp_path / "work"):
        succeeded, _ = await catalog.wait_for(TaggingSucceeded)
    assert (succeeded.images, succeeded.unreadable) == (4, 1)
    assert list((tmp_path / "work").iterdir()) == []
