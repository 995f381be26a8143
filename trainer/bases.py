"""Finds the folder of a base model on this machine. Handles paths only, so it needs no torch."""

from pathlib import Path

from contracts.errors import Rejected
from contracts.recipe import Base, BuiltinBase, FolderBase

DEMO_BASE_FOLDER = Path(__file__).parent / "demo" / "base"
"""The demo base is part of the package and is read from there."""


def base_folder(base: Base, *, builtin: Path, bases: Path) -> Path:
    """The pipeline folder of a base. `builtin` contains generated built-in bases by name, `bases` the user's.

    Rejected if the folder is missing or a relative path leaves `bases`. A generated base may be missing: the engine
    creates it on first use.
    """
    match base:
        case BuiltinBase(name="demo"):
            if not (DEMO_BASE_FOLDER / "model_index.json").is_file():
                raise Rejected("the base 'demo' is not part of this installation of the trainer")
            return DEMO_BASE_FOLDER
        case BuiltinBase(name=name):
            return builtin / name
        case FolderBase(path=path):
            folder = Path(path) if Path(path).is_absolute() else (bases / path).resolve()
            if not Path(path).is_absolute() and not folder.is_relative_to(bases.resolve()):
                raise Rejected(f"the base {path!r} is outside the bases folder")
            if not folder.is_dir():
                raise Rejected(f"there is no base folder {path!r} on the trainer's machine")
            return folder
