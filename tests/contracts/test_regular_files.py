"""Only regular files are read, nothing waits for a writer, and a file that changes meanwhile is named."""

import os
import socket
import sys
from pathlib import Path

import pytest

from contracts.wire.system.regular_files import FileChanged, NotRegular, open_regular, read_regular

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs named pipes and sockets")


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    assert read_regular(path, 100) == b"0123456789"
    assert read_regular(path, 4) == b"01234"
    with open_regular(path) as file:
        assert (file.read(3), file.tell(), file.seek(0, os.SEEK_END), file.read(1)) == (b"012", 3, 10, b"")
        assert (file.seek(-2, os.SEEK_CUR), file.read()) == (8, b"89")


def test_pipes_devices_sockets_folders_and_link_loops_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("loop").symlink_to("loop")
    Path("to-pipe").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        for name, reason in [
            ("pipe", "it is a named pipe, not a file"),
            ("to-pipe", "it is a named pipe, not a file"),
            ("socket", "it is a socket, not a file"),
            ("/dev/zero", "it is a device, not a file"),
            (".", "it is a folder, not a file"),
        ]:
            with pytest.raises(NotRegular) as raised:
                read_regular(Path(name), 10)
            assert raised.value.strerror == reason
    with pytest.raises(OSError, match="symbolic links"):
        read_regular(Path("loop"), 10)


def test_links_are_followed_only_if_allowed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "link").symlink_to("a")
    assert read_regular(tmp_path / "link", 10) == b"1"
    with pytest.raises(NotRegular, match="it is a link"):
        read_regular(tmp_path / "link", 10, follow_links=False)


def test_a_file_that_grows_is_read_to_its_first_size_and_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12")
    with open_regular(path) as file:
        path.write_bytes(b"1234")
        assert file.read() == b"12"
        with pytest.raises(FileChanged, match="it changed while it was read"):
            file.check_unchanged()


def test_a_file_that_shrinks_is_noticed_when_bytes_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1234")
    with open_regular(path) as file:
        path.write_bytes(b"12")
        assert file.read(4) == b"12"
        with pytest.raises(FileChanged):
            file.read(2)
