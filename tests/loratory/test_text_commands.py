"""How training texts are written, and texts read another way: from the command line to the log and back."""

import json
from pathlib import Path

from PIL import Image

from contracts.queries.datasets import ImageView
from loratory import Client
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


def said(views: list[ImageView]) -> list[tuple[str, ...]]:
    return [tuple(tag.tag for tag in view.tags) for view in views]
