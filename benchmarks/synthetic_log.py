"""A log as the services would write it, seeded: what the other benchmarks read.

25 % added images, 60 % edits of four tags of one image (three asserted, one rejected), 15 % predictions (30 for one
image, about ten above the thresholds). Data sets have 1,000 images and a vocabulary of 300 tags with realistic, skewed
frequencies; four data sets are active at a time, interleaved at random. Commits are built, encoded, signed and given
headers as in the services, and published without waiting for each acknowledgement.
"""

import asyncio
import hashlib
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import get_args

import msgspec
from nats.aio.msg import Msg
from nats.js.api import Header

from catalog.domain.image_sets import image_set
from contracts import subjects
from contracts.aggregates import REGISTRY, AnyEvent
from contracts.commands.base import CommandMetadata
from contracts.commands.datasets import ImageResult
from contracts.commits import Commit, StreamRevision, build_commit
from contracts.events.base import SCHEMA
from contracts.events.datasets import DatasetCreated, ImageAdded, TagsEdited
from contracts.events.service_keys import ServiceKeyRegistered, ServiceKeyRootEstablished, SigningService
from contracts.events.tagging import (
    ImagePredictions,
    Prediction,
    TaggingAttemptStarted,
    TaggingPredicted,
    TaggingQueued,
    TaggingRequested,
)
from contracts.ids import CommandId, DatasetId, Digest, ImageId, RunId, WorkerId, derived
from contracts.sealed import seal
from contracts.signatures import HEADER as SIGNATURE
from contracts.signatures import Signer, SigningKey
from contracts.wire.log.event_log import EventLog
from contracts.wire.service.bus import Bus

MIX_PERCENT = {"image": 25, "edit": 60, "predict": 15}
IMAGES_PER_DATASET = 1000
COMMITS_PER_DATASET = IMAGES_PER_DATASET * 100 // MIX_PERCENT["image"]
"""Commits per data set, without its opening ones."""
ACTIVE_DATASETS = 4
VOCABULARY_SIZE = 300
PREDICTIONS_PER_IMAGE = 30
MAX_UNACKNOWLEDGED = 2_000
START_TIME = datetime(2026, 1, 1, tzinfo=UTC)
ADJECTIVES = ("long", "short", "red", "blue", "green", "open", "closed", "white", "black", "wet", "old", "small")
NOUNS = ("hair", "eyes", "sky", "shirt", "grass", "house", "tree", "hat", "dress", "hand", "water", "road", "cat")
RATINGS = ("general", "sensitive", "questionable", "explicit")


@dataclass
class SyntheticDataset:
    """A generated data set: its pending commits, its vocabulary of tags, and the number of images so far."""

    id: DatasetId
    run: RunId
    attempt: int
    pending_steps: list[str]
    vocabulary: list[str]
    images: int = 0


def key_of(signer: str) -> SigningKey:
    """Always the same key for a signer."""
    return SigningKey(signer.encode().ljust(32, b"."))


