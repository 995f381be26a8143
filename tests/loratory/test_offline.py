"""Maintenance of a stopped data folder: catalog commands run on it, and never while Loratory runs."""

import os
from pathlib import Path

import pytest

from contracts.errors import SetupError
from loratory.data_folder import DataFolder
from loratory.offline import OfflineFolder
from tests.loratory.conftest import create_data_folder


@pytest.mark.slow
async def test_a_catalog_command_runs_and_returns_its_exit_code(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    await create_data_folder(tmp_path / "data")
    assert (tmp_path / "data" / "catalog" / "archive.db").exists()
    for file in (tmp_path / "data" / "catalog").iterdir():
        file.unlink()

    async with OfflineFolder(tmp_path / "data", os.environ) as offline:
        assert await offline.run_catalog("catch-up") == 0
        assert await offline.run_catalog("catch-up", "--sideways") == 2

    assert (tmp_path / "data" / "catalog" / "log_id").read_text()
    assert capfd.readouterr().err == "unrecognized arguments: --sideways; usage: python -m catalog catch-up [--whole]\n"


async def test_an_unknown_command_is_refused_with_the_known_ones(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with OfflineFolder(tmp_path, os.environ, create=True) as offline:
        assert await offline.run_catalog("serve") == 2
    assert "usage: python -m catalog [--check | catch-up" in capfd.readouterr().err


@pytest.mark.slow
async def test_a_damaged_log_has_an_exit_code_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with OfflineFolder(tmp_path, os.environ, create=True) as offline:
        assert await offline.run_catalog("catch-up") == 3
    assert capfd.readouterr().err.startswith("there is no event log on this server")


async def test_a_missing_folder_or_one_in_use_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="is not a Loratory data folder"):
        await OfflineFolder(tmp_path / "typo", os.environ).__aenter__()
    assert not (tmp_path / "typo").exists()
    with DataFolder(tmp_path / "data"), pytest.raises(SetupError, match="already running on the data folder"):
        await OfflineFolder(tmp_path / "data", os.environ).__aenter__()
