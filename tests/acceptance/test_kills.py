"""`kill -9` of every process while it holds work: it goes on, nothing is lost or doubled, and the LoRA is the same.

The same wishes with the same keys are carried out twice: once in peace, once with everybody killed in turn.
"""

import asyncio
import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from contracts.events import ImageAdded, JobSucceeded, TaggingPredicted
from contracts.ids import Digest
from tests.acceptance.chronicle import LOST_LINES, PATIENCE, Shop, child_of, drawn, kill, workshop
from tests.limits import WAIT

pytestmark = [
    LOST_LINES,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]

PICTURES, UPLOAD, STEPS, SAVE = 300, 100, 1000, 100
WITHIN = 180.0
"""Seconds after which work must go on."""

RECIPE: dict[str, object] = {
    "base": {"type": "builtin", "name": "stand-in"},
    "adapter": {"type": "lora", "rank": 4, "alpha": 2.0},
    "optimizer.lr": 1e-3,
    "data": {"resolution": 64, "bucket_step": 8},
    "length": {"type": "steps", "count": STEPS},
    "save.every": SAVE,
    "sampling": {"prompts": ["a creature"], "steps": 1},
}


@dataclass
class Made:
    """What one run left behind, and how long it took to go on after each kill, in seconds."""

    images: list[ImageAdded]
    predictions: list[tuple[int, object]]
    succeeded: list[JobSucceeded]
    loras: dict[str, str]
    losses: list[tuple[int, float]]
    listed: Sequence[tuple[str, list[tuple[str, str, float | None]]]]
    took: float
    gone_on: dict[str, float] = field(default_factory=dict)

    @property
    def artifacts(self) -> dict[str, Digest]:
        return {artifact.format: artifact.digest for artifact in self.succeeded[0].artifacts}


class Killer:
    """Strikes while there is work in hand, and measures until it goes on."""

    def __init__(self, shop: Shop) -> None:
        self._shop, self._story = shop, shop.story
        self.gone_on: dict[str, float] = {}
        self._watched = 0

    async def watch(self, job: str) -> list[tuple[str, str | None]]:
        """The job over a WebSocket, to its end: its facts by type and cursor."""
        facts: list[tuple[str, str | None]] = []
        async for frame in self._shop.client.watch_job(job):
            self._watched = max(self._watched, frame.data.get("current_step", 0))
            if frame.seq is not None:
                facts.append((frame.type, frame.seq))
        return facts

    async def importing(self, killed: str) -> None:
        """While an upload is under way of which some pictures are in and some are not."""

        def added() -> int:
            return len(self._story.facts(ImageAdded))

        await self._story.until(lambda: added() % UPLOAD)
        before = added()
        assert before % UPLOAD and before < PICTURES
        await self._struck(f"{killed}, importing", self._shop.stack.pid_of(killed), lambda: added() > before)

    async def tagging(self, run: str) -> None:
        """While a tagging attempt is open that has kept some predictions."""
        await self._story.until(lambda: self._story.work(run).kept)
        before = self._story.work(run)
        assert before.open
        assert 0 < before.kept < PICTURES

        def goes_on() -> bool:
            now = self._story.work(run)
            return now.attempt > before.attempt and now.kept > before.kept

        await self._struck("tagger, tagging", self._shop.stack.pid_of("tagger"), goes_on)

    async def training(self, killed: str, job: str, at: int) -> None:
        """While a job trains and stands between two checkpoints, not before step `at`."""
        story, stack = self._story, self._shop.stack
        await story.until(lambda: story.step(job) >= at and story.step(job) > story.work(job).kept)
        before, step = story.work(job), story.step(job)
        assert before.open
        assert step > before.kept > 0
        trainer = stack.pid_of("trainer")
        pid = child_of(trainer) if killed == "child" else stack.pid_of(killed)

        def goes_on() -> bool:
            told, now = story.progress[job], story.work(job)
            if killed in ("child", "trainer"):
                return now.open and told.attempt == now.attempt > before.attempt and told.step > now.kept_before
            # The training itself needs no gateway; who watches it through one does.
            return (self._watched if killed == "gateway" else told.step) > step

        await self._struck(f"{killed}, training", pid, goes_on)

    async def _struck(self, name: str, pid: int | None, goes_on: Callable[[], bool]) -> None:
        at = kill(pid)
        await self._story.until(goes_on)
        self.gone_on[name] = time.monotonic() - at


