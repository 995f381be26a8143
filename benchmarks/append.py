"""Cost of an append compared with a bare publish: `python -m benchmarks.append [APPENDS] [FOLDER]`.

One server with `sync_interval: always`, like every embedded one. Raw: nats-py's own client and `js.publish` of a body
of the same size without headers. Append: everything an append does, i.e. a new command id, building, encoding, hashing
and publishing a commit with its expected revision, and reading the acknowledgement. Rounds alternate, so that other
load affects both; figures are medians. Pipelined: 64 concurrent writers, each on a subject (an aggregate) of
its own and waiting for its own acknowledgement, since an append builds on the one before.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec
from nats.aio.client import Client
from nats.js import JetStreamContext

from contracts import subjects
from contracts.commands.base import CommandMetadata
from contracts.commits import StreamRevision, build_commit, revision_of
from contracts.events.datasets import DatasetRenamed, TagsEdited
from contracts.events.image_sets import ImageSet
from contracts.ids import new_command_id
from contracts.signatures import Signer, SigningKey
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.migration import migrate
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import connect

WRITERS = 64
ROUNDS = 9
MIN_RATIOS = {"sequential": 0.8, "pipelined": 0.6}
"""Required rates of appends relative to raw publishes."""
EVENT = TagsEdited(
    images=ImageSet(count=1, bitmap=b"\x3b\x30" + bytes(30)),
    asserted=("1girl", "outdoors"),
    rejected=("blurry", "lowres"),
)

Run = Callable[[str, int], Awaitable[object]]


def new_metadata() -> CommandMetadata:
    return CommandMetadata(command_id=new_command_id(), actor="user:ann", at=datetime.now(UTC), fingerprint="0" * 64)


async def publish_raw(js: JetStreamContext, body: bytes, aggregate_id: str, count: int) -> None:
    for _ in range(count):
        await js.publish(f"evt.dataset.{aggregate_id}", body)


async def append_commits(log: EventLog, aggregate_id: str, count: int) -> None:
    revision = StreamRevision()
    for _ in range(count):
        commit = build_commit("dataset", aggregate_id, [EVENT], expected_revision=revision, metadata=new_metadata())
        revision = revision_of(await log.append(commit, revision))


async def append_pairs(log: EventLog, aggregate_id: str, count: int) -> None:
    """Append to two aggregates at once: one atomic batch of two messages."""
    revisions = StreamRevision(), StreamRevision()
    for _ in range(count):
        metadata = new_metadata()
        first = build_commit("dataset", aggregate_id, [EVENT], expected_revision=revisions[0], metadata=metadata)
        renamed = DatasetRenamed(name="cats")
        other_id = f"{aggregate_id}-2"
        second = build_commit("dataset", other_id, [renamed], expected_revision=revisions[1], metadata=metadata)
        recorded = await log.append_atomically([(first, revisions[0]), (second, revisions[1])])
        revisions = revision_of(recorded[0]), revision_of(recorded[1])


async def measure_rate(run: Run, name: str, total: int, *, concurrency: int) -> float:
    """Appends per second, with `concurrency` writers on aggregates of their own."""
    count = total // concurrency
    started = time.perf_counter()
    await asyncio.gather(*(run(f"{name}-{number}", count) for number in range(concurrency)))
    return count * concurrency / (time.perf_counter() - started)


async def connect_raw(server: EmbeddedServer) -> Client:
    """The client of nats-py as it is."""
    role, file = server.credentials("catalog")
    client, (_, key) = Client(), file.read()
    client._public_nkey = key.public  # otherwise it needs the package `nkeys`, to read the same file
    await client.connect(server.url, user=role, signature_cb=key.sign, inbox_prefix=subjects.inbox(role))
    return client


async def measure(server: EmbeddedServer, appends: int) -> dict[str, list[float]]:
    """Rates of all cases, one for each round."""
    admin = await connect(server.url, *server.credentials("admin"), "benchmark")
    await migrate(admin, at=datetime.now(UTC), lease=5)
    await admin.close()
    bus = await connect(server.url, *server.credentials("catalog"), "benchmark")
    raw_client = await connect_raw(server)
    js, log = raw_client.jetstream(timeout=30), EventLog(bus)
    log.signer = Signer(SigningKey.generate(), (await log.end())[0])
    commit = build_commit(
        "dataset", "raw-0-0", [EVENT], expected_revision=StreamRevision(1000, 1000, "0" * 64), metadata=new_metadata()
    )
    raw = partial(publish_raw, js, msgspec.json.encode(commit))
    append, pairs = partial(append_commits, log), partial(append_pairs, log)
    cases: dict[str, tuple[Run, int, int]] = {
        "raw sequential": (raw, appends, 1),
        "append sequential": (append, appends, 1),
        "raw pipelined": (raw, appends * 5, WRITERS),
        "append pipelined": (append, appends * 5, WRITERS),
        "append to two aggregates": (pairs, appends // 5, 1),
    }
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(ROUNDS + 1):
        for name, (run, total, concurrency) in cases.items():
            rate = await measure_rate(run, f"{name.replace(' ', '-')}-{number}", total, concurrency=concurrency)
            if number:  # the first round is a warm-up
                rates[name].append(rate)
    await raw_client.close()
    await bus.close()
    return rates


async def main() -> int:
    appends = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as folder:
        async with EmbeddedServer(Path(folder) / "nats") as server:
            rates = await measure(server, appends)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, median in medians.items():
        print(f"{name:26} {median:8.0f} per second   (from {min(rates[name]):.0f} to {max(rates[name]):.0f})")
    passed = True
    for mode, min_ratio in MIN_RATIOS.items():
        ratio = medians[f"append {mode}"] / medians[f"raw {mode}"]
        passed &= ratio >= min_ratio
        print(f"{mode}: {ratio:.2f} x raw (required: {min_ratio})")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
