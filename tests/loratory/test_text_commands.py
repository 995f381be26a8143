"""How training texts are written, and texts read another way: from the command line to the log and back."""

import json
from pathlib import Path

import pytest
from PIL import Image

from contracts.queries.datasets import ImageView
from loratory import Client
from loratory.cli.app import run
from tests.loratory.conftest import Cli


def picture(folder: Path, name: str, colour: str, text: str) -> None:
    Image.new("RGB", (32, 32), colour).save(folder / f"{name}.png")
    (folder / f"{name}.txt").write_text(text, encoding="utf-8")


def exported(cli: Cli, dataset: str, to: Path, *options: str) -> list[str]:
    """The training texts of an export."""
    assert cli("datasets", "export", dataset, "--format", "manifest", "--to", str(to), "--force", *options) == 0
    return [json.loads(line)["training_text"] for line in to.read_text(encoding="utf-8").splitlines()]


def test_text_settings_are_set_and_texts_read_another_way(cli: Cli, server_url: str, tmp_path: Path) -> None:
    picture(tmp_path, "a", "red", "1girl, solo, long hair")
    picture(tmp_path, "b", "green", "anna, peter")
    assert cli("datasets", "import", "texts", str(tmp_path)) == 0
    assert cli("datasets", "text-settings", "texts") == 0
    assert "1 (trigger, then the caption, or the tags where there is none)" in cli.out
    settings = ("--trigger", "猫娘", "--template", "3", "--words", "underscores", "--keep", "score_.+")
    assert cli("datasets", "text-settings", "texts", *settings) == 0
    assert cli("datasets", "text-settings", "texts", "--escape", "--json") == 0
    shown = json.loads(cli.out)
    assert (shown["trigger"], shown["template"]) == ("猫娘", 3)
    assert shown["style"] == {"words": "underscores", "keep": ["score_.+"], "escape": True, "separator": ", "}
    assert cli("datasets", "text-settings", "texts", "--keep", "(a+)+") == 1
    assert "cannot be used as a pattern of tags to keep" in cli.err
    assert cli("datasets", "text-settings", "texts", "--template", "4") == 1
    assert "no template 4" in cli.err
    assert cli("datasets", "text-settings", "texts", "--separator", "x") == 2
    assert "separator" in cli.err

    assert cli("datasets", "text-settings", "texts", "--texts", "caption", "--json") == 0
    assert "`loratory datasets read-texts texts --as caption` reads them again" in cli.err
    assert json.loads(cli.out) == shown | {"read_as": "caption", "etag": json.loads(cli.out)["etag"]}
    assert cli("datasets", "text-settings", "texts", "--texts", "auto") == 0
    assert "Imported texts" in cli.out and "by a rule" in cli.out

    texts = ["猫娘, 1girl, solo, long_hair", "猫娘, anna, peter"]
    to = tmp_path / "texts.jsonl"
    with Client(server_url) as client:
        assert [view.training_text for view in client.images("texts")] == texts
        assert exported(cli, "texts", to) == texts
        assert exported(cli, "texts", to, "--trigger", "", "--words", "spaces")[0] == "1girl, solo, long hair"

        assert cli("datasets", "read-texts", "texts", "--as", "tags", "--dry-run") == 0
        assert "Not encrypted from then on" in cli.out and "anna, peter" in cli.out
        assert said(client.images("texts")) == [("1girl", "solo", "long_hair"), ()]
        assert cli("datasets", "read-texts", "texts", "--as", "tags", "--json") == 0
        counts = json.loads(cli.out)["counts"]
        assert (counts["selected"], counts["tags"], counts["changed"]) == (2, 2, 1)
        assert said(client.images("texts")) == [("1girl", "solo", "long_hair"), ("anna", "peter")]
        back = client.read_texts("texts", "auto", filter="anna")
        assert (back.counts.selected, back.counts.captions) == (1, 1)
        assert said(client.images("texts"))[1] == ()
        history = [entry.description for entry in client.dataset_history("texts")]
    assert any("the trigger '猫娘', template 3" in one for one in history)


@pytest.mark.slow
def test_an_import_reads_texts_as_the_data_set_says_unless_it_says_so(
    cli: Cli, server_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path, "a", "red", "1girl, solo")
    Image.new("RGB", (32, 32), "blue").save(tmp_path / "b.png")
    (tmp_path / "b.json").write_text('{"caption": "my cat", "tags": ["1girl"]}')
    planned = ("datasets", "import", "private", str(tmp_path), "--dry-run")
    assert cli(*planned) == 0
    assert cli.out.count("(not encrypted)") == 2
    assert cli("datasets", "create", "private") == 0
    assert cli("datasets", "text-settings", "private", "--texts", "caption") == 0
    assert cli(*planned) == 0
    assert "(not encrypted)" not in cli.out
    with Client(server_url) as client:
        client.import_folder("private", tmp_path)
        assert [(view.caption, view.tags) for view in client.images("private")] == [
            ("1girl, solo", ()),
            ("my cat, 1girl", ()),
        ]
    assert cli(*planned, "--texts", "tags") == 0
    assert cli.out.count("(not encrypted)") == 2

    capsys.readouterr()
    nowhere = "http://127.0.0.1:9"
    assert run([*planned, "--url", nowhere], {}) == 0
    shown = capsys.readouterr()
    assert shown.out.count("(not encrypted)") == 2
    assert f"Texts are shown as the rule reads them: no Loratory server at {nowhere}" in shown.err


def said(views: list[ImageView]) -> list[tuple[str, ...]]:
    return [tuple(tag.tag for tag in view.tags) for view in views]
