"""The tagger as a process of its own, stopped while a thread loads a model."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from contracts.events.tagging import TaggingAttemptStarted, TaggingInterrupted
from contracts.wire.server.embedded import EmbeddedServer
from tests.limits import WAIT
from tests.tagger.model_folders import endless_model, write_model_folder
from tests.tagger.test_worker import FakeCatalog, catalog, png

__all__ = ["catalog"]

YEARS = 10**15
"""Loop iterations that a model needs for the picture it is tried on."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
async def test_a_tagger_that_loads_a_model_ends_at_once_and_releases_its_run(
    catalog: FakeCatalog,
    server_in_use: EmbeddedServer,
    tmp_path: Path,
) -> None:
    write_model_folder(tmp_path / "models" / "endless", endless_model(iterations_of_white=YEARS))
    _, key = server_in_use.credentials("tagger")
    settings = {
        "NATS_URL": server_in_use.url,
        "NATS_NKEY_FILE": key.path,
        "SIGNING_KEY": tmp_path / "signing.key",
        "BLOBS": tmp_path / "blobs",
        "MODELS": tmp_path / "models",
        "WORK": tmp_path / "work",
        "HEALTH_FILE": tmp_path / "health.json",
    }
    environ = os.environ | {f"LORATORY_{name}": str(value) for name, value in settings.items()}
    await catalog.request_run([png(1)], model="endless")
    tagger = await asyncio.create_subprocess_exec(sys.executable, "-m", "tagger", env=environ)
    try:
        await catalog.wait_for(TaggingAttemptStarted)
        tagger.send_signal(signal.SIGTERM)
        async with asyncio.timeout(WAIT):
            assert await tagger.wait() == 0
        assert isinstance((await catalog.events())[-1], TaggingInterrupted)
    finally:
        if tagger.returncode is None:
            tagger.kill()
            await tagger.wait()
