"""Filters, sort orders and review states from the command line and the client, through all services."""

import json
from pathlib import Path

import pytest

from contracts.errors import Invalid
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
    assert cli("images", "ls", "filtered", "--filter", "name:10", "--json") == 0
    assert [image["name"] for image in json.loads(cli.out)] == ["10.png"]
    assert cli("images", "ls", "filtered", "--sort", "colour") == 2
    assert "sort must be one of" in cli.err
