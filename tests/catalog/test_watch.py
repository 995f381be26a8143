"""The watch: what is lost is noticed, made again where that is possible, and named wherever it is needed."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from obstore.store import LocalStore, MemoryStore
from PIL import Image

from catalog.ingest.outcomes import Accepted
from catalog.settings import Settings
from catalog.watch.patrol import PatrolPolicy
from catalog.watch.presence import RANGE_BYTES, expected_by, find_losses, is_intact, list_sizes
from catalog.watch.repair import Repairer
from catalog.watch.watch import Watch, WatchPolicy, policy_for
from contracts.commands.datasets import EraseImage, FreezeVersion, RemoveImage, SetCaption
from contracts.errors import BlobMissing, Conflict, Invalid, KeyMissing, LogDamaged
from contracts.events.jobs import JobAttemptStarted, JobSampled
from contracts.ids import Digest, ImageId, WorkerId
from contracts.losses import MAX_REPORTED_LOSSES, Loss, loss_lines
from contracts.queries.base import Query
from contracts.queries.log import VerifyLog
from contracts.queries.losses import GetBlob, GetBlobAudit, ListLosses, StartBlobAudit
from contracts.telemetry import LossesFound
from contracts.wire.blobs.store import Blobs, LocalBlobs, RemoteBlobs
from tests.catalog.harness import CatalogHarness, image_id_of, png
from tests.catalog.log_builder import digest, image_added, job_created, version_set
from tests.conftest import NOW
from tests.damage import execute_sql
from tests.limits import WAIT

FOLDER = "data/catalog"
FAST = WatchPolicy(compare_every=0.02, publish_every=0.02, patrol=PatrolPolicy(round_seconds=0.0))


async def import_picture(harness: CatalogHarness, dataset: str, colour: int = 1, form: str = "PNG") -> ImageId:
    file = harness.stage(f"{colour}.png", png(colour, form=form), caption=f"caption {colour}")
    return (await harness.import_files(dataset, file)).files[0].image


async def query(harness: CatalogHarness, question: Query[Any]) -> Any:
    return await harness.catalog.queries[type(question)](question)


async def compare(harness: CatalogHarness) -> dict[str, int]:
    """What is missing now, by kind."""
    await harness.catalog.watch.compare()
    return harness.catalog.watch.report.counts


def lose_keys(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "keys.db")) as keys:
        keys.execute("DELETE FROM key")
        keys.commit()


@asynccontextmanager
async def running_watch(
    harness: CatalogHarness, blobs: Blobs | None = None, policy: WatchPolicy = FAST
) -> AsyncIterator[asyncio.Queue[LossesFound]]:
    """A watch of the harness's catalog that runs with short intervals; what it publishes."""
    catalog, published = harness.catalog, asyncio.Queue[LossesFound]()
    store, blobs = harness.executor.store, blobs or harness.blobs
    repairer = Repairer(store, blobs, catalog.importer.decoder, harness.staging, harness.pins.pin)
    watch = Watch(store, blobs, catalog.watch._keys, repairer, policy)
    task = asyncio.create_task(watch.run(published.put))
    try:
        yield published
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def until_counts(published: asyncio.Queue[LossesFound], counts: dict[str, int]) -> None:
    async with asyncio.timeout(WAIT):
        while (report := (await published.get()).report).checked_at is None or report.counts != counts:
            pass


# --- noticing


