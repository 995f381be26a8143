"""Finding the picture or the folder that a path in somebody's file means. Nothing is opened by such a path. Pure."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from pathlib import PurePosixPath

HERE = PurePosixPath()


def normalize(path: str) -> PurePosixPath:
    """With slashes, and without what makes it absolute or leads nowhere."""
    parts = [part for part in path.replace("\\", "/").split("/") if part not in {"", "."} and not part.endswith(":")]
    return PurePosixPath(*parts)


def endings(path: PurePosixPath) -> Iterator[PurePosixPath]:
    """`a/b/c`, `b/c`, `c`: of a path on another machine, which folders are also here is not known."""
    return (PurePosixPath(*path.parts[at:]) for at in range(len(path.parts)))


def find_folder(path: str, folders: Collection[PurePosixPath]) -> PurePosixPath | None:
    """The folder with the longest common ending; `.` is the root."""
    sought = normalize(path)
    if sought == HERE:
        return HERE if HERE in folders else None
    return next((ending for ending in endings(sought) if ending in folders), None)


class Pictures:
    """Finds pictures by path, with or without extension."""

    def __init__(self, places: Iterable[PurePosixPath]) -> None:
        self._places: defaultdict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
        self._last: defaultdict[str, list[PurePosixPath]] = defaultdict(list)
        for place in places:
            for key in (place, place.with_suffix("")):
                self._places[key].append(place)
                self._last[key.name].append(place)

    def find(self, path: str, folder: PurePosixPath = HERE) -> list[PurePosixPath]:
        """Those that it means from this folder, or by its ending; more than one: it is not clear which."""
        sought = normalize(path)
        if ".." in sought.parts or sought == HERE:
            return []
        for candidate in (folder / sought, *endings(sought)):
            if found := self._places.get(candidate):
                return found
        return self._last.get(sought.name, [])

    def exactly(self, path: str, folder: PurePosixPath) -> PurePosixPath | None:
        """The one at this path from this folder."""
        place = folder / path.replace("\\", "/")
        return place if ".." not in place.parts and place in self._places.get(place, ()) else None
