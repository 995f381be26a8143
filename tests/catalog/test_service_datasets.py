"""Data sets and what is said about their images: names, tags, captions, thresholds; decided and appended for real."""

import asyncio

import pytest

from contracts.commands import (
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
from contracts.events import (
    ImagePredictions,
    ImagesRemoved,
    Prediction,
    TaggingAttemptStarted,
    TaggingPredicted,
    TaggingQueued,
    TaggingRequested,
    TagsEdited,
)
from contracts.ids import DatasetId, WorkerId
from tests.catalog.histories import bitmap
from tests.catalog.house import House, Overtaken, kinds, of_image


async def test_a_data_set_is_created_renamed_and_removed(house: House) -> None:
    made = await house.tell(CreateDataset(name="  Cats \n of  mine "))
    assert made.name == "Cats of mine"
    renamed = await house.tell(RenameDataset(dataset="cats OF mine", name="dogs"))
    same = await house.tell(RenameDataset(dataset=made.id, name="dogs"))
    await house.tell(RenameDataset(dataset="dogs", name="Dogs"))
    await house.tell(RemoveDataset(dataset="DOGS"))
    assert (renamed.changed, same.changed) == (True, False)
    assert kinds(await house.facts("dataset", made.id)) == [
        "DatasetCreated",
        "DatasetRenamed",
        "DatasetRenamed",
        "DatasetRemoved",
    ]
    with pytest.raises(Gone):
        await house.tell(RemoveDataset(dataset=made.id))
    with pytest.raises(NotFound):
        await house.tell(RenameDataset(dataset="dogs", name="birds"))
    assert (await house.tell(CreateDataset(name="dogs"))).changed


async def test_a_name_that_could_not_be_asked_for_is_refused(house: House) -> None:
    for name in ("health", "Prepare", "ds_1", "img_x", "a/b", "..", " ", "a\u202eb", "50%", "q?"):
        with pytest.raises(Rejected):
            await house.tell(CreateDataset(name=name))


async def test_a_name_is_taken_however_it_is_written(house: House) -> None:
    await house.tell(CreateDataset(name="Caf\u00e9 cats"))
    other = await house.tell(CreateDataset(name="dogs"))
    for name in ("cafe\u0301 CATS", " caf\u00e9  cats "):
        with pytest.raises(Rejected, match="already"):
            await house.tell(CreateDataset(name=name))
        with pytest.raises(Rejected, match="already"):
            await house.tell(RenameDataset(dataset=other.id, name=name))


async def test_of_many_who_want_one_name_one_gets_it(house: House) -> None:
    wishes = (house.tell(CreateDataset(name=name)) for name in ("cats", "CATS", " cats", "cats") * 3)
    answers = await asyncio.gather(*wishes, return_exceptions=True)
    assert sum(not isinstance(answer, Exception) for answer in answers) == 1


async def test_a_repeated_command_is_answered_and_not_done_again(house: House) -> None:
    cats = await house.dataset(pictures=1)
    wish = EditTags(image=of_image(cats, 0), add=("cat",))
    first = await house.tell(wish, "c1", "f")
    removal = await house.tell(RemoveDataset(dataset="cats"), "c2", "g")
    # What they name is gone meanwhile; the answers are the same.
    assert await house.tell(wish, "c1", "f") == first
    assert await house.tell(RemoveDataset(dataset="cats"), "c2", "g") == removal
    assert kinds(await house.facts("dataset", cats))[2:] == ["TagsEdited", "DatasetRemoved"]
    with pytest.raises(KeyReused):
        await house.tell(wish, "c1", "another")


async def test_lists_sent_by_two_who_saw_the_same_are_merged(house: House) -> None:
    cats = await house.dataset(pictures=1)
    image = of_image(cats, 0)
    await house.tell(ReplaceTags(image=image, tags=("cat", "grass")))
    seen = (await house.image(image)).etag
    await house.tell(ReplaceTags(image=image, tags=("cat", "grass", "Sitting Down"), seen=seen))
    await house.tell(ReplaceTags(image=image, tags=("cat", "tree"), seen=seen))
    assert await house.tags(image) == {"cat", "sitting_down", "tree"}


async def test_without_a_version_the_list_is_against_what_is_there(house: House) -> None:
    cats = await house.dataset(pictures=1)
    image = of_image(cats, 0)
    await house.tell(ReplaceTags(image=image, tags=("cat", "grass")))
    await house.tell(ReplaceTags(image=image, tags=("cat",)))
    assert await house.tags(image) == {"cat"}


@pytest.mark.parametrize("off", [-1, 1])
async def test_a_version_the_image_never_had_is_refused(house: House, off: int) -> None:
    cats = await house.dataset(pictures=1)
    row = await house.image(of_image(cats, 0))
    seen = (row.added if off < 0 else row.etag) + off
    with pytest.raises(StaleVersion):
        await house.tell(ReplaceTags(image=row.id, tags=("cat",), seen=seen))
    with pytest.raises(StaleVersion):
        await house.tell(SetCaption(image=row.id, caption="a cat", seen=seen))


async def test_what_is_so_already_makes_no_commit(house: House) -> None:
    cats = await house.dataset(pictures=1)
    image = of_image(cats, 0)
    await house.tell(EditTags(image=image, add=("cat",), remove=("dog",)))
    await house.tell(SetCaption(image=image, caption="a cat"))
    before = await house.facts("dataset", cats)
    again = [
        await house.tell(EditTags(image=image, add=("Cat ",), remove=("dog",))),
        await house.tell(ReplaceTags(image=image, tags=("cat",))),
        await house.tell(SetCaption(image=image, caption="a cat")),
        await house.tell(SetThresholds(dataset="cats", general=0.35, character=0.85)),
    ]
    assert [receipt.changed for receipt in again] == [False] * 4
    assert await house.facts("dataset", cats) == before
    with pytest.raises(Rejected):
        await house.tell(EditTags(image=image, add=("x",), remove=("X",)))


async def test_captions_do_not_merge_but_tags_do_not_disturb_them(house: House) -> None:
    cats = await house.dataset(pictures=1)
    image = of_image(cats, 0)
    await house.tell(SetCaption(image=image, caption="a cat"))
    seen = (await house.image(image)).etag
    await house.tell(EditTags(image=image, add=("grass",)))
    await house.tell(SetCaption(image=image, caption="a cat on grass", seen=seen))
    with pytest.raises(StaleVersion):
        await house.tell(SetCaption(image=image, caption="a dog", seen=seen))
    assert not (await house.tell(SetCaption(image=image, caption="a cat on grass", seen=seen))).changed
    assert (await house.tell(SetCaption(image=image, caption=None))).changed
    assert (await house.image(image)).caption is None


async def test_a_removed_image_is_gone(house: House) -> None:
    cats = await house.dataset(pictures=2)
    await house.tell(RemoveImage(image=of_image(cats, 0)))
    for wish in (
        RemoveImage(image=of_image(cats, 0)),
        EditTags(image=of_image(cats, 0), add=("cat",)),
        SetCaption(image=of_image(cats, 0), caption="x"),
    ):
        with pytest.raises(Gone):
            await house.tell(wish)
    with pytest.raises(NotFound):
        await house.tell(RemoveImage(image=of_image(cats, 7)))


async def test_fifty_edits_at_once_lose_nothing(house: House) -> None:
    cats = await house.dataset(pictures=2)
    wishes = [EditTags(image=of_image(cats, number % 2), add=(f"tag_{number}",)) for number in range(50)]
    receipts = await asyncio.gather(*(house.tell(wish) for wish in wishes))
    assert len({receipt.sequence for receipt in receipts}) == 50
    assert await house.tags(of_image(cats, 0)) == {f"tag_{number}" for number in range(0, 50, 2)}
    assert await house.tags(of_image(cats, 1)) == {f"tag_{number}" for number in range(1, 50, 2)}


async def _predicted(house: House, cats: str, **probability: float) -> None:
    asked = TaggingRequested(dataset_id=DatasetId(cats), dataset="cats", model="wd", images=bitmap(0), count=1)
    await house.say("tagging", "run_1", asked, TaggingQueued(priority="normal"))
    started = TaggingAttemptStarted(worker=WorkerId("t"), boot="b", resumes=0)
    attempt = await house.say("tagging", "run_1", started)
    seen = tuple(Prediction(tag=tag, probability=one) for tag, one in probability.items())
    images = (ImagePredictions(ordinal=0, predictions=seen),)
    await house.say("tagging", "run_1", TaggingPredicted(attempt=attempt, images=images))


async def test_thresholds_move_tags_without_another_run_and_people_stand_over_models(house: House) -> None:
    cats = await house.dataset(pictures=1)
    image = of_image(cats, 0)
    await house.tell(EditTags(image=image, add=("mine",), remove=("grass",)))
    before = (await house.image(image)).etag
    await _predicted(house, cats, cat=0.9, dog=0.3, grass=0.99)
    assert await house.tags(image) == {"mine", "cat"}
    looked = (await house.image(image)).etag
    moved = await house.tell(SetThresholds(dataset="cats", general=0.2, character=0.85))
    assert await house.tags(image) == {"mine", "cat", "dog"}
    # The ETag moved with each thing that changed what one sees, whoever's thing it was.
    assert before < looked < (await house.image(image)).etag == moved.sequence
    # Somebody who saw the tags before the threshold moved takes one off: the new one stays.
    await house.tell(ReplaceTags(image=image, tags=("mine",), seen=looked))
    assert await house.tags(image) == {"mine", "dog"}


async def test_a_lost_race_is_decided_again_and_nothing_is_lost(house: House) -> None:
    cats = await house.dataset(pictures=1)
    image = of_image(cats, 0)
    theirs = [TagsEdited(images=bitmap(0), asserted=(tag,)) for tag in ("a", "b", "c")]
    house.desk.log = Overtaken(house, *theirs)
    await house.tell(EditTags(image=image, add=("mine",)))
    assert await house.tags(image) == {"a", "b", "c", "mine"}


async def test_a_lost_race_can_change_the_answer(house: House) -> None:
    cats = await house.dataset(pictures=1)
    house.desk.log = Overtaken(house, ImagesRemoved(images=bitmap(0)))
    with pytest.raises(Gone):
        await house.tell(EditTags(image=of_image(cats, 0), add=("mine",)))
    assert kinds(await house.facts("dataset", cats))[-1] == "ImagesRemoved"
