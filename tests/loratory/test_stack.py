"""`loratory up` with the real services, but without a trainer: starting, refusing to start, and stopping."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NoReturn

import httpx
import pytest

from contracts import subjects
from contracts.errors import LoratoryError, SetupError
from contracts.wire.log.migration import FORMAT
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import connect
from contracts.wire.service.credentials import Password
from contracts.wire.service.jetstream import find_stream
from loratory import restart_pause
from loratory.data_folder import DataFolder
from loratory.restarts import RestartPolicy
from loratory.services import SERVICES, Service
from loratory.stack import Stack
from tests.contracts.test_log import write_format_1
from tests.damage import delete_log
from tests.limits import WAIT
from tests.loratory.processes import processes_of, wait_all_ended

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

NO_WORKERS: tuple[Service, ...] = ("tagger", "trainer")
ENVIRON = {**os.environ, "OMP_NUM_THREADS": "1", "LORATORY_LEASE": "2"}


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
    """Wait for the line with its address."""
    assert process.stdout is not None
    async with asyncio.timeout(WAIT):
        while line := (await process.stdout.readline()).decode():
            if "Loratory is at " in line:
                return line.split()[3]
    assert process.stderr is not None
    raise AssertionError((await process.stderr.read()).decode())


async def test_it_serves_and_ctrl_c_stops_everything(tmp_path: Path) -> None:
    async with up(tmp_path / "data", "--port", "0") as process:
        address = await address_of(process)
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))):
            pass
        process.send_signal(signal.SIGINT)
        out, error = await process.communicate()
    assert (process.returncode, error) == (0, b"")
    assert b"stopped; the next start resumes" in out
    assert processes_of(tmp_path / "data") == []


@pytest.mark.slow
async def test_a_killed_parent_leaves_no_processes_and_the_next_start_works(tmp_path: Path) -> None:
    async with up(tmp_path / "data", "--port", "0") as process:
        await address_of(process)
        assert len(processes_of(tmp_path / "data")) >= 4
        process.kill()
        await process.wait()
    assert await wait_all_ended(tmp_path / "data")
    async with up(tmp_path / "data", "--port", "0") as process:
        assert await address_of(process)


async def test_a_start_waits_for_disk_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free, lines = [0], list[str]()
    monkeypatch.setattr(restart_pause, "free_bytes", lambda _folder: free[0])  # filling a disk takes root
    restarts = RestartPolicy(disk_poll=0.02)
    data, without = tmp_path / "data", SERVICES
    stack = Stack(data, environ=ENVIRON, port=0, without=without, print_line=lines.append, restarts=restarts)
    starting = asyncio.create_task(stack.__aenter__())
    async with asyncio.timeout(WAIT):
        while not lines:  # noqa: ASYNC110 - polls a list
            await asyncio.sleep(0.02)
        assert not (data / "nats").exists()
        free[0] = 1 << 40
        await starting
    await stack.__aexit__()
    assert lines == ["nats      waiting for disk space; 0 MB free", "nats      ready"]


@pytest.mark.slow
async def test_a_second_up_on_the_same_data_folder_is_refused_with_the_process_id(tmp_path: Path) -> None:
    data = tmp_path / "data"
    empty = Stack(data, environ=ENVIRON, port=0, without=("catalog", "gateway", *NO_WORKERS))
    async with empty, up(data, "--port", "0") as process:
        out, error = await process.communicate()
    text = error.decode()
    assert process.returncode == 2
    assert text == f"loratory: Loratory is already running on the data folder {data} (process {os.getpid()})\n"
    assert out == b""


async def test_a_port_in_use_is_reported_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with up(tmp_path / "data", "--port", str(port)) as process:
            _, error = await process.communicate()
    assert process.returncode == 2
    assert error.decode().startswith(f"loratory: port {port} on 127.0.0.1 is not available (")
    assert error.count(b"\n") == 1
    assert not (tmp_path / "data" / "nats").exists()


async def test_a_newer_data_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "format").write_text(str(FORMAT + 1))
    with pytest.raises(SetupError, match="start the newer Loratory"):
        async with Stack(tmp_path, environ=ENVIRON, port=0):
            pass
    assert processes_of(tmp_path) == []


async def test_a_data_folder_of_an_old_format_is_refused_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "format").write_text(f"{FORMAT - 1}\n")
    async with up(tmp_path, "--port", "0") as process:
        out, error = await process.communicate()
    assert process.returncode == 2
    assert out == b""
    assert error.decode() == (
        f"loratory: the data folder {tmp_path} has the old format {FORMAT - 1}, but this Loratory reads "
        f"format {FORMAT} only: start with a new folder (--data), or with the older Loratory that wrote this one\n"
    )
    assert [file.name for file in tmp_path.iterdir()] == ["format"]


@pytest.mark.slow
async def test_a_log_of_an_old_format_is_refused_with_one_sentence(tmp_path: Path) -> None:
    """Also if the format number of the folder is current."""
    with DataFolder(tmp_path) as folder:
        async with EmbeddedServer(folder / "nats") as server:
            admin = await connect(server.url, *server.credentials("admin"), "test")
            await write_format_1(admin.jetstream())
            await admin.close()
    async with up(tmp_path, "--port", "0") as process:
        out, error = await process.communicate()
    assert process.returncode == 2
    assert out == b""
    assert error.startswith(b"loratory: this data folder has format 1, and this version")
    assert error.count(b"\n") == 1


async def test_an_address_other_machines_can_reach_needs_a_key(tmp_path: Path) -> None:
    environ = {name: value for name, value in ENVIRON.items() if not name.startswith("LORATORY_")}
    with pytest.raises(SetupError, match="set LORATORY_API_KEY"):
        async with Stack(tmp_path / "data", environ=environ, port=0, host="0.0.0.0"):  # noqa: S104 - refused
            pass
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
async def test_a_log_whose_files_are_deleted_is_named_by_health_before_all_ends(tmp_path: Path) -> None:
    data, seen = tmp_path / "data", set[str]()
    restarts = RestartPolicy(disk_poll=0.05)
    stack = Stack(data, environ=ENVIRON, port=0, without=NO_WORKERS, restarts=restarts)

    async def ask_health() -> NoReturn:
        async with httpx.AsyncClient(base_url=stack.address) as http:
            await stack.wait_ready()
            delete_log(data / "nats")
            while True:
                with suppress(httpx.HTTPError):
                    services = (await http.get("/health")).json()["services"]
                    seen.update(service["detail"] for service in services if service["service"] == "log")
                await asyncio.sleep(0.02)

    async with stack, asyncio.timeout(WAIT):
        with pytest.raises(LoratoryError, match=r"there is no event log on this server|is gone from this server"):
            await stack.run(ask_health())
    assert f"there is no event log on this server; cure: `loratory restore --data {data}`" in seen


async def test_a_lost_queue_is_recreated(tmp_path: Path) -> None:
    lines: list[str] = []
    no_services: tuple[Service, ...] = ("catalog", "gateway", *NO_WORKERS)
    restarts = RestartPolicy(queue_poll=0.05)
    stack = Stack(tmp_path, environ=ENVIRON, port=0, without=no_services, print_line=lines.append, restarts=restarts)
    async with stack, await connect(stack.nats.url, *stack.nats.credentials("admin"), "test") as admin:
        await admin.jetstream().delete_stream(subjects.QUEUE)
        async with asyncio.timeout(WAIT):
            while "nats      the work queue was lost and is recreated" not in lines:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)
        assert await find_stream(admin.jetstream(), subjects.QUEUE) is not None


async def test_a_service_of_an_older_version_is_named_once(tmp_path: Path) -> None:
    lines: list[str] = []
    no_services: tuple[Service, ...] = ("catalog", "gateway", *NO_WORKERS)
    restarts = RestartPolicy(login_poll=0.02)
    stack = Stack(tmp_path, environ=ENVIRON, port=0, without=no_services, print_line=lines.append, restarts=restarts)
    async with stack:
        for role in ("trainer", "trainer", "gateway"):
            with pytest.raises(SetupError, match="Authorization Violation"):
                await connect(stack.nats.url, role, Password("as in format 2"), "test", timeout=0.1)
            async with asyncio.timeout(WAIT):
                while not any(f"login as {role}" in line for line in lines):  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.02)
    assert lines[1:] == [
        f"nats      refused a login as {role} with a password, as older versions of Loratory use: "
        "if one of its services still runs somewhere, stop it, or install this version there"
        for role in ("trainer", "gateway")
    ]


@pytest.mark.slow
async def test_a_worker_that_cannot_start_is_reported_and_the_rest_keeps_running(tmp_path: Path) -> None:
    # The tagger cannot start: its work folder is a file.
    (tmp_path / "work").write_text("")
    lines: list[str] = []
    without: tuple[Service, ...] = ("trainer",)
    async with Stack(tmp_path, environ=ENVIRON, port=0, without=without, print_line=lines.append) as stack:
        await stack.wait_ready(("catalog", "gateway"))
        async with asyncio.timeout(WAIT):
            while not any(line.startswith("tagger    waiting") for line in lines):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)
        await stack.wait_ready(("catalog", "gateway"))
        assert "tagger" in stack.why_not_ready("tagger")
