"""Frozen versions: pages that are shared, freezing beside other commands, jobs that wait for it, and diffs."""

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog import views
from catalog.database import Connection
from catalog.domain import manifest
from catalog.domain import undos as undos_rules
from catalog.domain.edits import voided_commits
from catalog.domain.manifest import BadManifest, ManifestLine, ManifestRoot
from catalog.domain.undos import UNDOABLE
from catalog.freezing.sources import DEFAULT_SOURCE_LIMITS, SourceLimits, open_source
from catalog.keys import Keys
from catalog.service.freezing import Freezer, FrozenVersion
from catalog.store import Store
from catalog.views import decisions, version_content
from catalog.views.batch import BULK
from catalog.watch.losses import Losses
from contracts.commands.datasets import EditTags, EraseImage, FreezeVersion, RemoveImage, SetCaption
from contracts.commands.jobs import CancelJob, CreateJob, EditJob, RemoveJob, StartJob
from contracts.commits import RecordedCommit
from contracts.errors import IllegalTransition, NotFound, Rejected
from contracts.events.datasets import (
    CaptionSet,
    CommitsUndone,
    ImageErased,
    ImagesRemoved,
    MaskSet,
    RepeatsSet,
    RulesSet,
    TagsEdited,
    TagsOrdered,
    TextSettingsSet,
    ThresholdsSet,
    VersionFrozen,
)
from contracts.events.tagging import TaggingPredicted
from contracts.ids import DatasetId, Digest, ImageId, JobId, RunId, VersionId
from contracts.queries.datasets import DiffVersions, GetVersion, ImageChange, ReadManifest
from contracts.queries.jobs import GetJob
from contracts.sealed import seal
from contracts.training_text import training_text
from contracts.wire.blobs.store import LocalBlobs
from tests.catalog.harness import CatalogHarness, event_names, image_id_of, open_catalog
from tests.catalog.log_builder import LOG_ID, LogBuilder, bitmap, digest, image_id, key_for
from tests.catalog.slicing import HeldSlices, smallest_slices
from tests.catalog.test_watch import query
from tests.limits import examples

FIRST, LAST, NEXT, FAR = 0, manifest.PAGE_IMAGES - 1, manifest.PAGE_IMAGES, 5 * manifest.PAGE_IMAGES + 3
"""Ordinals of three pages: two images of the first, one of the second, one of the sixth."""
ORDINALS = (FIRST, LAST, NEXT, FAR)


IN_CHILD = SourceLimits(images=0)


