"""Saves an export of a data set: under its name only when it is complete."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict
from urllib.parse import unquote

import httpx
import msgspec

from contracts.errors import LoratoryError, SetupError
from contracts.wire.system.files import open_atomically
from loratory.http import Http

PROGRESS_BYTES = 4 << 20
"""Received between two calls of `on_progress`."""
ExportFormat = Literal["kohya", "flat", "imagefolder", "manifest"]
TagWords = Literal["spaces", "underscores"]


class ExportOptions(TypedDict, total=False):
    """What of a data set is exported, and how; those without a value are the server's.

    `repeats` and `class_tokens` are of format `kohya`. `exclude`: tags to leave out; `replace`: `old=new` tags;
    `escape`: parentheses as in prompts; `words`: of tags. These, `separator` and `trigger` change the exported texts
    only.
    """

    format: ExportFormat
    filter: str | None
    repeats: int | None
    class_tokens: str | None
    trigger: str | None
    exclude: Sequence[str]
    replace: Sequence[str]
    escape: bool | None
    separator: str | None
    words: TagWords | None


class ExportedFile(msgspec.Struct, frozen=True, kw_only=True):
    """`size` in bytes; `as_of`: the sequence of the log that it shows."""

    path: str
    size: int
    as_of: int


class BrokenExport(LoratoryError):
    """The export broke off, and nothing of it was kept."""

    code = "export-broken"


def export_parameters(options: ExportOptions) -> dict[str, Any]:
    """Of the request."""
    parameters: dict[str, Any] = {**options}
    parameters["class"] = parameters.pop("class_tokens", None)
    return parameters


async def save_export(  # noqa: PLR0913 - the parts of a download
    http: Http, path: str, to: Path, parameters: dict[str, Any], *, force: bool, on_progress: Callable[[int], None]
) -> ExportedFile:
    """Save to a file, or in an existing folder under the server's name. `on_progress`: called with bytes received.

    SetupError: the file exists, and `force` is false. BrokenExport: not all of it came.
    """
    _refuse_overwrite(to, force=force)
    async with http.open_file(path, **parameters) as response:
        target = to / _file_name(response) if to.is_dir() else to
        _refuse_overwrite(target, force=force)
        size = await _receive(response, target, on_progress)
        return ExportedFile(path=str(target), size=size, as_of=int(response.headers.get("Loratory-As-Of", 0)))


async def _receive(response: httpx.Response, target: Path, on_progress: Callable[[int], None]) -> int:
    size = reported = 0
    try:
        with open_atomically(target) as out:
            async for piece in response.aiter_raw():
                out.write(piece)
                size += len(piece)
                if size - reported >= PROGRESS_BYTES:
                    on_progress(reported := size)
    except httpx.TransportError as error:
        raise BrokenExport(f"the export broke off after {size} bytes; the gateway's log says why") from error
    return size


def _refuse_overwrite(target: Path, *, force: bool) -> None:
    if target.exists() and not target.is_dir() and not force:
        raise SetupError(f"{target} exists already; it is replaced only with force")


def _file_name(response: httpx.Response) -> str:
    """The last part of the name in Content-Disposition (RFC 6266), which may not lead out of the folder."""
    _, _, encoded = response.headers.get("Content-Disposition", "").partition("filename*=UTF-8''")
    name = Path(unquote(encoded).replace("\\", "/")).name
    if not name.strip("."):
        raise LoratoryError("the server did not name the export; name a file to save it to")
    return name
