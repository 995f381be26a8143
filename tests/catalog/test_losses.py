"""What a loss means for that to which it belongs: a named problem, never another sentence; all else works."""

from pathlib import Path
from typing import Any

import pytest

from contracts.commands.base import Command
from contracts.commands.datasets import EditTags, EraseImage, FreezeVersion, RemoveImage, SetCaption
from contracts.commands.jobs import CreateJob, StartJob
from contracts.errors import BlobMissing, Gone, KeyMissing, Lost, NotFound
from contracts.events.jobs import JobCheckpointed, JobSampled
from contracts.events.log import LossAccepted
from contracts.ids import JobId, VersionId
from contracts.queries.datasets import GetImage, GetVersion, ListImages, ReadManifest
from contracts.queries.jobs import GetJob
from contracts.queries.losses import GetBlob
from tests.catalog.harness import CatalogHarness
from tests.catalog.log_builder import digest
from tests.catalog.test_watch import FOLDER, compare, import_picture, lose_keys, query


async def test_what_a_missing_blob_belongs_to_answers_a_named_problem(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    image = await import_picture(harness, cats)
    source = (await harness.image(image)).source
    job = (await harness.create_job(CreateJob(dataset="cats"))).id
    sample, checkpoint = digest("sample"), digest("checkpoint")
    sampled = JobSampled(attempt=1, step=1, index=0, picture=sample, seed=1)
    await harness.append("job", job, sampled, JobCheckpointed(attempt=1, step=1, checkpoint=checkpoint, size=9))
    await harness.blobs.delete([source])

    for blob, kind, owner in ((source, "source", image), (sample, "sample", job), (checkpoint, "checkpoint", job)):
        with pytest.raises(BlobMissing, match=f"the {kind} of {owner} is missing .*loratory restore --from") as caught:
            await query(harness, GetBlob(blob=blob))
        assert caught.value.extra == {"kind": kind, "blob": blob, "owner": owner}
    with pytest.raises(NotFound, match="nothing names"):
        await query(harness, GetBlob(blob=digest("never")))
    assert await compare(harness) == {"source": 1, "picture": 1, "sample": 1, "checkpoint": 1}
    # All else works.
    assert (await query(harness, GetImage(image=image))).caption == "caption 1"
    await harness.execute(EditTags(image=image, add=("cat",)))


@pytest.mark.slow
async def test_no_job_is_created_or_started_on_a_missing_picture(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    lost, _ = [await import_picture(harness, cats, colour) for colour in (1, 2)]
    await harness.execute(FreezeVersion(dataset="cats"))
    draft = (await harness.execute(CreateJob(dataset="cats", version=1, start=False))).id
    picture = (await harness.image(lost)).picture
    await harness.blobs.delete([picture])
    await compare(harness)

    for command in (CreateJob(dataset="cats", version=1), StartJob(job=JobId(draft))):
        with pytest.raises(BlobMissing, match=f"pictures of 1 images of version 1 are missing.* is that of {lost}"):
            await harness.execute(command)
    failed = await harness.execute(CreateJob(dataset="cats"))
    row = await harness.wait_until_frozen(failed.id)
    assert (row.work.state, row.error_code) == ("failed", "blob-missing")
    assert f"pictures of 1 images of version 1 are missing, the first is that of {lost}" in (row.error or "")
    await harness.execute(RemoveImage(image=lost))
    created = await harness.create_job(CreateJob(dataset="cats"))
    assert (await harness.version_of(created.id)).version == 2

    await harness.append("log", "loss_1", LossAccepted(blobs=(picture,), reason="no backup"))
    await compare(harness)
    for command in (CreateJob(dataset="cats", version=1), StartJob(job=JobId(draft))):
        with pytest.raises(Lost, match=r"a picture of version 1 is lost for good, accepted at .*: no backup"):
            await harness.execute(command)


async def test_an_image_whose_key_is_lost_is_not_called_erased(harness: CatalogHarness, tmp_path: Path) -> None:
    cats = await harness.dataset()
    lost, removed = [await import_picture(harness, cats, colour) for colour in (1, 2)]
    await harness.execute(RemoveImage(image=removed))
    version = (await harness.execute(FreezeVersion(dataset="cats"))).version
    lose_keys(tmp_path / FOLDER)
    await compare(harness)

    with pytest.raises(KeyMissing, match=f"the key of image {lost} is missing, so file name and caption"):
        await query(harness, GetImage(image=lost))
    commands: tuple[Command[Any], ...] = (
        SetCaption(image=lost, caption="new"),
        FreezeVersion(dataset="cats"),
        CreateJob(dataset="cats", version=version),
    )
    for command in commands:
        with pytest.raises(KeyMissing):
            await harness.execute(command)
    row = await harness.wait_until_frozen((await harness.execute(CreateJob(dataset="cats"))).id)
    assert (row.work.state, row.error_code) == ("failed", "key-missing")
    assert f"the key of image {lost} is missing" in (row.error or "")
    (view,) = (await query(harness, ListImages())).items
    assert (view.id, view.name, view.erased, view.key_missing) == (lost, "", False, True)
    await harness.execute(EditTags(image=lost, add=("cat",)))
    await harness.execute(EraseImage(image=lost))
    with pytest.raises(Gone, match="erased for good"):
        await query(harness, GetImage(image=lost))


@pytest.mark.slow
async def test_a_caption_whose_key_is_lost_is_not_trained_as_an_empty_one(
    harness: CatalogHarness, tmp_path: Path
) -> None:
    cats = await harness.dataset()
    image = await import_picture(harness, cats)
    frozen = await harness.execute(FreezeVersion(dataset="cats"))
    lose_keys(tmp_path / FOLDER)

    with pytest.raises(KeyMissing, match=image):
        await query(harness, ReadManifest(version_id=VersionId(frozen.id)))
    await harness.append("log", "loss_1", LossAccepted(images=(image,)))
    with pytest.raises(Lost, match=f"the key of image {image} is lost for good"):
        await query(harness, ReadManifest(version_id=VersionId(frozen.id)))


@pytest.mark.slow
async def test_an_image_whose_key_was_given_up_is_frozen_and_trained_with_its_tags(
    harness: CatalogHarness, tmp_path: Path
) -> None:
    cats = await harness.dataset()
    lost, removed, bare = [await import_picture(harness, cats, colour) for colour in (1, 2, 3)]
    await harness.execute(EditTags(image=lost, add=("cat", "sky")))
    await harness.execute(SetCaption(image=bare, caption=None))
    await harness.execute(RemoveImage(image=removed))
    await harness.execute(FreezeVersion(dataset="cats", trigger="sks"))
    lose_keys(tmp_path / FOLDER)
    kept = await import_picture(harness, cats, 4)
    await harness.append("log", "loss_1", LossAccepted(images=(lost, bare, removed)))

    # What version 1 says cannot be read any more, and is not trained as anything else.
    with pytest.raises(Lost, match=r"version 1 is lost for good.*freeze the data set again"):
        await harness.execute(CreateJob(dataset="cats", version=1, start=True))
    job = (await harness.create_job(CreateJob(dataset="cats", trigger="sks", start=True))).id
    view = await query(harness, GetJob(job=JobId(job)))
    assert (view.phase, view.version, view.images, view.captions_lost) == ("queued", 2, 3, 1)
    version = await query(harness, GetVersion(dataset="cats", version=2))
    assert (version.captions_lost, version.erased) == (1, 0)
    entries = (await query(harness, ReadManifest(version_id=version.version_id))).items
    assert [(entry.image, entry.caption, entry.written, entry.caption_lost) for entry in entries] == [
        (lost, "sks, cat, sky", False, True),
        (bare, "sks", False, False),
        (kept, "sks, caption 4", True, False),
    ]
    # Unchanged is unchanged; and what a version lacks is what it lacked when it was frozen.
    assert not (await harness.execute(FreezeVersion(dataset="cats", trigger="sks"))).changed
    await harness.execute(RemoveImage(image=lost))
    await harness.execute(FreezeVersion(dataset="cats"))
    assert [
        (await query(harness, GetVersion(dataset="cats", version=number))).captions_lost for number in (1, 2, 3)
    ] == [0, 1, 0]


@pytest.mark.slow
async def test_a_version_from_before_keys_were_given_up_is_frozen_anew_though_nothing_changed(
    harness: CatalogHarness, tmp_path: Path
) -> None:
    cats = await harness.dataset()
    bare = await import_picture(harness, cats)
    await harness.execute(SetCaption(image=bare, caption=None))
    await harness.execute(FreezeVersion(dataset="cats"))
    lose_keys(tmp_path / FOLDER)
    await harness.append("log", "loss_1", LossAccepted(images=(bare,)))
    second = await harness.execute(FreezeVersion(dataset="cats"))
    manifests = [(await query(harness, GetVersion(dataset="cats", version=number))).manifest for number in (1, 2)]
    assert (second.changed, second.version, manifests[0] == manifests[1]) == (True, 2, True)
    created = await harness.create_job(CreateJob(dataset="cats", start=True))
    assert (await harness.version_of(created.id)).version == 2
    assert (await query(harness, GetJob(job=JobId(created.id)))).phase == "queued"


async def test_a_missing_manifest_is_named(harness: CatalogHarness) -> None:
    cats = await harness.dataset()
    await import_picture(harness, cats)
    frozen = await harness.execute(FreezeVersion(dataset="cats"))
    assert await compare(harness) == {}
    stored = {blob.digest async for part in harness.blobs.listing() for blob in part}
    row = await harness.image((await query(harness, ListImages())).items[0].id)
    root = (await query(harness, GetVersion(dataset="cats", version=1))).manifest
    (page,) = stored - {row.source, row.picture, row.thumbnail, root}
    for missing in (root, page):
        content = await harness.blobs.get(missing)
        await harness.blobs.delete([missing])
        with pytest.raises(BlobMissing, match=f"the manifest of {frozen.id} is missing"):
            await query(harness, ReadManifest(version_id=VersionId(frozen.id)))
        await harness.blobs.put(content)


# --- given up


@pytest.mark.slow
async def test_what_was_given_up_is_not_missing_any_more_and_says_so(harness: CatalogHarness, tmp_path: Path) -> None:
    cats = await harness.dataset()
    image = await import_picture(harness, cats)
    row = await harness.image(image)
    await harness.blobs.delete([row.source])
    lose_keys(tmp_path / FOLDER)
    assert await compare(harness) == {"source": 1, "picture": 1, "key": 1}

    accepted = LossAccepted(blobs=(row.source,), images=(image,), reason="the disk burnt")
    await harness.append("log", "loss_1", accepted)

    assert await compare(harness) == {}
    with pytest.raises(Lost, match=rf"the source of {image} is lost for good, accepted at .* UTC: the disk burnt"):
        await query(harness, GetBlob(blob=row.source))
    view = await query(harness, GetImage(image=image))
    assert (view.name, view.erased, view.key_missing) == ("", False, True)
    with pytest.raises(Lost, match=f"the key of image {image} is lost for good"):
        await harness.execute(SetCaption(image=image, caption="new"))
    again = await import_picture(harness, await harness.dataset("dogs"))
    assert (await harness.image(again)).source == row.source
    await harness.blobs.delete([row.source])
    assert await compare(harness) == {"source": 2, "picture": 2}
