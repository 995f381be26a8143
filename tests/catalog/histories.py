"""Histories made by hand: commits as the log would hold them, of every kind of fact."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from pyroaring import BitMap

from catalog.domain import manifest
from catalog.domain.manifest import ManifestLine
from contracts import events as e
from contracts.commands import Origin, Receipt
from contracts.events import AnyFact, Prediction, Stored
from contracts.ids import CommandId, DatasetId, Digest, ImageId, VersionId, WorkerId
from contracts.recipe import Recipe, Sampling
from contracts.sealed import seal
from contracts.subjects import Kind
from contracts.wire.log import Head, decode, draw_up, head_of

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
LOG_ID = "01JLOG"


def digest(text: str) -> Digest:
    return Digest(hashlib.sha256(text.encode()).hexdigest())


def bitmap(*ordinals: int) -> bytes:
    return bytes(BitMap(ordinals).serialize())


def key_for(image: str) -> bytes:
    """The key of an image in these histories; real ones are random."""
    return hashlib.sha256(f"key of {image}".encode()).digest()


def image_id(dataset: str, ordinal: int) -> ImageId:
    return ImageId(f"img_{dataset}_{ordinal}")


class Scribe:
    """Writes a log: each call is one commit, sequences and heads follow by themselves."""

    def __init__(self) -> None:
        self.commits: list[Stored] = []
        self.heads: dict[tuple[str, str], Head] = {}
        self.write("log", LOG_ID, e.LogCreated(log_id=LOG_ID, format=1))

    @property
    def sequence(self) -> int:
        return len(self.commits)

    def write(
        self,
        kind: Kind,
        thing: str,
        *facts: AnyFact,
        command: str | None = None,
        fingerprint: str = "",
        answer: object = None,
        actor: str = "user:ann",
    ) -> Stored:
        sequence = self.sequence + 1
        at = START + timedelta(seconds=sequence)
        origin = Origin(command=CommandId(command or f"c{sequence}"), actor=actor, at=at, fingerprint=fingerprint)
        head = self.heads.get((kind, thing), Head())
        commit = draw_up(kind, thing, facts, after=head, origin=origin, answer=answer)
        stored = decode(sequence, at + timedelta(microseconds=123456), msgspec.json.encode(commit))
        self.heads[kind, thing] = head_of(stored)
        self.commits.append(stored)
        return stored

    def dataset(self, dataset: str = "ds_cats", name: str = "cats") -> Stored:
        answer = Receipt(id=dataset, name=name)
        return self.write("dataset", dataset, e.DatasetCreated(name=name), fingerprint="f", answer=answer)

    def image(self, ordinal: int, dataset: str = "ds_cats", tags: Sequence[str] = ()) -> Stored:
        added = image_added(dataset, ordinal)
        edited = e.TagsEdited(images=bitmap(ordinal), asserted=tuple(tags), source="import")
        return self.write("dataset", dataset, added, *([edited] if tags else []))

    def edit(
        self, *ordinals: int, add: Sequence[str] = (), remove: Sequence[str] = (), dataset: str = "ds_cats"
    ) -> Stored:
        fact = e.TagsEdited(images=bitmap(*ordinals), asserted=tuple(add), rejected=tuple(remove))
        return self.write("dataset", dataset, fact)

    def run(self, run: str, *ordinals: int, model: str = "wd", dataset: str = "ds_cats") -> int:
        """A tagging run is asked for, queued and begun; the number of its attempt."""
        asked = e.TaggingRequested(
            dataset_id=DatasetId(dataset), dataset="cats", model=model, images=bitmap(*ordinals), count=len(ordinals)
        )
        self.write("tagging", run, asked, e.TaggingQueued(priority="normal"))
        started = e.TaggingAttemptStarted(worker=WorkerId("t1"), boot="b", resumes=0)
        return self.write("tagging", run, started, actor="svc:tagger/t1").sequence

    def see(self, run: str, attempt: int, ordinal: int, *seen: tuple[str, float] | tuple[str, float, str]) -> Stored:
        predictions = tuple(
            Prediction(tag=one[0], probability=one[1], category=one[2] if len(one) > 2 else "general")  # type: ignore[arg-type]
            for one in seen
        )
        images = (e.ImagePredictions(ordinal=ordinal, predictions=predictions),)
        return self.write("tagging", run, e.TaggingPredicted(attempt=attempt, images=images), actor="svc:tagger/t1")


def image_added(dataset: str, ordinal: int) -> e.ImageAdded:
    image = image_id(dataset, ordinal)
    return e.ImageAdded(
        ordinal=ordinal,
        image_id=image,
        source=digest(f"source {image}"),
        picture=digest(f"picture {image}"),
        thumbnail=digest(f"thumbnail {image}"),
        pixels=digest(f"pixels {image}"),
        dhash="00ff00ff00ff00ff",
        format="PNG",
        width=640,
        height=480,
        size=1234 + ordinal,
        name=seal(key_for(image), f"cat {ordinal}.png", "name"),
    )


def manifest_of(dataset: str, *ordinals: int) -> bytes:
    return manifest.encode(
        [
            ManifestLine(
                ordinal=ordinal,
                image=image_id(dataset, ordinal),
                picture=digest(f"picture {image_id(dataset, ordinal)}"),
                caption=seal(key_for(image_id(dataset, ordinal)), f"caption {ordinal}", "caption"),
                width=640,
                height=480,
            )
            for ordinal in ordinals
        ]
    )


def job_created(*, name: str = "a cat", prompts: tuple[str, ...] = ("a cat",), content: bytes = b"") -> e.JobCreated:
    return e.JobCreated(
        name=name,
        mode="single",
        dataset_id=DatasetId("ds_cats"),
        dataset="cats",
        version=1,
        version_id=VersionId("ver_1"),
        manifest=Digest(hashlib.sha256(content).hexdigest()),
        images=2,
        recipe=Recipe(sampling=Sampling(prompts=prompts)),
        preset="quick",
    )


def everything() -> Scribe:
    """A history in which every kind of fact stands at least once."""
    scribe = Scribe()
    _curated(scribe)
    _tagged(scribe)
    _frozen_and_trained(scribe)
    _ended(scribe)
    scribe.write("preset", "pre_1", e.PresetSaved(name="mine", recipe=Recipe(), parent="quick", description="my own"))
    scribe.write("preset", "pre_2", e.PresetSaved(name="old", recipe=Recipe()))
    scribe.write("preset", "pre_2", e.PresetRetired())
    scribe.dataset("ds_gone", "gone")
    scribe.image(0, "ds_gone", ["lost"])
    scribe.write("dataset", "ds_gone", e.DatasetRemoved())
    scribe.write("log", "void-1", e.LogVoided(reason="no copy had it"))
    scribe.write("log", "01JAGAIN", e.LogRestored(log_id="01JAGAIN", before=LOG_ID, voided=1))
    _erased(scribe)
    return scribe


def _curated(scribe: Scribe) -> None:
    scribe.dataset()
    scribe.dataset("ds_dogs", "dogs")
    for ordinal in range(4):
        scribe.image(ordinal, tags=["cat", f"only_{ordinal}"])
    scribe.image(0, "ds_dogs", ["dog"])
    name = seal(key_for("img_bad"), "not a picture.png", "name")
    refused = e.ImageRefused(image_id=ImageId("img_bad"), name=name, reason="broken", detail="it is broken", size=7)
    scribe.write("dataset", "ds_cats", refused)
    scribe.write("dataset", "ds_cats", e.DatasetRenamed(name="Cats!"))
    scribe.edit(0, 1, 2, add=["sitting", "grass"], remove=["only_1"])
    caption = seal(key_for(image_id("ds_cats", 1)), "a sitting cat", "caption")
    scribe.write("dataset", "ds_cats", e.CaptionSet(ordinal=1, caption=caption))
    imported = seal(key_for(image_id("ds_cats", 2)), "a sitting cat", "caption")
    scribe.write("dataset", "ds_cats", e.CaptionSet(ordinal=2, caption=imported, source="import"))
    scribe.write("dataset", "ds_cats", e.CaptionSet(ordinal=2, caption=None))
    scribe.write("dataset", "ds_cats", e.ImagesRemoved(images=bitmap(3)))


def _tagged(scribe: Scribe) -> None:
    attempt = scribe.run("run_1", 0, 1, 2)
    loaded = e.TaggingModelLoaded(
        attempt=attempt, model=digest("model"), tags=digest("tags"), preprocessing="v1", provider="cpu"
    )
    scribe.write("tagging", "run_1", loaded)
    scribe.see("run_1", attempt, 0, ("sky", 0.9), ("grass", 0.8), ("mia", 0.95, "character"), ("safe", 0.9, "rating"))
    scribe.see("run_1", attempt, 1, ("only_1", 0.99), ("sky", 0.4), ("tree", 0.2))
    unread = e.ImagePredictions(ordinal=2, predictions=(), unreadable="it is gone")
    scribe.write("tagging", "run_1", e.TaggingPredicted(attempt=attempt, images=(unread,)))
    scribe.write("tagging", "run_1", e.TaggingSucceeded(attempt=attempt, images=3, unreadable=1))
    scribe.write("dataset", "ds_cats", e.ThresholdsSet(general=0.5, character=0.9))
    again = scribe.run("run_2", 0, 1)
    scribe.see("run_2", again, 0, ("cloud", 0.7))
    scribe.write("tagging", "run_2", e.TaggingInterrupted(attempt=again, step=1, reason="stopped"))
    third = scribe.write(
        "tagging", "run_2", e.TaggingAttemptStarted(worker=WorkerId("t2"), boot="b", resumes=1)
    ).sequence
    scribe.write("tagging", "run_2", e.TaggingAttemptFailed(attempt=third, step=1, reason="died"))
    scribe.write("tagging", "run_2", e.TaggingCancelRequested(reason="enough"), e.TaggingCancelled())
    lost = scribe.run("run_3", 0, model="other")
    scribe.write("tagging", "run_3", e.TaggingFailed(attempt=lost, code="no-model", reason="there is no such model"))


def _frozen_and_trained(scribe: Scribe) -> None:
    content = manifest_of("ds_cats", 0, 1)
    frozen = e.VersionFrozen(
        version=1,
        version_id=VersionId("ver_1"),
        as_of=scribe.sequence,
        images=2,
        manifest=Digest(hashlib.sha256(content).hexdigest()),
    )
    scribe.write("dataset", "ds_cats", frozen, command="train", fingerprint="g")
    receipt = Receipt(id="job_1", status="pending")
    asked = job_created(prompts=(), content=content)
    scribe.write(
        "job", "job_1", asked, e.JobQueued(priority="normal"), command="train", fingerprint="g", answer=receipt
    )
    scribe.write("job", "job_1", e.JobEdited(name="the cat", labels=("nice",)), e.JobPrioritised(priority="high"))
    first = scribe.write("job", "job_1", e.JobAttemptStarted(worker=WorkerId("w1"), boot="b", resumes=0)).sequence
    planned = e.JobPlanned(attempt=first, steps=20, epochs=2, device="cpu", precision="float32", base=digest("base"))
    scribe.write("job", "job_1", planned)
    kept = e.JobCheckpointed(attempt=first, step=10, checkpoint=digest("10"), size=10)
    sampled = [e.JobSampled(attempt=first, step=10, index=i, picture=digest(f"10/{i}"), seed=i) for i in range(2)]
    scribe.write("job", "job_1", kept, *sampled)
    second = scribe.write("job", "job_1", e.JobAttemptStarted(worker=WorkerId("w2"), boot="b", resumes=10)).sequence
    scribe.write("job", "job_1", e.JobInterrupted(attempt=second, step=12, reason="a polite stop"))
    third = scribe.write("job", "job_1", e.JobAttemptStarted(worker=WorkerId("w2"), boot="b", resumes=10)).sequence
    scribe.write("job", "job_1", e.JobAttemptFailed(attempt=third, step=12, reason="out of memory"))
    last = scribe.write("job", "job_1", e.JobAttemptStarted(worker=WorkerId("w3"), boot="b", resumes=10)).sequence
    artifact = e.Artifact(name="cat.safetensors", format="kohya", digest=digest("cat"), size=9, tensors=digest("t"))
    scribe.write(
        "job",
        "job_1",
        e.JobCheckpointed(attempt=last, step=20, checkpoint=digest("20"), size=20),
        e.JobSucceeded(attempt=last, step=20, artifacts=(artifact,)),
    )


def _ended(scribe: Scribe) -> None:
    scribe.write("job", "job_2", job_created(), e.JobQueued(priority="low"))
    scribe.write("job", "job_3", job_created(name="urgent"), e.JobQueued(priority="high"))
    scribe.write("job", "job_4", job_created(), e.JobQueued(priority="normal"))
    scribe.write("job", "job_4", e.JobCancelRequested(reason="no"), e.JobCancelled())
    scribe.write("job", "job_5", job_created(), e.JobQueued(priority="normal"))
    attempt = scribe.write("job", "job_5", e.JobAttemptStarted(worker=WorkerId("w1"), boot="b", resumes=0)).sequence
    scribe.write("job", "job_5", e.JobFailed(attempt=attempt, code="no-base", reason="there is no such base"))
    scribe.write("job", "job_6", job_created())
    scribe.write("job", "job_6", e.JobRemoved())


def _erased(scribe: Scribe) -> None:
    scribe.dataset("ds_erased", "secrets")
    for ordinal in range(2):
        scribe.image(ordinal, "ds_erased", ["face"])
    image = image_id("ds_erased", 0)
    name = seal(key_for("img_worse"), "my neighbour.png", "name")
    refused = e.ImageRefused(image_id=ImageId("img_worse"), name=name, reason="broken", detail="it is broken", size=7)
    scribe.write("dataset", "ds_erased", refused, e.ImageErased(ordinal=0, image_id=image))
    scribe.write("dataset", "ds_erased", e.DatasetErased())
