"""Builds logs for tests: commits as the log would store them, with events of every type."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from pyroaring import BitMap

from catalog.domain import manifest
from catalog.domain.manifest import ManifestLine
from contracts import events as e
from contracts.commands import CommandMetadata, DatasetResult, JobResult
from contracts.events import AnyEvent, Prediction, RecordedCommit
from contracts.ids import CommandId, DatasetId, Digest, ImageId, VersionId, WorkerId
from contracts.recipe import Recipe, Sampling
from contracts.sealed import seal
from contracts.subjects import AggregateKind
from contracts.wire.log import StreamRevision, build_commit, decode, revision_of

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
LOG_ID = "01JLOG"


def digest(text: str) -> Digest:
    return Digest(hashlib.sha256(text.encode()).hexdigest())


def bitmap(*ordinals: int) -> bytes:
    return bytes(BitMap(ordinals).serialize())


def key_for(image: str) -> bytes:
    """The encryption key of an image in these logs; real ones are random."""
    return hashlib.sha256(f"key of {image}".encode()).digest()


def image_id(dataset: str, ordinal: int) -> ImageId:
    return ImageId(f"img_{dataset}_{ordinal}")


class LogBuilder:
    """Builds a log: each call appends one commit, with the right sequence and revision."""

    def __init__(self) -> None:
        self.commits: list[RecordedCommit] = []
        self.revisions: dict[tuple[str, str], StreamRevision] = {}
        self.append("log", LOG_ID, e.LogCreated(log_id=LOG_ID, format=1))

    @property
    def sequence(self) -> int:
        return len(self.commits)

    def append(
        self,
        aggregate_kind: AggregateKind,
        aggregate_id: str,
        *events: AnyEvent,
        command_id: str | None = None,
        fingerprint: str = "",
        result: object = None,
        actor: str = "user:ann",
    ) -> RecordedCommit:
        sequence = self.sequence + 1
        at = START + timedelta(seconds=sequence)
        metadata = CommandMetadata(
            command_id=CommandId(command_id or f"c{sequence}"), actor=actor, at=at, fingerprint=fingerprint
        )
        aggregate = (aggregate_kind, aggregate_id)
        revision = self.revisions.get(aggregate, StreamRevision())
        commit = build_commit(*aggregate, events, expected_revision=revision, metadata=metadata, result=result)
        recorded = decode(sequence, at + timedelta(microseconds=123456), msgspec.json.encode(commit))
        self.revisions[aggregate] = revision_of(recorded)
        self.commits.append(recorded)
        return recorded

    def create_dataset(self, dataset: str = "ds_cats", name: str = "cats") -> RecordedCommit:
        result = DatasetResult(id=dataset, name=name)
        return self.append("dataset", dataset, e.DatasetCreated(name=name), fingerprint="f", result=result)

    def add_image(self, ordinal: int, dataset: str = "ds_cats", tags: Sequence[str] = ()) -> RecordedCommit:
        added = image_added(dataset, ordinal)
        edited = e.TagsEdited(images=bitmap(ordinal), asserted=tuple(tags), source="import")
        return self.append("dataset", dataset, added, *([edited] if tags else []))

    def edit_tags(
        self, *ordinals: int, add: Sequence[str] = (), remove: Sequence[str] = (), dataset: str = "ds_cats"
    ) -> RecordedCommit:
        edited = e.TagsEdited(images=bitmap(*ordinals), asserted=tuple(add), rejected=tuple(remove))
        return self.append("dataset", dataset, edited)

    def start_run(self, run: str, *ordinals: int, model: str = "wd", dataset: str = "ds_cats") -> int:
        """Request and queue a tagging run and start an attempt; returns the attempt's number."""
        requested = e.TaggingRequested(
            dataset_id=DatasetId(dataset), dataset="cats", model=model, images=bitmap(*ordinals), count=len(ordinals)
        )
        self.append("tagging", run, requested, e.TaggingQueued(priority="normal"))
        started = e.TaggingAttemptStarted(worker=WorkerId("t1"), boot="b", resumes=0)
        return self.append("tagging", run, started, actor="svc:tagger/t1").sequence

    def predict(
        self, run: str, attempt: int, ordinal: int, *tags: tuple[str, float] | tuple[str, float, str]
    ) -> RecordedCommit:
        """`tags`: (tag, probability) or (tag, probability, category)."""
        predictions = tuple(
            Prediction(tag=tag[0], probability=tag[1], category=tag[2] if len(tag) > 2 else "general")  # type: ignore[arg-type]
            for tag in tags
        )
        images = (e.ImagePredictions(ordinal=ordinal, predictions=predictions),)
        return self.append("tagging", run, e.TaggingPredicted(attempt=attempt, images=images), actor="svc:tagger/t1")


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


