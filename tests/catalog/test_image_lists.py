"""Filtered and sorted lists of images over a long random history, against a plain model of what each image shows."""

import json
import shutil
from base64 import urlsafe_b64decode
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from catalog.domain.ordering import natural_key
from catalog.query_handlers.context import QueryLimits
from contracts.errors import Behind, Invalid, NotFound, Rejected
from contracts.events.datasets import (
    CaptionSet,
    CommitsUndone,
    DatasetRemoved,
    ImageErased,
    ImagesRemoved,
    TextSettingsSet,
)
from contracts.events.tagging import TaggingPredicted, TaggingRequested
from contracts.filter_text import parse_filter, parse_sort
from contracts.filters import Filter, HasTag
from contracts.ids import DatasetId, ImageId
from contracts.queries.datasets import ImageView, ListImages, ListTags, TagCount
from contracts.sealed import CAPTION, seal
from tests.catalog.log_builder import LogBuilder, bitmap, image_id, key_for
from tests.catalog.test_query_handlers import QuerySide, create_keys, open_queries
from tests.catalog.test_selection import PlainImage, selects
from tests.catalog.view_digest import TAGS, long_history

LONG = DatasetId("ds_long")
LOG = long_history()
FILTERS = [
    *TAGS,
    *(f"rejected:{tag}" for tag in TAGS),
    *(f"source:{source}" for source in ("person", "import", "model")),
    *(f"source:{source}:{tag}" for source in ("person", "import", "model") for tag in TAGS),
    *(f"conf:{tag}>=0.5" for tag in TAGS),
    *("conf:cat=0", "conf:cat>0.2<0.7", "conf:nobody>0"),
    *("untagged", "-untagged", "captioned", "reviewed", "unreviewed", "-reviewed"),
    *("width>=640", "width<640", "height=480", "pixels>=307200", "bytes>1238", "aspect>1.3<1.4"),
    *("name:CAT", 'name:"cat 1"', "caption:dog", "text:cat", "text:nothing"),
    *("since:0", f"since:{LOG.sequence}", "since:2026-11-21T12:01:30Z", "since:2026-11-22"),
    *("duplicate:img_ds_long_0", "duplicate:img_ds_long_0<=0", "-duplicate:img_ds_cats_0"),
    *("cat dog", "cat | dog", "-(cat | dog) conf:sky>0", "cat -reviewed text:cat bytes<=1240"),
]
SORTS: dict[str, Callable[[ImageView], Any]] = {
    "added": lambda view: view.ordinal,
    "name": lambda view: natural_key(view.name),
    "size": lambda view: view.size,
    "changed": lambda view: view.etag,
    "tags": lambda view: len(view.tags),
    "conf:cat": lambda view: confidences(view.dataset_id, view.ordinal).get("cat", 0.0),
}


SETTINGS = {
    recorded.sequence
    for recorded in LOG.commits
    if any(isinstance(event, TextSettingsSet) for event in recorded.commit.events)
}


def confidences(dataset: str, ordinal: int, log: LogBuilder = LOG) -> dict[str, float]:
    """By tag, the highest of each model's newest run that could read the image and was not undone."""
    events = [event for recorded in log.commits for event in recorded.commit.events]
    undone = {run for event in events if isinstance(event, CommitsUndone) for run in event.runs}
    runs: dict[str, tuple[str, str]] = {}
    of_model: dict[str, dict[str, float]] = {}
    for recorded in (recorded for recorded in log.commits if recorded.commit.aggregate_id not in undone):
        for event in recorded.commit.events:
            match event:
                case TaggingRequested(dataset_id=requested, model=model):
                    runs[recorded.commit.aggregate_id] = (requested, model)
                case TaggingPredicted(images=images) if runs[recorded.commit.aggregate_id][0] == dataset:
                    for image in images:
                        if image.ordinal == ordinal and image.unreadable is None:
                            model = runs[recorded.commit.aggregate_id][1]
                            of_model[model] = {found.tag: found.probability for found in image.predictions}
                case _:
                    pass
    highest: defaultdict[str, float] = defaultdict(float)
    for found in of_model.values():
        for tag, probability in found.items():
            highest[tag] = max(highest[tag], probability)
    return dict(highest)


def plain(view: ImageView, sequence: int) -> PlainImage:
    return PlainImage(
        live=True,
        tags={tag.tag: tag.source for tag in view.tags},  # type: ignore[misc]  # a view's source is any text
        rejected=frozenset(view.rejected),
        predicted=confidences(view.dataset_id, view.ordinal),
        width=view.width,
        height=view.height,
        size=view.size,
        dhash=0,
        name=view.name,
        caption="" if view.caption_source == "tags" else view.caption,
        reviewed=view.reviewed,
        added=sequence,
    )


