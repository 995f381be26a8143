"""A file from the server: resumable, and whole under its name or not there."""

import asyncio
import hashlib
from pathlib import Path

import httpx

from contracts.errors import LoratoryError, Unavailable
from contracts.events import Artifact
from loratory.http import Http

TRIES = 8
"""Connections that bring nothing new before it is given up."""
PAUSE = 0.5


class DamagedDownload(LoratoryError):
    """What arrived is not what the server says it sent."""

    code = "download-damaged"


async def download(http: Http, path: str, artifact: Artifact, to: Path) -> Path:
    """The artifact as the file `to`; what is there already in part (`to` + ".part") is gone on with.

    DamagedDownload: the sha256 is another; the part is removed, so that a next try begins anew.
    """
    if to.is_file() and await asyncio.to_thread(_digest, to) == artifact.digest:
        return to
    part = to.with_name(f"{to.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    fruitless = 0
    while (before := _size(part)) < artifact.size:
        try:
            await _go_on(http, path, part, before)
        except Unavailable:
            fruitless = 0 if _size(part) > before else fruitless + 1
            if fruitless == TRIES:
                raise
            await asyncio.sleep(PAUSE)
    found = await asyncio.to_thread(_digest, part)
    if found != artifact.digest:
        part.unlink()
        raise DamagedDownload(f"{artifact.name} has the sha256 {found}, not {artifact.digest}")
    part.replace(to)
    return to


async def _go_on(http: Http, path: str, part: Path, start: int) -> None:
    headers = {"Range": f"bytes={start}-", "Accept": "*/*", "Accept-Encoding": "identity"}
    async with http.stream("GET", path, headers=headers if start else headers | {"Range": "bytes=0-"}) as response:
        # Who does not know Range sends all of it.
        mode = "ab" if response.status_code == httpx.codes.PARTIAL_CONTENT else "wb"
        with part.open(mode) as out:
            async for piece in response.aiter_bytes():  # as they come: what is held back is lost with the line
                out.write(piece)
    if _size(part) == start:
        raise Unavailable("the server sent nothing")


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _digest(file: Path) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
