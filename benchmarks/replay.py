"""How fast is a log replayed into all read models and the archive? `python -m benchmarks.replay [COMMITS]` (a million).

The log: 25 % an image added, 60 % edits of four tags of one image (three asserted, one rejected), 15 % predictions (30
of one image, about ten above the thresholds). Images lie in data sets of 1,000, each with a vocabulary of 300 tags used
as unevenly as tags are; four data sets are worked on at a time, in any order. Commits are drawn up, encoded and given
headers as the services do it, and published without waiting for each acknowledgement.

Two children follow that log in turns of TURN commits: the catalog's own follower, archive and read model, and a bare
loop (nats-py's ordered consumer, decode, one INSERT a commit, the same batches and durability). Printed for each:
commits a second (wall clock), CPU microseconds a commit, and the peak of its resident memory.
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

import msgspec
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, DeliverPolicy, Header
from pyroaring import BitMap

from catalog import views
from catalog.archive import Archive
from catalog.projection import project
from catalog.store import Store
from contracts import events as e
from contracts import subjects
from contracts.commands import Origin, Receipt
from contracts.ids import CommandId, DatasetId, Digest, ImageId, RunId, WorkerId, derived
from contracts.sealed import seal
from contracts.subjects import Kind
from contracts.telemetry import Applied
from contracts.wire import follow
from contracts.wire.bus import Bus, connect
from contracts.wire.log import EventLog, Head, decode, draw_up
from contracts.wire.server import EmbeddedServer
from contracts.wire.streams import migrate
from contracts.wire.telling import tell_applied

MIX = {"image": 25, "edit": 60, "predict": 15}
IMAGES = 1000
ROUND = IMAGES * 100 // MIX["image"]
"""Commits in the life of one data set."""
OPEN = 4
VOCABULARY = 300
PREDICTIONS = 30
TURN = 50_000
UNACKNOWLEDGED = 2_000
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Made:
    """A data set as its log is written: what is still to come, how many images there are, its words."""

    id: DatasetId
    run: RunId
    attempt: int
    deck: list[str]
    words: list[str]
    images: int = 0


@dataclass
class Maker:
    """Writes commits as the services would: ids from commands, heads, digests, sealed names. Seeded."""

    chance: random.Random
    sequence: int = 1
    heads: dict[str, Head] = field(default_factory=dict)

    def draw(self, kind: Kind, thing: str, *facts: e.AnyFact) -> tuple[e.Commit, Head]:
        after = self.heads.get(thing, Head())
        at = START + timedelta(seconds=self.sequence)
        number = int(at.timestamp() * 1000) << 80 | self.chance.getrandbits(80)
        command = CommandId(f"{number:026X}"[-26:])
        origin = Origin(
            command=command, actor="user:ann", at=at, fingerprint=hashlib.sha256(thing.encode()).hexdigest()
        )
        return draw_up(kind, thing, facts, after=after, origin=origin, answer=Receipt(id=thing)), after

    def message(self, commit: e.Commit, after: Head) -> tuple[str, bytes, dict[str, str]]:
        body = msgspec.json.encode(commit)
        self.sequence += 1
        self.heads[commit.thing] = Head(self.sequence, commit.version, hashlib.sha256(body).hexdigest())
        headers = {
            Header.MSG_ID: commit.id,
            Header.EXPECTED_LAST_SUBJECT_SEQUENCE: str(after.sequence),
            Header.EXPECTED_STREAM: subjects.FACTS,
        }
        return subjects.fact(commit.kind, commit.thing), body, headers

    def messages(self, commits: int) -> Iterator[tuple[str, bytes, dict[str, str]]]:
        """That many commits of the mix, and three more for each data set they begin."""
        active: list[Made] = []
        for _ in range(commits):
            if len(active) < OPEN:
                made = self.begun(len(self.heads))
                yield from self.prelude(made)
                active.append(made)
            made = self.chance.choice(active)
            yield self.message(*self.step(made, made.deck.pop()))
            if not made.deck:
                active.remove(made)

    def begun(self, number: int) -> Made:
        dataset = DatasetId(derived("ds", f"{number}"))
        deck = [what for what, share in MIX.items() for _ in range(ROUND * share // 100)]
        self.chance.shuffle(deck)
        deck.remove("image")
        deck.append("image")  # it is dealt from the end: nothing can be edited before there is an image
        words = [f"{self.chance.choice(ADJECTIVES)}_{self.chance.choice(NOUNS)}_{n % 17}" for n in range(VOCABULARY)]
        return Made(dataset, RunId(derived("run", f"{number}")), 0, deck, list(dict.fromkeys(words)))

    def prelude(self, made: Made) -> Iterator[tuple[str, bytes, dict[str, str]]]:
        name = f"set {len(self.heads)}"
        yield self.message(*self.draw("dataset", made.id, e.DatasetCreated(name=name)))
        everything = bytes(BitMap(range(IMAGES)).serialize())
        asked = e.TaggingRequested(dataset_id=made.id, dataset=name, model="wd", images=everything, count=IMAGES)
        yield self.message(*self.draw("tagging", made.run, asked, e.TaggingQueued(priority="normal")))
        started = e.TaggingAttemptStarted(worker=WorkerId("tagger"), boot="boot", resumes=0)
        yield self.message(*self.draw("tagging", made.run, started))
        made.attempt = self.sequence

    def step(self, made: Made, what: str) -> tuple[e.Commit, Head]:
        if what == "image":
            made.images += 1
            return self.draw("dataset", made.id, self.image(made, made.images - 1))
        ordinal = self.chance.randrange(made.images)
        if what == "predict":
            return self.draw("tagging", made.run, self.predicted(made, ordinal))
        tags = self.words(made, 4)
        one = bytes(BitMap([ordinal]).serialize())
        return self.draw("dataset", made.id, e.TagsEdited(images=one, asserted=tuple(tags[:3]), rejected=(tags[3],)))

    def words(self, made: Made, count: int) -> list[str]:
        """Different tags; the first of the vocabulary are much more used than the last."""
        chosen: dict[str, None] = {}
        while len(chosen) < count:
            chosen[made.words[int(len(made.words) * self.chance.random() ** 3)]] = None
        return list(chosen)

    def predicted(self, made: Made, ordinal: int) -> e.TaggingPredicted:
        seen = [
            e.Prediction(tag=tag, probability=round(0.05 + 0.94 * self.chance.random() ** 2, 4))
            for tag in self.words(made, PREDICTIONS - 4)
        ]
        ratings = [
            e.Prediction(tag=name, probability=round(self.chance.random(), 4), category="rating") for name in RATINGS
        ]
        image = e.ImagePredictions(ordinal=ordinal, predictions=(*seen, *ratings))
        return e.TaggingPredicted(attempt=made.attempt, images=(image,))

    def image(self, made: Made, ordinal: int) -> e.ImageAdded:
        image = ImageId(derived("img", made.id, f"{ordinal}"))
        digests = [Digest(self.chance.randbytes(32).hex()) for _ in range(3)]
        return e.ImageAdded(
            ordinal=ordinal,
            image_id=image,
            source=digests[0],
            picture=digests[0],
            thumbnail=digests[1],
            pixels=digests[2],
            dhash=self.chance.randbytes(8).hex(),
            format="JPEG",
            width=1024,
            height=1536,
            size=self.chance.randrange(100_000, 900_000),
            name=seal(hashlib.sha256(image.encode()).digest(), f"holiday {ordinal:05}.jpg", "name"),
        )


ADJECTIVES = ("long", "short", "red", "blue", "green", "open", "closed", "white", "black", "wet", "old", "small")
NOUNS = ("hair", "eyes", "sky", "shirt", "grass", "house", "tree", "hat", "dress", "hand", "water", "road", "cat")
RATINGS = ("general", "sensitive", "questionable", "explicit")


async def write_log(bus: Bus, commits: int) -> int:
    """The log's last sequence. Acknowledgements are counted on one inbox; a refused commit is an error."""
    acks = 0
    room = asyncio.Semaphore(UNACKNOWLEDGED)

    async def heard(message: Msg) -> None:
        nonlocal acks
        assert b'"error"' not in message.data, message.data
        acks += 1
        room.release()

    inbox = bus.new_inbox()
    await bus.subscribe(inbox, cb=heard)
    maker = Maker(random.Random(4))
    sent = 0
    for subject, body, headers in maker.messages(commits):
        await room.acquire()
        await bus.publish(subject, body, reply=inbox, headers=headers)
        sent += 1
    while acks < sent:  # noqa: ASYNC110 - it is counted in a callback
        await asyncio.sleep(0.01)
    _, end = await EventLog(bus).end()
    assert end == maker.sequence, (end, maker.sequence)
    return end


