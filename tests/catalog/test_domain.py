"""The rules of data sets, images, imports, versions, jobs and tagging runs: states in, events out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from catalog.domain import datasets, images, imports, jobs, manifest, tagging, versions
from catalog.domain.datasets import DatasetState
from catalog.domain.images import ImageState
from catalog.domain.imports import ExaminedFile, KnownImage
from catalog.domain.jobs import JobState
from catalog.domain.manifest import ManifestPage
from catalog.domain.versions import FrozenContent
from contracts.commands.datasets import (
    CreateDataset,
    EditTags,
    EraseDataset,
    EraseImage,
    RemoveDataset,
    RemoveImage,
    RenameDataset,
    ReplaceTags,
    SetCaption,
    SetThresholds,
)
from contracts.commands.jobs import StartJob
from contracts.commands.tagging import RequestTagging
from contracts.errors import InUse, Rejected, StaleVersion
from contracts.events.base import Event
from contracts.events.datasets import (
    CaptionSet,
    DatasetCreated,
    DatasetErased,
    DatasetRemoved,
    DatasetRenamed,
    ImageAdded,
    ImageErased,
    ImageRefused,
    ImagesRemoved,
    RulesSet,
    TagsEdited,
    TextSettingsSet,
    ThresholdsSet,
    VersionFrozen,
)
from contracts.events.jobs import JobQueued
from contracts.events.tagging import TaggingQueued, TaggingRequested
from contracts.ids import DatasetId, Digest, ImageId, JobId, VersionId
from contracts.jobs import Work
from contracts.sealed import CAPTION, seal
from tests.catalog.log_builder import bitmap, digest, digest_of, image_added, image_id, key_for

CATS = DatasetState(
    name="cats", thresholds=ThresholdsSet(categories={"general": 0.35, "character": 0.85}), rules=RulesSet()
)
IMAGE = image_id("ds_cats", 3)
KEY = key_for(IMAGE)


# --- data sets


def test_a_name_is_stored_in_normal_form_unless_it_is_taken() -> None:
    create, rename = CreateDataset(name="  Cats \n of  mine "), RenameDataset(dataset="cats", name=" dogs")
    assert datasets.decide(DatasetState(), create) == [DatasetCreated(name="Cats of mine")]
    assert datasets.decide(CATS, rename) == [DatasetRenamed(name="dogs")]
    assert datasets.decide(CATS, RenameDataset(dataset="cats", name="cats ")) == []
    taken = DatasetState(name="cats", name_taken=True)
    for command in (create, rename):
        with pytest.raises(Rejected, match=r"there is a data set called '.*' already"):
            datasets.decide(taken, command)


@pytest.mark.parametrize("name", ["health", "Prepare", "ds_1", "img_x", "a/b", "..", " ", "a\u202eb", "50%", "q?"])
def test_a_reserved_or_unaddressable_name_is_refused(name: str) -> None:
    with pytest.raises(Rejected):
        datasets.decide(DatasetState(), CreateDataset(name=name))


@given(st.text(max_size=40))
def test_a_normalized_name_is_its_own_normal_form(name: str) -> None:
    try:
        normalized = datasets.normalize_name(name)
    except Rejected:
        return
    assert datasets.normalize_name(normalized) == normalized


def test_the_same_thresholds_again_are_no_news() -> None:
    assert datasets.decide(CATS, SetThresholds(dataset="cats", categories={"general": 0.35, "character": 0.85})) == []
    assert datasets.decide(CATS, SetThresholds(dataset="cats", categories={"general": 0.2, "character": 0.85})) == [
        ThresholdsSet(categories={"general": 0.2, "character": 0.85})
    ]


def test_a_data_set_is_erased_once_and_not_while_a_job_needs_it() -> None:
    assert datasets.decide(CATS, RemoveDataset(dataset="cats")) == [DatasetRemoved()]
    assert datasets.decide(CATS, EraseDataset(dataset="cats")) == [DatasetErased()]
    in_use = [f"job_{number}" for number in range(12)]
    assert datasets.decide(DatasetState(erased=True, active_jobs=in_use), EraseDataset(dataset="cats")) == []
    with pytest.raises(InUse, match="job_9 and others") as refused:
        datasets.decide(DatasetState(active_jobs=in_use), EraseDataset(dataset="cats"))
    assert refused.value.extra["jobs"] == in_use[:10]


# --- images


def edited(
    asserted: tuple[str, ...] = (), rejected: tuple[str, ...] = (), withdrawn: tuple[str, ...] = ()
) -> list[Event]:
    return [TagsEdited(images=bitmap(3), asserted=asserted, rejected=rejected, withdrawn=withdrawn)]


def test_only_new_decisions_on_tags_are_recorded() -> None:
    image = ImageState(ordinal=3, asserted=frozenset({"cat"}), rejected=frozenset({"dog"}))
    assert images.decide(image, EditTags(image=IMAGE, add=("Cat ", "Long Hair"), remove=("dog",))) == edited(
        ("long_hair",)
    )
    assert images.decide(image, EditTags(image=IMAGE, add=("dog",))) == edited(("dog",))
    assert images.decide(image, EditTags(image=IMAGE, add=("cat",), remove=("dog",))) == []
    with pytest.raises(Rejected, match="both add and remove x"):
        images.decide(image, EditTags(image=IMAGE, add=("x",), remove=("X",)))


def test_a_replaced_list_is_an_edit_of_the_list_that_the_client_saw() -> None:
    image = ImageState(
        ordinal=3,
        added=5,
        etag=9,
        base=("cat", "grass", "sky"),
        asserted=frozenset({"cat", "grass"}),
        predicted=frozenset({"sky"}),
    )
    assert images.decide(image, ReplaceTags(image=IMAGE, tags=("cat", "tree", "sky"), seen=7)) == edited(
        ("tree",), withdrawn=("grass",)
    )
    assert images.decide(image, ReplaceTags(image=IMAGE, tags=("cat", "grass"), seen=7)) == edited(rejected=("sky",))
    assert images.decide(image, ReplaceTags(image=IMAGE, tags=("grass", "sky", "cat"), seen=7)) == []


@given(
    base=st.sets(st.sampled_from("abcdef")),
    proposed=st.sets(st.sampled_from("abcdef")),
    current=st.sets(st.sampled_from("abcdef")),
)
def test_a_replaced_list_keeps_what_others_changed_meanwhile(
    base: set[str], proposed: set[str], current: set[str]
) -> None:
    image = ImageState(ordinal=3, base=sorted(base), asserted=frozenset(current))
    events = images.decide(image, ReplaceTags(image=IMAGE, tags=tuple(sorted(proposed))))
    after = set(current)
    for event in events:
        assert isinstance(event, TagsEdited)
        after = (after | {*event.asserted}) - {*event.rejected, *event.withdrawn}
    assert after == (current | (proposed - base)) - (base - proposed)


@pytest.mark.parametrize("seen", [4, 10])
def test_a_version_the_image_never_had_is_refused(seen: int) -> None:
    image = ImageState(ordinal=3, added=5, etag=9, key=KEY)
    for command in (ReplaceTags(image=IMAGE, tags=(), seen=seen), SetCaption(image=IMAGE, caption="x", seen=seen)):
        with pytest.raises(StaleVersion):
            images.decide(image, command)


def test_a_caption_is_sealed_and_conflicts_only_with_a_later_caption() -> None:
    image = ImageState(ordinal=3, added=5, etag=9, key=KEY, caption=seal(KEY, "a cat", CAPTION), caption_changed=7)
    dog = CaptionSet(ordinal=3, caption=seal(KEY, "a dog", CAPTION))
    assert images.decide(image, SetCaption(image=IMAGE, caption="a dog", seen=7)) == [dog]
    assert images.decide(image, SetCaption(image=IMAGE, caption="a cat", seen=6)) == []
    assert images.decide(image, SetCaption(image=IMAGE, caption=None)) == [CaptionSet(ordinal=3, caption=None)]
    with pytest.raises(StaleVersion, match="somebody else"):
        images.decide(image, SetCaption(image=IMAGE, caption="a dog", seen=6))


def test_an_image_is_removed_or_erased_unless_a_job_needs_it() -> None:
    assert images.decide(ImageState(ordinal=3), RemoveImage(image=IMAGE)) == [ImagesRemoved(images=bitmap(3))]
    assert images.decide(ImageState(ordinal=3), EraseImage(image=IMAGE)) == [ImageErased(ordinal=3, image_id=IMAGE)]
    assert images.decide(ImageState(erased=True), EraseImage(image=IMAGE)) == []
    with pytest.raises(InUse, match="job_1"):
        images.decide(ImageState(ordinal=3, active_jobs=["job_1"]), EraseImage(image=IMAGE))


# --- files that are imported


def examined(number: int, caption: str | None = None, tags: tuple[str, ...] = ()) -> ExaminedFile:
    added = image_added("ds_cats", number)
    return ExaminedFile(event=added, key=key_for(added.image_id), caption=caption, tags=tags)


def test_new_images_get_the_next_ordinals_and_refused_files_none() -> None:
    refused = ImageRefused(image_id=ImageId("img_x"), name=b"", reason="broken", detail="it is broken", size=7)
    files = [examined(0, "a cat", ("Cat", "a,b")), ExaminedFile(event=refused, key=KEY), examined(1)]
    decision = imports.decide(5, {}, files)
    added = [event for event in decision.events if isinstance(event, ImageAdded)]
    assert [event.ordinal for event in added] == [5, 6]
    assert decision.events == [
        added[0],
        CaptionSet(ordinal=5, caption=seal(key_for(image_id("ds_cats", 0)), "a cat", CAPTION), source="import"),
        TagsEdited(images=bitmap(5), asserted=("cat",), source="import"),
        refused,
        added[1],
    ]
    assert [(file.outcome, file.ordinal, file.reason) for file in decision.files] == [
        ("added", 5, None),
        ("refused", None, "broken"),
        ("added", 6, None),
    ]
    assert "a,b" in (decision.files[0].detail or "")
    assert decision.unused_blobs == set()


def test_a_duplicate_adds_only_a_missing_caption_and_leaves_its_blobs_unused() -> None:
    duplicate = image_added("ds_cats", 0)
    other_blobs = frozenset({Digest("other")})
    known = KnownImage(image=IMAGE, ordinal=3, blobs=other_blobs | {duplicate.picture}, key=KEY)
    decision = imports.decide(5, {duplicate.pixels: known}, [examined(0, "first"), examined(0, "second", ("x",))])
    assert decision.events == [CaptionSet(ordinal=3, caption=seal(KEY, "first", CAPTION), source="import")]
    assert [(file.outcome, file.image) for file in decision.files] == [("existing", IMAGE)] * 2
    assert decision.unused_blobs == {duplicate.source, duplicate.thumbnail}
    assert "the existing caption was kept; the tags of the file were ignored" in (decision.files[1].detail or "")


def test_an_erased_duplicate_gets_no_caption() -> None:
    known = KnownImage(image=IMAGE, ordinal=3, blobs=frozenset(), key=None)
    assert imports.decide(5, {image_added("ds_cats", 0).pixels: known}, [examined(0, "a cat")]).events == []


def test_files_with_the_same_pixels_in_one_import_are_one_image() -> None:
    decision = imports.decide(0, {}, [examined(0), examined(0, "a cat")])
    assert [type(event) for event in decision.events] == [ImageAdded, CaptionSet]
    assert [file.outcome for file in decision.files] == ["added", "existing"]


# --- versions, jobs, tagging runs


def test_a_version_is_new_only_if_content_or_trigger_changed() -> None:
    first = versions.freeze(content(latest=None), VersionId("ver_1"))
    assert (first.version, first.version_id, first.as_of, first.trigger) == (1, "ver_1", 9, "sks")
    assert (first.images, first.pages) == (2, (digest("a"),))
    assert versions.freeze(content(latest=first), VersionId("ver_2")) is first
    assert versions.freeze(content(trigger="", latest=first), VersionId("ver_2")).version == 2
    assert versions.freeze(content("b", latest=first), VersionId("ver_2")).version == 2


def content(page: str = "a", trigger: str = "sks", *, latest: VersionFrozen | None) -> FrozenContent:
    root = manifest.build_root(TextSettingsSet(trigger=trigger), [ManifestPage(first=0, images=2, digest=digest(page))])
    return FrozenContent(root=root, manifest=digest_of(manifest.encode_root(root)), as_of=9, latest=latest)


def test_no_job_starts_on_a_version_with_erased_images() -> None:
    draft = JobState(work=Work(state="draft"), version=2)
    assert jobs.decide(draft, StartJob(job=JobId("job_1"))) == [JobQueued(priority="normal")]
    with pytest.raises(Rejected, match="3 of the images of version 2 were erased"):
        jobs.decide(JobState(work=Work(state="draft"), version=2, erased_images=3), StartJob(job=JobId("job_1")))
    running = JobState(work=Work(state="running"), version=2, erased_images=3)
    assert jobs.decide(running, StartJob(job=JobId("job_1"))) == []


def test_a_tagging_run_covers_all_images_or_only_those_new_to_the_model() -> None:
    def request(*, only_new: bool, ordinals: list[int]) -> list[object]:
        command = RequestTagging(dataset="cats", model="demo", only_new=only_new, priority="high")
        found = tagging.request(
            command, dataset_id=DatasetId("ds_cats"), dataset="cats", images=BitMap(ordinals), covered=[0, 1]
        )
        return [*found]

    requested, queued = request(only_new=True, ordinals=[0, 1, 2])
    assert isinstance(requested, TaggingRequested)
    assert (requested.images, requested.count, queued) == (bitmap(2), 1, TaggingQueued(priority="high"))
    whole, _ = request(only_new=False, ordinals=[0, 1])
    assert isinstance(whole, TaggingRequested)
    assert whole.count == 2
    for ordinals, message in (([], "is empty"), ([0, 1], "has covered every image")):
        with pytest.raises(Rejected, match=message):
            request(only_new=True, ordinals=ordinals)
