"""The catalog as `python -m catalog` builds it."""

import asyncio
import os
from pathlib import Path

import pytest

from catalog.app import serve
from catalog.query_handlers import table
from catalog.service import handlers
from catalog.settings import Settings
from contracts.commands.datasets import RenameDataset
from contracts.errors import SetupError
from contracts.queries.jobs import GetJob
from contracts.wire.server.embedded import EmbeddedServer
from tests.conftest import BusOf
from tests.limits import WAIT

DAY = 24 * 3600


async def test_a_running_catalog_removes_what_killed_writers_of_blobs_left(
    server: EmbeddedServer, bus_of: BusOf, tmp_path: Path
) -> None:
    await bus_of("admin")  # the streams exist
    unfinished = tmp_path / "blobs" / "tmp"
    unfinished.mkdir(parents=True)
    old, recent = unfinished / ".old.draft", unfinished / ".recent.draft"
    for file in (old, recent):
        file.write_bytes(b"part of a picture")
    os.utime(old, (old.stat().st_mtime - 2 * DAY,) * 2)
    serving = asyncio.create_task(serve(settings_for(server, tmp_path)))
    async with asyncio.timeout(WAIT):
        while old.exists():
            assert not serving.done() or serving.result()
            await asyncio.sleep(0.02)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    assert recent.read_bytes() == b"part of a picture"


async def test_it_does_not_start_without_a_handler_for_each_command_and_query(
    server: EmbeddedServer, bus_of: BusOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bus_of("admin")
    monkeypatch.delitem(handlers.HANDLERS, RenameDataset)
    monkeypatch.delitem(table.HANDLERS, GetJob)
    with pytest.raises(ExceptionGroup) as caught:
        await serve(settings_for(server, tmp_path))
    assert caught.group_contains(SetupError, match="^the catalog has no handler for RenameDataset, GetJob$")


def settings_for(server: EmbeddedServer, folder: Path) -> Settings:
    _, key = server.credentials("catalog")
    return Settings(
        nats_url=server.url,
        nats_nkey_file=key.path,
        catalog=folder / "catalog",
        staging=folder / "staging",
        blobs=str(folder / "blobs"),
        health_file=folder / "run" / "catalog.json",
    )
