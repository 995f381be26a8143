"""`loratory images …`."""

from loratory.cli.options import DEFAULT_SERVER, NOW, PointInTime, Server
from loratory.cli.output import write_json, write_sections
from loratory.cli.views import image_sections


async def show(image: str, /, *, at: PointInTime = NOW, server: Server = DEFAULT_SERVER) -> None:
    """Show one image with its tags and its caption, now or in the past.

    Parameters
    ----------
    image:
        Its id.
    """
    async with server.client() as client:
        view = await client.image(image, **at.query)
    write_json(view) if server.json else write_sections(image_sections(view))
