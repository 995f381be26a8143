"""Following jobs and tagging runs to their end, printed on a terminal or into a log."""

import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import TextIO

from loratory.client import AsyncClient, WaitTimeout
from loratory.messages import EXIT_CODES, describe_frame, format_progress
from loratory.responses import Frame, Job, TaggingRun, WaitReason

POLL_SECONDS = 0.5
LOG_PROGRESS_SECONDS = 3.0
"""Minimum time between two progress lines where the previous one cannot be overwritten."""
STABLE_REASON_SECONDS = 1.0
"""A reason for waiting is printed once it has not changed for this long."""


class ProgressWriter:
    """Prints lines and a progress line, which is overwritten on a terminal and repeated at intervals elsewhere."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._terminal = self._out.isatty()
        self._last_progress = 0.0
        self._last_line = ""

    def line(self, text: str) -> None:
        self._out.write(f"\r\033[K{text}\n" if self._terminal else f"{text}\n")
        self._out.flush()

    def progress(self, text: str) -> None:
        if self._terminal:
            self._out.write(f"\r\033[K{text}"[:200])
        elif text != self._last_line and time.monotonic() - self._last_progress >= LOG_PROGRESS_SECONDS:
            self._last_progress, self._last_line = time.monotonic(), text
            self._out.write(f"{text}\n")
        self._out.flush()


class WorkerWait:
    """Prints why work is waiting; WaitTimeout after `timeout` seconds in a row without any worker. None: no timeout."""

    def __init__(self, timeout: float | None, write_line: Callable[[str], None]) -> None:
        self._timeout = timeout
        self._write_line = write_line
        self._reason = ""
        self._reason_since = 0.0
        self._printed_reason = ""
        self._no_worker_since: float | None = None

    def check(self, waiting: WaitReason | None, now: float) -> None:
        no_worker = waiting is not None and waiting.code == "no-worker"
        self._no_worker_since = (now if self._no_worker_since is None else self._no_worker_since) if no_worker else None
        reason = waiting.sentence if waiting else ""
        if reason != self._reason:
            self._reason, self._reason_since = reason, now
        if reason and reason != self._printed_reason and now - self._reason_since >= STABLE_REASON_SECONDS:
            self._printed_reason = reason
            self._write_line(f"Waiting: {reason}")
        since = self._no_worker_since
        if self._timeout is not None and since is not None and now - since > self._timeout:
            raise WaitTimeout(f"no worker for {self._timeout:g} s: {reason}")


async def wait_until_started(client: AsyncClient, job_id: str, wait: WorkerWait) -> Job:
    """Print why the job is waiting until it starts (or ends, or turns out to be a draft)."""
    while True:
        job = await client.job(job_id)
        waiting = job.live.waiting if job.live else None
        wait.check(waiting, time.monotonic())
        if job.status != "pending" or (waiting is None and job.phase == "draft"):
            return job
        await asyncio.sleep(POLL_SECONDS)


async def follow_tagging(client: AsyncClient, run: str, wait: WorkerWait, writer: ProgressWriter) -> TaggingRun:
    """Print the progress of a tagging run until it has ended."""

    def show(now: TaggingRun) -> None:
        wait.check(now.live.waiting if now.live else None, time.monotonic())
        if now.status == "running":
            writer.progress(f"tagging  {now.done}/{now.total}")

    return await client.wait_tagging(run, on_progress=show)


async def follow_job(
    client: AsyncClient, job_id: str, writer: ProgressWriter, on_frame: Callable[[Frame], None] | None = None
) -> int:
    """Print a job's events and progress until it has ended; its exit code. `on_frame` replaces the printed lines."""
    async with aclosing(client.watch_job(job_id)) as frames:
        async for frame in frames:
            if on_frame:
                on_frame(frame)
            elif frame.type == "progress_update":
                writer.progress(format_progress(frame.data))
            elif line := describe_frame(frame):
                writer.line(line)
            if frame.type in EXIT_CODES:
                return EXIT_CODES[frame.type]
    raise AssertionError("watch_job ends with the event that ends the job")
