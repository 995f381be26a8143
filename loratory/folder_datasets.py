"""Which data set a folder of this machine is imported into: the one it was imported into before, or one of its name."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import msgspec

from contracts.errors import Gone, NotFound, SetupError
from contracts.queries.datasets import DatasetView
from contracts.wire.system.files import write_atomically
from loratory.client import AsyncClient

MAX_NAME_CHARACTERS = 100
RESERVED_NAMES = frozenset({"health"})


class FolderDatasets:
    """Kept in a file: path of a folder → id of its data set. A file that cannot be read counts as none."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def dataset_of(self, folder: Path, client: AsyncClient) -> DatasetView:
        """Created if it does not exist. A removed one is not used again."""
        known = self._read()
        if (dataset := known.get(str(folder))) is not None:
            try:
                return await client.dataset(dataset)
            except (NotFound, Gone):
                del known[str(folder)]
        others = set(known.values())
        for name in _names(folder):
            view = await client.ensure_dataset(name)
            if view.id not in others:
                break
        self._file.parent.mkdir(exist_ok=True)
        write_atomically(self._file, msgspec.json.encode(known | {str(folder): view.id}))
        return view

    def _read(self) -> dict[str, str]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, str])
        except (FileNotFoundError, msgspec.DecodeError):
            return {}


def _names(folder: Path) -> Iterator[str]:
    """`girl`, or `girl 2` … where another folder of this name is kept in the first one; names that the server takes."""
    allowed = "".join(one if one.isprintable() and one not in "/\\?#%" else " " for one in folder.name)
    name = " ".join(allowed.split())[: MAX_NAME_CHARACTERS - 4]
    if name and name.lower() not in RESERVED_NAMES:
        yield name
    yield from (f"{name or 'images'} {number}" for number in count(2))


def require_apart(folder: Path, data: Path) -> None:
    """SetupError: it is no folder, or one of the two is in the other, so that Loratory would import its own files."""
    if not folder.is_dir():
        raise SetupError(f"{folder} is not a folder" if folder.exists() else f"there is no folder {folder}")
    if folder.is_relative_to(data) or data.is_relative_to(folder):
        raise SetupError(f"the images in {folder} and the data folder {data} must be apart from each other")
