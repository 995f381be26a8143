"""How a model wants its pixels and what its outputs mean: said by a manifest, never guessed from a name."""

import csv
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from contracts.errors import Rejected, SetupError
from contracts.events import Category
from contracts.tags import Share, canonical

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

    `input`, `output`, `size` (side in pixels): none = as the model file says.
    Pixels are 0 to 255 in the order of `colours`; the model gets `(pixel - mean) / std`, three values in that order.
    `gives`: whether outputs are probabilities already, or logits that still need a sigmoid.
    `categories`: what the category numbers of the tag list mean. `thresholds`: the bars the model's author advises;
    the defaults are the community's.
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
    thresholds: dict[Category, Share] = msgspec.field(default_factory=lambda: {"general": 0.35, "character": 0.85})
    preprocessing: Literal["wd-1"] = "wd-1"

    def __post_init__(self) -> None:
        if 0.0 in self.std:
            raise ValueError("`std` divides, so it cannot be 0")


class Label(msgspec.Struct, frozen=True):
    """What one output of the model stands for."""

    tag: str
    category: Category


def read_manifest(folder: Path) -> Manifest:
    """The folder's `manifest.json`, or that of a WD v3 model where only its two files are there.

    SetupError says what is missing or wrong.
    """
    if not folder.is_dir():
        raise SetupError(f"there is no model folder {folder.name!r}")
    manifest = _decoded(folder / MANIFEST) if (folder / MANIFEST).is_file() else Manifest()
    for name in (manifest.model, manifest.tags):
        if not (folder / name).is_file():
            raise SetupError(f"the model folder {folder.name!r} has no file {name!r}")
    return manifest if manifest.name else msgspec.structs.replace(manifest, name=folder.name)


def read_labels(folder: Path, manifest: Manifest) -> tuple[Label, ...]:
    """The tag list: row i names output i. Rows are told apart by their category, never by their place."""
    path = folder / manifest.tags
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            _bounded(path, MAX_TAGS)
            rows = csv.DictReader(file, strict=True)
            if not {"name", "category"} <= set(rows.fieldnames or ()):
                raise SetupError(f"{path.name} needs a header with the columns `name` and `category`")
            labels = tuple(_label(row, manifest, f"{path.name}, line {rows.line_num}") for row in rows)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SetupError(f"{path.name} is no list of tags: {error}") from error
    if not 0 < len(labels) <= MAX_ROWS:
        raise SetupError(f"{path.name} holds {len(labels)} tags; 1 to {MAX_ROWS} are read")
    return labels


def _decoded(path: Path) -> Manifest:
    _bounded(path, MAX_MANIFEST)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (msgspec.DecodeError, OSError) as error:
        raise SetupError(f"{path.parent.name}/{MANIFEST} is not valid: {error}") from error


def _label(row: dict[str, str | None], manifest: Manifest, where: str) -> Label:
    name, number = row["name"], row["category"]
    if name is None or number is None or not number.isdecimal() or int(number) not in manifest.categories:
        known = ", ".join(f"{key} = {value}" for key, value in manifest.categories.items())
        raise SetupError(f"{where}: category {number!r} is not among those the manifest names ({known})")
    try:
        return Label(canonical(name), manifest.categories[int(number)])
    except Rejected as error:
        raise SetupError(f"{where}: {error.detail}") from error


def _bounded(path: Path, limit: int) -> None:
    if path.stat().st_size > limit:
        raise SetupError(f"{path.name} is larger than {limit >> 20} MiB")
