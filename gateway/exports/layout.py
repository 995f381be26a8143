"""The formats of exports: which file is where, and what the files beside the pictures contain. Pure.

Kohya's: sd-scripts, `library/config_util.py` and `docs/config_README-en.md`. Imagefolder: Hugging Face Datasets,
"Create an image dataset".
"""

import json
from typing import Literal

import msgspec

from contracts.ids import DatasetId, Digest, ImageId
from contracts.tag_style import DEFAULT_STYLE
from gateway.exports.file_names import safe_name
from gateway.exports.overlay import Overlay

Format = Literal["kohya", "flat", "imagefolder", "manifest"]

METADATA, DATASET_CONFIG, SUMMARY = "metadata.jsonl", "dataset.toml", "export.json"


class Kohya(msgspec.Struct, frozen=True, kw_only=True):
    """How often each image is repeated in an epoch, and the caption of images that have none."""

    repeats: int = 1
    class_tokens: str = ""


class ImageLine(msgspec.Struct, frozen=True, kw_only=True):
    """One image, as a line of a manifest: `training_text` with the changes of the export, `tags` canonical.

    `picture` and `source` are sha256: of the stored picture, and of the file as received, of which `size` is in bytes.
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

    @property
    def folder(self) -> str:
        """Of the pictures, with a slash at the end; empty: at the top."""
        if self.format != "kohya":
            return ""
        return f"{self.kohya.repeats}_{safe_name(self.kohya.class_tokens)}/"

    @property
    def has_sidecars(self) -> bool:
        return self.format in {"kohya", "flat"}


def metadata_line(file_name: str, image: ImageLine) -> bytes:
    """A line of an imagefolder's `metadata.jsonl`, without line break."""
    return msgspec.json.encode({"file_name": file_name, "text": image.training_text, "tags": image.tags})


def summary_file(summary: Summary) -> bytes:
    return msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n"


def dataset_config(layout: Layout, summary: Summary) -> bytes:
    """The `--dataset_config` of sd-scripts, which refuses keys that it does not know.

    `keep_tokens`: those of the trigger stay in front where captions are shuffled.
    """
    folder, kohya = layout.folder.rstrip("/"), layout.kohya
    lines = ["# image_dir is relative to the folder in which the training is started."]
    separator = summary.overlay.separator or summary.separator
    if separator != DEFAULT_STYLE.separator:
        lines.append(f"# Tags are separated by {_toml(separator)}: add --caption_separator {_toml(separator.strip())}.")
    lines += ["[general]", 'caption_extension = ".txt"', "enable_bucket = true"]
    if summary.several_lines:
        lines += ["# Some captions have several lines: each time one of them is used.", "enable_wildcard = true"]
    lines += ["", "[[datasets]]", "", "[[datasets.subsets]]"]
    lines += [f"image_dir = {_toml(folder)}", f"num_repeats = {kohya.repeats}"]
    lines += [f"class_tokens = {_toml(kohya.class_tokens)}"]
    if summary.trigger:
        lines += [f"keep_tokens = {len(summary.trigger.split(separator.strip() or separator))}"]
    return "\n".join([*lines, ""]).encode()


def _toml(text: str) -> str:
    """A basic string of TOML, which is that of JSON but for one control character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
