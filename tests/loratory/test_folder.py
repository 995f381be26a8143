"""The data folder: one user at a time, and none that is too old for it."""

from pathlib import Path

import pytest

from contracts.errors import SetupError
from loratory.folder import FORMAT, DataFolder


def test_a_fresh_folder_gets_its_format_number(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "new") as folder:
        assert (folder / "format").read_text() == f"{FORMAT}\n"


def test_a_folder_of_a_newer_format_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "format").write_text(f"{FORMAT + 1}\n")
    with pytest.raises(SetupError, match=f"has format {FORMAT + 1}, this Loratory knows up to {FORMAT}"):
        DataFolder(tmp_path).__enter__()
    assert (tmp_path / "format").read_text() == f"{FORMAT + 1}\n"


def test_a_folder_whose_format_is_no_number_is_refused(tmp_path: Path) -> None:
    (tmp_path / "format").write_text("ext4")
    with pytest.raises(SetupError, match="holds no format number"):
        DataFolder(tmp_path).__enter__()


def test_a_folder_in_use_says_by_whom(tmp_path: Path) -> None:
    with DataFolder(tmp_path), pytest.raises(SetupError, match=r"already runs on the data folder .* \(process \d+\)"):
        DataFolder(tmp_path).__enter__()
    with DataFolder(tmp_path):
        pass


def test_a_place_that_cannot_be_a_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="cannot be made: "):
        DataFolder(tmp_path / "file" / "data").__enter__()
