"""Texts written back beside their pictures: what is written and how, and never over what somebody changed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from contracts.errors import SetupError
from loratory import Client
from loratory.write_texts import WrittenTexts
from tests.loratory.conftest import Cli

COLOURS = ("red", "blue", "green", "white")


@pytest.fixture
def client(server_url: str) -> Iterator[Client]:
    with Client(server_url) as opened:
        yield opened


def folder_with(root: Path, texts: dict[str, bytes]) -> Path:
    """A picture of another colour for each text, whose name is that of the text file."""
    for colour, (name, text) in zip(COLOURS, texts.items(), strict=False):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), colour).save(file.with_suffix(".png"))
        file.write_bytes(text)
    return root


def imported(client: Client, name: str, folder: Path) -> str:
    client.ensure_dataset(name)
    client.import_folder(name, folder)
    return name


def files(result: WrittenTexts) -> list[Path]:
    return [text.file for text in result.written.values()]


def reasons(result: WrittenTexts) -> dict[str, str]:
    return dict(result.left)


def test_edits_reach_the_text_files_in_their_own_way_of_ending_lines(client: Client, tmp_path: Path) -> None:
    texts = {"a.txt": b"1girl, bad_tag\r\n", "sub/b.TXT": b"1girl\nbad tag", "c.caption": b"A woman on a bench."}
    name = imported(client, "written", folder_with(tmp_path / "girl", texts))
    (tmp_path / "girl" / "a.txt").chmod(0o640)
    Image.new("RGB", (32, 32), "black").save(tmp_path / "girl" / "d.png")
    client.import_folder(name, tmp_path / "girl")
    client.edit_many(name, remove=["bad_tag"], add=["name_(series)"])

    planned = client.write_texts(name, tmp_path / "girl", dry_run=True)
    assert (tmp_path / "girl" / "a.txt").read_bytes() == b"1girl, bad_tag\r\n"
    result = client.write_texts(name, tmp_path / "girl", escape=True)
    assert (planned.written.keys(), files(planned), result.left) == (result.written.keys(), files(result), [])
    root = tmp_path / "girl"
    assert (root / "a.txt").read_bytes() == b"1girl, name \\(series\\)\r\n"
    assert (root / "a.txt").stat().st_mode & 0o777 == 0o640
    assert (root / "sub" / "b.TXT").read_bytes() == b"1girl, name \\(series\\)"
    assert (root / "c.caption").read_bytes() == b"A woman on a bench."
    assert (root / "d.txt").read_bytes() == b"name \\(series\\)"
    assert not [file for file in root.rglob("*") if file.name.startswith(".")]


def test_the_folder_imported_again_changes_nothing(client: Client, tmp_path: Path) -> None:
    texts = {"a.txt": b"1girl, sks_dog", "b.txt": b"1girl, solo", "c.txt": b"A caption."}
    name = imported(client, "again", folder_with(tmp_path, texts))
    client.edit_many(name, remove=["1girl"], filter="sks_dog")
    client.edit_many(name, remove=["1girl", "solo"], filter="solo")
    assert len(client.write_texts(name, tmp_path).written) == 2
    assert ((tmp_path / "a.txt").read_text(), (tmp_path / "b.txt").read_text()) == ("sks dog", "\n")
    before = client.images(name), client.dataset(name).etag
    imported(client, name, tmp_path)
    assert (client.images(name), client.dataset(name).etag) == before
    again = client.write_texts(name, tmp_path)
    assert (again.written, again.unchanged, again.left) == ({}, 3, [])


def test_a_file_that_is_changed_after_it_was_written_wins_over_what_was_decided_before(
    client: Client, tmp_path: Path
) -> None:
    name = imported(client, "changed by hand", folder_with(tmp_path, {"a.txt": b"1girl, hat, sky"}))
    client.edit_many(name, add=["smile"], remove=["hat"])
    client.write_texts(name, tmp_path)
    assert (tmp_path / "a.txt").read_text() == "1girl, sky, smile"
    (tmp_path / "a.txt").write_text("1girl, hat, sky")
    assert client.import_folder(name, tmp_path).files[0].conflicts == ()
    assert (client.write_texts(name, tmp_path).unchanged, (tmp_path / "a.txt").read_text()) == (1, "1girl, hat, sky")

    client.edit_many(name, remove=["sky"])
    client.edit_many(name, add=["sky"])
    (tmp_path / "a.txt").write_text("1girl, hat")
    assert client.import_folder(name, tmp_path).files[0].conflicts == (
        "'sky' is gone from the file, but was added by hand",
    )
    client.write_texts(name, tmp_path)
    assert (tmp_path / "a.txt").read_text() == "1girl, hat, sky"


def test_a_newer_text_is_left_until_it_is_imported(client: Client, tmp_path: Path) -> None:
    name = imported(client, "newer", folder_with(tmp_path, {"a.txt": b"1girl, hat", "b.txt": b"1girl, hat"}))
    client.edit_many(name, add=["sky"])
    for then in ("1girl, hat, sky, smile", "1girl, hat, smile"):  # the second file takes away what was written into it
        (tmp_path / "a.txt").write_text("1girl, hat, smile")
        result = client.write_texts(name, tmp_path)
        assert list(reasons(result)) == ["a.png"] and "changed since" in reasons(result)["a.png"]
        assert (tmp_path / "a.txt").read_text() == "1girl, hat, smile"
        assert (tmp_path / "b.txt").read_text() == "1girl, hat, sky"
        client.import_folder(name, tmp_path)
        client.write_texts(name, tmp_path)
        assert (tmp_path / "a.txt").read_text() == then


def test_only_texts_of_these_very_pictures_are_written(client: Client, tmp_path: Path) -> None:
    texts = {"a.txt": b"1girl, hat", "b.txt": b"1girl, hat", "c.txt": b"1girl, hat", "d.txt": b"1girl, hat"}
    name = imported(client, "others", folder_with(tmp_path / "in", texts))
    client.edit_many(name, remove=["hat"])
    root = tmp_path / "in"
    Image.new("RGB", (32, 32), "yellow").save(root / "a.png")
    outside = tmp_path / "outside.txt"
    outside.write_bytes(b"1girl, hat")
    (root / "b.txt").unlink()
    (root / "b.txt").symlink_to(outside)
    Image.new("RGB", (32, 32), "pink").save(root / "c.jpg")
    (root / "d.png").unlink()
    result = client.write_texts(name, root)
    assert (result.written, result.elsewhere) == ({}, 1)
    left = reasons(result)
    assert "another picture" in left["a.png"] and "link" in left["b.png"] and "more than one" in left["c.png"]
    assert outside.read_bytes() == b"1girl, hat"
    assert {file.read_bytes() for file in root.glob("*.txt")} == {b"1girl, hat"}


def test_pictures_of_one_name_in_two_folders_have_texts_of_their_own(client: Client, tmp_path: Path) -> None:
    texts = {"one/a.txt": b"1girl, hat", "two/a.txt": b"1girl, sky", "two/b.txt": b"1girl, tree"}
    name = imported(client, "folders", folder_with(tmp_path / "in", texts))
    assert [image.name for image in client.images(name)] == ["one/a.png", "two/a.png", "two/b.png"]
    client.edit_many(name, add=["smile"], filter="name:two/")
    assert files(client.write_texts(name, tmp_path / "in")) == [tmp_path / "in" / path for path in list(texts)[1:]]
    assert [(tmp_path / "in" / path).read_bytes() for path in texts] == [
        b"1girl, hat",
        b"1girl, sky, smile",
        b"1girl, tree, smile",
    ]


def test_a_picture_that_is_elsewhere_now_is_found_by_the_last_part_of_its_name(client: Client, tmp_path: Path) -> None:
    """Also images of an older version, whose names are the last part."""
    texts = {"one/a.txt": b"1girl, hat", "two/a.txt": b"1girl, sky", "two/b.txt": b"1girl, tree"}
    root = folder_with(tmp_path / "in", texts)
    name = imported(client, "moved", root)
    client.edit_many(name, add=["smile"])
    (root / "two").rename(root / "three")
    (root / "again").mkdir()
    (root / "again" / "b.png").write_bytes((root / "three" / "b.png").read_bytes())
    result = client.write_texts(name, root)
    assert files(result) == [root / "one" / "a.txt", root / "three" / "a.txt"]
    assert reasons(result) == {"two/b.png": "the folder has this picture more than once: again/b.png, three/b.png"}


def test_what_could_not_be_imported_again_is_not_written(client: Client, tmp_path: Path) -> None:
    name = imported(client, "separated", folder_with(tmp_path, {"a.txt": b"1girl, hat"}))
    with pytest.raises(SetupError, match="could not be imported again"):
        client.write_texts(name, tmp_path, separator=" / ")


def test_a_file_that_cannot_be_written_stops_no_other(client: Client, tmp_path: Path) -> None:
    long = f"{'a' * 246}.txt"  # with no room for the name of a temporary file
    name = imported(client, "long", folder_with(tmp_path, {long: b"1girl, hat", "b.txt": b"1girl, hat"}))
    client.edit_many(name, remove=["hat"])
    result = client.write_texts(name, tmp_path)
    assert ["cannot be written: File name too long" in reason for _, reason in result.left] == [True]
    assert files(result) == [tmp_path / "b.txt"]
    assert (tmp_path / long).read_bytes() == b"1girl, hat"


def test_on_the_command_line(cli: Cli, client: Client, tmp_path: Path) -> None:
    name = imported(client, "by command", folder_with(tmp_path, {"a.txt": b"1girl, hat", "b.txt": b"1girl, hat"}))
    client.edit_many(name, add=["long_hair"])
    (tmp_path / "b.txt").write_text("mine")
    options = ("--words", "underscores", "--extension", ".caption", "--filter", "hat")
    assert cli("datasets", "write-texts", name, tmp_path, *options, "--dry-run") == 0
    assert f"1 text would be written, 0 unchanged, 1 left\n  {tmp_path / 'a.txt'}\n" in cli.out
    assert (tmp_path / "a.txt").read_text() == "1girl, hat"
    assert cli("datasets", "write-texts", name, tmp_path, *options) == 0
    assert "Not written:\n  b.png: its text file was changed" in cli.out
    assert (tmp_path / "a.txt").read_text() == "1girl, hat, long_hair"