def full_history() -> LogBuilder:
    """A log with at least one event of every type."""
    builder = LogBuilder()
    _add_curation(builder)
    _add_tagging(builder)
    _add_training(builder)
    _add_ended_jobs(builder)
    builder.append("preset", "pre_1", e.PresetSaved(name="mine", recipe=Recipe(), parent="quick", description="my own"))
    builder.append("preset", "pre_2", e.PresetSaved(name="old", recipe=Recipe()))
    builder.append("preset", "pre_2", e.PresetRetired())
    builder.create_dataset("ds_gone", "gone")
    builder.add_image(0, "ds_gone", ["lost"])
    builder.append("dataset", "ds_gone", e.DatasetRemoved())
    builder.append("log", "void-1", e.LogVoided(reason="no copy had it"))
    builder.append("log", "01JAGAIN", e.LogRestored(log_id="01JAGAIN", before=LOG_ID, voided=1))
    _add_erasures(builder)
    return builder


def _add_curation(builder: LogBuilder) -> None:
    builder.create_dataset()
    builder.create_dataset("ds_dogs", "dogs")
    for ordinal in range(4):
        builder.add_image(ordinal, tags=["cat", f"only_{ordinal}"])
    builder.add_image(0, "ds_dogs", ["dog"])
    name = seal(key_for("img_bad"), "not a picture.png", "name")
    refused = e.ImageRefused(image_id=ImageId("img_bad"), name=name, reason="broken", detail="it is broken", size=7)
    builder.append("dataset", "ds_cats", refused)
    builder.append("dataset", "ds_cats", e.DatasetRenamed(name="Cats!"))
    builder.edit_tags(0, 1, 2, add=["sitting", "grass"], remove=["only_1"])
    caption = seal(key_for(image_id("ds_cats", 1)), "a sitting cat", "caption")
    builder.append("dataset", "ds_cats", e.CaptionSet(ordinal=1, caption=caption))
    imported = seal(key_for(image_id("ds_cats", 2)), "a sitting cat", "caption")
    builder.append("dataset", "ds_cats", e.CaptionSet(ordinal=2, caption=imported, source="import"))
    builder.append("dataset", "ds_cats", e.CaptionSet(ordinal=2, caption=None))
    builder.append("dataset", "ds_cats", e.ImagesRemoved(images=bitmap(3)))


def _add_tagging(builder: LogBuilder) -> None:
    attempt = builder.start_run("run_1", 0, 1, 2)
    loaded = e.TaggingModelLoaded(
        attempt=attempt, model=digest("model"), tags=digest("tags"), preprocessing="v1", provider="cpu"
    )
    builder.append("tagging", "run_1", loaded)
    builder.predict(
        "run_1", attempt, 0, ("sky", 0.9), ("grass", 0.8), ("mia", 0.95, "character"), ("safe", 0.9, "rating")
    )
    builder.predict("run_1", attempt, 1, ("only_1", 0.99), ("sky", 0.4), ("tree", 0.2))
    unreadable = e.ImagePredictions(ordinal=2, predictions=(), unreadable="it is gone")
    builder.append("tagging", "run_1", e.TaggingPredicted(attempt=attempt, images=(unreadable,)))
    builder.append("tagging", "run_1", e.TaggingSucceeded(attempt=attempt, images=3, unreadable=1))
    builder.append("dataset", "ds_cats", e.ThresholdsSet(general=0.5, character=0.9))
    again = builder.start_run("run_2", 0, 1)
    builder.predict("run_2", again, 0, ("cloud", 0.7))
    builder.append("tagging", "run_2", e.TaggingInterrupted(attempt=again, step=1, reason="stopped"))
    third = builder.append(
        "tagging", "run_2", e.TaggingAttemptStarted(worker=WorkerId("t2"), boot="b", resumes=1)
    ).sequence
    builder.append("tagging", "run_2", e.TaggingAttemptFailed(attempt=third, step=1, reason="died"))
    builder.append("tagging", "run_2", e.TaggingCancelRequested(reason="enough"), e.TaggingCancelled())
    lost = builder.start_run("run_3", 0, model="other")
    builder.append("tagging", "run_3", e.TaggingFailed(attempt=lost, code="no-model", reason="there is no such model"))


