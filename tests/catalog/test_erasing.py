"""Erased for good: the fact first, then keys, blobs, uploads, old pages and backups, until nothing is left."""

import asyncio
import errno
import os
import time
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from catalog.keys import Keys
from catalog.service import sweeping
from catalog.service.erasing import Erasing
from catalog.service.sweeping import Sweeper
from catalog.views import erasures, images, refusals
from contracts.commands import (
    CancelJob,
    CreateJob,
    EraseDataset,
    EraseImage,
    FreezeVersion,
    Receipt,
    RemoveDataset,
    RemoveImage,
    SetCaption,
    StartJob,
)
from contracts.errors import Gone, InUse, NotFound, Rejected
from contracts.events import JobAttemptStarted, JobCancelled, JobCheckpointed
from contracts.ids import Digest, ImageId, JobId, WorkerId
from contracts.wire.blobs import LocalBlobs
from tests.catalog.house import House, kinds, opened, png
from tests.conftest import BusOf
from tests.limits import WAIT

FAR = WAIT
"""Seconds that anything may take."""


async def imported(house: House, dataset: str, colour: int, caption: str | None = None) -> ImageId:
    receipt = await house.bring_in(dataset, house.staged(f"secret {colour}.png", png(colour), caption))
    return receipt.files[0].image


def files_of(folder: Path) -> set[str]:
    return {file.name for file in folder.rglob("*") if file.is_file()}


async def digests(house: House, image: ImageId) -> frozenset[Digest]:
    row = await house.image(image)
    return frozenset({row.source, row.picture, row.thumbnail})


async def gone(house: House, image: ImageId) -> bool:
    return await house.desk.store.read(lambda connection: images.find(connection, image)) is None


async def test_an_erased_image_leaves_no_bytes_no_key_and_no_row(house: House, tmp_path: Path) -> None:
    cats = await house.dataset()
    image, other = [await imported(house, cats, colour, "my neighbour") for colour in (1, 2)]
    row, lost, kept = await house.image(image), await digests(house, image), await digests(house, other)
    key = await house.keys.key_of(image)
    assert key is not None
    assert row.caption is not None
    catalog = tmp_path / "data" / "catalog"
    assert {needle: raw(catalog, needle) != [] for needle in (key, row.name, row.caption)} == dict.fromkeys(
        (key, row.name, row.caption), True
    )

    receipt = await house.tell(EraseImage(image=image))

    assert receipt.changed
    assert lost | kept > kept == files_of(tmp_path / "data" / "blobs")
    assert await house.keys.key_of(image) is None
    assert await gone(house, image)
    assert house.erasing.sweeper.left(receipt.sequence) == ()
    # What is sealed stays in the log and its copy, where nobody can open it any more.
    assert raw(catalog, key) == []
    assert raw(catalog, row.name) == raw(catalog, row.caption) == []
    assert kinds(await house.facts("dataset", cats))[-1] == "ImageErased"
    for wish in (SetCaption(image=image, caption="x"), RemoveImage(image=image)):
        with pytest.raises(Gone, match="erased for good"):
            await house.tell(wish)


def raw(folder: Path, needle: bytes) -> list[str]:
    """The files that hold these bytes, but for the archive: that is the log, where all stands sealed, as base64."""
    return sorted(file.name for file in folder.iterdir() if needle in file.read_bytes())


async def test_erasing_again_changes_nothing(house: House) -> None:
    cats = await house.dataset()
    image = await imported(house, cats, 1)
    first = await house.tell(EraseImage(image=image), "c1")
    before = await house.facts("dataset", cats)

    again = await house.tell(EraseImage(image=image))

    assert (again.id, again.changed) == (image, False)
    assert await house.tell(EraseImage(image=image), "c1") == first
    assert await house.facts("dataset", cats) == before
    with pytest.raises(NotFound):
        await house.tell(EraseImage(image=ImageId("img_nobody")))
    with pytest.raises(NotFound):
        await house.tell(EraseDataset(dataset="nobody"))


async def test_bytes_that_a_living_image_needs_stay_until_it_goes_too(house: House, tmp_path: Path) -> None:
    cats, dogs = await house.dataset("cats"), await house.dataset("dogs")
    one, same = await imported(house, cats, 1), await imported(house, dogs, 1)
    shared = await digests(house, one)
    assert shared == await digests(house, same)

    await house.tell(EraseImage(image=one))
    assert files_of(tmp_path / "data" / "blobs") == shared

    await house.tell(EraseImage(image=same))
    assert files_of(tmp_path / "data" / "blobs") == set()


