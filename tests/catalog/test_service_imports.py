"""Files on their way in, through the real decoder."""

import pytest

from catalog.keys import CAPTION, NAME, opened
from catalog.service.imports import clear_away
from contracts.commands import FILES_AT_ONCE, WORDS_AT_ONCE, RemoveDataset, RemoveImage
from contracts.errors import Gone, KeyReused, NotFound, Unavailable
from contracts.events import COMMIT_BYTES
from contracts.wire.log import EventLog
from tests.catalog.house import House, kinds, png


async def test_each_file_is_added_known_or_refused_by_itself(house: House) -> None:
    cats = await house.dataset()
    receipt = await house.bring_in(
        cats,
        house.staged("one.png", png(1), caption="a cat", tags=("Long Hair", "bad,tag", "cat")),
        house.staged("notes.png", b"these are words"),
        house.staged("folder\\again.bmp", png(1, form="BMP"), tags=("lost",)),
        house.staged("two.png", png(2)),
    )
    assert [(file.name, file.outcome, file.ordinal, file.reason) for file in receipt.files] == [
        ("one.png", "added", 0, None),
        ("notes.png", "refused", None, "unknown-format"),
        ("again.bmp", "existing", 0, "twin"),
        ("two.png", "added", 1, None),
    ]
    assert "bad,tag" in (receipt.files[0].detail or "")
    assert "not taken" in (receipt.files[2].detail or "")
    facts = await house.facts("dataset", cats)
    assert kinds(facts)[1:] == ["ImageAdded", "CaptionSet", "TagsEdited", "ImageRefused", "ImageAdded"]
    image = receipt.files[0].image
    assert await house.tags(image) == {"long_hair", "cat"}
    row = await house.image(image)
    keys = await house.keys.keys_of([image])
    assert opened(keys, image, row.name, NAME) == "one.png"
    assert row.caption is not None
    assert opened(keys, image, row.caption, CAPTION) == "a cat"
    assert await house.blobs.get(row.picture) == png(1)


async def test_nothing_private_stands_in_the_log(house: House) -> None:
    cats = await house.dataset()
    files = (
        house.staged("secret-holiday.png", png(1), caption="secret words"),
        house.staged("secret-notes.png", b"secret bytes"),
        house.staged("secret-twin.png", png(1), caption="secret twin"),
    )
    receipt = await house.bring_in(cats, *files, command="c1")
    history = await EventLog(house.bus).load("dataset", cats)
    assert not [stored.sequence for stored in history.commits if b"secret" in stored.body]
    # And yet the answer names the files, each time.
    again = await house.bring_in(cats, *files, command="c1")
    assert again == receipt
    assert [file.name for file in again.files] == ["secret-holiday.png", "secret-notes.png", "secret-twin.png"]


async def test_the_same_command_again_changes_nothing_even_when_its_files_are_gone(house: House) -> None:
    cats = await house.dataset()
    file = house.staged("one.png", png(1))
    first = await house.bring_in(cats, file, command="c1")
    (house.imports.staging / file.token).unlink()
    await house.tell(RemoveDataset(dataset=cats))
    assert await house.bring_in(cats, file, command="c1") == first
    assert kinds(await house.facts("dataset", cats)) == ["DatasetCreated", "ImageAdded", "DatasetRemoved"]
    with pytest.raises(Gone):
        await house.bring_in(cats, house.staged("two.png", png(2)))
    with pytest.raises(KeyReused):
        await house.tell(RemoveDataset(dataset=cats), "c1", "another")


async def test_a_picture_that_is_there_is_not_taken_twice(house: House) -> None:
    cats = await house.dataset()
    first = (await house.bring_in(cats, house.staged("one.png", png(1)))).files[0]
    known = await house.bring_in(cats, house.staged("other name.png", png(1)))
    assert (known.changed, known.files[0].outcome, known.files[0].image) == (False, "existing", first.image)
    # In another data set it is another image.
    dogs = await house.dataset("dogs")
    assert (await house.bring_in(dogs, house.staged("one.png", png(1)))).files[0].outcome == "added"


