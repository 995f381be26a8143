"""How commands are executed: what waits for what, while the read model does not apply what the log already has."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from catalog.service.execution import CommandOutcome, ExecutionLimits
from catalog.service.locks import Scope
from contracts.commands.datasets import (
    CreateDataset,
    DatasetResult,
    EditTags,
    EraseImage,
    RenameDataset,
    SetCaption,
    SetThresholds,
)
from contracts.commands.jobs import CreateJob, StartJob
from contracts.commits import Commit, LogEntry, RecordedCommit, StreamRevision
from contracts.errors import Behind, InUse, KeyReused, Rejected, Unavailable
from contracts.events.datasets import DatasetRenamed
from contracts.ids import DatasetId, JobId, derived
from contracts.wire.log.event_log import EventLog
from tests.catalog.harness import CatalogHarness, event_names, image_id_of, open_catalog
from tests.catalog.slicing import HeldSlices, smallest_slices
from tests.conftest import BusOf, command_metadata, last_sequence
from tests.limits import WAIT

PATIENT = ExecutionLimits(repeat=WAIT, decide=WAIT, show=WAIT)


@pytest.fixture(autouse=True)
def patient(request: pytest.FixtureRequest) -> None:
    """No limit is reached unless a test sets one."""
    if "harness" in request.fixturenames:
        harness: CatalogHarness = request.getfixturevalue("harness")
        harness.executor.limits = PATIENT


class Gate:
    """While closed, the read model applies nothing."""

    def __init__(self, harness: CatalogHarness, monkeypatch: pytest.MonkeyPatch) -> None:
        self._opened, self._log, take_in = asyncio.Event(), harness.executor.log, harness.executor.store.take_in

        async def take_in_when_open(batch: Sequence[LogEntry]) -> int:
            await self._opened.wait()
            return await take_in(batch)

        monkeypatch.setattr(harness.executor.store, "take_in", take_in_when_open)

    def open(self) -> None:
        self._opened.set()

    async def until_appended(self, sequence: int) -> None:
        """Until the log has come so far."""
        async with asyncio.timeout(WAIT):
            while await last_sequence(self._log) < sequence:  # noqa: ASYNC110 - the server announces it to others only
                await asyncio.sleep(0.01)


@pytest.fixture
def closed_gate(harness: CatalogHarness, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Gate]:
    return lambda: Gate(harness, monkeypatch)


def accept_at_once(harness: CatalogHarness) -> None:
    """No answer waits for the read model."""
    harness.executor.limits = msgspec.structs.replace(PATIENT, show=0)


async def start(command: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """The command runs until it has to wait for something."""
    task = asyncio.create_task(command)
    await asyncio.sleep(0.1)
    return task


async def end(harness: CatalogHarness) -> int:
    return await last_sequence(harness.executor.log)


# --- what waits for what


async def test_edits_of_different_images_do_not_wait_for_each_other_and_all_others_wait_for_them(
    harness: CatalogHarness, closed_gate: Callable[[], Gate]
) -> None:
    cats = await harness.dataset(pictures=12)
    gate, before = closed_gate(), await end(harness)
    edits = [
        asyncio.create_task(harness.execute(EditTags(image=image_id_of(cats, number), add=(f"tag_{number}",))))
        for number in range(12)
    ]
    await gate.until_appended(before + 12)
    same_image = await start(harness.execute(EditTags(image=image_id_of(cats, 3), remove=("tag_3",))))
    whole = await start(harness.execute(SetThresholds(dataset=cats, categories={"general": 0.5, "character": 0.5})))
    assert await end(harness) == before + 12
    assert not any(task.done() for task in (*edits, same_image, whole))

    gate.open()
    results = await asyncio.gather(*edits, same_image, whole)
    assert [result.shown for result in results] == [True] * 14
    assert len({result.sequence for result in results}) == 14
    assert event_names(await harness.events("dataset", cats))[-14:] == ["TagsEdited"] * 13 + ["ThresholdsSet"]
    assert [await harness.tags(image_id_of(cats, number)) for number in (2, 3)] == [{"tag_2"}, set()]
    assert harness.executor.store.last_foreign == 0


@pytest.mark.slow
async def test_a_slow_application_of_one_data_set_delays_no_command_on_another(
    harness: CatalogHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    cats, dogs = await harness.dataset("cats", pictures=1), await harness.dataset("dogs", pictures=1)
    held = HeldSlices(harness.executor.store, monkeypatch)
    first = SetThresholds(dataset=cats, categories={"general": 0.2, "character": 0.2})
    with smallest_slices():
        moved = asyncio.create_task(harness.execute(first))
        await held.until_pending()
    slow = [
        moved,
        await start(harness.execute(SetThresholds(dataset=cats, categories={"general": 0.1, "character": 0.1}))),
        await start(harness.execute(EditTags(image=image_id_of(cats, 0), add=("cat",)))),
        await start(harness.execute(RenameDataset(dataset=cats, name="lions"))),
    ]

    others = [
        await harness.execute(EditTags(image=image_id_of(dogs, 0), add=("dog",))),
        await harness.execute(SetThresholds(dataset=dogs, categories={"general": 0.2, "character": 0.2})),
        await harness.execute(SetCaption(image=image_id_of(dogs, 0), caption="a dog")),
        await harness.execute(CreateJob(dataset=dogs, preset="tiny-random-demo")),
    ]

    assert all(result.shown for result in others)
    assert not any(task.done() for task in slow)
    held.release()
    assert all(result.shown for result in await asyncio.gather(*slow))


async def test_two_data_sets_do_not_get_one_name_while_the_first_is_not_shown(
    harness: CatalogHarness, closed_gate: Callable[[], Gate]
) -> None:
    other = await harness.dataset("other")
    gate, before = closed_gate(), await end(harness)
    first = asyncio.create_task(harness.execute(CreateDataset(name="cats")))
    await gate.until_appended(before + 1)
    second = await start(harness.execute(CreateDataset(name="Cats")))
    third = await start(harness.execute(RenameDataset(dataset=other, name="CATS")))
    gate.open()
    results = await asyncio.gather(first, second, third, return_exceptions=True)
    assert isinstance(results[0], DatasetResult) and results[0].shown
    assert [type(result) for result in results[1:]] == [Rejected, Rejected]
    assert await end(harness) == before + 1


async def test_no_image_is_erased_under_a_job_that_was_just_started(
    harness: CatalogHarness, closed_gate: Callable[[], Gate]
) -> None:
    cats = await harness.dataset(pictures=2)
    job = JobId((await harness.create_job(CreateJob(dataset=cats, preset="tiny-random-demo"))).id)
    gate, before = closed_gate(), await end(harness)
    started = asyncio.create_task(harness.execute(StartJob(job=job)))
    await gate.until_appended(before + 1)
    erasing = await start(harness.execute(EraseImage(image=image_id_of(cats, 0))))
    gate.open()
    assert (await started).status == "pending"
    with pytest.raises(InUse):
        await erasing
    assert await end(harness) == before + 1


async def test_no_job_is_started_on_an_image_that_was_just_erased(
    harness: CatalogHarness, closed_gate: Callable[[], Gate]
) -> None:
    cats = await harness.dataset(pictures=2)
    job = JobId((await harness.create_job(CreateJob(dataset=cats, preset="tiny-random-demo"))).id)
    gate, before = closed_gate(), await end(harness)
    erasing = asyncio.create_task(harness.execute(EraseImage(image=image_id_of(cats, 0))))
    await gate.until_appended(before + 1)
    starting = await start(harness.execute(StartJob(job=job)))
    gate.open()
    await erasing
    with pytest.raises(Rejected, match="erased"):
        await starting
    assert await end(harness) == before + 1


async def test_locks_are_taken_in_one_order(harness: CatalogHarness) -> None:
    async def decide() -> CommandOutcome:
        await asyncio.sleep(0)
        return CommandOutcome(DatasetResult(id="d", name="d"), [])

    scopes = [Scope(("a", "b")), Scope(("b", "a")), Scope(("b", "c")), Scope(("c", "a"))] * 5
    async with asyncio.timeout(WAIT):
        results = await asyncio.gather(
            *(harness.executor.execute(command_metadata(), scope, decide) for scope in scopes)
        )
    assert [result.changed for result in results] == [False] * 20


# --- what is answered


async def test_what_is_appended_is_accepted_and_what_cannot_be_decided_is_not_appended(
    harness: CatalogHarness, closed_gate: Callable[[], Gate]
) -> None:
    cats = await harness.dataset(pictures=2)
    gate, before = closed_gate(), await end(harness)
    harness.executor.limits = ExecutionLimits(repeat=WAIT, decide=0.2, show=0)
    edit = EditTags(image=image_id_of(cats, 0), add=("cat",))

    accepted = await harness.execute(edit, "c1", "f")
    assert (accepted.sequence, accepted.shown, accepted.changed) == (before + 1, False, True)
    assert await harness.execute(edit, "c1", "f") == accepted
    with pytest.raises(KeyReused):
        await harness.execute(edit, "c1", "another")
    with pytest.raises(Behind, match="nothing was changed"):
        await harness.execute(EditTags(image=edit.image, add=("dog",)))
    with pytest.raises(Behind, match="nothing was changed"):
        await harness.execute(SetThresholds(dataset=cats, categories={"general": 0.1, "character": 0.1}))
    assert not (await harness.execute(EditTags(image=image_id_of(cats, 1), add=("cat",)))).shown
    assert await end(harness) == before + 2

    gate.open()
    await harness.executor.store.wait_for(before + 2, WAIT)
    assert await harness.execute(edit, "c1", "f") == msgspec.structs.replace(accepted, shown=True)
    assert [await harness.tags(image_id_of(cats, number)) for number in (0, 1)] == [{"cat"}, {"cat"}]


async def test_the_number_of_commands_that_are_not_shown_is_limited(
    harness: CatalogHarness, closed_gate: Callable[[], Gate]
) -> None:
    cats = await harness.dataset(pictures=4)
    gate, before = closed_gate(), await end(harness)
    harness.executor.limits = msgspec.structs.replace(PATIENT, show=0, unshown=2)
    for number in range(2):
        await harness.execute(EditTags(image=image_id_of(cats, number), add=("cat",)))
    with pytest.raises(Behind, match="too many"):
        await harness.execute(EditTags(image=image_id_of(cats, 2), add=("cat",)))
    gate.open()
    await harness.executor.store.wait_for(before + 2, WAIT)
    assert (await harness.execute(EditTags(image=image_id_of(cats, 2), add=("cat",)))).sequence == before + 3


# --- repeated commands


async def test_a_command_repeated_while_the_first_is_in_progress_has_one_effect(
    harness: CatalogHarness, closed_gate: Callable[[], Gate]
) -> None:
    gate, before = closed_gate(), await end(harness)
    create = CreateDataset(name="cats")
    tasks = [asyncio.create_task(harness.execute(create, "c1", "f")) for _ in range(3)]
    await gate.until_appended(before + 1)
    tasks.append(await start(harness.execute(create, "c1", "f")))
    gate.open()
    first, *others = await asyncio.gather(*tasks)
    assert others == [first] * 3
    assert await end(harness) == before + 1


async def test_a_command_that_was_not_shown_when_the_catalog_stopped_has_one_effect(
    bus_of: BusOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = await bus_of("catalog")
    async with open_catalog(bus, tmp_path / "data") as harness:
        cats = await harness.dataset(pictures=1)
        edit = EditTags(image=image_id_of(cats, 0), add=("cat",))
        Gate(harness, monkeypatch)
        accept_at_once(harness)
        accepted = [
            await harness.execute(edit, "c1", "f"),
            await harness.execute(CreateDataset(name="dogs"), "c2", "f"),
        ]
        assert not any(result.shown for result in accepted)
    async with open_catalog(bus, tmp_path / "data") as harness:
        repeated = [
            await harness.execute(edit, "c1", "f"),
            await harness.execute(CreateDataset(name="dogs"), "c2", "f"),
        ]
        with pytest.raises(KeyReused):
            await harness.execute(edit, "c2", "g")
        assert repeated == [msgspec.structs.replace(result, shown=True) for result in accepted]
        assert event_names(await harness.events("dataset", cats))[2:] == ["TagsEdited"]


class UnansweredLog(EventLog):
    """The first append is stored, and nobody learns that."""

    def __init__(self, harness: CatalogHarness) -> None:
        super().__init__(harness.bus, verdicts=harness.executor.log.verdicts)
        self.signer = harness.executor.log.signer
        self._is_lost = True

    async def append_atomically(self, commits: Sequence[tuple[Commit, StreamRevision]]) -> list[RecordedCommit]:
        recorded = await super().append_atomically(commits)
        if self._is_lost:
            self._is_lost = False
            raise Unavailable("the event log did not answer")
        return recorded


async def test_an_append_without_an_answer_is_looked_up_before_anything_else_is_decided(
    harness: CatalogHarness, closed_gate: Callable[[], Gate]
) -> None:
    harness.executor.log = UnansweredLog(harness)
    gate, before = closed_gate(), await end(harness)
    with pytest.raises(Unavailable):
        await harness.execute(CreateDataset(name="cats"), "c1", "f")
    other = await start(harness.execute(CreateDataset(name="cats")))
    repeated = await start(harness.execute(CreateDataset(name="cats"), "c1", "f"))
    gate.open()
    with pytest.raises(Rejected, match="already"):
        await other
    assert (await repeated).id == DatasetId(derived("ds", "c1"))
    assert await end(harness) == before + 1


async def test_a_command_does_not_follow_a_name_to_another_data_set(harness: CatalogHarness) -> None:
    cats, dogs = await harness.dataset("cats"), await harness.dataset("dogs")
    is_renamed = asyncio.Event()

    async def decide() -> CommandOutcome:
        await is_renamed.wait()
        return CommandOutcome(DatasetResult(id=cats, name="cats"), [])

    holding = await start(harness.executor.execute(command_metadata(), Scope((cats,)), decide))
    waiting = await start(harness.execute(SetThresholds(dataset="cats", categories={"general": 0.9, "character": 0.9})))
    await harness.append("dataset", cats, DatasetRenamed(name="lions"))
    await harness.append("dataset", dogs, DatasetRenamed(name="cats"))
    is_renamed.set()
    await holding
    with pytest.raises(Behind, match="another data set"):
        await waiting
    assert event_names(await harness.events("dataset", dogs)) == ["DatasetCreated", "DatasetRenamed"]
