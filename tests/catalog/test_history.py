"""The history of an object: exactly its events, in order, with descriptions and in plain text."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from catalog.domain.event_scope import scope_to_image, scope_to_tag
from catalog.query_handlers.context import QueryLimits
from contracts.errors import Invalid, NotFound
from contracts.events.datasets import TagsEdited
from contracts.ids import ImageId, JobId
from contracts.queries.base import Query
from contracts.queries.log import HistoryEntry, HistoryPage, ListDatasetHistory, ListImageHistory, ListJobHistory
from tests.catalog.log_builder import bitmap, full_history, image_id
from tests.catalog.test_query_handlers import QuerySide, create_keys, open_queries

LOG = full_history()
IMAGES = [image_id("ds_cats", ordinal) for ordinal in range(4)]


@pytest.fixture
async def queries(tmp_path: Path) -> Any:
    async with open_queries(tmp_path) as queries:
        create_keys(tmp_path, IMAGES)
        await queries.load(LOG)
        yield queries


async def history_of(queries: QuerySide, query: Query[HistoryPage]) -> list[HistoryEntry]:
    """The entries of all pages."""
    items: list[HistoryEntry] = []
    while True:
        page = await queries.run(query)
        items += page.items
        if page.next is None:
            return items
        query = msgspec.structs.replace(query, cursor=page.next)


async def test_the_history_of_a_job_has_all_its_events(queries: QuerySide) -> None:
    entries = await history_of(queries, ListJobHistory(job=JobId("job_1")))

    expected = [
        (recorded.sequence, index, type(event).__struct_config__.tag)
        for recorded in LOG.commits
        if recorded.commit.aggregate_id == "job_1"
        for index, event in enumerate(recorded.commit.events)
    ]
    assert [(entry.sequence, entry.index, entry.type) for entry in entries] == expected
    first, *_, last = entries
    assert first.description == "Created job 'a cat' on data set 'cats'"
    assert (first.actor, first.command_id, first.change["dataset"]) == ("user:ann", "train", "cats")
    assert entries[1].description == "Set version 1 of the data set, with 2 images"
    assert last.description == "Training completed after 20 steps: cat.safetensors"
    assert first.recorded_at == LOG.commits[first.sequence - 1].recorded_at


async def test_the_history_of_an_image_has_the_edits_and_predictions_of_that_image_only(queries: QuerySide) -> None:
    entries = await history_of(queries, ListImageHistory(image=IMAGES[1]))

    assert [entry.description for entry in entries] == [
        "Added image 1 (PNG, 640 x 480)",
        "The import added tags cat, only_1 to 1 image",
        "Added tags sitting, grass and rejected tag only_1 on 1 image",
        "Set the caption of image 1",
        "Marked 1 image as reviewed",
        "Marked 1 image as not reviewed",
        "Set the repeats of 1 image to 3",
        "Set the repeats of 1 image to 1",
        *["Set the mask of image 1"] * 3,
        "Removed the mask of image 1",
        "Ordered the tags of image 1: sitting, cat",
        "Denied models the tag watermark",
        "Predicted tags for image 1: only_1 0.99, sky 0.4, tree 0.2",
        "Set the auto-tag thresholds: general above 0.5, character above 0.9",
    ]
    added, imported, edited, captioned, *_, predicted, _ = entries
    assert added.change["name"] == "cat 1.png"
    assert imported.change["source"] == "import"
    assert edited.change["images"] == {"count": 1, "ordinals": [1]}
    assert captioned.change["caption"] == "a sitting cat"
    assert (predicted.aggregate_kind, predicted.aggregate_id, predicted.actor) == ("tagging", "run_1", "svc:tagger/t1")


async def test_the_history_of_a_removed_image_includes_its_removal(queries: QuerySide) -> None:
    entries = await history_of(queries, ListImageHistory(image=IMAGES[3]))
    assert "Removed 1 image" in [entry.description for entry in entries]


async def test_the_history_of_a_tag_has_every_edit_and_prediction_of_it(queries: QuerySide) -> None:
    entries = await history_of(queries, ListDatasetHistory(dataset="Cats!", tag="Only 1"))

    assert [(entry.type, entry.description) for entry in entries] == [
        ("dataset.tags_edited", "The import added tag only_1 to 1 image"),
        ("dataset.tags_edited", "Rejected tag only_1 on 3 images"),
        ("dataset.rules_set", "Denied models the tag watermark"),
        ("tagging.predicted", "Predicted tags for image 1: only_1 0.99"),
        ("dataset.thresholds_set", "Set the auto-tag thresholds: general above 0.5, character above 0.9"),
    ]


async def test_the_history_of_a_data_set_includes_its_tagging_runs_in_log_order(queries: QuerySide) -> None:
    entries = await history_of(queries, ListDatasetHistory(dataset="ds_cats"))

    aggregates = {("dataset", "ds_cats"), ("tagging", "run_1"), ("tagging", "run_2"), ("tagging", "run_3")}
    expected = [
        (recorded.sequence, index)
        for recorded in LOG.commits
        if (recorded.commit.aggregate_kind, recorded.commit.aggregate_id) in aggregates
        for index in range(len(recorded.commit.events))
    ]
    assert [(entry.sequence, entry.index) for entry in entries] == expected
    # The key of the refused file is missing, so its name stays sealed.
    assert next(entry for entry in entries if entry.type == "dataset.image_refused").change["name"] is None


@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_pages_of_any_size_add_up_to_the_whole_history(queries: QuerySide, limit: int) -> None:
    for query in (
        ListJobHistory(job=JobId("job_1")),
        ListImageHistory(image=IMAGES[0]),
        ListDatasetHistory(dataset="ds_cats"),
    ):
        assert await history_of(queries, msgspec.structs.replace(query, limit=limit)) == await history_of(
            queries, query
        )
        assert len((await queries.run(msgspec.structs.replace(query, limit=limit))).items) == limit


async def test_a_search_is_limited_and_says_where_to_continue(queries: QuerySide) -> None:
    whole = await history_of(queries, ListDatasetHistory(dataset="ds_cats", tag="grass"))
    queries.limit(QueryLimits(scanned_commits=3))
    assert (await queries.run(ListDatasetHistory(dataset="ds_cats", tag="grass"))).items == ()
    assert await history_of(queries, ListDatasetHistory(dataset="ds_cats", tag="grass")) == whole


async def test_an_unknown_object_has_no_history(queries: QuerySide) -> None:
    for query in (
        ListJobHistory(job=JobId("job_9")),
        ListImageHistory(image=ImageId("img_nobody")),
        ListDatasetHistory(dataset="nobody"),
    ):
        with pytest.raises(NotFound):
            await queries.run(query)
    with pytest.raises(Invalid):
        await queries.run(ListJobHistory(job=JobId("job_1"), cursor="no cursor"))


def test_an_event_is_reduced_to_the_image_or_tag_and_one_about_all_images_is_kept() -> None:
    edited = TagsEdited(images=bitmap(0, 2), asserted=("cat", "dog"), rejected=("sky",))
    assert scope_to_image(edited, 2) == msgspec.structs.replace(edited, images=bitmap(2))
    assert scope_to_image(edited, 1) is None
    assert scope_to_tag(edited, "dog") == msgspec.structs.replace(edited, asserted=("dog",), rejected=())
    assert scope_to_tag(edited, "sky") == msgspec.structs.replace(edited, asserted=(), rejected=("sky",))
    assert scope_to_tag(edited, "sea") is None