class Real:
    """The catalog's loop, as `catalog.app` runs it."""

    def __init__(self, bus: Bus, folder: Path) -> None:
        self.bus = bus
        self.archive = Archive(folder)
        self.folder = folder
        self.store: Store | None = None

    async def follow(self, until: int) -> int:
        """Up to this sequence or a few commits further; where it came to."""
        if self.store is None:
            self.store = Store(self.folder / "read.db", await self.archive.judge(EventLog(self.bus)), views)
        there = asyncio.Event()

        async def announce(applied: Applied) -> None:
            await tell_applied(self.bus, applied)
            if applied.sequence >= until:
                there.set()

        task = asyncio.create_task(project(self.bus, self.store, self.archive, announce))
        await asyncio.wait({task, asyncio.create_task(there.wait())}, return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return self.store.applied


class Bare:
    """The least there is: an ordered consumer, decode, one INSERT a commit; a transaction for what has come."""

    def __init__(self, bus: Bus, folder: Path) -> None:
        self.bus = bus
        self.sequence = 0
        self.connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = FULL")
        self.connection.execute("CREATE TABLE entry (sequence INTEGER PRIMARY KEY, kind, thing, id, at, body)")

    async def follow(self, until: int) -> int:
        queue: asyncio.Queue[Msg] = asyncio.Queue(follow.BATCH)
        config = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=self.sequence + 1)
        subscription = await self.bus.jetstream().subscribe(
            subjects.ALL_FACTS,
            stream=subjects.FACTS,
            cb=queue.put,
            config=config,
            ordered_consumer=True,
            idle_heartbeat=0.5,
        )
        while self.sequence < until:
            messages = [await queue.get()]
            while len(messages) < follow.BATCH and not queue.empty():
                messages.append(queue.get_nowait())
            batch = [bare_row(message) for message in messages]
            assert batch[0][0] == self.sequence + 1
            self.connection.execute("BEGIN")
            self.connection.executemany("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?)", batch)
            self.connection.execute("COMMIT")
            self.sequence = batch[-1][0]
        await subscription.unsubscribe()
        return self.sequence


