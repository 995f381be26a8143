"""Resumable download of an artifact, verified before it appears under its name."""

import asyncio
import hashlib
from pathlib import Path

import httpx

from contracts.errors import LoratoryError, Unavailable
from contracts.events.jobs import Artifact
from contracts.wire.system.files import move_into_place
from loratory.http import Http

MAX_ATTEMPTS_WITHOUT_PROGRESS = 8
RETRY_DELAY_SECONDS = 0.5


class DamagedDownload(LoratoryError):
    """The downloaded bytes do not match the announced sha256."""

    code = "download-damaged"


async def download(http: Http, path: str, artifact: Artifact, to: Path) -> Path:
    """Download the artifact to the file `to`; resumes a partial download (`to` + ".part").

    DamagedDownload: the sha256 differs; the partial file is deleted so that the next download starts over.
    """
    if to.is_file() and await asyncio.to_thread(sha256_of, to) == artifact.digest:
        return to
    part = to.with_name(f"{to.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    attempts_without_progress = 0
    while (before := _size(part)) < artifact.size:
        try:
            await _resume(http, path, part, before)
        except Unavailable:
            attempts_without_progress = 0 if _size(part) > before else attempts_without_progress + 1
            if attempts_without_progress == MAX_ATTEMPTS_WITHOUT_PROGRESS:
                raise
            await asyncio.sleep(RETRY_DELAY_SECONDS)
    digest = await asyncio.to_thread(sha256_of, part)
    if digest != artifact.digest:
        part.unlink()
        raise DamagedDownload(f"{artifact.name} has sha256 {digest}, expected {artifact.digest}")
    await asyncio.to_thread(move_into_place, part, to)
    return to


async def _resume(http: Http, path: str, part: Path, start: int) -> None:
    headers = {"Range": f"bytes={start}-", "Accept": "*/*", "Accept-Encoding": "identity"}
    async with http.stream("GET", path, headers=headers if start else headers | {"Range": "bytes=0-"}) as response:
        # A server without Range support sends the whole file.
        mode = "ab" if response.status_code == httpx.codes.PARTIAL_CONTENT else "wb"
        with part.open(mode) as out:
            async for piece in response.aiter_bytes():  # written at once: buffered bytes are lost with the connection
                out.write(piece)
    if _size(part) == start:
        raise Unavailable("the server sent no data")


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def sha256_of(file: Path) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
