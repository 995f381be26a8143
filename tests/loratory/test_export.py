"""`loratory datasets export` and the client's `export`: complete files, or none."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from zipfile import ZipFile

import pytest
from PIL import Image

from contracts.errors import Rejected, SetupError
from loratory import AsyncClient, Client
from loratory.export import BrokenExport, ExportFormat
from loratory.services import CORE_SERVICES
from loratory.stack import Stack
from tests.limits import WAIT
from tests.loratory.conftest import Cli


@pytest.fixture(scope="module")
def exported(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a data set with a captioned image, one of the same name, and a version."""
    with Client(server_url) as client:
        client.create_dataset("to export")
        for number, colour in enumerate(("red", "blue")):
            folder = tmp_path_factory.mktemp("pictures")
            Image.new("RGB", (32, 32), colour).save(folder / "猫.png")
            if number == 0:
                (folder / "猫.txt").write_text("a (red) square", encoding="utf-8")
            client.import_folder("to export", folder)
        client.freeze("to export", "zwx")
    return "to export"


def test_an_export_is_saved_under_the_servers_name_or_a_given_one(cli: Cli, exported: str, tmp_path: Path) -> None:
    assert cli("datasets", "export", exported, "--to", tmp_path) == 0
    assert cli.out.startswith(f"{tmp_path / 'to export-kohya.zip'}  ")
    assert cli("datasets", "export", exported, "--version", "1", "--format", "flat", "--to", tmp_path, "--json") == 0
    saved = json.loads(cli.out)
    assert (Path(saved["path"]).name, saved["as_of"] > 0) == ("to export-v1-flat.zip", True)
    with ZipFile(saved["path"]) as opened:
        assert opened.testzip() is None
        assert opened.namelist() == ["猫.png", "猫.txt", "猫_2.png", "猫_2.txt", "export.json"]
        assert opened.read("猫.txt") == b"zwx, a (red) square"
    assert saved["size"] == Path(saved["path"]).stat().st_size

    lines = tmp_path / "lines"
    options = ("--format", "manifest", "--filter", "-captioned", "--trigger", "abc")
    assert cli("datasets", "export", exported, *options, "--to", lines) == 0
    (line,) = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    assert (line["name"], line["training_text"]) == ("猫.png", "abc")


def test_all_options_reach_the_server(cli: Cli, server_url: str, exported: str, tmp_path: Path) -> None:
    with Client(server_url) as client:
        image = client.images(exported, filter="-captioned")[0].id
        client.edit_many(exported, images=[image], add=["long_hair", "name_(series)", "other"])
    words = ("--repeats", "7", "--class", "cat", "--words", "underscores", "--escape", "--separator", "; ")
    changes = ("--exclude", "other", "--replace", "long_hair=hair")
    target = tmp_path / "all.zip"
    assert cli("datasets", "export", exported, *words, *changes, "--to", target) == 0
    with ZipFile(target) as opened:
        assert opened.read("7_cat/猫_2.txt").decode() == r"hair; name_\(series\)"


def test_an_existing_file_is_replaced_only_with_force(cli: Cli, exported: str, tmp_path: Path) -> None:
    target = tmp_path / "mine.zip"
    target.write_text("mine")
    assert cli("datasets", "export", exported, "--to", target) == 2
    assert "exists already" in cli.err
    assert target.read_text() == "mine"
    assert cli("datasets", "export", exported, "--to", target, "--force") == 0
    assert ZipFile(target).testzip() is None
    assert cli("datasets", "export", exported, "--to", tmp_path) == 0
    assert cli("datasets", "export", exported, "--to", tmp_path) == 2  # the server's name is taken now
    assert len(list(tmp_path.iterdir())) == 2


def test_errors_of_the_server_are_shown_and_leave_no_file(
    cli: Cli, server_url: str, exported: str, tmp_path: Path
) -> None:
    assert cli("datasets", "export", exported, "--format", "flat", "--repeats", "2", "--to", tmp_path) == 2
    assert "the format flat has neither" in cli.err
    assert cli("datasets", "export", exported, "--version", "9", "--to", tmp_path) == 1
    with Client(server_url) as client, pytest.raises(Rejected, match="the separator"):
        client.export(exported, tmp_path, separator="_", words="underscores")
    assert list(tmp_path.iterdir()) == []


@asynccontextmanager
async def server_that(headers: str, body: bytes) -> AsyncIterator[str]:
    """A server that answers every request with this, and closes the connection."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\n{headers}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_an_export_that_breaks_off_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "old.zip"
    target.write_text("old")
    broken = server_that("Transfer-Encoding: chunked", b"5\r\nhello\r\n")
    async with broken as url, AsyncClient(url) as client:
        with pytest.raises(BrokenExport, match="broke off after 5 bytes"):
            await client.export("cats", target, force=True)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("old.zip", "old")]


@pytest.mark.parametrize("name", ["..%2F..%2Fevil.zip", "%2Fetc%2Fevil.zip", "..%5Cevil.zip"])
async def test_the_servers_name_does_not_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "into"
    folder.mkdir()
    headers = f"Content-Length: 2\r\nContent-Disposition: attachment; filename*=UTF-8''{name}"
    async with server_that(headers, b"ok") as url, AsyncClient(url) as client:
        saved = await client.export("cats", folder)
    assert Path(saved.path) == folder / "evil.zip"
    assert [file.name for file in tmp_path.iterdir()] == ["into"]


async def test_an_existing_file_is_refused_before_anything_is_requested(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with AsyncClient("http://127.0.0.1:1") as client:
        with pytest.raises(SetupError, match="exists already"):
            await client.export("cats", tmp_path / "file")


@pytest.mark.slow
async def test_after_a_restart_an_export_has_the_same_bytes(image_folder: Path, tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LORATORY_")}
    exports: list[tuple[ExportFormat, int | None]] = [("kohya", None), ("imagefolder", 1), ("manifest", 1)]
    written: dict[ExportFormat, list[bytes]] = {form: [] for form, _ in exports}
    for start in range(2):
        async with Stack(tmp_path / "data", environ=environ, port=0, without=("tagger", "trainer")) as stack:
            await stack.wait_ready(CORE_SERVICES, timeout=WAIT)
            async with AsyncClient(stack.address) as client:
                if start == 0:
                    await client.ensure_dataset("cats")
                    await client.import_folder("cats", image_folder)
                    await client.freeze("cats", "zwx")
                for form, version in exports:
                    saved = await client.export("cats", tmp_path / "export", version=version, format=form, force=True)
                    written[form].append(Path(saved.path).read_bytes())
    for first, second in written.values():
        assert first == second
