"""Query handlers: every query, pagination, plain text, and identical results after a rebuild of the read model."""

import dataclasses
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from catalog import views
from catalog.archive.archive import Archive
from catalog.domain.builtin_presets import PRESETS
from catalog.key_rows import row_digest
from catalog.keys import Keys
from catalog.prediction_index import PredictionIndex
from catalog.query_handlers.context import ManifestReader, QueryContext, QueryLimits
from catalog.query_handlers.paging import MAX_PAGE_BYTES, build_page, decode_cursor, encode_cursor
from catalog.query_handlers.sequences import refusing_unknown_sequences
from catalog.query_handlers.table import query_handlers
from catalog.store import Store
from catalog.tag_index import TagIndex
from catalog.text_index import TextIndexes, TextLimits
from catalog.views.prediction_parts import read_current
from contracts.errors import Behind, Gone, Invalid, NotFound
from contracts.events.datasets import DatasetRenamed
from contracts.filters import AllImages
from contracts.ids import DatasetId, ImageId, JobId, RunId, VersionId
from contracts.queries.base import Query, result_type_of
from contracts.queries.datasets import (
    DiffVersions,
    GetDataset,
    GetErasure,
    GetImage,
    GetTextSettings,
    GetVersion,
    ListDatasets,
    ListErased,
    ListImageIds,
    ListImages,
    ListRefusals,
    ListTags,
    ListVersions,
    PreviewEdit,
    PreviewTexts,
    ReadManifest,
)
from contracts.queries.exports import ReadExport
from contracts.queries.jobs import GetJob, ListCheckpoints, ListJobs, ListSamples
from contracts.queries.log import (
    GetAuditHead,
    GetLog,
    GetReplay,
    ListDatasetHistory,
    ListEvents,
    ListForeign,
    ListImageHistory,
    ListJobHistory,
    StartReplay,
    VerifyLog,
)
from contracts.queries.losses import GetBlob, GetBlobAudit, ListLosses, StartBlobAudit
from contracts.queries.owners import QUERIES
from contracts.queries.presets import GetPreset, ListPresets
from contracts.queries.tagging import GetTagging, ListTagging, ReadTaggingWork
from contracts.recipe import validate_recipe
from contracts.wire.blobs.store import LocalBlobs
from contracts.wire.service.requests import QueryHandlers
from tests.catalog.log_builder import LOG_ID, LogBuilder, full_history, image_id, key_for, manifest_of
from tests.catalog.received import as_received

LOG = full_history()
IMAGES = [*(image_id("ds_cats", ordinal) for ordinal in range(4)), image_id("ds_dogs", 0), image_id("ds_gone", 0)]
ERASED = [image_id("ds_erased", ordinal) for ordinal in range(2)]


class QuerySide:
    """The read side of a catalog: its store, archive, keys and blobs, loaded with one log."""

    def __init__(self, folder: Path, read_db: str, keys: Keys) -> None:
        self.store = Store(folder / read_db, LOG_ID, views)
        self.archive = Archive(folder)
        self.keys = keys
        self.blobs = LocalBlobs(folder / "blobs")
        self._context = QueryContext(
            store=self.store,
            archive=self.archive,
            keys=keys,
            manifests=ManifestReader(self.blobs, self.blobs.size),
            texts=TextIndexes(self.store, keys, TextLimits()),
            predictions=PredictionIndex(read_current),
            tags=TagIndex(self.store),
            pending_purges=lambda _: (),
        )

    async def run(self, query: Query[Any]) -> Any:
        return await self.handlers()[type(query)](query)

    def handlers(self) -> QueryHandlers:
        return as_received(query_handlers(self._context))

    def limit(self, limits: QueryLimits) -> None:
        self._context = dataclasses.replace(self._context, limits=limits)

    async def load(self, builder: LogBuilder) -> None:
        await self.archive.append(builder.commits)
        await self.store.apply(builder.commits)
        for content in manifest_of("ds_cats", 0, 1):
            await self.blobs.put(content)

    async def close(self) -> None:
        for file in (self.store, self.archive, self.keys):
            await file.close()


@asynccontextmanager
async def open_queries(folder: Path, read_db: str = "read.db") -> AsyncIterator[QuerySide]:
    queries = QuerySide(folder, read_db, await Keys.open(folder / "keys.db"))
    try:
        yield queries
    finally:
        await queries.close()


