"""Which blobs and keys must be there: the same by a fold over commits and by the rows of the read model."""

import random
import sqlite3
from contextlib import closing
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog import views
from catalog.domain.image_sets import image_set, with_bitmaps
from catalog.domain.live_blobs import NAMING_EVENTS, BlobReference, LiveBlobs, blobs_named_by
from catalog.views import live_blobs
from catalog.views.losses import accepted_blobs, accepted_keys
from catalog.watch.presence import scan
from contracts.aggregates import REGISTRY
from contracts.commits import RecordedCommit
from contracts.events.datasets import (
    CommitsUndone,
    DatasetErased,
    DatasetRemoved,
    ImageErased,
    ImageRefused,
    ImagesRemoved,
    MaskSet,
    TagsEdited,
    VersionFrozen,
)
from contracts.events.image_sets import ImageSet
from contracts.events.jobs import Artifact, JobCheckpointed, JobQueued, JobSampled, JobSucceeded
from contracts.events.log import LossAccepted
from contracts.events.tagging import TaggingQueued, TaggingRequested
from contracts.ids import DatasetId, Digest, ImageId, VersionId
from contracts.sealed import seal
from tests.catalog.log_builder import (
    LogBuilder,
    bitmap,
    digest,
    full_history,
    image_added,
    image_id,
    job_created,
    key_for,
    version_set,
)
from tests.contracts.samples import sample_of

NOT_BLOBS = {
    ("dataset.image_added", "pixels"),
    ("dataset.image_added", "source"),  # of the sample, which has `cut`
    ("job.planned", "base"),
    ("job.succeeded", "artifacts.tensors"),
    ("tagging.model_loaded", "model"),
    ("tagging.model_loaded", "tags"),
    ("log.loss_accepted", "blobs"),
}
"""Fields that hold digests of something else: of pixels, of files that no blob is, or blobs that are gone."""


def by_fold(commits: list[RecordedCommit]) -> tuple[list[BlobReference], set[ImageId]]:
    live = LiveBlobs()
    live.apply(commits)
    return sorted(live.references(), key=str), live.keys()


def by_rows(commits: list[RecordedCommit], batch: int) -> tuple[list[BlobReference], set[ImageId]]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        connection.executescript(views.TABLES)
        for start in range(0, len(commits), batch):
            views.apply(connection, commits[start : start + batch])
        return sorted(live_blobs.references(connection), key=str), live_blobs.key_images(connection)


def test_the_rows_of_a_full_history_say_the_same_as_a_fold() -> None:
    commits = full_history().commits
    references, keys = by_fold(commits)
    assert (references, keys) == by_rows(commits, len(commits))
    assert {reference.kind for reference in references} == {
        *("source", "picture", "thumbnail", "mask", "manifest"),
        *("checkpoint", "sample", "artifact"),
    }
    assert image_id("ds_erased", 0) not in {reference.owner for reference in references} | keys
    assert image_id("ds_gone", 0) in keys  # removed, not erased


