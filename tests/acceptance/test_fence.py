"""Who holds a job holds it alone: others may edit it, train beside it, stop its trainer or the bus; it ends once."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from contracts.events import (
    JobAttemptStarted,
    JobCancelled,
    JobCheckpointed,
    JobEdited,
    JobPrioritised,
    JobSucceeded,
)
from contracts.wire.health import why_not
from loratory.child import Child
from loratory.folder import DataFolder
from loratory.services import Place, command, settings
from tests.acceptance.chronicle import ENVIRON, LOST_LINES, PATIENCE, Shop, drawn, kill, workshop
from tests.limits import WAIT

pytestmark = [
    LOST_LINES,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]

PRIORITIES = ("high", "normal", "low")
SHORT_LEASE = 4
AWAY = 8.0
"""Seconds the bus is away; less than a lease."""


class Yard:
    """A workshop with one small data set."""

    def __init__(self, shop: Shop, dataset: str) -> None:
        self.shop, self.story, self._dataset = shop, shop.story, dataset

    async def train(self, name: str, *, steps: int, save: int = 20) -> str:
        """Its id, when its first step was told."""
        recipe = {
            "base": {"type": "builtin", "name": "stand-in"},
            "adapter": {"type": "lora", "rank": 4, "alpha": 2.0},
            "data": {"resolution": 64, "bucket_step": 8},
            "length": {"type": "steps", "count": steps},
            "save.every": save,
            "sampling": {"prompts": ["a creature"], "steps": 1},
        }
        job = await self.shop.wish("/training/single", name, dataset=self._dataset, name=name, changes=recipe)
        await self.story.until(lambda: self.story.step(job))
        return job

    def attempts(self, job: str) -> list[tuple[int, JobAttemptStarted]]:
        """Each with its number."""
        return [(stored.sequence, fact) for fact, stored in self.story.of(job) if isinstance(fact, JobAttemptStarted)]

    def end(self, job: str) -> int:
        """The sequence at which it ended well, and that was once."""
        (end,) = [stored.sequence for fact, stored in self.story.of(job) if isinstance(fact, JobSucceeded)]
        return end

    @asynccontextmanager
    async def second_trainer(self, work: Path) -> AsyncIterator[Child]:
        """Another trainer at the same bus and blobs, as somebody would start it by hand."""
        stack, environ = self.shop.stack, {**ENVIRON, "LORATORY_LEASE": str(SHORT_LEASE)}
        user, password = stack.nats.credentials("trainer")
        bus = {"NATS_URL": stack.nats.url, "NATS_USER": user, "NATS_PASSWORD": password}
        told = settings("trainer", DataFolder(stack.data), bus=bus, given=environ, at=Place("127.0.0.1", 0))
        own = {"LORATORY_WORK": str(work / "work"), "LORATORY_HEALTH_FILE": str(work / "health.json")}
        child = Child("second", command("trainer"), told | own, work / "second.log")
        await child.start()
        try:
            async with asyncio.timeout(PATIENCE):
                while why_not(work / "health.json", time.time()):  # noqa: ASYNC110 - another process writes it
                    await asyncio.sleep(0.1)
            yield child
        finally:
            await child.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def yard(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Yard]:
    async with _yard(tmp_path_factory.mktemp("yard")) as opened:
        yield opened


@asynccontextmanager
async def _yard(folder: Path, **more: str) -> AsyncIterator[Yard]:
    async with workshop(folder / "data", environ={**ENVIRON, **more}) as shop:
        dataset = await shop.wish("/datasets", "dataset", name="creatures")
        await shop.bring(dataset, drawn(folder / "pictures", 12), "upload")
        yield Yard(shop, dataset)


async def test_a_hundred_edits_do_not_fence_a_job_that_trains(yard: Yard) -> None:
    job = await yard.train("edited", steps=300, save=5)
    async with httpx.AsyncClient(base_url=yard.shop.stack.address, timeout=60) as http:
        for number in range(50):
            for change in ({"name": f"edit {number}"}, {"priority": PRIORITIES[number % 3 - 1]}):
                (await http.patch(f"/api/v1/jobs/{job}", json=change)).raise_for_status()
                await asyncio.sleep(0.03)
    await yard.shop.ended(job)

    edits = [stored.sequence for fact, stored in yard.story.of(job) if isinstance(fact, JobEdited | JobPrioritised)]
    saved = [stored.sequence for fact, stored in yard.story.of(job) if isinstance(fact, JobCheckpointed)]
    ((began, _),) = yard.attempts(job)
    assert len(set(edits)) == 100
    assert began < edits[0] < edits[-1] < yard.end(job)
    assert len(saved) == 60
    assert sum(edits[0] < sequence < edits[-1] for sequence in saved) > 5


async def test_two_trainers_train_two_jobs_at_once(yard: Yard, tmp_path: Path) -> None:
    async with yard.second_trainer(tmp_path):
        one, two = await asyncio.gather(yard.train("one", steps=150), yard.train("two", steps=150))
        await asyncio.gather(yard.shop.ended(one), yard.shop.ended(two))
    ((began_one, at_one),), ((began_two, at_two),) = yard.attempts(one), yard.attempts(two)
    assert at_one.worker != at_two.worker
    assert max(began_one, began_two) < min(yard.end(one), yard.end(two))


async def test_a_cancelled_job_stops_within_two_seconds(yard: Yard, capsys: pytest.CaptureFixture[str]) -> None:
    job = await yard.train("cancelled", steps=100_000)
    asked = time.monotonic()
    await yard.shop.wish(f"/jobs/{job}/cancel", "cancel")
    await yard.story.until(lambda: yard.story.facts(JobCancelled, job))
    took = time.monotonic() - asked
    with capsys.disabled():
        print(f"\na running job was cancelled in {took:.2f} s")  # noqa: T201 - the figure is what is asked for
    assert yard.story.work(job).state == "cancelled"


@pytest.mark.parametrize("how", ["dies again and again", "hangs"])
async def test_the_bus_is_away_for_a_while_and_the_job_goes_on(yard: Yard, how: str) -> None:
    job = await yard.train(f"nats {how}", steps=200)
    before = yard.story.work(job)
    assert before.open
    nats, until = yard.shop.stack.nats, time.monotonic() + AWAY
    if how == "hangs":
        assert nats.pid is not None
        os.kill(nats.pid, signal.SIGSTOP)
        await asyncio.sleep(AWAY)
        os.kill(nats.pid, signal.SIGCONT)
    while how != "hangs" and time.monotonic() < until:
        if nats.pid is not None:
            kill(nats.pid)
        await asyncio.sleep(0.05)
    after = await yard.shop.ended(job)
    assert (after.state, after.attempts) == ("completed", 1)
    assert yard.end(job)
    assert [step for step, _ in await yard.shop.losses(job)] == list(range(1, 201))


async def test_a_trainer_stopped_past_its_lease_writes_nothing_more(tmp_path: Path) -> None:
    async with _yard(tmp_path, LORATORY_LEASE=str(SHORT_LEASE)) as yard:
        story, first, log = yard.story, yard.shop.stack.pid_of("trainer"), tmp_path / "data" / "logs" / "trainer.log"
        assert first is not None
        job = await yard.train("stopped", steps=400)
        await story.until(lambda: story.work(job).kept)
        async with yard.second_trainer(tmp_path):
            os.kill(first, signal.SIGSTOP)
            try:
                await story.until(lambda: len(yard.attempts(job)) == 2)
                # Its child trains on meanwhile and fills the pipe: when it wakes, it has much to say.
                await story.until(lambda: len(story.facts(JobCheckpointed, job)) > 5)
            finally:
                os.kill(first, signal.SIGCONT)
            async with asyncio.timeout(WAIT):
                while "attempt_fenced" not in log.read_text():  # noqa: ASYNC110 - another process writes it
                    await asyncio.sleep(0.1)
            await yard.shop.ended(job)
            async with asyncio.timeout(WAIT):
                while len(list((tmp_path / "data" / "loras").glob("[!.]*"))) < 2:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.1)

        (_, one), (taken_over, two) = yard.attempts(job)
        assert one.worker != two.worker
        silent = f"svc:trainer/{one.worker}"
        assert all(stored.commit.actor != silent for _, stored in story.of(job) if stored.sequence >= taken_over)
        assert yard.end(job)
        assert "lora_published" not in log.read_text()
        assert "lora_published" in (tmp_path / "second.log").read_text()
