"""Repeats and masks of images: imported, set in bulk, undone, frozen, erased, and missed where they are lost."""

import hashlib
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from catalog.domain import manifest
from catalog.keys import Keys
from contracts.commands.datasets import (
    EraseDataset,
    EraseImage,
    FreezeVersion,
    ImportedFile,
    SetRepeats,
    StagedFile,
    StagedMask,
    Undo,
)
from contracts.errors import BlobMissing
from contracts.events.datasets import MaskSet, RepeatsSet
from contracts.filter_text import parse_filter
from contracts.filters import AllImages, Matching, TheseImages
from contracts.ids import Digest, ImageId, VersionId, ulid
from contracts.queries.datasets import DiffVersions, GetImage, GetVersion, ImageView, ReadManifest
from contracts.queries.losses import GetBlob
from contracts.wire.blobs.store import LocalBlobs
from tests.catalog.harness import CatalogHarness, event_names, image_id_of, png
from tests.catalog.log_builder import bitmap
from tests.catalog.test_reviews import dataset_of
from tests.catalog.test_watch import compare, query

WIDE = (48, 32)
TURNED = 6
"""The EXIF orientation of pixels that lie on their side."""


def encoded(image: Image.Image, form: str = "PNG", orientation: int | None = None) -> bytes:
    content, exif = BytesIO(), Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    image.save(content, form, exif=exif)
    return content.getvalue()


