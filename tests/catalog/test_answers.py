"""Answers: every question, page by page, in plain text, and the same bytes after the read model was made anew."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from catalog import views
from catalog.answers import Answers
from catalog.answers.paging import PAGE_BYTES, cursor_of, key_of, paged
from catalog.archive import Archive
from catalog.domain.builtin_presets import PRESETS
from catalog.keys import Keys
from catalog.store import Store
from contracts import queries as q
from contracts.errors import Behind, Gone, Invalid, NotFound
from contracts.events import DatasetRenamed
from contracts.ids import ImageId, JobId, RunId, VersionId
from contracts.queries import QUERIES, Query, answer_of
from contracts.recipe import checked
from contracts.wire.blobs import LocalBlobs
from tests.catalog.histories import LOG_ID, Scribe, everything, image_id, key_for, manifest_of

SCRIBE = everything()
IMAGES = [*(image_id("ds_cats", ordinal) for ordinal in range(4)), image_id("ds_dogs", 0), image_id("ds_gone", 0)]
ERASED = [image_id("ds_erased", ordinal) for ordinal in range(2)]


class Asked:
    """The catalog's read side over one history."""

    def __init__(self, folder: Path, read_db: str = "read.db") -> None:
        self.store = Store(folder / read_db, LOG_ID, views)
        self.archive = Archive(folder)
        self.keys = Keys(folder / "keys.db")
        self.blobs = LocalBlobs(folder / "blobs")
        self._handlers = Answers(self.store, self.archive, self.keys, self.blobs, lambda _: ()).handlers()

    async def ask(self, query: Query[Any]) -> Any:
        return await self._handlers[type(query)](query)

    async def learn(self, scribe: Scribe) -> None:
        await self.archive.append(scribe.commits)
        await self.store.apply(scribe.commits)
        await self.blobs.put(manifest_of("ds_cats", 0, 1))

    async def close(self) -> None:
        for one in (self.store, self.archive, self.keys):
            await one.close()


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Asked]:
    asked = Asked(tmp_path)
    give_keys(tmp_path, [*IMAGES, ImageId("img_bad")])
    await asked.learn(SCRIBE)
    yield asked
    await asked.close()


def give_keys(folder: Path, images: list[ImageId]) -> None:
    connection = sqlite3.connect(folder / "keys.db", isolation_level=None)
    connection.executemany("INSERT INTO key VALUES (?, ?)", [(image, key_for(image)) for image in images])
    connection.close()


def questions() -> list[Query[Any]]:
    """Every question about every thing of the history, whatever the answer."""
    sets = ["ds_cats", "Cats!", "dogs", "ds_gone", "nobody"]
    work = ["job_1", "job_2", "job_3", "job_4", "job_5", "job_6", "job_9"]
    lists: list[Query[Any]] = [
        *(kind() for kind in (q.ListDatasets, q.ListImages, q.ListTags, q.ListTagging, q.ListPresets, q.ListJobs)),
        *(q.ListJobs(status=status) for status in ("pending", "running", "completed", "failed", "cancelled")),
        *(q.ListImages(dataset=dataset, tag=tag) for dataset in (None, "ds_cats") for tag in ("cat", "Only 1", "x")),
        q.ListTags(prefix="only"),
        q.ListEvents(),
        q.ListEvents(kind="job", thing="job_1"),
        q.GetLog(),
        q.ListErased(),
        *(q.GetErasure(thing=thing) for thing in (*ERASED, "ds_erased", "ds_cats", IMAGES[0], "img_nobody")),
        *(q.GetImage(image=image) for image in ERASED),
    ]
    of_sets: list[Query[Any]] = [
        kind(dataset=ref)
        for ref in sets
        for kind in (
            *(q.GetDataset, q.ListImages, q.ListRefusals, q.ListTags, q.ListVersions, q.ListTagging, q.ListJobs),
            q.ListDatasetHistory,
        )
    ]
    of_jobs: list[Query[Any]] = [
        kind(job=JobId(job)) for job in work for kind in (q.GetJob, q.ListCheckpoints, q.ListSamples, q.ListJobHistory)
    ]
    return [
        *lists,
        *of_sets,
        *of_jobs,
        *(q.GetVersion(dataset="ds_cats", version=number) for number in (1, 2)),
        *(kind(image=image) for image in IMAGES for kind in (q.GetImage, q.ListImageHistory)),
        *(q.GetImage(image=image, at_seq=20) for image in IMAGES),
        *(kind(run=RunId(f"run_{n}")) for n in (1, 2, 3, 9) for kind in (q.GetTagging, q.ReadTaggingWork)),
        *(q.GetPreset(name=name) for name in ("quick", "mine", "old", "nothing")),
        *(q.ReadManifest(version_id=VersionId(version)) for version in ("ver_1", "ver_9")),
    ]


