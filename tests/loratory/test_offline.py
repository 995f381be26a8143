"""Work on a stopped data folder: the catalog's verbs run on it, one at a time, and never beside a workshop."""

import os
from pathlib import Path

import pytest

from contracts.errors import SetupError
from loratory.folder import DataFolder
from loratory.offline import Offline
from loratory.stack import Stack


async def made(data: Path) -> None:
    """A data folder in which a workshop has run."""
    async with Stack(data, environ=os.environ, port=0, without=["tagger", "trainer"]) as stack:
        await stack.wait_ready()


async def test_a_verb_does_its_work_and_gives_its_exit_code(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    await made(tmp_path / "data")
    for file in (tmp_path / "data" / "catalog").iterdir():
        file.unlink()

    async with Offline(tmp_path / "data", os.environ) as offline:
        assert await offline.catalog("catch-up") == 0
        assert await offline.catalog("catch-up", "--sideways") == 2

    assert (tmp_path / "data" / "catalog" / "log_id").read_text()
    assert capfd.readouterr().err == "unrecognized arguments: --sideways; usage: python -m catalog catch-up [--whole]\n"


async def test_an_unknown_verb_is_refused_with_those_there_are(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with Offline(tmp_path, os.environ, fresh=True) as offline:
        assert await offline.catalog("serve") == 2
    assert "usage: python -m catalog [--check | catch-up" in capfd.readouterr().err


async def test_what_is_damaged_says_so_with_its_own_code(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with Offline(tmp_path, os.environ, fresh=True) as offline:
        assert await offline.catalog("catch-up") == 3
    assert capfd.readouterr().err.startswith("there is no event log on this server")


async def test_a_folder_that_is_none_or_in_use_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="is no data folder of Loratory"):
        await Offline(tmp_path / "typo", os.environ).__aenter__()
    assert not (tmp_path / "typo").exists()
    with DataFolder(tmp_path / "data"), pytest.raises(SetupError, match="already runs on the data folder"):
        await Offline(tmp_path / "data", os.environ).__aenter__()
