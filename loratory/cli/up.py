"""`loratory up`."""

import asyncio
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from contracts.errors import SetupError
from loratory.bind_address import api_key
from loratory.cli.options import Environ, Flag
from loratory.cli.output import write_line
from loratory.client import AsyncClient
from loratory.data_folder import DataFolder
from loratory.folder_datasets import FolderDatasets, require_apart
from loratory.folder_watch import FolderWatch
from loratory.follow import ProgressWriter
from loratory.imported_pictures import ImportedPictures
from loratory.services import CORE_SERVICES, Service
from loratory.stack import Https, Stack
from loratory.tls import trusting_exactly


async def up(  # noqa: PLR0913 - each is an option
    *,
    data: Path = Path("~/loratory"),
    port: int = 8000,
    host: str = "127.0.0.1",
    tagger: Annotated[bool, Parameter(help="Start a tagger.")] = True,
    trainer: Annotated[bool, Parameter(help="Start a trainer; without it, run trainers elsewhere.")] = True,
    tls_cert: Annotated[Path | None, Parameter(env_var="LORATORY_TLS_CERT")] = None,
    tls_key: Annotated[Path | None, Parameter(env_var="LORATORY_TLS_KEY")] = None,
    images: Path | None = None,
    write_texts: Annotated[bool, Flag] = False,
    environ: Environ,
) -> int:
    """Start all services on this machine; Ctrl-C stops them. Interrupted work resumes at the next start.

    :param data: The data folder.
    :param port: Port of the page and the API; 0 = any free one.
    :param host: Bind address. Any address that other machines can reach needs LORATORY_API_KEY.
    :param tls_cert: Serve HTTPS with this certificate chain (PEM), also after it was renewed.
    :param tls_key: Its private key (PEM).
    :param images: A folder of images to work on: it is imported into a data set of its name, now and whenever files in
        it are new or changed.
    :param write_texts: Write tags and captions back beside these images, but never over text files that are newer.
    """
    without: list[Service] = [] if tagger else ["tagger"]
    without += [] if trainer else ["trainer"]
    https = _https(tls_cert, tls_key)
    if write_texts and images is None:
        raise SetupError("--write-texts needs --images: the folder to write to")
    if images is not None:
        images = images.expanduser().resolve()
        require_apart(images, DataFolder(data).path.resolve())
    try:
        async with Stack(
            data, environ=environ, port=port, host=host, https=https, without=without, print_line=write_line
        ) as stack:
            # No timeout: reading a long log takes time, and the stack reports that.
            await stack.wait_ready(CORE_SERVICES, timeout=math.inf)
            write_line(f"\nLoratory is at {stack.address}  (data in {stack.data}; Ctrl-C stops it)\n")
            if images is not None:
                await stack.run(_work_on(images, stack, environ, write_texts=write_texts))
            await stack.watch()
    except asyncio.CancelledError:
        write_line("stopped; the next start resumes interrupted work")
    return 0


def _https(cert: Path | None, key: Path | None) -> Https | None:
    """SetupError: only one of the two is given, or they are not there."""
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise SetupError("--tls-cert and --tls-key belong together: a certificate and its private key")
    files = cert.expanduser().resolve(), key.expanduser().resolve()
    if missing := [str(file) for file in files if not file.is_file()]:
        raise SetupError(f"there is no file {' and no file '.join(missing)}")
    return Https(*files)


async def _work_on(folder: Path, stack: Stack, environ: Mapping[str, str], *, write_texts: bool) -> None:
    writer = ProgressWriter(sys.stderr)
    tls = trusting_exactly(stack.https.cert) if stack.https else None
    async with AsyncClient(stack.address, api_key(environ), retry_timeout=60, tls=tls) as client:
        data = DataFolder(stack.data)
        dataset = await FolderDatasets(data.folders_file).dataset_of(folder, client)
        log = str((await client.status())["log"]["log_id"])
        write_line(f"{folder} is the data set {dataset.name!r}: {stack.address}/#/datasets/{dataset.id}")
        await FolderWatch(
            client=client,
            dataset=dataset.id,
            folder=folder,
            imported=ImportedPictures(data.imported_file(dataset.id), log),
            write_texts=write_texts,
            print_line=write_line,
            on_progress=lambda done, total: writer.progress(f"sent {done}/{total}"),
        ).run()
