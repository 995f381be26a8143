"""Selecting images of a folder, and the texts beside them, for an import."""

import os
from pathlib import Path

import pytest

from contracts.commands.datasets import MAX_FILES_PER_IMPORT
from contracts.errors import SetupError
from loratory.folders.disk import DiskFile
from loratory.image_files import MAX_BATCH_BYTES, MAX_IMAGE_BYTES, ImageFile, batches, scan_files, scan_folder


def files(folder: Path, **contents: bytes) -> Path:
    for name, content in contents.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def test_text_files_belong_to_the_image_with_their_stem_whatever_the_case_of_the_extension(tmp_path: Path) -> None:
    files(
        tmp_path,
        a_png=b"1",
        a_txt="ein Hund ☂".encode(),
        b_JPG=b"2",
        b_CAPTION=b"a cat\n",
        c_webp=b"3",
        sub__a_gif=b"4",
    )
    found = scan_folder(tmp_path)
    assert [(image.name, image.text) for image in found.images] == [
        ("a.png", "ein Hund ☂"),
        ("b.JPG", "a cat"),
        ("c.webp", None),
        ("sub/a.gif", None),
    ]
    assert (found.other_files, found.unreadable) == (0, [])


def test_a_text_that_cannot_be_read_is_named_and_the_image_imported_without_it(tmp_path: Path) -> None:
    files(tmp_path, a_png=b"1", a_txt=b"\x81\x8d\x8f\x90", b_png=b"2", b_txt=b"x" * 20_001, c_png=b"3", c_txt=b"4")
    (tmp_path / "c.caption").write_text("another")
    found = scan_folder(tmp_path)
    assert [image.text for image in found.images] == [None, None, "4"]
    assert [name for name, _ in found.unreadable] == ["a.txt", "b.txt", "c.caption"]
    assert "--encoding" in found.unreadable[0][1]
    assert found.unreadable[0][1].endswith(", so a.png has no text")
    assert found.unreadable[1:] == [
        ("b.txt", "it has more than 20000 characters, so b.png has no text"),
        ("c.caption", "c.txt is the text of c.png"),
    ]


def test_texts_are_read_in_their_own_or_the_named_encoding(tmp_path: Path) -> None:
    files(tmp_path, a_png=b"1", a_txt="初音ミク, 青い髪".encode("cp932"), b_png=b"2", b_txt="naïve".encode("utf-16"))
    assert [image.text for image in scan_folder(tmp_path).images] == ["初音ミク, 青い髪", "naïve"]
    files(tmp_path, b_txt="Łódź".encode("cp1250"))
    assert [image.text for image in scan_files([tmp_path / "b.png"], "cp1250").images] == ["Łódź"]


def test_files_that_are_not_images_are_counted_and_ignored(tmp_path: Path) -> None:
    found = scan_folder(files(tmp_path, a_png=b"1", notes_txt=b"of no picture", sheet_csv=b"", _hidden_png=b""))
    assert [image.name for image in found.images] == ["a.png"]
    assert (found.other_files, found.unmatched) == (2, ["notes.txt"])


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    secret = files(tmp_path / "elsewhere", secret_png=b"1", more__x_png=b"2", secret_txt=b"secret")
    folder = files(tmp_path / "folder", a_png=b"3", b_png=b"4")
    (folder / "out.png").symlink_to(secret / "secret.png")
    (folder / "dir").symlink_to(secret / "more")
    (folder / "b.txt").symlink_to(secret / "secret.txt")
    (folder / "in.png").symlink_to(folder / "a.png")
    found = scan_folder(folder)
    assert [image.name for image in found.images] == ["a.png", "b.png", "in.png"]
    assert [image.text for image in found.images] == [None, None, None]
    assert found.outside_links == 1


def test_a_file_that_is_too_large_is_reported_and_not_sent(tmp_path: Path) -> None:
    files(tmp_path, a_png=b"1")
    with (tmp_path / "huge.png").open("wb") as huge:
        huge.truncate(MAX_IMAGE_BYTES + 1)
    found = scan_folder(tmp_path)
    assert [image.name for image in found.images] == ["a.png"]
    assert found.unreadable == [("huge.png", "it is larger than 64 MiB")]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _folder: None, "there is no folder"),
        (lambda folder: folder.mkdir(), "is empty"),
        (lambda folder: files(folder, notes_txt=b"x"), "contains no images"),
        (lambda folder: folder.write_bytes(b""), "is not a folder"),
    ],
)
def test_a_folder_without_images_is_refused_with_one_sentence(tmp_path: Path, make: object, message: str) -> None:
    make(tmp_path / "folder")  # type: ignore[operator]  # one of the functions above
    with pytest.raises(SetupError, match=message):
        scan_folder(tmp_path / "folder")


def test_files_with_the_same_name_are_distinguished_by_path(tmp_path: Path) -> None:
    files(tmp_path, one__a_png=b"1", two__a_png=b"2", b_png=b"3")
    one, two = tmp_path / "one" / "a.png", tmp_path / "two" / "a.png"
    assert [image.name for image in scan_files([one, tmp_path / "b.png"]).images] == ["a.png", "b.png"]
    assert [image.name for image in scan_files([one, two]).images] == ["one/a.png", "two/a.png"]
    with pytest.raises(SetupError, match="there is no file"):
        scan_files([tmp_path / "gone.png"])


def test_names_are_made_safe_for_a_form(tmp_path: Path) -> None:
    for name in (b'a"b\\c\nd.png', b"caf\xe9.png", "été ☂.png".encode()):
        (tmp_path / os.fsdecode(name)).write_bytes(b"1")
    assert {image.name for image in scan_folder(tmp_path).images} == {"a_b_c_d.png", "caf?.png", "été ☂.png"}


def test_batches_are_bounded_in_files_and_bytes() -> None:
    small = [ImageFile(DiskFile(Path("x"), 1), str(number)) for number in range(2 * MAX_FILES_PER_IMPORT + 1)]
    assert [len(batch) for batch in batches(small)] == [MAX_FILES_PER_IMPORT, MAX_FILES_PER_IMPORT, 1]
    large = [ImageFile(DiskFile(Path("x"), MAX_BATCH_BYTES // 2), str(number)) for number in range(5)]
    assert [len(batch) for batch in batches(large)] == [2, 2, 1]
    assert list(batches([])) == []


@pytest.mark.skipif(os.name == "nt", reason="needs named pipes")
def test_what_is_no_regular_file_is_named_and_nothing_waits(tmp_path: Path) -> None:
    files(tmp_path, a_png=b"1")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    found = scan_folder(tmp_path)
    assert [image.name for image in found.images] == ["a.png"]
    reasons = [
        ("gone.png", "No such file or directory"),
        ("loop.png", "Too many levels of symbolic links"),
        ("pipe.png", "it is a named pipe, not a file"),
    ]
    assert found.unreadable == reasons
    chosen = scan_files([tmp_path / "a.png", tmp_path / "pipe.png", tmp_path / "loop.png"])
    assert (len(chosen.images), chosen.unreadable) == (1, reasons[:0:-1])
