"""Replay speed of the log into read models and archive: `python -m benchmarks.replay [COMMITS]` (default: 1 million).

The log: 25 % added images, 60 % edits of four tags of one image (three asserted, one rejected), 15 % predictions (30
for one image, about ten above the thresholds). Data sets have 1,000 images and a vocabulary of 300 tags with realistic,
skewed frequencies; four data sets are active at a time, interleaved at random. Commits are built, encoded and given
headers as in the services, and published without waiting for each acknowledgement.

Two child processes read that log in turns of TURN_COMMITS commits: the catalog's own follower, archive and read model,
and a baseline (nats-py's ordered consumer, decode, one INSERT per commit, the same batches and durability). Printed for
each: commits per second (wall clock), CPU microseconds per commit, and peak resident memory.
"""

import asyncio
import hashlib
import itertools
import random
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import msgspec
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, DeliverPolicy, Header
from pyroaring import BitMap

from catalog import views
from catalog.archive.archive import Archive
from catalog.projection import project
from catalog.store import Store
from contracts import subjects
from contracts.aggregates import REGISTRY, AnyEvent
from contracts.commands.base import CommandMetadata
from contracts.commands.datasets import ImageResult
from contracts.commits import Commit, StreamRevision, build_commit, decode
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
from contracts.telemetry import Applied
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.migration import migrate
from contracts.wire.server.accounts import Role
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import Bus, connect
from contracts.wire.service.credentials import SeedFile
from contracts.wire.service.telemetry import publish

MIX_PERCENT = {"image": 25, "edit": 60, "predict": 15}
IMAGES_PER_DATASET = 1000
COMMITS_PER_DATASET = IMAGES_PER_DATASET * 100 // MIX_PERCENT["image"]
"""Commits per data set, without its opening ones."""
ACTIVE_DATASETS = 4
VOCABULARY_SIZE = 300
PREDICTIONS_PER_IMAGE = 30
TURN_COMMITS = 50_000
MAX_BATCH_COMMITS = 8000
MAX_UNACKNOWLEDGED = 2_000
START_TIME = datetime(2026, 1, 1, tzinfo=UTC)


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
        all_ordinals = bytes(BitMap(range(IMAGES_PER_DATASET)).serialize())
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
        one = bytes(BitMap([ordinal]).serialize())
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


ADJECTIVES = ("long", "short", "red", "blue", "green", "open", "closed", "white", "black", "wet", "old", "small")
NOUNS = ("hair", "eyes", "sky", "shirt", "grass", "house", "tree", "hat", "dress", "hand", "water", "road", "cat")
RATINGS = ("general", "sensitive", "questionable", "explicit")


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


