"""A trainer with its real child, a real log and queue: what people see of a job from start to end."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from contracts.events import (
    AnyFact,
    Cancelled,
    Failed,
    JobAttemptFailed,
    JobAttemptStarted,
    JobCancelled,
    JobCheckpointed,
    JobCreated,
    JobFailed,
    JobInterrupted,
    JobPlanned,
    JobQueued,
    JobSampled,
    JobSucceeded,
)
from contracts.ids import DatasetId, Digest, ImageId, VersionId, WorkerId
from contracts.jobs import cancel, fold
from contracts.queries import ManifestEntry, Page, ReadManifest
from contracts.recipe import overlaid
from contracts.wire.blobs import LocalBlobs
from contracts.wire.bus import Bus
from contracts.wire.log import EventLog, draw_up
from contracts.wire.presence import Sign
from contracts.wire.queue import Hint, WorkQueue
from contracts.wire.service import Service
from contracts.wire.telling import nudge, read_losses
from contracts.wire.work import Holder, Worker
from tests.conftest import LEASE, BusOf, origin
from tests.limits import WAIT
from tests.trainer.builders import SMALL
from trainer.messages import Example
from trainer.settings import Settings
from trainer.worker import Trainer

ENDS = Cancelled | Failed | JobSucceeded
HUNG_SECONDS = 20.0
"""Longer than anything takes that a child does in silence, also on a busy machine."""


class Asker:
    """The catalog's part: jobs, their manifests, and the end of them."""

    def __init__(self, bus: Bus, entries: list[ManifestEntry]) -> None:
        self.bus, self.entries = bus, entries

    async def answer(self, _: ReadManifest) -> Page[ManifestEntry]:
        return Page(items=tuple(self.entries), total=len(self.entries))

    async def say(self, job: str, *facts: AnyFact) -> int:
        log = EventLog(self.bus)
        head = (await log.load("job", job)).head
        return (await log.append(draw_up("job", job, facts, after=head, origin=origin()), head)).sequence

    async def ask_for(self, job: str, **changes: object) -> None:
        recipe = overlaid(SMALL, {name.replace("__", "."): value for name, value in changes.items()})
        asked = JobCreated(
            name=f"a {job}",
            mode="single",
            dataset_id=DatasetId("ds_1"),
            dataset="creatures",
            version=1,
            version_id=VersionId("ver_1"),
            manifest=Digest("0" * 64),
            images=len(self.entries),
            recipe=recipe,
        )
        dispatch = await self.say(job, asked, JobQueued(priority="normal"))
        await WorkQueue(self.bus, "train").put(Hint(id=job, dispatch=dispatch), "normal")

    async def facts(self, job: str) -> list[AnyFact]:
        return [fact for fact, _ in (await EventLog(self.bus).load("job", job)).facts()]

    async def until(self, job: str, kind: object, within: float = WAIT) -> list[AnyFact]:
        async with asyncio.timeout(within):
            while not any(isinstance(fact, kind) for fact in await self.facts(job)):  # type: ignore[arg-type]  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return await self.facts(job)


@pytest.fixture
def settings(tmp_path: Path, base: Path) -> Settings:
    """The built-in base lies ready: making it is another test's."""
    made = Settings(
        bases=tmp_path / "bases", cache=tmp_path / "cache", work=tmp_path / "work", loras=tmp_path / "loras"
    )
    for folder in (made.bases, made.work):
        folder.mkdir()
    shutil.copytree(base, made.cache / "bases" / "stand-in")
    return made


@pytest.fixture
async def asker(bus_of: BusOf, tmp_path: Path, examples: list[Example]) -> AsyncIterator[Asker]:
    blobs = LocalBlobs(tmp_path / "blobs")
    entries = [
        ManifestEntry(
            ordinal=one.ordinal,
            image=ImageId(f"img_{one.ordinal}"),
            picture=await blobs.put(Path(one.path)),
            caption=one.caption,
            width=64,
            height=64,
        )
        for one in examples
    ]
    bus = await bus_of("catalog")
    asking = Asker(bus, entries)
    service = Service(bus, "catalog", "0.1.0")
    await service.start(queries={ReadManifest: asking.answer})
    yield asking
    await service.close()


@asynccontextmanager
async def training(
    bus: Bus, settings: Settings, blobs: Path, name: str = "w1", stall: float = 600
) -> AsyncIterator[Trainer]:
    sign = Sign(service="trainer", worker=WorkerId(name))
    trainer = Trainer(bus, LocalBlobs(blobs), settings, settings.work / name, sign, os.environ)
    holder = Holder(work="train", worker=WorkerId(name), boot="b1", lease=LEASE, stall=stall)
    task = asyncio.create_task(Worker(bus, holder, trainer.run, trainer.settle).work_off())
    try:
        yield trainer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await trainer.close()


def only(facts: list[AnyFact], kind: type) -> list[AnyFact]:
    return [fact for fact in facts if isinstance(fact, kind)]


