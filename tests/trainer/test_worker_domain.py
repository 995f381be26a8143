"""What the trainer folds from a job's history, metadata and names of its files, and the folder of finished LoRAs."""

import hashlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.aggregates import AnyEvent
from contracts.errors import LogDamaged
from contracts.events.jobs import (
    Artifact,
    JobCheckpointed,
    JobCreated,
    JobEdited,
    JobSampled,
    JobStartRequested,
    JobSucceeded,
    JobVersionSet,
)
from contracts.ids import DatasetId, Digest, ImageId, VersionId
from contracts.queries.datasets import ManifestEntry
from contracts.recipe import FolderBase, Recipe
from contracts.wire.blobs.store import LocalBlobs
from trainer.adapter_metadata import build_metadata, safe_file_stem
from trainer.domain import JobState, fold
from trainer.lora_folder import LoraFolder


def job_created(name: str = "My cat!", base: str | None = None) -> JobCreated:
    return JobCreated(
        name=name,
        mode="single",
        dataset_id=DatasetId("ds_1"),
        dataset="cats",
        recipe=Recipe() if base is None else Recipe(base=FolderBase(path=base)),
        trigger="sks",
    )


VERSION_SET = JobVersionSet(version=3, version_id=VersionId("ver_1"), manifest=Digest("0" * 64), images=2)


def checkpointed(step: int, attempt: int = 1, checkpoint: str = "0") -> JobCheckpointed:
    return JobCheckpointed(attempt=attempt, step=step, checkpoint=Digest(checkpoint * 64), size=1)


def history_of(*events: AnyEvent) -> list[tuple[AnyEvent, int]]:
    return [(event, sequence) for sequence, event in enumerate(events, start=5)]


def entry(ordinal: int, caption: str) -> ManifestEntry:
    return ManifestEntry(
        ordinal=ordinal,
        image=ImageId(f"img_{ordinal}"),
        picture=Digest("0" * 64),
        caption=caption,
        width=64,
        height=64,
    )


def test_a_new_job_is_its_request_with_the_sequence_of_that_event() -> None:
    assert fold(history_of(job_created(), VERSION_SET)) == JobState(job_created(), VERSION_SET, 6, "My cat!")


def test_a_version_that_was_frozen_later_is_the_one_that_is_trained_on() -> None:
    job = fold(history_of(job_created(), JobStartRequested(), JobEdited(name="Renamed"), VERSION_SET))
    assert (job.version, job.version_set_at, job.name) == (VERSION_SET, 8, "Renamed")
    with pytest.raises(LogDamaged, match="lacks its version"):
        fold(history_of(job_created()))


def test_a_history_without_a_request_is_refused() -> None:
    with pytest.raises(LogDamaged, match="does not begin with its creation"):
        fold(history_of(checkpointed(10), job_created()))


def test_checkpoints_come_newest_first_and_a_later_attempt_replaces_earlier_ones() -> None:
    events = checkpointed(10), checkpointed(20), checkpointed(10, attempt=2, checkpoint="1")
    job = fold(history_of(job_created(), VERSION_SET, *events))
    assert [(event.step, event.attempt) for event in job.checkpoints] == [(20, 1), (10, 2)]


def test_recorded_samples_are_identified_by_step_and_index() -> None:
    sample = JobSampled(attempt=1, step=10, index=2, picture=Digest("0" * 64), seed=0)
    assert fold(history_of(job_created(), VERSION_SET, sample)).samples == {(10, 2)}


def test_only_a_job_that_succeeded_has_artifacts() -> None:
    artifact = Artifact(name="x", format="kohya", digest=Digest("0" * 64), size=1, tensors=Digest("0" * 64))
    history = history_of(job_created(), VERSION_SET, JobSucceeded(attempt=1, step=10, artifacts=(artifact,)))
    assert fold(history).artifacts == (artifact,)
    assert fold(history[:2]).artifacts == ()


def test_the_published_file_has_the_current_name_but_its_metadata_the_original_one() -> None:
    job = fold(history_of(job_created(), VERSION_SET, JobEdited(name="Renamed"), JobEdited(description="no name here")))
    assert job.name == "Renamed"
    written = msgspec.structs.replace(entry(2, "sks, my neighbour"), written=True)  # private: not in the file
    metadata = build_metadata("job_1", job.request, 3, [entry(0, "sks, cat"), entry(1, "sks"), written])
    assert (metadata.adapter_name, metadata.dataset_version, metadata.trigger) == ("My-cat", 3, "sks")
    assert metadata.tag_frequency == {1: {"sks": 2, "cat": 1}}


@pytest.mark.parametrize(("path", "name"), [("sd15", "sd15"), ("/models/sd15/", "sd15"), ("C:\\models\\sd15", "sd15")])
def test_the_metadata_has_the_folder_name_of_a_base_and_not_its_path(path: str, name: str) -> None:
    assert build_metadata("job_1", job_created(base=path), 1, []).base_name == name


@given(st.text(max_size=120))
def test_any_name_becomes_a_valid_file_name(name: str) -> None:
    stem = safe_file_stem(name)
    assert 0 < len(stem) <= 80
    assert not set(stem) & set('/\\:*?"<>|\0 ')
    assert stem.strip(".-_ ") == stem
    assert safe_file_stem(stem) == stem


async def store_artifact(blobs: LocalBlobs, content: bytes, form: str = "kohya") -> Artifact:
    digest = await blobs.put(content)
    return Artifact(name="x", format=form, digest=digest, size=len(content), tensors=digest)


async def test_finished_files_are_published_under_their_names(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    lora_folder = LoraFolder(tmp_path / "loras", blobs)
    both = (await store_artifact(blobs, b"kohya"), await store_artifact(blobs, b"diffusers", "diffusers"))
    paths = await lora_folder.publish("cat", "job_ABCDEF", both)
    assert [path.name for path in paths] == ["cat.safetensors", "cat-diffusers.safetensors"]
    assert [path.read_bytes() for path in paths] == [b"kohya", b"diffusers"]
    assert await lora_folder.publish("cat", "job_ABCDEF", both) == paths
    assert len(list((tmp_path / "loras").iterdir())) == 2


async def test_another_jobs_file_of_the_same_name_is_not_overwritten(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    lora_folder = LoraFolder(tmp_path / "loras", blobs)
    await lora_folder.publish("cat", "job_1", (await store_artifact(blobs, b"first"),))
    (second,) = await lora_folder.publish("cat", "job_ABCDEF", (await store_artifact(blobs, b"second"),))
    assert second.name == "cat-abcdef.safetensors"
    assert (tmp_path / "loras" / "cat.safetensors").read_bytes() == b"first"
    assert hashlib.sha256(second.read_bytes()).digest() == hashlib.sha256(b"second").digest()
