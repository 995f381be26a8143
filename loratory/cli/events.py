"""`loratory events`."""

from contextlib import aclosing
from typing import Annotated

from cyclopts import Parameter

from loratory.cli.common import DEFAULT, Server, say_json


async def events(  # noqa: PLR0913 - what a log can be narrowed by
    *,
    after: str = "",
    type: str | None = None,
    kind: str | None = None,
    thing: str | None = None,
    actor: str | None = None,
    since: Annotated[str | None, Parameter(name="--from")] = None,
    until: str | None = None,
    follow: bool = False,
    server: Server = DEFAULT,
) -> None:
    """Print the event log as NDJSON: one fact a line, with sequence, time, actor and causation.

    Parameters
    ----------
    after:
        The `cursor` of a line: print what came behind it.
    type:
        Only facts of this type, such as job.succeeded, or of a family, such as 'job.*'.
    kind:
        Only facts of things of this kind, such as job or dataset.
    thing:
        Only facts of the thing with this id.
    actor:
        Only what this actor did, such as user:local or 'svc:trainer/*'.
    since:
        Only facts recorded at this time or later, such as 2026-11-21T12:00:00Z.
    until:
        Only facts recorded before this time.
    follow: -f
        Go on with what is to come.
    """
    asked = {"type": type, "kind": kind, "thing": thing, "actor": actor, "since": since, "until": until}
    async with server.client() as client, aclosing(client.events(after=after, follow=follow, **asked)) as found:
        async for event in found:
            say_json(event)