async def test_nothing_is_lost_after_an_import_a_removal_and_an_erasure(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    _, removed, erased = [await import_picture(harness, cats, colour) for colour in (1, 2, 3)]
    await harness.execute(FreezeVersion(dataset="cats"))
    await harness.execute(RemoveImage(image=removed))
    await harness.execute(EraseImage(image=erased))

    assert await compare(harness) == {}

    report = harness.catalog.watch.report
    assert (report.blobs, report.keys) == (3 + 3 + 2, 2)
    assert loss_lines(report) == ["all 8 blobs and 2 keys are there"]


async def test_every_missing_blob_is_named_with_its_owner(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    images = [await import_picture(harness, cats, colour) for colour in range(1, 12)]
    await harness.execute(FreezeVersion(dataset="cats"))
    await harness.blobs.delete([blob.digest async for part in harness.blobs.listing() for blob in part])

    assert await compare(harness) == {"source": 11, "picture": 11, "thumbnail": 11, "manifest": 2}

    report = harness.catalog.watch.report
    assert len(report.first) == MAX_REPORTED_LOSSES
    assert "11 pictures, 11 sources, 11 thumbnails are missing; restore them" in report.describe()
    listed: list[Loss] = []
    cursor = None
    while True:
        page = await query(harness, ListLosses(cursor=cursor, limit=7))
        listed, cursor = [*listed, *page.items], page.next
        if cursor is None:
            break
    assert len(listed) == page.total == 35
    assert {loss.owner for loss in listed if loss.kind == "source"} == set(images)
    assert (await query(harness, VerifyLog())).losses.counts == report.counts


@pytest.mark.parametrize("blob", ["", "../../etc/passwd", "é", "0" * 63])
async def test_a_blob_whose_digest_is_none_is_missing_and_ends_nobody(harness: CatalogHarness, blob: str) -> None:
    """Whoever has a trainer's key may say so of a job."""
    await harness.append("job", "job_1", job_created(), version_set())
    attempt = await harness.append("job", "job_1", JobAttemptStarted(worker=WorkerId("w"), boot="b", resumes=0))
    await harness.append("job", "job_1", JobSampled(attempt=attempt, step=1, index=0, picture=Digest(blob), seed=1))
    async with running_watch(harness) as published:
        await until_counts(published, {"manifest": 1, "sample": 1})
    with pytest.raises(Invalid, match="is not the digest of a blob"):
        await harness.catalog.watch.require_blob(Digest(blob))


async def test_lost_keys_are_noticed_whether_single_ones_or_the_file(harness: CatalogHarness, tmp_path: Path) -> None:
    cats = await harness.dataset()
    image = await import_picture(harness, cats)

    lose_keys(tmp_path / FOLDER)
    assert await compare(harness) == {"key": 1}
    assert harness.catalog.watch.report.first[0].id == image

    (tmp_path / FOLDER / "keys.db").rename(tmp_path / "keys.db")
    assert await compare(harness) == {"key": 1}


async def test_a_changed_key_is_noticed_and_seals_nothing(harness: CatalogHarness, tmp_path: Path) -> None:
    cats = await harness.dataset()
    image, other = await import_picture(harness, cats), await import_picture(harness, cats, colour=2)
    execute_sql(tmp_path / FOLDER / "keys.db", "UPDATE key SET key = zeroblob(32) WHERE image_id = ?", image)

    assert list(await harness.keys.keys_of([image, other])) == [other]
    with pytest.raises(KeyMissing, match=image):
        await harness.execute(SetCaption(image=image, caption="a cat"))
    assert await compare(harness) == {"key": 1}
    assert harness.catalog.watch.report.first[0].id == image
    expected = await asyncio.to_thread(expected_by, tmp_path / FOLDER)
    offline = await find_losses(expected, harness.blobs, tmp_path / FOLDER / "keys.db", at=NOW)
    assert offline.lost_keys == {image}


async def test_a_truncated_blob_is_moved_aside_and_can_be_stored_again(harness: CatalogHarness, tmp_path: Path) -> None:
    cats = await harness.dataset()
    image = await import_picture(harness, cats)
    source = (await harness.image(image)).source
    whole = await harness.blobs.get(source)
    harness.blobs.path(source).write_bytes(whole[:-1])

    assert await compare(harness) == {"source": 1, "picture": 1}  # this source is its picture

    assert not await harness.blobs.exists(source)
    assert (tmp_path / "data/blobs/damaged" / source).read_bytes() == whole[:-1]
    await harness.blobs.put(whole)
    assert await compare(harness) == {}
    await harness.execute(EraseImage(image=image))
    assert [file for file in (tmp_path / "data/blobs").rglob("*") if file.is_file()] == []


async def test_bytes_of_another_size_that_have_the_digest_are_no_loss(harness: CatalogHarness, tmp_path: Path) -> None:
    image = image_id_of(await harness.dataset(pictures=1), 0)  # its event says 1234 bytes
    for name in ("source", "picture", "thumbnail"):
        await harness.blobs.put(f"{name} {image}".encode())  # of which the event names the digests

    assert await compare(harness) == {}
    expected = await asyncio.to_thread(expected_by, tmp_path / FOLDER)
    offline = await find_losses(expected, harness.blobs, tmp_path / FOLDER / "keys.db", at=NOW)
    assert not offline


async def test_a_blob_that_is_stored_while_blobs_are_listed_is_not_lost(
    harness: CatalogHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    cats = await harness.dataset()
    list_blobs = LocalBlobs.listing

    async def import_meanwhile(self: LocalBlobs, prefix: str = "") -> AsyncIterator[Any]:
        async for part in list_blobs(self, prefix):
            yield part
        await import_picture(harness, cats, colour=next(colours))

    colours = iter(range(1, 4))
    monkeypatch.setattr(LocalBlobs, "listing", import_meanwhile)

    assert await compare(harness) == {}
    assert next(colours) == 3  # it was listed twice: the first time, blobs seemed to be missing


async def test_the_same_is_found_by_the_archive_alone(harness: CatalogHarness, tmp_path: Path) -> None:
    cats = await harness.dataset()
    image, erased = [await import_picture(harness, cats, colour) for colour in (1, 2)]
    await harness.execute(EraseImage(image=erased))
    await harness.blobs.delete([(await harness.image(image)).thumbnail])
    lose_keys(tmp_path / FOLDER)

    expected = await asyncio.to_thread(expected_by, tmp_path / FOLDER)
    offline = await find_losses(expected, harness.blobs, tmp_path / FOLDER / "keys.db", at=NOW)

    online = await harness.catalog.watch.compare()
    assert offline.report().counts == online.report().counts == {"thumbnail": 1, "key": 1}
    assert set(offline.all()) == set(online.all())


def test_an_archive_that_is_no_database_is_damage_not_an_empty_list(tmp_path: Path) -> None:
    (tmp_path / "archive.db").write_bytes(b"no database" * 1000)
    with pytest.raises(LogDamaged, match="`loratory restore` rebuilds it"):
        expected_by(tmp_path)


async def test_a_running_watch_publishes_what_is_lost_and_that_it_is_back(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    source = (await harness.image(await import_picture(harness, cats))).source
    async with running_watch(harness) as published:
        await until_counts(published, {})
        whole = await harness.blobs.get(source)
        await harness.blobs.delete([source])
        await until_counts(published, {"source": 1, "picture": 1})
        await harness.blobs.put(whole)
        await until_counts(published, {})


class SlowToSetAside(LocalBlobs):
    """Like a busy disk."""

    async def set_aside(self, digest: Digest) -> None:
        await asyncio.sleep(0.2)
        await super().set_aside(digest)


async def test_damaged_bytes_that_are_still_there_are_not_taken_for_a_repaired_blob(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    source = (await harness.image(await import_picture(harness, cats))).source
    harness.blobs.path(source).write_bytes(b"?")
    blobs = SlowToSetAside(harness.blobs.root)
    async with running_watch(harness, blobs, WatchPolicy(publish_every=0.02, patrol=None)) as published:
        lost = {"source": 1, "picture": 1}
        await until_counts(published, lost)
        async with asyncio.timeout(WAIT):
            while await blobs.exists(source):
                await published.get()
        for _ in range(5):
            assert (await published.get()).report.counts == lost


# --- reading the bytes


async def test_the_patrol_finds_a_flipped_bit_that_presence_and_size_do_not_show(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    source = (await harness.image(await import_picture(harness, cats))).source
    flip_bit(harness.blobs.path(source))
    assert await compare(harness) == {}

    async with running_watch(harness) as published:
        await until_counts(published, {"source": 1, "picture": 1})
    assert not await harness.blobs.exists(source)


async def test_all_bytes_are_read_on_demand(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    source = (await harness.image(await import_picture(harness, cats))).source
    stray = await harness.blobs.put(b"nothing names this")
    flip_bit(harness.blobs.path(source))
    flip_bit(harness.blobs.path(stray))
    assert (await query(harness, GetBlobAudit())).state == "never"
    checks = asyncio.create_task(harness.catalog.watch.patrol.run_audits())

    assert (await query(harness, StartBlobAudit())).state == "running"
    with pytest.raises(Conflict, match="being read already"):
        await query(harness, StartBlobAudit())
    async with asyncio.timeout(WAIT):
        while (check := await query(harness, GetBlobAudit())).state == "running":  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.01)
    checks.cancel()

    assert (check.state, check.read, check.damaged) == ("ended", 3, 2)
    assert harness.catalog.watch.report.counts == {"source": 1, "picture": 1}
    assert await harness.blobs.exists(stray)


async def test_the_patrol_finds_a_flipped_bit_in_an_object_store(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    source = (await harness.image(await import_picture(harness, cats))).source
    flip_bit(harness.blobs.path(source))

    async with running_watch(harness, object_store(harness)) as published:
        await until_counts(published, {"source": 1, "picture": 1})
    assert not await harness.blobs.exists(source)


async def test_an_object_is_read_in_ranges_with_a_pause_after_each(harness: CatalogHarness) -> None:
    content = bytes(2 * RANGE_BYTES + 5)
    stored, paused = await harness.blobs.put(content), list[int]()

    async def pace(read: int) -> None:
        paused.append(read)

    assert await is_intact(object_store(harness), stored, pace)
    assert paused == [RANGE_BYTES, RANGE_BYTES, 5]
    flip_bit(harness.blobs.path(stored))
    assert not await is_intact(object_store(harness), stored, pace)


def test_a_setting_bounds_what_is_read_from_an_object_store(tmp_path: Path) -> None:
    local, remote = LocalBlobs(tmp_path), RemoteBlobs(MemoryStore())
    some, none = Settings(patrol_remote_bytes=7200, patrol_seconds=60), Settings(patrol_remote_bytes=0)

    assert policy_for(some, remote).patrol == PatrolPolicy(round_seconds=60, bytes_per_second=2)
    assert policy_for(some, local).patrol == PatrolPolicy(round_seconds=60)
    assert policy_for(none, remote).patrol is None
    assert policy_for(none, local) == WatchPolicy()


def object_store(harness: CatalogHarness) -> RemoteBlobs:
    """The harness's blobs as an object store."""
    return RemoteBlobs(LocalStore(harness.blobs.root))


def flip_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


# --- making derived bytes again


@pytest.mark.parametrize("form", ["PNG", "BMP"])
async def test_a_thumbnail_and_a_picture_are_made_again_from_their_source(harness: CatalogHarness, form: str) -> None:
    cats = await harness.dataset()
    row = await harness.image(await import_picture(harness, cats, form=form))
    derived = [digest for digest in (row.picture, row.thumbnail) if digest != row.source]
    assert len(derived) == (1 if form == "PNG" else 2)
    before = {digest: await harness.blobs.get(digest) for digest in derived}
    await harness.blobs.delete(derived)

    async with running_watch(harness) as published:
        await until_counts(published, {})

    assert {digest: await harness.blobs.get(digest) for digest in derived} == before
    assert list(harness.staging.glob("import-*")) == []


def turned_jpeg(comment: bytes = b"taken by a phone") -> bytes:
    exif, buffer = Image.Exif(), BytesIO()
    exif[0x0112] = 6
    pixels = np.random.default_rng(5).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", exif=exif.tobytes(), comment=comment)
    return buffer.getvalue()


async def test_of_a_jpeg_that_was_cut_the_thumbnail_is_made_again_and_the_rest_is_missed(
    harness: CatalogHarness,
) -> None:
    result = await harness.import_files(await harness.dataset(), harness.stage("a.jpg", turned_jpeg()))
    row = await harness.image(result.files[0].image)
    assert row.cut is not None
    await harness.blobs.delete([row.thumbnail])
    assert (await query(harness, GetBlob(blob=row.thumbnail))).size > 0
    assert await compare(harness) == {}

    await harness.blobs.delete([row.cut, row.picture])

    assert await compare(harness) == {"source": 1, "picture": 1}
    with pytest.raises(BlobMissing, match=f"the source of {row.id} is missing"):
        await query(harness, GetBlob(blob=row.cut))
    expected = await asyncio.to_thread(expected_by, harness.blobs.root.parent / "catalog")
    offline = await find_losses(expected, harness.blobs, harness.blobs.root.parent / "catalog/keys.db", at=NOW)
    assert offline.report().counts == {"source": 1, "picture": 1}


async def test_a_thumbnail_that_was_encoded_with_more_effort_is_made_again_in_that_way(
    harness: CatalogHarness, tmp_path: Path
) -> None:
    cats, file = await harness.dataset(), tmp_path / "a.png"
    Image.effect_noise((400, 300), 40).convert("RGB").save(file)
    decoder = harness.catalog.importer.decoder
    before, now = [await decoder.examine(file, into=tmp_path, rules=rules) for rules in (2, 3)]
    assert isinstance(before, Accepted) and isinstance(now, Accepted)
    assert before.thumbnail_sha256 != now.thumbnail_sha256
    digests = {"source": before.sha256, "picture": before.picture_sha256, "thumbnail": before.thumbnail_sha256}
    await harness.append("dataset", cats, msgspec.structs.replace(image_added(cats, 0), **digests))
    await harness.blobs.put(file.read_bytes())

    async with running_watch(harness) as published:
        await until_counts(published, {"key": 1})

    assert await harness.blobs.get(before.thumbnail_sha256) == before.thumbnail_path.read_bytes()


@pytest.mark.slow
async def test_a_jpeg_that_was_encoded_again_before_there_were_cuts_is_made_again_in_that_way(
    harness: CatalogHarness, tmp_path: Path
) -> None:
    cats, file = await harness.dataset(), tmp_path / "a.jpg"
    file.write_bytes(turned_jpeg())
    before = await harness.catalog.importer.decoder.examine(file, into=tmp_path, rules=1)
    assert isinstance(before, Accepted)
    picture, thumbnail = before.picture_path.read_bytes(), before.thumbnail_path.read_bytes()
    changes = {"source": before.sha256, "picture": before.picture_sha256, "thumbnail": before.thumbnail_sha256}
    await harness.append("dataset", cats, msgspec.structs.replace(image_added(cats, 0), **changes))
    await harness.blobs.put(file.read_bytes())

    assert await compare(harness) == {"picture": 1, "thumbnail": 1, "key": 1}
    async with running_watch(harness) as published:
        await until_counts(published, {"key": 1})

    assert await harness.blobs.get(before.picture_sha256) == picture
    assert await harness.blobs.get(before.thumbnail_sha256) == thumbnail


async def test_a_thumbnail_is_made_from_the_picture_if_the_source_is_lost(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    row = await harness.image(await import_picture(harness, cats, form="BMP"))
    await harness.blobs.delete([row.source, row.thumbnail])

    assert (await query(harness, GetBlob(blob=row.thumbnail))).size > 0

    assert await compare(harness) == {"source": 1}


async def test_bytes_that_are_not_the_same_are_not_stored(harness: CatalogHarness) -> None:
    """As after an upgrade of the decoder: the thumbnail that it makes has another digest."""
    cats = await harness.dataset()
    image = await import_picture(harness, cats)
    row = await harness.image(image)
    await harness.executor.store.write(
        lambda connection: connection.execute("UPDATE image SET thumbnail = ?", (digest("old"),))
    )

    for _ in range(2):
        with pytest.raises(BlobMissing, match=f"the thumbnail of {image} is missing"):
            await query(harness, GetBlob(blob=digest("old")))

    assert not await harness.blobs.exists(digest("old"))
    assert await harness.blobs.exists(row.source)


async def test_nothing_is_made_again_of_an_image_that_is_erased_meanwhile(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    image = await import_picture(harness, cats)
    row = await harness.image(image)
    await harness.blobs.delete([row.thumbnail])
    losses = await harness.catalog.watch.compare()
    (reference,) = losses.references()
    repairer = harness.catalog.watch._repairer

    await harness.execute(EraseImage(image=image))

    assert not await repairer.repair(reference)
    made = harness.staging / harness.stage("made.webp", b"made").token
    assert not await repairer._store(reference, row, made)  # decoded before, stored after the erasure
    assert await compare(harness) == {}


async def test_a_comparison_leaves_time_to_others_as_often_as_its_share_says(
    harness: CatalogHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        await harness.blobs.put(bytes([number]) * 10)
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", note)
    whole = await list_sizes(harness.blobs)
    assert len(whole) >= 5
    assert set(pauses) == {0.0}
    pauses.clear()
    assert await list_sizes(harness.blobs, share=0.5) == whole
    assert min(pauses) > 0
