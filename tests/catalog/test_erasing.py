"""Erasure: first the event, then keys, blobs, uploads, freed pages and backups are purged until no copy is left."""

import asyncio
import dataclasses
import errno
import os
import time
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from catalog.keys import Keys
from catalog.service.handlers import command_handlers
from catalog.service.purging import PurgeLimits, Purger
from catalog.views import erasures, images, presence, refusals
from contracts.commands.base import Command
from contracts.commands.datasets import EraseDataset, EraseImage, FreezeVersion, RemoveDataset, RemoveImage, SetCaption
from contracts.commands.jobs import CancelJob, CreateJob, JobResult, StartJob
from contracts.errors import Gone, InUse, NotFound, Rejected
from contracts.events.jobs import JobAttemptStarted, JobCancelled, JobCheckpointed
from contracts.ids import Digest, ImageId, JobId, WorkerId
from contracts.wire.blobs.store import LocalBlobs
from tests.catalog.harness import CatalogHarness, event_names, open_catalog, png
from tests.conftest import BusOf, command_metadata
from tests.limits import WAIT


async def import_picture(harness: CatalogHarness, dataset: str, colour: int, caption: str | None = None) -> ImageId:
    result = await harness.import_files(dataset, harness.stage(f"secret {colour}.png", png(colour), caption))
    return result.files[0].image


def file_names(folder: Path) -> set[str]:
    return {file.name for file in folder.rglob("*") if file.is_file()}


async def digests_of(harness: CatalogHarness, image: ImageId) -> frozenset[Digest]:
    row = await harness.image(image)
    return frozenset({row.source, row.picture, row.thumbnail})


async def is_erased(harness: CatalogHarness, image: ImageId) -> bool:
    return await harness.executor.store.read(lambda connection: images.find(connection, image)) is None


async def test_an_erased_image_leaves_no_blob_key_or_row(harness: CatalogHarness, tmp_path: Path) -> None:
    cats = await harness.dataset()
    image, other = [await import_picture(harness, cats, colour, "my neighbour") for colour in (1, 2)]
    row, erased, kept = await harness.image(image), await digests_of(harness, image), await digests_of(harness, other)
    key = await harness.keys.key_of(image)
    assert key is not None
    assert row.caption is not None
    catalog = tmp_path / "data" / "catalog"
    assert {
        needle: files_containing(catalog, needle) != [] for needle in (key, row.name, row.caption)
    } == dict.fromkeys((key, row.name, row.caption), True)

    result = await harness.execute(EraseImage(image=image))

    assert result.changed
    assert erased | kept > kept == file_names(tmp_path / "data" / "blobs")
    assert await harness.keys.key_of(image) is None
    assert await is_erased(harness, image)
    assert harness.purger.pending(result.sequence) == ()
    # Sealed text stays in the log and the archive, where it cannot be opened without the key.
    assert files_containing(catalog, key) == []
    assert files_containing(catalog, row.name) == files_containing(catalog, row.caption) == []
    assert event_names(await harness.events("dataset", cats))[-1] == "ImageErased"
    for command in (SetCaption(image=image, caption="x"), RemoveImage(image=image)):
        with pytest.raises(Gone, match="erased for good"):
            await harness.execute(command)


def files_containing(folder: Path, needle: bytes) -> list[str]:
    """Names of the files that contain these bytes; the archive holds sealed text as base64, so it never matches."""
    return sorted(file.name for file in folder.iterdir() if needle in file.read_bytes())


