"""Kohya's dataset configuration, `--dataset_config`: a TOML file with `[[datasets]]`. Pure.

sd-scripts, `docs/config_README-en.md`: a value of a subset comes before one of its data set, then `[general]`. Where
there is such a file, the names of folders mean nothing.
"""

import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from loratory.folders.kohya_folders import Subset
from loratory.folders.places import find_folder

MAX_CONFIG_BYTES = 1 << 20
MAX_REPEATS = 10_000


def parse_config(content: bytes) -> dict[str, Any] | None:
    """None: it is no dataset configuration, but another TOML file. ValueError: it is no TOML."""
    config = tomllib.loads(content.decode("utf-8-sig"))
    return config if isinstance(config.get("datasets"), list) else None


def find_subsets(
    config: Mapping[str, Any], folders: Collection[PurePosixPath]
) -> tuple[dict[PurePosixPath, Subset], list[str]]:
    """By folder inside the root, and sentences about what is not used."""
    subsets: dict[PurePosixPath, Subset] = {}
    notes: list[str] = []
    for values in _merged(config):
        image_dir = values.get("image_dir")
        if not isinstance(image_dir, str):
            notes.append("a subset has no image_dir")
            continue
        folder = find_folder(image_dir, folders)
        if folder is None:
            notes.append(f"its image_dir {image_dir!r} is no folder with images here")
        elif folder in subsets:
            notes.append(f"its image_dir {image_dir!r} stands twice, and the first counts")
        else:
            subsets[folder] = _subset(values, notes)
    return subsets, notes


def _merged(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    general = _table(config.get("general"))
    for dataset in map(_table, config["datasets"]):
        subsets = dataset.get("subsets")
        for subset in subsets if isinstance(subsets, list) else []:
            yield general | {key: value for key, value in dataset.items() if key != "subsets"} | _table(subset)


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _subset(values: Mapping[str, Any], notes: list[str]) -> Subset:
    image_dir, repeats = values["image_dir"], values.get("num_repeats", 1)
    if not isinstance(repeats, int) or not 1 <= repeats <= MAX_REPEATS:
        notes.append(
            f"num_repeats of {image_dir!r} is {repeats!r}, not a number from 1 to {MAX_REPEATS}; it counts as 1"
        )
        repeats = 1
    extension = _text(values, "caption_extension")
    return Subset(
        repeats=repeats,
        class_tokens=(_text(values, "class_tokens") or "").strip(),
        is_reg=values.get("is_reg") is True,
        caption_extension=f".{extension.lstrip('.')}".lower() if extension else None,
        metadata_file=_text(values, "metadata_file"),
    )


def _text(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    return value if isinstance(value, str) and value else None
