"""Atomic writes: after a crash at any moment either the old or the new file is there, complete."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from contracts.wire.system.files import draft_in, move_into_place, open_atomically, write_atomically

WRITER = """
import sys, time
from pathlib import Path
from contracts.wire.system.files import open_atomically
with open_atomically(Path(sys.argv[1])) as out:
    out.write(b"new, but incomp")
    out.flush()
    print("written", flush=True)
    time.sleep(600)
"""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_is_replaced_and_nothing_else_remains(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"old")
    write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert names(tmp_path) == {"file"}


def test_a_writer_killed_before_the_rename_leaves_the_old_file_and_no_draft_for_ever(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with subprocess.Popen([sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        writer.kill()
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == {"file", ".file.draft"}
    write_atomically(target, b"new")
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == {"file"}


def test_an_error_in_the_middle_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError), open_atomically(target) as out:
        out.write(b"new")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == {"file"}


def test_a_file_that_cannot_be_renamed_leaves_no_draft(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    with pytest.raises(OSError, match="target"):
        write_atomically(tmp_path / "target", b"new")
    assert names(tmp_path) == {"target"}


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_private_file_is_never_readable_by_others(tmp_path: Path) -> None:
    target = tmp_path / "secret"
    target.write_bytes(b"old")
    target.chmod(0o644)
    (tmp_path / ".secret.draft").write_bytes(b"left by a killed writer")
    with open_atomically(target, mode=0o600) as out:
        assert os.fstat(out.fileno()).st_mode & 0o777 == 0o600
    assert target.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_the_file_is_synced_before_it_is_renamed_and_its_folder_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, synced, fsync = tmp_path / "file", [], os.fsync

    def record(descriptor: int) -> None:
        synced.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), target.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    write_atomically(target, b"content")
    assert synced == [(str(tmp_path / ".file.draft"), False), (str(tmp_path), True)]


def test_several_writers_of_one_file_do_not_mix_their_contents(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "file"
    contents = [bytes([number]) * 100_000 for number in range(16)]

    def write(content: bytes) -> None:
        with draft_in(target.parent) as draft:
            draft.write_bytes(content)
            move_into_place(draft, target)
        assert target.read_bytes() in contents

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, contents))
    assert names(target.parent) == {"file"}
