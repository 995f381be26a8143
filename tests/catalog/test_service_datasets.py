"""Commands on data sets and images: names, tags, captions, thresholds, decided and appended to a real log."""

import asyncio

import pytest

from contracts.commands.datasets import (
    CreateDataset,
    EditTags,
    RemoveDataset,
    RemoveImage,
    RenameDataset,
    ReplaceTags,
    SetCaption,
    SetThresholds,
)
from contracts.errors import Gone, KeyReused, NotFound, Rejected, StaleVersion
from contracts.events.datasets import ImagesRemoved, TagsEdited
from contracts.events.tagging import (
    ImagePredictions,
    Prediction,
    TaggingAttemptStarted,
    TaggingPredicted,
    TaggingQueued,
    TaggingRequested,
)
from contracts.ids import DatasetId, WorkerId
from tests.catalog.harness import CatalogHarness, RacingLog, event_names, image_id_of
from tests.catalog.log_builder import bitmap


async def test_a_data_set_is_created_renamed_and_removed(harness: CatalogHarness) -> None:
    created = await harness.execute(CreateDataset(name="  Cats \n of  mine "))
    assert created.name == "Cats of mine"
    renamed = await harness.execute(RenameDataset(dataset="cats OF mine", name="dogs"))
    same = await harness.execute(RenameDataset(dataset=created.id, name="dogs"))
    await harness.execute(RenameDataset(dataset="dogs", name="Dogs"))
    await harness.execute(RemoveDataset(dataset="DOGS"))
    assert (renamed.changed, same.changed) == (True, False)
    assert event_names(await harness.events("dataset", created.id)) == [
        "DatasetCreated",
        "DatasetRenamed",
        "DatasetRenamed",
        "DatasetRemoved",
    ]
    with pytest.raises(Gone):
        await harness.execute(RemoveDataset(dataset=created.id))
    with pytest.raises(NotFound):
        await harness.execute(RenameDataset(dataset="dogs", name="birds"))
    assert (await harness.execute(CreateDataset(name="dogs"))).changed


async def test_names_are_compared_case_insensitively_and_normalized(harness: CatalogHarness) -> None:
    await harness.execute(CreateDataset(name="Caf\u00e9 cats"))
    other = await harness.execute(CreateDataset(name="dogs"))
    for name in ("cafe\u0301 CATS", " caf\u00e9  cats "):
        with pytest.raises(Rejected, match="already"):
            await harness.execute(CreateDataset(name=name))
        with pytest.raises(Rejected, match="already"):
            await harness.execute(RenameDataset(dataset=other.id, name=name))


async def test_only_one_of_many_concurrent_commands_gets_a_name(harness: CatalogHarness) -> None:
    commands = (harness.execute(CreateDataset(name=name)) for name in ("cats", "CATS", " cats", "cats") * 3)
    results = await asyncio.gather(*commands, return_exceptions=True)
    assert sum(not isinstance(answer, Exception) for answer in results) == 1


async def test_a_repeated_command_returns_the_same_result_without_effect(harness: CatalogHarness) -> None:
    cats = await harness.dataset(pictures=1)
    command = EditTags(image=image_id_of(cats, 0), add=("cat",))
    first = await harness.execute(command, "c1", "f")
    removal = await harness.execute(RemoveDataset(dataset="cats"), "c2", "g")
    # The data set was removed meanwhile; the results are the same.
    assert await harness.execute(command, "c1", "f") == first
    assert await harness.execute(RemoveDataset(dataset="cats"), "c2", "g") == removal
    assert event_names(await harness.events("dataset", cats))[2:] == ["TagsEdited", "DatasetRemoved"]
    with pytest.raises(KeyReused):
        await harness.execute(command, "c1", "another")