def half(size: tuple[int, int] = WIDE) -> Image.Image:
    """A mask: white on the left, black on the right."""
    mask = Image.new("L", size, "black")
    mask.paste("white", (0, 0, size[0] // 2, size[1]))
    return mask


def masked(harness: CatalogHarness, file: StagedFile, content: bytes) -> StagedFile:
    token = ulid()
    (harness.staging / token).write_bytes(content)
    mask = StagedMask(token=token, digest=Digest(hashlib.sha256(content).hexdigest()), size=len(content))
    return msgspec.structs.replace(file, mask=mask)


def repeated(file: StagedFile, repeats: int) -> StagedFile:
    return msgspec.structs.replace(file, repeats=repeats)


async def view_of(harness: CatalogHarness, image: str, at_seq: int | None = None) -> ImageView:
    view = await query(harness, GetImage(image=ImageId(image), at_seq=at_seq))
    assert isinstance(view, ImageView)
    return view


async def mask_of(harness: CatalogHarness, image: str) -> Image.Image | None:
    digest = (await view_of(harness, image)).mask
    return None if digest is None else Image.open(BytesIO(await harness.blobs.get(digest)))


async def import_masked(harness: CatalogHarness, dataset: str, colour: int, mask: Image.Image) -> ImportedFile:
    file = harness.stage(f"{colour}.png", png(colour, WIDE))
    return (await harness.import_files(dataset, masked(harness, file, encoded(mask)))).files[0]


async def test_repeats_and_masks_come_with_files(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    result = await harness.import_files(
        cats,
        repeated(masked(harness, harness.stage("a.png", png(1, WIDE)), encoded(half())), 3),
        repeated(harness.stage("b.png", png(2, WIDE)), 3),
        repeated(harness.stage("c.png", png(3, WIDE)), 1),
        harness.stage("d.png", png(4, WIDE)),
    )
    events = await harness.events("dataset", cats)
    assert [event for event in events if isinstance(event, RepeatsSet)] == [RepeatsSet(images=bitmap(0, 1), repeats=3)]
    views = [await view_of(harness, file.image) for file in result.files]
    assert [view.repeats for view in views] == [3, 3, 1, 1]
    assert [view.mask is not None for view in views] == [True, False, False, False]
    assert [file.mask for file in result.files] == ["taken", None, None, None]
    mask = await mask_of(harness, result.files[0].image)
    assert mask is not None
    assert (mask.format, mask.mode, mask.tobytes()) == ("PNG", "L", half().tobytes())


@pytest.mark.parametrize(
    "mask",
    [
        half().convert("1"),
        half().convert("RGB"),
        half().convert("P"),
        half().convert("RGBA"),
        Image.fromarray(np.asarray(half()).astype(np.uint16) * 257),
    ],
    ids=["1 bit", "colours", "palette", "alpha", "16 bits"],
)
async def test_masks_of_any_kind_are_kept_in_grey(harness: CatalogHarness, mask: Image.Image) -> None:
    cats = await harness.dataset()
    file = await import_masked(harness, cats, 1, mask)
    kept = await mask_of(harness, file.image)
    assert kept is not None
    assert (kept.mode, kept.tobytes()) == ("L", half().tobytes())


async def test_a_mask_is_turned_by_its_own_orientation(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    picture = encoded(Image.new("RGB", (32, 48), "red"), "JPEG", TURNED)  # upright: 48 x 32
    on_its_side = half().transpose(Image.Transpose.ROTATE_90)
    files = [
        masked(harness, harness.stage("a.jpg", picture), encoded(on_its_side, orientation=TURNED)),
        masked(harness, harness.stage("b.png", png(1, WIDE)), encoded(half())),
    ]
    result = await harness.import_files(cats, *files)
    for file in result.files:
        mask = await mask_of(harness, file.image)
        assert mask is not None
        assert (mask.size, mask.tobytes(), mask.getexif().get(0x0112)) == (WIDE, half().tobytes(), None)


async def test_a_mask_that_cannot_be_used_is_refused_and_its_picture_taken(
    harness: CatalogHarness, tmp_path: Path
) -> None:
    cats = await harness.dataset()
    files = [
        masked(harness, harness.stage("other.png", png(1, WIDE)), encoded(half((32, 48)))),
        masked(harness, harness.stage("broken.png", png(2, WIDE)), encoded(half())[:60]),
        masked(harness, harness.stage("text.png", png(3, WIDE)), b"these are words"),
    ]
    result = await harness.import_files(cats, *files)
    assert [(file.outcome, file.mask) for file in result.files] == [("added", "refused")] * 3
    details = [file.detail or "" for file in result.files]
    assert details[0] == "the mask was not taken: it is 32 x 48, and the picture 48 x 32"
    assert details[1].startswith("the mask was not taken: the picture is damaged")
    assert details[2].startswith("the mask was not taken: this is not a picture")
    assert event_names(await harness.events("dataset", cats))[1:] == ["ImageAdded"] * 3
    named = [await harness.image(file.image) for file in result.files]
    stored = {file.name for file in (tmp_path / "data" / "blobs").rglob("*") if file.is_file()}
    assert stored == {digest for row in named for digest in row.blobs}


async def test_what_comes_again_changes_nothing_and_what_is_new_holds(harness: CatalogHarness) -> None:
    cats = await harness.dataset()

    def file(repeats: int, mask: Image.Image) -> StagedFile:
        return repeated(masked(harness, harness.stage("a.png", png(1, WIDE)), encoded(mask)), repeats)

    image = (await harness.import_files(cats, file(3, half()))).files[0].image
    again = await harness.import_files(cats, file(3, half()))
    assert (again.changed, again.files[0].mask) == (False, "taken")
    changed = await harness.import_files(cats, file(2, Image.new("L", WIDE, "white")))
    view, mask = await view_of(harness, image), await mask_of(harness, image)
    assert mask is not None
    assert (view.repeats, view.etag, mask.getextrema()) == (2, changed.sequence, (255, 255))
    without = await harness.import_files(cats, harness.stage("a.png", png(1, WIDE)))
    assert (without.changed, (await view_of(harness, image)).repeats) == (False, 2)
    past = await view_of(harness, image, at_seq=changed.sequence - 1)
    first, _ = [event.mask for event in await harness.events("dataset", cats) if isinstance(event, MaskSet)]
    assert (past.repeats, past.mask) == (3, first)
    await harness.execute(Undo(dataset=cats, commit=changed.sequence))
    view = await view_of(harness, image)
    assert (view.repeats, view.mask) == (3, past.mask)


async def test_of_equal_files_in_one_import_the_last_repeats_and_mask_hold(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    files = [
        repeated(masked(harness, harness.stage(name, png(1, WIDE)), encoded(Image.new("L", WIDE, grey))), repeats)
        for name, grey, repeats in (("a.png", 10, 3), ("b.png", 20, 5))
    ]
    result = await harness.import_files(cats, *files)
    view, mask = await view_of(harness, result.files[0].image), await mask_of(harness, result.files[0].image)
    assert mask is not None
    assert (view.repeats, mask.getextrema()) == (5, (20, 20))


async def test_repeats_are_set_by_filter_undone_and_in_the_past(harness: CatalogHarness) -> None:
    cats = await dataset_of(harness, 4)

    async def repeats() -> list[int]:
        return [(await view_of(harness, image_id_of(cats, ordinal))).repeats for ordinal in range(4)]

    these = TheseImages(ids=(image_id_of(cats, 1), image_id_of(cats, 2)))
    first = await harness.execute(SetRepeats(dataset="cats", selection=these, repeats=3))
    assert (first.images, await repeats()) == (2, [1, 3, 3, 1])
    every = await harness.execute(SetRepeats(dataset=cats, selection=AllImages(), repeats=3))
    assert (every.images, await repeats()) == (2, [3] * 4)
    again = await harness.execute(SetRepeats(dataset=cats, selection=AllImages(), repeats=3))
    assert (again.images, again.changed) == (0, False)
    none = Matching(filter=parse_filter("reviewed"))
    assert (await harness.execute(SetRepeats(dataset=cats, selection=none, repeats=9))).images == 0
    undone = await harness.execute(Undo(dataset=cats, commit=first.sequence))
    assert undone.summary == "set the repeats of 2 images to 3"
    assert await repeats() == [3, 1, 1, 3]
    assert (await view_of(harness, image_id_of(cats, 1), at_seq=first.sequence)).repeats == 3


async def test_versions_have_both_and_lines_of_images_without_are_as_before(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    plain = (await harness.import_files(cats, harness.stage("b.png", png(2, WIDE)))).files[0]
    frozen = await harness.execute(FreezeVersion(dataset="cats"))
    with_mask = await import_masked(harness, cats, 1, half())
    await harness.execute(SetRepeats(dataset=cats, selection=TheseImages(ids=(with_mask.image,)), repeats=4))
    later = await harness.execute(FreezeVersion(dataset="cats"))
    entries = (await query(harness, ReadManifest(version_id=VersionId(later.id)))).items
    mask = (await view_of(harness, with_mask.image)).mask
    assert [(entry.image, entry.repeats, entry.mask) for entry in entries] == [
        (plain.image, 1, None),
        (with_mask.image, 4, mask),
    ]
    assert b"repeats" not in await page_of(harness, 1) and b"mask" not in await page_of(harness, 1)
    await harness.execute(SetRepeats(dataset=cats, selection=AllImages(), repeats=2))
    await harness.execute(FreezeVersion(dataset="cats"))
    changes = (await query(harness, DiffVersions(dataset="cats", version=3, since=2))).items
    assert [(one.change, one.repeats_changed, one.mask_changed) for one in changes] == [("changed", True, False)] * 2
    assert frozen.version == 1


async def page_of(harness: CatalogHarness, version: int) -> bytes:
    view = await query(harness, GetVersion(dataset="cats", version=version))
    root = manifest.decode_root(await harness.blobs.get(view.manifest))
    return await harness.blobs.get(root.pages[0].digest)


def blobs_in(folder: Path) -> set[str]:
    return {file.name for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("whole", [False, True], ids=["image", "data set"])
async def test_an_erased_image_leaves_none_of_its_masks(harness: CatalogHarness, tmp_path: Path, whole: bool) -> None:
    cats = await harness.dataset()
    grey = [Image.new("L", WIDE, level) for level in (1, 2)]
    for one in grey:
        image = (await import_masked(harness, cats, 1, one)).image
    dogs = await harness.dataset("dogs")
    kept = (await import_masked(harness, dogs, 2, grey[0])).image  # has the first mask, too
    named = {event.mask for event in await harness.events("dataset", cats) if isinstance(event, MaskSet)}
    blobs = tmp_path / "data" / "blobs"
    assert len(named) == 2
    assert named < blobs_in(blobs)

    backup = tmp_path / "backup"
    for mask in named:
        assert mask is not None
        await LocalBlobs(backup / "blobs").put(await harness.blobs.get(mask))
    copied = await Keys.open(backup / "keys.db")
    await copied.close()
    await harness.keys.register_backup(backup, datetime.now(UTC) - timedelta(days=1))

    if whole:
        await harness.execute(EraseDataset(dataset=cats))
    else:
        await harness.execute(EraseImage(image=image))

    row = await harness.image(kept)
    assert blobs_in(blobs) == {*row.blobs, row.mask}
    assert blobs_in(backup / "blobs") == {row.mask}
    assert await compare(harness) == {}


async def test_a_lost_mask_is_missed_and_named_also_an_earlier_one(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    for level in (1, 2):
        image = (await import_masked(harness, cats, 1, Image.new("L", WIDE, level))).image
    masks = [event.mask for event in await harness.events("dataset", cats) if isinstance(event, MaskSet)]
    await harness.blobs.delete([mask for mask in masks if mask is not None])
    assert await compare(harness) == {"mask": 2}
    for mask in masks:
        assert mask is not None
        with pytest.raises(BlobMissing, match=f"the mask of {image} is missing"):
            await query(harness, GetBlob(blob=mask))
    await import_masked(harness, cats, 1, Image.new("L", WIDE, 2))  # given again, it is stored again
    assert await compare(harness) == {"mask": 1}
