"""The available tagger models: the built-in ones and the folders in the user's models folder."""

from pathlib import Path

from contracts.errors import Rejected
from tagger.demo import DEMO
from tagger.tiny_random import TINY_RANDOM
from tagger.wd.manifest import MANIFEST, MODEL

BUILT_IN = {"demo": DEMO, "tiny-random": TINY_RANDOM}


def available_models(models: Path | None) -> dict[str, Path]:
    """Name → folder, built-in models first. A folder with a manifest or a `model.onnx` is a model."""
    folders = sorted(models.iterdir()) if models is not None and models.is_dir() else []
    custom = {each.name: each for each in folders if (each / MANIFEST).is_file() or (each / MODEL).is_file()}
    return {**BUILT_IN, **{name: folder for name, folder in custom.items() if name not in BUILT_IN}}


def model_folder(name: str, models: Path | None) -> Path:
    """The folder of the model with this name; a name cannot refer to a path elsewhere. Rejected: no such model."""
    available = available_models(models)
    if name not in available:
        raise Rejected(f"there is no tagger model {name!r}; available: {', '.join(available)}")
    return available[name]


def unusable_model_error(name: str, why: str) -> Rejected:
    """The error for a model folder that exists but whose model does not load."""
    return Rejected(f"the tagger model {name!r} cannot be used: {why}")
