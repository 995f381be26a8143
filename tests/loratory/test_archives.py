"""Zip files: the same layouts as in folders, read as a stream; bombs and names that lead elsewhere are refused."""

import io
import json
import stat
import struct
import tracemalloc
from pathlib import Path
from random import Random
from zipfile import ZIP_DEFLATED, ZIP_LZMA, ZIP_STORED, ZipFile, ZipInfo

import pytest

from contracts.errors import SetupError
from loratory.cli.app import run
from loratory.folders import archive
from loratory.folders.archive import DamagedMember
from loratory.folders.texts import Texts
from loratory.image_files import scan_archive


def pack(path: Path, files: dict[str, bytes], compression: int = ZIP_DEFLATED) -> Path:
    with ZipFile(path, "w", compression) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return path


def test_a_zip_file_has_the_layouts_of_a_folder(tmp_path: Path) -> None:
    files = {
        "10_mika girl/a.png": b"1" * 50_000,
        "10_mika girl/a-masklabel.png": b"m",
        "10_mika girl/b.png": b"2",
        "10_mika girl/b.txt": "初音ミク, 青い髪".encode("cp932"),
        "more\\c.png": b"3",
        "more/c.json": json.dumps({"caption": "a cat"}).encode(),
        "__MACOSX/._a.png": b"x",
        "notes.md": b"n",
    }
    found = scan_archive(pack(tmp_path / "set.zip", files))
    assert {image.name: (image.texts, image.repeats, image.mask is not None) for image in found.images} == {
        "10_mika girl/a.png": (Texts(caption="mika girl"), 10, True),
        "10_mika girl/b.png": (Texts(text="初音ミク, 青い髪"), 10, False),
        "more/c.png": (Texts(text="a cat"), None, False),
    }
    assert [name for name, _ in found.others] == ["__MACOSX/._a.png", "notes.md"]
    with found.images[0].source.open() as reader:
        first = reader.read(10)
        assert (reader.seek(0, io.SEEK_END), reader.seek(0)) == (50_000, 0)
        content = first[:0]
        while chunk := reader.read(4096):
            content += chunk
    assert content == files["10_mika girl/a.png"]


def test_the_only_folder_of_a_zip_file_is_its_root(tmp_path: Path) -> None:
    files = {"5_sks dog/a.png": b"1", "5_sks dog/metadata.jsonl": b'{"file_name": "a.png", "text": "a cat"}'}
    (image,) = scan_archive(pack(tmp_path / "x.zip", files)).images
    assert (image.name, image.repeats, image.texts) == ("a.png", 5, Texts(text="a cat"))


def test_members_that_are_not_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBER_BYTES", 4 << 20)
    link = ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = tmp_path / "x.zip"
    with ZipFile(path, "w", ZIP_DEFLATED) as opened, pytest.warns(UserWarning, match="Duplicate name"):
        for name in ("../up.png", "/root.png", "C:/drive.png", "a/../../b.png", "good.png", "good.png"):
            opened.writestr(name, b"1")
        opened.writestr(link, "/etc/passwd")
        opened.writestr("bomb.png", bytes(2 << 20))
        opened.writestr("huge.png", bytes(5 << 20), ZIP_STORED)
        opened.writestr("lzma.png", b"1", ZIP_LZMA)
        opened.writestr("inner.zip", b"PK")
    found = scan_archive(path)
    assert [image.name for image in found.images] == ["good.png"]
    assert dict(found.unreadable) == {
        "../up.png": "its path leads out of the archive",
        "/root.png": "its path leads out of the archive",
        "C:/drive.png": "its path leads out of the archive",
        "a/../../b.png": "its path leads out of the archive",
        "good.png": "another file of the archive has its name",
        "link.png": "it is a link",
        "bomb.png": "it unpacks to more than 200 times its size, as a zip bomb does",
        "huge.png": "it is larger than 4 MiB",
        "lzma.png": "it is compressed by method 14, which is not read; use deflate",
    }
    assert found.others == [("inner.zip", "an archive inside is not read; import it by itself")]


