"""`loratory erase …`: irreversible, so it asks for confirmation."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from contracts.wording import count
from loratory.cli.options import DEFAULT_SERVER, Flag, Server
from loratory.cli.output import confirm, write_error, write_json, write_line
from loratory.client import AsyncClient
from loratory.responses import ErasureResult

Yes = Annotated[bool, Flag]
ADD_YES = "erasing is irreversible; add --yes"
DECLINED = "nothing was erased"


async def image(images: list[str], /, *, yes: Yes = False, server: Server = DEFAULT_SERVER) -> None:
    """Permanently erase the bytes, file names and captions of images, everywhere.

    :param images: Their ids.
    :param yes: Do not ask for confirmation.
    """
    await confirm(f"Permanently erase {count(len(images), 'image')}?", yes, refusal=ADD_YES, declined=DECLINED)
    await _erase_all(images, AsyncClient.erase_image, server)


async def dataset(datasets: list[str], /, *, yes: Yes = False, server: Server = DEFAULT_SERVER) -> None:
    """Permanently erase all images that data sets ever contained, and the names of skipped files.

    :param datasets: Names or ids.
    :param yes: Do not ask for confirmation.
    """
    question = f"Permanently erase {', '.join(datasets)} with all images?"
    await confirm(question, yes, refusal=ADD_YES, declined=DECLINED)
    await _erase_all(datasets, AsyncClient.erase_dataset, server)


async def _erase_all(
    names: list[str], erase: Callable[[AsyncClient, str], Awaitable[ErasureResult]], server: Server
) -> None:
    async with server.client() as client:
        for name in names:
            result = await erase(client, name)
            write_json(result) if server.json else _write_result(name, result)


def _write_result(name: str, result: ErasureResult) -> None:
    write_line(f"{name} was erased" if result.changed else f"{name} was already erased")
    for lora in result.loras:
        files = ", ".join(artifact.name for artifact in lora.artifacts) or f"no file, {lora.status}"
        write_line(f"job {lora.job} ({lora.name}) was trained on it and remains: {files}")
    for place in result.pending:
        write_error(f"not purged yet, will be retried: {place}")
