"""Names of images: paths of files inside their folder, of which only what is safe is kept."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.image_names import MAX_NAME_CHARACTERS, MAX_PART_CHARACTERS, image_name, last_part

HOSTILE = st.text(st.sampled_from("a/\\.: Cc\u0301\u200b\u202e\n\0\ud800"), max_size=40)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("sub/a.png", "sub/a.png"),
        ("a\\b\\cat.png", "a/b/cat.png"),
        ("/etc/passwd", "etc/passwd"),
        ("C:\\my\\cat.png", "my/cat.png"),
        ("C:cat.png", "cat.png"),
        ("../C:/D:/cat.png", "cat.png"),
        ("../../cat.png", "cat.png"),
        ("a/../../cat.png", "a/cat.png"),
        ("a/.. /...//./cat.png", "a/cat.png"),
        ("a/.\u200b./cat.png", "a/cat.png"),
        ("a/\u202ecat\r\nSet-Cookie: x\0.png", "a/catSet-Cookie: x.png"),
        ("cafe\u0301/a.png", "café/a.png"),
        ("a/3:4.png", "a/3:4.png"),
        (".hidden/a.png", ".hidden/a.png"),
        ("/", "unnamed"),
        ("..", "unnamed"),
        ("", "unnamed"),
        ("x" * 300 + "/" + "y" * 300, "x" * 255 + "/" + "y" * 255),
    ],
)
def test_what_is_no_safe_path_is_cut_to_its_safe_parts(path: str, name: str) -> None:
    assert image_name(path) == name


def test_of_a_long_path_the_last_parts_are_kept_whole() -> None:
    parts = [f"{number:04}" for number in range(1000)]
    name = image_name("/".join(parts))
    assert name.split("/") == parts[-200:]
    assert len(name) <= MAX_NAME_CHARACTERS


def test_the_last_part_has_no_folder() -> None:
    assert [last_part(name) for name in ("a/b/c.png", "c.png", "")] == ["c.png", "c.png", ""]


@given(st.text(max_size=40) | HOSTILE)
def test_every_name_is_a_safe_path_and_its_own_name(path: str) -> None:
    name = image_name(path)
    assert image_name(name) == name
    assert 0 < len(name) <= MAX_NAME_CHARACTERS
    assert name.encode().decode() == name == unicodedata.normalize("NFC", name)
    for part in name.split("/"):
        assert 0 < len(part) <= MAX_PART_CHARACTERS
        assert part.strip(". ")
        assert not [one for one in part if one == "\\" or unicodedata.category(one)[0] == "C"]
    assert not (name[:1].isascii() and name[:1].isalpha() and name[1:2] == ":")