async def body(asked: Asked, query: Query[Any]) -> bytes:
    try:
        answer = await asked.ask(query)
    except (NotFound, Gone) as error:
        return f"{error.code}: {error.detail}".encode()
    return msgspec.json.encode(answer)


def test_every_question_is_asked_here() -> None:
    of_the_log = {q.GetAuditHead, q.VerifyLog}  # they ask the log itself: tests/catalog/test_audit.py
    of_replays = {q.StartReplay, q.GetReplay}  # tests/catalog/test_rebuild.py
    assert {type(query) for query in questions()} == set(QUERIES) - of_the_log - of_replays


async def test_every_question_has_its_handler_and_every_answer_its_type(asked: Asked) -> None:
    for query in questions():
        content = await body(asked, query)
        if not content.startswith((b"not-found", b"gone")):
            msgspec.json.decode(content, type=answer_of(type(query)))


async def test_answers_are_the_same_bytes_after_the_read_model_is_made_anew(asked: Asked, tmp_path: Path) -> None:
    before = [await body(asked, query) for query in questions()]

    again = Asked(tmp_path, "again.db")
    for stored in SCRIBE.commits:  # in other batches than the first time
        await again.archive.append([stored])
        await again.store.apply([stored])
    again.archive.tail = asked.archive.tail

    assert [await body(again, query) for query in questions()] == before
    await again.close()


LISTS: list[Any] = [
    q.ListDatasets,
    q.ListImages,
    lambda **page: q.ListImages(dataset="ds_cats", **page),
    lambda **page: q.ListImages(tag="cat", **page),
    lambda **page: q.ListRefusals(dataset="ds_cats", **page),
    q.ListTags,
    lambda **page: q.ListTags(dataset="ds_cats", **page),
    lambda **page: q.ListVersions(dataset="ds_cats", **page),
    lambda **page: q.ReadManifest(version_id=VersionId("ver_1"), **page),
    q.ListTagging,
    lambda **page: q.ReadTaggingWork(run=RunId("run_1"), **page),
    q.ListPresets,
    q.ListJobs,
    lambda **page: q.ListCheckpoints(job=JobId("job_1"), **page),
    lambda **page: q.ListSamples(job=JobId("job_1"), **page),
]


@pytest.mark.parametrize("make", LISTS)
async def test_pages_of_one_make_the_whole_list_once(asked: Asked, make: Any) -> None:
    whole = await asked.ask(make())

    items, cursor = [], None
    while True:
        page = await asked.ask(make(cursor=cursor, limit=1))
        assert page.total == whole.total
        items.extend(page.items)
        if page.next is None:
            break
        cursor = page.next

    assert tuple(items) == whole.items
    assert len(items) == whole.total > 0
    assert whole.next is None


async def test_an_image_shows_its_tags_caption_and_name_in_plain_text(asked: Asked) -> None:
    first = await asked.ask(q.GetImage(image=image_id("ds_cats", 0)))
    second = await asked.ask(q.GetImage(image=image_id("ds_cats", 1)))

    assert first.name == "cat 0.png"
    assert [tag.tag for tag in first.tags] == ["cat", "only_0", "sitting", "grass", "cloud"]
    assert first.rejected == ("only_1",)
    assert (first.caption, first.caption_source) == ("cat, only 0, sitting, grass, cloud", "tags")
    assert (second.caption, second.caption_source) == ("a sitting cat", "person")
    assert second.dataset == "Cats!"


async def test_what_a_model_is_not_sure_of_is_a_suggestion_unless_somebody_decided(asked: Asked) -> None:
    image = await asked.ask(q.GetImage(image=image_id("ds_cats", 1)))

    assert [(tag.tag, tag.probability) for tag in image.suggestions] == [("sky", 0.4), ("tree", 0.2)]


async def test_a_data_set_counts_what_is_there(asked: Asked) -> None:
    found = await asked.ask(q.GetDataset(dataset="cats!"))

    assert (found.images, found.tagged, found.captioned, found.refused) == (3, 3, 1, 1)
    assert (found.general_threshold, found.character_threshold) == (0.5, 0.9)
    assert (found.latest_version, found.cover) == (1, image_id("ds_cats", 0))