async def test_two_tag_lists_based_on_the_same_version_are_merged(harness: CatalogHarness) -> None:
    cats = await harness.dataset(pictures=1)
    image = image_id_of(cats, 0)
    await harness.execute(ReplaceTags(image=image, tags=("cat", "grass")))
    seen = (await harness.image(image)).etag
    await harness.execute(ReplaceTags(image=image, tags=("cat", "grass", "Sitting Down"), seen=seen))
    await harness.execute(ReplaceTags(image=image, tags=("cat", "tree"), seen=seen))
    assert await harness.tags(image) == {"cat", "sitting_down", "tree"}


async def test_a_tag_list_without_a_version_replaces_the_current_one(harness: CatalogHarness) -> None:
    cats = await harness.dataset(pictures=1)
    image = image_id_of(cats, 0)
    await harness.execute(ReplaceTags(image=image, tags=("cat", "grass")))
    await harness.execute(ReplaceTags(image=image, tags=("cat",)))
    assert await harness.tags(image) == {"cat"}


@pytest.mark.parametrize("offset", [-1, 1])
async def test_a_version_the_image_never_had_is_refused(harness: CatalogHarness, offset: int) -> None:
    cats = await harness.dataset(pictures=1)
    row = await harness.image(image_id_of(cats, 0))
    seen = (row.added_sequence if offset < 0 else row.etag) + offset
    with pytest.raises(StaleVersion):
        await harness.execute(ReplaceTags(image=row.id, tags=("cat",), seen=seen))
    with pytest.raises(StaleVersion):
        await harness.execute(SetCaption(image=row.id, caption="a cat", seen=seen))


async def test_a_command_without_a_change_appends_nothing(harness: CatalogHarness) -> None:
    cats = await harness.dataset(pictures=1)
    image = image_id_of(cats, 0)
    await harness.execute(EditTags(image=image, add=("cat",), remove=("dog",)))
    await harness.execute(SetCaption(image=image, caption="a cat"))
    before = await harness.events("dataset", cats)
    again = [
        await harness.execute(EditTags(image=image, add=("Cat ",), remove=("dog",))),
        await harness.execute(ReplaceTags(image=image, tags=("cat",))),
        await harness.execute(SetCaption(image=image, caption="a cat")),
        await harness.execute(SetThresholds(dataset="cats", categories={"general": 0.35, "character": 0.85})),
    ]
    assert [result.changed for result in again] == [False] * 4
    assert await harness.events("dataset", cats) == before
    with pytest.raises(Rejected):
        await harness.execute(EditTags(image=image, add=("x",), remove=("X",)))


async def test_captions_conflict_only_with_caption_changes(harness: CatalogHarness) -> None:
    cats = await harness.dataset(pictures=1)
    image = image_id_of(cats, 0)
    await harness.execute(SetCaption(image=image, caption="a cat"))
    seen = (await harness.image(image)).etag
    await harness.execute(EditTags(image=image, add=("grass",)))
    await harness.execute(SetCaption(image=image, caption="a cat on grass", seen=seen))
    with pytest.raises(StaleVersion):
        await harness.execute(SetCaption(image=image, caption="a dog", seen=seen))
    assert not (await harness.execute(SetCaption(image=image, caption="a cat on grass", seen=seen))).changed
    assert (await harness.execute(SetCaption(image=image, caption=None))).changed
    assert (await harness.image(image)).caption is None


async def test_commands_on_a_removed_image_are_refused(harness: CatalogHarness) -> None:
    cats = await harness.dataset(pictures=2)
    await harness.execute(RemoveImage(image=image_id_of(cats, 0)))
    for command in (
        RemoveImage(image=image_id_of(cats, 0)),
        EditTags(image=image_id_of(cats, 0), add=("cat",)),
        SetCaption(image=image_id_of(cats, 0), caption="x"),
    ):
        with pytest.raises(Gone):
            await harness.execute(command)
    with pytest.raises(NotFound):
        await harness.execute(RemoveImage(image=image_id_of(cats, 7)))