@pytest.fixture
async def queries(tmp_path: Path) -> AsyncIterator[QuerySide]:
    async with open_queries(tmp_path) as queries:
        create_keys(tmp_path, [*IMAGES, ImageId("img_bad")])
        await queries.load(LOG)
        yield queries


def create_keys(folder: Path, images: list[ImageId]) -> None:
    connection = sqlite3.connect(folder / "keys.db", isolation_level=None)
    rows = [(image, key_for(image), row_digest("key", image, key_for(image))) for image in images]
    connection.executemany("INSERT INTO key VALUES (?, ?, ?)", rows)
    connection.close()


def all_queries() -> list[Query[Any]]:
    """Every query about every object of the log, including those that fail."""
    dataset_refs = ["ds_cats", "Cats!", "dogs", "ds_gone", "nobody"]
    work = ["job_1", "job_2", "job_3", "job_4", "job_5", "job_6", "job_9"]
    lists: list[Query[Any]] = [
        *(kind() for kind in (ListDatasets, ListImages, ListTags, ListTagging, ListPresets, ListJobs)),
        *(ListJobs(status=status) for status in ("pending", "running", "completed", "failed", "cancelled")),
        *(ListImages(dataset=dataset, tag=tag) for dataset in (None, "ds_cats") for tag in ("cat", "Only 1", "x")),
        ListTags(prefix="only"),
        *(PreviewEdit(dataset=ref, selection=AllImages(), add=("cat",), remove=("dog",)) for ref in dataset_refs),
        *(PreviewTexts(dataset=ref, selection=AllImages(), read_as="tags") for ref in dataset_refs),
        *(GetTextSettings(dataset=ref) for ref in dataset_refs),
        ListEvents(),
        ListEvents(aggregate_kind="job", aggregate_id="job_1"),
        ListForeign(),
        GetLog(),
        ListErased(),
        *(GetErasure(aggregate_id=ref) for ref in (*ERASED, "ds_erased", "ds_cats", IMAGES[0], "img_nobody")),
        *(GetImage(image=image) for image in ERASED),
        *(ListImageIds(dataset=DatasetId(dataset), ordinals=(0, 3, 9)) for dataset in ("ds_cats", "ds_erased")),
    ]
    of_datasets: list[Query[Any]] = [
        kind(dataset=ref)
        for ref in dataset_refs
        for kind in (
            *(GetDataset, ListImages, ListRefusals, ListTags, ListVersions, ListTagging, ListJobs),
            ListDatasetHistory,
        )
    ]
    of_jobs: list[Query[Any]] = [
        kind(job=JobId(job)) for job in work for kind in (GetJob, ListCheckpoints, ListSamples, ListJobHistory)
    ]
    return [
        *lists,
        *of_datasets,
        *of_jobs,
        *(GetVersion(dataset="ds_cats", version=number) for number in (1, 2)),
        *(DiffVersions(dataset="ds_cats", version=1, since=number) for number in (1, 2)),
        *(kind(image=image) for image in IMAGES for kind in (GetImage, ListImageHistory)),
        *(GetImage(image=image, at_seq=20) for image in IMAGES),
        *(kind(run=RunId(f"run_{n}")) for n in (1, 2, 3, 9) for kind in (GetTagging, ReadTaggingWork)),
        *(GetPreset(name=name) for name in ("quick", "mine", "old", "nothing")),
        *(ReadManifest(version_id=VersionId(version)) for version in ("ver_1", "ver_9")),
        *(ReadExport(dataset=dataset) for dataset in ("ds_cats", "ds_gone", "nobody")),
        *(ReadExport(dataset="ds_cats", version=number) for number in (1, 9)),
    ]


async def result_bytes(queries: QuerySide, query: Query[Any]) -> bytes:
    try:
        result = await queries.run(query)
    except (NotFound, Gone) as error:
        return f"{error.code}: {error.detail}".encode()
    return msgspec.json.encode(result)


def test_all_queries_are_covered() -> None:
    of_audit = {GetAuditHead, VerifyLog}  # they need the log itself: tests/catalog/test_audit.py
    of_replays = {StartReplay, GetReplay}  # tests/catalog/test_rebuild.py
    of_watch = {ListLosses, GetBlob, StartBlobAudit, GetBlobAudit}  # tests/catalog/test_watch.py, test_losses.py
    assert {type(query) for query in all_queries()} == set(QUERIES["catalog"]) - of_audit - of_replays - of_watch