async def test_a_new_name_of_the_data_set_is_a_new_etag_of_its_images(asked: Asked) -> None:
    before = await asked.ask(q.GetImage(image=image_id("ds_dogs", 0)))
    scribe = everything()
    renamed = scribe.write("dataset", "ds_dogs", DatasetRenamed(name="hounds"))
    await asked.store.apply([renamed])

    after = await asked.ask(q.GetImage(image=image_id("ds_dogs", 0)))

    assert (before.dataset, after.dataset) == ("dogs", "hounds")
    assert after.etag == renamed.sequence > before.etag


async def test_what_was_removed_is_gone_and_what_never_was_is_not_found(asked: Asked) -> None:
    for gone in (
        q.GetDataset(dataset="ds_gone"),
        q.GetImage(image=image_id("ds_cats", 3)),
        q.GetImage(image=image_id("ds_gone", 0)),
        q.GetJob(job=JobId("job_6")),
        q.GetPreset(name="old"),
    ):
        with pytest.raises(Gone):
            await asked.ask(gone)
    for missing in (q.GetDataset(dataset="gone"), q.GetImage(image=ImageId("x")), q.GetPreset(name="x")):
        with pytest.raises(NotFound):
            await asked.ask(missing)


async def test_a_manifest_is_read_in_plain_text_but_not_of_an_erased_image(asked: Asked, tmp_path: Path) -> None:
    page = await asked.ask(q.ReadManifest(version_id=VersionId("ver_1")))
    assert [(entry.ordinal, entry.caption) for entry in page.items] == [(0, "caption 0"), (1, "caption 1")]

    connection = sqlite3.connect(tmp_path / "keys.db", isolation_level=None)
    connection.execute("DELETE FROM key WHERE image_id = ?", (image_id("ds_cats", 0),))
    connection.close()

    page = await asked.ask(q.ReadManifest(version_id=VersionId("ver_1")))
    assert [entry.caption for entry in page.items] == ["", "caption 1"]


async def test_samples_without_prompts_of_their_own_show_the_first_captions(asked: Asked) -> None:
    page = await asked.ask(q.ListSamples(job=JobId("job_1")))

    assert [(sample.index, sample.prompt) for sample in page.items] == [(0, "caption 0"), (1, "caption 1")]


async def test_a_job_shows_its_end_and_one_that_waits_its_turn(asked: Asked) -> None:
    done = await asked.ask(q.GetJob(job=JobId("job_1")))
    urgent, low = [await asked.ask(q.GetJob(job=JobId(job))) for job in ("job_3", "job_2")]

    assert (done.status, done.phase, done.step, done.steps, done.position) == ("completed", "completed", 20, 20, None)
    assert (done.checkpoints, done.samples, len(done.attempts)) == (2, 2, 4)
    assert (urgent.position, low.position) == (1, 2)


async def test_the_presets_that_come_with_it_are_listed_first_and_valid(asked: Asked) -> None:
    page = await asked.ask(q.ListPresets())

    assert [preset.name for preset in page.items] == [*sorted(preset.name for preset in PRESETS), "mine"]
    assert [preset.builtin for preset in page.items] == [True] * len(PRESETS) + [False]
    for preset in page.items:
        assert checked(preset.recipe) == preset.recipe


async def test_an_answer_waits_for_the_sequence_it_is_asked_for(asked: Asked) -> None:
    assert (await asked.ask(q.GetLog(min_seq=SCRIBE.sequence))).applied == SCRIBE.sequence

    with pytest.raises(Behind):
        await asked.ask(q.GetLog(min_seq=SCRIBE.sequence + 1))


@pytest.mark.parametrize("cursor", ["", "x", "####", "é", cursor_of((1, 2, 3)), cursor_of(("1",))])
async def test_a_cursor_of_another_list_is_refused(asked: Asked, cursor: str) -> None:
    with pytest.raises(Invalid):
        await asked.ask(q.ListJobs(cursor=cursor))


def test_a_page_that_grows_too_large_ends_early_and_says_where_to_go_on() -> None:
    rows = [(number, "x" * 100_000) for number in range(20)]

    seen: list[int] = []
    cursor: str | None = None
    while True:
        (after,) = key_of(cursor, (-1,))
        page = paged(
            [row for row in rows if row[0] > after], lambda row: row, lambda row: (row[0],), total=20, limit=50
        )
        assert len(msgspec.json.encode(page)) < PAGE_BYTES + 100_000
        seen += [number for number, _ in page.items]
        if (cursor := page.next) is None:
            break

    assert seen == list(range(20))