async def test_no_caption_is_sealed_for_an_image_without_a_key(harness: CatalogHarness) -> None:
    cats = await harness.dataset(pictures=1)
    await harness.keys.destroy([image_id_of(cats, 0)])  # the log may be older than the keys, and lack the erasure
    with pytest.raises(Gone, match="was erased for good"):
        await harness.execute(SetCaption(image=image_id_of(cats, 0), caption="a cat"))


async def test_fifty_concurrent_edits_all_take_effect(harness: CatalogHarness) -> None:
    cats = await harness.dataset(pictures=2)
    commands = [EditTags(image=image_id_of(cats, number % 2), add=(f"tag_{number}",)) for number in range(50)]
    results = await asyncio.gather(*(harness.execute(command) for command in commands))
    assert len({result.sequence for result in results}) == 50
    assert await harness.tags(image_id_of(cats, 0)) == {f"tag_{number}" for number in range(0, 50, 2)}
    assert await harness.tags(image_id_of(cats, 1)) == {f"tag_{number}" for number in range(1, 50, 2)}


async def append_predictions(harness: CatalogHarness, cats: str, **probability: float) -> None:
    requested = TaggingRequested(dataset_id=DatasetId(cats), dataset="cats", model="wd", images=bitmap(0), count=1)
    await harness.append("tagging", "run_1", requested, TaggingQueued(priority="normal"))
    started = TaggingAttemptStarted(worker=WorkerId("t"), boot="b", resumes=0)
    attempt = await harness.append("tagging", "run_1", started)
    seen = tuple(Prediction(tag=tag, probability=one) for tag, one in probability.items())
    images = (ImagePredictions(ordinal=0, predictions=seen),)
    await harness.append("tagging", "run_1", TaggingPredicted(attempt=attempt, images=images))


async def test_thresholds_change_tags_without_a_new_run_and_people_override_models(harness: CatalogHarness) -> None:
    cats = await harness.dataset(pictures=1)
    image = image_id_of(cats, 0)
    await harness.execute(EditTags(image=image, add=("mine",), remove=("grass",)))
    before = (await harness.image(image)).etag
    await append_predictions(harness, cats, cat=0.9, dog=0.3, grass=0.99)
    assert await harness.tags(image) == {"mine", "cat"}
    after_predictions = (await harness.image(image)).etag
    threshold_change = await harness.execute(
        SetThresholds(dataset="cats", categories={"general": 0.2, "character": 0.85})
    )
    assert await harness.tags(image) == {"mine", "cat", "dog"}
    # The ETag changes with every event that changes the shown tags, whichever aggregate it belongs to.
    assert before < after_predictions < (await harness.image(image)).etag == threshold_change.sequence
    # A list based on the tags before the threshold changed removes a tag: the new tag stays.
    await harness.execute(ReplaceTags(image=image, tags=("mine",), seen=after_predictions))
    assert await harness.tags(image) == {"mine", "dog"}


async def test_a_conflicting_command_is_decided_again(harness: CatalogHarness) -> None:
    cats = await harness.dataset(pictures=1)
    image = image_id_of(cats, 0)
    other_edits = [TagsEdited(images=bitmap(0), asserted=(tag,)) for tag in ("a", "b", "c")]
    harness.executor.log = RacingLog(harness, *other_edits)
    await harness.execute(EditTags(image=image, add=("mine",)))
    assert await harness.tags(image) == {"a", "b", "c", "mine"}


async def test_a_command_decided_again_can_be_refused(harness: CatalogHarness) -> None:
    cats = await harness.dataset(pictures=1)
    harness.executor.log = RacingLog(harness, ImagesRemoved(images=bitmap(0)))
    with pytest.raises(Gone):
        await harness.execute(EditTags(image=image_id_of(cats, 0), add=("mine",)))
    assert event_names(await harness.events("dataset", cats))[-1] == "ImagesRemoved"