def _add_training(builder: LogBuilder) -> None:
    content = manifest_of("ds_cats", 0, 1)
    frozen = e.VersionFrozen(
        version=1,
        version_id=VersionId("ver_1"),
        as_of=builder.sequence,
        images=2,
        manifest=Digest(hashlib.sha256(content).hexdigest()),
    )
    builder.append("dataset", "ds_cats", frozen, command_id="train", fingerprint="g")
    result = JobResult(id="job_1", status="pending")
    created = job_created(prompts=(), content=content)
    builder.append(
        "job", "job_1", created, e.JobQueued(priority="normal"), command_id="train", fingerprint="g", result=result
    )
    builder.append("job", "job_1", e.JobEdited(name="the cat", labels=("nice",)), e.JobPrioritised(priority="high"))
    first = builder.append("job", "job_1", e.JobAttemptStarted(worker=WorkerId("w1"), boot="b", resumes=0)).sequence
    planned = e.JobPlanned(attempt=first, steps=20, epochs=2, device="cpu", precision="float32", base=digest("base"))
    builder.append("job", "job_1", planned)
    checkpointed = e.JobCheckpointed(attempt=first, step=10, checkpoint=digest("10"), size=10)
    sampled = [e.JobSampled(attempt=first, step=10, index=i, picture=digest(f"10/{i}"), seed=i) for i in range(2)]
    builder.append("job", "job_1", checkpointed, *sampled)
    second = builder.append("job", "job_1", e.JobAttemptStarted(worker=WorkerId("w2"), boot="b", resumes=10)).sequence
    builder.append("job", "job_1", e.JobInterrupted(attempt=second, step=12, reason="a polite stop"))
    third = builder.append("job", "job_1", e.JobAttemptStarted(worker=WorkerId("w2"), boot="b", resumes=10)).sequence
    builder.append("job", "job_1", e.JobAttemptFailed(attempt=third, step=12, reason="out of memory"))
    last = builder.append("job", "job_1", e.JobAttemptStarted(worker=WorkerId("w3"), boot="b", resumes=10)).sequence
    artifact = e.Artifact(name="cat.safetensors", format="kohya", digest=digest("cat"), size=9, tensors=digest("t"))
    builder.append(
        "job",
        "job_1",
        e.JobCheckpointed(attempt=last, step=20, checkpoint=digest("20"), size=20),
        e.JobSucceeded(attempt=last, step=20, artifacts=(artifact,)),
    )


def _add_ended_jobs(builder: LogBuilder) -> None:
    builder.append("job", "job_2", job_created(), e.JobQueued(priority="low"))
    builder.append("job", "job_3", job_created(name="urgent"), e.JobQueued(priority="high"))
    builder.append("job", "job_4", job_created(), e.JobQueued(priority="normal"))
    builder.append("job", "job_4", e.JobCancelRequested(reason="no"), e.JobCancelled())
    builder.append("job", "job_5", job_created(), e.JobQueued(priority="normal"))
    attempt = builder.append("job", "job_5", e.JobAttemptStarted(worker=WorkerId("w1"), boot="b", resumes=0)).sequence
    builder.append("job", "job_5", e.JobFailed(attempt=attempt, code="no-base", reason="there is no such base"))
    builder.append("job", "job_6", job_created())
    builder.append("job", "job_6", e.JobRemoved())


def _add_erasures(builder: LogBuilder) -> None:
    builder.create_dataset("ds_erased", "secrets")
    for ordinal in range(2):
        builder.add_image(ordinal, "ds_erased", ["face"])
    image = image_id("ds_erased", 0)
    name = seal(key_for("img_worse"), "my neighbour.png", "name")
    refused = e.ImageRefused(image_id=ImageId("img_worse"), name=name, reason="broken", detail="it is broken", size=7)
    builder.append("dataset", "ds_erased", refused, e.ImageErased(ordinal=0, image_id=image))
    builder.append("dataset", "ds_erased", e.DatasetErased())
