"""Following a job to its end, in lines on a terminal or in a log."""

import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import TextIO

from loratory.answers import Frame, Job, TaggingRun, Waiting
from loratory.client import AsyncClient, TookTooLong
from loratory.words import ENDS, of_frame, of_progress

LOOK_EVERY = 0.5
PLAIN_EVERY = 3.0
"""Seconds between two lines of progress where nothing can be overwritten."""
SETTLED = 1.0


class Lines:
    """Lines, and below them one of progress: overwritten on a terminal, now and then written anew elsewhere."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._terminal = self._out.isatty()
        self._last = 0.0
        self._line = ""

    def say(self, line: str) -> None:
        self._out.write(f"\r\033[K{line}\n" if self._terminal else f"{line}\n")
        self._out.flush()

    def progress(self, line: str) -> None:
        if self._terminal:
            self._out.write(f"\r\033[K{line}"[:200])
        elif line != self._line and time.monotonic() - self._last >= PLAIN_EVERY:
            self._last, self._line = time.monotonic(), line
            self._out.write(f"{line}\n")
        self._out.flush()


class Patience:
    """Looks at waiting work; TookTooLong when for `seconds` on end no worker was there. None: for ever.

    It says why the work waits, once for each reason that has stood for a second.
    """

    def __init__(self, seconds: float | None, say: Callable[[str], None]) -> None:
        self._seconds = seconds
        self._say = say
        self._why = ""
        self._why_since = 0.0
        self._said = ""
        self._alone_since: float | None = None

    def look(self, waiting: Waiting | None, now: float) -> None:
        alone = waiting is not None and waiting.code == "no-worker"
        self._alone_since = (now if self._alone_since is None else self._alone_since) if alone else None
        why = waiting.why if waiting else ""
        if why != self._why:
            self._why, self._why_since = why, now
        if why and why != self._said and now - self._why_since >= SETTLED:
            self._said = why
            self._say(f"waiting: {why}")
        if self._seconds is not None and self._alone_since is not None and now - self._alone_since > self._seconds:
            raise TookTooLong(f"it has waited for {self._seconds:g} s: {why}")


async def until_taken(client: AsyncClient, job_id: str, patience: Patience) -> Job:
    """Say why the job waits, until it does not any more."""
    while True:
        job = await client.job(job_id)
        waiting = job.live.waiting if job.live else None
        patience.look(waiting, time.monotonic())
        if job.status != "pending" or (waiting is None and job.phase == "draft"):
            return job
        await asyncio.sleep(LOOK_EVERY)


async def until_tagged(client: AsyncClient, run: str, patience: Patience, lines: Lines) -> TaggingRun:
    def told(now: TaggingRun) -> None:
        patience.look(now.live.waiting if now.live else None, time.monotonic())
        if now.status == "running":
            lines.progress(f"tagging  {now.done}/{now.total}")

    return await client.wait_tagging(run, told=told)


async def until_ended(
    client: AsyncClient, job_id: str, lines: Lines, told: Callable[[Frame], None] | None = None
) -> int:
    """Follow it from its first fact to its last; the exit code that says how it ended. `told` replaces the lines."""
    async with aclosing(client.watch_job(job_id)) as frames:
        async for frame in frames:
            if told:
                told(frame)
            elif frame.type == "progress_update":
                lines.progress(of_progress(frame.data))
            elif line := of_frame(frame):
                lines.say(line)
            if frame.type in ENDS:
                return ENDS[frame.type]
    raise AssertionError("watch_job ends with the fact that ends the job")
