"""`loratory jobs …` and `loratory loras get`."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from contracts.errors import LoratoryError
from contracts.wording import count, size_of
from loratory.api.base import WaitTimeout
from loratory.cli.options import DEFAULT_SERVER, NOW, Id, PointInTime, Server
from loratory.cli.output import write_error, write_json, write_line, write_sections, write_table
from loratory.cli.views import job_sections
from loratory.client import AsyncClient
from loratory.follow import ProgressWriter, WorkerWait, follow_job, wait_until_started
from loratory.responses import Job

EXIT_CODES = {"completed": 0, "failed": 1, "cancelled": 2}
"""By the status of an ended job."""
COLUMNS = ("Id", "Name", "Data set", "Status", "Step", "Steps", "Waiting for")


class WatchInterrupted(LoratoryError):
    """The command was interrupted; the work on the server continues."""

    code = "interrupted"


class OutcomeUnknown(LoratoryError):
    """The server could not say how the work ended; it may go on."""

    code = "outcome-unknown"


@contextmanager
def outcome_of_work() -> Iterator[None]:
    """What fails in this block says nothing about the work that is followed: OutcomeUnknown, with the reason."""
    try:
        yield
    except (WaitTimeout, WatchInterrupted):
        raise
    except LoratoryError as error:
        raise OutcomeUnknown(error.detail, **{**error.extra, "cause": error.code}) from error


async def ls(*, status: str | None = None, dataset: str | None = None, server: Server = DEFAULT_SERVER) -> None:
    """List jobs, newest first.

    :param status: pending, running, completed, failed or cancelled.
    :param dataset: Only jobs on this data set.
    """
    async with server.client() as client:
        jobs = await client.jobs(status=status, dataset=dataset)
    write_json(jobs) if server.json else write_table(COLUMNS, map(_row, jobs))


def _row(job: Job) -> tuple[object, ...]:
    waiting = job.live.waiting.sentence if job.live and job.live.waiting else ""
    return job.id, job.name, job.dataset, job.status, job.step, job.steps, waiting


async def show(job: Id, /, *, at: PointInTime = NOW, server: Server = DEFAULT_SERVER) -> None:
    """Show one job: its settings, its progress and its files; now or in the past."""
    async with server.client() as client:
        view = await client.job(job, **at.query)
    write_json(view) if server.json else write_sections(job_sections(view))


async def watch(job: Id, /, *, server: Server = DEFAULT_SERVER) -> int:
    """Follow a job to its end; exit code 0 completed, 1 failed, 2 cancelled, 4 the server could not say."""
    async with server.client() as client:
        return await follow(client, job, as_json=server.json)


async def follow(client: AsyncClient, job_id: str, *, as_json: bool) -> int:
    """Print a job's events and progress to its end. WatchInterrupted: on Ctrl-C, with how to watch it again."""
    try:
        with outcome_of_work():
            if as_json:
                return await follow_job(client, job_id, ProgressWriter(), on_frame=write_json)
            return await _follow_as_text(client, job_id)
    except asyncio.CancelledError as error:
        raise WatchInterrupted(
            f"stopped watching; job {job_id} continues: `loratory jobs watch {job_id}` follows it, "
            f"`loratory jobs cancel {job_id}` cancels it"
        ) from error


async def _follow_as_text(client: AsyncClient, job_id: str) -> int:
    writer = ProgressWriter()
    job = await wait_until_started(client, job_id, WorkerWait(None, writer.line))
    images = "" if job.images is None else f", {count(job.images, 'image')}"
    writer.line(f"Job {job.id}: {job.name or job.dataset}{images}")
    code = await follow_job(client, job_id, writer)
    for artifact in (await client.job(job_id)).artifacts:
        writer.line(f"{artifact.name}  {size_of(artifact.size)}  sha256 {artifact.digest}")
    return code


async def wait(jobs: list[str], /, *, timeout: float | None = None, server: Server = DEFAULT_SERVER) -> int:
    """Wait until jobs have ended; exit code 0 all completed, 1 one failed, 2 one was cancelled, 3 timeout.

    4 if the server could not say: it cannot be reached, or does not know a job.

    :param jobs: Their ids.
    :param timeout: Seconds to wait for all of them.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    ended = []
    async with server.client() as client:
        for job in jobs:
            remaining = None if deadline is None else max(0.001, deadline - time.monotonic())
            with outcome_of_work():
                ended.append(await client.wait_job(job, timeout=remaining))
    if server.json:
        write_json(ended)
    else:
        for job_ in ended:
            if job_.status != "completed":
                outcome = f"failed: {job_.error}" if job_.status == "failed" else "was cancelled"
                write_error(f"job {job_.id} {outcome}")
    codes = {EXIT_CODES[job_.status] for job_ in ended}
    return 1 if 1 in codes else max(codes, default=0)


async def cancel(
    job: Id,
    /,
    *,
    wait: Annotated[float, Parameter(help="Seconds to wait until it has stopped; 0 = do not wait.")] = 30,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Cancel a job. Its checkpoints and samples are kept."""
    async with server.client() as client:
        result = await client.cancel_job(job)
        if wait:
            try:
                await client.wait_job(job, timeout=wait)
            except WaitTimeout as error:
                raise WaitTimeout(
                    f"cancellation of job {job} was requested, but it runs on after {wait:g} s"
                ) from error
    sentence = f"job {job} is cancelled" if wait else f"cancellation of job {job} was requested"
    write_json(result) if server.json else write_line(sentence)


async def get(job: Id, /, *, to: Path = Path(), server: Server = DEFAULT_SERVER) -> None:
    """Download the files of a finished job, verified by sha256; partial downloads are resumed.

    :param to: Target folder.
    """
    await asyncio.to_thread(to.mkdir, parents=True, exist_ok=True)
    async with server.client() as client:
        artifacts = await client.artifacts(job)
        if not artifacts:
            raise LoratoryError(f"job {job} has no files: its status is {(await client.job(job)).status}")
        for artifact in artifacts:
            path = await client.download(job, artifact, to)
            write_json(artifact) if server.json else write_line(f"{path}  sha256 {artifact.digest}")