async def made(data: Path, pictures: list[Path], *, killing: bool) -> Made:
    """From pictures to a LoRA, in peace or not."""
    began = time.monotonic()
    async with workshop(data) as shop:
        killer = Killer(shop)
        dataset = await shop.wish("/datasets", "dataset", name="creatures")
        importing = asyncio.create_task(imported(shop, dataset, pictures))
        if killing:
            await killer.importing("gateway")
            await killer.importing("catalog")
        await importing
        run = await shop.wish("/tagging/runs", "run", dataset=dataset)
        if killing:
            await killer.tagging(run)
        assert (await shop.ended(run)).state == "completed"
        # The log is ahead of the rows that a version is frozen from; what clients are told is not.
        await shop.client.wait_tagging(run, timeout=PATIENCE)
        job = await shop.wish("/training/single", "job", dataset=dataset, trigger="crtr", changes=RECIPE)
        watching = asyncio.create_task(killer.watch(job))
        if killing:
            for number, killed in enumerate(("nats", "gateway", "child", "trainer")):
                await killer.training(killed, job, at=(2 * number + 1) * SAVE + SAVE // 4)
        assert (await shop.ended(job)).state == "completed"
        watched = await watching
        assert [name for name, _ in watched] == [type(fact).__struct_config__.tag for fact, _ in shop.story.of(job)]
        listed = [
            (image.id, [(tag.tag, tag.source, tag.probability) for tag in image.tags])
            for image in await shop.client.images(dataset)
        ]
        losses = await shop.losses(job)
        loras = await laid_out(data / "loras", 2)
    story = shop.story
    return Made(
        images=story.facts(ImageAdded),
        predictions=[(one.ordinal, one) for fact in story.facts(TaggingPredicted) for one in fact.images],
        succeeded=story.facts(JobSucceeded),
        loras=loras,
        losses=losses,
        listed=listed,
        took=time.monotonic() - began,
        gone_on=killer.gone_on,
    )


async def imported(shop: Shop, dataset: str, pictures: list[Path]) -> None:
    for number, first in enumerate(range(0, PICTURES, UPLOAD)):
        await shop.bring(dataset, pictures[first : first + UPLOAD], f"upload-{number}")


async def laid_out(folder: Path, count: int) -> dict[str, str]:
    """The finished files by name, with their sha256."""
    async with asyncio.timeout(WAIT):
        while len(files := sorted(folder.glob("[!.]*.safetensors"))) < count:  # noqa: ASYNC110 - another process does it
            await asyncio.sleep(0.1)
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return drawn(tmp_path_factory.mktemp("pictures"), PICTURES)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def in_peace(tmp_path_factory: pytest.TempPathFactory, pictures: list[Path]) -> Made:
    return await made(tmp_path_factory.mktemp("peace") / "data", pictures, killing=False)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def killed(tmp_path_factory: pytest.TempPathFactory, pictures: list[Path]) -> Made:
    return await made(tmp_path_factory.mktemp("killed") / "data", pictures, killing=True)


async def test_work_goes_on_after_each_kill(killed: Made, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\nseconds until work went on after kill -9 (the whole run took {killed.took:.0f} s):")  # noqa: T201 - these figures are what is asked for
        for name, seconds in killed.gone_on.items():
            print(f"  {name:<20} {seconds:5.1f}")  # noqa: T201 - these figures are what is asked for
    assert len(killed.gone_on) == 7
    assert max(killed.gone_on.values()) <= WITHIN


async def test_no_picture_is_lost_or_doubled(in_peace: Made, killed: Made) -> None:
    assert sorted(image.ordinal for image in killed.images) == list(range(PICTURES))
    assert len({image.picture for image in killed.images}) == PICTURES
    by_ordinal = {image.ordinal: (image.image_id, image.picture) for image in in_peace.images}
    assert {image.ordinal: (image.image_id, image.picture) for image in killed.images} == by_ordinal


async def test_each_picture_has_the_same_predictions_once(in_peace: Made, killed: Made) -> None:
    assert sorted(ordinal for ordinal, _ in killed.predictions) == list(range(PICTURES))
    assert dict(killed.predictions) == dict(in_peace.predictions)
    assert killed.listed == in_peace.listed


async def test_one_success_and_the_very_same_files(in_peace: Made, killed: Made) -> None:
    assert len(killed.succeeded) == len(in_peace.succeeded) == 1
    assert killed.artifacts == in_peace.artifacts
    assert killed.loras == in_peace.loras
    assert killed.losses == in_peace.losses
    assert sorted(killed.loras.values()) == sorted(killed.artifacts.values())