def test_encrypted_members_are_named(tmp_path: Path) -> None:
    content = bytearray(pack(tmp_path / "x.zip", {"a.png": b"1", "b.png": b"2"}).read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1
    content[6] |= 1
    (tmp_path / "x.zip").write_bytes(content)
    found = scan_archive(tmp_path / "x.zip")
    assert ([image.name for image in found.images], found.unreadable) == (["b.png"], [("a.png", "it is encrypted")])


def test_a_damaged_member_is_found_when_it_is_read(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip", {"a.png": b"1234567890" * 100}, ZIP_STORED)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"4567890123", b"4567890124", 1))
    (image,) = scan_archive(path).images
    with image.source.open() as reader, pytest.raises(DamagedMember, match=r"damaged in the archive .*CRC"):
        while reader.read(100):
            pass


def test_a_member_that_lies_about_its_size_never_gives_more(tmp_path: Path) -> None:
    """The directory says 1000 bytes, the data unpacks to 8 MiB: the checksum is wrong after 1000."""
    path = pack(tmp_path / "x.zip", {"a.png": bytes(8 << 20)})
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 1000)
    path.write_bytes(content)
    (image,) = scan_archive(path).images
    tracemalloc.start()
    with image.source.open() as reader, pytest.raises(DamagedMember):
        while reader.read(1 << 20):
            pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_overlapping_members_and_large_directories_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pack(tmp_path / "x.zip", {"a.png": b"1" * 1000, "b.png": b"2" * 1000}, ZIP_STORED)
    content = bytearray(path.read_bytes())
    second = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1)
    content[second + 42 : second + 46] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(SetupError, match="overlap"):
        scan_archive(path)
    many = pack(tmp_path / "many.zip", {f"{number}.png": b"1" for number in range(20)})
    monkeypatch.setattr(archive, "MAX_FOLDER_FILES", 19)
    with pytest.raises(SetupError, match="more than 19 files"):
        scan_archive(many)
    monkeypatch.setattr(archive, "MAX_DIRECTORY_BYTES", 500)
    with pytest.raises(SetupError, match="its directory is larger"):
        scan_archive(many)


@pytest.mark.parametrize("content", [b"", b"not a zip file", b"PK\x05\x06" + bytes(18), b"PK\x05\x06" + b"\xff" * 18])
def test_what_is_no_zip_file_or_empty_is_refused_with_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    with pytest.raises(SetupError, match=r"is not a zip file|is empty"):
        scan_archive(path)


def test_names_of_older_programs_are_read_in_the_named_encoding(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip", {"xxxx.png": b"1"}, ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"xxxx", "猫犬".encode("cp932")))
    assert [image.name for image in scan_archive(path, "cp932").images] == ["猫犬.png"]
    (unknown,) = scan_archive(path).images
    assert unknown.name.endswith(".png")


@pytest.mark.parametrize("seed", range(4))
def test_a_mutated_zip_file_is_read_or_refused_and_nothing_else(tmp_path: Path, seed: int) -> None:
    random, path = Random(seed), tmp_path / "x.zip"
    whole = pack(
        path, {"2_a/a.png": b"1" * 500, "2_a/a.txt": b"1girl, solo", "b.png": b"2", "b.json": b'{"caption": "b"}'}
    )
    content = whole.read_bytes()
    outcomes = set()
    for _ in range(100):
        mutated = bytearray(content)
        for _ in range(random.choice((1, 3, 10))):
            mutated[random.randrange(len(mutated))] = random.choice((0, 255, random.randrange(256)))
        path.write_bytes(mutated)
        try:
            for image in scan_archive(path).images:
                with image.source.open() as reader:
                    while reader.read(100):
                        outcomes.add("read")
        except (SetupError, DamagedMember) as error:
            outcomes.add(type(error).__name__)
    assert outcomes == {"read", "SetupError", "DamagedMember"}


def test_a_member_without_a_name_is_named_as_such(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip", {"a": b"1", "b.png": b"2"}, ZIP_STORED)
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 46 : at + 47] = b"\0"
    path.write_bytes(content)
    found = scan_archive(path)
    assert ([image.name for image in found.images], found.others) == (
        ["b.png"],
        [("", "its path leads out of the archive")],
    )


def test_the_dry_run_of_a_zip_file_is_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = pack(tmp_path / "x.zip", {"3_cat/a.png": b"1", "3_cat/a-masklabel.png": b"m", "notes.md": b"n"})
    assert run(["datasets", "import", "cats", str(path), "--dry-run"], {}) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["File", "Becomes", "Text", "Repeats", "Mask"]
    assert lines[1] == ["3_cat/a.png", "image", "caption:", "cat", "3", "a-masklabel.png"]
    assert lines[2][:3] == ["notes.md", "not", "read"]
    assert " ".join(lines[-1]) == "3_cat/: each image counts 3 times; 'cat' is the caption of 1 image without a text"
    assert run(["datasets", "import", "cats", str(path), str(path), "--dry-run"], {}) != 0
    assert "one folder or zip file at a time" in capsys.readouterr().err
