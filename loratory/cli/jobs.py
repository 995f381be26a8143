"""`loratory jobs …`, `loratory loras get`."""

import asyncio
import time
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from contracts.errors import LoratoryError
from loratory.answers import Job
from loratory.cli.common import DEFAULT, NOW, Moment, Server, complain, say, say_json, say_table
from loratory.client import AsyncClient, TookTooLong
from loratory.following import Lines, Patience, until_ended, until_taken

CODES = {"completed": 0, "failed": 1, "cancelled": 4}


async def ls(*, status: str | None = None, dataset: str | None = None, server: Server = DEFAULT) -> None:
    """List jobs, newest first.

    Parameters
    ----------
    status:
        pending, running, completed, failed or cancelled.
    dataset:
        Only jobs of this data set.
    """
    async with server.client() as client:
        jobs = await client.jobs(status=status, dataset=dataset)
    if server.json:
        return say_json(jobs)
    columns = ("id", "name", "dataset", "status", "step", "of", "why it waits")
    return say_table(columns, (_row(job) for job in jobs))


def _row(job: Job) -> tuple[object, ...]:
    waiting = job.live.waiting.why if job.live and job.live.waiting else ""
    return job.id, job.name, job.dataset, job.status, job.step, job.steps, waiting


async def show(job: str, /, *, at: Moment = NOW, server: Server = DEFAULT) -> None:
    """Show one job: what was asked, how far it is, what it made; now, or as it was.

    Parameters
    ----------
    job:
        Its id.
    """
    async with server.client() as client:
        view = await client.job(job, **at.asked)
    if server.json:
        return say_json(view)
    fields = msgspec.to_builtins(view)
    return say_table(("field", "value"), fields.items())


async def watch(job: str, /, *, server: Server = DEFAULT) -> int:
    """Follow a job to its end; exit code 0 done, 1 failed, 4 cancelled.

    Parameters
    ----------
    job:
        Its id.
    """
    async with server.client() as client:
        return await follow(client, job, as_json=server.json)


async def follow(client: AsyncClient, job_id: str, *, as_json: bool) -> int:
    if as_json:
        return await until_ended(client, job_id, Lines(), told=say_json)
    lines = Lines()
    job = await until_taken(client, job_id, Patience(None, lines.say))
    lines.say(f"job {job.id}: {job.name or job.dataset}, {job.images} images")
    code = await until_ended(client, job_id, lines)
    for artifact in (await client.job(job_id)).artifacts:
        lines.say(f"{artifact.name}  {artifact.size} bytes  sha256 {artifact.digest}")
    return code


async def wait(jobs: list[str], /, *, timeout: float | None = None, server: Server = DEFAULT) -> int:
    """Wait for the end of jobs; exit code 0 all done, 1 one failed, 4 one was cancelled, 3 timeout.

    Parameters
    ----------
    jobs:
        Their ids.
    timeout:
        Seconds to wait for all of them.
    """
    until = None if timeout is None else time.monotonic() + timeout
    ended = []
    async with server.client() as client:
        for job in jobs:
            left = None if until is None else max(0.001, until - time.monotonic())
            ended.append(await client.wait_job(job, timeout=left))
    if server.json:
        say_json(ended)
    for job_ in ended:
        if job_.status != "completed":
            complain(f"job {job_.id} {'failed: ' + str(job_.error) if job_.status == 'failed' else 'was cancelled'}")
    codes = {CODES[job_.status] for job_ in ended}
    return 1 if 1 in codes else max(codes, default=0)


async def cancel(
    job: str,
    /,
    *,
    wait: Annotated[float, Parameter(help="Seconds to wait until it has stopped; 0 = do not wait.")] = 30,
    server: Server = DEFAULT,
) -> None:
    """Stop a job. What it has kept stays.

    Parameters
    ----------
    job:
        Its id.
    """
    async with server.client() as client:
        receipt = await client.cancel_job(job)
        if wait:
            try:
                await client.wait_job(job, timeout=wait)
            except TookTooLong as error:
                raise TookTooLong(f"job {job} was told to stop, but has not after {wait:g} s") from error
    say_json(receipt) if server.json else say(f"job {job} is cancelled")


async def get(job: str, /, *, to: Path = Path(), server: Server = DEFAULT) -> None:
    """Download the files of a finished job, each checked by its sha256; a download that was cut off goes on.

    Parameters
    ----------
    job:
        Its id.
    to:
        Folder to put them in.
    """
    await asyncio.to_thread(to.mkdir, parents=True, exist_ok=True)
    async with server.client() as client:
        artifacts = await client.artifacts(job)
        if not artifacts:
            raise LoratoryError(f"job {job} has no files: it is {(await client.job(job)).status}")
        for artifact in artifacts:
            path = await client.download(job, artifact, to)
            say_json(artifact) if server.json else say(f"{path}  sha256 {artifact.digest}")
