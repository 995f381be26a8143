"""Which files of a folder are sent, and with which words."""

import os
from pathlib import Path

import pytest

from contracts.commands import FILES_AT_ONCE
from contracts.errors import SetupError
from loratory.pictures import BATCH_BYTES, MOST_BYTES, Picture, batches, found_among, found_in


def files(folder: Path, **contents: bytes) -> Path:
    for name, content in contents.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def test_sidecars_are_captions_of_the_picture_with_their_stem(tmp_path: Path) -> None:
    files(
        tmp_path,
        a_png=b"1",
        a_txt="ein Hund ☂".encode(),
        b_JPG=b"2",
        b_caption=b"a cat\n",
        c_webp=b"3",
        sub__a_gif=b"4",
    )
    found = found_in(tmp_path)
    assert [(picture.name, picture.caption) for picture in found.pictures] == [
        ("a.png", "ein Hund ☂"),
        ("b.JPG", "a cat"),
        ("c.webp", None),
        ("sub/a.gif", None),
    ]
    assert (found.others, found.unread) == (0, [])


def test_a_caption_that_is_no_utf8_is_told_and_the_picture_taken_without_it(tmp_path: Path) -> None:
    found = found_in(files(tmp_path, a_png=b"1", a_txt=b"\xff\xfe\x00", b_png=b"2", b_txt=b"x" * 20_001))
    assert [picture.caption for picture in found.pictures] == [None, None]
    assert found.unread == [
        ("a.txt", "it is no UTF-8 text, so a.png has no caption"),
        ("b.txt", "it has more than 20000 characters, so b.png has no caption"),
    ]


def test_what_is_no_picture_is_counted_and_passed_over(tmp_path: Path) -> None:
    found = found_in(files(tmp_path, a_png=b"1", notes_txt=b"of no picture", sheet_csv=b"", _hidden_png=b""))
    assert [picture.name for picture in found.pictures] == ["a.png"]
    assert found.others == 3


def test_links_that_lead_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    secret = files(tmp_path / "elsewhere", secret_png=b"1", more__x_png=b"2", secret_txt=b"secret")
    folder = files(tmp_path / "folder", a_png=b"3", b_png=b"4")
    (folder / "out.png").symlink_to(secret / "secret.png")
    (folder / "dir").symlink_to(secret / "more")
    (folder / "b.txt").symlink_to(secret / "secret.txt")
    (folder / "in.png").symlink_to(folder / "a.png")
    found = found_in(folder)
    assert [picture.name for picture in found.pictures] == ["a.png", "b.png", "in.png"]
    assert [picture.caption for picture in found.pictures] == [None, None, None]
    assert found.outside == 1


def test_a_file_that_is_too_large_is_told_and_not_sent(tmp_path: Path) -> None:
    files(tmp_path, a_png=b"1")
    with (tmp_path / "huge.png").open("wb") as huge:
        huge.truncate(MOST_BYTES + 1)
    found = found_in(tmp_path)
    assert [picture.name for picture in found.pictures] == ["a.png"]
    assert found.unread == [("huge.png", "it has more than 64 MiB")]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _folder: None, "there is no folder"),
        (lambda folder: folder.mkdir(), "is empty"),
        (lambda folder: files(folder, notes_txt=b"x"), "holds no pictures"),
        (lambda folder: folder.write_bytes(b""), "is no folder"),
    ],
)
def test_a_folder_without_pictures_is_one_clear_sentence(tmp_path: Path, make: object, message: str) -> None:
    make(tmp_path / "folder")  # type: ignore[operator]  # one of the functions above
    with pytest.raises(SetupError, match=message):
        found_in(tmp_path / "folder")


def test_files_of_the_same_name_keep_their_paths_apart(tmp_path: Path) -> None:
    files(tmp_path, one__a_png=b"1", two__a_png=b"2", b_png=b"3")
    one, two = tmp_path / "one" / "a.png", tmp_path / "two" / "a.png"
    assert [picture.name for picture in found_among([one, tmp_path / "b.png"]).pictures] == ["a.png", "b.png"]
    assert [picture.name for picture in found_among([one, two]).pictures] == [one.as_posix(), two.as_posix()]
    with pytest.raises(SetupError, match="there is no file"):
        found_among([tmp_path / "gone.png"])


def test_a_name_is_made_fit_for_a_form(tmp_path: Path) -> None:
    for name in (b'a"b\\c\nd.png', b"caf\xe9.png", "été ☂.png".encode()):
        (tmp_path / os.fsdecode(name)).write_bytes(b"1")
    assert {picture.name for picture in found_in(tmp_path).pictures} == {"a_b_c_d.png", "caf?.png", "été ☂.png"}


def test_batches_are_bounded_in_files_and_bytes() -> None:
    small = [Picture(Path("x"), str(number), 1) for number in range(2 * FILES_AT_ONCE + 1)]
    assert [len(batch) for batch in batches(small)] == [FILES_AT_ONCE, FILES_AT_ONCE, 1]
    large = [Picture(Path("x"), str(number), BATCH_BYTES // 2) for number in range(5)]
    assert [len(batch) for batch in batches(large)] == [2, 2, 1]
    assert list(batches([])) == []
