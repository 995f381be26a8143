"""The data folder: one process at a time, and only the current format."""

import subprocess
import sys
from pathlib import Path

import pytest

from contracts.errors import SetupError
from contracts.wire.log.migration import FORMAT
from loratory.data_folder import DataFolder, running_port


def test_a_fresh_folder_gets_its_format_number(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "new") as folder:
        assert (folder / "format").read_text() == f"{FORMAT}\n"


def test_a_folder_of_a_newer_format_is_refused_and_left_unchanged(tmp_path: Path) -> None:
    (tmp_path / "format").write_text(f"{FORMAT + 1}\n")
    with pytest.raises(SetupError, match=f"has format {FORMAT + 1}, but this Loratory reads format {FORMAT}"):
        DataFolder(tmp_path).__enter__()
    assert (tmp_path / "format").read_text() == f"{FORMAT + 1}\n"


def test_a_folder_of_an_older_format_is_refused_and_left_unchanged(tmp_path: Path) -> None:
    (tmp_path / "format").write_text(f"{FORMAT - 1}\n")
    with pytest.raises(SetupError, match=f"has the old format {FORMAT - 1}, but this Loratory reads format {FORMAT}"):
        DataFolder(tmp_path).__enter__()
    assert [file.name for file in tmp_path.iterdir()] == ["format"]
    assert (tmp_path / "format").read_text() == f"{FORMAT - 1}\n"


def test_the_port_of_a_running_gateway_is_known_until_it_stops(tmp_path: Path) -> None:
    with DataFolder(tmp_path) as folder:
        assert running_port(tmp_path) is None
        folder.record_address("127.0.0.1", 8123)
        assert running_port(tmp_path) == 8123
    assert running_port(tmp_path) is None


def test_a_port_recorded_by_a_killed_process_does_not_count(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    with DataFolder(tmp_path):
        (tmp_path / "run" / "address").write_text(f"{ended.pid} 127.0.0.1 8123")
        assert running_port(tmp_path) is None


def test_a_folder_whose_format_is_not_a_number_is_refused(tmp_path: Path) -> None:
    (tmp_path / "format").write_text("ext4")
    with pytest.raises(SetupError, match="does not contain a format number"):
        DataFolder(tmp_path).__enter__()


def test_a_folder_in_use_is_refused_with_the_process_id(tmp_path: Path) -> None:
    with (
        DataFolder(tmp_path),
        pytest.raises(SetupError, match=r"already running on the data folder .* \(process \d+\)"),
    ):
        DataFolder(tmp_path).__enter__()
    with DataFolder(tmp_path):
        pass


def test_a_path_that_cannot_be_a_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="cannot be created: "):
        DataFolder(tmp_path / "file" / "data").__enter__()
