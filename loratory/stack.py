"""The whole workshop on one machine: nats-server and the four services as child processes. POSIX.

`async with Stack(data, environ=os.environ) as stack:` starts it all and, at the end, ends it all: the gateway first,
so that nobody is half served, the workers, the catalog, and the bus last.
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
from contracts.wire.health import Report, why_not
from contracts.wire.migration import LEASE, MigrateSettings, migrate_once
from contracts.wire.server import EmbeddedServer
from contracts.wire.streams import DAY
from loratory.child import Child
from loratory.folder import DataFolder
from loratory.listening import free_port, refuse_open
from loratory.services import MOST_DEATHS, SERVE, SERVICES, WITHIN, Deaths, Place, Service, command, settings, told

HEAD_START = 5.0
"""Seconds the workers wait for catalog and gateway at most: importing torch would slow those down."""
POLL = 0.05
NEWS_EVERY = 10.0
DISK_SECONDS = 2.0
LOG_DAMAGED = 3
"""The exit code of a service that must not be started again (`contracts.wire.boot`)."""


class StackFailed(LoratoryError):
    """A service cannot be kept alive."""

    code = "stack-failed"


class Stack:
    """`port` 0 = a free one. `say` hears one line for everything a user should know.

    SetupError in one sentence, before anything is started, for a data folder in use or of a newer format and for a
    port in use.
    """

    def __init__(  # noqa: PLR0913 - each is an option of `loratory up`
        self,
        data: Path,
        *,
        environ: Mapping[str, str],
        port: int = 8000,
        host: str = "127.0.0.1",
        without: Iterable[Service] = (),
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._folder = DataFolder(data)
        self._environ = environ
        self._port = port
        self._host = host
        self._say = say
        self._names = tuple(name for name in SERVICES if name not in set(without))
        self._server = EmbeddedServer(self._folder / "nats")
        self._children: dict[str, Child] = {}
        self._keeping: dict[str, asyncio.Task[None]] = {}
        self._ended: dict[str, str] = {}
        """How the last life of a service ended."""
        self._given_up: dict[str, str] = {}
        self._ending = contextlib.AsyncExitStack()

    @property
    def data(self) -> Path:
        return self._folder.path

    @property
    def address(self) -> str:
        """Where browsers and clients on this machine reach it."""
        here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104 - compared, not bound
        return f"http://{f'[{here}]' if ':' in here else here}:{self._port}"

    @property
    def nats(self) -> EmbeddedServer:
        return self._server

    def pid_of(self, service: str) -> int | None:
        """The process of `nats`, `catalog`, `gateway`, `tagger` or `trainer`; none while it is down."""
        return self._server.pid if service == "nats" else self._children[service].pid

    def why_not_ready(self, service: str) -> str:
        """Empty when it is ready, else a reason in one line."""
        if service in self._given_up:
            return self._given_up[service]
        reason = self._unready(service)
        if reason and service in self._ended:
            return f"{service} ended ({self._ended[service]}) and is started again"
        return reason

    def _unready(self, service: str) -> str:
        """What its report says; one of an earlier life does not count."""
        file = self._folder.health(service)
        with contextlib.suppress(OSError, msgspec.DecodeError):
            if msgspec.json.decode(file.read_bytes(), type=Report).pid != self.pid_of(service):
                return f"{service} is starting"
        return why_not(file, time.time())

    async def wait_ready(self, services: Iterable[str] | None = None, timeout: float = 60) -> None:
        """Until these (none = all that were started) are ready; StackFailed with the reason when that takes longer."""
        wanted = tuple(services) if services is not None else self._names
        until = time.monotonic() + timeout
        while reasons := [reason for name in wanted if (reason := self.why_not_ready(name))]:
            await self._raise_failure()
            lost = [self._given_up[name] for name in wanted if name in self._given_up]
            if lost or time.monotonic() > until:
                raise StackFailed("; ".join(lost or reasons))
            await asyncio.sleep(POLL)

    async def watch(self) -> NoReturn:
        """For as long as it stands; StackFailed when one of the services nobody can do without cannot be kept alive."""
        while True:
            await asyncio.wait(self._keeping.values(), return_when=asyncio.FIRST_EXCEPTION)
            await self._raise_failure()
            await asyncio.sleep(1)  # all that ended so far were workers that were given up

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as starting:
            refuse_open(self._host, self._environ)
            starting.enter_context(self._folder)
            self._port = free_port(self._host, self._port)
            await self._server.start()
            starting.push_async_callback(self._server.stop)
            await self._migrate_or_judge()
            self._say("nats      ready")
            starting.push_async_callback(self._stop_children)
            self._start_children()
            self._ending = starting.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        # Not to be cut short by another cancellation: what is half ended would be left behind.
        ending = asyncio.create_task(self._ending.aclose())
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await ending
            raise

    def _start_children(self) -> None:
        for name in self._names:
            child = Child(name, command(name), self._settings(name), self._folder.log(name))
            self._children[name] = child
            self._keeping[name] = asyncio.create_task(self._keep(name, child), name=f"keep {name}")
        self._keeping["nats"] = asyncio.create_task(self._keep_server(), name="keep nats")
        self._keeping["its disk"] = asyncio.create_task(self._keep_writing(), name="keep nats writing")

    async def _stop_children(self) -> None:
        for task in self._keeping.values():
            task.cancel()
        await asyncio.gather(*self._keeping.values(), return_exceptions=True)
        for group in (("gateway",), ("tagger", "trainer"), ("catalog",)):
            await asyncio.gather(*(self._children[name].stop() for name in group if name in self._children))

    def _settings(self, service: Service) -> dict[str, str]:
        user, password = self._server.credentials(service)
        bus = {"NATS_URL": self._server.url, "NATS_USER": user, "NATS_PASSWORD": password}
        return settings(service, self._folder, bus=bus, given=self._environ, at=Place(self._host, self._port))

    async def _migrate(self) -> None:
        user, password = self._server.credentials("admin")
        await migrate_once(
            MigrateSettings(
                nats_url=self._server.url,
                nats_user=user,
                nats_password=password,
                lease=float(self._environ.get("LORATORY_LEASE") or LEASE),
                known_log=self._folder / "catalog" / "log_id",
                duplicate_window=float(self._environ.get("LORATORY_DUPLICATE_WINDOW") or DAY),
            )
        )

    async def _migrate_or_judge(self) -> None:
        """The migrate step sees that the log is gone; the catalog knows what stood in it, and until when."""
        try:
            await self._migrate()
        except LogDamaged as error:
            judge = Child(
                "catalog", [*command("catalog"), "audit"], self._settings("catalog"), self._folder.log("catalog")
            )
            await judge.start()
            try:
                code = await judge.wait()
            finally:
                await judge.stop()
            raise LogDamaged(judge.last_words if code == LOG_DAMAGED else error.detail) from error

    async def _keep(self, name: Service, child: Child) -> None:
        """Start it, and again when it dies; returns or raises when it is given up."""
        if name not in SERVE:
            await self._head_start()
            self._say(f"{name:<9} starting{' (importing torch)' if name == 'trainer' else ''}")
        deaths = Deaths()
        while True:
            self._folder.health(name).unlink(missing_ok=True)
            await child.start()
            telling = asyncio.create_task(self._tell_ready(name))
            try:
                code = await child.wait()
            finally:
                telling.cancel()
            self._ended[name] = told(code, child.last_words)
            pause = None if code == LOG_DAMAGED else deaths.another(time.monotonic())
            if pause is None:
                self._give_up(name, f"{name} cannot be kept alive: {self._ended[name]}")
                return
            self._say(f"{name:<9} ended ({self._ended[name]}); starting it again")
            await asyncio.sleep(pause)

    async def _keep_server(self) -> None:
        deaths = Deaths()
        while True:
            code = await self._server.wait_died()
            await self._room()
            pause = deaths.another(time.monotonic())
            if pause is None:
                raise StackFailed(f"nats died {MOST_DEATHS + 1} times in {WITHIN:g} s; see {self.data / 'nats'}")
            self._say(f"nats      ended ({told(code)}); starting it again")
            await asyncio.sleep(pause)
            try:
                await self._server.restart()
                await self._migrate_or_die()
            except LogDamaged:
                raise
            except (LoratoryError, OSError) as error:  # a full disk, too: `wait_died` returns at once, and it goes on
                self._say(f"nats      not ready: {error}")
            else:
                self._say("nats      ready")

    async def _room(self) -> None:
        """Wait for it: a server without any would die of every start, and be given up."""
        if await asyncio.to_thread(self._server.has_room):
            return
        self._say("nats      waits for room on its disk")
        while not await asyncio.to_thread(self._server.has_room):  # noqa: ASYNC110 - disks tell nobody
            await asyncio.sleep(DISK_SECONDS)

    async def _keep_writing(self) -> None:
        """A server whose disk was full stores nothing more before it is started again."""
        while True:
            await asyncio.sleep(DISK_SECONDS)
            pid = self._server.pid
            if pid is not None and await asyncio.to_thread(self._server.spoiled) and self._server.pid == pid:
                self._say("nats      had no room on its disk and has again")
                os.kill(pid, signal.SIGTERM)  # `_keep_server` starts it again
                await self._server.wait_died()

    async def _migrate_or_die(self) -> None:
        """A server that dies meanwhile would be waited for in vain."""
        migrating, dying = asyncio.create_task(self._migrate()), asyncio.create_task(self._server.wait_died())
        try:
            await asyncio.wait({migrating, dying}, return_when=asyncio.FIRST_COMPLETED)
            if not migrating.done():
                raise StackFailed("it died while it was made ready")
            await migrating
        finally:
            migrating.cancel()
            dying.cancel()
            await asyncio.gather(migrating, dying, return_exceptions=True)

    def _give_up(self, name: Service, reason: str) -> None:
        reason = f"{reason}; its log is {self._folder.log(name)}"
        self._given_up[name] = reason
        if name in SERVE:
            raise StackFailed(reason)
        self._say(f"{name:<9} given up: {reason}")

    async def _head_start(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEAD_START):
                for name in SERVE:
                    await self._ready(name)

    async def _ready(self, name: str) -> None:
        while self.why_not_ready(name):  # noqa: ASYNC110 - it is a file that another process writes
            await asyncio.sleep(POLL)

    async def _tell_ready(self, name: str) -> None:
        """Says so; and why not, every NEWS_EVERY seconds until then."""
        while True:
            try:
                async with asyncio.timeout(NEWS_EVERY):
                    await self._ready(name)
                    break
            except TimeoutError:
                self._say(f"{name:<9} {self.why_not_ready(name)}")
        self._say(f"{name:<9} ready")

    async def _raise_failure(self) -> None:
        for task in self._keeping.values():
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error
