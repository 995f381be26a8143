"""The formats of exports: which file is where, and what the files beside the pictures contain. Pure.

Kohya's: sd-scripts, `library/config_util.py` and `docs/config_README-en.md`. Imagefolder: Hugging Face Datasets,
"Create an image dataset". Masks: OneTrainer, which reads `-masklabel.png` files beside pictures.
"""

import json
from collections.abc import Collection, Iterable, Iterator
from typing import Literal

import msgspec

from contracts.ids import DatasetId, Digest, ImageId
from contracts.tag_style import DEFAULT_STYLE
from gateway.exports.file_names import safe_name
from gateway.exports.overlay import Overlay

Format = Literal["kohya", "flat", "imagefolder", "manifest"]

METADATA, DATASET_CONFIG, SUMMARY = "metadata.jsonl", "dataset.toml", "export.json"
MASK_SUFFIX, MASK_EXTENSION = "-masklabel", ".png"


class Kohya(msgspec.Struct, frozen=True, kw_only=True):
    """How often each image is repeated in an epoch, times its own repeats, and the caption of images that have none."""

    repeats: int = 1
    class_tokens: str = ""


class ImageLine(msgspec.Struct, frozen=True, kw_only=True):
    """One image, as a line of a manifest: `training_text` with the changes of the export, `tags` canonical.

    `received`: the sha256 of the text that it was last imported with; not of a version.
    `picture` and `source` are sha256: of the stored picture, and of the file as received, of which `size` is in bytes.
    `repeats`: how often it is seen in an epoch. `mask`: sha256 of a grey PNG, white where the picture is to be trained.
    `file`: the path of the picture, in a zip file.
    """

    ordinal: int
    image: ImageId
    name: str
    picture: Digest
    source: Digest | None
    width: int
    height: int
    size: int
    tags: tuple[str, ...]
    caption: str | None
    caption_source: str
    training_text: str
    caption_lost: bool = False
    erased: bool = False
    repeats: int = 1
    mask: Digest | None = None
    file: str | msgspec.UnsetType = msgspec.UNSET
    received: Digest | msgspec.UnsetType | None = msgspec.UNSET


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """An image that is not in the export although it was selected, or is in the version."""

    ordinal: int
    image: ImageId
    reason: Literal["erased"] = "erased"


class Origin(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is exported: a version, or a data set as of the sequence `as_of` of its last event.

    `until`: the same when all was read; where it differs, the data set was changed meanwhile, and each image is as it
    was when it was read.
    """

    dataset: str
    dataset_id: DatasetId
    version: int | None = None
    filter: str | None = None
    as_of: int
    until: int


class Summary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The content of `export.json`. `several_lines`: images whose text has several, of which kohya's takes one.

    `separator`: that of the text settings, where the overlay has none.
    """

    format: Format
    origin: Origin
    trigger: str
    overlay: Overlay
    separator: str = DEFAULT_STYLE.separator
    images: int
    several_lines: int
    left_out: tuple[LeftOut, ...]


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Where the files of an export are."""

    format: Format
    kohya: Kohya = Kohya()

    def folder_of(self, repeats: int) -> str:
        """Of pictures with these repeats of their own, with a slash at the end; empty: at the top."""
        if self.format != "kohya":
            return ""
        return f"{self.kohya.repeats * repeats}_{safe_name(self.kohya.class_tokens)}/"

    def mask_folder_of(self, repeats: int) -> str:
        """Of the masks of pictures with these repeats: beside them, but not where sd-scripts would train them."""
        return f"masks/{self.folder_of(repeats)}" if self.format == "kohya" else self.folder_of(repeats)

    @property
    def has_sidecars(self) -> bool:
        return self.format in {"kohya", "flat"}


def mask_name(stem: str) -> str:
    return f"{stem}{MASK_SUFFIX}{MASK_EXTENSION}"


def metadata_line(file_name: str, image: ImageLine, mask: str | None = None) -> bytes:
    """A line of an imagefolder's `metadata.jsonl`, without line break. `mask`: the file name of its mask.

    All pictures are in one folder: Datasets takes folders with names such as `test` for splits, and leaves out what is
    in no split. `name`: the path that the image was imported with.
    """
    optional = {} if mask is None else {"mask_file_name": mask}
    line = {"file_name": file_name, "text": image.training_text, "tags": image.tags, "name": image.name}
    return msgspec.json.encode(line | optional)


def summary_file(summary: Summary, files: Iterable[bytes]) -> Iterator[bytes]:
    """The content of `export.json`, in parts: the summary and, as `files`, these lines of JSON about the pictures."""
    yield msgspec.json.format(msgspec.json.encode(summary), indent=2).removesuffix(b"\n}") + b',\n  "files": ['
    separator = b"\n    "
    for line in files:
        yield separator + line
        separator = b",\n    "
    yield b"\n  ]\n}\n"


def dataset_config(
    layout: Layout, summary: Summary, repeats: Collection[int] = (1,), *, has_masks: bool = False
) -> bytes:
    """The `--dataset_config` of sd-scripts, which refuses keys that it does not know.

    `keep_tokens`: those of the trigger stay in front where captions are shuffled. `repeats`: those that images have of
    their own, each with a folder.
    """
    lines = ["# image_dir is relative to the folder in which the training is started."]
    if has_masks:
        lines.append(
            "# The masks are in the folder masks, under the paths of their pictures: beside them they would be trained."
        )
    separator = summary.overlay.separator or summary.separator
    if separator != DEFAULT_STYLE.separator:
        lines.append(f"# Tags are separated by {_toml(separator)}: add --caption_separator {_toml(separator.strip())}.")
    lines += ["[general]", 'caption_extension = ".txt"', "enable_bucket = true"]
    if summary.several_lines:
        lines += ["# Some captions have several lines: each time one of them is used.", "enable_wildcard = true"]
    lines += ["", "[[datasets]]"]
    for own in sorted(repeats):
        lines += ["", "[[datasets.subsets]]", f"image_dir = {_toml(layout.folder_of(own).rstrip('/'))}"]
        lines += [f"num_repeats = {layout.kohya.repeats * own}", f"class_tokens = {_toml(layout.kohya.class_tokens)}"]
        if summary.trigger:
            lines += [f"keep_tokens = {len(summary.trigger.split(separator.strip() or separator))}"]
    return "\n".join([*lines, ""]).encode()


def _toml(text: str) -> str:
    """A basic string of TOML, which is that of JSON but for one control character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