async def test_every_query_has_a_handler_and_every_result_its_type(queries: QuerySide) -> None:
    for query in all_queries():
        content = await result_bytes(queries, query)
        if not content.startswith((b"not-found", b"gone")):
            assert msgspec.json.decode(content, type=result_type_of(type(query))) is not None


async def test_results_are_byte_identical_after_the_read_model_is_rebuilt(queries: QuerySide, tmp_path: Path) -> None:
    before = [await result_bytes(queries, query) for query in all_queries()]

    async with open_queries(tmp_path, "again.db") as again:
        for recorded in LOG.commits:  # in other batches than the first time
            await again.archive.append([recorded])
            await again.store.apply([recorded])
        again.archive.tail = queries.archive.tail

        assert [await result_bytes(again, query) for query in all_queries()] == before


LISTS: list[Any] = [
    ListDatasets,
    ListImages,
    lambda **page: ListImages(dataset="ds_cats", **page),
    lambda **page: ListImages(tag="cat", **page),
    lambda **page: ListRefusals(dataset="ds_cats", **page),
    ListTags,
    lambda **page: ListTags(dataset="ds_cats", **page),
    lambda **page: ListVersions(dataset="ds_cats", **page),
    lambda **page: ReadManifest(version_id=VersionId("ver_1"), **page),
    lambda **page: ReadExport(dataset="ds_cats", **page),
    lambda **page: ReadExport(dataset="ds_cats", version=1, **page),
    ListTagging,
    lambda **page: ReadTaggingWork(run=RunId("run_1"), **page),
    ListPresets,
    ListJobs,
    lambda **page: ListCheckpoints(job=JobId("job_1"), **page),
    lambda **page: ListSamples(job=JobId("job_1"), **page),
]


@pytest.mark.parametrize("make", LISTS)
async def test_pages_of_one_item_add_up_to_the_whole_list(queries: QuerySide, make: Any) -> None:
    whole = await queries.run(make())

    items, cursor = [], None
    while True:
        page = await queries.run(make(cursor=cursor, limit=1))
        assert page.total == whole.total
        items.extend(page.items)
        if page.next is None:
            break
        cursor = page.next

    assert tuple(items) == whole.items
    assert len(items) == whole.total > 0
    assert whole.next is None


async def test_an_image_shows_its_tags_caption_and_name_in_plain_text(queries: QuerySide) -> None:
    first = await queries.run(GetImage(image=image_id("ds_cats", 0)))
    second = await queries.run(GetImage(image=image_id("ds_cats", 1)))

    assert first.name == "cat 0.png"
    assert [tag.tag for tag in first.tags] == ["cat", "only_0", "sitting", "grass", "cloud"]
    assert first.rejected == ("only_1",)
    assert (first.caption, first.caption_source) == ("cat, only 0, sitting, grass, cloud", "tags")
    assert (second.caption, second.caption_source) == ("a sitting cat", "person")
    assert second.dataset == "Cats!"


async def test_predictions_below_the_threshold_are_suggestions_unless_a_person_decided(queries: QuerySide) -> None:
    image = await queries.run(GetImage(image=image_id("ds_cats", 1)))

    assert [(tag.tag, tag.probability) for tag in image.suggestions] == [("sky", 0.4), ("tree", 0.2)]


async def test_a_data_set_counts_its_live_images(queries: QuerySide) -> None:
    found = await queries.run(GetDataset(dataset="cats!"))

    assert (found.images, found.tagged, found.captioned, found.refused) == (3, 3, 1, 1)
    assert found.thresholds == {"general": 0.5, "character": 0.9}
    assert (found.latest_version, found.cover) == (1, image_id("ds_cats", 0))


async def test_renaming_a_data_set_changes_the_etags_of_its_images(queries: QuerySide) -> None:
    before = await queries.run(GetImage(image=image_id("ds_dogs", 0)))
    builder = full_history()
    renamed = builder.append("dataset", "ds_dogs", DatasetRenamed(name="hounds"))
    await queries.store.apply([renamed])

    after = await queries.run(GetImage(image=image_id("ds_dogs", 0)))

    assert (before.dataset, after.dataset) == ("dogs", "hounds")
    assert after.etag == renamed.sequence > before.etag


