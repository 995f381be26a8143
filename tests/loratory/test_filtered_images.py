"""Filters, sort orders and review states from the command line and the client, through all services."""

import json
from pathlib import Path

import pytest

from contracts.errors import Conflict, Invalid
from loratory import Client
from tests.loratory.conftest import Cli


def test_images_are_filtered_sorted_and_reviewed(cli: Cli, server_url: str, image_folder: Path) -> None:
    (image_folder / "1.png").rename(image_folder / "10.png")
    (image_folder / "1.txt").rename(image_folder / "10.txt")
    with Client(server_url) as client:
        client.create_dataset("filtered")
        client.import_folder("filtered", image_folder)
        assert [image.name for image in client.images("filtered", sort="-name")] == ["10.png", "2.png", "0.png"]
        (captioned,) = client.images("filtered", filter='caption:"GREEN square" width>=64')
        assert captioned.name == "10.png"
        assert client.review("filtered", filter="-captioned").images == 2
        assert client.review("filtered", images=[captioned.id]).images == 1
        assert client.review("filtered", images=[captioned.id], reviewed=False).images == 1
        assert client.images("filtered", filter="unreviewed") == client.images("filtered", filter="captioned")
        assert client.review("filtered").images == 1
        with pytest.raises(Invalid, match="filter, character 5: this parenthesis is never closed"):
            client.images("filtered", filter="cat (dog")
    assert cli("images", "ls", "filtered", "--filter", "aspect>=1 -captioned", "--sort", "name") == 0
    assert [line.split("\t")[0] for line in cli.out.splitlines()] == ["Name", "0.png", "2.png"]
    assert cli("images", "ls", "filtered", "--filter", "-captioned", "--sort", "-name") == 0
    assert [line.split("\t")[0] for line in cli.out.splitlines()] == ["Name", "2.png", "0.png"]
    assert cli("images", "ls", "filtered", "--filter", "name:10", "--json") == 0
    assert [image["name"] for image in json.loads(cli.out)] == ["10.png"]
    assert cli("images", "ls", "filtered", "--sort", "colour") == 2
    assert "sort must be one of" in cli.err


def test_the_tags_of_many_images_are_previewed_edited_and_undone(cli: Cli, server_url: str, image_folder: Path) -> None:
    with Client(server_url) as client:
        client.create_dataset("edited")
        client.import_folder("edited", image_folder)
        preview = client.preview_edit("edited", filter="-captioned", add=["square"])
        assert (preview.selected, preview.changed) == (2, 2)
        edited = client.edit_many("edited", filter="-captioned", add=["square"], as_of=preview.as_of)
        assert (edited.images, edited.selected) == (2, 2)
        with pytest.raises(Conflict, match="2 images changed since the preview"):
            client.edit_many("edited", add=["round"], as_of=preview.as_of)
    assert cli("datasets", "edit", "edited", "--add", "square", "--remove", "round", "--dry-run") == 0
    assert "Would change:  3" in cli.out
    assert "square asserted:  1 image" in cli.out
    assert cli("datasets", "edit", "edited", "--filter", "square", "--withdraw", "square", "--add", "flat") == 0
    assert cli.out == "2 of 2 images changed\n"
    assert cli("images", "ls", "edited", "--filter", "flat -square", "--json") == 0
    assert len(json.loads(cli.out)) == 2
    assert cli("datasets", "edit", "edited", "--filter", "-square") == 1
    assert "an edit names at least one tag" in cli.err


def test_repeats_are_set_by_filter(cli: Cli, server_url: str, image_folder: Path) -> None:
    with Client(server_url) as client:
        client.create_dataset("repeated")
        client.import_folder("repeated", image_folder)
        assert client.set_repeats("repeated", 2).images == 3
    assert cli("datasets", "repeats", "repeated", "7", "--filter", "-captioned") == 0
    assert cli.out == "repeats of 2 images changed\n"
    assert cli("images", "ls", "repeated", "--sort", "name", "--json") == 0
    assert [(image["name"], image["repeats"]) for image in json.loads(cli.out)] == [
        *(("0.png", 7), ("1.png", 2), ("2.png", 7)),
    ]
    assert cli("datasets", "repeats", "repeated", "0") == 2
    assert "repeats must be at least 1" in cli.err