def bare_row(message: Msg) -> tuple[int, str, str, str, float, bytes]:
    tokens = message.reply.split(".")
    recorded = datetime.fromtimestamp(int(tokens[-2]) / 1e9, UTC)
    stored = decode(int(tokens[-4]), recorded, message.data)
    commit = stored.commit
    return stored.sequence, commit.kind, commit.thing, commit.id, recorded.timestamp(), stored.body


@dataclass
class Child:
    """One of the two, and what it took so far."""

    name: str
    process: asyncio.subprocess.Process
    commits: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0

    async def go(self, until: int) -> float:
        """Commits a second of this turn."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{until}\n".encode())
        while not (line := await self.process.stdout.readline()).startswith(b"turn "):
            if not line:
                raise RuntimeError(f"the {self.name} loop ended early")
        _, reached, seconds, cpu, memory = line.split()
        speed = (int(reached) - self.commits) / float(seconds)
        self.commits, self.memory = int(reached), float(memory)
        self.seconds += float(seconds)
        self.cpu += float(cpu)
        return speed


@asynccontextmanager
async def child(name: str, url: str, password: str, folder: Path) -> AsyncIterator[Child]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, "--child", name, url, password, str(folder)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Child(name, process)
    finally:
        process.kill()
        await process.wait()


async def main(commits: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with EmbeddedServer(folder / "nats") as server:
            user, password = server.credentials("admin")
            bus = await connect(server.url, user, password, "benchmark")
            await migrate(bus, at=START, lease=15)
            end = await write_log(bus, commits)
            await bus.close()
            print(f"{end} commits written: {commits} of the mix, {end - commits} that begin data sets and runs")
            user, password = server.credentials("catalog")
            (folder / "real").mkdir()
            (folder / "bare").mkdir()
            async with (
                child("bare", server.url, password, folder / "bare") as least,
                child("real", server.url, password, folder / "real") as whole,
            ):
                await in_turns(least, whole, end)


async def in_turns(least: Child, whole: Child, end: int) -> None:
    for until in itertools.chain(range(TURN, end, TURN), [end]):
        bare_speed, speed = await least.go(until), await whole.go(until)
        print(f"up to {until:>9}: {speed:8.0f}/s replayed, {bare_speed:8.0f}/s bare, ratio {speed / bare_speed:.2f}")
    for one in (whole, least):
        speed, cpu = one.commits / one.seconds, one.cpu / one.commits * 1e6
        print(f"{one.name}: {speed:.0f} commits/s, {cpu:.1f} CPU µs a commit, peak memory {one.memory:.0f} MB")
    print(f"ratio {least.seconds / whole.seconds:.2f}")


async def run_child(name: str, url: str, password: str, folder: str) -> None:
    """Each line of its input is a sequence to follow the log up to; between two it is not subscribed."""
    bus = await connect(url, "catalog", password, f"benchmark-{name}")
    loop = Real(bus, Path(folder)) if name == "real" else Bare(bus, Path(folder))
    while line := await asyncio.to_thread(sys.stdin.readline):
        wall, cpu = time.perf_counter(), time.process_time()
        reached = await loop.follow(int(line))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print("turn", reached, wall, cpu, memory, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        asyncio.run(run_child(*sys.argv[2:]))
    else:
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
