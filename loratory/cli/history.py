"""`loratory events` and `loratory history …`."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Annotated

from cyclopts import Parameter

from contracts.queries.log import EventView, HistoryEntry
from loratory.api.event_log import EventFilters
from loratory.cli.options import DEFAULT_SERVER, Flag, Id, NameOrId, Server
from loratory.cli.output import write_json, write_line
from loratory.client import AsyncClient


async def events(  # noqa: PLR0913 - the filters of the event log
    *,
    after: str = "",
    type: str | None = None,
    kind: str | None = None,
    aggregate: str | None = None,
    actor: str | None = None,
    since: Annotated[str | None, Parameter(name="--from")] = None,
    until: str | None = None,
    follow: Annotated[bool, Flag, Parameter(alias="-f")] = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Print the event log, one event a line; with --json as NDJSON with cursor, actor, causation and data.

    :param after: The `cursor` of an event: print the events after it.
    :param type: Only events of this type, such as job.succeeded, or of a family, such as 'job.*'.
    :param kind: Only events of aggregates of this kind, such as job or dataset.
    :param aggregate: Only events of the aggregate with this id.
    :param actor: Only events of this actor, such as user:local or 'svc:trainer/*'.
    :param since: Only events recorded at this time or later, such as 2026-11-21T12:00:00Z.
    :param until: Only events recorded before this time.
    :param follow: Then wait for new events.
    """
    filters = EventFilters(
        type=type, aggregate_kind=kind, aggregate_id=aggregate, actor=actor, since=since, until=until
    )
    await _write_entries(server, lambda client: client.events(after=after, follow=follow, **filters))


async def job(job: Id, /, *, server: Server = DEFAULT_SERVER) -> None:
    """Print the history of a job: when, by whom, what."""
    await _write_entries(server, lambda client: client.job_history(job))


async def image(image: Id, /, *, server: Server = DEFAULT_SERVER) -> None:
    """Print the history of an image: tags, captions, predictions, removal."""
    await _write_entries(server, lambda client: client.image_history(image))


async def dataset(dataset: NameOrId, /, *, server: Server = DEFAULT_SERVER) -> None:
    """Print the history of a data set and its tagging runs."""
    await _write_entries(server, lambda client: client.dataset_history(dataset))


async def tag(dataset: NameOrId, tag: str, /, *, server: Server = DEFAULT_SERVER) -> None:
    """Print what affected a tag in a data set.

    :param tag: The tag.
    """
    await _write_entries(server, lambda client: client.dataset_history(dataset, tag=tag))


async def _write_entries(
    server: Server, read: Callable[[AsyncClient], AsyncGenerator[EventView | HistoryEntry, None]]
) -> None:
    """One a line, such as `2026-11-21 12:00:00       42  user:local  Added tag cat to 3 images`."""
    async with server.client() as client, aclosing(read(client)) as entries:
        async for entry in entries:
            text = f"{entry.recorded_at:%Y-%m-%d %H:%M:%S}  {entry.sequence:>8}  {entry.actor}  {entry.description}"
            write_json(entry) if server.json else write_line(text)
