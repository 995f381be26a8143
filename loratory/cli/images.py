"""`loratory images …`."""

import msgspec

from loratory.cli.common import DEFAULT, NOW, Moment, Server, say_json, say_table


async def show(image: str, /, *, at: Moment = NOW, server: Server = DEFAULT) -> None:
    """Show one image with its tags and its caption, now or as it was.

    Parameters
    ----------
    image:
        Its id.
    """
    async with server.client() as client:
        view = await client.image(image, **at.asked)
    if server.json:
        return say_json(view)
    fields = msgspec.structs.asdict(view) | {
        "tags": ", ".join(tag.tag for tag in view.tags),
        "rejected": ", ".join(view.rejected),
        "suggestions": ", ".join(tag.tag for tag in view.suggestions),
    }
    return say_table(("field", "value"), fields.items())
