"""The available tagger models: the shipped ones and the folders in the user's models folder."""

from pathlib import Path

from contracts.errors import Rejected
from contracts.shipped_models import TEST_MODELS, shipped_models
from tagger.wd.manifest import MANIFEST, MODEL


def available_models(models: Path | None) -> dict[str, Path]:
    """Name → folder, shipped models first. A folder with a manifest or a `model.onnx` is a model."""
    shipped = shipped_models("taggers")
    folders = sorted(models.iterdir()) if models is not None and models.is_dir() else []
    custom = {each.name: each for each in folders if (each / MANIFEST).is_file() or (each / MODEL).is_file()}
    return {**shipped, **{name: folder for name, folder in custom.items() if name not in shipped}}


def offered_models(models: Path | None) -> tuple[str, ...]:
    """The names of those that users may choose from."""
    return tuple(name for name in available_models(models) if name not in TEST_MODELS)


def model_folder(name: str, models: Path | None) -> Path:
    """The folder of the model with this name; a name cannot refer to a path elsewhere. Rejected: no such model."""
    available = available_models(models)
    if name not in available:
        raise Rejected(f"there is no tagger model {name!r}; available: {', '.join(offered_models(models))}")
    return available[name]


def unusable_model_error(name: str, why: str) -> Rejected:
    """The error for a model folder that exists but whose model does not load."""
    return Rejected(f"the tagger model {name!r} cannot be used: {why}")
