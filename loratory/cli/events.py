"""`loratory events`."""

from contextlib import aclosing
from typing import Annotated

from cyclopts import Parameter

from loratory.cli.history import format_entry
from loratory.cli.options import DEFAULT_SERVER, Server
from loratory.cli.output import write_json, write_line


async def events(  # noqa: PLR0913 - the filters of the event log
    *,
    after: str = "",
    type: str | None = None,
    kind: str | None = None,
    aggregate: str | None = None,
    actor: str | None = None,
    since: Annotated[str | None, Parameter(name="--from")] = None,
    until: str | None = None,
    follow: Annotated[bool, Parameter(alias="-f", negative=())] = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Print the event log, one event a line; with --json as NDJSON with cursor, actor, causation and data.

    Parameters
    ----------
    after:
        The `cursor` of an event: print the events after it.
    type:
        Only events of this type, such as job.succeeded, or of a family, such as 'job.*'.
    kind:
        Only events of aggregates of this kind, such as job or dataset.
    aggregate:
        Only events of the aggregate with this id.
    actor:
        Only events of this actor, such as user:local or 'svc:trainer/*'.
    since:
        Only events recorded at this time or later, such as 2026-11-21T12:00:00Z.
    until:
        Only events recorded before this time.
    follow:
        Then wait for new events.
    """
    filters = {
        "type": type,
        "aggregate_kind": kind,
        "aggregate_id": aggregate,
        "actor": actor,
        "since": since,
        "until": until,
    }
    async with server.client() as client, aclosing(client.events(after=after, follow=follow, **filters)) as found:
        async for event in found:
            write_json(event) if server.json else write_line(format_entry(event))