async def test_a_caption_that_comes_later_is_taken_once(house: House) -> None:
    cats = await house.dataset()
    image = (await house.bring_in(cats, house.staged("one.png", png(1)))).files[0].image
    late = await house.bring_in(
        cats, house.staged("a.png", png(1), caption="first"), house.staged("b.png", png(1), caption="second")
    )
    assert ["kept" in (file.detail or "") for file in late.files] == [False, True]
    row = await house.image(image)
    assert row.caption is not None
    assert opened(await house.keys.keys_of([image]), image, row.caption, CAPTION) == "first"
    assert row.caption_source == "import"


async def test_a_removed_picture_comes_in_anew_under_a_new_number(house: House) -> None:
    cats = await house.dataset()
    first = (await house.bring_in(cats, house.staged("one.png", png(1), tags=("old",)))).files[0]
    await house.tell(RemoveImage(image=first.image))
    again = (await house.bring_in(cats, house.staged("one.png", png(1)))).files[0]
    assert (again.outcome, again.ordinal) == ("added", 1)
    assert again.image != first.image
    assert await house.tags(again.image) == set()


async def test_an_upload_that_is_not_there_stops_the_command_and_leaves_nothing(house: House) -> None:
    cats = await house.dataset()
    lost = house.staged("lost.png", png(1))
    (house.imports.staging / lost.token).unlink()
    with pytest.raises(NotFound):
        await house.bring_in(cats, house.staged("one.png", png(2)), lost)
    assert kinds(await house.facts("dataset", cats)) == ["DatasetCreated"]
    assert not list(house.imports.staging.glob("import-*"))


async def test_a_disk_that_takes_nothing_is_not_the_pictures_fault(house: House) -> None:
    cats = await house.dataset()
    (house.blobs.root / "tmp").parent.mkdir(parents=True)
    (house.blobs.root / "tmp").write_text("a file where a folder must be")
    with pytest.raises(Unavailable):
        await house.bring_in(cats, house.staged("one.png", png(1)))
    assert kinds(await house.facts("dataset", cats)) == ["DatasetCreated"]


async def test_the_fullest_command_fits_in_a_commit(house: House) -> None:
    cats = await house.dataset()
    caption = "\U0001f408" * (WORDS_AT_ONCE // FILES_AT_ONCE // 4)
    files = [
        house.staged("\u732b" * 255 + ".png", png(number, size=(16, 16 + number)), caption=caption)
        for number in range(FILES_AT_ONCE)
    ]
    receipt = await house.bring_in(cats, *files)
    assert {file.outcome for file in receipt.files} == {"added"}
    history = await EventLog(house.bus).load("dataset", cats)
    assert len(history.commits[-1].body) < COMMIT_BYTES


async def test_one_file_with_all_words_it_may_have_fits_too(house: House) -> None:
    cats = await house.dataset()
    tags = [f"{number}" + "\u732b" * 190 for number in range(500)] + ["a,b"] * 500
    file = house.staged("one.png", png(1), caption="\U0001f408" * 20_000, tags=tags)
    taken = (await house.bring_in(cats, file)).files[0]
    assert taken.outcome == "added"
    assert len((taken.detail or "").encode()) < 2000
    assert "the rest were not taken" in (taken.detail or "")
    assert 20 < len(await house.tags(taken.image)) < 40


async def test_what_a_killed_catalog_left_is_cleared_away(house: House) -> None:
    staging = house.imports.staging
    (staging / "import-old").mkdir()
    (staging / "import-old" / "half.png").write_bytes(b"half")
    (staging / "upload").write_bytes(b"of the gateway")
    clear_away(staging)
    assert [path.name for path in staging.iterdir()] == ["upload"]
