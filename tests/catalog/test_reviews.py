"""Marking images as reviewed: by id, by filter, all; what is stored, what is shown, what is refused."""

from typing import Any

import pytest
from msgspec.structs import replace

from catalog.domain.event_scope import scope_to_image
from contracts.commands.datasets import RemoveImage, ReviewImages, SetCaption, Undo
from contracts.errors import Gone, NotFound, Rejected
from contracts.events.datasets import ImagesReviewed
from contracts.filter_text import parse_filter
from contracts.filters import AllImages, Matching, TheseImages
from contracts.ids import DatasetId, ImageId
from contracts.queries.base import Query
from contracts.queries.datasets import GetImage, ListImages
from contracts.queries.log import ListImageHistory
from contracts.sealed import NAME, seal
from tests.catalog.harness import CatalogHarness
from tests.catalog.log_builder import bitmap, image_added, image_id

ALL = AllImages()


async def dataset_of(harness: CatalogHarness, pictures: int, name: str = "cats") -> DatasetId:
    """A data set with images that exist only in the log, their names sealed under their keys."""
    dataset = await harness.dataset(name)
    keys = await harness.keys.create_keys(image_id(dataset, ordinal) for ordinal in range(pictures))
    added = [image_added(dataset, ordinal) for ordinal in range(pictures)]
    named = [replace(one, name=seal(keys[one.image_id], f"{one.ordinal}.png", NAME)) for one in added]
    await harness.append("dataset", dataset, *named)
    return dataset


async def ask(harness: CatalogHarness, query: Query[Any]) -> Any:
    return await harness.catalog.queries[type(query)](query)


async def review(harness: CatalogHarness, dataset: str, selection: object, *, reviewed: bool = True) -> int:
    """The number of images whose state changed."""
    command = ReviewImages(dataset=dataset, selection=selection, reviewed=reviewed)  # type: ignore[arg-type]  # one of the union
    return (await harness.execute(command)).images


async def reviewed(harness: CatalogHarness, dataset: DatasetId) -> list[int]:
    page = await ask(harness, ListImages(dataset=dataset, filter=parse_filter("reviewed")))
    return [view.ordinal for view in page.items]


async def test_images_are_reviewed_by_id_by_filter_and_all(harness: CatalogHarness) -> None:
    dataset = await dataset_of(harness, 5)
    ids = tuple(image_id(dataset, ordinal) for ordinal in (1, 3))
    assert await review(harness, dataset, TheseImages(ids=ids)) == 2
    assert await reviewed(harness, dataset) == [1, 3]
    assert await review(harness, "cats", Matching(filter=parse_filter("bytes<=1236 unreviewed"))) == 2
    assert await reviewed(harness, dataset) == [0, 1, 2, 3]
    assert await review(harness, dataset, Matching(filter=parse_filter("-reviewed"))) == 1
    assert await review(harness, dataset, ALL, reviewed=False) == 5
    assert await reviewed(harness, dataset) == []


async def test_only_what_changes_is_recorded(harness: CatalogHarness) -> None:
    dataset = await dataset_of(harness, 3)
    await review(harness, dataset, TheseImages(ids=(image_id(dataset, 1),)))
    result = await harness.execute(ReviewImages(dataset=dataset, selection=ALL))
    assert (result.images, result.name, result.changed) == (2, "cats", True)
    again = await harness.execute(ReviewImages(dataset=dataset, selection=ALL))
    assert (again.images, again.changed) == (0, False)
    events = [event for event in await harness.events("dataset", dataset) if isinstance(event, ImagesReviewed)]
    assert events == [ImagesReviewed(images=bitmap(1)), ImagesReviewed(images=bitmap(0, 2))]
    assert [event.describe() for event in events] == ["Marked 1 image as reviewed", "Marked 2 images as reviewed"]


async def test_captions_select_what_is_reviewed(harness: CatalogHarness) -> None:
    dataset = await dataset_of(harness, 3)
    assert await review(harness, dataset, Matching(filter=parse_filter("caption:red"))) == 0
    await harness.execute(SetCaption(image=image_id(dataset, 2), caption="A Red hat"))
    assert await review(harness, dataset, Matching(filter=parse_filter("caption:red"))) == 1
    assert await reviewed(harness, dataset) == [2]


