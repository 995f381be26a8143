"""The events of a complete run, printed by the CLI and received over a WebSocket that is disconnected repeatedly."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from contracts.frames import IMAGE_EVENTS
from demo_world import pictures as demo_pictures
from loratory import AsyncClient
from tests.acceptance.local_stack import LocalStack, cli

pytestmark = pytest.mark.slow

IMAGE_EVENT_TYPES = {kind.__struct_config__.tag for kind in IMAGE_EVENTS}
FRAMES_WITHOUT_CURSOR = frozenset(
    ("connection_established", "caught_up", "progress_update", "presence", "stale", "fresh", "bye", "pong")
)


def print_events(stack: LocalStack, after: str) -> list[dict[str, Any]]:
    """The output of `loratory events --json --after …`, one event per line."""
    printed = cli("events", "--json", "--after", after, "--url", stack.address)
    assert (printed.returncode, printed.stderr) == (0, "")
    return [msgspec.json.decode(line) for line in printed.stdout.splitlines()]


class FlakySubscriber:
    """A WebSocket client that disconnects after every few events and reconnects at its last cursor."""

    def __init__(self, stack: LocalStack, after: str) -> None:
        self._stack = stack
        self.after = after
        self.disconnects = 0
        self._rng = random.Random(7)

    async def events(self) -> AsyncGenerator[dict[str, Any], None]:
        while True:
            try:
                async with aclosing(self._until_disconnect()) as events:
                    async for event in events:
                        yield event
            except (ConnectionClosed, InvalidHandshake, OSError):  # the gateway was killed
                await asyncio.sleep(0.1)
            self.disconnects += 1

    async def _until_disconnect(self) -> AsyncGenerator[dict[str, Any], None]:
        address = f"ws://127.0.0.1:{self._stack.port}/ws/progress?after={self.after}"
        remaining = self._rng.randint(1, 8)
        async with connect(address, proxy=None) as socket:
            async for text in socket:
                frame = msgspec.json.decode(text)
                if frame["seq"] is not None:
                    self.after, remaining = frame["seq"], remaining - 1
                    yield frame
                elif frame["type"] not in FRAMES_WITHOUT_CURSOR:
                    raise AssertionError(f"an event without a cursor: {frame}")
                if remaining == 0:
                    socket.transport.abort()  # no close frame, as when a laptop is closed
                    return


async def complete_run(stack: LocalStack, folder: Path) -> str:
    """Import, tag and train while gateway, catalog and nats-server are killed in turn; returns the job id."""
    demo_pictures.write_pictures(folder, count=5, seed=11, trigger="lulu")
    async with AsyncClient(stack.address, retry_timeout=60) as client:
        await client.ensure_dataset("complete run")
        await client.import_folder("complete run", folder)
        kill(stack, "gateway")
        await client.wait_tagging((await client.tag("complete run", "demo")).id, timeout=120)
        kill(stack, "catalog")
        changes: dict[str, object] = {
            "length.count": 24,
            "save.every": 4,
            "sampling.every": 12,
            "sampling.steps": 2,
            "data.resolution": 64,
        }
        job = await client.train("complete run", preset="tiny-random-demo", trigger="lulu", changes=changes)
        victims = ["gateway", "nats", "gateway"]
        async with aclosing(client.watch_job(job.id)) as frames:
            async for frame in frames:
                if frame.type == "job.checkpointed":
                    kill(stack, victims.pop())
                    if not victims:
                        break
        assert (await client.wait_job(job.id, timeout=300)).status == "completed"
    return job.id


def kill(stack: LocalStack, service: str) -> None:
    os.kill(stack.pid(service), signal.SIGKILL)


async def receive_until(subscriber: FlakySubscriber, completed_job: asyncio.Future[str]) -> list[dict[str, Any]]:
    """All events up to the success of the job."""
    received = []
    async with aclosing(subscriber.events()) as events:
        async for event in events:
            received.append(event)
            if event["type"] == "job.succeeded" and event["subject"] == f"evt.job.{await completed_job}":
                return received
    raise AssertionError("the subscriber never stops by itself")


async def test_a_client_that_reconnects_with_after_misses_and_repeats_nothing(
    stack: LocalStack, tmp_path: Path
) -> None:
    before = await asyncio.to_thread(print_events, stack, "")
    start = before[-1]["cursor"] if before else ""
    subscriber, completed_job = FlakySubscriber(stack, start), asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as tasks:
        receiving = tasks.create_task(receive_until(subscriber, completed_job))
        completed_job.set_result(await complete_run(stack, tmp_path))
    received = receiving.result()

    printed = await asyncio.to_thread(print_events, stack, start)
    printed = printed[: [line["cursor"] for line in printed].index(subscriber.after) + 1]
    assert [event["seq"] for event in received] == [line["cursor"] for line in printed]
    for event, line in zip(received, printed, strict=True):
        assert event["type"] == line["type"] == line["data"]["type"]
        assert event["subject"] == f"evt.{line['aggregate_kind']}.{line['aggregate_id']}"
        assert event["time"] == line["time"]
        printed_data = line["data"] | {"actor": line["actor"], "command_id": line["command_id"]}
        if event["type"] in IMAGE_EVENT_TYPES:  # the frame has ids instead of a bitmap
            images = event["data"].pop("images")
            printed_data.pop("images", None)
            assert 0 < len(images["ids"]) == images["count"] <= 5
        assert event["data"] == printed_data
    assert subscriber.disconnects > 5

    types = [line["type"] for line in printed]
    milestones = [
        "dataset.created",
        "dataset.image_added",
        "tagging.requested",
        "tagging.predicted",
        "tagging.succeeded",
        "job.created",
        "dataset.version_frozen",
        "job.version_set",
        "job.queued",
        "job.attempt_started",
        "job.planned",
        "job.checkpointed",
        "job.succeeded",
    ]
    assert [types.index(name) for name in milestones] == sorted(types.index(name) for name in milestones)
    assert types.count("job.succeeded") == 1
    for line in printed:
        assert line["sequence"] > 0 and datetime.fromisoformat(line["time"]).tzinfo and line["actor"]
    commands = {line["command_id"] for line in printed}
    assert all(line["causation_id"].partition("/")[0] in commands for line in printed)
    # Each event of the trainer leads back to the job's command: the attempt to job.queued, the rest to the attempt.
    ((job_command, request),) = {
        (line["command_id"], line["correlation_id"]) for line in printed if line["type"] == "job.queued"
    }
    (attempt,) = [line for line in printed if line["type"] == "job.attempt_started"]
    assert attempt["causation_id"].startswith(f"{job_command}/job.")
    by_trainer = [line for line in printed if line["actor"].startswith("svc:trainer/")]
    assert {line["correlation_id"] for line in by_trainer} == {request}
    assert {line["causation_id"].partition("/")[0] for line in by_trainer[1:]} == {attempt["command_id"]}


def test_a_cursor_in_the_middle_returns_the_events_after_it(stack: LocalStack, finished: object) -> None:
    events = print_events(stack, "")
    sequences = [event["sequence"] for event in events]
    assert sequences == sorted(sequences)
    for position in (0, len(events) // 2, len(events) - 1):
        assert print_events(stack, events[position]["cursor"]) == events[position + 1 :]


def test_a_cursor_of_another_log_is_refused_in_one_sentence(stack: LocalStack) -> None:
    printed = cli("events", "--after", "some-other-log.7", "--url", stack.address)
    assert (printed.returncode, printed.stdout) == (1, "")
    assert printed.stderr.count("\n") == 1
    assert "log" in printed.stderr
