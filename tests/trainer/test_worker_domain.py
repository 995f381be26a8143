"""What an attempt starts from, what its file says of itself, how it is called; and where the finished ones lie."""

import hashlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.events import AnyFact, Artifact, JobCheckpointed, JobCreated, JobEdited, JobSampled
from contracts.ids import DatasetId, Digest, ImageId, VersionId
from contracts.queries import ManifestEntry
from contracts.recipe import FolderBase, Recipe
from contracts.wire.blobs import LocalBlobs
from trainer import domain
from trainer.shelf import Shelf


def created(name: str = "My cat!", base: str | None = None) -> JobCreated:
    return JobCreated(
        name=name,
        mode="single",
        dataset_id=DatasetId("ds_1"),
        dataset="cats",
        version=3,
        version_id=VersionId("ver_1"),
        manifest=Digest("0" * 64),
        images=2,
        recipe=Recipe() if base is None else Recipe(base=FolderBase(path=base)),
        trigger="sks",
    )


def kept(step: int, attempt: int = 1, checkpoint: str = "0") -> JobCheckpointed:
    return JobCheckpointed(attempt=attempt, step=step, checkpoint=Digest(checkpoint * 64), size=1)


def told(*facts: AnyFact) -> list[tuple[AnyFact, int]]:
    return [(fact, sequence) for sequence, fact in enumerate(facts, start=5)]


def entry(ordinal: int, caption: str) -> ManifestEntry:
    return ManifestEntry(
        ordinal=ordinal,
        image=ImageId(f"img_{ordinal}"),
        picture=Digest("0" * 64),
        caption=caption,
        width=64,
        height=64,
    )


def test_what_was_asked_is_found_with_its_place() -> None:
    assert domain.created(told(created(), kept(1))) == (created(), 5)


def test_checkpoints_come_newest_first_and_a_later_attempt_replaces() -> None:
    history = told(kept(10), kept(20), kept(10, attempt=2, checkpoint="1"))
    assert [(one.step, one.attempt) for one in domain.checkpoints(history)] == [(20, 1), (10, 2)]


def test_samples_that_are_kept_are_known_by_step_and_number() -> None:
    sample = JobSampled(attempt=1, step=10, index=2, picture=Digest("0" * 64), seed=0)
    assert domain.sampled(told(sample)) == {(10, 2)}


def test_the_file_on_the_shelf_has_the_newest_name_but_its_bytes_the_first() -> None:
    history = told(created(), JobEdited(name="Renamed"), JobEdited(description="no name here"))
    assert domain.name_of(history) == "Renamed"
    written = msgspec.structs.replace(entry(2, "sks, my neighbour"), written=True)  # private: it stays out of the file
    facts = domain.facts_for("job_1", created(), [entry(0, "sks, cat"), entry(1, "sks"), written])
    assert (facts.adapter_name, facts.dataset_version, facts.trigger) == ("My-cat", 3, "sks")
    assert facts.tag_frequency == {"sks": 2, "cat": 1}


@pytest.mark.parametrize(("path", "name"), [("sd15", "sd15"), ("/models/sd15/", "sd15"), ("C:\\models\\sd15", "sd15")])
def test_a_base_is_called_by_its_folder_and_where_it_lies_is_not_told(path: str, name: str) -> None:
    assert domain.facts_for("job_1", created(base=path), []).base_name == name


@given(st.text(max_size=120))
def test_any_name_becomes_one_that_file_systems_take(name: str) -> None:
    stem = domain.file_stem(name)
    assert 0 < len(stem) <= 80
    assert not set(stem) & set('/\\:*?"<>|\0 ')
    assert stem.strip(".-_ ") == stem
    assert domain.file_stem(stem) == stem


async def finished(blobs: LocalBlobs, content: bytes, form: str = "kohya") -> Artifact:
    digest = await blobs.put(content)
    return Artifact(name="x", format=form, digest=digest, size=len(content), tensors=digest)


async def test_finished_files_lie_whole_under_their_names(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    shelf = Shelf(tmp_path / "loras", blobs)
    both = (await finished(blobs, b"kohya"), await finished(blobs, b"diffusers", "diffusers"))
    paths = await shelf.publish("cat", "job_ABCDEF", both)
    assert [path.name for path in paths] == ["cat.safetensors", "cat-diffusers.safetensors"]
    assert [path.read_bytes() for path in paths] == [b"kohya", b"diffusers"]
    assert await shelf.publish("cat", "job_ABCDEF", both) == paths
    assert len(list((tmp_path / "loras").iterdir())) == 2


async def test_another_jobs_file_of_the_same_name_is_not_written_over(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    shelf = Shelf(tmp_path / "loras", blobs)
    await shelf.publish("cat", "job_1", (await finished(blobs, b"first"),))
    (second,) = await shelf.publish("cat", "job_ABCDEF", (await finished(blobs, b"second"),))
    assert second.name == "cat-abcdef.safetensors"
    assert (tmp_path / "loras" / "cat.safetensors").read_bytes() == b"first"
    assert hashlib.sha256(second.read_bytes()).digest() == hashlib.sha256(b"second").digest()