class CatalogReplay:
    """The catalog's projection loop, as `catalog.app` runs it."""

    def __init__(self, bus: Bus, folder: Path) -> None:
        self.bus = bus
        self.archive = Archive(folder)
        self.folder = folder
        self.store: Store | None = None

    async def follow(self, until: int) -> int:
        """Replay up to this sequence or a few commits further; returns the last sequence applied."""
        if self.store is None:
            self.store = Store(self.folder / "read.db", await self.archive.verify_on_start(EventLog(self.bus)), views)
            await self.archive.begin(key_of("root").public)
        reached = asyncio.Event()

        async def announce(applied: Applied) -> None:
            await publish(self.bus, applied)
            if applied.sequence >= until:
                reached.set()

        task = asyncio.create_task(project(self.bus, self.store, self.archive, announce))
        await asyncio.wait({task, asyncio.create_task(reached.wait())}, return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return self.store.applied


class BaselineReplay:
    """The minimum work: an ordered consumer, decode, one INSERT per commit; one transaction per batch received."""

    def __init__(self, bus: Bus, folder: Path) -> None:
        self.bus = bus
        self.sequence = 0
        self.connection = sqlite3.connect(folder / "baseline.db", isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = FULL")
        self.connection.execute(
            "CREATE TABLE entry (sequence INTEGER PRIMARY KEY, aggregate_kind, aggregate_id, id, at, body)"
        )

    async def follow(self, until: int) -> int:
        queue: asyncio.Queue[Msg] = asyncio.Queue(MAX_BATCH_COMMITS)
        config = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=self.sequence + 1)
        subscription = await self.bus.jetstream().subscribe(
            subjects.ALL_EVENTS,
            stream=subjects.EVENTS,
            cb=queue.put,
            config=config,
            ordered_consumer=True,
            idle_heartbeat=0.5,
        )
        while self.sequence < until:
            messages = [await queue.get()]
            while len(messages) < MAX_BATCH_COMMITS and not queue.empty():
                messages.append(queue.get_nowait())
            batch = [baseline_row(message) for message in messages]
            assert batch[0][0] == self.sequence + 1
            self.connection.execute("BEGIN")
            self.connection.executemany("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?)", batch)
            self.connection.execute("COMMIT")
            self.sequence = batch[-1][0]
        await subscription.unsubscribe()
        return self.sequence


def baseline_row(message: Msg) -> tuple[int, str, str, str, float, bytes]:
    tokens = message.reply.split(".")
    recorded = datetime.fromtimestamp(int(tokens[-2]) / 1e9, UTC)
    stored = decode(int(tokens[-4]), recorded, message.data)
    commit = stored.commit
    return stored.sequence, commit.aggregate_kind, commit.aggregate_id, commit.id, recorded.timestamp(), stored.body


@dataclass
class ReplayProcess:
    """One of the two child processes, with its totals so far (seconds, CPU seconds, peak memory in MB)."""

    name: str
    process: asyncio.subprocess.Process
    commits: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0

    async def replay_until(self, until: int) -> float:
        """Commits per second of this turn."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{until}\n".encode())
        while not (line := await self.process.stdout.readline()).startswith(b"turn "):
            if not line:
                raise RuntimeError(f"the {self.name} process ended early")
        _, reached, seconds, cpu, memory = line.split()
        speed = (int(reached) - self.commits) / float(seconds)
        self.commits, self.memory = int(reached), float(memory)
        self.seconds += float(seconds)
        self.cpu += float(cpu)
        return speed


@asynccontextmanager
async def start_process(name: str, server: EmbeddedServer, role: Role, folder: Path) -> AsyncIterator[ReplayProcess]:
    _, key = server.credentials(role)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, "--child", name, server.url, role, str(key.path), str(folder)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield ReplayProcess(name, process)
    finally:
        process.kill()
        await process.wait()


async def main(commits: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with EmbeddedServer(folder / "nats") as server:
            bus = await connect(server.url, *server.credentials("admin"), "benchmark")
            await migrate(bus, at=START_TIME, lease=15)
            end = await write_log(bus, commits)
            await bus.close()
            print(f"{end} commits written: {commits} of the mix, {end - commits} that open data sets and tagging runs")
            (folder / "catalog").mkdir()
            (folder / "baseline").mkdir()
            async with (
                start_process("baseline", server, "admin", folder / "baseline") as baseline,
                start_process("catalog", server, "catalog", folder / "catalog") as catalog,
            ):
                await run_turns(baseline, catalog, end)


async def run_turns(baseline: ReplayProcess, catalog: ReplayProcess, end: int) -> None:
    for until in itertools.chain(range(TURN_COMMITS, end - TURN_COMMITS // 2, TURN_COMMITS), [end]):
        baseline_speed, speed = await baseline.replay_until(until), await catalog.replay_until(until)
        ratio = speed / baseline_speed
        print(f"up to {until:>9}: {speed:8.0f}/s catalog, {baseline_speed:8.0f}/s baseline, ratio {ratio:.2f}")
    for child in (catalog, baseline):
        speed, cpu = child.commits / child.seconds, child.cpu / child.commits * 1e6
        print(f"{child.name}: {speed:.0f} commits/s, {cpu:.1f} CPU µs per commit, peak memory {child.memory:.0f} MB")
    print(f"ratio {baseline.seconds / catalog.seconds:.2f}")


async def run_process(name: str, url: str, role: str, key: str, folder: str) -> None:
    """Read sequences from stdin and replay up to each; not subscribed in between."""
    bus = await connect(url, role, SeedFile(Path(key)), f"benchmark-{name}")
    loop = CatalogReplay(bus, Path(folder)) if name == "catalog" else BaselineReplay(bus, Path(folder))
    while line := await asyncio.to_thread(sys.stdin.readline):
        wall, cpu = time.perf_counter(), time.process_time()
        reached = await loop.follow(int(line))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print("turn", reached, wall, cpu, memory, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        asyncio.run(run_process(*sys.argv[2:]))
    else:
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
