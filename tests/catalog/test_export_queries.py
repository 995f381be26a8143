"""What exports are written from: a data set, a filter, a version; with what was removed, erased and lost meanwhile."""

import hashlib
from pathlib import Path

import pytest

from contracts.commands.datasets import (
    EditTags,
    EraseImage,
    FreezeVersion,
    OrderTags,
    RemoveDataset,
    RemoveImage,
    SetCaption,
)
from contracts.errors import Gone, Invalid, KeyMissing, Lost, NotFound
from contracts.events.log import LossAccepted
from contracts.filter_text import read_filter
from contracts.ids import DatasetId, ImageId, VersionId
from contracts.queries.datasets import ListImages, ReadManifest
from contracts.queries.exports import ExportEntry, ReadExport
from contracts.training_text import training_text
from tests.catalog.harness import CatalogHarness, open_catalog, png
from tests.catalog.test_watch import FOLDER, lose_keys, query
from tests.conftest import BusOf

CAPTION = "猫がいます (^_^)\nsecond line"


async def export(harness: CatalogHarness, version: int | None = None, filter: str | None = None) -> list[ExportEntry]:
    selected = None if filter is None else read_filter(filter)
    page = await query(harness, ReadExport(dataset="cats", version=version, filter=selected))
    assert page.next is None
    return list(page.items)


async def three_cats(harness: CatalogHarness) -> list[ImageId]:
    """Tagged in an order, captioned, and without any text; two have the same name."""
    cats = await harness.dataset()
    files = [
        harness.stage("夏.png", png(1), tags=("1girl", "name_(series)", "^_^")),
        harness.stage("夏.png", png(2), caption=CAPTION),
        harness.stage("b.png", png(3)),
    ]
    imported = await harness.import_files(cats, *files)
    ids = [ImageId(str(file.image)) for file in imported.files]
    await harness.execute(OrderTags(image=ids[0], tags=("^_^", "1girl")))
    return ids


async def test_names_and_texts_are_in_plain_and_in_order(harness: CatalogHarness) -> None:
    ids = await three_cats(harness)
    tagged, captioned, bare = await export(harness)
    assert [entry.image for entry in (tagged, captioned, bare)] == ids
    assert (tagged.name, tagged.tags, tagged.caption) == ("夏.png", ("^_^", "1girl", "name_(series)"), None)
    assert (captioned.name, captioned.caption, captioned.caption_source) == ("夏.png", CAPTION, "import")
    assert (bare.name, bare.tags, bare.caption, bare.caption_source) == ("b.png", (), None, "tags")
    row = await harness.image(ids[1])
    assert (captioned.picture, captioned.source, captioned.size) == (row.picture, row.source, row.size)


async def test_the_digest_of_the_text_as_received_is_there_if_it_was_asked_for(harness: CatalogHarness) -> None:
    await three_cats(harness)
    texted = harness.stage("d.png", png(4), text="1girl, solo")
    await harness.import_files(DatasetId((await harness.image((await export(harness))[0].image)).dataset_id), texted)
    page = await query(harness, ReadExport(dataset="cats", received=True))
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in (CAPTION, "1girl, solo")]
    assert [entry.received for entry in page.items] == [None, digests[0], None, digests[1]]
    assert not any(entry.received for entry in await export(harness))


async def test_the_texts_are_those_of_lists_and_of_frozen_versions(harness: CatalogHarness) -> None:
    await three_cats(harness)
    version = await harness.execute(FreezeVersion(dataset="cats", trigger="zwx"))
    views = (await query(harness, ListImages(dataset="cats"))).items
    trained = (await query(harness, ReadManifest(version_id=VersionId(version.id)))).items
    for trigger, entries, expected in (
        ("", await export(harness), [view.caption for view in views]),
        ("zwx", await export(harness, version=1), [entry.caption for entry in trained]),
    ):
        assert [training_text(trigger, one.tags, one.caption, one.template) for one in entries] == expected


async def test_a_filter_selects_as_in_lists(harness: CatalogHarness) -> None:
    tagged, captioned, bare = await three_cats(harness)
    for text, expected in (("1girl", [tagged]), ('caption:"猫"', [captioned]), ("untagged", [captioned, bare])):
        assert [entry.image for entry in await export(harness, filter=text)] == expected
    await harness.execute(FreezeVersion(dataset="cats"))
    with pytest.raises(Invalid, match="as a whole"):
        await export(harness, version=1, filter="1girl")


async def test_a_version_stays_as_it_was_frozen_but_for_what_was_erased(harness: CatalogHarness) -> None:
    tagged, captioned, bare = await three_cats(harness)
    await harness.execute(FreezeVersion(dataset="cats"))
    before = await export(harness, version=1)
    await harness.execute(EditTags(image=tagged, remove=("1girl",)))
    await harness.execute(SetCaption(image=captioned, caption="by hand"))
    await harness.execute(RemoveImage(image=bare))

    assert [entry.image for entry in await export(harness)] == [tagged, captioned]
    now = await export(harness, version=1)
    assert now[0] == before[0] and now[2] == before[2]
    assert (now[1].caption, now[1].caption_source) == (CAPTION, "written")  # who wrote it is known no more

    await harness.execute(EraseImage(image=captioned))
    assert [entry.image for entry in await export(harness)] == [tagged]
    gone = (await export(harness, version=1))[1]
    assert (gone.image, gone.erased, gone.name, gone.caption, gone.tags) == (captioned, True, "", None, ())
    assert [entry.erased for entry in await export(harness, version=1)] == [False, True, False]


async def test_the_versions_of_a_removed_data_set_are_still_exported(harness: CatalogHarness) -> None:
    await three_cats(harness)
    version = await harness.execute(FreezeVersion(dataset="cats"))
    dataset_id = (await harness.image((await export(harness))[0].image)).dataset_id
    await harness.execute(RemoveDataset(dataset="cats"))
    with pytest.raises(Gone):
        await query(harness, ReadExport(dataset=dataset_id))
    with pytest.raises(NotFound):
        await query(harness, ReadExport(dataset=dataset_id, version=9))
    frozen = await query(harness, ReadExport(dataset=dataset_id, version=version.version))
    assert [entry.name for entry in frozen.items] == ["夏.png", "夏.png", "b.png"]


@pytest.mark.slow
async def test_a_lost_key_fails_the_export_until_it_is_given_up(harness: CatalogHarness, tmp_path: Path) -> None:
    tagged, captioned, bare = await three_cats(harness)
    await harness.execute(EditTags(image=captioned, add=("cat",)))
    await harness.execute(FreezeVersion(dataset="cats"))
    lose_keys(tmp_path / FOLDER)
    for version in (None, 1):
        with pytest.raises(KeyMissing):
            await export(harness, version=version)

    await harness.append("log", "loss_1", LossAccepted(images=(tagged, captioned, bare)))
    entry = (await export(harness))[1]
    assert (entry.name, entry.caption, entry.caption_lost, entry.tags) == ("", None, True, ("cat",))
    with pytest.raises(Lost, match="lost for good"):  # what it froze cannot be read, and nothing else takes its place
        await export(harness, version=1)


async def test_after_a_restart_the_entries_are_equal(bus_of: BusOf, tmp_path: Path) -> None:
    bus = await bus_of("catalog")
    async with open_catalog(bus, tmp_path / "data") as harness:
        await three_cats(harness)
        await harness.execute(FreezeVersion(dataset="cats"))
        before = [await export(harness), await export(harness, version=1)]
    async with open_catalog(bus, tmp_path / "data") as harness:
        assert [await export(harness), await export(harness, version=1)] == before
