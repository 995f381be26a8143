"""Model manifests: how a model expects its pixels and what its outputs mean, never inferred from a model's name."""

import csv
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from contracts.errors import Rejected, SetupError
from contracts.events.base import Category
from contracts.tags import Probability, canonicalize

MANIFEST = "manifest.json"
MODEL = "model.onnx"
TAGS = "selected_tags.csv"

MAX_MANIFEST = 1 << 20
MAX_TAGS = 64 << 20
MAX_ROWS = 500_000

FileName = Annotated[str, Meta(pattern=r"^[^/\\:\x00]{1,255}\Z", min_length=1)]
Triple = tuple[float, float, float]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model folder. The defaults are those of the WD v3 models (https://huggingface.co/SmilingWolf).

    `input`, `output`, `size` (side in pixels): None = taken from the model file.
    Pixels are 0 to 255 in the channel order `colours`; the model gets `(pixel - mean) / std`, one value per channel.
    `gives`: whether the outputs are probabilities or logits that still need a sigmoid.
    `categories`: meaning of the category numbers in the tag list. `thresholds`: recommended by the model's author;
    the defaults are those the community uses.
    """

    name: str = ""
    model: FileName = MODEL
    tags: FileName = TAGS
    input: str | None = None
    output: str | None = None
    size: Annotated[int, Meta(ge=8, le=4096)] | None = None
    layout: Literal["NHWC", "NCHW"] = "NHWC"
    colours: Literal["BGR", "RGB"] = "BGR"
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    gives: Literal["probabilities", "logits"] = "probabilities"
    categories: dict[int, Category] = msgspec.field(
        default_factory=lambda: {0: "general", 4: "character", 9: "rating"},
    )
    thresholds: dict[Category, Probability] = msgspec.field(
        default_factory=lambda: {"general": 0.35, "character": 0.85},
    )
    preprocessing: Literal["wd-1"] = "wd-1"

    def __post_init__(self) -> None:
        if 0.0 in self.std:
            raise ValueError("`std` is a divisor and cannot be 0")


class Label(msgspec.Struct, frozen=True):
    """Meaning of one model output."""

    tag: str
    category: Category


def read_manifest(folder: Path) -> Manifest:
    """Read the folder's `manifest.json`; without one, the defaults of a WD v3 model apply.

    Raises SetupError with what is missing or invalid.
    """
    if not folder.is_dir():
        raise SetupError(f"there is no model folder {folder.name!r}")
    manifest = _decode_manifest(folder / MANIFEST) if (folder / MANIFEST).is_file() else Manifest()
    for name in (manifest.model, manifest.tags):
        if not (folder / name).is_file():
            raise SetupError(f"the model folder {folder.name!r} has no file {name!r}")
    return manifest if manifest.name else msgspec.structs.replace(manifest, name=folder.name)


def read_labels(folder: Path, manifest: Manifest) -> tuple[Label, ...]:
    """Read the tag list: row i names output i. The category comes from the row's column, not from its position."""
    path = folder / manifest.tags
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            _check_file_size(path, MAX_TAGS)
            rows = csv.DictReader(file, strict=True)
            if not {"name", "category"} <= set(rows.fieldnames or ()):
                raise SetupError(f"{path.name} needs a header with the columns `name` and `category`")
            labels = tuple(_parse_label(row, manifest, f"{path.name}, line {rows.line_num}") for row in rows)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SetupError(f"{path.name} is not a list of tags: {error}") from error
    if not 0 < len(labels) <= MAX_ROWS:
        raise SetupError(f"{path.name} holds {len(labels)} tags; the limits are 1 to {MAX_ROWS}")
    return labels


def _decode_manifest(path: Path) -> Manifest:
    _check_file_size(path, MAX_MANIFEST)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (msgspec.DecodeError, OSError) as error:
        raise SetupError(f"{path.parent.name}/{MANIFEST} is not valid: {error}") from error


def _parse_label(row: dict[str, str | None], manifest: Manifest, where: str) -> Label:
    name, number = row["name"], row["category"]
    if name is None or number is None or not number.isdecimal() or int(number) not in manifest.categories:
        known = ", ".join(f"{key} = {value}" for key, value in manifest.categories.items())
        raise SetupError(f"{where}: category {number!r} is not one of the manifest's categories ({known})")
    try:
        return Label(canonicalize(name), manifest.categories[int(number)])
    except Rejected as error:
        raise SetupError(f"{where}: {error.detail}") from error


def _check_file_size(path: Path, limit: int) -> None:
    if path.stat().st_size > limit:
        raise SetupError(f"{path.name} is larger than {limit >> 20} MiB")
