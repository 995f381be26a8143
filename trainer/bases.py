"""Where a base lies on this machine. Knows folders, not models: it needs no torch."""

from pathlib import Path

from contracts.errors import Rejected
from contracts.recipe import Base, BuiltinBase, FolderBase

DEMO = Path(__file__).parent / "demo" / "base"
"""The demo base comes with the package and is read where it lies."""


def base_folder(base: Base, *, made: Path, bases: Path) -> Path:
    """The pipeline folder of a base. `made` holds built-in ones that the child makes, by name; `bases` the user's.

    A relative path may not lead out of `bases`. Rejected when the folder is not there; one that the child makes need
    not be, as it is made when it is first needed.
    """
    match base:
        case BuiltinBase(name="demo"):
            if not (DEMO / "model_index.json").is_file():
                raise Rejected("the base 'demo' did not come with this installation of the trainer")
            return DEMO
        case BuiltinBase(name=name):
            return made / name
        case FolderBase(path=path):
            folder = Path(path) if Path(path).is_absolute() else (bases / path).resolve()
            if not Path(path).is_absolute() and not folder.is_relative_to(bases.resolve()):
                raise Rejected(f"the base {path!r} leads out of the folder of bases")
            if not folder.is_dir():
                raise Rejected(f"there is no base folder {path!r} on the trainer's machine")
            return folder
