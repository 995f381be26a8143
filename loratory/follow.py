"""Following jobs and tagging runs to their end, and the lines printed about them and about imports."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any, TextIO

from contracts.wording import count
from loratory.api.base import WaitTimeout, poll
from loratory.client import AsyncClient
from loratory.responses import Frame, ImportSummary, Job, TaggingRun, WaitReason

EXIT_CODES = {"job.succeeded": 0, "job.failed": 1, "job.cancelled": 2}
"""Exit code of a command that followed a job, by the event that ended the job."""

FOLLOWED_EVENTS = EXIT_CODES.keys() | {
    "job.queued",
    "job.attempt_started",
    "job.planned",
    "job.checkpointed",
    "job.interrupted",
    "job.attempt_failed",
    "job.cancel_requested",
}
MAX_NAMED_OTHERS = 20
"""Files that are no images, of which an import names the first; a dry run names all."""
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

    def is_over(job: Job) -> bool:
        return job.status != "pending" or (_waiting(job) is None and job.phase == "draft")

    return await poll(lambda: client.job(job_id), is_over, lambda job: wait.check(_waiting(job), time.monotonic()))


async def follow_tagging(client: AsyncClient, run: str, wait: WorkerWait, writer: ProgressWriter) -> TaggingRun:
    """Print the progress of a tagging run until it has ended."""

    def show(now: TaggingRun) -> None:
        wait.check(_waiting(now), time.monotonic())
        if now.status == "running":
            writer.progress(f"tagging  {now.done}/{now.total}")

    return await client.wait_tagging(run, on_progress=show)


def _waiting(work: Job | TaggingRun) -> WaitReason | None:
    return work.live.waiting if work.live else None


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


def describe_frame(frame: Frame) -> str | None:
    """One line for a frame while following a job; None for frames that are not shown."""
    if frame.type == "stale":
        reason = frame.data.get("reason") or "the catalog does not respond; the state shown may be out of date"
        return f"({reason})"
    # Of the samples of one step only the first gets a line.
    if frame.type in FOLLOWED_EVENTS or (frame.type == "job.sampled" and frame.data.get("index") == 0):
        return frame.description or frame.type
    return None


def format_progress(data: dict[str, Any]) -> str:
    """`training  120/400  loss 0.1234  8.1 steps/s  35 s left`"""
    parts = [str(data.get("phase") or data.get("status", ""))]
    if data.get("total_steps"):
        parts.append(f"{data.get('current_step', 0)}/{data['total_steps']}")
    if data.get("loss") is not None:
        parts.append(f"loss {data['loss']:.4f}")
    if data.get("rate") is not None:
        parts.append(f"{data['rate']:.1f} steps/s")
    if data.get("eta") is not None:
        parts.append(f"{data['eta']:.0f} s left")
    if data.get("message"):
        parts.append(str(data["message"]))
    return "  ".join(parts)


def format_import(result: ImportSummary) -> list[str]:
    """The result of an import: counts first, then each skipped file with its reason."""
    added, existing, refused = (result.of(outcome) for outcome in ("added", "existing", "refused"))
    counts = f"{count(len(added), 'image')} imported, {len(existing)} already present, {len(refused)} skipped, "
    counts += _texts_read(result)
    if result.other_files:
        counts += f", {count(result.other_files, 'other file')} ignored"
    if result.outside_links:
        counts += f", {count(result.outside_links, 'link')} out of the folder not followed"
    if result.unmatched:
        counts += f", {count(len(result.unmatched), 'text')} of no image"
    reasons = [(file.name, file.detail or file.reason or "refused") for file in refused] + list(result.unreadable)
    reasons += [(name, "there is no image of this name") for name in result.unmatched]
    conflicts = [(file.name, conflict) for file in result.files for conflict in file.conflicts]
    others = list(result.others[:MAX_NAMED_OTHERS])
    if more := len(result.others) - len(others):
        others.append(("…", f"and {count(more, 'other file')}"))
    return [
        counts,
        *result.notes,
        *_listed("Skipped files:", reasons),
        *_listed("Not read:", others),
        *_listed("Not applied:", conflicts),
    ]


def _texts_read(result: ImportSummary) -> str:
    """How many texts became what. Tags are not private: the log has them as they are."""
    kinds = Counter(file.text for file in result.files)
    tags = f"{count(kinds['tags'], 'text')} read as tags"
    return f"{tags}{' (which are not encrypted)' if kinds['tags'] else ''}, {kinds['caption']} as captions"


def _listed(title: str, lines: Sequence[tuple[str, str]]) -> list[str]:
    return [title, *(f"  {name}: {text}" for name, text in lines)] if lines else []