@dataclass
class LogGenerator:
    """Generates commits as the services would: ids from commands, revisions, digests, sealed names. Seeded.

    `log_id`: commits are signed for this log; without one they are not.
    """

    rng: random.Random
    sequence: int = 1
    log_id: str = ""
    revisions: dict[str, StreamRevision] = field(default_factory=dict)

    def build(self, aggregate_kind: str, aggregate_id: str, *events: AnyEvent) -> tuple[Commit, StreamRevision]:
        expected = self.revisions.get(aggregate_id, StreamRevision())
        at = START_TIME + timedelta(seconds=self.sequence)
        number = int(at.timestamp() * 1000) << 80 | self.rng.getrandbits(80)
        command = CommandId(f"{number:026X}"[-26:])
        metadata = CommandMetadata(
            command_id=command, actor="user:ann", at=at, fingerprint=hashlib.sha256(aggregate_id.encode()).hexdigest()
        )
        return build_commit(
            aggregate_kind,
            aggregate_id,
            events,
            expected_revision=expected,
            metadata=metadata,
            result=ImageResult(id=aggregate_id),
        ), expected

    def encode_message(self, commit: Commit, expected: StreamRevision) -> tuple[str, bytes, dict[str, str]]:
        body = msgspec.json.encode(commit)
        self.sequence += 1
        self.revisions[commit.aggregate_id] = StreamRevision(
            self.sequence, commit.version, hashlib.sha256(body).hexdigest()
        )
        headers: dict[str, str] = {
            Header.EXPECTED_LAST_SUBJECT_SEQUENCE: str(expected.sequence),
            Header.EXPECTED_STREAM: subjects.EVENTS,
        }
        subject = subjects.aggregate(commit.aggregate_kind, commit.aggregate_id)
        if self.log_id:
            headers[SIGNATURE] = self._signer_of(commit).sign(subject, body)
        return subject, body, headers

    def key_messages(self) -> Iterator[tuple[str, bytes, dict[str, str]]]:
        """The root key and the keys of the services, before anything that they sign."""
        root = key_of("root")
        event: AnyEvent = ServiceKeyRootEstablished(public_key=root.public.hex())
        yield self.encode_message(*self.build("service-key", root.id, event))
        for service in get_args(SigningService):
            key = key_of(service)
            event = ServiceKeyRegistered(service=service, public_key=key.public.hex(), schema=SCHEMA)
            yield self.encode_message(*self.build("service-key", key.id, event))

    def _signer_of(self, commit: Commit) -> Signer:
        kind = REGISTRY.by_name[commit.aggregate_kind]
        signers = (kind.signer, *kind.writers)
        able = (one for one in signers if all(kind.may_append(one, type(event)) for event in commit.events))
        return Signer(key_of(next(able)), self.log_id)

    def generate_messages(self, commits: int) -> Iterator[tuple[str, bytes, dict[str, str]]]:
        """`commits` commits of the mix, and three opening commits for each data set."""
        active: list[SyntheticDataset] = []
        for _ in range(commits):
            if len(active) < ACTIVE_DATASETS:
                dataset = self.new_dataset(len(self.revisions))
                yield from self.opening_messages(dataset)
                active.append(dataset)
            dataset = self.rng.choice(active)
            yield self.encode_message(*self.next_commit(dataset, dataset.pending_steps.pop()))
            if not dataset.pending_steps:
                active.remove(dataset)

    def new_dataset(self, number: int) -> SyntheticDataset:
        dataset_id = DatasetId(derived("ds", f"{number}"))
        pending_steps = [
            action for action, share in MIX_PERCENT.items() for _ in range(COMMITS_PER_DATASET * share // 100)
        ]
        self.rng.shuffle(pending_steps)
        pending_steps.remove("image")
        pending_steps.append(
            "image"
        )  # taken from the end: the first commit must add an image, before anything can be edited
        vocabulary = [
            f"{self.rng.choice(ADJECTIVES)}_{self.rng.choice(NOUNS)}_{n % 17}" for n in range(VOCABULARY_SIZE)
        ]
        return SyntheticDataset(
            dataset_id, RunId(derived("run", f"{number}")), 0, pending_steps, list(dict.fromkeys(vocabulary))
        )

    def opening_messages(self, dataset: SyntheticDataset) -> Iterator[tuple[str, bytes, dict[str, str]]]:
        name = f"set {len(self.revisions)}"
        yield self.encode_message(*self.build("dataset", dataset.id, DatasetCreated(name=name)))
        all_ordinals = image_set(range(IMAGES_PER_DATASET))
        requested = TaggingRequested(
            dataset_id=dataset.id, dataset=name, model="wd", images=all_ordinals, count=IMAGES_PER_DATASET
        )
        yield self.encode_message(*self.build("tagging", dataset.run, requested, TaggingQueued(priority="normal")))
        started = TaggingAttemptStarted(worker=WorkerId("tagger"), boot="boot", resumes=0)
        yield self.encode_message(*self.build("tagging", dataset.run, started))
        dataset.attempt = self.sequence

    def next_commit(self, dataset: SyntheticDataset, action: str) -> tuple[Commit, StreamRevision]:
        if action == "image":
            dataset.images += 1
            return self.build("dataset", dataset.id, self.image_event(dataset, dataset.images - 1))
        ordinal = self.rng.randrange(dataset.images)
        if action == "predict":
            return self.build("tagging", dataset.run, self.predictions_event(dataset, ordinal))
        tags = self.sample_tags(dataset, 4)
        one = image_set([ordinal])
        return self.build("dataset", dataset.id, TagsEdited(images=one, asserted=tuple(tags[:3]), rejected=(tags[3],)))

    def sample_tags(self, dataset: SyntheticDataset, count: int) -> list[str]:
        """Distinct random tags; the first of the vocabulary are much more frequent than the last."""
        chosen: dict[str, None] = {}
        while len(chosen) < count:
            chosen[dataset.vocabulary[int(len(dataset.vocabulary) * self.rng.random() ** 3)]] = None
        return list(chosen)

    def predictions_event(self, dataset: SyntheticDataset, ordinal: int) -> TaggingPredicted:
        tags = [
            Prediction(tag=tag, probability=round(0.05 + 0.94 * self.rng.random() ** 2, 4))
            for tag in self.sample_tags(dataset, PREDICTIONS_PER_IMAGE - 4)
        ]
        ratings = [Prediction(tag=name, probability=round(self.rng.random(), 4), category="rating") for name in RATINGS]
        image = ImagePredictions(ordinal=ordinal, predictions=(*tags, *ratings))
        return TaggingPredicted(attempt=dataset.attempt, images=(image,))

    def image_event(self, dataset: SyntheticDataset, ordinal: int) -> ImageAdded:
        image_event = ImageId(derived("img", dataset.id, f"{ordinal}"))
        digests = [Digest(self.rng.randbytes(32).hex()) for _ in range(3)]
        return ImageAdded(
            ordinal=ordinal,
            image_id=image_event,
            source=digests[0],
            picture=digests[0],
            thumbnail=digests[1],
            pixels=digests[2],
            dhash=self.rng.randbytes(8).hex(),
            format="JPEG",
            width=1024,
            height=1536,
            size=self.rng.randrange(100_000, 900_000),
            name=seal(hashlib.sha256(image_event.encode()).digest(), f"holiday {ordinal:05}.jpg", "name"),
        )


async def write_log(bus: Bus, commits: int) -> int:
    """Write the log; returns its last sequence. Acknowledgements are counted on one inbox; any refusal is an error."""
    acknowledged = 0
    slots = asyncio.Semaphore(MAX_UNACKNOWLEDGED)

    async def on_ack(message: Msg) -> None:
        nonlocal acknowledged
        assert b'"error"' not in message.data, message.data
        acknowledged += 1
        slots.release()

    inbox = bus.new_inbox()
    await bus.subscribe(inbox, cb=on_ack)
    log_id, _ = await EventLog(bus).end()
    generator = LogGenerator(random.Random(4), log_id=log_id)
    sent = 0
    for subject, body, headers in itertools.chain(generator.key_messages(), generator.generate_messages(commits)):
        await slots.acquire()
        await bus.publish(subject, body, reply=inbox, headers=headers)
        sent += 1
    while acknowledged < sent:  # noqa: ASYNC110 - counted in a callback
        await asyncio.sleep(0.01)
    _, end = await EventLog(bus).end()
    assert end == generator.sequence, (end, generator.sequence)
    return end
