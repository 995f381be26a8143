"""Undo as a command: what was decided since stays, twice is a conflict, and an undo can be undone."""

import pytest

from catalog.database import Connection
from catalog.views import decisions
from contracts.commands.datasets import (
    CreateDataset,
    EditTags,
    FreezeVersion,
    OrderTags,
    RemoveImage,
    RenameDataset,
    SetRules,
    SetThresholds,
    Undo,
)
from contracts.errors import IllegalTransition, Invalid, NotFound, Rejected
from contracts.ids import DatasetId, RunId
from contracts.queries.datasets import GetDataset
from tests.catalog.harness import CatalogHarness
from tests.catalog.log_builder import image_id


@pytest.fixture
async def cats(harness: CatalogHarness) -> DatasetId:
    return await harness.dataset(pictures=3)


async def tags_of(harness: CatalogHarness, dataset: DatasetId, ordinal: int) -> tuple[str, ...]:
    def read(connection: Connection) -> tuple[str, ...]:
        return decisions.tag_names(connection, dataset, ordinal)

    return await harness.executor.store.read(read)


async def test_an_edit_is_undone_and_what_was_decided_since_stays(harness: CatalogHarness, cats: DatasetId) -> None:
    image = image_id(cats, 0)
    first = await harness.execute(EditTags(image=image, add=("cat", "sky")))
    later = await harness.execute(EditTags(image=image, remove=("sky",)))
    await harness.execute(EditTags(image=image, add=("grass",)))

    undone = await harness.execute(Undo(dataset=cats, commit=first.sequence))

    assert (undone.commits, undone.kept) == ((first.sequence,), (later.sequence,))
    assert undone.summary == "added tags cat, sky to 1 image"
    assert await tags_of(harness, cats, 0) == ("grass",)
    with pytest.raises(IllegalTransition, match=f"undone before, by commit {undone.sequence}"):
        await harness.execute(Undo(dataset=cats, commit=first.sequence))

    await harness.execute(Undo(dataset=cats, commit=undone.sequence))
    assert await tags_of(harness, cats, 0) == ("cat", "grass")


async def test_a_removed_image_comes_back_with_everything_it_had(harness: CatalogHarness, cats: DatasetId) -> None:
    image = image_id(cats, 1)
    await harness.execute(EditTags(image=image, add=("a", "b", "c")))
    await harness.execute(OrderTags(image=image, tags=("c", "a")))
    removed = await harness.execute(RemoveImage(image=image))
    assert (await harness.image(image)).removed

    await harness.execute(Undo(dataset=cats, commit=removed.sequence))

    assert not (await harness.image(image)).removed
    assert await tags_of(harness, cats, 1) == ("c", "a", "b")


async def test_a_name_comes_back_unless_it_is_taken_by_now(harness: CatalogHarness, cats: DatasetId) -> None:
    renamed = await harness.execute(RenameDataset(dataset=cats, name="felines"))
    other = await harness.execute(CreateDataset(name="cats"))
    with pytest.raises(Rejected, match="called 'cats' already"):
        await harness.execute(Undo(dataset=cats, commit=renamed.sequence))

    await harness.execute(RenameDataset(dataset=other.id, name="others"))
    result = await harness.execute(Undo(dataset=cats, commit=renamed.sequence))

    assert result.id == cats
    view = await harness.catalog.queries[GetDataset](GetDataset(dataset="cats"))
    assert view.id == cats  # type: ignore[attr-defined]  # the view of a data set


async def test_thresholds_and_rules_are_values_and_come_back(harness: CatalogHarness, cats: DatasetId) -> None:
    with pytest.raises(Rejected, match=r"below 0\.05"):
        await harness.execute(SetThresholds(dataset=cats, categories={"general": 0.01}))
    thresholds = SetThresholds(dataset=cats, categories={"general": 0.5}, tags={"Hat": 0.8})
    changed = await harness.execute(thresholds)
    assert not (await harness.execute(thresholds)).changed
    rules = await harness.execute(SetRules(dataset=cats, deny=("Watermark", "watermark")))

    for sequence in (rules.sequence, changed.sequence):
        await harness.execute(Undo(dataset=cats, commit=sequence))

    view = await harness.catalog.queries[GetDataset](GetDataset(dataset=cats))
    assert view.thresholds == {"general": 0.35, "character": 0.85}  # type: ignore[attr-defined]  # the view of a data set
    assert view.denied_tags == ()  # type: ignore[attr-defined]  # the same


async def test_what_cannot_be_undone_is_refused_by_name(harness: CatalogHarness, cats: DatasetId) -> None:
    frozen = await harness.execute(FreezeVersion(dataset=cats))
    with pytest.raises(Rejected, match="cannot be undone: Froze version 1"):
        await harness.execute(Undo(dataset=cats, commit=frozen.sequence))
    with pytest.raises(NotFound):
        await harness.execute(Undo(dataset=cats, commit=10_000))
    other = await harness.execute(CreateDataset(name="dogs"))
    with pytest.raises(NotFound):
        await harness.execute(Undo(dataset=cats, commit=other.sequence))
    for nothing in (Undo(dataset=cats), Undo(dataset=cats, commit=1, run=RunId("run_1"))):
        with pytest.raises(Invalid):
            await harness.execute(nothing)


async def test_an_import_is_undone_as_one(harness: CatalogHarness, cats: DatasetId) -> None:
    before = await harness.catalog.queries[GetDataset](GetDataset(dataset=cats))
    assert before.images == 3  # type: ignore[attr-defined]  # the view of a data set
    sequence = (await harness.image(image_id(cats, 0))).added_sequence

    undone = await harness.execute(Undo(dataset=cats, commit=sequence))

    assert undone.summary == "the import of 3 images"
    after = await harness.catalog.queries[GetDataset](GetDataset(dataset=cats))
    assert after.images == 0  # type: ignore[attr-defined]  # the view of a data set
    await harness.execute(Undo(dataset=cats, commit=undone.sequence))
    again = await harness.catalog.queries[GetDataset](GetDataset(dataset=cats))
    assert again.images == 3  # type: ignore[attr-defined]  # the view of a data set
