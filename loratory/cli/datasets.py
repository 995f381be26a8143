"""`loratory datasets …`."""

import asyncio
import sys
from pathlib import Path

import msgspec

from contracts.errors import LoratoryError, SetupError
from loratory.answers import Imported
from loratory.cli.common import DEFAULT, NOW, Moment, Server, say, say_json, say_table
from loratory.client import AsyncClient
from loratory.following import Lines
from loratory.pictures import found_among, found_in
from loratory.words import of_import


async def create(name: str, /, *, description: str = "", server: Server = DEFAULT) -> None:
    """Make a data set.

    Parameters
    ----------
    name:
        What it is called.
    description:
        A few words about it.
    """
    async with server.client() as client:
        receipt = await client.create_dataset(name, description)
    say_json(receipt) if server.json else say(receipt.id)


async def ls(*, server: Server = DEFAULT) -> None:
    """List data sets."""
    async with server.client() as client:
        views = await client.datasets()
    if server.json:
        return say_json(views)
    rows = [(view.name, view.images, view.tagged, view.captioned, view.latest_version, view.id) for view in views]
    return say_table(("name", "images", "tagged", "captioned", "version", "id"), rows)


async def show(dataset: str, /, *, at: Moment = NOW, server: Server = DEFAULT) -> None:
    """Show one data set, now or as it was.

    Parameters
    ----------
    dataset:
        Name or id.
    """
    async with server.client() as client:
        view = await client.dataset(dataset, **at.asked)
    if server.json:
        return say_json(view)
    return say_table(("field", "value"), msgspec.structs.asdict(view).items())


async def import_(dataset: str, paths: list[Path], /, *, server: Server = DEFAULT) -> int:
    """Bring a folder or files into a data set; `.txt` and `.caption` beside a picture are its caption.

    Parameters
    ----------
    dataset:
        Name or id; made if there is none of that name.
    paths:
        A folder, or files.
    """
    if not paths:
        raise SetupError("name a folder or files to import")
    if len(paths) > 1 and any(path.is_dir() for path in paths):
        raise SetupError("import one folder at a time, or files")
    async with server.client() as client:
        imported = await _imported(client, dataset, paths, Lines(sys.stderr))
    if server.json:
        say_json(imported)
    else:
        for line in of_import(imported):
            say(line)
    if imported.files and len(imported.of("refused")) == len(imported.files):
        raise LoratoryError("none of the files was taken")
    return 0


async def _imported(client: AsyncClient, dataset: str, paths: list[Path], lines: Lines) -> Imported:
    # Looked at first: a folder that is not there must not leave an empty data set behind.
    single = len(paths) == 1 and not paths[0].is_file()
    found = await asyncio.to_thread(found_in, paths[0]) if single else await asyncio.to_thread(found_among, paths)
    await client.ensure_dataset(dataset)
    return await client.import_found(dataset, found, told=lambda done, of: lines.progress(f"sent {done}/{of}"))
