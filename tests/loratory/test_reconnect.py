"""Clients that watch or wait survive a restart of the gateway."""

import asyncio
import os
import signal
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from loratory import AsyncClient
from loratory.responses import Job
from loratory.stack import Stack
from tests.loratory.test_stack import ENVIRON, NO_WORKERS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the local stack needs POSIX")


async def test_watching_following_and_waiting_survive_a_killed_gateway(tmp_path: Path, image_folder: Path) -> None:
    async with (
        Stack(tmp_path / "data", environ=ENVIRON, port=0, without=NO_WORKERS) as stack,
        AsyncClient(stack.address, retry_timeout=60) as client,
        asyncio.timeout(120),
    ):
        await stack.wait_ready()
        await client.create_dataset("squares")
        await client.import_folder("squares", image_folder)
        job = await client.train("squares", preset="tiny-random-demo")
        first_event = asyncio.Event()
        watching = asyncio.create_task(_watch_cursors(client, job.id, first_event))
        following = asyncio.create_task(_follow_cursors(client, job.id))
        waiting: asyncio.Task[Job] = asyncio.create_task(client.wait_job(job.id))
        await first_event.wait()
        gateway = stack.pid_of("gateway")
        assert gateway is not None
        os.kill(gateway, signal.SIGKILL)
        await client.cancel_job(job.id)
        assert (await waiting).status == "cancelled"
        events = [event.cursor async for event in client.events(aggregate_id=job.id)]
        assert (await watching, await following) == (events, events)


async def _watch_cursors(client: AsyncClient, job: str, first_event: asyncio.Event) -> list[str]:
    """The cursors of all its events from the WebSocket; sets `first_event` after the first."""
    cursors = []
    async for frame in client.watch_job(job):
        if frame.seq is not None:
            cursors.append(frame.seq)
            first_event.set()
    return cursors


async def _follow_cursors(client: AsyncClient, job: str) -> list[str]:
    """The cursors of all its events from the event stream."""
    cursors = []
    async with aclosing(client.events(aggregate_id=job, follow=True)) as events:
        async for event in events:
            cursors.append(event.cursor)
            if event.type == "job.cancelled":
                break
    return cursors
