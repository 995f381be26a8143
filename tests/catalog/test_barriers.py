"""Commands that meet: what was appended and is not shown yet, and what a freeze computed before an erasure.

One effect each, and nothing is erased that a job trains on. Two creations of one name, and an erasure against the start
of a job with a version, are in `test_execution`.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.commands.datasets import EditTags, EraseImage, FreezeVersion, Undo
from contracts.commands.jobs import CreateJob
from contracts.errors import InUse, KeyReused
from contracts.ids import JobId
from contracts.queries.datasets import GetVersion, ReadManifest
from tests.catalog.harness import PURGE_LIMITS, CatalogHarness, event_names, image_id_of, open_catalog
from tests.catalog.test_execution import Gate, accept_at_once, closed_gate, end, patient, start
from tests.catalog.test_versions import HeldBlobs, frozen_events
from tests.catalog.test_watch import query
from tests.conftest import BusOf
from tests.limits import WAIT

__all__ = ["closed_gate", "patient"]
"""Fixtures."""


async def read_images(harness: CatalogHarness) -> list[str]:
    """The images of version 1, each of which can be read."""
    version = await query(harness, GetVersion(dataset="cats", version=1))
    entries = (await query(harness, ReadManifest(version_id=version.version_id))).items
    assert (version.images, version.erased) == (len(entries), 0)
    return [entry.image for entry in entries]


async def test_an_image_is_not_erased_under_a_job_whose_version_was_just_frozen(
    harness: CatalogHarness, closed_gate: Callable[[], Gate]
) -> None:
    cats = await harness.dataset(pictures=2)
    async with harness.catalog.freezer.draft(cats, ""):  # the freeze for the job waits
        job = JobId((await harness.execute(CreateJob(dataset="cats", start=True))).id)
        gate, before = closed_gate(), await end(harness)
    await gate.until_appended(before + 2)  # the version and the queued job, at once
    erasing = await start(harness.execute(EraseImage(image=image_id_of(cats, 0))))
    gate.open()
    with pytest.raises(InUse):
        await erasing
    await harness.wait_until_frozen(job)
    assert await end(harness) == before + 2
    assert await read_images(harness) == [image_id_of(cats, 0), image_id_of(cats, 1)]


@pytest.mark.parametrize("what", ["version", "job"])
async def test_an_image_erased_while_its_data_set_is_frozen_is_in_no_page(
    bus_of: BusOf, tmp_path: Path, what: str
) -> None:
    """The pages were computed before the erasure, and are made anew at the append."""
    blobs = HeldBlobs(tmp_path / "blobs")
    async with open_catalog(await bus_of("catalog"), tmp_path, PURGE_LIMITS, blobs) as harness:
        cats = await harness.dataset(pictures=3)
        erased = image_id_of(cats, 1)
        command = FreezeVersion(dataset="cats") if what == "version" else CreateJob(dataset="cats", start=True)
        freezing = asyncio.create_task(harness.execute(command))
        await blobs.requested.wait()
        as_of = harness.executor.store.applied
        erasing = asyncio.create_task(harness.execute(EraseImage(image=erased)))
        await harness.executor.store.wait_for(as_of + 1, WAIT)
        blobs.released.set()
        await asyncio.gather(freezing, erasing)
        if what == "job":
            row = await harness.wait_until_frozen((await freezing).id)
            assert row.work.state == "queued"
        assert (await query(harness, GetVersion(dataset="cats", version=1))).as_of == as_of
        assert await read_images(harness) == [image_id_of(cats, 0), image_id_of(cats, 2)]
        (frozen,) = await frozen_events(harness, cats)
        named = [await blobs.get(digest) for digest in (frozen.manifest, *frozen.pages)]
        assert not any(erased.encode() in content for content in named)


async def test_an_image_whose_erasure_was_just_appended_is_in_no_page(
    harness: CatalogHarness, closed_gate: Callable[[], Gate]
) -> None:
    """The draft was computed before; the append waits until the erasure is shown."""
    cats = await harness.dataset(pictures=2)
    freezer, compute, gates = harness.catalog.freezer, harness.catalog.freezer._compute, list[Gate]()
    erasing, erased = list[asyncio.Task[object]](), asyncio.Event()

    async def compute_and_erase(*asked: object) -> object:
        draft = await compute(*asked)  # type: ignore[arg-type]  # as they came
        gates.append(closed_gate())
        before = await end(harness)
        erasing.append(asyncio.create_task(harness.execute(EraseImage(image=image_id_of(cats, 0)))))
        await gates[0].until_appended(before + 1)
        erased.set()
        return draft

    freezer._compute = compute_and_erase  # type: ignore[method-assign, assignment]  # nothing else is in between
    freezing = asyncio.create_task(harness.execute(FreezeVersion(dataset="cats")))
    await erased.wait()
    assert not freezing.done()
    gates[0].open()
    await asyncio.gather(freezing, *erasing)
    assert await read_images(harness) == [image_id_of(cats, 1)]


@pytest.mark.parametrize("is_shown", [True, False])
async def test_a_repeated_key_of_an_undo_after_a_restart_has_one_effect(
    bus_of: BusOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_shown: bool
) -> None:
    bus = await bus_of("catalog")
    async with open_catalog(bus, tmp_path / "data") as harness:
        cats = await harness.dataset(pictures=1)
        image = image_id_of(cats, 0)
        edited = await harness.execute(EditTags(image=image, add=("cat",)))
        undo = Undo(dataset=cats, commit=edited.sequence)
        if not is_shown:
            Gate(harness, monkeypatch)
            accept_at_once(harness)
        first = await harness.execute(undo, "undo", "f")
        assert first.shown is is_shown
    async with open_catalog(bus, tmp_path / "data") as harness:
        before = await end(harness)
        again = await harness.execute(undo, "undo", "f")
        with pytest.raises(KeyReused):
            await harness.execute(undo, "undo", "another")
        assert (again.sequence, again.commits, again.shown) == (first.sequence, (edited.sequence,), True)
        # Also of an undo that was itself undone since, by which the edit counts again.
        redone = await harness.execute(Undo(dataset=cats, commit=first.sequence), "redo", "g")
        repeated = [await harness.execute(undo, "undo", "f") for _ in range(2)]
        assert {one.sequence for one in repeated} == {first.sequence}
        assert (
            await harness.execute(Undo(dataset=cats, commit=first.sequence), "redo", "g")
        ).sequence == redone.sequence
        assert (await end(harness), await harness.tags(image)) == (before + 1, {"cat"})
        assert event_names(await harness.events("dataset", cats))[-3:] == [
            "TagsEdited",
            "CommitsUndone",
            "CommitsUndone",
        ]


async def test_undos_of_one_commit_at_once_have_one_effect(
    harness: CatalogHarness, closed_gate: Callable[[], Gate]
) -> None:
    cats = await harness.dataset(pictures=1)
    edited = await harness.execute(EditTags(image=image_id_of(cats, 0), add=("cat",)))
    undo, gate, before = Undo(dataset=cats, commit=edited.sequence), closed_gate(), await end(harness)
    first = asyncio.create_task(harness.execute(undo, "undo", "f"))
    await gate.until_appended(before + 1)
    others = [await start(harness.execute(undo, "undo", "f")), await start(harness.execute(undo))]
    gate.open()
    same, other = await asyncio.gather(*others, return_exceptions=True)
    assert same == await first
    assert "undone before" in str(other)
    assert (await end(harness), await harness.tags(image_id_of(cats, 0))) == (before + 1, set())