class HeldBlobs(LocalBlobs):
    """Blobs of which none is stored until `released`."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.requested, self.released = asyncio.Event(), asyncio.Event()

    async def put(self, content: bytes | Path) -> Digest:
        self.requested.set()
        await self.released.wait()
        return await super().put(content)


async def read_root(harness: CatalogHarness, number: int) -> ManifestRoot:
    version = await query(harness, GetVersion(dataset="cats", version=number))
    return manifest.decode_root(await harness.blobs.get(version.manifest))


async def frozen_events(harness: CatalogHarness, dataset: str) -> list[VersionFrozen]:
    return [event for event in await harness.events("dataset", dataset) if isinstance(event, VersionFrozen)]


# --- pages


async def test_a_version_names_its_pages_and_shares_those_that_did_not_change(
    harness: CatalogHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    cats = await harness.dataset(ordinals=(FIRST, LAST, NEXT))
    await harness.execute(FreezeVersion(dataset="cats"))
    read: list[int] = []
    read_lines = version_content.read_lines

    def counting(
        dataset_id: str, ordinals: Sequence[int], known: dict[int, str], connection: Connection
    ) -> list[ManifestLine]:
        read.extend(ordinals)
        return read_lines(dataset_id, ordinals, known, connection)

    monkeypatch.setattr(version_content, "read_lines", counting)
    await harness.execute(EditTags(image=image_id_of(cats, NEXT), add=("cat",)))
    await harness.execute(FreezeVersion(dataset="cats"))
    await harness.execute(FreezeVersion(dataset="cats", trigger="sks"))

    roots = [await read_root(harness, number) for number in (1, 2, 3)]
    assert read == [NEXT]
    assert [[(page.first, page.images) for page in root.pages] for root in roots] == [[(FIRST, 2), (NEXT, 1)]] * 3
    assert roots[0].pages[0] == roots[1].pages[0]
    assert roots[0].pages[1] != roots[1].pages[1]
    assert (roots[2].pages, roots[2].trigger) == (roots[1].pages, "sks")
    assert [event.pages for event in await frozen_events(harness, cats)] == [root.digests for root in roots]


async def test_a_page_or_root_of_the_latest_version_that_is_missing_is_made_anew(harness: CatalogHarness) -> None:
    cats = await harness.dataset(ordinals=(FIRST, LAST, NEXT))
    await harness.execute(FreezeVersion(dataset="cats"))
    first = await query(harness, GetVersion(dataset="cats", version=1))
    pages = (await read_root(harness, 1)).digests
    await harness.blobs.delete([pages[0]])
    await harness.execute(EditTags(image=image_id_of(cats, FIRST), add=("cat",)))
    second = await harness.execute(FreezeVersion(dataset="cats"))
    entries = (await query(harness, ReadManifest(version_id=VersionId(second.id)))).items
    assert [(entry.ordinal, entry.caption) for entry in entries] == [(FIRST, "cat"), (LAST, ""), (NEXT, "")]
    await harness.execute(EditTags(image=image_id_of(cats, FIRST), remove=("cat",)))
    await harness.blobs.delete([first.manifest, *pages])  # of which the second version names the last
    await harness.execute(FreezeVersion(dataset="cats"))
    assert (await query(harness, GetVersion(dataset="cats", version=3))).manifest == first.manifest
    assert (await read_root(harness, 3)).digests == pages
    assert [await harness.blobs.exists(page) for page in pages] == [True, True]


async def test_captions_are_sealed_as_they_were_set_and_texts_are_made_when_they_are_read(
    harness: CatalogHarness,
) -> None:
    cats = await harness.dataset(pictures=3)
    await harness.execute(EditTags(image=image_id_of(cats, 0), add=("sks", "grass")))
    await harness.execute(SetCaption(image=image_id_of(cats, 1), caption="asleep"))
    frozen = await harness.execute(FreezeVersion(dataset="cats", trigger="sks"))
    root = await read_root(harness, 1)
    lines = manifest.decode_page(await harness.blobs.get(root.pages[0].digest))
    assert [(line.ordinal, line.tags) for line in lines] == [(0, ("sks", "grass")), (1, ()), (2, ())]
    assert [line.caption for line in lines] == [None, (await harness.image(image_id_of(cats, 1))).caption, None]
    entries = (await query(harness, ReadManifest(version_id=VersionId(frozen.id)))).items
    assert [(entry.caption, entry.written) for entry in entries] == [
        ("sks, grass", False),
        ("sks, asleep", True),
        ("sks", False),
    ]


def test_a_manifest_that_cannot_be_read_is_refused() -> None:
    root = manifest.build_root(TextSettingsSet(trigger="sks"), [])
    assert manifest.decode_root(manifest.encode_root(root)) == root
    for content in (b"", b"[]", manifest.encode_root(msgspec.structs.replace(root, text=9))):
        with pytest.raises(BadManifest):
            manifest.decode_root(content)
    old = b'{"trigger":"sks","template":1,"text":1,"images":0,"pages":[]}'  # as written before there were styles
    line = ManifestLine(
        ordinal=0, image=ImageId("img"), picture=Digest("0" * 64), width=1, height=1, tags=("a", "score_9")
    )
    assert manifest.decode_root(old).text_of(line, None) == "sks, a, score 9"
    assert root.text_of(line, None) == "sks, a, score_9"
    with pytest.raises(Rejected, match="no template 9"):
        manifest.decode_root(manifest.encode_root(msgspec.structs.replace(root, template=9)))
    with pytest.raises(BadManifest):
        manifest.decode_page(b'{"ordinal":0}\n')
    with pytest.raises(Rejected, match="no template 4"):
        training_text("", (), None, template=4)


# --- the same content gives the same version, whatever was frozen before

OTHERS = tuple(range(1, BULK + 3))
"""Further images of the first page: edits of these are kept once, not with each image. The first is never removed."""
SOME = st.lists(st.sampled_from(ORDINALS), min_size=1, max_size=3, unique=True)
MANY = SOME.map(lambda some: [*OTHERS[1:], *some])
TAG = st.sampled_from(["cat", "dog", "sky"])
ONE = st.sampled_from(ORDINALS)
PROBABILITY = st.floats(0.1, 0.9)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("edit"), SOME | MANY, TAG, st.sampled_from(["asserted", "rejected", "withdrawn"])),
        st.tuples(st.just("order"), ONE, st.permutations(["cat", "dog", "animal"])),
        st.tuples(st.just("caption"), ONE, st.sampled_from(["asleep", "awake", None])),
        st.tuples(
            st.just("predict"),
            ONE,
            TAG,
            PROBABILITY,
            st.sampled_from(["wd", "other"]),
            st.sampled_from(["general", "character"]),
        ),
        st.tuples(st.just("repeats"), SOME | MANY, st.integers(1, 3)),
        st.tuples(st.just("mask"), ONE, st.sampled_from([digest("one"), digest("two"), None])),
        st.tuples(st.just("threshold"), PROBABILITY, PROBABILITY),
        st.tuples(st.just("deny"), TAG),
        st.tuples(st.just("remove"), SOME | MANY),
        st.tuples(st.just("erase"), st.sampled_from(ORDINALS[1:])),
        st.tuples(st.just("undo"), st.integers(0, 9)),
        st.tuples(st.just("undo"), st.integers(0, 2)),
        st.just(("freeze",)),
        st.just(("freeze",)),
    ),
    max_size=16,
)


def add_change(builder: LogBuilder, number: int, change: Any) -> None:
    def append(*events: Any) -> None:
        builder.append("dataset", "ds_cats", *events)

    match change:
        case ("edit", ordinals, tag, choice):
            tags: dict[str, Any] = {choice: (tag,)}
            append(TagsEdited(images=bitmap(*ordinals), **tags))
        case ("order", ordinal, ordered):
            append(TagsOrdered(ordinal=ordinal, tags=tuple(ordered)))
        case ("caption", ordinal, text):
            sealed = None if text is None else seal(key_for(image_id("ds_cats", ordinal)), text, "caption")
            append(CaptionSet(ordinal=ordinal, caption=sealed))
        case ("repeats", ordinals, repeats):
            append(RepeatsSet(images=bitmap(*ordinals), repeats=repeats))
        case ("mask", ordinal, mask):
            append(MaskSet(ordinal=ordinal, mask=mask))
        case ("predict", ordinal, tag, probability, model, category):
            attempt = builder.start_run(f"run_{number}", ordinal, model=model)
            builder.predict(f"run_{number}", attempt, ordinal, (tag, probability, category))
        case ("threshold", general, character):
            append(ThresholdsSet(categories={"general": general, "character": character}))
        case ("deny", tag):
            append(RulesSet(deny=(tag,)))
        case ("remove", ordinals):
            append(ImagesRemoved(images=bitmap(*ordinals)))
        case ("erase", ordinal):
            erased = ImageErased(ordinal=ordinal, image_id=image_id("ds_cats", ordinal))
            if all(erased not in recorded.commit.events for recorded in builder.commits):
                append(erased)
        case ("undo", back):
            append(undo_one(builder.commits, back))


def undo_one(commits: Sequence[RecordedCommit], back: int) -> CommitsUndone:
    """Undoes one of the commits or tagging runs that count, counted from the end, and names the images as Undo does."""
    events = [(recorded.sequence, event) for recorded in commits for event in recorded.commit.events]
    undos = {sequence: event for sequence, event in events if isinstance(event, CommitsUndone)}
    void = voided_commits({sequence: event.commits for sequence, event in undos.items()})
    runs = {run for sequence, event in undos.items() if sequence not in void for run in event.runs}
    found: list[CommitsUndone] = []
    for recorded in commits:
        run, (first, *_) = RunId(recorded.commit.aggregate_id), recorded.commit.events
        if recorded.sequence not in void and all(isinstance(event, UNDOABLE) for event in recorded.commit.events):
            images = bitmap(*undos_rules.images_of([recorded]))
            found.append(CommitsUndone(commits=(recorded.sequence,), images=images))
        elif isinstance(first, TaggingPredicted) and run not in runs:
            found.append(CommitsUndone(runs=(run,), images=bitmap(*(image.ordinal for image in first.images))))
    return found[-1 - back]


class Rows:
    """A read model of a growing log, and what freezes from it."""

    def __init__(self, folder: Path, keys: Keys, read: SourceLimits = DEFAULT_SOURCE_LIMITS) -> None:
        folder.mkdir()
        self.store = Store(folder / "read.db", LOG_ID, views)
        self.builder = LogBuilder()
        source = partial(open_source, self.store, limits=read)
        self.freezer = Freezer(self.store, keys, LocalBlobs(folder / "blobs"), Losses, source)
        self.builder.create_dataset()
        for ordinal in (*OTHERS, *ORDINALS):
            self.builder.add_image(ordinal, tags=["animal"])

    async def apply(self) -> None:
        await self.store.apply(self.builder.commits[self.store.applied :])

    async def freeze(self) -> FrozenVersion:
        await self.apply()
        async with self.freezer.draft(DatasetId("ds_cats"), "sks") as draft:
            frozen = await self.freezer.finish(draft, VersionId(f"ver_{self.builder.sequence}"))
        if frozen.is_new:
            self.builder.append("dataset", "ds_cats", frozen.version)
            await self.apply()
        return frozen


async def check_tags(rows: Rows) -> None:
    """What is frozen is what is shown."""
    ordinals = (*OTHERS, *ORDINALS)

    def check(connection: Connection) -> None:
        effective = decisions.effective_tags(connection, "ds_cats", ordinals)
        shown = decisions.shown_tags(connection, "ds_cats", ordinals, {})
        assert shown == {ordinal: tags.names for ordinal, tags in effective.items()}

    await rows.store.read(check)


@pytest.mark.slow
@settings(max_examples=examples(60))
@given(changes=CHANGES)
async def test_equal_content_gives_an_equal_root_whatever_was_frozen_before(
    tmp_path_factory: pytest.TempPathFactory, changes: Sequence[Any]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    async with await Keys.open(folder / "keys.db") as keys:
        await keys.create_keys(image_id("ds_cats", ordinal) for ordinal in (*OTHERS, *ORDINALS))
        growing, whole = Rows(folder / "growing", keys), Rows(folder / "whole", keys, IN_CHILD)
        try:
            for number, change in enumerate(changes):
                if change == ("freeze",):
                    await growing.freeze()
                for rows in (growing, whole):
                    add_change(rows.builder, number, change)
            last, fresh = await growing.freeze(), await whole.freeze()
            await check_tags(whole)
            assert (last.version.manifest, last.version.pages) == (fresh.version.manifest, fresh.version.pages)
            assert not (await growing.freeze()).is_new
        finally:
            await growing.store.close()
            await whole.store.close()


# --- beside other commands


async def test_an_image_erased_between_as_of_and_append_is_not_in_the_version(harness: CatalogHarness) -> None:
    cats = await harness.dataset(pictures=2)
    await harness.execute(EditTags(image=image_id_of(cats, 0), add=("before",)))
    freezer = harness.catalog.freezer
    async with freezer.draft(cats, "") as draft:
        await harness.execute(EraseImage(image=image_id_of(cats, 1)))
        await harness.execute(EditTags(image=image_id_of(cats, 0), add=("after",)))
        frozen = await freezer.finish(draft, VersionId("ver_1"))
        await harness.append("dataset", cats, frozen.version)
    version = await query(harness, GetVersion(dataset="cats", version=1))
    assert (version.images, version.as_of, version.erased) == (1, draft.as_of, 0)
    stored = [await harness.blobs.get(digest) for digest in (version.manifest, *frozen.version.pages)]
    assert not any(image_id_of(cats, 1).encode() in content for content in stored)
    entries = (await query(harness, ReadManifest(version_id=VersionId("ver_1")))).items
    assert [(entry.ordinal, entry.caption) for entry in entries] == [(0, "before")]
    started = await harness.execute(CreateJob(dataset="cats", version=1, start=True))
    assert (started.status, started.version) == ("pending", 1)
    # What the version contains counts from now on.
    await harness.execute(CancelJob(job=JobId(started.id)))
    await harness.execute(EraseImage(image=image_id_of(cats, 0)))
    assert (await query(harness, GetVersion(dataset="cats", version=1))).erased == 1


async def test_commands_on_the_data_set_do_not_wait_for_a_freeze(bus_of: Any, tmp_path: Path) -> None:
    blobs = HeldBlobs(tmp_path / "blobs")
    async with open_catalog(await bus_of("catalog"), tmp_path, blobs=blobs) as harness:
        cats = await harness.dataset(pictures=1)
        freezing = asyncio.create_task(harness.execute(FreezeVersion(dataset="cats")))
        await blobs.requested.wait()
        await harness.execute(EditTags(image=image_id_of(cats, 0), add=("later",)))
        assert not freezing.done()
        blobs.released.set()
        frozen = await freezing
        entries = (await query(harness, ReadManifest(version_id=VersionId(frozen.id)))).items
        assert [entry.caption for entry in entries] == [""]


async def test_a_freeze_waits_for_what_is_applied_to_the_data_set_and_a_new_job_does_not(
    harness: CatalogHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    cats = await harness.dataset(pictures=1)
    held = HeldSlices(harness.executor.store, monkeypatch)
    with smallest_slices():
        await harness.append("dataset", cats, ThresholdsSet(categories={"general": 0.2}))
    freezing = asyncio.create_task(harness.execute(FreezeVersion(dataset="cats")))
    job = await harness.execute(CreateJob(dataset="cats", start=True))
    assert (job.shown, job.version, freezing.done()) == (True, None, False)
    held.release()
    assert (await freezing).version == 1
    assert (await harness.wait_until_frozen(job.id)).work.state == "queued"


async def test_two_freezes_at_once_make_one_version(harness: CatalogHarness) -> None:
    cats = await harness.dataset(pictures=3)
    results = await asyncio.gather(*(harness.execute(FreezeVersion(dataset="cats")) for _ in range(4)))
    assert {result.id for result in results} == {results[0].id}
    assert sorted(result.changed for result in results) == [False, False, False, True]
    assert len(await frozen_events(harness, cats)) == 1


async def test_a_data_set_of_which_everything_was_erased_meanwhile_is_not_frozen(harness: CatalogHarness) -> None:
    cats = await harness.dataset(pictures=1)
    async with harness.catalog.freezer.draft(cats, "") as draft:
        await harness.execute(EraseImage(image=image_id_of(cats, 0)))
        with pytest.raises(Rejected, match="empty"):
            await harness.catalog.freezer.finish(draft, VersionId("ver_1"))


# --- jobs that wait for their version


async def test_a_job_is_accepted_at_once_and_queued_with_its_version(harness: CatalogHarness) -> None:
    cats = await harness.dataset(pictures=1)
    async with harness.catalog.freezer.draft(cats, ""):  # so that the freeze for the job has to wait
        job = JobId((await harness.execute(CreateJob(dataset="cats", trigger=" sks ", start=True))).id)
        view = await query(harness, GetJob(job=job))
        assert (view.status, view.phase, view.version, view.version_id, view.images) == (
            *("pending", "freezing", None),
            *(None, None),
        )
        assert not (await harness.execute(StartJob(job=job))).changed
        await harness.execute(EditJob(job=job, priority="high"))
        with pytest.raises(IllegalTransition, match="cancel it first"):
            await harness.execute(RemoveJob(job=job))
    await harness.wait_until_frozen(job)
    view = await query(harness, GetJob(job=job))
    assert (view.phase, view.priority, view.version, view.images, view.trigger) == ("queued", "high", 1, 1, "sks")
    history = await harness.executor.log.load("job", job)
    assert event_names(history.commits[-1].commit.events) == ["JobVersionSet", "JobQueued"]
    frozen = (await harness.executor.log.load("dataset", cats)).commits[-1]
    assert (frozen.sequence, frozen.commit.actor) == (history.commits[-1].sequence - 1, "ann")
    assert frozen.commit.causation_id == history.commits[0].commit.id


async def test_a_job_that_is_started_while_its_data_set_is_frozen_is_queued_afterwards(harness: CatalogHarness) -> None:
    cats = await harness.dataset(pictures=1)
    async with harness.catalog.freezer.draft(cats, ""):
        job = JobId((await harness.execute(CreateJob(dataset="cats"))).id)
        assert (await harness.execute(StartJob(job=job))).changed
        assert not (await harness.execute(StartJob(job=job))).changed
    assert (await harness.wait_until_frozen(job)).work.state == "queued"


async def test_a_job_whose_data_set_cannot_be_frozen_fails_and_says_why(harness: CatalogHarness) -> None:
    cats = await harness.dataset(pictures=1)
    async with harness.catalog.freezer.draft(cats, ""):
        job = (await harness.execute(CreateJob(dataset="cats", start=True))).id
        await harness.execute(RemoveImage(image=image_id_of(cats, 0)))
    row = await harness.wait_until_frozen(job)
    assert (row.work.state, row.error_code) == ("failed", "empty-dataset")
    assert row.error == "the data set 'cats' is empty; import images first"


async def test_a_job_is_cancelled_while_its_data_set_is_frozen(bus_of: Any, tmp_path: Path) -> None:
    blobs = HeldBlobs(tmp_path / "blobs")
    async with open_catalog(await bus_of("catalog"), tmp_path, blobs=blobs) as harness:
        cats = await harness.dataset(pictures=1)
        job = JobId((await harness.execute(CreateJob(dataset="cats", start=True))).id)
        await blobs.requested.wait()
        assert (await harness.execute(CancelJob(job=job))).status == "cancelled"
        blobs.released.set()
        # The next freeze waits for the end of this one.
        assert (await harness.execute(FreezeVersion(dataset="cats"))).version == 1
        assert len(await frozen_events(harness, cats)) == 1
        assert event_names(await harness.events("job", job)) == [
            *("JobCreated", "JobStartRequested", "JobCancelRequested", "JobCancelled"),
        ]


async def test_a_freeze_that_a_crash_interrupted_goes_on_after_the_start(bus_of: Any, tmp_path: Path) -> None:
    blobs, bus = HeldBlobs(tmp_path / "blobs"), await bus_of("catalog")
    async with open_catalog(bus, tmp_path, blobs=blobs) as harness:
        cats = await harness.dataset(ordinals=(FIRST, LAST, NEXT))
        job = (await harness.execute(CreateJob(dataset="cats", start=True))).id
        await blobs.requested.wait()
        # A page that was stored before the crash: no version names it.
        lines = await harness.executor.store.read(lambda now: version_content.read_lines(cats, [FIRST, LAST], {}, now))
        page = await LocalBlobs.put(blobs, manifest.encode_page(lines))
    async with open_catalog(bus, tmp_path) as harness:
        assert (await harness.wait_until_frozen(job)).work.state == "queued"
        assert page in (await read_root(harness, 1)).digests
        assert event_names(await harness.events("job", job)) == [
            *("JobCreated", "JobStartRequested", "JobVersionSet", "JobQueued"),
        ]
        assert len(await frozen_events(harness, cats)) == 1


# --- diffs


def change(dataset: str, ordinal: int, kind: Any, **fields: Any) -> ImageChange:
    return ImageChange(ordinal=ordinal, image=ImageId(image_id_of(dataset, ordinal)), change=kind, **fields)


async def test_the_difference_of_two_versions(harness: CatalogHarness) -> None:
    cats = await harness.dataset(ordinals=(0, 1, 2, LAST, NEXT, FAR))
    for ordinal in (0, 1, 2, NEXT):
        await harness.execute(EditTags(image=image_id_of(cats, ordinal), add=("cat", "sky")))
    await harness.execute(FreezeVersion(dataset="cats"))
    await harness.execute(EditTags(image=image_id_of(cats, 0), add=("asleep",), remove=("sky",)))
    await harness.execute(SetCaption(image=image_id_of(cats, 1), caption="a cat"))
    await harness.execute(RemoveImage(image=image_id_of(cats, NEXT)))
    await harness.execute(FreezeVersion(dataset="cats"))
    await harness.execute(EditTags(image=image_id_of(cats, 0), add=("sky",), remove=("asleep",)))
    await harness.execute(FreezeVersion(dataset="cats"))

    async def diff(version: int, since: int, limit: int = 500) -> list[ImageChange]:
        found, cursor = list[ImageChange](), None
        while True:
            asked = DiffVersions(dataset="cats", version=version, since=since, limit=limit, cursor=cursor)
            page = await query(harness, asked)
            found += page.items
            if page.next is None:
                assert page.total == len(found)
                return found
            assert page.total > len(found)
            cursor = page.next

    expected = [
        change(cats, 0, "changed", tags_added=("asleep",), tags_removed=("sky",)),
        change(cats, 1, "changed", caption_changed=True),
        change(cats, NEXT, "removed", tags_removed=("cat", "sky")),
    ]
    assert await diff(2, since=1) == expected
    assert await diff(2, since=1, limit=1) == expected
    assert await diff(1, since=2) == [
        change(cats, 0, "changed", tags_added=("sky",), tags_removed=("asleep",)),
        change(cats, 1, "changed", caption_changed=True),
        change(cats, NEXT, "added", tags_added=("cat", "sky")),
    ]
    assert await diff(2, since=2) == []
    with pytest.raises(NotFound, match="no version 9"):
        await diff(2, since=9)
    with pytest.raises(NotFound, match="no version 9"):
        await diff(9, since=1)


LINE = ManifestLine(ordinal=3, image=ImageId("img_3"), picture=Digest("0" * 64), width=1, height=1, tags=("a", "b"))
LINES = st.lists(
    st.builds(
        lambda ordinal, tags, caption: msgspec.structs.replace(LINE, ordinal=ordinal, tags=tags, caption=caption),
        st.integers(0, 6),
        st.lists(TAG, max_size=2, unique=True).map(tuple),
        st.sampled_from([None, b"sealed", b"sealed otherwise"]),
    ),
    max_size=6,
    unique_by=lambda line: line.ordinal,
)


@given(before=LINES, after=LINES)
def test_differing_lines_are_those_that_are_not_equal(before: list[ManifestLine], after: list[ManifestLine]) -> None:
    old, new = ({line.ordinal: line for line in lines} for lines in (before, after))
    pairs = [(old.get(ordinal), new.get(ordinal)) for ordinal in range(7)]
    found = manifest.differing_lines(manifest.encode_page(before), manifest.encode_page(after))
    assert found == [pair for pair in pairs if pair[0] != pair[1]]
