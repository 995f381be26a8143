"""Where a base lies on this machine. Knows folders, not models: it needs no torch."""

from pathlib import Path

from contracts.errors import Rejected
from contracts.recipe import Base, BuiltinBase, FolderBase


def base_folder(base: Base, *, builtin: Path, bases: Path) -> Path:
    """The pipeline folder of a base. `builtin` holds the ones that come with Loratory, by name; `bases` the user's.

    A relative path may not lead out of `bases`. Rejected when the folder is not there; a built-in one need not be,
    as the child makes it when it is first needed.
    """
    match base:
        case BuiltinBase(name=name):
            return builtin / name
        case FolderBase(path=path):
            folder = Path(path) if Path(path).is_absolute() else (bases / path).resolve()
            if not Path(path).is_absolute() and not folder.is_relative_to(bases.resolve()):
                raise Rejected(f"the base {path!r} leads out of the folder of bases")
            if not folder.is_dir():
                raise Rejected(f"there is no base folder {path!r} on the trainer's machine")
            return folder
