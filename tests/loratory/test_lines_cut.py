"""Who watches or waits notices nothing of a gateway that dies but a pause."""

import asyncio
import os
import signal
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from loratory import AsyncClient
from loratory.answers import Job
from loratory.stack import Stack
from tests.loratory.test_stack import ENVIRON, NO_WORKERS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the local stack needs POSIX")


async def test_a_watcher_and_a_waiter_outlive_the_gateway(tmp_path: Path, pictures: Path) -> None:
    async with (
        Stack(tmp_path / "data", environ=ENVIRON, port=0, without=NO_WORKERS) as stack,
        AsyncClient(stack.address, patience=60) as client,
        asyncio.timeout(120),
    ):
        await stack.wait_ready()
        await client.create_dataset("squares")
        await client.import_folder("squares", pictures)
        job = await client.train("squares", preset="stand-in-demo")
        begun = asyncio.Event()
        watching = asyncio.create_task(_watched(client, job.id, begun))
        following = asyncio.create_task(_followed(client, job.id))
        waiting: asyncio.Task[Job] = asyncio.create_task(client.wait_job(job.id))
        await begun.wait()
        gateway = stack.pid_of("gateway")
        assert gateway is not None
        os.kill(gateway, signal.SIGKILL)
        await client.cancel_job(job.id)
        assert (await waiting).status == "cancelled"
        story = [event.cursor async for event in client.events(thing=job.id)]
        assert (await watching, await following) == (story, story)


async def _watched(client: AsyncClient, job: str, begun: asyncio.Event) -> list[str]:
    """The cursors of all its facts; `begun` is set when the first has come."""
    seen = []
    async for frame in client.watch_job(job):
        if frame.seq is not None:
            seen.append(frame.seq)
            begun.set()
    return seen


async def _followed(client: AsyncClient, job: str) -> list[str]:
    """The cursors of all its facts, as the stream of events has them."""
    seen = []
    async with aclosing(client.events(thing=job, follow=True)) as events:
        async for event in events:
            seen.append(event.cursor)
            if event.type == "job.cancelled":
                break
    return seen
