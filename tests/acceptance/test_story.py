"""The whole story of a run, from its first picture to its LoRA: printed, and heard over a line that breaks."""

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

from loratory import AsyncClient
from tests.acceptance.house import House, cli
from trainer.demo import pictures as drawn

pytestmark = [pytest.mark.slow]

OWN_FRAMES = frozenset(
    ("connection_established", "caught_up", "progress_update", "presence", "stale", "fresh", "bye", "pong")
)


def told(house: House, after: str) -> list[dict[str, Any]]:
    """What `loratory events --after …` prints, line by line."""
    printed = cli("events", "--after", after, "--url", house.address)
    assert (printed.returncode, printed.stderr) == (0, "")
    return [msgspec.json.decode(line) for line in printed.stdout.splitlines()]


class Ear:
    """A WebSocket client whose line is cut after every few facts; it goes on where it stood."""

    def __init__(self, house: House, after: str) -> None:
        self._house = house
        self.after = after
        self.cuts = 0
        self._chance = random.Random(7)

    async def facts(self) -> AsyncGenerator[dict[str, Any], None]:
        while True:
            try:
                async with aclosing(self._until_cut()) as facts:
                    async for fact in facts:
                        yield fact
            except (ConnectionClosed, InvalidHandshake, OSError):  # the gateway was killed
                await asyncio.sleep(0.1)
            self.cuts += 1

    async def _until_cut(self) -> AsyncGenerator[dict[str, Any], None]:
        address = f"ws://127.0.0.1:{self._house.port}/ws/progress?after={self.after}"
        left = self._chance.randint(1, 8)
        async with connect(address, proxy=None) as socket:
            async for text in socket:
                frame = msgspec.json.decode(text)
                if frame["seq"] is not None:
                    self.after, left = frame["seq"], left - 1
                    yield frame
                elif frame["type"] not in OWN_FRAMES:
                    raise AssertionError(f"a fact without a cursor: {frame}")
                if left == 0:
                    socket.transport.abort()  # no goodbye: as when a laptop is closed
                    return


async def whole_run(house: House, folder: Path) -> str:
    """Pictures, tags, training; gateway, catalog and nats-server are killed in turn. The id of the finished job."""
    drawn.write(folder, count=5, seed=11, trigger="lulu")
    async with AsyncClient(house.address, patience=60) as client:
        await client.ensure_dataset("a story")
        await client.import_folder("a story", folder)
        kill(house, "gateway")
        await client.wait_tagging((await client.tag("a story")).id, timeout=120)
        kill(house, "catalog")
        changes = {
            "length.count": 24,
            "save.every": 4,
            "sampling.every": 12,
            "sampling.steps": 2,
            "data.resolution": 64,
        }
        job = await client.train("a story", preset="stand-in-demo", trigger="lulu", changes=changes)
        victims = ["gateway", "nats", "gateway"]
        async with aclosing(client.watch_job(job.id)) as frames:
            async for frame in frames:
                if frame.type == "job.checkpointed":
                    kill(house, victims.pop())
                    if not victims:
                        break
        assert (await client.wait_job(job.id, timeout=300)).status == "completed"
    return job.id


def kill(house: House, service: str) -> None:
    os.kill(house.pid(service), signal.SIGKILL)


async def heard_until(ear: Ear, ends: asyncio.Future[str]) -> list[dict[str, Any]]:
    """All facts up to the one with which the job succeeded."""
    heard = []
    async with aclosing(ear.facts()) as facts:
        async for fact in facts:
            heard.append(fact)
            if fact["type"] == "job.succeeded" and fact["subject"] == f"evt.job.{await ends}":
                return heard
    raise AssertionError("an ear listens for ever")


async def test_who_reconnects_with_after_misses_and_repeats_nothing(house: House, tmp_path: Path) -> None:
    before = await asyncio.to_thread(told, house, "")
    start = before[-1]["cursor"] if before else ""
    ear, ends = Ear(house, start), asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as tasks:
        hearing = tasks.create_task(heard_until(ear, ends))
        ends.set_result(await whole_run(house, tmp_path))
    heard = hearing.result()

    story = await asyncio.to_thread(told, house, start)
    story = story[: [line["cursor"] for line in story].index(ear.after) + 1]
    assert [fact["seq"] for fact in heard] == [line["cursor"] for line in story]
    for fact, line in zip(heard, story, strict=True):
        assert fact["type"] == line["type"] == line["data"]["type"]
        assert fact["subject"] == f"evt.{line['kind']}.{line['thing']}"
        assert fact["time"] == line["time"]
        assert fact["data"] == line["data"] | {"actor": line["actor"], "command": line["command"]}
    assert ear.cuts > 5

    types = [line["type"] for line in story]
    chapters = [
        "dataset.created",
        "dataset.image_added",
        "tagging.requested",
        "tagging.predicted",
        "tagging.succeeded",
        "dataset.version_frozen",
        "job.created",
        "job.queued",
        "job.attempt_started",
        "job.planned",
        "job.checkpointed",
        "job.succeeded",
    ]
    assert [types.index(chapter) for chapter in chapters] == sorted(types.index(chapter) for chapter in chapters)
    assert types.count("job.succeeded") == 1
    for line in story:
        assert line["sequence"] > 0 and datetime.fromisoformat(line["time"]).tzinfo and line["actor"]
    commands = {line["command"] for line in story}
    assert all(line["causation"].partition("/")[0] in commands for line in story)
    # Every fact of the trainer leads back to the wish for the job: attempt ← queued, all else ← attempt.
    (asked,) = {line["command"] for line in story if line["type"] == "job.queued"}
    (attempt,) = [line for line in story if line["type"] == "job.attempt_started"]
    assert attempt["causation"].startswith(f"{asked}/job.")
    of_trainer = [line for line in story if line["actor"].startswith("svc:trainer/")]
    assert {line["correlation"] for line in of_trainer} == {asked}
    assert {line["causation"].partition("/")[0] for line in of_trainer[1:]} == {attempt["command"]}


def test_a_cursor_in_the_middle_goes_on_behind_it(house: House, finished: object) -> None:
    story = told(house, "")
    sequences = [line["sequence"] for line in story]
    assert sequences == sorted(sequences)
    for place in (0, len(story) // 2, len(story) - 1):
        assert told(house, story[place]["cursor"]) == story[place + 1 :]


def test_a_cursor_of_another_log_is_one_clear_sentence(house: House) -> None:
    printed = cli("events", "--after", "some-other-log.7", "--url", house.address)
    assert (printed.returncode, printed.stdout) == (1, "")
    assert printed.stderr.count("\n") == 1
    assert "log" in printed.stderr