async def test_erasing_is_idempotent(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    image = await import_picture(harness, cats, 1)
    first = await harness.execute(EraseImage(image=image), "c1")
    before = await harness.events("dataset", cats)

    again = await harness.execute(EraseImage(image=image))

    assert (again.id, again.changed) == (image, False)
    assert await harness.execute(EraseImage(image=image), "c1") == first
    assert await harness.events("dataset", cats) == before
    with pytest.raises(NotFound):
        await harness.execute(EraseImage(image=ImageId("img_nobody")))
    with pytest.raises(NotFound):
        await harness.execute(EraseDataset(dataset="nobody"))


async def test_shared_blobs_stay_until_the_last_image_is_erased(harness: CatalogHarness, tmp_path: Path) -> None:
    cats, dogs = await harness.dataset("cats"), await harness.dataset("dogs")
    one, same = await import_picture(harness, cats, 1), await import_picture(harness, dogs, 1)
    shared = await digests_of(harness, one)
    assert shared == await digests_of(harness, same)

    await harness.execute(EraseImage(image=one))
    assert file_names(tmp_path / "data" / "blobs") == shared

    await harness.execute(EraseImage(image=same))
    assert file_names(tmp_path / "data" / "blobs") == set()


async def test_removed_images_and_data_sets_can_still_be_erased(harness: CatalogHarness, tmp_path: Path) -> None:
    cats, dogs = await harness.dataset("cats"), await harness.dataset("dogs")
    image, dog = await import_picture(harness, cats, 1), await import_picture(harness, dogs, 2)
    await harness.execute(RemoveImage(image=image))
    await harness.execute(RemoveDataset(dataset=dogs))

    await harness.execute(EraseImage(image=image))
    await harness.execute(EraseDataset(dataset=dogs))

    assert file_names(tmp_path / "data" / "blobs") == set()
    assert await harness.keys.keys_of([image, dog]) == {}


@pytest.mark.slow
async def test_erasing_a_data_set_erases_its_images_and_names_of_refused_files(
    harness: CatalogHarness, tmp_path: Path
) -> None:
    cats = await harness.dataset("cats")
    ids = [await import_picture(harness, cats, colour, "somebody") for colour in (1, 2, 3)]
    refused = (await harness.import_files(cats, harness.stage("my diary.png", b"this is no picture"))).files[0].image
    assert len(await harness.keys.keys_of([*ids, refused])) == 4

    result = await harness.execute(EraseDataset(dataset="cats"))

    assert result.changed
    assert not (await harness.execute(EraseDataset(dataset=cats))).changed
    assert await harness.keys.keys_of([*ids, refused]) == {}
    assert file_names(tmp_path / "data" / "blobs") == set()
    assert await harness.executor.store.read(lambda connection: refusals.page(connection, cats, (0, 0), 9)) == []
    assert await harness.executor.store.read(lambda connection: erasures.count_of_dataset(connection, cats)) == 3
    with pytest.raises(Gone):
        await harness.execute(FreezeVersion(dataset=cats))
    assert (await harness.dataset("cats")) != cats


# --- jobs


async def test_images_of_an_active_job_cannot_be_erased(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    image = await import_picture(harness, cats, 1)
    job = await harness.create_job(CreateJob(dataset=cats, start=True))
    later = await import_picture(harness, cats, 2)  # in no version that the job trains on
    assert (await harness.execute(EraseImage(image=later))).changed

    erasures_of_it: list[Command[Any]] = [EraseImage(image=image), EraseDataset(dataset=cats)]
    for command in erasures_of_it:
        with pytest.raises(InUse) as refused:
            await harness.execute(command)
        assert refused.value.extra["jobs"] == [job.id]

    await harness.execute(CancelJob(job=JobId(job.id)))
    assert (await harness.execute(EraseImage(image=image))).changed


async def test_no_job_starts_on_a_version_with_an_erased_image(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    image = await import_picture(harness, cats, 1)
    await import_picture(harness, cats, 2)
    version = (await harness.execute(FreezeVersion(dataset=cats))).version
    draft = await harness.execute(CreateJob(dataset=cats, version=version))
    await harness.execute(EraseImage(image=image))

    for command in (CreateJob(dataset=cats, version=version, start=True), StartJob(job=JobId(draft.id))):
        with pytest.raises(Rejected, match="1 of the images of version 1 were erased") as refused:
            await harness.execute(command)
        assert (refused.value.extra["reason"], refused.value.extra["erased"]) == ("images-erased", 1)

    fresh = await harness.create_job(CreateJob(dataset=cats, start=True))
    assert (await harness.version_of(fresh.id)).version == 2


@pytest.mark.slow
async def test_jobs_trained_on_an_erased_image_are_listed_exactly(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    await import_picture(harness, cats, 1)
    await train_until_checkpoint(
        harness, await harness.create_job(CreateJob(dataset=cats, name="before it came", start=True))
    )
    image = await import_picture(harness, cats, 2)
    await train_until_checkpoint(harness, await harness.create_job(CreateJob(dataset=cats, name="saw it", start=True)))
    await harness.create_job(CreateJob(dataset=cats, name="never began"))
    await harness.execute(RemoveImage(image=image))
    await train_until_checkpoint(
        harness, await harness.create_job(CreateJob(dataset=cats, name="after it went", start=True))
    )

    await harness.execute(EraseImage(image=image))

    row = await harness.executor.store.read(lambda connection: erasures.find(connection, image))
    assert row is not None
    jobs_trained = await harness.executor.store.read(
        lambda connection: erasures.jobs_trained_on(
            connection, cats, presence.spans(connection, cats, row.ordinal or 0, row.added_sequence, row.sequence)
        )
    )
    assert [(job.name, job.steps, job.version) for job in jobs_trained] == [("saw it", 7, 2)]


async def train_until_checkpoint(harness: CatalogHarness, job: JobResult) -> None:
    """Train the job until its first checkpoint, then cancel it and let its worker confirm that."""
    started = JobAttemptStarted(worker=WorkerId("w"), boot="b", resumes=0)
    attempt = await harness.append("job", job.id, started)
    await harness.append("job", job.id, JobCheckpointed(attempt=attempt, step=7, checkpoint=Digest("0" * 64), size=1))
    await harness.execute(CancelJob(job=JobId(job.id)))
    await harness.append("job", job.id, JobCancelled(attempt=attempt, step=7))


# --- killed during the purge


class Killed(BaseException):
    """Simulates the end of the process."""


class KillSwitch:
    """Raises Killed after this number of steps."""

    def __init__(self, steps: int) -> None:
        self.remaining = steps

    def step(self) -> None:
        if self.remaining == 0:
            raise Killed
        self.remaining -= 1


class KillableKeys(Keys):
    kill_switch: KillSwitch

    async def destroy(self, images: Iterable[ImageId]) -> None:
        self.kill_switch.step()
        await super().destroy(images)
        self.kill_switch.step()


class KillableBlobs(LocalBlobs):
    kill_switch: KillSwitch

    async def delete(self, digests: Collection[Digest]) -> None:
        for digest in digests:
            self.kill_switch.step()
            await super().delete([digest])


@pytest.mark.parametrize("steps", range(4))
async def test_a_purge_killed_at_any_step_is_completed_at_the_next_start(
    bus_of: BusOf, tmp_path: Path, steps: int
) -> None:
    bus, folder = await bus_of("catalog"), tmp_path / "data"
    once = PurgeLimits(interval=3600, wait=WAIT)
    async with open_catalog(bus, folder, once) as harness:
        cats = await harness.dataset()
        image = await import_picture(harness, cats, 1, "my neighbour")
        await harness.purger.purge_now()  # the catalog's own purger now rests, and the killable one does the work
        kill_switch = KillSwitch(steps)
        keys, blobs = await KillableKeys.open(folder / "catalog" / "keys.db"), KillableBlobs(folder / "blobs")
        keys.kill_switch = blobs.kill_switch = kill_switch
        purger = Purger(harness.executor, keys, blobs, harness.staging, harness.pins, notify_no_workers, once)
        running = asyncio.create_task(purger.run())
        context = dataclasses.replace(harness.catalog.context, purge_now=purger.purge_now)
        erase = command_handlers(context, harness.catalog.importer, harness.catalog.freezer)[EraseImage]
        erasing_task = asyncio.ensure_future(erase(command_metadata(), EraseImage(image=image)))
        await asyncio.wait([running], timeout=WAIT)
        assert isinstance(running.exception(), Killed)
        erasing_task.cancel()
        await keys.close()
        assert file_names(folder / "blobs") or await harness.keys.key_of(image)  # something remained

    async with open_catalog(bus, folder) as again:
        await again.purger.purge_now()
        assert again.purger.pending(again.executor.store.applied) == ()
        assert file_names(folder / "blobs") == set()
        assert await again.keys.key_of(image) is None
        assert event_names(await again.events("dataset", cats)).count("ImageErased") == 1


async def notify_no_workers() -> None:
    pass


async def test_uploads_left_by_a_killed_gateway_are_deleted_with_the_image(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    content = png(1)
    image = await import_picture(harness, cats, 1)
    staging, tmp = harness.staging, harness.blobs.root / "tmp"
    for file in staging.iterdir():
        file.unlink()
    uploads = {"whole": content, "half": content[: len(content) // 2], "another": png(2), "empty": b""}
    for name, data in uploads.items():
        (staging / name).write_bytes(data)
        (tmp / f".{name}.draft").write_bytes(data)
        for file in (staging / name, tmp / f".{name}.draft"):
            os.utime(file, (time.time() - 60,) * 2)
    (staging / "sent-after").write_bytes(content)
    os.utime(staging / "sent-after", (time.time() + 60,) * 2)

    await harness.execute(EraseImage(image=image))

    assert file_names(staging) == {"another", "empty", "sent-after"}
    assert file_names(tmp) == {".another.draft", ".empty.draft"}


async def test_blobs_of_a_picture_being_imported_again_are_not_purged(harness: CatalogHarness, tmp_path: Path) -> None:
    cats = await harness.dataset()
    image = await import_picture(harness, cats, 1)
    digests = await digests_of(harness, image)
    async with harness.pins.pin(digests):  # an import has stored them, and no event names them yet
        result = await harness.execute(EraseImage(image=image))
        assert any("imported" in sentence for sentence in harness.purger.pending(result.sequence))
        assert file_names(tmp_path / "data" / "blobs") == digests
        again = await import_picture(harness, cats, 1)
        assert again != image

    await harness.purger.purge_now()

    assert harness.purger.pending(result.sequence) == ()
    assert file_names(tmp_path / "data" / "blobs") == digests
    assert await harness.keys.key_of(image) is None
    assert await harness.keys.key_of(again) is not None


async def test_backups_are_purged_even_one_reconnected_later(harness: CatalogHarness, tmp_path: Path) -> None:
    cats = await harness.dataset()
    image = await import_picture(harness, cats, 1)
    key = await harness.keys.key_of(image)
    assert key is not None
    local, removable = tmp_path / "here", tmp_path / "away"
    for folder in (local, removable):
        for digest in await digests_of(harness, image):
            await LocalBlobs(folder / "blobs").put(await harness.blobs.get(digest))
        copied = await Keys.open(folder / "keys.db")
        assert await copied.create_keys([image])
        await copied.close()
        await harness.keys.register_backup(folder, datetime.now(UTC) - timedelta(days=1))
    disconnected = removable.rename(tmp_path / "unplugged")

    result = await harness.execute(EraseImage(image=image))

    assert file_names(local / "blobs") == set()
    (pending,) = harness.purger.pending(result.sequence)
    assert "backup" in pending
    assert str(removable) not in pending

    disconnected.rename(removable)
    await harness.purger.purge_now()

    assert harness.purger.pending(result.sequence) == ()
    for folder in (local, removable):
        assert file_names(folder / "blobs") == set()
        copied = await Keys.open(folder / "keys.db")
        assert await copied.keys_of([image]) == {}
        assert await copied.create_keys([image]) == {}
        await copied.close()


async def test_a_log_restored_from_before_the_erasure_gets_it_again_from_the_keys(
    bus_of: BusOf, tmp_path: Path
) -> None:
    bus, folder = await bus_of("catalog"), tmp_path / "data"
    async with open_catalog(bus, folder) as harness:
        cats = await harness.dataset()
        image, other = [await import_picture(harness, cats, colour) for colour in (1, 2)]
        kept = await digests_of(harness, other)
        await harness.keys.destroy([image])  # the keys are newer than the log, which lacks the erasure

    async with open_catalog(bus, folder) as restored:
        async with asyncio.timeout(WAIT):
            while not await is_erased(restored, image):  # noqa: ASYNC110 - a background task does it
                await asyncio.sleep(0.05)
        await restored.purger.purge_now()
        assert file_names(folder / "blobs") == kept
        assert event_names(await restored.events("dataset", cats))[-1] == "ImageErased"
        assert await restored.keys.key_of(other) is not None


async def test_duplicates_of_a_picture_leave_no_blobs_behind(harness: CatalogHarness, tmp_path: Path) -> None:
    cats = await harness.dataset()
    image = await import_picture(harness, cats, 1)
    kept = await digests_of(harness, image)
    for content in (png(1), png(1, form="BMP"), png(1, form="TIFF")):
        result = await harness.import_files(cats, harness.stage("the same.png", content))
        assert (result.files[0].outcome, result.files[0].image) == ("existing", image)
    assert file_names(tmp_path / "data" / "blobs") == kept

    await harness.execute(EraseImage(image=image))

    assert file_names(tmp_path / "data" / "blobs") == set()


class FailingBlobs(LocalBlobs):
    """The second of its deletions fails."""

    deletions = 0

    async def delete(self, digests: Collection[Digest]) -> None:
        self.deletions += 1
        if self.deletions == 2:
            raise OSError(errno.EIO, "Input/output error")
        await super().delete(digests)


async def test_a_partial_purge_stays_pending_until_it_is_completed(bus_of: BusOf, tmp_path: Path) -> None:
    limits, blobs = PurgeLimits(batch_size=1, wait=WAIT), FailingBlobs(tmp_path / "data" / "blobs")
    async with open_catalog(await bus_of("catalog"), tmp_path / "data", limits, blobs) as harness:
        cats = await harness.dataset()
        for colour in (1, 2, 3):
            await import_picture(harness, cats, colour)
        result = await harness.execute(EraseDataset(dataset=cats))

        # One event erased all images, and only one of them is purged so far.
        assert harness.purger.pending(result.sequence) == ("the data folder: Input/output error",)
        await harness.purger.purge_now()
        assert harness.purger.pending(result.sequence) == ()
        assert file_names(tmp_path / "data" / "blobs") == set()