def sequence_of(ordinal: int) -> int:
    """At which an image of the long data set was added."""
    return next(
        recorded.sequence
        for recorded in LOG.commits
        for event in recorded.commit.events
        if recorded.commit.aggregate_id == LONG and getattr(event, "image_id", None) == image_id(LONG, ordinal)
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def loaded_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a catalog that has taken in the whole history."""
    folder = tmp_path_factory.mktemp("loaded")
    async with open_queries(folder) as queries:
        others = [image_id("ds_cats", ordinal) for ordinal in range(4)]
        create_keys(folder, [*others, image_id("ds_dogs", 0), *(image_id(LONG, ordinal) for ordinal in range(12))])
        await queries.load(LOG)
    return folder


@pytest.fixture
async def queries(loaded_folder: Path, tmp_path: Path) -> AsyncIterator[QuerySide]:
    """A copy of its own for each test."""
    folder = shutil.copytree(loaded_folder, tmp_path / "catalog")
    async with open_queries(folder) as queries:
        yield queries


async def listed(queries: QuerySide, limit: int = 500, **given: Any) -> list[ImageView]:
    """All pages of a list; each says the same total."""
    items: list[ImageView] = []
    cursor, totals = None, set()
    while True:
        page = await queries.run(ListImages(cursor=cursor, limit=limit, **given))
        items += page.items
        totals.add(page.total)
        cursor = page.next
        if cursor is None:
            assert totals == {len(items)}
            return items


def ids(views: list[ImageView]) -> list[ImageId]:
    return [view.id for view in views]


async def test_each_filter_selects_what_the_images_show(queries: QuerySide) -> None:
    views = await listed(queries, dataset=LONG)
    sequences = [sequence_of(view.ordinal) for view in views]
    images = [plain(view, sequence) for view, sequence in zip(views, sequences, strict=True)]
    assert len(images) > 5
    selected_some = 0
    for text in FILTERS:
        filter_ = parse_filter(
            text.replace("duplicate:img_ds_long_0", "duplicate:img_0").replace("img_ds_cats_0", "img_0")
        )
        expected = [view.id for view, image in zip(views, images, strict=True) if selects(filter_, image, images)]
        assert ids(await listed(queries, dataset=LONG, filter=parse_filter(text))) == expected, text
        selected_some += 0 < len(expected) < len(images)
    assert selected_some > 20


@pytest.mark.parametrize("direction", ["", "-"])
@pytest.mark.parametrize("key", SORTS)
@pytest.mark.parametrize("filter_", [None, parse_filter("-rejected:cat")])
async def test_each_sort_order_is_that_of_the_keys_and_pages_add_up(
    queries: QuerySide, filter_: Filter | None, key: str, direction: str
) -> None:
    views = await listed(queries, dataset=LONG, filter=filter_)
    expected = sorted(views, key=lambda view: (SORTS[key](view), view.ordinal), reverse=direction == "-")
    given: dict[str, Any] = {"dataset": LONG, "filter": filter_, "sort": parse_sort(direction + key)}
    assert ids(await listed(queries, **given)) == ids(expected)
    assert ids(await listed(queries, limit=2, **given)) == ids(expected)


@pytest.mark.parametrize("sort", [*SORTS, "-name", "-size"])
async def test_all_data_sets_are_listed_in_one_order(queries: QuerySide, sort: str) -> None:
    filter_ = parse_filter("width>1")
    views = await listed(queries)
    assert len({view.dataset_id for view in views}) > 2
    found = await listed(queries, sort=parse_sort(sort), filter=filter_)
    assert sorted(ids(found)) == sorted(ids(views))
    assert ids(await listed(queries, limit=1, sort=parse_sort(sort), filter=filter_)) == ids(found)
    if sort != "added":
        # Text settings change what is shown of all images of a data set, and so the ETag, but no image.
        own = found if sort != "changed" else [view for view in found if view.etag not in SETTINGS]
        assert own
        keys = [SORTS[sort.removeprefix("-")](view) for view in own]
        assert keys == sorted(keys, reverse=sort.startswith("-"))


async def test_a_tag_is_the_filter_of_that_term(queries: QuerySide) -> None:
    tagged = await listed(queries, dataset=LONG, tag="Cat")
    assert ids(tagged) == ids(await listed(queries, dataset=LONG, filter=HasTag("cat")))
    both = await listed(queries, dataset=LONG, tag="cat", filter=HasTag("Dog"))
    assert ids(both) == ids(await listed(queries, dataset=LONG, filter=parse_filter("cat dog")))


@pytest.mark.parametrize("dataset", [LONG, None])
@pytest.mark.parametrize("prefix", ["", "C"])
@pytest.mark.parametrize("filter_", ["cat", "-cat | width>1", "rejected:dog", "name:nothing"])
async def test_the_tags_of_the_selected_images_are_counted(
    queries: QuerySide, dataset: DatasetId | None, prefix: str, filter_: str
) -> None:
    views = await listed(queries, dataset=dataset, filter=parse_filter(filter_))
    expected = Counter(tag.tag for view in views for tag in view.tags if tag.tag.startswith(prefix.lower()))
    in_order = [TagCount(tag=tag, images=images) for tag, images in expected.items()]
    in_order.sort(key=lambda row: (-row.images, row.tag))
    query = ListTags(dataset=dataset, prefix=prefix, filter=parse_filter(filter_))
    page = await queries.run(query)
    assert (list(page.items), page.total, page.next) == (in_order, len(expected), None)
    found: list[TagCount] = []
    cursor = None
    while len(found) < page.total:
        one = await queries.run(replace(query, cursor=cursor, limit=1))
        found, cursor = [*found, *one.items], one.next
    assert found == in_order and cursor is None


async def test_a_cursor_of_another_sort_order_is_refused(queries: QuerySide) -> None:
    page = await queries.run(ListImages(dataset=LONG, sort=parse_sort("size"), limit=1))
    for other in (parse_sort("-size"), parse_sort("name"), parse_sort("added"), None):
        with pytest.raises(Invalid, match="cursor"):
            await queries.run(ListImages(dataset=LONG, sort=other, cursor=page.next))


@pytest.mark.parametrize("first_page", [1, 2, 3])
@pytest.mark.parametrize("sort", ["name", "-name"])
async def test_a_page_continues_although_the_image_of_the_cursor_is_erased(
    queries: QuerySide, sort: str, first_page: int
) -> None:
    views = await listed(queries, dataset=LONG, sort=parse_sort(sort))
    page = await queries.run(ListImages(dataset=LONG, sort=parse_sort(sort), limit=first_page))
    last = page.items[-1]
    builder = long_history()
    await queries.store.apply([builder.append("dataset", LONG, ImageErased(ordinal=last.ordinal, image_id=last.id))])
    rest = await queries.run(ListImages(dataset=LONG, sort=parse_sort(sort), cursor=page.next))
    assert ids(rest.items) == ids(views[first_page:])


@pytest.mark.parametrize("sort", ["name", "-name"])
async def test_nothing_is_left_out_of_all_data_sets_although_the_image_of_the_cursor_is_erased(
    queries: QuerySide, sort: str
) -> None:
    views = await listed(queries, sort=parse_sort(sort))
    page = await queries.run(ListImages(sort=parse_sort(sort), limit=5))
    last = page.items[-1]
    recorded = long_history().append("dataset", last.dataset_id, ImageErased(ordinal=last.ordinal, image_id=last.id))
    await queries.store.apply([recorded])
    rest = await queries.run(ListImages(sort=parse_sort(sort), cursor=page.next, limit=500))
    assert set(ids(views[5:])) <= set(ids(rest.items))


async def test_a_cursor_has_no_part_of_a_name(queries: QuerySide) -> None:
    page = await queries.run(ListImages(sort=parse_sort("name"), limit=3))
    assert page.next is not None
    content = urlsafe_b64decode(page.next + "=" * (-len(page.next) % 4)).decode()
    assert "cat" in page.items[-1].name
    _, rank, dataset_id, ordinal = json.loads(content)
    assert (dataset_id, ordinal) == (page.items[-1].dataset_id, page.items[-1].ordinal)
    assert "cat " not in content
    assert isinstance(rank, int)


async def test_a_list_by_name_does_not_continue_in_a_removed_data_set(queries: QuerySide) -> None:
    page = await queries.run(ListImages(sort=parse_sort("name"), limit=3))
    await queries.store.apply([long_history().append("dataset", page.items[-1].dataset_id, DatasetRemoved())])
    with pytest.raises(Invalid, match="from the start"):
        await queries.run(ListImages(sort=parse_sort("name"), cursor=page.next))


async def test_a_caption_is_found_as_soon_as_the_read_model_shows_it(queries: QuerySide) -> None:
    filter_ = parse_filter("caption:unseen")
    assert await listed(queries, dataset=LONG, filter=filter_) == []
    (first, *_) = await listed(queries, dataset=LONG)
    sealed = seal(key_for(first.id), "Unseen before", CAPTION)
    recorded = long_history().append("dataset", LONG, CaptionSet(ordinal=first.ordinal, caption=sealed))
    queries.limit(QueryLimits(read_timeout=0.01))
    with pytest.raises(Behind):
        await queries.run(ListImages(dataset=LONG, filter=filter_, min_seq=recorded.sequence))
    await queries.store.apply([recorded])
    page = await queries.run(ListImages(dataset=LONG, filter=filter_, min_seq=recorded.sequence))
    assert ids(page.items) == [first.id]


async def test_removed_images_are_in_no_list(queries: QuerySide) -> None:
    builder = long_history()
    (first, *_) = await listed(queries, dataset=LONG)
    await queries.store.apply([builder.append("dataset", LONG, ImagesRemoved(images=bitmap(first.ordinal)))])
    for text in ("-nothing", "bytes>0", "untagged | -untagged", "text:cat | -text:cat", "reviewed | unreviewed"):
        assert first.id not in ids(await listed(queries, dataset=LONG, filter=parse_filter(text)))


async def test_what_cannot_be_answered_is_an_error(queries: QuerySide) -> None:
    with pytest.raises(NotFound, match="img_nobody"):
        await queries.run(ListImages(dataset=LONG, filter=parse_filter("duplicate:img_nobody")))
    with pytest.raises(Rejected):
        await queries.run(ListImages(dataset=LONG, filter=HasTag("a,b")))
    with pytest.raises(NotFound):
        await queries.run(ListImages(dataset="nobody", filter=HasTag("a")))
