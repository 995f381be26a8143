"""The embedded nats-server: a child process on loopback, alone on its data folder, that never outlives its parent.

POSIX only. On Linux the kernel ends it with its parent; elsewhere an orphan keeps its lock, so that a second server can
never open the same streams.
"""

import asyncio
import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from contracts.errors import SetupError
from contracts.wire.blob_bytes import sync_folder
from contracts.wire.permissions import ROLES, Role
from contracts.wire.server_binary import find_binary
from contracts.wire.server_config import ACCOUNT, ServerSettings, render_config

if sys.platform != "win32":
    import fcntl

READY_WITHIN = 30.0
"""Seconds; a log of a million commits is open in half a second, a cold disk may take much longer."""
STOP_WITHIN = 10.0
LOCK_PATIENCE = 3.0
"""Seconds: a server whose parent was killed needs a moment to end and let go of the folder."""

_PR_SET_PDEATHSIG = 1


FAILED_WRITES = (b"Critical write error", b"JetStream failed to store a msg")
LOG_TAIL = 1 << 16
ROOM = 32 << 20
"""Bytes that must be free before a server that had no room is started again."""


class EmbeddedServer:
    """`async with EmbeddedServer(folder) as server:` … `server.url`, `server.credentials("catalog")`.

    The port is chosen once and kept in the folder, so other processes survive a restart of the server. Start it from
    the main thread: Linux ends the child when the *thread* that started it ends.
    """

    def __init__(
        self,
        folder: Path,
        *,
        binary: Path | None = None,
        max_file_store: int = 16 << 30,
        name: str = "loratory",
        durable: bool = True,
    ) -> None:
        """`max_file_store`: bytes all streams together may take on disk; when it is reached appends are refused.

        `durable=False` only for what is there a second time: nothing is certain before it ended and `sync` returned.
        """
        self.folder = folder.resolve()
        self._binary = binary
        self._max_file_store = max_file_store
        self._name = name
        self._durable = durable
        self._port: int | None = None
        self._passwords: dict[Role, str] = {}
        self._lock: int | None = None
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    def credentials(self, role: Role) -> tuple[str, str]:
        """User and password of one service."""
        return role, self._passwords[role]

    def stream_folder(self, stream: str) -> Path:
        """Where the server keeps a stream. It may be moved while no server runs, and is gone then for the next one."""
        return self.folder / "streams" / "jetstream" / ACCOUNT / "streams" / stream

    async def start(self) -> None:
        """Returns when clients can connect; SetupError in one sentence when that cannot be."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("the nats-server must be started from the main thread")
        self._binary = await asyncio.to_thread(find_binary, self._binary)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = await _locked(self.folder)
        try:
            self._passwords = _passwords(self.folder / "users.json")
            self._port = _kept_port(self.folder / "port")
            await self._launch()
        except BaseException:
            await self.stop()
            raise

    async def restart(self) -> None:
        """On the same port, data and users; for when it died, or to make it read its configuration again."""
        if self._lock is None:
            raise RuntimeError("the nats-server was never started")
        await self._end()
        await self._launch()

    async def wait_died(self) -> int:
        """Waits until the process ends, for whatever reason; its exit code (negative: a signal)."""
        if self._process is None:
            raise RuntimeError("the nats-server was never started")
        return await self._process.wait()

    async def stop(self) -> None:
        """Ends the process and lets go of the folder; twice is once."""
        await self._end()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def has_room(self) -> bool:
        """Is there room enough on its disk to start and to write?"""
        return shutil.disk_usage(self.folder).free >= ROOM

    def spoiled(self) -> bool:
        """Has this life of it failed to write, and could it now? It must be restarted: it does not try again by itself.

        nats-server 2.15 keeps the first error of a stream's file for as long as it lives, and tells of it only in its
        log. Looks at files.
        """
        if not self.has_room():
            return False
        with contextlib.suppress(FileNotFoundError), (self.folder / "server.log").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_TAIL))
            mine = f"[{self.pid}] ".encode()
            return any(line.startswith(mine) and word in line for line in log for word in FAILED_WRITES)
        return False

    def sync(self) -> None:
        """All that a server that has ended left in its files, on disk."""
        for place, _, files in os.walk(self.folder / "streams"):
            for name in files:
                with (Path(place) / name).open("rb") as file:
                    os.fsync(file.fileno())
            sync_folder(Path(place))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _launch(self) -> None:
        assert self._binary is not None and self._lock is not None  # noqa: S101 - start() has set both
        config = self.folder / "server.conf"
        settings = ServerSettings(
            store=str(self.folder / "streams"),
            port=self._port or -1,
            name=self._name,
            max_file_store=self._max_file_store,
            durable=self._durable,
            log_file=str(self.folder / "server.log"),
        )
        _write_private(config, render_config(settings, self._passwords))
        self._process = await asyncio.create_subprocess_exec(
            self._binary,
            *("--config", config, "--ports_file_dir", self.folder),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=[self._lock],  # the folder stays locked as long as either of the two lives
            start_new_session=True,  # Ctrl-C goes to the parent, which ends its children in order
            preexec_fn=_end_with(os.getpid()),
        )
        self._port = await self._announced_port(self._process)
        _write_private(self.folder / "port", str(self._port))

    async def _announced_port(self, process: asyncio.subprocess.Process) -> int:
        """The server writes its ports beside its log; the name holds its pid, and it may be read half-written."""
        ports = self.folder / f"nats-server_{process.pid}.ports"
        until = time.monotonic() + READY_WITHIN
        while time.monotonic() < until and process.returncode is None:
            with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
                return int(msgspec.json.decode(ports.read_bytes(), type=_Ports).nats[0].rpartition(":")[2])
            await asyncio.sleep(0.005)
        await self._end()
        raise SetupError(f"nats-server did not start: {_last_line(self.folder / 'server.log')}")

    async def _end(self) -> None:
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_WITHIN)
            except TimeoutError:
                process.kill()
                await process.wait()
        (self.folder / f"nats-server_{process.pid}.ports").unlink(missing_ok=True)


def running_on(folder: Path, role: Role) -> tuple[str, str, str]:
    """Address, user and password of the server that another process runs on this folder. SetupError: there is none."""
    port = folder / "port"
    if not port.is_file():
        raise SetupError(f"no nats-server ever ran on {folder}")
    return f"nats://127.0.0.1:{port.read_text()}", role, _passwords(folder / "users.json")[role]


class _Ports(msgspec.Struct):
    nats: list[str]


def _end_with(parent: int) -> Callable[[], None] | None:
    """What the child does between fork and exec on Linux: ask the kernel to end it when its parent ends."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up here: after the fork nothing may take a lock or import

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask


