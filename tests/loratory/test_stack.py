"""`loratory up`: it serves, it mends, it ends, and it leaves nobody behind. With the real services, but no trainer."""

import asyncio
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from contracts.errors import SetupError
from contracts.wire.server import EmbeddedServer
from loratory import AsyncClient
from loratory.folder import FORMAT
from loratory.services import Service
from loratory.stack import Stack
from tests.limits import WAIT
from tests.loratory.processes import nobody_left, of_folder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

NO_WORKERS: tuple[Service, ...] = ("tagger", "trainer")
ENVIRON = {**os.environ, "OMP_NUM_THREADS": "1"}


@asynccontextmanager
async def up(data: Path, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`loratory up` as a user starts it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "loratory", "up", "--data", str(data), "--no-tagger", "--no-trainer", *options),
        env=ENVIRON,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def address_of(process: asyncio.subprocess.Process) -> str:
    """Waits for the line that says where it is."""
    assert process.stdout is not None
    async with asyncio.timeout(WAIT):
        while line := (await process.stdout.readline()).decode():
            if "Loratory is at " in line:
                return line.split()[3]
    assert process.stderr is not None
    raise AssertionError((await process.stderr.read()).decode())


async def test_it_serves_and_ctrl_c_ends_it_all_cleanly(tmp_path: Path) -> None:
    async with up(tmp_path / "data", "--port", "0") as process:
        address = await address_of(process)
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))):
            pass
        process.send_signal(signal.SIGINT)
        out, error = await process.communicate()
    assert (process.returncode, error) == (0, b"")
    assert b"ended; start it again" in out
    assert of_folder(tmp_path / "data") == []


async def test_a_killed_parent_leaves_nobody_and_the_next_start_goes_on(tmp_path: Path) -> None:
    async with up(tmp_path / "data", "--port", "0") as process:
        await address_of(process)
        assert len(of_folder(tmp_path / "data")) >= 4
        process.kill()
        await process.wait()
    assert await nobody_left(tmp_path / "data")
    async with up(tmp_path / "data", "--port", "0") as process:
        assert await address_of(process)


async def test_a_second_up_on_the_same_data_says_who_has_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    nobody = Stack(data, environ=ENVIRON, port=0, without=("catalog", "gateway", *NO_WORKERS))
    async with nobody, up(data, "--port", "0") as process:
        out, error = await process.communicate()
    said = error.decode()
    assert process.returncode == 2
    assert said == f"loratory: Loratory already runs on the data folder {data} (process {os.getpid()})\n"
    assert out == b""


async def test_a_port_in_use_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with up(tmp_path / "data", "--port", str(port)) as process:
            _, error = await process.communicate()
    assert process.returncode == 2
    assert error.decode().startswith(f"loratory: port {port} on 127.0.0.1 cannot be used (")
    assert error.count(b"\n") == 1
    assert not (tmp_path / "data" / "nats").exists()


async def test_a_newer_data_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "format").write_text(str(FORMAT + 1))
    with pytest.raises(SetupError, match="start the newer Loratory"):
        async with Stack(tmp_path, environ=ENVIRON, port=0):
            pass
    assert of_folder(tmp_path) == []


async def test_a_stack_that_others_could_reach_without_a_key_is_refused(tmp_path: Path) -> None:
    environ = {name: value for name, value in ENVIRON.items() if not name.startswith("LORATORY_")}
    with pytest.raises(SetupError, match="set LORATORY_API_KEY"):
        async with Stack(tmp_path / "data", environ=environ, port=0, host="0.0.0.0"):  # noqa: S104 - it is refused
            pass
    assert not (tmp_path / "data").exists()