async def test_an_image_shows_its_state_now_and_in_the_past(harness: CatalogHarness) -> None:
    dataset = await dataset_of(harness, 2)
    first = image_id(dataset, 0)
    before = await ask(harness, GetImage(image=first))
    result = await harness.execute(ReviewImages(dataset=dataset, selection=TheseImages(ids=(first,))))
    after = await ask(harness, GetImage(image=first))
    assert (before.reviewed, after.reviewed) == (False, True)
    assert after.etag == result.sequence > before.etag
    await review(harness, dataset, ALL, reviewed=False)
    past = await ask(harness, GetImage(image=first, at_seq=result.sequence))
    assert (past.reviewed, past.etag) == (True, result.sequence)
    other = await ask(harness, GetImage(image=image_id(dataset, 1)))
    assert other.etag < result.sequence


async def test_it_is_in_the_history_of_the_image_alone(harness: CatalogHarness) -> None:
    dataset = await dataset_of(harness, 3)
    await review(harness, dataset, ALL)
    page = await ask(harness, ListImageHistory(image=image_id(dataset, 1)))
    assert page.items[-1].description == "Marked 1 image as reviewed"
    assert page.items[-1].change == {"images": {"count": 1, "ordinals": [1]}}
    assert scope_to_image(ImagesReviewed(images=bitmap(0, 2)), 1) is None


async def test_a_repeated_command_is_answered_as_before(harness: CatalogHarness) -> None:
    dataset = await dataset_of(harness, 2)
    command = ReviewImages(dataset=dataset, selection=ALL)
    first = await harness.execute(command, command_id="once")
    await review(harness, dataset, ALL, reviewed=False)
    assert await harness.execute(command, command_id="once") == first
    assert await reviewed(harness, dataset) == []


async def test_images_that_are_not_in_the_data_set_are_refused(harness: CatalogHarness) -> None:
    dataset = await dataset_of(harness, 2)
    other = await dataset_of(harness, 1, "dogs")
    await harness.execute(RemoveImage(image=image_id(dataset, 1)))
    for missing in (image_id(other, 0), image_id(dataset, 1), ImageId("img_nobody")):
        with pytest.raises(Rejected, match=f"1 image that the data set does not have, the first is '{missing}'"):
            await review(harness, dataset, TheseImages(ids=(image_id(dataset, 0), missing)))
    assert await reviewed(harness, dataset) == []
    with pytest.raises(NotFound):
        await review(harness, "nobody", ALL)
    with pytest.raises((NotFound, Gone)):
        await review(harness, dataset, Matching(filter=parse_filter("duplicate:img_nobody")))


async def test_a_review_is_undone_and_what_was_reviewed_since_stays(harness: CatalogHarness) -> None:
    dataset = await dataset_of(harness, 3)
    first = await harness.execute(ReviewImages(dataset=dataset, selection=ALL))
    later = TheseImages(ids=(image_id(dataset, 0),))
    await review(harness, dataset, later, reviewed=False)
    await review(harness, dataset, later)
    undone = await harness.execute(Undo(dataset=dataset, commit=first.sequence))
    assert undone.summary == "marked 3 images as reviewed"
    assert await reviewed(harness, dataset) == [0]
    assert (await ask(harness, GetImage(image=image_id(dataset, 1)))).etag == undone.sequence
    await harness.execute(Undo(dataset=dataset, commit=undone.sequence))
    assert await reviewed(harness, dataset) == [0, 1, 2]


async def test_the_caption_that_an_undo_brings_back_is_found(harness: CatalogHarness) -> None:
    dataset = await dataset_of(harness, 2)
    image = image_id(dataset, 1)
    await harness.execute(SetCaption(image=image, caption="a red hat"))
    second = await harness.execute(SetCaption(image=image, caption="a blue hat"))
    by_text = ListImages(dataset=dataset, filter=parse_filter("caption:red"))
    assert (await ask(harness, by_text)).total == 0
    await harness.execute(Undo(dataset=dataset, commit=second.sequence))
    assert [view.id for view in (await ask(harness, by_text)).items] == [image]