async def test_what_was_only_taken_off_a_list_can_still_be_erased(house: House, tmp_path: Path) -> None:
    cats, dogs = await house.dataset("cats"), await house.dataset("dogs")
    image, dog = await imported(house, cats, 1), await imported(house, dogs, 2)
    await house.tell(RemoveImage(image=image))
    await house.tell(RemoveDataset(dataset=dogs))

    await house.tell(EraseImage(image=image))
    await house.tell(EraseDataset(dataset=dogs))

    assert files_of(tmp_path / "data" / "blobs") == set()
    assert await house.keys.keys_of([image, dog]) == {}


async def test_an_erased_data_set_takes_all_its_images_and_the_names_of_refused_files(
    house: House, tmp_path: Path
) -> None:
    cats = await house.dataset("cats")
    ids = [await imported(house, cats, colour, "somebody") for colour in (1, 2, 3)]
    refused = (await house.bring_in(cats, house.staged("my diary.png", b"this is no picture"))).files[0].image
    assert len(await house.keys.keys_of([*ids, refused])) == 4

    receipt = await house.tell(EraseDataset(dataset="cats"))

    assert receipt.changed
    assert not (await house.tell(EraseDataset(dataset=cats))).changed
    assert await house.keys.keys_of([*ids, refused]) == {}
    assert files_of(tmp_path / "data" / "blobs") == set()
    assert await house.desk.store.read(lambda connection: refusals.page(connection, cats, (0, 0), 9)) == []
    assert await house.desk.store.read(lambda connection: erasures.of_dataset(connection, cats)) == 3
    with pytest.raises(Gone):
        await house.tell(FreezeVersion(dataset=cats))
    assert (await house.dataset("cats")) != cats


# --- jobs


async def test_pictures_are_not_taken_from_under_a_job(house: House) -> None:
    cats = await house.dataset()
    image = await imported(house, cats, 1)
    job = await house.tell(CreateJob(dataset=cats, start=True))
    later = await imported(house, cats, 2)  # in no version that the job trains on
    assert (await house.tell(EraseImage(image=later))).changed

    for wish in (EraseImage(image=image), EraseDataset(dataset=cats)):
        with pytest.raises(InUse) as refused:
            await house.tell(wish)
        assert refused.value.facts["jobs"] == [job.id]

    await house.tell(CancelJob(job=JobId(job.id)))
    assert (await house.tell(EraseImage(image=image))).changed


async def test_no_job_starts_on_a_version_that_lost_an_image(house: House) -> None:
    cats = await house.dataset()
    image = await imported(house, cats, 1)
    await imported(house, cats, 2)
    version = (await house.tell(FreezeVersion(dataset=cats))).version
    draft = await house.tell(CreateJob(dataset=cats, version=version))
    await house.tell(EraseImage(image=image))

    for wish in (CreateJob(dataset=cats, version=version, start=True), StartJob(job=JobId(draft.id))):
        with pytest.raises(Rejected, match="1 of the images of version 1 were erased") as refused:
            await house.tell(wish)
        assert (refused.value.facts["reason"], refused.value.facts["erased"]) == ("images-erased", 1)

    fresh = await house.tell(CreateJob(dataset=cats, start=True))
    assert fresh.version == 2


async def test_who_saw_the_image_is_known_exactly(house: House) -> None:
    cats = await house.dataset()
    await imported(house, cats, 1)
    await trained(house, await house.tell(CreateJob(dataset=cats, name="before it came", start=True)))
    image = await imported(house, cats, 2)
    await trained(house, await house.tell(CreateJob(dataset=cats, name="saw it", start=True)))
    await house.tell(CreateJob(dataset=cats, name="never began"))
    await house.tell(RemoveImage(image=image))
    await trained(house, await house.tell(CreateJob(dataset=cats, name="after it went", start=True)))

    await house.tell(EraseImage(image=image))

    row = await house.desk.store.read(lambda connection: erasures.find(connection, image))
    assert row is not None
    saw = await house.desk.store.read(lambda connection: erasures.saw(connection, cats, row.span))
    assert [(job.name, job.steps, job.version) for job in saw] == [("saw it", 7, 2)]


