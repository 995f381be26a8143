"""How the training texts of a data set are written: set, shown everywhere, frozen, exported and undone."""

import pytest

from contracts.commands.datasets import (
    FreezeVersion,
    ImportTexts,
    OrderTags,
    RenameDataset,
    SetCaption,
    SetTextSettings,
    Undo,
)
from contracts.commands.jobs import CreateJob
from contracts.errors import Rejected
from contracts.events.base import ReadAs
from contracts.ids import ImageId, JobId, VersionId
from contracts.queries.datasets import GetImage, GetTextSettings, ImageView, ListImages, ReadManifest
from contracts.queries.jobs import GetJob
from contracts.tag_style import TagStyle
from tests.catalog.harness import CatalogHarness, png
from tests.catalog.test_export_queries import export
from tests.catalog.test_watch import query

STYLE = TagStyle(words="underscores", separator=" ||| ")
SETTINGS = SetTextSettings(dataset="cats", trigger=" 猫娘 ", template=2, style=STYLE)
TAGGED, BOTH, BARE = "猫娘 ||| 長い髪 ||| ^_^", "猫娘 ||| long_hair ||| 窓辺の猫。", "猫娘"


async def three_cats(harness: CatalogHarness) -> list[ImageId]:
    cats = await harness.dataset()
    files = [
        harness.stage("a.png", png(1), tags=("^_^", "長い髪")),
        harness.stage("b.png", png(2), tags=("long hair",), caption="窓辺の猫。"),
        harness.stage("c.png", png(3)),
    ]
    ids = [ImageId(str(file.image)) for file in (await harness.import_files(cats, *files)).files]
    await harness.execute(OrderTags(image=ids[0], tags=("長い髪", "^_^")))
    return ids


async def shown(harness: CatalogHarness, at_seq: int | None = None) -> list[str]:
    views = (await query(harness, ListImages(dataset="cats", at_seq=at_seq))).items
    return [view.training_text for view in views]


async def frozen(harness: CatalogHarness, command: FreezeVersion) -> list[str]:
    version = await harness.execute(command)
    return [entry.caption for entry in (await query(harness, ReadManifest(version_id=VersionId(version.id)))).items]


async def test_lists_versions_jobs_and_exports_have_the_texts_of_the_settings(harness: CatalogHarness) -> None:
    ids = await three_cats(harness)
    before = await shown(harness)
    assert before == ["長い髪, ^_^", "窓辺の猫。", ""]
    unset = await harness.execute(FreezeVersion(dataset="cats"))
    result = await harness.execute(SETTINGS)
    assert await shown(harness) == [TAGGED, BOTH, BARE]
    assert await shown(harness, result.sequence - 1) == before
    view: ImageView = await query(harness, GetImage(image=ids[1]))
    assert (view.caption, view.training_text, view.etag) == ("窓辺の猫。", BOTH, result.sequence)
    assert (await query(harness, GetImage(image=ids[0]))).caption == "長い髪 ||| ^_^"
    assert await frozen(harness, FreezeVersion(dataset="cats")) == [TAGGED, BOTH, BARE]
    assert await frozen(harness, FreezeVersion(dataset="cats", trigger="")) == [
        "長い髪 ||| ^_^",
        "long_hair ||| 窓辺の猫。",
        "",
    ]
    assert await frozen(harness, FreezeVersion(dataset="cats", trigger="sks")) == [
        text.replace("猫娘", "sks") for text in (TAGGED, BOTH, BARE)
    ]
    entries = await export(harness)
    assert {(entry.template, entry.style) for entry in entries} == {(2, STYLE)}
    manifest = await query(harness, ReadManifest(version_id=VersionId(unset.id)))
    assert [entry.caption for entry in manifest.items] == before


@pytest.mark.parametrize(("trigger", "expected"), [(None, "猫娘"), ("", ""), (" sks ", "sks")])
async def test_a_job_has_the_trigger_of_its_data_set_or_its_own(
    harness: CatalogHarness, trigger: str | None, expected: str
) -> None:
    await three_cats(harness)
    await harness.execute(SETTINGS)
    job = (await harness.create_job(CreateJob(dataset="cats", trigger=trigger))).id
    assert (await query(harness, GetJob(job=JobId(job)))).trigger == expected
    version = await harness.version_of(job)
    entries = (await query(harness, ReadManifest(version_id=version.version_id))).items
    assert [entry.caption for entry in entries][2] == expected


