"""A running gateway and catalog, started by `loratory up`, for all tests that need a server."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from contracts.wire.log.migration import MigrateSettings, migrate_once
from loratory.cli.app import run
from loratory.offline import OfflineFolder


@pytest.fixture(scope="session")
def server_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of `server_url`."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def server_url(server_data: Path) -> Iterator[str]:
    """The address of a server without tagger and trainer."""
    command = [
        sys.executable,
        "-m",
        "loratory",
        "up",
        "--data",
        str(server_data),
        "--port",
        "0",
        "--no-tagger",
        "--no-trainer",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            for line in process.stdout:
                if "Loratory is at " in line:
                    yield line.split()[3]
                    break
            else:
                raise AssertionError(process.stderr.read())
        finally:
            process.terminate()
            process.communicate()


async def create_data_folder(data: Path) -> None:
    """A data folder with a log of one commit and its archive."""
    async with OfflineFolder(data, os.environ, create=True) as offline:
        _, key = offline.server.credentials("admin")
        await migrate_once(MigrateSettings(nats_url=offline.server.url, nats_nkey_file=key.path))
        assert await offline.run_catalog("catch-up") == 0


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """A folder with three images (one with a caption), a copy of one, and a text file with an image extension."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (64, 64), colour).save(folder / f"{number}.png")
    (folder / "again.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "1.txt").write_text("a green square\n", encoding="utf-8")
    (folder / "text.png").write_text("this is not an image")
    (folder / "notes.md").write_text("neither is this")
    return folder


class Cli:
    """`cli("jobs", "ls")` → its exit code; `out` and `err` are its output."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self._url = url
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: str | Path) -> int:
        code = run([*map(str, arguments), "--url", self._url], os.environ)
        self.out, self.err = self._capsys.readouterr()
        return code


@pytest.fixture
def cli(server_url: str, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(server_url, capsys)
