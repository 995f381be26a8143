"""The local stack: nats-server and the four services as child processes on one machine. POSIX.

`async with Stack(data, environ=os.environ) as stack:` starts everything and stops it at the end: the gateway first, so
that no request is half served, then the workers, the catalog, and the bus last.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NoReturn, Self

import msgspec

from contracts.errors import LogDamaged, LoratoryError
from contracts.wire.health import ReadinessReport, unready_reason
from contracts.wire.migration import DEFAULT_LEASE_SECONDS, MigrateSettings, migrate_once
from contracts.wire.server import EmbeddedServer
from contracts.wire.streams import DAY
from loratory.bind_address import find_free_port, require_key_if_exposed
from loratory.child import Child
from loratory.data_folder import DataFolder
from loratory.services import (
    CORE_SERVICES,
    MAX_RESTARTS,
    RESTART_WINDOW_SECONDS,
    SERVICES,
    ListenAddress,
    RestartBackoff,
    Service,
    describe_exit,
    service_command,
    service_environment,
)

HEAD_START_SECONDS = 5.0
"""Maximum time the workers wait for catalog and gateway: importing torch at the same time would slow those down."""
POLL_SECONDS = 0.05
NOT_READY_REPORT_SECONDS = 10.0
DISK_POLL_SECONDS = 2.0
LOG_DAMAGED = 3
"""Exit code of a service that must not be restarted (`contracts.wire.boot`)."""


class StackFailed(LoratoryError):
    """A service cannot be kept running."""

    code = "stack-failed"


class Stack:
    """`port` 0: any free port. `print_line` receives one line for everything a user should know.

    SetupError, before anything is started, for a data folder in use or of another format, and for a port in use.
    """

    def __init__(  # noqa: PLR0913 - each is an option of `loratory up`
        self,
        data: Path,
        *,
        environ: Mapping[str, str],
        port: int = 8000,
        host: str = "127.0.0.1",
        without: Iterable[Service] = (),
        print_line: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._folder = DataFolder(data)
        self._environ = environ
        self._port = port
        self._host = host
        self._print_line = print_line
        self._names = tuple(name for name in SERVICES if name not in set(without))
        self._server = EmbeddedServer(self._folder / "nats")
        self._children: dict[str, Child] = {}
        self._supervisors: dict[str, asyncio.Task[None]] = {}
        self._last_exit: dict[str, str] = {}
        """How the previous process of a service ended."""
        self._given_up: dict[str, str] = {}
        self._cleanup = contextlib.AsyncExitStack()

    @property
    def data(self) -> Path:
        return self._folder.path

    @property
    def address(self) -> str:
        """URL for browsers and clients on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104 - compared, not bound
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}"

    @property
    def nats(self) -> EmbeddedServer:
        return self._server

    def pid_of(self, service: str) -> int | None:
        """The process id of `nats`, `catalog`, `gateway`, `tagger` or `trainer`; None while it does not run."""
        return self._server.pid if service == "nats" else self._children[service].pid

    def why_not_ready(self, service: str) -> str:
        """Empty if it is ready, else the reason."""
        if service in self._given_up:
            return self._given_up[service]
        reason = self._unready_reason(service)
        if reason and service in self._last_exit:
            return f"{service} ended ({self._last_exit[service]}) and is being restarted"
        return reason

    def _unready_reason(self, service: str) -> str:
        """From its health file, unless that was written by a previous process."""
        file = self._folder.health_file(service)
        with contextlib.suppress(OSError, msgspec.DecodeError):
            if msgspec.json.decode(file.read_bytes(), type=ReadinessReport).pid != self.pid_of(service):
                return f"{service} is starting"
        return unready_reason(file, time.time())

    async def wait_ready(self, services: Iterable[str] | None = None, timeout: float = 60) -> None:
        """Wait for these services (None: all that were started); StackFailed with the reasons after `timeout` s."""
        names = tuple(services) if services is not None else self._names
        deadline = time.monotonic() + timeout
        while reasons := [reason for name in names if (reason := self.why_not_ready(name))]:
            await self._raise_failure()
            given_up = [self._given_up[name] for name in names if name in self._given_up]
            if given_up or time.monotonic() > deadline:
                raise StackFailed("; ".join(given_up or reasons))
            await asyncio.sleep(POLL_SECONDS)

    async def watch(self) -> NoReturn:
        """Run until cancelled; StackFailed if nats or a core service cannot be kept running."""
        while True:
            await asyncio.wait(self._supervisors.values(), return_when=asyncio.FIRST_EXCEPTION)
            await self._raise_failure()
            await asyncio.sleep(1)  # only workers were given up so far

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as starting:
            require_key_if_exposed(self._host, self._environ)
            starting.enter_context(self._folder)
            self._port = find_free_port(self._host, self._port)
            self._folder.record_address(self._host, self._port)
            await self._server.start()
            starting.push_async_callback(self._server.stop)
            await self._migrate_or_diagnose()
            self._report("nats", "ready")
            starting.push_async_callback(self._stop_children)
            self._start_children()
            self._cleanup = starting.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        # Shielded from a second cancellation, which would leave processes behind.
        closing = asyncio.create_task(self._cleanup.aclose())
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await closing
            raise

    def _report(self, service: str, text: str) -> None:
        self._print_line(f"{service:<9} {text}")

    def _start_children(self) -> None:
        for name in self._names:
            child = Child(name, service_command(name), self._settings(name), self._folder.log_file(name))
            self._children[name] = child
            self._supervisors[name] = asyncio.create_task(self._supervise(name, child), name=f"supervise {name}")
        self._supervisors["nats"] = asyncio.create_task(self._supervise_server(), name="supervise nats")
        self._supervisors["disk"] = asyncio.create_task(self._restart_after_full_disk(), name="watch disk of nats")

    async def _stop_children(self) -> None:
        for task in self._supervisors.values():
            task.cancel()
        await asyncio.gather(*self._supervisors.values(), return_exceptions=True)
        for group in (("gateway",), ("tagger", "trainer"), ("catalog",)):
            await asyncio.gather(*(self._children[name].stop() for name in group if name in self._children))

    def _settings(self, service: Service) -> dict[str, str]:
        user, password = self._server.credentials(service)
        bus = {"NATS_URL": self._server.url, "NATS_USER": user, "NATS_PASSWORD": password}
        address = ListenAddress(self._host, self._port)
        return service_environment(service, self._folder, bus=bus, given=self._environ, at=address)

    async def _migrate(self) -> None:
        user, password = self._server.credentials("admin")
        await migrate_once(
            MigrateSettings(
                nats_url=self._server.url,
                nats_user=user,
                nats_password=password,
                lease=float(self._environ.get("LORATORY_LEASE") or DEFAULT_LEASE_SECONDS),
                known_log=self._folder / "catalog" / "log_id",
                duplicate_window=float(self._environ.get("LORATORY_DUPLICATE_WINDOW") or DAY),
            )
        )

    async def _migrate_or_diagnose(self) -> None:
        """The migrate step knows only that the log is damaged; the catalog's audit finds what is missing."""
        try:
            await self._migrate()
        except LogDamaged as error:
            audit = Child(
                "catalog",
                [*service_command("catalog"), "audit"],
                self._settings("catalog"),
                self._folder.log_file("catalog"),
            )
            await audit.start()
            try:
                code = await audit.wait()
            finally:
                await audit.stop()
            raise LogDamaged(audit.last_line if code == LOG_DAMAGED else error.detail) from error

    async def _supervise(self, name: Service, child: Child) -> None:
        """Start it, and restart it when it dies; returns (a worker) or raises (a core service) when it is given up."""
        if name not in CORE_SERVICES:
            await self._wait_head_start()
            self._report(name, f"starting{' (importing torch)' if name == 'trainer' else ''}")
        backoff = RestartBackoff()
        while True:
            self._folder.health_file(name).unlink(missing_ok=True)
            await child.start()
            reporting = asyncio.create_task(self._report_ready(name))
            try:
                code = await child.wait()
            finally:
                reporting.cancel()
            self._last_exit[name] = describe_exit(code, child.last_line)
            delay = None if code == LOG_DAMAGED else backoff.next_delay(time.monotonic())
            if delay is None:
                self._give_up(name, f"{name} cannot be kept running: {self._last_exit[name]}")
                return
            self._report(name, f"ended ({self._last_exit[name]}); restarting")
            await asyncio.sleep(delay)

    async def _supervise_server(self) -> None:
        backoff = RestartBackoff()
        while True:
            code = await self._server.wait_died()
            await self._wait_for_disk_space()
            delay = backoff.next_delay(time.monotonic())
            if delay is None:
                raise StackFailed(
                    f"nats died {MAX_RESTARTS + 1} times within {RESTART_WINDOW_SECONDS:g} s; see {self.data / 'nats'}"
                )
            self._report("nats", f"ended ({describe_exit(code)}); restarting")
            await asyncio.sleep(delay)
            try:
                await self._server.restart()
                await self._migrate_unless_server_dies()
            except LogDamaged:
                raise
            except (LoratoryError, OSError) as error:  # also a full disk: `wait_died` returns at once, and it retries
                self._report("nats", f"not ready: {error}")
            else:
                self._report("nats", "ready")

    async def _wait_for_disk_space(self) -> None:
        """On a full disk every start of the server would fail, until it is given up."""
        if await asyncio.to_thread(self._server.has_room):
            return
        self._report("nats", "waiting for disk space")
        while not await asyncio.to_thread(self._server.has_room):  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(DISK_POLL_SECONDS)

    async def _restart_after_full_disk(self) -> None:
        """A nats-server whose disk was full stores nothing more until it is restarted."""
        while True:
            await asyncio.sleep(DISK_POLL_SECONDS)
            pid = self._server.pid
            if pid is not None and await asyncio.to_thread(self._server.has_failed_writes) and self._server.pid == pid:
                self._report("nats", "disk space is available again; restarting")
                os.kill(pid, signal.SIGTERM)  # `_supervise_server` restarts it
                await self._server.wait_died()

    async def _migrate_unless_server_dies(self) -> None:
        """Against a dead server the migrate step would wait until its timeout."""
        migrating, dying = asyncio.create_task(self._migrate()), asyncio.create_task(self._server.wait_died())
        try:
            await asyncio.wait({migrating, dying}, return_when=asyncio.FIRST_COMPLETED)
            if not migrating.done():
                raise StackFailed("it died during the migrate step")
            await migrating
        finally:
            migrating.cancel()
            dying.cancel()
            await asyncio.gather(migrating, dying, return_exceptions=True)

    def _give_up(self, name: Service, reason: str) -> None:
        reason = f"{reason}; its log is {self._folder.log_file(name)}"
        self._given_up[name] = reason
        if name in CORE_SERVICES:
            raise StackFailed(reason)
        self._report(name, f"given up: {reason}")

    async def _wait_head_start(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEAD_START_SECONDS):
                for name in CORE_SERVICES:
                    await self._wait_service_ready(name)

    async def _wait_service_ready(self, name: str) -> None:
        while self.why_not_ready(name):  # noqa: ASYNC110 - polls a file that another process writes
            await asyncio.sleep(POLL_SECONDS)

    async def _report_ready(self, name: str) -> None:
        """Report when it is ready, and until then why not, every NOT_READY_REPORT_SECONDS."""
        while True:
            try:
                async with asyncio.timeout(NOT_READY_REPORT_SECONDS):
                    await self._wait_service_ready(name)
                    break
            except TimeoutError:
                self._report(name, self.why_not_ready(name))
        self._report(name, "ready")

    async def _raise_failure(self) -> None:
        for task in self._supervisors.values():
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error
