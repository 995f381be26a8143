"""Export → import → equal: the pictures, their names, tags in order, and captions, for every format."""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from PIL import Image

from contracts.queries.datasets import ImageView
from loratory import Client
from loratory.export import ExportFormat
from tests.acceptance.local_stack import LocalStack

pytestmark = pytest.mark.slow

TEXTS: dict[str, dict[str, Any]] = {
    "one/猫.png": {"caption": "猫がいます (^_^) and a \\(fate\\) {red|blue}\nsecond line"},
    "two/猫.png": {"tags": ["^_^", "1girl", "saber_(fate)", "long_hair", "(o)_(o)", ":d", "score_9"]},
    "two/both.png": {"caption": "zwx, 1girl, solo", "tags": ["solo", "1girl", "猫耳"]},
    "rare.png": {"tags": ["sks", "dog"]},
    "bare.png": {},
    "two/phrase.png": {"tags": ["a_long_phrase_that_is_one_tag", "zwx"]},
    "3_cat girl/猫.png": {"caption": "a cat that counts three times"},
    "one/wild.png": {"caption": "a ||| b, __colour__ <lora:x:1>"},
}
LIST = "1girl, solo"
"""A caption that would be read as tags."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    running = LocalStack(tmp_path_factory.mktemp("round-trip") / "data", workers=False)
    running.start()
    yield running
    running.stop()


@dataclass(frozen=True)
class Content:
    """What has to be equal of an image."""

    picture: str
    name: str
    tags: tuple[str, ...]
    caption: str | None
    repeats: int
    mask: str | None

    @classmethod
    def of(cls, view: ImageView) -> "Content":
        written = view.caption if view.caption_source != "tags" else None
        return cls(view.picture, view.name, tuple(tag.tag for tag in view.tags), written, view.repeats, view.mask)


def content_of(client: Client, dataset: str) -> list[Content]:
    return sorted(map(Content.of, client.images(dataset)), key=lambda one: one.picture)


def draw(folder: Path, texts_of: Mapping[str, dict[str, Any]] = TEXTS) -> Path:
    for number, (name, texts) in enumerate(texts_of.items(), start=len(texts_of)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (48, 32 + number), (number * 20, 80, 160)).save(path)
        path.with_suffix(".json").write_text(json.dumps(texts), encoding="utf-8")
        if path.parent.name == "3_cat girl":
            mask = Image.new("L", (48, 32 + number), 255)
            mask.paste(0, (0, 0, 20, 20))
            mask.save(path.with_name(f"{path.stem}-masklabel.png"))
    return folder


def test_the_drawn_world_in_every_format(stack: LocalStack, tmp_path: Path) -> None:
    with stack.client() as client:
        client.create_dataset("drawn")
        client.import_folder("drawn", draw(tmp_path / "pictures"))
        client.import_folder("drawn", draw(tmp_path / "list", {"list.png": {"caption": LIST}}), read_as="caption")
        before = content_of(client, "drawn")
        assert {one.name for one in before} == {"list.png", *TEXTS}
        assert {one.caption for one in before} == {LIST, *(texts.get("caption") for texts in TEXTS.values())}
        assert {one.tags for one in before} == {tuple(texts.get("tags", ())) for texts in TEXTS.values()}
        assert [one.repeats for one in before if one.mask] == [3]
        client.freeze("drawn", "zwx")
        assert_equal_in_every_format(client, "drawn", tmp_path)


def assert_equal_in_every_format(client: Client, dataset: str, tmp_path: Path) -> None:
    before = content_of(client, dataset)
    zips: tuple[ExportFormat, ...] = ("kohya", "flat", "imagefolder")
    for version, format in itertools.product((None, 1), zips):
        name = f"{dataset} {format} {version}"
        client.export(dataset, tmp_path / f"{name}.zip", version=version, format=format)
        client.create_dataset(name)
        client.import_archive(name, tmp_path / f"{name}.zip")
        assert content_of(client, name) == before, name
    unpacked = tmp_path / "unpacked"
    with ZipFile(tmp_path / f"{dataset} flat 1.zip") as opened:
        opened.extractall(unpacked, [name for name in opened.namelist() if not name.endswith((".txt", ".json"))])
    client.export(dataset, unpacked / "manifest.jsonl", format="manifest")
    client.create_dataset(f"{dataset} manifest")
    client.import_folder(f"{dataset} manifest", unpacked)
    assert content_of(client, f"{dataset} manifest") == before


@pytest.mark.shared
def test_photographs_in_every_format(stack: LocalStack, photographs: Path, tmp_path: Path) -> None:
    pictures = sorted((photographs / "dog").glob("*.jpg"))
    texts = itertools.cycle(TEXTS.values())
    for number, (picture, fields) in enumerate(zip(pictures, texts, strict=False)):
        folder = tmp_path / "pictures" / str(number)
        folder.mkdir(parents=True)
        (folder / "犬.jpg").write_bytes(picture.read_bytes())
        (folder / "犬.json").write_text(json.dumps(fields), encoding="utf-8")
    with stack.client() as client:
        client.create_dataset("photographs")
        client.import_folder("photographs", tmp_path / "pictures")
        assert len(content_of(client, "photographs")) == len(pictures) > 1
        client.freeze("photographs", "zwx")
        assert_equal_in_every_format(client, "photographs", tmp_path)
