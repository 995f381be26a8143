"""Image import through the real decoder."""

import hashlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catalog.keys import open_if_present
from catalog.service.imports import remove_stale_work_folders
from contracts.commands.datasets import (
    MAX_FILES_PER_IMPORT,
    MAX_TEXT_BYTES_PER_IMPORT,
    EraseImage,
    ImportedFile,
    RemoveDataset,
    RemoveImage,
)
from contracts.commits import COMMIT_BYTES
from contracts.errors import Gone, KeyReused, NotFound, Unavailable
from contracts.events.log import LossAccepted
from contracts.filter_text import parse_filter, parse_sort
from contracts.ids import Digest, ulid
from contracts.queries.datasets import ListImages
from contracts.sealed import CAPTION, NAME
from contracts.wire.blobs.source import read_source
from contracts.wire.log.event_log import EventLog
from tests.catalog.harness import CatalogHarness, event_names, png
from tests.catalog.test_watch import query
from tests.damage import execute_sql


async def test_each_file_is_added_duplicate_or_refused_on_its_own(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    result = await harness.import_files(
        cats,
        harness.stage("one.png", png(1), caption="a cat", tags=("Long Hair", "bad,tag", "cat")),
        harness.stage("notes.png", b"these are words"),
        harness.stage("folder\\again.bmp", png(1, form="BMP"), tags=("lost",)),
        harness.stage("two.png", png(2)),
    )
    assert [(file.name, file.outcome, file.ordinal, file.reason) for file in result.files] == [
        ("one.png", "added", 0, None),
        ("notes.png", "refused", None, "unknown-format"),
        ("folder/again.bmp", "existing", 0, "twin"),
        ("two.png", "added", 1, None),
    ]
    assert "bad,tag" in (result.files[0].detail or "")
    assert "ignored" in (result.files[2].detail or "")
    events = await harness.events("dataset", cats)
    assert event_names(events)[1:] == ["ImageAdded", "CaptionSet", "TagsEdited", "ImageRefused", "ImageAdded"]
    image = result.files[0].image
    assert await harness.tags(image) == {"long_hair", "cat"}
    row = await harness.image(image)
    keys = await harness.keys.keys_of([image])
    assert open_if_present(keys, image, row.name, NAME) == "one.png"
    assert row.caption is not None
    assert open_if_present(keys, image, row.caption, CAPTION) == "a cat"
    assert await harness.blobs.get(row.picture) == png(1)


async def test_the_log_contains_no_private_text(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    files = (
        harness.stage("secret-holiday.png", png(1), caption="secret words"),
        harness.stage("secret-notes.png", b"secret bytes"),
        harness.stage("secret-twin.png", png(1), caption="secret twin"),
    )
    result = await harness.import_files(cats, *files, command_id="c1")
    history = await EventLog(harness.bus).load("dataset", cats)
    assert not [recorded.sequence for recorded in history.commits if b"secret" in recorded.body]
    # The result still has the file names, each time.
    again = await harness.import_files(cats, *files, command_id="c1")
    assert again == result
    assert [file.name for file in again.files] == ["secret-holiday.png", "secret-notes.png", "secret-twin.png"]


async def test_a_repeated_import_returns_the_same_result_even_without_its_files(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    file = harness.stage("one.png", png(1))
    first = await harness.import_files(cats, file, command_id="c1")
    (harness.staging / file.token).unlink()
    await harness.execute(RemoveDataset(dataset=cats))
    assert await harness.import_files(cats, file, command_id="c1") == first
    assert event_names(await harness.events("dataset", cats)) == ["DatasetCreated", "ImageAdded", "DatasetRemoved"]
    with pytest.raises(Gone):
        await harness.import_files(cats, harness.stage("two.png", png(2)))
    with pytest.raises(KeyReused):
        await harness.execute(RemoveDataset(dataset=cats), "c1", "another")


async def test_files_of_one_name_in_two_folders_are_two_images_with_their_own_texts(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    texts = {"one/a.png": "1girl, solo", "two/a.png": "1boy, solo", "../two//a.png": "no humans, sky"}
    files = [harness.stage(name, png(number), text=text) for number, (name, text) in enumerate(texts.items())]
    result = await harness.import_files(cats, *files)
    assert [(file.name, file.outcome) for file in result.files] == [
        ("one/a.png", "added"),
        ("two/a.png", "added"),
        ("two/a.png", "added"),
    ]
    page = await query(harness, ListImages(dataset=cats, filter=parse_filter("name:two/"), sort=parse_sort("name")))
    assert [(view.name, view.caption) for view in page.items] == [
        ("two/a.png", "1boy, solo"),
        ("two/a.png", "no humans, sky"),
    ]


async def test_images_are_sorted_by_their_whole_path(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    names = ("10/1.png", "2/10.png", "2/9.png", "1.png")
    await harness.import_files(cats, *(harness.stage(name, png(number)) for number, name in enumerate(names)))
    page = await query(harness, ListImages(dataset=cats, sort=parse_sort("name")))
    assert [view.name for view in page.items] == ["1.png", "2/9.png", "2/10.png", "10/1.png"]


async def test_a_picture_is_added_to_a_data_set_only_once(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    first = (await harness.import_files(cats, harness.stage("one.png", png(1)))).files[0]
    duplicate = await harness.import_files(cats, harness.stage("other name.png", png(1)))
    assert (duplicate.changed, duplicate.files[0].outcome, duplicate.files[0].image) == (False, "existing", first.image)
    # In another data set it is another image.
    dogs = await harness.dataset("dogs")
    assert (await harness.import_files(dogs, harness.stage("one.png", png(1)))).files[0].outcome == "added"


async def test_a_duplicates_caption_is_used_only_where_there_is_none(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    image = (await harness.import_files(cats, harness.stage("one.png", png(1)))).files[0].image
    second_import = await harness.import_files(
        cats, harness.stage("a.png", png(1), caption="first"), harness.stage("b.png", png(1), caption="second")
    )
    assert ["kept" in (file.detail or "") for file in second_import.files] == [False, True]
    row = await harness.image(image)
    assert row.caption is not None
    assert open_if_present(await harness.keys.keys_of([image]), image, row.caption, CAPTION) == "first"
    assert row.caption_source == "import"


async def test_a_caption_that_a_lost_key_cannot_seal_is_refused_and_taken_once_that_image_is_removed(
    harness: CatalogHarness, tmp_path: Path
) -> None:
    cats = await harness.dataset()
    image = (await harness.import_files(cats, harness.stage("one.png", png(1)))).files[0].image
    execute_sql(tmp_path / "data/catalog/keys.db", "DELETE FROM key")

    async def import_again(caption: str | None) -> ImportedFile:
        return (await harness.import_files(cats, harness.stage("one.png", png(1), caption=caption))).files[0]

    refused = await import_again("a cat")
    assert (refused.outcome, refused.reason, refused.image) == ("refused", "key-missing", image)
    assert "`loratory restore --from BACKUP`" in (refused.detail or "")
    assert (await import_again(None)).outcome == "existing"  # nothing would be lost

    await harness.append("log", ulid(), LossAccepted(images=(image,), reason="no copy exists"))
    lost = await import_again("a cat")
    assert (lost.outcome, lost.reason) == ("refused", "lost")

    await harness.execute(RemoveImage(image=image))
    added = await import_again("a cat")
    assert added.outcome == "added"
    row = await harness.image(added.image)
    assert row.caption is not None
    assert open_if_present(await harness.keys.keys_of([added.image]), added.image, row.caption, CAPTION) == "a cat"


async def test_a_removed_picture_is_added_again_with_a_new_ordinal(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    first = (await harness.import_files(cats, harness.stage("one.png", png(1), tags=("old",)))).files[0]
    await harness.execute(RemoveImage(image=first.image))
    again = (await harness.import_files(cats, harness.stage("one.png", png(1)))).files[0]
    assert (again.outcome, again.ordinal) == ("added", 1)
    assert again.image != first.image
    assert await harness.tags(again.image) == set()


async def test_a_missing_upload_refuses_the_whole_command(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    missing = harness.stage("lost.png", png(1))
    (harness.staging / missing.token).unlink()
    with pytest.raises(NotFound):
        await harness.import_files(cats, harness.stage("one.png", png(2)), missing)
    assert event_names(await harness.events("dataset", cats)) == ["DatasetCreated"]
    assert not list(harness.staging.glob("import-*"))


async def test_a_storage_error_is_not_a_refusal(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    (harness.blobs.root / "tmp").parent.mkdir(parents=True)
    (harness.blobs.root / "tmp").write_text("a file where a folder must be")
    with pytest.raises(Unavailable):
        await harness.import_files(cats, harness.stage("one.png", png(1)))
    assert event_names(await harness.events("dataset", cats)) == ["DatasetCreated"]


async def test_the_largest_import_fits_in_a_commit(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    caption = "\U0001f408" * (MAX_TEXT_BYTES_PER_IMPORT // MAX_FILES_PER_IMPORT // 4)
    files = [
        harness.stage("\u732b" * 255 + ".png", png(number, size=(16, 16 + number)), caption=caption)
        for number in range(MAX_FILES_PER_IMPORT)
    ]
    result = await harness.import_files(cats, *files)
    assert {file.outcome for file in result.files} == {"added"}
    history = await EventLog(harness.bus).load("dataset", cats)
    assert len(history.commits[-1].body) < COMMIT_BYTES


async def test_one_file_with_the_largest_texts_fits_in_a_commit(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    tags = [f"{number}" + "\u732b" * 190 for number in range(500)] + ["a,b"] * 500
    file = harness.stage("one.png", png(1), caption="\U0001f408" * 20_000, tags=tags)
    file_result = (await harness.import_files(cats, file)).files[0]
    assert file_result.outcome == "added"
    assert len((file_result.detail or "").encode()) < 2000
    assert "the rest were not imported" in (file_result.detail or "")
    assert 20 < len(await harness.tags(file_result.image)) < 40


async def test_work_folders_of_a_killed_catalog_are_removed(harness: CatalogHarness) -> None:
    staging = harness.staging
    (staging / "import-old").mkdir()
    (staging / "import-old" / "half.png").write_bytes(b"half")
    (staging / "upload").write_bytes(b"of the gateway")
    remove_stale_work_folders(staging)
    assert [path.name for path in staging.iterdir()] == ["upload"]


def photograph(comment: bytes) -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "52.5200 N, 13.4050 E"
    buffer = BytesIO()
    pixels = np.random.default_rng(5).integers(0, 256, (24, 36, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", exif=exif.tobytes(), comment=comment)
    return buffer.getvalue()


def blobs_in(harness: CatalogHarness) -> set[str]:
    """The digests of all stored blobs."""
    digests = (path.name for path in harness.blobs.path(Digest("0" * 64)).parents[2].rglob("*") if path.is_file())
    return {name for name in digests if len(name) == 64}


async def test_a_jpeg_is_stored_as_its_picture_and_what_was_cut_and_erased_with_both(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    one, other = photograph(b"one"), photograph(b"other")
    files = (harness.stage("one.jpg", one), harness.stage("other.jpg", other))
    result = await harness.import_files(cats, *files)
    assert [file.outcome for file in result.files] == ["added", "existing"]
    row = await harness.image(result.files[0].image)
    assert row.cut is not None
    assert (row.source, row.size, row.width, row.height) == (hashlib.sha256(one).hexdigest(), len(one), 24, 36)
    assert await read_source(harness.blobs, row.source, picture=row.picture, cut=row.cut) == one
    assert b"52.5200" not in await harness.blobs.get(row.picture)
    # Neither the file as received is stored, nor what was cut from the duplicate.
    assert blobs_in(harness) == {row.picture, row.cut, row.thumbnail}

    left_behind = harness.stage("of a killed gateway.jpg", one[: len(one) // 2])
    await harness.execute(EraseImage(image=row.id))
    await harness.purger.purge_now()
    assert blobs_in(harness) == set()
    assert not (harness.staging / left_behind.token).exists()
