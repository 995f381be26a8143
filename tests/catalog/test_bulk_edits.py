"""Edits of many images: what a preview says, what is recorded, shown, refused and undone."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from catalog.domain.bulk_edits import Decided, edit_events, images_of, tag_changes
from catalog.domain.edits import Choice, requested_choices
from catalog.domain.image_sets import bitmap_of
from catalog.domain.images import ImageState, edit_tags
from contracts.commands.datasets import EditMany, EditTags, RemoveImage, SetThresholds, Undo
from contracts.commands.tagging import RequestTagging
from contracts.errors import Conflict, Rejected
from contracts.events.datasets import TagsEdited
from contracts.events.tagging import (
    ImagePredictions,
    Prediction,
    TaggingAttemptStarted,
    TaggingPredicted,
    TaggingRequested,
)
from contracts.filter_text import parse_filter
from contracts.filters import AllImages, Matching, Selection, TheseImages
from contracts.ids import DatasetId, ImageId, WorkerId
from contracts.queries.datasets import EditExample, EditPreview, GetImage, PreviewEdit, TagEffect
from tests.catalog.harness import CatalogHarness
from tests.catalog.log_builder import bitmap, image_id
from tests.catalog.test_reviews import ask, dataset_of

ALL = AllImages()
TAGS = ("cat", "dog", "sky")
MANY = 70
"""Images of a set that is kept once and not with each image."""


def those(filter_: str) -> Matching:
    return Matching(filter=parse_filter(filter_))


async def preview(harness: CatalogHarness, dataset: str, selection: Selection = ALL, **tags: Any) -> EditPreview:
    found = await ask(harness, PreviewEdit(dataset=dataset, selection=selection, **tags))
    assert isinstance(found, EditPreview)
    return found


async def tags_of(harness: CatalogHarness, dataset: DatasetId, ordinal: int) -> dict[str, str]:
    """The tags of an image, with their sources."""
    view = await ask(harness, GetImage(image=image_id(dataset, ordinal)))
    return {tag.tag: tag.source for tag in view.tags}


async def predict(harness: CatalogHarness, dataset: DatasetId, ordinal: int, **probabilities: float) -> None:
    run = (await harness.execute(RequestTagging(dataset=dataset, model="demo"))).id
    attempt = await harness.append("tagging", run, TaggingAttemptStarted(worker=WorkerId("w"), boot="b", resumes=0))
    found = tuple(Prediction(tag=tag, probability=probability) for tag, probability in probabilities.items())
    images = (ImagePredictions(ordinal=ordinal, predictions=found),)
    await harness.append("tagging", run, TaggingPredicted(attempt=attempt, images=images))


async def edits_of(harness: CatalogHarness, dataset: DatasetId) -> list[TagsEdited]:
    return [event for event in await harness.events("dataset", dataset) if isinstance(event, TagsEdited)]


SETS = st.sets(st.integers(0, 5))
DECIDED = st.dictionaries(st.sampled_from(TAGS), st.tuples(SETS, SETS).map(lambda sets: (sets[0], sets[1] - sets[0])))
REQUESTED = st.dictionaries(st.sampled_from(TAGS), st.sampled_from(["add", "remove", "withdraw"]), min_size=1)


@given(selected=SETS, requested=REQUESTED, decided=DECIDED)
def test_each_image_changes_as_it_would_alone(
    selected: set[int], requested: dict[str, str], decided: dict[str, tuple[set[int], set[int]]]
) -> None:
    lists = {name: [tag for tag, of in requested.items() if of == name] for name in ("add", "remove", "withdraw")}
    sets = {tag: Decided(BitMap(asserted), BitMap(rejected)) for tag, (asserted, rejected) in decided.items()}
    changes = tag_changes(BitMap(selected), requested_choices(**lists), sets)
    events = [event for event in edit_events(changes) if isinstance(event, TagsEdited)]
    assert len({event.images for event in events}) == len(events)
    assert images_of(changes) == BitMap.union(BitMap(), *(bitmap_of(event.images) for event in events))
    for ordinal in range(6):
        state = ImageState(
            asserted=frozenset(tag for tag, (asserted, _) in decided.items() if ordinal in asserted),
            rejected=frozenset(tag for tag, (_, rejected) in decided.items() if ordinal in rejected),
        )
        alone = edit_tags(state, **lists) if ordinal in selected else []
        together = [event for event in events if ordinal in bitmap_of(event.images)]
        assert _decided(together) == _decided(event for event in alone if isinstance(event, TagsEdited))


def _decided(events: Any) -> Mapping[Choice, set[str]]:
    found: dict[Choice, set[str]] = {"asserted": set(), "rejected": set(), "withdrawn": set()}
    for event in events:
        for choice, tags in found.items():
            tags.update(getattr(event, choice))
    return found


async def test_one_commit_names_the_images_whose_decisions_change(harness: CatalogHarness) -> None:
    dataset = await dataset_of(harness, MANY)
    await harness.execute(EditTags(image=image_id(dataset, 1), add=("cat",)))
    await harness.execute(EditTags(image=image_id(dataset, 2), remove=("dog",)))
    before = len(await harness.events("dataset", dataset))
    command = EditMany(dataset="cats", selection=ALL, add=("cat", "sky"), remove=("dog",), withdraw=("tree",))
    result = await harness.execute(command)
    assert (result.name, result.images, result.selected, result.changed) == ("cats", MANY, MANY, True)
    all_ordinals, but_one, but_two = (bitmap(*(set(range(MANY)) - skipped)) for skipped in (set[int](), {1}, {2}))
    new = (await harness.events("dataset", dataset))[before:]
    assert [(set(bitmap_of(one.images)), one.asserted, one.rejected) for one in new] == [  # type: ignore[attr-defined]  # all of them are TagsEdited
        (set(bitmap_of(but_one)), ("cat",), ()),
        (set(bitmap_of(all_ordinals)), ("sky",), ()),
        (set(bitmap_of(but_two)), (), ("dog",)),
    ]
    for ordinal in (0, 1, 2, MANY - 1):
        assert await tags_of(harness, dataset, ordinal) == {"cat": "person", "sky": "person"}
    again = await harness.execute(command)
    assert (again.images, again.selected, again.changed) == (0, MANY, False)


async def test_a_tag_that_a_model_gives_becomes_the_persons(harness: CatalogHarness) -> None:
    dataset = await dataset_of(harness, 2)
    await predict(harness, dataset, 0, cat=0.9)
    assert await tags_of(harness, dataset, 0) == {"cat": "model"}
    result = await harness.execute(EditMany(dataset=dataset, selection=those("cat"), add=("cat",)))
    assert (result.images, result.selected) == (1, 1)
    await harness.execute(SetThresholds(dataset=dataset, categories={"general": 1.0, "character": 1.0}))
    assert await tags_of(harness, dataset, 0) == {"cat": "person"}


async def test_a_preview_says_what_changes_and_what_does_not(harness: CatalogHarness) -> None:
    dataset = await dataset_of(harness, 30)
    for ordinal in (0, 3):
        await harness.execute(EditTags(image=image_id(dataset, ordinal), add=("cat",)))
    found = await preview(harness, "cats", those("bytes<=1259"), add=("Cat",), withdraw=("cat_ears",))
    assert (found.dataset_id, found.dataset, found.as_of) == (dataset, "cats", harness.executor.store.applied)
    assert (found.selected, found.changed, found.unchanged) == (26, 24, 2)
    assert found.tags == (
        TagEffect(tag="cat", decision="asserted", images=24),
        TagEffect(tag="cat_ears", decision="withdrawn", images=0),
    )
    first = [ordinal for ordinal in range(26) if ordinal not in (0, 3)][:20]
    assert found.examples == tuple(
        EditExample(image=image_id(dataset, ordinal), asserted=("cat",)) for ordinal in first
    )
    assert found.unchanged_examples == (image_id(dataset, 0), image_id(dataset, 3))
    assert await edits_of(harness, dataset) == [
        TagsEdited(images=bitmap(0), asserted=("cat",)),
        TagsEdited(images=bitmap(3), asserted=("cat",)),
    ]


async def test_with_the_sequence_of_a_preview_exactly_that_is_changed(harness: CatalogHarness) -> None:
    dataset, other = await dataset_of(harness, 4), await dataset_of(harness, 1, "dogs")
    found = await preview(harness, dataset, those("-cat"), add=("cat",))
    await harness.execute(EditTags(image=image_id(other, 0), add=("cat",)))  # of another data set
    command = EditMany(dataset=dataset, selection=those("-cat"), add=("cat",), as_of=found.as_of)
    result = await harness.execute(command)
    assert (result.images, result.selected) == (found.changed, found.selected) == (4, 4)
    with pytest.raises(Conflict, match="4 images changed since the preview") as refused:
        await harness.execute(command)
    assert refused.value.extra == {"current": harness.executor.store.applied}


@pytest.mark.parametrize("change", ["edit", "remove", "predict", "undo"])
async def test_after_any_change_of_an_image_the_preview_holds_no_longer(harness: CatalogHarness, change: str) -> None:
    dataset = await dataset_of(harness, 3)
    first = await harness.execute(EditTags(image=image_id(dataset, 0), add=("dog",)))
    found = await preview(harness, dataset, add=("cat",))
    match change:
        case "edit":
            await harness.execute(EditTags(image=image_id(dataset, 0), add=("sky",)))
        case "remove":
            await harness.execute(RemoveImage(image=image_id(dataset, 0)))
        case "predict":
            await predict(harness, dataset, 0, tree=0.1)
        case _:
            await harness.execute(Undo(dataset=dataset, commit=first.sequence))
    command = EditMany(dataset=dataset, selection=ALL, add=("cat",), as_of=found.as_of)
    with pytest.raises(Conflict, match="1 image changed since the preview"):
        await harness.execute(command)
    again = await preview(harness, dataset, add=("cat",))
    assert (await harness.execute(command.__replace__(as_of=again.as_of))).images == again.changed


async def test_what_cannot_be_edited_is_refused(harness: CatalogHarness) -> None:
    dataset = await dataset_of(harness, 1)
    end = harness.executor.store.applied
    refused: list[tuple[dict[str, Any], str]] = [
        ({}, "names at least one tag"),
        ({"add": ("cat",), "remove": ("Cat",)}, "cannot both add and remove cat"),
        ({"add": ("cat",), "as_of": end + 1}, f"the log ends at {end}"),
        ({"add": ("cat",), "selection": TheseImages(ids=(ImageId("img_x"),))}, "the first is 'img_x'"),
    ]
    for fields, message in refused:
        with pytest.raises(Rejected, match=message):
            await harness.execute(EditMany(dataset=dataset, **({"selection": ALL} | fields)))
    assert await edits_of(harness, dataset) == []
    none = await harness.execute(EditMany(dataset=dataset, selection=those("dog"), add=("cat",)))
    assert (none.images, none.selected, none.changed) == (0, 0, False)


async def test_it_is_undone_as_one_and_what_was_decided_since_stays(harness: CatalogHarness) -> None:
    dataset = await dataset_of(harness, MANY)
    await harness.execute(EditTags(image=image_id(dataset, 1), add=("cat",)))
    command = EditMany(dataset=dataset, selection=ALL, add=("cat",), remove=("dog",))
    edited = await harness.execute(command, command_id="once")
    later = await harness.execute(EditTags(image=image_id(dataset, 2), add=("dog",)))
    undone = await harness.execute(Undo(dataset=dataset, commit=edited.sequence))
    assert undone.kept == (later.sequence,)
    assert await tags_of(harness, dataset, 0) == {}
    assert await tags_of(harness, dataset, 1) == {"cat": "person"}
    assert await tags_of(harness, dataset, 2) == {"dog": "person"}
    assert await harness.execute(command, command_id="once") == edited
    await harness.execute(Undo(dataset=dataset, commit=undone.sequence))
    assert await tags_of(harness, dataset, 0) == {"cat": "person"}
    assert await tags_of(harness, dataset, 2) == {"cat": "person", "dog": "person"}


async def test_a_tagging_run_takes_the_images_that_a_filter_selects(harness: CatalogHarness) -> None:
    dataset = await dataset_of(harness, 3)
    await harness.execute(EditTags(image=image_id(dataset, 1), add=("cat",)))
    run = (await harness.execute(RequestTagging(dataset=dataset, model="demo", selection=those("-cat")))).id
    requested = (await harness.events("tagging", run))[0]
    assert isinstance(requested, TaggingRequested)
    assert (list(bitmap_of(requested.images)), requested.count) == ([0, 2], 2)
    with pytest.raises(Rejected, match="the filter selects no image of 'cats'"):
        await harness.execute(RequestTagging(dataset=dataset, model="demo", selection=those("dog")))
