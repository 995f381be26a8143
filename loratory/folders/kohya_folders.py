"""Folders of kohya's trainers: `<repeats>_<class tokens>`, directly under the root, or the root itself. Pure.

sd-scripts, `library/config_util.py`: divided at the first `_`; the class tokens are the caption of images without one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

MAX_REPEATS = 1000
"""A folder with a higher number is named by something else, such as a year."""


@dataclass(frozen=True)
class Subset:
    """What holds for the images directly in one folder. `is_reg`: regularisation images, which are not trained on.

    `caption_extension`: of the texts that are preferred, with its dot; `metadata_file`: of kohya's JSON.
    """

    repeats: int = 1
    class_tokens: str = ""
    is_reg: bool = False
    caption_extension: str | None = None
    metadata_file: str | None = None


def parse_name(name: str) -> Subset | str | None:
    """Of a folder; a reason if it only looks like one of kohya's; none if it does not."""
    number, underscore, class_tokens = name.partition("_")
    try:
        repeats = int(number) if number.isascii() else 0
    except ValueError:
        return None
    if not underscore or not number.isascii():
        return None
    if not 1 <= repeats <= MAX_REPEATS:
        return f"{repeats} is no number of repeats (1 to {MAX_REPEATS}), so it is read as a plain folder"
    return Subset(repeats=repeats, class_tokens=class_tokens.strip())


def find_subsets(root: str, places: Iterable[PurePosixPath]) -> tuple[dict[PurePosixPath, Subset], list[str]]:
    """The folders of these images that are kohya's, and sentences about those that only look like them."""
    subsets: dict[PurePosixPath, Subset] = {}
    notes: list[str] = []
    for folder in dict.fromkeys(place.parent for place in places):
        if len(folder.parts) > 1:
            continue
        found = parse_name(folder.name or root)
        if isinstance(found, Subset):
            subsets[folder] = found
        elif found is not None:
            notes.append(f"{folder.name or root}/: {found}")
    return subsets, notes
