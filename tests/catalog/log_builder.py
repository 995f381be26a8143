"""Builds logs for tests: commits as the log would store them, with events of every type."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from catalog.domain import manifest
from catalog.domain.image_sets import image_set
from catalog.domain.manifest import ManifestLine, ManifestPage
from catalog.views.batch import BULK
from contracts import subjects
from contracts.aggregates import REGISTRY, AnyEvent
from contracts.commands.base import CommandMetadata
from contracts.commands.datasets import DatasetResult
from contracts.commands.jobs import JobResult
from contracts.commits import RecordedCommit, StreamRevision, build_commit, decode, revision_of
from contracts.events.base import SCHEMA, Category
from contracts.events.datasets import (
    CaptionSet,
    CommitsUndone,
    DatasetCreated,
    DatasetErased,
    DatasetRemoved,
    DatasetRenamed,
    ImageAdded,
    ImageErased,
    ImageRefused,
    ImagesRemoved,
    ImagesReviewed,
    MaskSet,
    RepeatsSet,
    RulesSet,
    TagsEdited,
    TagsOrdered,
    TextSettingsSet,
    ThresholdsSet,
    VersionFrozen,
)
from contracts.events.image_sets import ImageSet
from contracts.events.jobs import (
    Artifact,
    JobAttemptFailed,
    JobAttemptStarted,
    JobCancelled,
    JobCancelRequested,
    JobCheckpointed,
    JobCreated,
    JobEdited,
    JobFailed,
    JobInterrupted,
    JobPlanned,
    JobPrioritised,
    JobQueued,
    JobRemoved,
    JobSampled,
    JobStartRequested,
    JobSucceeded,
    JobVersionSet,
)
from contracts.events.log import LogCreated, LogRestored, LogVoided
from contracts.events.presets import PresetRetired, PresetSaved
from contracts.events.service_keys import ServiceKeyRegistered, ServiceKeyRetired, ServiceKeyRootEstablished
from contracts.events.tagging import (
    ImagePredictions,
    Prediction,
    TaggingAttemptFailed,
    TaggingAttemptStarted,
    TaggingCancelled,
    TaggingCancelRequested,
    TaggingFailed,
    TaggingInterrupted,
    TaggingModelLoaded,
    TaggingPredicted,
    TaggingQueued,
    TaggingRequested,
    TaggingSucceeded,
)
from contracts.ids import CommandId, DatasetId, Digest, ImageId, RunId, VersionId, WorkerId
from contracts.recipe import Recipe, Sampling
from contracts.sealed import seal
from contracts.signatures import Signer
from tests.contracts.samples import sample_of
from tests.signing import SERVICES, key_named

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
LOG_ID = "01JLOG"


def digest(text: str) -> Digest:
    return Digest(hashlib.sha256(text.encode()).hexdigest())


def bitmap(*ordinals: int) -> ImageSet:
    return image_set(ordinals)


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
        self.log_id = LOG_ID
        self.append("log", LOG_ID, LogCreated(log_id=LOG_ID, format=1))

    @property
    def sequence(self) -> int:
        return len(self.commits)

    def append(
        self,
        aggregate_kind: str,
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
        body = msgspec.json.encode(commit)
        signature = self._sign(aggregate_kind, aggregate_id, events, body) if sequence > 1 else ""
        recorded = decode(sequence, at + timedelta(microseconds=123456), body, signature)
        self.revisions[aggregate] = revision_of(recorded)
        self.commits.append(recorded)
        return recorded

    def _sign(self, kind_name: str, aggregate_id: str, events: Sequence[AnyEvent], body: bytes) -> str:
        """As the service that may append these events."""
        kind = REGISTRY.by_name[kind_name]
        signers = (kind.signer, *kind.writers)
        signer = next(one for one in signers if all(kind.may_append(one, type(event)) for event in events))
        restored = [event.log_id for event in events if isinstance(event, LogRestored)]
        self.log_id = restored[-1] if restored else self.log_id
        return Signer(key_named(signer), self.log_id).sign(subjects.aggregate(kind_name, aggregate_id), body)

    def create_dataset(self, dataset: str = "ds_cats", name: str = "cats") -> RecordedCommit:
        result = DatasetResult(id=dataset, name=name)
        return self.append("dataset", dataset, DatasetCreated(name=name), fingerprint="f", result=result)

    def add_image(self, ordinal: int, dataset: str = "ds_cats", tags: Sequence[str] = ()) -> RecordedCommit:
        added = image_added(dataset, ordinal)
        edited = TagsEdited(images=bitmap(ordinal), asserted=tuple(tags), source="import")
        return self.append("dataset", dataset, added, *([edited] if tags else []))

    def edit_tags(
        self, *ordinals: int, add: Sequence[str] = (), remove: Sequence[str] = (), dataset: str = "ds_cats"
    ) -> RecordedCommit:
        edited = TagsEdited(images=bitmap(*ordinals), asserted=tuple(add), rejected=tuple(remove))
        return self.append("dataset", dataset, edited)

    def start_run(self, run: str, *ordinals: int, model: str = "wd", dataset: str = "ds_cats") -> int:
        """Request and queue a tagging run and start an attempt; returns the attempt's number."""
        requested = TaggingRequested(
            dataset_id=DatasetId(dataset), dataset="cats", model=model, images=bitmap(*ordinals), count=len(ordinals)
        )
        self.append("tagging", run, requested, TaggingQueued(priority="normal"))
        started = TaggingAttemptStarted(worker=WorkerId("t1"), boot="b", resumes=0)
        return self.append("tagging", run, started, actor="svc:tagger/t1").sequence

    def predict(
        self, run: str, attempt: int, ordinal: int, *tags: tuple[str, float] | tuple[str, float, Category]
    ) -> RecordedCommit:
        """`tags`: (tag, probability) or (tag, probability, category)."""
        predictions = tuple(
            Prediction(tag=tag[0], probability=tag[1], category=tag[2] if len(tag) == 3 else "general") for tag in tags
        )
        images = (ImagePredictions(ordinal=ordinal, predictions=predictions),)
        return self.append("tagging", run, TaggingPredicted(attempt=attempt, images=images), actor="svc:tagger/t1")


