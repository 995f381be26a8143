"""What does an append cost over a bare publish? `python -m benchmarks.append [APPENDS] [FOLDER]`

One server that syncs always, as every embedded one does. Raw is nats-py's own client and its `js.publish` of a body of
the same size without a header of its own; ours is the whole of it: a new command id, the commit drawn up on the thing's
head, encoded, hashed, fenced, stored, its acknowledgement read. Rounds
alternate, so that what else the machine does falls on both; figures are medians. Pipelined: 64 writers at once, raw on
64 subjects, ours on 64 things, each waiting for its own acknowledgement (an append builds on the one before).
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import nats
from nats.js import JetStreamContext

from contracts.commands import Origin
from contracts.events import DatasetRenamed, TagsEdited
from contracts.ids import new_command_id
from contracts.wire.bus import connect
from contracts.wire.log import EventLog, Head, draw_up, head_of
from contracts.wire.permissions import inbox
from contracts.wire.server import EmbeddedServer
from contracts.wire.streams import migrate

THINGS = 64
ROUNDS = 9
WANTED = {"sequential": 0.8, "pipelined": 0.6}
FACT = TagsEdited(images=b"\x3b\x30" + bytes(30), asserted=("1girl", "outdoors"), rejected=("blurry", "lowres"))

Work = Callable[[str, int], Awaitable[object]]


def wished() -> Origin:
    return Origin(command=new_command_id(), actor="user:ann", at=datetime.now(UTC), fingerprint="0" * 64)


async def raw(js: JetStreamContext, body: bytes, thing: str, times: int) -> None:
    for _ in range(times):
        await js.publish(f"evt.dataset.{thing}", body)


async def ours(log: EventLog, thing: str, times: int) -> None:
    head = Head()
    for _ in range(times):
        commit = draw_up("dataset", thing, [FACT], after=head, origin=wished())
        head = head_of(await log.append(commit, head))


async def both(log: EventLog, thing: str, times: int) -> None:
    """Two things at once: one atomic batch of two messages."""
    left, right = Head(), Head()
    for _ in range(times):
        origin = wished()
        one = draw_up("dataset", thing, [FACT], after=left, origin=origin)
        two = draw_up("dataset", f"{thing}-2", [DatasetRenamed(name="cats")], after=right, origin=origin)
        left, right = map(head_of, await log.append_together([(one, left), (two, right)]))


async def rate(work: Work, name: str, times: int, *, at_once: int) -> float:
    """Appends a second."""
    began = time.perf_counter()
    await asyncio.gather(*(work(f"{name}-{number}", times // at_once) for number in range(at_once)))
    return times // at_once * at_once / (time.perf_counter() - began)


async def measure(server: EmbeddedServer, times: int) -> dict[str, list[float]]:
    admin = await connect(server.url, *server.credentials("admin"), "benchmark")
    await migrate(admin, at=datetime.now(UTC), lease=5)
    await admin.close()
    bus = await connect(server.url, *server.credentials("catalog"), "benchmark")
    user, password = server.credentials("catalog")
    plain = await nats.connect(server.url, user=user, password=password, inbox_prefix=inbox("catalog"))
    js, log = plain.jetstream(timeout=30), EventLog(bus)
    body = draw_up("dataset", "raw-0-0", [FACT], after=Head(1000, 1000, "0" * 64), origin=wished())
    sent = msgspec.json.encode(body)
    kinds: dict[str, tuple[Work, int, int]] = {
        "raw sequential": (lambda thing, count: raw(js, sent, thing, count), times, 1),
        "ours sequential": (lambda thing, count: ours(log, thing, count), times, 1),
        "raw pipelined": (lambda thing, count: raw(js, sent, thing, count), times * 5, THINGS),
        "ours pipelined": (lambda thing, count: ours(log, thing, count), times * 5, THINGS),
        "ours, two things a batch": (lambda thing, count: both(log, thing, count), times // 5, 1),
    }
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(ROUNDS + 1):
        for name, (work, count, at_once) in kinds.items():
            found = await rate(work, f"{name.replace(' ', '-').replace(',', '')}-{turn}", count, at_once=at_once)
            if turn:  # the first round warms up
                rates[name].append(found)
    await plain.close()
    await bus.close()
    return rates


async def main() -> int:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as folder:
        async with EmbeddedServer(Path(folder) / "nats") as server:
            rates = await measure(server, times)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    for name, median in medians.items():
        print(f"{name:26} {median:8.0f} a second   (from {min(rates[name]):.0f} to {max(rates[name]):.0f})")
    reached = True
    for kind, wanted in WANTED.items():
        ratio = medians[f"ours {kind}"] / medians[f"raw {kind}"]
        reached &= ratio >= wanted
        print(f"{kind}: {ratio:.2f} x raw (wanted: {wanted})")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
