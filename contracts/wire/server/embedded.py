"""The embedded nats-server: a child process on loopback with exclusive access to its data folder.

POSIX only. On Linux the kernel ends it with its parent; elsewhere an orphan keeps its lock, so that a second server can
never open the same streams.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import msgspec

from contracts.errors import SetupError
from contracts.wire.server import server_log, user_keys
from contracts.wire.server.accounts import ROLES, STORE, Role, account_of
from contracts.wire.server.binary import find_binary
from contracts.wire.server.config import ServerSettings, ServerTls, render_config, render_users
from contracts.wire.service.credentials import SeedFile
from contracts.wire.service.nkeys import generate_nkey
from contracts.wire.system.child import SessionChild
from contracts.wire.system.files import sync_file, sync_folder, write_atomically

if sys.platform != "win32":
    import fcntl

START_TIMEOUT_SECONDS = 30.0
"""A log of a million commits opens in half a second; a cold disk may take much longer."""
STOP_TIMEOUT_SECONDS = 10.0
RELOAD_TIMEOUT_SECONDS = 10.0
LOCK_TIMEOUT_SECONDS = 3.0
"""A server whose parent was killed needs a moment to end and release the folder."""

MIN_FREE_BYTES = 32 << 20
"""Free disk space required to restart a server whose disk was full."""


class EmbeddedServer:
    """`async with EmbeddedServer(folder) as server:` … `server.url`, `server.credentials("catalog")`.

    The port is chosen once and kept in the folder, so other processes survive a restart of the server. Start it from
    the main thread: Linux ends the child when the *thread* that started it ends.
    """

    def __init__(  # noqa: PLR0913 - what differs between the embedded servers of tests, restores and `up`
        self,
        folder: Path,
        *,
        binary: Path | None = None,
        max_file_store: int = 16 << 30,
        name: str = "loratory",
        durable: bool = True,
        tls: ServerTls | None = None,
    ) -> None:
        """`max_file_store`: maximum bytes of all streams on disk; appends beyond it are refused.

        `durable=False` only for data that exists elsewhere: nothing is durable before it stopped and `sync` returned.
        """
        self.folder = folder.resolve()
        self._binary = binary
        self._settings = ServerSettings(
            store=str(self.folder / "streams"),
            name=name,
            max_file_store=max_file_store,
            durable=durable,
            log_file=str(self._log_file),
            tls=tls,
        )
        self._port: int | None = None
        self._accepted: dict[Role, tuple[str, ...]] = {}
        """The public keys of each role: two while they are rotated."""
        self._lock: int | None = None
        self._process: SessionChild | None = None
        self._new_lines = server_log.NewLines(self._log_file)

    @property
    def url(self) -> str:
        return f"{'tls' if self._settings.tls else 'nats'}://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._process.is_running else None

    def credentials(self, role: Role) -> tuple[Role, SeedFile]:
        """A role, and how to log in to it."""
        return role, SeedFile(user_keys.seed_file(self._keys, role))

    @property
    def _log_file(self) -> Path:
        return self.folder / "server.log"

    @property
    def _keys(self) -> Path:
        return _keys_folder(self.folder)

    def stream_folder(self, stream: str) -> Path:
        """The server's folder of a stream. If moved while no server runs, the next one lacks the stream."""
        return self.folder / "streams" / "jetstream" / account_of(STORE) / "streams" / stream

    async def start(self) -> None:
        """Returns when clients can connect; SetupError if that is impossible."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("the nats-server must be started from the main thread")
        self._binary = await asyncio.to_thread(find_binary, self._binary)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = await _lock_folder(self.folder)
        try:
            keys = await asyncio.to_thread(user_keys.load_or_create, self._keys)
            self._accepted = {role: (key.public,) for role, key in keys.items()}
            self._port = _previous_port(self.folder / "port")
            await self._launch()
        except BaseException:
            await self.stop()
            raise

    async def restart(self) -> None:
        """Restarts with the same port, data and users: after it died, or to reload its configuration."""
        if self._lock is None:
            raise RuntimeError("the nats-server was never started")
        await self._end()
        await self._launch()

    async def rotate_keys(self) -> None:
        """New keys for all roles while it runs: it accepts old and new ones until the files hold the new ones.

        Clients with the old keys are disconnected then; ours read their file again and are back at once.
        """
        new = {role: generate_nkey() for role in ROLES}
        await self._reload({role: (*self._accepted[role], key.public) for role, key in new.items()})
        await asyncio.to_thread(user_keys.store, self._keys, new)
        await self._reload({role: (key.public,) for role, key in new.items()})

    async def reload(self) -> None:
        """Applies the configuration and the certificates as they are now on disk. SetupError: the server refuses."""
        await self._reload(self._accepted)

    async def wait_died(self) -> int:
        """Waits until the process ends; returns its exit code (negative: a signal)."""
        if self._process is None:
            raise RuntimeError("the nats-server was never started")
        return await self._process.wait()

    async def stop(self) -> None:
        """Ends the process and releases the folder; idempotent."""
        await self._end()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def has_room(self) -> bool:
        """Whether its disk has enough free space to start and to write."""
        return shutil.disk_usage(self.folder).free >= MIN_FREE_BYTES

    def has_failed_writes(self) -> bool:
        """Whether a write failed since its start although there is room now: it has to be restarted to recover.

        nats-server 2.15 keeps the first write error of a stream until it is restarted, and reports it only in its log.
        Reads files.
        """
        if not self.has_room():
            return False
        return server_log.has_failed_writes(self._log_file, self.pid)

    def refused_passwords(self) -> frozenset[Role]:
        """The roles in which someone tried to log in with a password since the last call, as services did before
        format 3. Reads files.
        """
        named = server_log.refused_passwords(self._new_lines.read())
        return frozenset(role for role in ROLES if role in named)

    def sync(self) -> None:
        """Syncs the files of a stopped server to disk."""
        for folder, _, files in os.walk(self.folder / "streams"):
            for name in files:
                sync_file(Path(folder) / name)
            sync_folder(Path(folder))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _reload(self, accepted: Mapping[Role, tuple[str, ...]]) -> None:
        """The server reports in its log what became of it."""
        if self.pid is None:
            raise SetupError("the nats-server is not running, so its configuration cannot be reloaded")
        self._accepted = dict(accepted)
        self._write_config()
        log = self._log_file
        size = log.stat().st_size
        os.kill(self.pid, signal.SIGHUP)
        deadline = time.monotonic() + RELOAD_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            news = await asyncio.to_thread(server_log.read_from, log, size)
            if b"Failed to reload" in news:
                raise SetupError(f"the nats-server did not accept its configuration: {server_log.last_line(log)}")
            if b"Reloaded server configuration" in news:
                return
            await asyncio.sleep(0.02)
        raise SetupError(f"the nats-server did not reload its configuration within {RELOAD_TIMEOUT_SECONDS:g} s")

    def _write_config(self) -> Path:
        config = self.folder / "server.conf"
        settings = msgspec.structs.replace(self._settings, port=self._port or -1)
        _write_private(config, render_config(settings, lambda role: render_users(self._accepted[role])))
        return config

    async def _launch(self) -> None:
        assert self._binary is not None and self._lock is not None  # noqa: S101 - start() has set both
        config = self._write_config()
        self._process = await SessionChild.start(
            [self._binary, "--config", config, "--ports_file_dir", self.folder],
            inherited=[self._lock],  # the folder stays locked as long as either process lives
            death_signal=signal.SIGTERM,
        )
        self._port = await self._wait_for_port(self._process)
        _write_private(self.folder / "port", str(self._port))

    async def _wait_for_port(self, process: SessionChild) -> int:
        """The server writes its ports to a file named by its pid, which may be read half-written."""
        ports = self.folder / f"nats-server_{process.pid}.ports"
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline and process.is_running:
            with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
                return int(msgspec.json.decode(ports.read_bytes(), type=_Ports).nats[0].rpartition(":")[2])
            await asyncio.sleep(0.005)
        await self._end()
        raise SetupError(f"nats-server did not start: {server_log.last_line(self._log_file)}")

    async def _end(self) -> None:
        if self._process is not None:
            await self._process.stop(STOP_TIMEOUT_SECONDS)
            (self.folder / f"nats-server_{self._process.pid}.ports").unlink(missing_ok=True)


def running_server(folder: Path, role: Role) -> tuple[str, Role, SeedFile]:
    """URL, role and key of the server that another process runs on this folder. SetupError: there is none."""
    port = folder / "port"
    if not port.is_file():
        raise SetupError(f"no nats-server has run on {folder}")
    return f"nats://127.0.0.1:{port.read_text()}", role, SeedFile(user_keys.seed_file(_keys_folder(folder), role))


class _Ports(msgspec.Struct):
    nats: list[str]


async def _lock_folder(folder: Path) -> int:
    """Locks the folder and returns the open lock file; SetupError if another process has it."""
    if sys.platform == "win32":
        raise SetupError("the embedded nats-server needs Linux or macOS; on Windows run the containers (compose.yaml)")
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() < deadline:
                await asyncio.sleep(0.05)
                continue
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise SetupError(f"another Loratory already uses {folder} (process {holder})") from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        return lock


def _keys_folder(folder: Path) -> Path:
    return folder / "keys"


def _previous_port(file: Path) -> int | None:
    """The port of the last start if it is still free."""
    with contextlib.suppress(OSError, ValueError, OverflowError), socket.socket() as probe:
        port = int(file.read_text())
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return port
    return None


def _write_private(file: Path, text: str) -> None:
    """Readable by this user only."""
    write_atomically(file, text.encode(), mode=0o600)