async def test_removed_objects_are_gone_and_unknown_ones_not_found(queries: QuerySide) -> None:
    for gone in (
        GetDataset(dataset="ds_gone"),
        GetImage(image=image_id("ds_cats", 3)),
        GetImage(image=image_id("ds_gone", 0)),
        GetJob(job=JobId("job_6")),
        GetPreset(name="old"),
    ):
        with pytest.raises(Gone):
            await queries.run(gone)
    for missing in (GetDataset(dataset="gone"), GetImage(image=ImageId("x")), GetPreset(name="x")):
        with pytest.raises(NotFound):
            await queries.run(missing)


async def test_a_manifest_is_in_plain_text_except_for_erased_images(queries: QuerySide, tmp_path: Path) -> None:
    page = await queries.run(ReadManifest(version_id=VersionId("ver_1")))
    assert [(entry.ordinal, entry.caption) for entry in page.items] == [(0, "caption 0"), (1, "caption 1")]

    await queries.keys.destroy([image_id("ds_cats", 0)])

    page = await queries.run(ReadManifest(version_id=VersionId("ver_1")))
    assert [entry.caption for entry in page.items] == ["", "caption 1"]


async def test_samples_of_a_recipe_without_prompts_show_the_first_captions(queries: QuerySide) -> None:
    page = await queries.run(ListSamples(job=JobId("job_1")))

    assert [(sample.index, sample.prompt) for sample in page.items] == [(0, "caption 0"), (1, "caption 1")]


async def test_a_completed_job_shows_its_outputs_and_a_queued_one_its_position(queries: QuerySide) -> None:
    done = await queries.run(GetJob(job=JobId("job_1")))
    urgent, low = [await queries.run(GetJob(job=JobId(job))) for job in ("job_3", "job_2")]

    assert (done.status, done.phase, done.step, done.steps, done.position) == ("completed", "completed", 20, 20, None)
    assert (done.checkpoints, done.samples, len(done.attempts)) == (2, 2, 4)
    assert (urgent.position, low.position) == (1, 2)


async def test_the_builtin_presets_are_listed_first_and_valid(queries: QuerySide) -> None:
    page = await queries.run(ListPresets())

    assert [preset.name for preset in page.items] == [*sorted(preset.name for preset in PRESETS), "mine"]
    assert [preset.builtin for preset in page.items] == [True] * len(PRESETS) + [False]
    for preset in page.items:
        assert validate_recipe(preset.recipe) == preset.recipe


async def test_a_query_waits_for_its_min_seq(queries: QuerySide) -> None:
    assert (await queries.run(GetLog(min_seq=LOG.sequence))).applied == LOG.sequence

    queries.limit(QueryLimits(read_timeout=0.01))
    with pytest.raises(Behind):
        await queries.run(GetLog(min_seq=LOG.sequence + 1))


async def test_a_min_seq_after_the_end_of_the_log_is_refused(queries: QuerySide) -> None:
    queries.limit(QueryLimits(read_timeout=0.01))

    async def end() -> int:
        return LOG.sequence + 5

    answer = refusing_unknown_sequences(queries.handlers(), end)[GetLog]
    with pytest.raises(Behind):
        await answer(GetLog(min_seq=LOG.sequence + 5))
    with pytest.raises(Invalid, match=f"but the log ends at {LOG.sequence + 5}$"):
        await answer(GetLog(min_seq=LOG.sequence + 6))


@pytest.mark.parametrize("cursor", ["", "x", "####", "é", encode_cursor((1, 2, 3)), encode_cursor(("1",))])
async def test_a_cursor_of_another_list_is_refused(queries: QuerySide, cursor: str) -> None:
    with pytest.raises(Invalid):
        await queries.run(ListJobs(cursor=cursor))


def test_a_page_that_grows_too_large_ends_early_and_continues_on_the_next() -> None:
    rows = [(number, "x" * 100_000) for number in range(20)]

    seen: list[int] = []
    cursor: str | None = None
    while True:
        (after,) = decode_cursor(cursor, (-1,))
        rest = [row for row in rows if row[0] > after]
        page = build_page(ListJobs(limit=50), rest, lambda row: row, lambda row: (row[0],), 20)
        assert len(msgspec.json.encode(page)) < MAX_PAGE_BYTES + 100_000
        seen += [number for number, _ in page.items]
        if (cursor := page.next) is None:
            break

    assert seen == list(range(20))
