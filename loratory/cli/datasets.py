"""`loratory datasets …`."""

import asyncio
import sys
from pathlib import Path

from contracts.errors import LoratoryError, SetupError
from loratory.cli.options import DEFAULT_SERVER, NOW, PointInTime, Server
from loratory.cli.output import write_json, write_line, write_sections, write_table
from loratory.cli.views import dataset_sections
from loratory.client import AsyncClient
from loratory.follow import ProgressWriter
from loratory.image_files import scan_files, scan_folder
from loratory.messages import format_import
from loratory.responses import ImportSummary


async def create(name: str, /, *, description: str = "", server: Server = DEFAULT_SERVER) -> None:
    """Create a data set.

    Parameters
    ----------
    name:
        Its name.
    description:
        A short description.
    """
    async with server.client() as client:
        result = await client.create_dataset(name, description)
    write_json(result) if server.json else write_line(result.id)


async def ls(*, server: Server = DEFAULT_SERVER) -> None:
    """List data sets."""
    async with server.client() as client:
        views = await client.datasets()
    if server.json:
        return write_json(views)
    rows = [(view.name, view.images, view.tagged, view.captioned, view.latest_version, view.id) for view in views]
    return write_table(("Name", "Images", "Tagged", "Captioned", "Version", "Id"), rows)


async def show(dataset: str, /, *, at: PointInTime = NOW, server: Server = DEFAULT_SERVER) -> None:
    """Show one data set, now or in the past.

    Parameters
    ----------
    dataset:
        Name or id.
    """
    async with server.client() as client:
        view = await client.dataset(dataset, **at.query)
    write_json(view) if server.json else write_sections(dataset_sections(view))


async def import_(dataset: str, paths: list[Path], /, *, server: Server = DEFAULT_SERVER) -> int:
    """Import a folder or files; a `.txt` or `.caption` file next to an image is its caption.

    Parameters
    ----------
    dataset:
        Name or id; created if no data set has this name.
    paths:
        A folder, or files.
    """
    if not paths:
        raise SetupError("name a folder or files to import")
    if len(paths) > 1 and any(path.is_dir() for path in paths):
        raise SetupError("import one folder at a time, or files")
    async with server.client() as client:
        result = await _import(client, dataset, paths, ProgressWriter(sys.stderr))
    if server.json:
        write_json(result)
    else:
        for line in format_import(result):
            write_line(line)
    if result.files and len(result.of("refused")) == len(result.files):
        raise LoratoryError("all files were skipped")
    return 0


async def _import(client: AsyncClient, dataset: str, paths: list[Path], writer: ProgressWriter) -> ImportSummary:
    # Scanned first: a folder that does not exist must not leave an empty data set behind.
    single = len(paths) == 1 and not paths[0].is_file()
    scan = await asyncio.to_thread(scan_folder, paths[0]) if single else await asyncio.to_thread(scan_files, paths)
    await client.ensure_dataset(dataset)
    return await client.import_scanned(
        dataset, scan, on_progress=lambda done, total: writer.progress(f"sent {done}/{total}")
    )
