"""`loratory history …`, `loratory audit replay`: what happened to something; does what is shown follow from it?"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from contracts.audit import ReplayReport
from contracts.errors import LoratoryError
from contracts.queries import Happening
from loratory.cli.common import DEFAULT, Server, say, say_json

DIFFERENT = 1
"""The exit code where a read model is not what the log makes of it."""


async def job(job: str, /, *, server: Server = DEFAULT) -> None:
    """Tell what happened to a job: when, by whom, what.

    Parameters
    ----------
    job:
        Its id.
    """
    async with server.client() as client:
        await _tell(client.job_history(job), as_json=server.json)


async def image(image: str, /, *, server: Server = DEFAULT) -> None:
    """Tell what decided what an image is: tags, captions, predictions, its end.

    Parameters
    ----------
    image:
        Its id.
    """
    async with server.client() as client:
        await _tell(client.image_history(image), as_json=server.json)


async def dataset(dataset: str, /, *, server: Server = DEFAULT) -> None:
    """Tell what happened to a data set and in its tagging runs.

    Parameters
    ----------
    dataset:
        Name or id.
    """
    async with server.client() as client:
        await _tell(client.dataset_history(dataset), as_json=server.json)


async def tag(dataset: str, tag: str, /, *, server: Server = DEFAULT) -> None:
    """Tell what decided where a tag holds in a data set.

    Parameters
    ----------
    dataset:
        Name or id.
    tag:
        The tag.
    """
    async with server.client() as client:
        await _tell(client.dataset_history(dataset, tag=tag), as_json=server.json)


async def replay(*, server: Server = DEFAULT) -> int:
    """Make every read model anew from the log, beside the live one, and compare; exit code 1 where they differ."""
    async with server.client() as client:
        report = await client.audit_replay()
    if server.json:
        say_json(report)
    if report.state == "failed":
        raise LoratoryError(f"the read models could not be replayed: {report.error}")
    if not server.json:
        _say_report(report)
    return 0 if report.state == "same" else DIFFERENT


async def _tell(story: AsyncGenerator[Happening, None], *, as_json: bool) -> None:
    async with aclosing(story) as told:
        async for one in told:
            if as_json:
                say_json(one)
            else:
                say(f"{one.recorded:%Y-%m-%d %H:%M:%S}  {one.sequence:>8}  {one.actor}  {one.words}")


def _say_report(report: ReplayReport) -> None:
    say(
        f"{sum(report.rows.values())} rows of {len(report.rows)} tables are what {report.sequence} commits make of them"
    )
    difference = report.difference
    if difference is None:
        return
    say(f"table {difference.table} is not, first at {_columns(difference.key)}")
    for side, row in (("live", difference.live), ("replayed", difference.replayed)):
        say(f"  {side:<10}{'has no such row' if row is None else _columns(row)}")


def _columns(row: dict[str, object]) -> str:
    return "  ".join(f"{name}={value!r}" for name, value in row.items())