async def test_a_server_that_had_no_room_to_write_is_started_again(tmp_path: Path) -> None:
    """It would store nothing more as long as it lives, also when there is room again."""
    said: list[str] = []
    async with (
        Stack(tmp_path, environ=ENVIRON, port=0, without=NO_WORKERS, say=said.append) as stack,
        AsyncClient(stack.address, patience=60) as client,
    ):
        await stack.wait_ready()
        await client.create_dataset("before")
        nats = stack.pid_of("nats")
        assert nats is not None
        # No file may grow: what a full disk does, without filling one.
        _, most = resource.prlimit(nats, resource.RLIMIT_FSIZE)
        resource.prlimit(nats, resource.RLIMIT_FSIZE, (1, most))
        creating = asyncio.create_task(client.create_dataset("after"))
        await asyncio.sleep(2)
        assert not creating.done()
        resource.prlimit(nats, resource.RLIMIT_FSIZE, (most, most))
        await creating
        assert stack.pid_of("nats") != nats
        assert {dataset.name for dataset in await client.datasets()} >= {"before", "after"}
    assert any("had no room" in line for line in said)


async def test_a_server_that_cannot_be_started_again_yet_is_tried_again(tmp_path: Path) -> None:
    said: list[str] = []
    async with Stack(tmp_path, environ=ENVIRON, port=0, without=NO_WORKERS, say=said.append) as stack:
        await stack.wait_ready()
        in_the_way = tmp_path / "nats" / ".server.conf.draft"
        in_the_way.mkdir()  # its configuration cannot be written, as on a full disk
        nats = stack.pid_of("nats")
        assert nats is not None
        os.kill(nats, signal.SIGKILL)
        async with asyncio.timeout(WAIT):
            while not any(line.startswith("nats      not ready") for line in said):  # noqa: ASYNC110 - it only says so
                await asyncio.sleep(0.02)
        before = len(said)
        in_the_way.rmdir()
        async with asyncio.timeout(WAIT):
            while "nats      ready" not in said[before:]:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)
        await stack.wait_ready()


async def test_a_server_without_room_is_not_started_until_there_is_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each start would be a death, and after ten of them the workshop would be given up."""
    said: list[str] = []
    async with Stack(tmp_path, environ=ENVIRON, port=0, without=NO_WORKERS, say=said.append) as stack:
        await stack.wait_ready()
        nats = stack.pid_of("nats")
        assert nats is not None
        with monkeypatch.context() as full:  # filling a disk takes root
            full.setattr(EmbeddedServer, "has_room", lambda _: False)
            os.kill(nats, signal.SIGKILL)
            async with asyncio.timeout(WAIT):
                while "nats      waits for room on its disk" not in said:  # noqa: ASYNC110 - it only says so
                    await asyncio.sleep(0.02)
            before = len(said)
            await asyncio.sleep(1)
            assert not [line for line in said[before:] if line.startswith("nats")]
        async with asyncio.timeout(WAIT):
            while "nats      ready" not in said[before:]:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)
        await stack.wait_ready()


@pytest.mark.parametrize("killed", ["nats", "catalog", "gateway"])
async def test_who_dies_is_started_again(tmp_path: Path, killed: str) -> None:
    said: list[str] = []
    async with Stack(tmp_path, environ=ENVIRON, port=0, without=NO_WORKERS, say=said.append) as stack:
        await stack.wait_ready()
        first = stack.pid_of(killed)
        assert first is not None
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(WAIT):
            while stack.pid_of(killed) in (first, None):  # noqa: ASYNC110 - other processes do it
                await asyncio.sleep(0.02)
        await stack.wait_ready()
    assert any(line.startswith(killed) and "SIGKILL" in line for line in said)
    assert of_folder(tmp_path) == []


async def test_a_worker_that_cannot_live_is_given_up_with_its_reason_and_the_rest_stands(tmp_path: Path) -> None:
    # A setting that no tagger can start with: its work folder is a file.
    (tmp_path / "work").write_text("")
    said: list[str] = []
    without: tuple[Service, ...] = ("trainer",)
    async with Stack(tmp_path, environ=ENVIRON, port=0, without=without, say=said.append) as stack:
        await stack.wait_ready(("catalog", "gateway"))
        async with asyncio.timeout(WAIT):
            while not any("tagger" in line and "starting it again" in line for line in said):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)
        await stack.wait_ready(("catalog", "gateway"))
        assert "tagger" in stack.why_not_ready("tagger")