def image_added(dataset: str, ordinal: int) -> ImageAdded:
    image = image_id(dataset, ordinal)
    return ImageAdded(
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


def manifest_of(dataset: str, *ordinals: int) -> tuple[bytes, bytes]:
    """Root and page of a version with these images."""
    page = manifest.encode_page(
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
    listed = ManifestPage(first=ordinals[0], images=len(ordinals), digest=digest_of(page))
    return manifest.encode_root(manifest.build_root(TextSettingsSet(), [listed])), page


def digest_of(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).hexdigest())


def version_set(content: bytes = b"") -> JobVersionSet:
    return JobVersionSet(version=1, version_id=VersionId("ver_1"), manifest=digest_of(content), images=2)


def job_created(*, name: str = "a cat", prompts: tuple[str, ...] = ("a cat",)) -> JobCreated:
    return JobCreated(
        name=name,
        mode="single",
        dataset_id=DatasetId("ds_cats"),
        dataset="cats",
        recipe=Recipe(sampling=Sampling(prompts=prompts)),
        preset="quick",
    )


def full_history() -> LogBuilder:
    """A log with at least one event of every type."""
    builder = LogBuilder()
    add_keys(builder)
    _add_curation(builder)
    _add_tagging(builder)
    _add_training(builder)
    _add_ended_jobs(builder)
    builder.append("preset", "pre_1", PresetSaved(name="mine", recipe=Recipe(), parent="quick", description="my own"))
    builder.append("preset", "pre_2", PresetSaved(name="old", recipe=Recipe()))
    builder.append("preset", "pre_2", PresetRetired())
    builder.create_dataset("ds_gone", "gone")
    builder.add_image(0, "ds_gone", ["lost"])
    builder.append("dataset", "ds_gone", DatasetRemoved())
    builder.append("log", "void-1", LogVoided(reason="no copy had it"))
    builder.append("log", "01JAGAIN", LogRestored(log_id="01JAGAIN", before=LOG_ID, voided=1))
    _add_erasures(builder)
    _add_samples_of_other_types(builder)
    return builder


def add_keys(builder: LogBuilder) -> None:
    """The root key and a key of each service, and one that was retired."""
    root = key_named("root")
    builder.append("service-key", root.id, ServiceKeyRootEstablished(public_key=root.public.hex()))
    for service in SERVICES:
        key = key_named(service)
        builder.append(
            "service-key", key.id, ServiceKeyRegistered(service=service, public_key=key.public.hex(), schema=SCHEMA)
        )
    old = key_named("old")
    builder.append(
        "service-key", old.id, ServiceKeyRegistered(service="trainer", public_key=old.public.hex(), schema=SCHEMA)
    )
    builder.append("service-key", old.id, ServiceKeyRetired())


def _add_samples_of_other_types(builder: LogBuilder) -> None:
    """Types that have no part of their own above: a sample each, in an aggregate of their kind."""
    present = {type(event) for recorded in builder.commits for event in recorded.commit.events}
    aggregates = {"dataset": "ds_cats", "job": "job_1", "tagging": "run_1", "preset": "pre_1"}
    for kind in REGISTRY.kinds:
        for event in (sample_of(one) for one in kind.event_types if one not in present):
            builder.append(kind.name, aggregates.get(kind.name, f"{kind.name}_1"), event)


def _add_curation(builder: LogBuilder) -> None:
    builder.create_dataset()
    builder.create_dataset("ds_dogs", "dogs")
    for ordinal in range(4):
        builder.add_image(ordinal, tags=["cat", f"only_{ordinal}"])
    builder.add_image(0, "ds_dogs", ["dog"])
    name = seal(key_for("img_bad"), "not a picture.png", "name")
    refused = ImageRefused(image_id=ImageId("img_bad"), name=name, reason="broken", detail="it is broken", size=7)
    builder.append("dataset", "ds_cats", refused)
    builder.append("dataset", "ds_cats", DatasetRenamed(name="Cats!"))
    builder.edit_tags(0, 1, 2, add=["sitting", "grass"], remove=["only_1"])
    caption = seal(key_for(image_id("ds_cats", 1)), "a sitting cat", "caption")
    builder.append("dataset", "ds_cats", CaptionSet(ordinal=1, caption=caption))
    imported = seal(key_for(image_id("ds_cats", 2)), "a sitting cat", "caption")
    builder.append("dataset", "ds_cats", CaptionSet(ordinal=2, caption=imported, source="import"))
    builder.append("dataset", "ds_cats", CaptionSet(ordinal=2, caption=None))
    builder.append("dataset", "ds_cats", ImagesReviewed(images=bitmap(0, 1, 3)))
    builder.append("dataset", "ds_cats", ImagesReviewed(images=bitmap(1, 2), reviewed=False))
    builder.append("dataset", "ds_cats", RepeatsSet(images=bitmap(0, 1), repeats=3))
    builder.append("dataset", "ds_cats", RepeatsSet(images=bitmap(1), repeats=1))
    for mask in (digest("mask"), digest("other mask"), digest("mask"), None):
        builder.append("dataset", "ds_cats", MaskSet(ordinal=1, mask=mask))
    builder.append("dataset", "ds_cats", MaskSet(ordinal=2, mask=digest("mask")))
    builder.append("dataset", "ds_cats", ImagesRemoved(images=bitmap(3)))
    builder.append("dataset", "ds_cats", TagsOrdered(ordinal=1, tags=("sitting", "cat")))
    builder.append("dataset", "ds_cats", RulesSet(deny=("watermark",)))
    renamed = builder.append("dataset", "ds_dogs", DatasetRenamed(name="hounds"))
    undone = CommitsUndone(commits=(renamed.sequence,), images=bitmap(), summary="Renamed the data set to 'hounds'")
    builder.append("dataset", "ds_dogs", undone)
    builder.edit_tags(*range(BULK + 1), add=["furry"], dataset="ds_dogs")


def _add_tagging(builder: LogBuilder) -> None:
    attempt = builder.start_run("run_1", 0, 1, 2)
    loaded = TaggingModelLoaded(
        attempt=attempt, model=digest("model"), tags=digest("tags"), preprocessing="v1", provider="cpu"
    )
    builder.append("tagging", "run_1", loaded)
    builder.predict(
        "run_1", attempt, 0, ("sky", 0.9), ("grass", 0.8), ("mia", 0.95, "character"), ("safe", 0.9, "rating")
    )
    builder.predict("run_1", attempt, 1, ("only_1", 0.99), ("sky", 0.4), ("tree", 0.2))
    unreadable = ImagePredictions(ordinal=2, predictions=(), unreadable="it is gone")
    builder.append("tagging", "run_1", TaggingPredicted(attempt=attempt, images=(unreadable,)))
    builder.append("tagging", "run_1", TaggingSucceeded(attempt=attempt, images=3, unreadable=1))
    builder.append("dataset", "ds_cats", ThresholdsSet(categories={"general": 0.5, "character": 0.9}))
    again = builder.start_run("run_2", 0, 1)
    builder.predict("run_2", again, 0, ("cloud", 0.7))
    builder.append("tagging", "run_2", TaggingInterrupted(attempt=again, step=1, reason="stopped"))
    third = builder.append(
        "tagging", "run_2", TaggingAttemptStarted(worker=WorkerId("t2"), boot="b", resumes=1)
    ).sequence
    builder.append("tagging", "run_2", TaggingAttemptFailed(attempt=third, step=1, reason="died"))
    builder.append("tagging", "run_2", TaggingCancelRequested(reason="enough"), TaggingCancelled())
    wrong = builder.start_run("run_4", 0, dataset="ds_dogs")
    builder.predict("run_4", wrong, 0, ("cat", 0.9))
    builder.append("tagging", "run_4", TaggingSucceeded(attempt=wrong, images=1))
    undone = CommitsUndone(runs=(RunId("run_4"),), images=bitmap(0), summary="the predictions of a tagging run")
    builder.append("dataset", "ds_dogs", undone)
    lost = builder.start_run("run_3", 0, model="other")
    builder.append("tagging", "run_3", TaggingFailed(attempt=lost, code="no-model", reason="there is no such model"))


def _add_training(builder: LogBuilder) -> None:
    root, page = manifest_of("ds_cats", 0, 1)
    frozen = VersionFrozen(
        version=1,
        version_id=VersionId("ver_1"),
        as_of=builder.sequence,
        images=2,
        manifest=digest_of(root),
        pages=(digest_of(page),),
    )
    builder.append("dataset", "ds_cats", frozen, command_id="train", fingerprint="g")
    result = JobResult(id="job_1", status="pending")
    created = (job_created(prompts=()), version_set(root), JobQueued(priority="normal"))
    builder.append("job", "job_1", *created, command_id="train", fingerprint="g", result=result)
    builder.append("job", "job_1", JobEdited(name="the cat", labels=("nice",)), JobPrioritised(priority="high"))
    first = builder.append("job", "job_1", JobAttemptStarted(worker=WorkerId("w1"), boot="b", resumes=0)).sequence
    planned = JobPlanned(attempt=first, steps=20, epochs=2, device="cpu", precision="float32", base=digest("base"))
    builder.append("job", "job_1", planned)
    checkpointed = JobCheckpointed(attempt=first, step=10, checkpoint=digest("10"), size=10)
    sampled = [JobSampled(attempt=first, step=10, index=i, picture=digest(f"10/{i}"), seed=i) for i in range(2)]
    builder.append("job", "job_1", checkpointed, *sampled)
    second = builder.append("job", "job_1", JobAttemptStarted(worker=WorkerId("w2"), boot="b", resumes=10)).sequence
    builder.append("job", "job_1", JobInterrupted(attempt=second, step=12, reason="a polite stop"))
    third = builder.append("job", "job_1", JobAttemptStarted(worker=WorkerId("w2"), boot="b", resumes=10)).sequence
    builder.append("job", "job_1", JobAttemptFailed(attempt=third, step=12, reason="out of memory"))
    last = builder.append("job", "job_1", JobAttemptStarted(worker=WorkerId("w3"), boot="b", resumes=10)).sequence
    artifact = Artifact(name="cat.safetensors", format="kohya", digest=digest("cat"), size=9, tensors=digest("t"))
    builder.append(
        "job",
        "job_1",
        JobCheckpointed(attempt=last, step=20, checkpoint=digest("20"), size=20),
        JobSucceeded(attempt=last, step=20, artifacts=(artifact,)),
    )


def _add_ended_jobs(builder: LogBuilder) -> None:
    builder.append("job", "job_2", job_created(), version_set(), JobQueued(priority="low"))
    builder.append("job", "job_3", job_created(name="urgent"), version_set(), JobQueued(priority="high"))
    builder.append("job", "job_4", job_created(), version_set(), JobQueued(priority="normal"))
    builder.append("job", "job_4", JobCancelRequested(reason="no"), JobCancelled())
    builder.append("job", "job_5", job_created(), version_set(), JobQueued(priority="normal"))
    attempt = builder.append("job", "job_5", JobAttemptStarted(worker=WorkerId("w1"), boot="b", resumes=0)).sequence
    builder.append("job", "job_5", JobFailed(attempt=attempt, code="no-base", reason="there is no such base"))
    builder.append("job", "job_6", job_created(), JobStartRequested())
    builder.append("job", "job_6", JobCancelRequested(reason="no"), JobCancelled())
    builder.append("job", "job_6", JobRemoved())


def _add_erasures(builder: LogBuilder) -> None:
    builder.create_dataset("ds_erased", "secrets")
    for ordinal in range(2):
        builder.add_image(ordinal, "ds_erased", ["face"])
    image = image_id("ds_erased", 0)
    name = seal(key_for("img_worse"), "my neighbour.png", "name")
    refused = ImageRefused(image_id=ImageId("img_worse"), name=name, reason="broken", detail="it is broken", size=7)
    builder.append("dataset", "ds_erased", refused, ImageErased(ordinal=0, image_id=image))
    builder.append("dataset", "ds_erased", DatasetErased())
