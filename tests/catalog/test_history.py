"""The story of one thing: all that happened to it, nothing else, in order, in words and in plain text."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from catalog.answers import history
from catalog.domain.narrowing import for_image, to_image, to_tag
from catalog.domain.words import words_of
from contracts import events as e
from contracts.errors import Invalid, NotFound
from contracts.ids import ImageId, JobId
from contracts.queries import Happening, History, ListDatasetHistory, ListImageHistory, ListJobHistory, Query
from tests.catalog.histories import bitmap, everything, image_id
from tests.catalog.test_answers import Asked, give_keys

SCRIBE = everything()
IMAGES = [image_id("ds_cats", ordinal) for ordinal in range(4)]


@pytest.fixture
async def asked(tmp_path: Path) -> Any:
    asked = Asked(tmp_path)
    give_keys(tmp_path, IMAGES)
    await asked.learn(SCRIBE)
    yield asked
    await asked.close()


async def story(asked: Asked, query: Query[History]) -> list[Happening]:
    """All pieces."""
    items: list[Happening] = []
    while True:
        piece = await asked.ask(query)
        items += piece.items
        if piece.next is None:
            return items
        query = msgspec.structs.replace(query, cursor=piece.next)


async def test_a_job_is_told_from_its_first_fact_to_its_last(asked: Asked) -> None:
    told = await story(asked, ListJobHistory(job=JobId("job_1")))

    facts = [
        (stored.sequence, index, type(fact).__struct_config__.tag)
        for stored in SCRIBE.commits
        if stored.commit.thing == "job_1"
        for index, fact in enumerate(stored.commit.facts)
    ]
    assert [(one.sequence, one.index, one.type) for one in told] == facts
    first, *_, last = told
    assert first.words == "the job 'a cat' was drawn up, on version 1 of 'cats'"
    assert (first.actor, first.command, first.change["images"]) == ("user:ann", "train", 2)
    assert last.words == "it was completed after 20 steps, with 1 file"
    assert first.recorded == SCRIBE.commits[first.sequence - 1].recorded


async def test_an_image_is_told_with_what_people_and_models_said_of_it_alone(asked: Asked) -> None:
    told = await story(asked, ListImageHistory(image=IMAGES[1]))

    assert [one.words for one in told] == [
        "image 1 was added (PNG, 640 x 480)",
        "an import added cat, only_1 on 1 image",
        "a person added sitting, grass and rejected only_1 on 1 image",
        "the caption of image 1 was set by a person",
        "seen in image 1: only_1 0.99, sky 0.4, tree 0.2",
        "thresholds were set to 0.5 (general) and 0.9 (character)",
    ]
    added, imported, edited, captioned, seen, _ = told
    assert added.change["name"] == "cat 1.png"
    assert imported.change["source"] == "import"
    assert edited.change["images"] == {"count": 1, "ordinals": [1]}
    assert captioned.change["caption"] == "a sitting cat"
    assert (seen.kind, seen.thing, seen.actor) == ("tagging", "run_1", "svc:tagger/t1")


async def test_a_removed_image_has_a_story_with_its_end(asked: Asked) -> None:
    told = await story(asked, ListImageHistory(image=IMAGES[3]))
    assert "1 image was removed" in [one.words for one in told]


async def test_a_tag_is_told_wherever_it_came_or_went(asked: Asked) -> None:
    told = await story(asked, ListDatasetHistory(dataset="Cats!", tag="Only 1"))

    assert [(one.type, one.words) for one in told] == [
        ("dataset.tags_edited", "an import added only_1 on 1 image"),
        ("dataset.tags_edited", "a person rejected only_1 on 3 images"),
        ("tagging.predicted", "seen in image 1: only_1 0.99"),
        ("dataset.thresholds_set", "thresholds were set to 0.5 (general) and 0.9 (character)"),
    ]


async def test_a_data_set_is_told_with_its_runs_in_the_order_of_the_log(asked: Asked) -> None:
    told = await story(asked, ListDatasetHistory(dataset="ds_cats"))

    mine = {("dataset", "ds_cats"), ("tagging", "run_1"), ("tagging", "run_2"), ("tagging", "run_3")}
    facts = [
        (stored.sequence, index)
        for stored in SCRIBE.commits
        if (stored.commit.kind, stored.commit.thing) in mine
        for index in range(len(stored.commit.facts))
    ]
    assert [(one.sequence, one.index) for one in told] == facts
    # The key of the refused file is not there: its name stays shut.
    assert next(one for one in told if one.type == "dataset.image_refused").change["name"] is None


@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_pieces_of_any_size_are_the_whole_story(asked: Asked, limit: int) -> None:
    for query in (
        ListJobHistory(job=JobId("job_1")),
        ListImageHistory(image=IMAGES[0]),
        ListDatasetHistory(dataset="ds_cats"),
    ):
        assert await story(asked, msgspec.structs.replace(query, limit=limit)) == await story(asked, query)
        assert len((await asked.ask(msgspec.structs.replace(query, limit=limit))).items) == limit


async def test_a_search_is_bounded_and_says_where_to_go_on(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = await story(asked, ListDatasetHistory(dataset="ds_cats", tag="grass"))
    monkeypatch.setattr(history, "SCAN", 3)
    assert (await asked.ask(ListDatasetHistory(dataset="ds_cats", tag="grass"))).items == ()
    assert await story(asked, ListDatasetHistory(dataset="ds_cats", tag="grass")) == whole


async def test_what_never_was_has_no_story(asked: Asked) -> None:
    for query in (
        ListJobHistory(job=JobId("job_9")),
        ListImageHistory(image=ImageId("img_nobody")),
        ListDatasetHistory(dataset="nobody"),
    ):
        with pytest.raises(NotFound):
            await asked.ask(query)
    with pytest.raises(Invalid):
        await asked.ask(ListJobHistory(job=JobId("job_1"), cursor="no cursor"))


def test_every_fact_has_words_of_its_own() -> None:
    for stored in SCRIBE.commits:
        for fact in stored.commit.facts:
            assert words_of(fact) not in ("", by_type(fact))


def by_type(fact: e.AnyFact) -> str:
    return str(type(fact).__struct_config__.tag).replace(".", ": ", 1).replace("_", " ")


def test_a_fact_about_others_is_cut_away_and_one_about_all_is_kept() -> None:
    edited = e.TagsEdited(images=bitmap(0, 2), asserted=("cat", "dog"), rejected=("sky",))
    assert to_image(edited, 2) == msgspec.structs.replace(edited, images=bitmap(2))
    assert to_image(edited, 1) is None
    assert to_tag(edited, "dog") == msgspec.structs.replace(edited, asserted=("dog",), rejected=())
    assert to_tag(edited, "sky") == msgspec.structs.replace(edited, asserted=(), rejected=("sky",))
    assert to_tag(edited, "sea") is None

    for stored in SCRIBE.commits:
        if stored.commit.thing == "ds_cats":
            kept = for_image(stored.commit, 0)
            assert {type(fact) for fact in kept.facts} <= {type(fact) for fact in stored.commit.facts}
    (renamed,) = (c.commit for c in SCRIBE.commits if isinstance(c.commit.facts[0], e.DatasetRenamed))
    assert for_image(renamed, 0) == renamed
