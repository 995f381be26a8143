"""Large sets of images lie in blobs: they are stored before the commit, and read wherever the set is needed."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from catalog.accepting import accept_loss, find_lost
from catalog.archive.archive import Archive
from catalog.backups import creation
from catalog.cures import named_cure
from catalog.database import Connection
from catalog.domain.image_sets import (
    MAX_COMMIT_SET_BYTES,
    MAX_SET_BYTES,
    bitmap_of,
    image_set,
    unread_blobs,
    with_bitmaps,
    with_blobs,
)
from catalog.entries import commits_at
from catalog.image_sets import SetReader
from catalog.lookup import require_dataset
from catalog.mending import mend
from catalog.rebuild import rebuild
from catalog.service.execution import Change, CommandOutcome
from catalog.service.locks import Scope
from catalog.settings import Settings
from catalog.views import bulk_history, decisions
from contracts.aggregates import AnyEvent
from contracts.commands.base import CommandMetadata
from contracts.commands.datasets import DatasetResult, Undo
from contracts.commits import COMMIT_BYTES, RecordedCommit, StreamRevision, build_commit, decode, encode_commit
from contracts.cures import cures_in
from contracts.errors import LogDamaged, SetupError
from contracts.events.datasets import ImagesRemoved, TagsEdited
from contracts.events.image_sets import ImageSet, ImageSetEvent
from contracts.ids import CommandId, DatasetId, Digest, ulid
from contracts.queries.datasets import GetDataset
from contracts.queries.log import ListDatasetHistory
from contracts.wire.blobs.store import LocalBlobs
from tests.catalog.harness import CatalogHarness, open_catalog
from tests.catalog.test_restored_erasures import no_curves
from tests.catalog.test_store import all_rows
from tests.conftest import NOW, BusOf

MANY = 100_000


@cache
def some(seed: int, share: float = 0.5, total: int = MANY) -> ImageSet:
    """A part of all images that has no pattern, which makes its bitmap large; image 0 is in it."""
    rng = random.Random(seed)
    return image_set([0, *(ordinal for ordinal in range(1, total) if rng.random() < share)])


def commit_of(events: Sequence[AnyEvent]) -> RecordedCommit:
    metadata = CommandMetadata(command_id=CommandId("c1"), actor="ann", at=NOW)
    commit = build_commit("dataset", "ds_1", events, expected_revision=StreamRevision(), metadata=metadata)
    return decode(1, NOW, encode_commit(commit))


# --- which sets lie in blobs


def test_a_small_set_stays_in_its_event_and_a_large_one_goes_into_a_blob() -> None:
    small, large = ImagesRemoved(images=image_set(range(MANY))), ImagesRemoved(images=some(1))
    assert len(small.images.bitmap) < MAX_SET_BYTES < len(large.images.bitmap)

    recorded, blobs = with_blobs([small, large])

    assert recorded[0] == small
    ((digest, content),) = blobs.items()
    assert recorded[1] == ImagesRemoved(images=ImageSet(count=large.images.count, blob=digest))
    assert content == large.images.bitmap


def test_all_sets_of_a_commit_go_into_blobs_when_they_are_large_together() -> None:
    events = [ImagesRemoved(images=some(seed, 0.03)) for seed in range(20)]
    sizes = [len(event.images.bitmap) for event in events]
    assert max(sizes) < MAX_SET_BYTES
    assert sum(sizes) > MAX_COMMIT_SET_BYTES

    assert len(with_blobs(events)[1]) == len(events)
    assert not with_blobs(events[: MAX_COMMIT_SET_BYTES // max(sizes)])[1]


def test_five_tags_of_images_in_many_states_fit_into_one_commit() -> None:
    """A bulk edit has an event for each set of images whose decisions change in the same way: at most 3^5."""
    tags = tuple(f"tag_{number}" for number in range(5))
    events = [TagsEdited(images=some(seed, 0.4), asserted=tags) for seed in range(16)]
    events += [TagsEdited(images=image_set(range(seed, MANY, 227)), asserted=tags) for seed in range(3**5 - 16)]
    recorded, blobs = with_blobs(events)
    assert sum(map(len, blobs.values())) > COMMIT_BYTES

    read = with_bitmaps(commit_of(recorded), blobs.__getitem__)

    for before, after in zip(events, read.commit.events, strict=True):
        assert isinstance(after, TagsEdited)
        assert bitmap_of(after.images) == bitmap_of(before.images)


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([0.0, 0.05, 0.5])), max_size=8))
def test_what_was_stored_is_what_is_read(choices: list[tuple[int, float]]) -> None:
    events: list[AnyEvent] = [TagsEdited(images=some(*choice, total=70_000), asserted=("cat",)) for choice in choices]
    recorded, blobs = with_blobs(events)
    commit = commit_of(recorded)
    assert unread_blobs(commit) == set(blobs)

    read = with_bitmaps(commit, blobs.__getitem__).commit.events

    sets = [event.images.bitmap for event in read if isinstance(event, ImageSetEvent)]
    assert sets == [event.images.bitmap for event in events if isinstance(event, ImageSetEvent)]


def test_a_set_that_nobody_has_read_is_not_taken_for_an_empty_one() -> None:
    with pytest.raises(LogDamaged, match=r"cannot be read \(blob 00ff"):
        bitmap_of(ImageSet(count=3, blob=Digest("00ff")))


# --- in a catalog


@pytest.fixture
async def cats(harness: CatalogHarness) -> DatasetId:
    return await harness.dataset(pictures=3)


async def record(harness: CatalogHarness, dataset: DatasetId, *events: AnyEvent) -> int:
    """Execute a command with these events; the sequence of its commit."""

    async def decide() -> CommandOutcome:
        row = await harness.executor.store.read(lambda connection: require_dataset(connection, dataset))
        change = Change("dataset", dataset, events, row.revision)
        return CommandOutcome(DatasetResult(id=dataset, name="cats"), [change])

    metadata = CommandMetadata(command_id=CommandId(ulid()), actor="ann", at=datetime.now(UTC))
    return (await harness.executor.execute(metadata, Scope((dataset,)), decide)).sequence


async def recorded_sets(harness: CatalogHarness, sequence: int) -> list[ImageSet]:
    """As recorded in the archive."""
    (recorded,) = await harness.archive.read(lambda log: list(commits_at(log, [sequence])))
    return [event.images for event in recorded.commit.events if isinstance(event, ImageSetEvent)]


async def tags_of(harness: CatalogHarness, dataset: DatasetId) -> tuple[str, ...]:
    def read(connection: Connection) -> tuple[str, ...]:
        return decisions.tag_names(connection, dataset, 0)

    return await harness.executor.store.read(read)


async def run(harness: CatalogHarness, query: Any) -> Any:
    return await harness.catalog.queries[type(query)](query)


async def test_a_large_edit_is_shown_listed_undone_and_found_in_the_past(
    harness: CatalogHarness, cats: DatasetId
) -> None:
    images, more = some(1), some(2)
    edited = await record(
        harness, cats, TagsEdited(images=images, asserted=("cat",)), TagsEdited(images=more, asserted=("dog",))
    )

    sets = await recorded_sets(harness, edited)
    assert [(one.count, one.bitmap) for one in sets] == [(images.count, b""), (more.count, b"")]
    assert [await harness.blobs.get(one.blob or Digest("")) for one in sets] == [images.bitmap, more.bitmap]
    assert await tags_of(harness, cats) == ("cat", "dog")
    found = await harness.executor.store.read(lambda connection: bulk_history.between(connection, cats, ()))
    assert [ordinals for _, ordinals in found] == [bitmap_of(images), bitmap_of(more)]

    history = (await run(harness, ListDatasetHistory(dataset=cats, tag="cat"))).items
    assert history[-1].change["images"]["count"] == images.count
    assert history[-1].change["images"]["ordinals"][0] == 0

    undone = await harness.execute(Undo(dataset=cats, commit=edited))
    assert [one.count for one in await recorded_sets(harness, undone.sequence)] == [
        len(bitmap_of(images) | bitmap_of(more))
    ]
    assert await tags_of(harness, cats) == ()
    sequences = (edited - 1, edited, undone.sequence)
    past = [await run(harness, GetDataset(dataset=cats, at_seq=at)) for at in sequences]
    assert [view.tagged for view in past] == [0, len((bitmap_of(images) | bitmap_of(more)) & BitMap(range(3))), 0]


async def test_a_lost_set_is_stored_again_from_the_read_model(harness: CatalogHarness, cats: DatasetId) -> None:
    edited = await record(harness, cats, TagsEdited(images=some(1), asserted=("cat",)))
    (images,) = await recorded_sets(harness, edited)
    digest = images.blob or Digest("")
    await harness.blobs.delete([digest])

    await harness.catalog.watch.compare()
    assert harness.catalog.watch.report.counts["image-set"] == 1
    assert [loss.owner for loss in harness.catalog.watch.report.first if loss.kind == "image-set"] == [cats]
    await harness.catalog.watch.require_blob(digest)

    assert await harness.blobs.get(digest) == some(1).bitmap


def settings_of(data: Path) -> Settings:
    return Settings(catalog=data / "catalog", blobs=str(data / "blobs"), staging=data / "staging", data=data)


async def workshop_with_a_set(bus_of: BusOf, data: Path) -> tuple[DatasetId, Digest]:
    """A stopped one, with an edit whose set of images lies in a blob: the data set, and that blob."""
    async with open_catalog(await bus_of("catalog"), data) as harness:
        cats = await harness.dataset(pictures=3)
        edited = await record(harness, cats, TagsEdited(images=some(1), asserted=("cat",)))
        (images,) = await recorded_sets(harness, edited)
        return cats, images.blob or Digest("")


async def start(bus_of: BusOf, data: Path, cats: DatasetId) -> tuple[str, ...]:
    """The tags of the first image, once a catalog has started."""
    async with open_catalog(await bus_of("catalog"), data) as harness:
        return await tags_of(harness, cats)


async def read_all(data: Path) -> None:
    """As a catalog that starts without a read model."""
    async with Archive(data / "catalog") as archive:
        entries = await archive.entries(0, 1000)
        await SetReader(archive, [LocalBlobs(data / "blobs")]).read(entries)


def ignore(_line: str) -> None:
    """Progress is not of interest here."""


async def test_rows_are_rebuilt_the_same_from_the_blobs(bus_of: BusOf, tmp_path: Path) -> None:
    cats, _ = await workshop_with_a_set(bus_of, tmp_path)
    folder = tmp_path / "catalog"
    report = rebuild(folder, tmp_path / "again.db", lambda _: None)
    assert (report.state, report.difference) == ("same", None)
    async with open_catalog(await bus_of("catalog"), tmp_path) as harness:
        before = await all_rows(harness.executor.store)
    (folder / "read.db").unlink()

    async with open_catalog(await bus_of("catalog"), tmp_path) as harness:
        after = await all_rows(harness.executor.store)
        assert await tags_of(harness, cats) == ("cat",)
    assert {name: after[name] for name in ("bulk_edit", "set_blob", "tag")} == {
        name: before[name] for name in ("bulk_edit", "set_blob", "tag")
    }


async def test_without_read_model_and_blob_the_cure_is_named_and_a_backup_heals(bus_of: BusOf, tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    cats, digest = await workshop_with_a_set(bus_of, data)
    settings = settings_of(data)
    await creation.create(settings, backup, clock=lambda: NOW, curves=no_curves())
    (data / "catalog" / "read.db").unlink()
    await LocalBlobs(data / "blobs").delete([digest])

    with pytest.raises(LogDamaged, match=digest) as caught, named_cure(settings):
        await read_all(data)
    assert cures_in(str(caught.value)) == [f"loratory restore --data {data} --from {backup}"]

    await mend(settings, at=NOW, report=ignore, backup=backup)
    assert await start(bus_of, data, cats) == ("cat",)


async def test_a_set_of_which_no_copy_exists_can_be_given_up_and_is_empty_then(bus_of: BusOf, tmp_path: Path) -> None:
    cats, digest = await workshop_with_a_set(bus_of, tmp_path)
    settings = settings_of(tmp_path)
    lost_here = LocalBlobs(tmp_path / "blobs")
    await lost_here.delete([blob.digest async for part in lost_here.listing() for blob in part])
    assert digest not in (await find_lost(settings, "blobs", at=NOW)).blobs  # the read model has it
    (tmp_path / "catalog" / "read.db").unlink()
    assert digest in (await find_lost(settings, "blobs", at=NOW)).blobs
    with pytest.raises(LogDamaged, match="is missing or damaged"):
        await read_all(tmp_path)

    await accept_loss(await bus_of("admin"), settings, "blobs", at=NOW, report=ignore)

    with pytest.raises(SetupError, match="no blobs are lost"):
        await find_lost(settings, "blobs", at=NOW)
    assert await start(bus_of, tmp_path, cats) == ()
    assert rebuild(tmp_path / "catalog", tmp_path / "again.db", lambda _: None).state == "same"
    await lost_here.put(some(1).bitmap)  # too late: rows must not depend on when they are built
    (tmp_path / "catalog" / "read.db").unlink()
    assert await start(bus_of, tmp_path, cats) == ()


@pytest.mark.parametrize(
    ("ordinals", "stored"),
    [
        ((*range(10), 70_000, 200_000), "3b300200010000090001000000030000000100000009007011400d"),
        (range(5, 3_000), "3b300000010000b20b01000500b20b"),
    ],
)
def test_sets_are_written_and_read_as_in_format_4(ordinals: Sequence[int], stored: str) -> None:
    """The portable Roaring format with run containers, in events and blobs alike."""
    images = image_set(ordinals)
    assert images.bitmap.hex() == stored
    assert list(bitmap_of(images)) == list(ordinals)