async def test_one_warm_child_trains_fails_is_cancelled_and_trains_again(
    asker: Asker, bus_of: BusOf, settings: Settings, tmp_path: Path
) -> None:
    async with training(await bus_of("trainer"), settings, tmp_path / "blobs") as trainer:
        await asker.ask_for("job_1", length__count=6, save__every=4)
        facts = await asker.until("job_1", ENDS)
        assert isinstance(facts[-1], JobSucceeded), facts[-1]
        assert [one.step for one in facts if isinstance(one, JobCheckpointed)] == [4, 6]
        assert (len(only(facts, JobPlanned)), len(only(facts, JobSampled))) == (1, 1)
        pid = trainer._child.pid if trainer._child else None

        # Refused before the child hears of it: the reason names the folder.
        await asker.ask_for("job_2", base={"type": "folder", "path": "nowhere"})
        failed = (await asker.until("job_2", ENDS))[-1]
        assert isinstance(failed, JobFailed)
        assert (failed.code, "'nowhere'" in failed.reason) == ("rejected", True)

        await asker.ask_for("job_3", length__count=100_000, save__every=2)
        running = await asker.until("job_3", JobCheckpointed)
        await asker.say("job_3", *cancel(fold((fact, 1) for fact in running), "train"))  # type: ignore[arg-type]
        await nudge(asker.bus, "train", "job_3")
        facts = await asker.until("job_3", ENDS)
        assert isinstance(facts[-1], JobCancelled)
        assert facts[-1].step >= 2

        # The same recipe again is the same file, bit for bit, and the child is the one that was warm.
        await asker.ask_for("job_4", length__count=6, save__every=4)
        again = (await asker.until("job_4", ENDS))[-1]
        assert trainer._child is not None
        assert trainer._child.pid == pid
        first = (await asker.facts("job_1"))[-1]
        assert isinstance(again, JobSucceeded)
        assert isinstance(first, JobSucceeded)
        assert [one.tensors for one in again.artifacts] == [one.tensors for one in first.artifacts]
        async with asyncio.timeout(WAIT):
            while await WorkQueue(asker.bus, "train").waiting():  # noqa: ASYNC110 - a queue tells nobody
                await asyncio.sleep(0.05)
    assert sorted(path.name for path in settings.loras.iterdir()) == [
        f"a-job_{number}{form}.safetensors" for number in (1, 4) for form in ("-diffusers", "")
    ]
    assert not list((settings.work / "w1").glob("*"))


async def test_a_stopped_trainer_leaves_a_checkpoint_that_the_next_goes_on_from(
    asker: Asker, bus_of: BusOf, settings: Settings, tmp_path: Path
) -> None:
    await asker.ask_for("job_1", length__count=60, save__every=10)
    async with training(await bus_of("trainer"), settings, tmp_path / "blobs"):
        await asker.until("job_1", JobCheckpointed)
    facts = await asker.facts("job_1")
    assert isinstance(facts[-1], JobInterrupted)
    (*_, left) = [fact.step for fact in facts if isinstance(fact, JobCheckpointed)]
    assert facts[-1].step == left >= 10

    async with training(await bus_of("trainer"), settings, tmp_path / "blobs", "w2"):
        facts = await asker.until("job_1", ENDS)
    assert isinstance(facts[-1], JobSucceeded), facts[-1]
    assert [fact.resumes for fact in facts if isinstance(fact, JobAttemptStarted)] == [0, left]
    blocks = await read_losses(asker.bus, "job_1")  # type: ignore[arg-type]
    steps = {block.first + index for block in blocks for index in range(len(block.losses))}
    assert steps == set(range(1, 61))
    assert not msgspec.json.encode(facts).count(str(tmp_path).encode())


async def test_a_child_that_hangs_is_ended_and_another_goes_on_from_the_checkpoint(
    asker: Asker, bus_of: BusOf, settings: Settings, tmp_path: Path
) -> None:
    """The trainer itself is well all the while, and says so to the queue."""
    await asker.ask_for("job_1", length__count=40, save__every=5)
    async with training(await bus_of("trainer"), settings, tmp_path / "blobs", stall=HUNG_SECONDS) as trainer:
        await asker.until("job_1", JobCheckpointed, within=WAIT)
        assert trainer._child is not None
        hung = trainer._child.pid
        os.kill(hung, signal.SIGSTOP)
        facts = await asker.until("job_1", ENDS, within=WAIT)
        assert trainer._child.pid != hung
    assert isinstance(facts[-1], JobSucceeded), facts[-1]
    failed, *_ = [fact for fact in facts if isinstance(fact, JobAttemptFailed)]
    assert failed.reason == f"nothing moved for {HUNG_SECONDS:g} s"
    resumed = [fact.resumes for fact in facts if isinstance(fact, JobAttemptStarted)]
    assert resumed[:2] == [0, failed.step]
    assert failed.step >= 5