async def test_a_job_on_a_version_has_the_triggers_of_that(harness: CatalogHarness) -> None:
    await three_cats(harness)
    await harness.execute(SETTINGS)
    version = (await harness.execute(FreezeVersion(dataset="cats", trigger="sks"))).version
    job = (await harness.create_job(CreateJob(dataset="cats", version=version))).id
    assert (await query(harness, GetJob(job=JobId(job)))).trigger == "sks"
    for other in ("", "mika"):
        with pytest.raises(Rejected, match="was frozen with the trigger 'sks'"):
            await harness.execute(CreateJob(dataset="cats", version=version, trigger=other))


async def test_settings_are_shown_and_undone(harness: CatalogHarness) -> None:
    ids = await three_cats(harness)
    first = await harness.execute(SETTINGS)
    assert not (await harness.execute(SETTINGS)).changed
    second = await harness.execute(SetTextSettings(dataset="cats", trigger="mika", template=3))
    view = await query(harness, GetTextSettings(dataset="cats"))
    assert (view.dataset, view.trigger, view.template, view.style) == ("cats", "mika", 3, TagStyle())
    assert view.etag == second.sequence
    await harness.execute(SetCaption(image=ids[2], caption="mika at home"))
    assert (await shown(harness))[1:] == ["mika, 窓辺の猫。, long hair", "mika at home"]
    undone = await harness.execute(Undo(dataset="cats", commit=second.sequence))
    assert await shown(harness) == [TAGGED, BOTH, "猫娘 ||| mika at home"]
    assert (await query(harness, GetImage(image=ids[0]))).etag == undone.sequence
    await harness.execute(Undo(dataset="cats", commit=first.sequence))
    assert (await shown(harness))[:2] == ["長い髪, ^_^", "窓辺の猫。"]
    await harness.execute(RenameDataset(dataset="cats", name="kittens"))
    assert (await query(harness, GetTextSettings(dataset="kittens"))).trigger == ""


async def test_imports_that_do_not_say_it_read_texts_as_the_settings_say(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    await harness.import_files(cats, harness.stage("0.png", png(0)))
    version = await harness.execute(FreezeVersion(dataset="cats"))
    await harness.execute(SetTextSettings(dataset="cats", read_as="caption"))
    assert (await harness.execute(FreezeVersion(dataset="cats"))).version == version.version

    async def read_as(number: int, text: str, read_as: ReadAs | None = None) -> str | None:
        file = harness.stage(f"{number}.png", png(number), text=text)
        return (await harness.import_files(cats, file, read_as=read_as)).files[0].text

    assert await read_as(1, "1girl, solo") == "caption"
    assert [await read_as(2, "1girl, solo", "auto"), await read_as(3, "A cat.", "tags")] == ["tags", "tags"]
    image = (await query(harness, ListImages(dataset="cats"))).items[0].id
    texts = await harness.execute(ImportTexts(dataset="cats", texts={image: "1girl, hat"}))
    assert texts.files[0].text == "caption"
    await harness.execute(Undo(dataset="cats", commit=(await harness.execute(SETTINGS)).sequence))
    assert await read_as(4, "1girl, solo") == "caption"
    await harness.execute(SETTINGS)
    assert await read_as(5, "1girl, solo") == "tags"


async def test_what_is_there_is_not_read_again_because_the_setting_changes(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    file = harness.stage("1.png", png(1), text="anna, peter")
    await harness.import_files(cats, file)
    await harness.execute(SetTextSettings(dataset="cats", read_as="tags"))
    assert not (await harness.import_files(cats, file)).changed
    (view,) = (await query(harness, ListImages(dataset="cats"))).items
    assert (view.caption, view.tags) == ("anna, peter", ())
    changed = await harness.import_files(cats, harness.stage("1.png", png(1), text="anna, peter, mary"))
    assert changed.files[0].text == "tags"
    await harness.execute(SetTextSettings(dataset="cats", read_as="caption"))
    assert (await harness.import_files(cats, file, read_as="tags")).files[0].text == "tags"  # as requested


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (SetTextSettings(dataset="cats", template=4), "no template 4"),
        (SetTextSettings(dataset="cats", style=TagStyle(keep=("(a+)+b",))), r"'\(' at character 1 is not allowed"),
        (SetTextSettings(dataset="cats", style=TagStyle(keep=("a*a*a*b",))), "more than 2 of"),
        (SetTextSettings(dataset="cats", style=TagStyle(keep=("[z-a]",))), "bad character range"),
        (SetTextSettings(dataset="cats", style=TagStyle(keep=("a[",))), "is not allowed"),
    ],
)
async def test_what_cannot_be_used_is_refused(harness: CatalogHarness, settings: SetTextSettings, problem: str) -> None:
    await harness.dataset()
    with pytest.raises(Rejected, match=problem):
        await harness.execute(settings)
    assert (await query(harness, GetTextSettings(dataset="cats"))).template == 1