async def trained(house: House, job: Receipt) -> None:
    """Until a checkpoint was kept; then it is cancelled, and its worker says so."""
    started = JobAttemptStarted(worker=WorkerId("w"), boot="b", resumes=0)
    attempt = await house.say("job", job.id, started)
    await house.say("job", job.id, JobCheckpointed(attempt=attempt, step=7, checkpoint=Digest("0" * 64), size=1))
    await house.tell(CancelJob(job=JobId(job.id)))
    await house.say("job", job.id, JobCancelled(attempt=attempt, step=7))


# --- killed in between


class Killed(BaseException):
    """The process ends here."""


class Fuse:
    """Lets so many steps through, then it is the end."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def burn(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1


class MortalKeys(Keys):
    fuse: Fuse

    async def destroy(self, images: Iterable[ImageId]) -> None:
        self.fuse.burn()
        await super().destroy(images)
        self.fuse.burn()


class MortalBlobs(LocalBlobs):
    fuse: Fuse

    async def delete(self, digests: Collection[Digest]) -> None:
        for digest in digests:
            self.fuse.burn()
            await super().delete([digest])


@pytest.mark.parametrize("steps", range(4))
async def test_killed_at_any_step_it_is_finished_at_the_next_start(bus_of: BusOf, tmp_path: Path, steps: int) -> None:
    bus, folder = await bus_of("catalog"), tmp_path / "data"
    async with opened(bus, folder) as house:
        cats = await house.dataset()
        image = await imported(house, cats, 1, "my neighbour")
        fuse = Fuse(steps)
        keys, blobs = MortalKeys(folder / "catalog" / "keys.db"), MortalBlobs(folder / "blobs")
        keys.fuse = blobs.fuse = fuse
        sweeper = Sweeper(house.desk, keys, blobs, house.imports.staging, house.imports.holds, unheard)
        running = asyncio.create_task(sweeper.run())
        erasing = Erasing(house.desk, sweeper)
        house.erasing.sweeper._done = {None: (2**62, "")}  # the house's own sweeper must not do it
        mortal = House(house.bus, house.desk, house.imports, house.dispatcher, house.blobs, erasing)
        telling = asyncio.create_task(mortal.tell(EraseImage(image=image)))
        await asyncio.wait([running], timeout=FAR)
        assert isinstance(running.exception(), Killed)
        telling.cancel()
        await keys.close()
        assert files_of(folder / "blobs") or await house.keys.key_of(image)  # something was left

    async with opened(bus, folder) as again:
        await again.erasing.sweeper.finish(FAR)
        assert again.erasing.sweeper.left(again.desk.store.applied) == ()
        assert files_of(folder / "blobs") == set()
        assert await again.keys.key_of(image) is None
        assert kinds(await again.facts("dataset", cats)).count("ImageErased") == 1


async def unheard() -> None:
    pass


async def test_uploads_that_a_killed_gateway_left_go_with_the_image(house: House) -> None:
    cats = await house.dataset()
    content = png(1)
    image = await imported(house, cats, 1)
    staging, tmp = house.imports.staging, house.blobs.root / "tmp"
    for file in staging.iterdir():
        file.unlink()
    left = {"whole": content, "half": content[: len(content) // 2], "another": png(2), "empty": b""}
    for name, lost in left.items():
        (staging / name).write_bytes(lost)
        (tmp / f".{name}.draft").write_bytes(lost)
        for file in (staging / name, tmp / f".{name}.draft"):
            os.utime(file, (time.time() - 60,) * 2)
    (staging / "sent-after").write_bytes(content)
    os.utime(staging / "sent-after", (time.time() + 60,) * 2)

    await house.tell(EraseImage(image=image))

    assert files_of(staging) == {"another", "empty", "sent-after"}
    assert files_of(tmp) == {".another.draft", ".empty.draft"}


async def test_a_picture_that_comes_in_again_meanwhile_is_not_swept(house: House, tmp_path: Path) -> None:
    cats = await house.dataset()
    image = await imported(house, cats, 1)
    bytes_of = await digests(house, image)
    async with house.imports.holds.hold(bytes_of):  # an import has put it, and no fact says so yet
        receipt = await house.tell(EraseImage(image=image))
        assert any("imported" in sentence for sentence in house.erasing.sweeper.left(receipt.sequence))
        assert files_of(tmp_path / "data" / "blobs") == bytes_of
        again = await imported(house, cats, 1)
        assert again != image

    await house.erasing.sweeper.finish(FAR)

    assert house.erasing.sweeper.left(receipt.sequence) == ()
    assert files_of(tmp_path / "data" / "blobs") == bytes_of
    assert await house.keys.key_of(image) is None
    assert await house.keys.key_of(again) is not None


async def test_backups_are_swept_also_one_that_comes_back_later(house: House, tmp_path: Path) -> None:
    cats = await house.dataset()
    image = await imported(house, cats, 1)
    key = await house.keys.key_of(image)
    assert key is not None
    here, away = tmp_path / "here", tmp_path / "away"
    for folder in (here, away):
        for digest in await digests(house, image):
            await LocalBlobs(folder / "blobs").put(await house.blobs.get(digest))
        copied = Keys(folder / "keys.db")
        assert await copied.new_keys([image])
        await copied.close()
        await house.keys.register_backup(folder, datetime.now(UTC) - timedelta(days=1))
    unplugged = away.rename(tmp_path / "unplugged")

    receipt = await house.tell(EraseImage(image=image))

    assert files_of(here / "blobs") == set()
    (still,) = house.erasing.sweeper.left(receipt.sequence)
    assert "backup" in still
    assert str(away) not in still

    unplugged.rename(away)
    await house.erasing.sweeper.finish(FAR)

    assert house.erasing.sweeper.left(receipt.sequence) == ()
    for folder in (here, away):
        assert files_of(folder / "blobs") == set()
        copied = Keys(folder / "keys.db")
        assert await copied.keys_of([image]) == {}
        assert await copied.new_keys([image]) == {}
        await copied.close()


async def test_a_log_from_before_the_erasure_learns_of_it_from_the_keys(bus_of: BusOf, tmp_path: Path) -> None:
    bus, folder = await bus_of("catalog"), tmp_path / "data"
    async with opened(bus, folder) as house:
        cats = await house.dataset()
        image, other = [await imported(house, cats, colour) for colour in (1, 2)]
        kept = await digests(house, other)
        await house.keys.destroy([image])  # today's keys; the log says nothing of it

    async with opened(bus, folder) as restored:
        async with asyncio.timeout(FAR):
            while not await gone(restored, image):  # noqa: ASYNC110 - it is done beside us
                await asyncio.sleep(0.05)
        await restored.erasing.sweeper.finish(FAR)
        assert files_of(folder / "blobs") == kept
        assert kinds(await restored.facts("dataset", cats))[-1] == "ImageErased"
        assert await restored.keys.key_of(other) is not None


async def test_other_files_of_a_picture_that_is_there_leave_no_bytes_behind(house: House, tmp_path: Path) -> None:
    cats = await house.dataset()
    image = await imported(house, cats, 1)
    kept = await digests(house, image)
    for content in (png(1), png(1, form="BMP"), png(1, form="TIFF")):
        receipt = await house.bring_in(cats, house.staged("the same.png", content))
        assert (receipt.files[0].outcome, receipt.files[0].image) == ("existing", image)
    assert files_of(tmp_path / "data" / "blobs") == kept

    await house.tell(EraseImage(image=image))

    assert files_of(tmp_path / "data" / "blobs") == set()


async def test_what_is_half_swept_is_left_until_the_rest_is_gone(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "AT_ONCE", 1)
    cats = await house.dataset()
    for colour in (1, 2, 3):
        await imported(house, cats, colour)
    delete, broken = house.blobs.delete, [False, True, False]

    async def stumbling(digests: Collection[Digest]) -> None:
        if broken and broken.pop(0):
            raise OSError(errno.EIO, "Input/output error")
        await delete(digests)

    monkeypatch.setattr(house.blobs, "delete", stumbling)
    receipt = await house.tell(EraseDataset(dataset=cats))

    # All of it was erased by one fact, and of that one image is swept.
    assert house.erasing.sweeper.left(receipt.sequence) == ("the data folder: Input/output error",)
    await house.erasing.sweeper.finish(FAR)
    assert house.erasing.sweeper.left(receipt.sequence) == ()
    assert files_of(tmp_path / "data" / "blobs") == set()
