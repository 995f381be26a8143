"""`loratory history …` and `loratory audit replay`."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from contracts.audit import ReplayReport
from contracts.errors import LoratoryError
from contracts.queries import EventView, HistoryEntry
from loratory.cli.options import DEFAULT_SERVER, Server
from loratory.cli.output import write_json, write_line

DIFFERENT = 1
"""Exit code if a read model differs from what the log yields."""


async def job(job: str, /, *, server: Server = DEFAULT_SERVER) -> None:
    """Print the history of a job: when, by whom, what.

    Parameters
    ----------
    job:
        Its id.
    """
    async with server.client() as client:
        await _write_history(client.job_history(job), as_json=server.json)


async def image(image: str, /, *, server: Server = DEFAULT_SERVER) -> None:
    """Print the history of an image: tags, captions, predictions, removal.

    Parameters
    ----------
    image:
        Its id.
    """
    async with server.client() as client:
        await _write_history(client.image_history(image), as_json=server.json)


async def dataset(dataset: str, /, *, server: Server = DEFAULT_SERVER) -> None:
    """Print the history of a data set and its tagging runs.

    Parameters
    ----------
    dataset:
        Name or id.
    """
    async with server.client() as client:
        await _write_history(client.dataset_history(dataset), as_json=server.json)


async def tag(dataset: str, tag: str, /, *, server: Server = DEFAULT_SERVER) -> None:
    """Print what affected a tag in a data set.

    Parameters
    ----------
    dataset:
        Name or id.
    tag:
        The tag.
    """
    async with server.client() as client:
        await _write_history(client.dataset_history(dataset, tag=tag), as_json=server.json)


async def replay(*, server: Server = DEFAULT_SERVER) -> int:
    """Rebuild every read model from the log next to the live one and compare; exit code 1 if they differ."""
    async with server.client() as client:
        report = await client.audit_replay()
    if server.json:
        write_json(report)
    if report.state == "failed":
        raise LoratoryError(f"the read models could not be rebuilt: {report.error}")
    if not server.json:
        _write_report(report)
    return 0 if report.state == "same" else DIFFERENT


def format_entry(entry: EventView | HistoryEntry) -> str:
    """`2026-11-21 12:00:00       42  user:local  Added tag cat to 3 images`"""
    return f"{entry.recorded_at:%Y-%m-%d %H:%M:%S}  {entry.sequence:>8}  {entry.actor}  {entry.description}"


async def _write_history(history: AsyncGenerator[HistoryEntry, None], *, as_json: bool) -> None:
    async with aclosing(history) as entries:
        async for entry in entries:
            write_json(entry) if as_json else write_line(format_entry(entry))


def _write_report(report: ReplayReport) -> None:
    rows = sum(report.rows.values())
    write_line(f"{rows} rows of {len(report.rows)} tables match what {report.sequence} commits yield")
    difference = report.difference
    if difference is None:
        return
    write_line(f"table {difference.table} differs, first at {_columns(difference.key)}")
    for side, row in (("live", difference.live), ("replayed", difference.replayed)):
        write_line(f"  {side:<10}{'has no such row' if row is None else _columns(row)}")


def _columns(row: dict[str, object]) -> str:
    return "  ".join(f"{name}={value!r}" for name, value in row.items())
