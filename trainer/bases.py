"""Finds the folder of a base model on this machine. Handles paths only, so it needs no torch."""

from pathlib import Path

from contracts.errors import Rejected
from contracts.recipe import Base, BuiltinBase, FolderBase
from contracts.shipped_models import shipped_models


def base_folder(base: Base, *, builtin: Path, bases: Path) -> Path:
    """The pipeline folder of a base. `builtin` contains generated built-in bases by name, `bases` the user's.

    Rejected if the folder is missing or a relative path leaves `bases`. A generated base may be missing: the engine
    creates it on first use.
    """
    match base:
        case BuiltinBase(name="tiny-random" as name):
            return builtin / name
        case BuiltinBase(name=name):
            shipped = shipped_models("bases").get(name)
            if shipped is None or not (shipped / "model_index.json").is_file():
                raise Rejected(f"the base {name!r} is not part of this installation of the trainer")
            return shipped
        case FolderBase(path=path):
            folder = Path(path) if Path(path).is_absolute() else (bases / path).resolve()
            if not Path(path).is_absolute() and not folder.is_relative_to(bases.resolve()):
                raise Rejected(f"the base {path!r} is outside the bases folder")
            if not folder.is_dir():
                raise Rejected(f"there is no base folder {path!r} on the trainer's machine")
            return folder
