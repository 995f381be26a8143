"""`loratory erase …`: for good, so it asks before."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated

from cyclopts import Parameter

from contracts.errors import SetupError
from loratory.answers import Erased
from loratory.cli.common import DEFAULT, Server, complain, say, say_json
from loratory.client import AsyncClient

Yes = Annotated[bool, Parameter(negative=())]


async def image(images: list[str], /, *, yes: Yes = False, server: Server = DEFAULT) -> None:
    """Destroy the bytes, file names and captions of images wherever they are. It cannot be taken back.

    Parameters
    ----------
    images:
        Their ids.
    yes:
        Do not ask.
    """
    await _sure(f"Erase {len(images)} image{'s' * (len(images) != 1)} for good?", yes)
    await _all(images, AsyncClient.erase_image, server)


async def dataset(datasets: list[str], /, *, yes: Yes = False, server: Server = DEFAULT) -> None:
    """The same for all images data sets ever had, and the names of refused files. It cannot be taken back.

    Parameters
    ----------
    datasets:
        Names or ids.
    yes:
        Do not ask.
    """
    await _sure(f"Erase {', '.join(datasets)} with all images for good?", yes)
    await _all(datasets, AsyncClient.erase_dataset, server)


async def _all(things: list[str], erase: Callable[[AsyncClient, str], Awaitable[Erased]], server: Server) -> None:
    async with server.client() as client:
        for thing in things:
            erased = await erase(client, thing)
            if server.json:
                say_json(erased)
            else:
                _tell(thing, erased)


def _tell(thing: str, erased: Erased) -> None:
    say(f"{thing} is erased" if erased.changed else f"{thing} was erased before")
    for lora in erased.loras:
        files = ", ".join(artifact.name for artifact in lora.artifacts) or f"no file, {lora.status}"
        say(f"job {lora.job} ({lora.name}) had seen it and stays: {files}")
    for where in erased.left:
        complain(f"not gone yet, and tried again until it is: {where}")


async def _sure(question: str, yes: bool) -> None:
    """SetupError where nobody is there to ask, or who is says no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise SetupError("erasing cannot be taken back; add --yes")
    sys.stderr.write(f"{question} It cannot be taken back. [y/N] ")
    sys.stderr.flush()
    if (await asyncio.to_thread(sys.stdin.readline)).strip().lower() not in {"y", "yes"}:
        raise SetupError("nothing was erased")