class Story:
    """A log that grows by random commits of all kinds that name, release or give up blobs."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.builder = LogBuilder()
        self.images: dict[str, list[int]] = {"ds_a": [], "ds_b": []}
        self.numbers = {"ds_a": 0, "ds_b": 0}
        for dataset in self.images:
            self.builder.create_dataset(dataset, dataset)
        self.builder.append("job", "job_1", job_created(), version_set(), JobQueued(priority="normal"))

    def some_digest(self) -> Digest:
        return digest(f"shared {self.rng.randrange(6)}")

    def step(self) -> None:
        dataset = self.rng.choice(list(self.images))
        choices = (
            *(self.add, self.add, self.refuse, self.remove, self.erase, self.freeze, self.job, self.accept),
            *(self.edit, self.tag, self.mask),
        )
        self.rng.choice(choices)(dataset)
        if self.rng.random() < 0.02:
            self.builder.append("dataset", dataset, self.rng.choice([DatasetRemoved(), DatasetErased()]))
            if isinstance(self.builder.commits[-1].commit.events[0], DatasetErased):
                self.images[dataset].clear()

    def add(self, dataset: str) -> None:
        ordinal = self.numbers[dataset]
        self.numbers[dataset] += 1
        self.images[dataset].append(ordinal)
        source, picture = self.some_digest(), self.some_digest()
        cut = self.some_digest() if self.rng.random() < 0.3 else None
        added = msgspec.structs.replace(image_added(dataset, ordinal), source=source, picture=picture, cut=cut)
        self.builder.append("dataset", dataset, added)

    def mask(self, dataset: str) -> None:
        if self.images[dataset]:
            ordinal = self.rng.choice(self.images[dataset])
            masks = [self.some_digest() for _ in range(self.rng.randrange(1, 3))]
            events = [MaskSet(ordinal=ordinal, mask=mask) for mask in (*masks, None)[: self.rng.randrange(1, 4)]]
            self.builder.append("dataset", dataset, *events)

    def refuse(self, dataset: str) -> None:
        image = ImageId(f"img_bad_{self.builder.sequence}")
        name = seal(key_for(image), "bad.png", "name")
        refused = ImageRefused(image_id=image, name=name, reason="broken", detail="it is broken", size=7)
        self.builder.append("dataset", dataset, refused)

    def remove(self, dataset: str) -> None:
        if self.images[dataset]:
            self.builder.append("dataset", dataset, ImagesRemoved(images=bitmap(self.rng.choice(self.images[dataset]))))

    def erase(self, dataset: str) -> None:
        if self.images[dataset]:
            ordinal = self.images[dataset].pop(self.rng.randrange(len(self.images[dataset])))
            erased = ImageErased(ordinal=ordinal, image_id=image_id(dataset, ordinal))
            self.builder.append("dataset", dataset, erased)

    def freeze(self, dataset: str) -> None:
        number = self.builder.sequence
        frozen = VersionFrozen(
            version=number,
            version_id=VersionId(f"v{number}"),
            as_of=number,
            images=1,
            manifest=self.some_digest(),
            pages=(self.some_digest(), self.some_digest()),
        )
        self.builder.append("dataset", dataset, frozen)

    def edit(self, dataset: str) -> None:
        event = self.rng.choice([TagsEdited, ImagesRemoved, CommitsUndone])
        self.builder.append("dataset", dataset, event(images=ImageSet(count=9, blob=self.some_digest())))
        self._read_set()

    def tag(self, dataset: str) -> None:
        images = ImageSet(count=9, blob=self.some_digest())
        requested = TaggingRequested(dataset_id=DatasetId(dataset), dataset="x", model="wd", images=images, count=9)
        self.builder.append("tagging", f"run_{self.builder.sequence}", requested, TaggingQueued(priority="normal"))
        self._read_set()

    def _read_set(self) -> None:
        self.builder.commits[-1] = with_bitmaps(self.builder.commits[-1], lambda _: image_set(range(9)).bitmap)

    def job(self, _: str) -> None:
        step, file = self.rng.randrange(3), self.some_digest()
        artifact = Artifact(name="a", format="kohya", digest=file, size=9, tensors=digest("tensors"))
        event: Any = self.rng.choice(
            [
                JobCheckpointed(attempt=1, step=step, checkpoint=self.some_digest(), size=step),
                JobSampled(attempt=1, step=step, index=0, picture=self.some_digest(), seed=1),
                JobSucceeded(attempt=1, step=step, artifacts=(artifact,)),
            ]
        )
        self.builder.append("job", "job_1", event)

    def accept(self, dataset: str) -> None:
        images = tuple(image_id(dataset, ordinal) for ordinal in self.images[dataset][:1])
        self.builder.append(
            "log", f"loss_{self.builder.sequence}", LossAccepted(blobs=(self.some_digest(),), images=images)
        )


@pytest.mark.slow
@given(seed=st.integers(0, 2**32), steps=st.integers(0, 60), batch=st.integers(1, 20))
def test_rows_and_fold_agree_after_any_history(seed: int, steps: int, batch: int) -> None:
    story = Story(seed)
    for _ in range(steps):
        story.step()
    assert by_rows(story.builder.commits, batch) == by_fold(story.builder.commits)


@pytest.mark.parametrize("event_type", [one for kind in REGISTRY.kinds for one in kind.event_types])
def test_every_digest_in_an_event_is_a_known_blob_or_is_listed_as_something_else(event_type: type[Any]) -> None:
    tag = str(event_type.__struct_config__.tag)
    fields = {name for name in digest_fields(event_type) if (tag, name) not in NOT_BLOBS}
    assert len(fields) == len(blobs_named_by(sample_of(event_type), "x"))
    assert bool(fields) == (event_type in NAMING_EVENTS)


def digest_fields(kind: type[Any], path: str = "") -> list[str]:
    """The paths of all fields of a struct, and of the structs in it, that hold digests."""
    found: list[str] = []
    for name, type_ in get_type_hints(kind).items():
        for part in (type_, *get_args(type_)):
            if part is Digest:
                found.append(f"{path}{name}")
            elif isinstance(part, type) and issubclass(part, msgspec.Struct):
                found += digest_fields(part, f"{path}{name}.")
    return found


def test_a_blob_that_is_named_after_its_loss_was_accepted_is_expected_again() -> None:
    builder = LogBuilder()
    builder.create_dataset()
    builder.add_image(0)
    added = image_added("ds_cats", 0)
    builder.append("log", "loss_1", LossAccepted(blobs=(added.source, added.thumbnail), images=(added.image_id,)))
    references, keys = by_fold(builder.commits)
    assert ([reference.kind for reference in references], keys) == (["picture"], set())

    again = msgspec.structs.replace(image_added("ds_cats", 1), source=added.source)
    builder.append("dataset", "ds_cats", again)

    references, keys = by_fold(builder.commits)
    assert [one.owner for one in references if one.digest == added.source] == [added.image_id, again.image_id]
    assert added.thumbnail not in {one.digest for one in references}
    assert keys == {again.image_id}
    assert (references, keys) == by_rows(builder.commits, 1) == by_rows(builder.commits, 100)


def test_an_accepted_loss_says_when_and_why() -> None:
    builder, lost = LogBuilder(), digest("lost")
    builder.append("log", "loss_1", LossAccepted(blobs=(lost,), images=(ImageId("img_1"),), reason="the disk burnt"))
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        connection.executescript(views.TABLES)
        views.apply(connection, builder.commits)
        found = accepted_blobs(connection, [lost, digest("other")])
        keys = accepted_keys(connection, ["img_1", "img_2"])
    assert list(found) == [lost]
    assert list(keys) == ["img_1"]
    assert found[lost].describe() == "lost for good, accepted at 2026-11-21 12:00 UTC: the disk burnt"


def test_a_scan_tells_missing_blobs_from_those_of_another_size() -> None:
    there, shorter, gone, unknown = [
        BlobReference(digest(name), "source", name, size) for name, size in (("a", 1), ("b", 2), ("c", 3), ("d", None))
    ]
    sizes = {bytes.fromhex(one.digest): 1 for one in (there, shorter, unknown)}
    found = scan([there, shorter, gone, unknown], sizes)
    assert (found.count, found.missing, found.resized) == (4, [gone], [shorter])
