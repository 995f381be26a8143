"""`loratory events`."""

from loratory.cli.common import DEFAULT, Server, say_json


async def events(
    *,
    after: str = "",
    type: str | None = None,
    thing: str | None = None,
    follow: bool = False,
    server: Server = DEFAULT,
) -> None:
    """Print the event log as NDJSON: one fact a line, with sequence, time, actor and causation.

    Parameters
    ----------
    after:
        The `cursor` of a line: print what came behind it.
    type:
        Only facts of this type, such as job.succeeded.
    thing:
        Only facts of the thing with this id.
    follow: -f
        Go on with what is to come.
    """
    async with server.client() as client:
        async for event in client.events(after=after, type=type, thing=thing, follow=follow):
            say_json(event)
