"""Which tagger models there are: the built-in ones, and each folder a user put into the models folder."""

from pathlib import Path

from contracts.errors import Rejected
from tagger.demo import DEMO
from tagger.standin import STAND_IN
from tagger.wd.manifest import MANIFEST, MODEL

BUILT_IN = {"demo": DEMO, "stand-in": STAND_IN}


def known(models: Path | None) -> dict[str, Path]:
    """Name to folder, the built-in models first. A folder counts when it holds a manifest or a `model.onnx`."""
    folders = sorted(models.iterdir()) if models is not None and models.is_dir() else []
    own = {each.name: each for each in folders if (each / MANIFEST).is_file() or (each / MODEL).is_file()}
    return {**BUILT_IN, **{name: folder for name, folder in own.items() if name not in BUILT_IN}}


def folder_of(name: str, models: Path | None) -> Path:
    """The folder of a model by its name; a name never reaches outside the models folder. Rejected: no such model."""
    found = known(models)
    if name not in found:
        raise Rejected(f"there is no tagger model {name!r}; there are: {', '.join(found)}")
    return found[name]


def unusable(name: str, why: str) -> Rejected:
    """The folder is there, but the model in it does not load."""
    return Rejected(f"the tagger model {name!r} cannot be used: {why}")