async def _locked(folder: Path) -> int:
    """An open file that holds the folder; SetupError when another process does."""
    if sys.platform == "win32":
        raise SetupError("the embedded nats-server needs Linux or macOS; on Windows run the containers (compose.yaml)")
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    until = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() < until:
                await asyncio.sleep(0.05)
                continue
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise SetupError(f"another Loratory already uses {folder} (process {holder})") from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        return lock


def _passwords(file: Path) -> dict[Role, str]:
    """One random password for each role, made once and kept in a file only this user can read."""
    try:
        kept = msgspec.json.decode(file.read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        kept = {}
    except msgspec.DecodeError as error:
        raise SetupError(f"{file} is damaged ({error}); delete it, new passwords are made at the next start") from error
    # The letter in front: a bare number or a `$` would mean something else to nats-server.
    passwords: dict[Role, str] = {role: kept.get(role) or "p" + secrets.token_urlsafe(32) for role in ROLES}
    _write_private(file, msgspec.json.encode(passwords).decode())
    return passwords


def _kept_port(file: Path) -> int | None:
    """The port of the last start if it is still free; another program may have taken it since."""
    try:
        port = int(file.read_text())
    except (FileNotFoundError, ValueError):
        return None
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return None
    return port


def _write_private(file: Path, text: str) -> None:
    """Whole or not at all, and readable by this user only."""
    draft = file.with_name(f".{file.name}.draft")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(handle)
    draft.replace(file)


def _last_line(file: Path) -> str:
    """What the server said last, without process id, time and level."""
    try:
        lines = file.read_text(errors="replace")[-4000:].splitlines()
    except FileNotFoundError:
        return "it wrote no log"
    return lines[-1].rpartition("] ")[2] if lines else "its log is empty"
