"""Runs taken from a real queue and reported to a real log, with the stand-in model."""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from PIL import Image
from pyroaring import BitMap

from contracts.events import (
    AnyFact,
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
from contracts.queries import Page, ReadTaggingWork, TaggingImage
from contracts.wire.blobs import Blobs, LocalBlobs, blobs_at
from contracts.wire.bus import Bus
from contracts.wire.log import EventLog, draw_up
from contracts.wire.queue import Hint, WorkQueue
from contracts.wire.service import Service
from contracts.wire.telling import nudge
from contracts.wire.work import Holder, Worker
from tagger.settings import Settings
from tagger.worker import BATCH, Runner
from tests.conftest import LEASE, BusOf, origin
from tests.limits import WAIT

RUN = "run_1"
PAGE = 10


def png(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (24, 24), (number * 40 % 256, 30, 30)).save(out, "PNG")
    return out.getvalue()


class Asker:
    """The catalog's part: it asks for a run and answers what is to be looked at, a few at a time."""

    def __init__(self, bus: Bus, blobs: Blobs) -> None:
        self.bus, self.blobs = bus, blobs
        self.images: list[TaggingImage] = []

    async def answer(self, query: ReadTaggingWork) -> Page[TaggingImage]:
        start = int(query.cursor or 0)
        following = str(start + PAGE) if start + PAGE < len(self.images) else None
        return Page(items=tuple(self.images[start : start + PAGE]), total=len(self.images), next=following)

    async def ask_for(self, pictures: list[bytes], model: str = "stand-in") -> None:
        for ordinal, picture in enumerate(pictures):
            self.images.append(TaggingImage(ordinal=ordinal, picture=await self.blobs.put(picture)))
        everything = bytes(BitMap(range(len(pictures))).serialize())
        asked = TaggingRequested(
            dataset_id=DatasetId("ds_1"), dataset="cats", model=model, images=everything, count=len(pictures)
        )
        dispatch = await self.say(asked, TaggingQueued(priority="normal"))
        await WorkQueue(self.bus, "tag").put(Hint(id=RUN, dispatch=dispatch), "normal")

    async def say(self, *facts: AnyFact) -> int:
        log = EventLog(self.bus)
        head = (await log.load("tagging", RUN)).head
        return (await log.append(draw_up("tagging", RUN, facts, after=head, origin=origin()), head)).sequence

    async def facts(self) -> list[AnyFact]:
        return [fact for fact, _ in (await EventLog(self.bus).load("tagging", RUN)).facts()]

    async def until(self, kind: type[AnyFact], within: float = WAIT) -> list[AnyFact]:
        async with asyncio.timeout(within):
            while not any(isinstance(fact, kind) for fact in await self.facts()):  # noqa: ASYNC110 - the log tells us
                await asyncio.sleep(0.02)
        return await self.facts()


@pytest.fixture
async def asker(bus_of: BusOf, tmp_path: Path) -> AsyncIterator[Asker]:
    bus = await bus_of("catalog")
    asking = Asker(bus, LocalBlobs(tmp_path / "blobs"))
    service = Service(bus, "catalog", "1")
    await service.start(queries={ReadTaggingWork: asking.answer})
    yield asking
    await service.close()


@asynccontextmanager
async def tagging(bus: Bus, asker: Asker, folder: Path, name: str = "t1") -> AsyncIterator[asyncio.Task[None]]:
    settings = Settings(work=folder, threads=1)
    folder.mkdir(exist_ok=True)
    runner = Runner(bus, asker.blobs, settings)
    holder = Holder(work="tag", worker=WorkerId(name), boot="b1", lease=LEASE)
    task = asyncio.create_task(Worker(bus, holder, runner.run).work_off())
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def ordinals(facts: list[AnyFact]) -> list[int]:
    return [image.ordinal for fact in facts if isinstance(fact, TaggingPredicted) for image in fact.images]


async def test_a_run_looks_at_every_image_and_says_what_made_the_predictions(
    asker: Asker, bus_of: BusOf, tmp_path: Path
) -> None:
    await asker.ask_for([png(number) for number in range(12)] + [b"no picture"])
    asker.images.append(TaggingImage(ordinal=13, picture=Digest("f" * 64)))
    async with tagging(await bus_of("tagger"), asker, tmp_path / "work"):
        facts = await asker.until(TaggingSucceeded)
    assert facts[-1].images == 14  # type: ignore[union-attr]
    assert facts[-1].unreadable == 2  # type: ignore[union-attr]
    assert ordinals(facts) == list(range(14))
    (loaded,) = [fact for fact in facts if isinstance(fact, TaggingModelLoaded)]
    model = Path(__file__).parents[2] / "tagger" / "standin" / "model.onnx"
    assert loaded.model == hashlib.sha256(model.read_bytes()).hexdigest()
    seen = [image for fact in facts if isinstance(fact, TaggingPredicted) for image in fact.images]
    assert all(image.predictions for image in seen[:12])
    assert [bool(image.unreadable) for image in seen] == [False] * 12 + [True] * 2
    assert "blobs" not in str([image.unreadable for image in seen])


async def test_a_stopped_run_goes_on_with_the_next_image(asker: Asker, bus_of: BusOf, tmp_path: Path) -> None:
    count = 12 * BATCH
    await asker.ask_for([png(number) for number in range(count)])
    async with tagging(await bus_of("tagger"), asker, tmp_path / "work"):
        await asker.until(TaggingPredicted)
    facts = await asker.facts()
    assert isinstance(facts[-1], TaggingInterrupted)
    assert 0 < facts[-1].step < count
    async with tagging(await bus_of("tagger"), asker, tmp_path / "work", "t2"):
        facts = await asker.until(TaggingSucceeded)
    assert ordinals(facts) == list(range(count))
    started = [fact for fact in facts if isinstance(fact, TaggingAttemptStarted)]
    assert [fact.worker for fact in started] == ["t1", "t2"]
    assert started[1].resumes == facts[facts.index(started[1]) - 1].step  # type: ignore[union-attr]


async def test_a_cancelled_run_stops_between_two_batches(asker: Asker, bus_of: BusOf, tmp_path: Path) -> None:
    count = 12 * BATCH
    await asker.ask_for([png(number) for number in range(count)])
    async with tagging(await bus_of("tagger"), asker, tmp_path / "work"):
        await asker.until(TaggingPredicted)
        await asker.say(*cancel(fold((await EventLog(asker.bus).load("tagging", RUN)).facts()), "tag"))  # type: ignore[arg-type]
        await nudge(asker.bus, "tag", RUN)
        facts = await asker.until(TaggingCancelled, within=WAIT)
    assert len(ordinals(facts)) == facts[-1].step < count  # type: ignore[union-attr]


async def test_a_model_that_is_not_there_fails_the_run_with_the_names_of_those_that_are(
    asker: Asker, bus_of: BusOf, tmp_path: Path
) -> None:
    await asker.ask_for([png(1)], model="../secret")
    async with tagging(await bus_of("tagger"), asker, tmp_path / "work"):
        facts = await asker.until(TaggingFailed)
    assert isinstance(facts[-1], TaggingFailed)
    assert "stand-in" in facts[-1].reason
    assert ordinals(facts) == []


async def test_pictures_of_an_object_store_are_fetched_and_not_kept(
    asker: Asker, bus_of: BusOf, tmp_path: Path
) -> None:
    asker.blobs = blobs_at("memory://")
    await asker.ask_for([png(number) for number in range(3)])
    asker.images.append(TaggingImage(ordinal=3, picture=Digest("f" * 64)))
    async with tagging(await bus_of("tagger"), asker, tmp_path / "work"):
        facts = await asker.until(TaggingSucceeded)
    assert (facts[-1].images, facts[-1].unreadable) == (4, 1)  # type: ignore[union-attr]
    assert list((tmp_path / "work").iterdir()) == []
