"""Speed of reading the log: `python -m benchmarks.reading [MESSAGES]` (default: 100,000 of 1 kB with their headers).

Following and scanning, without decoding or storing anything, next to one leader read at a time as a measure of the
machine. Each step runs ROUNDS times in turn with the others; medians of messages per second (wall clock) and of CPU
microseconds of this process per message.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

from nats.aio.msg import Msg
from nats.js.api import Header

from contracts import subjects
from contracts.wire.log.follow import Follower
from contracts.wire.log.migration import migrate
from contracts.wire.log.scan import scan
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import Bus, connect
from contracts.wire.service.jetstream import find_message

ROUNDS = 5
BODY_BYTES = 1000
MAX_UNACKNOWLEDGED = 1000
SINGLE_READS = 1000

Step = Callable[[Bus, int], Awaitable[int]]


async def write_messages(bus: Bus, count: int) -> int:
    """Writes messages; returns the last sequence."""
    slots, body = asyncio.Semaphore(MAX_UNACKNOWLEDGED), b"." * BODY_BYTES

    async def on_ack(message: Msg) -> None:
        assert b'"error"' not in message.data, message.data
        slots.release()

    inbox = bus.new_inbox()
    await bus.subscribe(inbox, cb=on_ack)
    for number in range(count):
        await slots.acquire()
        headers: dict[str, str] = {
            Header.MSG_ID: f"01JD00000000000000{number:08}/dataset.ds_1/0",
            Header.EXPECTED_STREAM: subjects.EVENTS,
        }
        await bus.publish(subjects.aggregate("dataset", f"ds_{number % 100}"), body, reply=inbox, headers=headers)
    for _ in range(MAX_UNACKNOWLEDGED):
        await slots.acquire()
    return count + 1


async def follow(bus: Bus, end: int) -> int:
    async with aclosing(Follower(bus, 0).batches()) as batches:
        async for batch in batches:
            if batch[-1].sequence == end:
                break
    return end


async def scan_all(bus: Bus, end: int) -> int:
    messages = sum([len(batch) async for batch in scan(bus, 0, end)])
    assert messages == end
    return end


async def read_singly(bus: Bus, end: int) -> int:
    for sequence in range(1, min(SINGLE_READS, end) + 1):
        assert await find_message(bus.jetstream(), subjects.EVENTS, seq=sequence) is not None
    return min(SINGLE_READS, end)


STEPS: dict[str, Step] = {"follow": follow, "scan": scan_all, "read one by one": read_singly}


async def measure(step: Step, bus: Bus, end: int) -> tuple[float, float]:
    """Messages per second, and CPU microseconds per message."""
    clock, cpu = time.perf_counter(), time.process_time()
    messages = await step(bus, end)
    clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    return messages / clock, cpu / messages * 1e6


async def main(messages: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with EmbeddedServer(Path(folder) / "nats", durable=False) as server:
            admin = await connect(server.url, *server.credentials("admin"), "benchmark")
            await migrate(admin, at=datetime.now(UTC), lease=15)
            end = await write_messages(admin, messages)
            bus = await connect(server.url, *server.credentials("catalog"), "benchmark")
            results: dict[str, list[tuple[float, float]]] = {name: [] for name in STEPS}
            for _ in range(ROUNDS):
                for name, step in STEPS.items():
                    results[name].append(await measure(step, bus, end))
            await bus.close()
            await admin.close()
    for name, values in results.items():
        speeds, cpu = zip(*values, strict=True)
        print(f"{name:<16}{statistics.median(speeds):10,.0f}/s   {statistics.median(cpu):7.1f} CPU µs per message")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
