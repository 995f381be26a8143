"""The local stack: nats-server and the four services as child processes on one machine. POSIX.

`async with Stack(data, environ=os.environ) as stack:` starts everything and stops it at the end: the gateway first, so
that no request is half served, then the workers, the catalog, and the bus last.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Self, TypeVar

from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.supervision import SupervisionFile
from loratory.bind_address import find_free_port, require_key_if_exposed
from loratory.data_folder import DataFolder
from loratory.restart_pause import Pauses, RestartPause
from loratory.restarts import RESTARTS, RestartPolicy
from loratory.server_supervisor import ServerSupervisor, migrate_or_diagnose, migrate_settings, run_unless
from loratory.service_supervisor import POLL_SECONDS, ServiceSupervisor
from loratory.services import CORE_SERVICES, SERVICES, Service, StackFailed, bus_settings, reporter, service_environment

T = TypeVar("T")


class Https(NamedTuple):
    """The gateway's certificate chain and its private key (PEM)."""

    cert: Path
    key: Path


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
        https: Https | None = None,
        without: Iterable[Service] = (),
        print_line: Callable[[str], None] = lambda _line: None,
        restarts: RestartPolicy = RESTARTS,
    ) -> None:
        self._folder = DataFolder(data)
        self.data = self._folder.path
        self.nats = EmbeddedServer(self._folder / "nats")
        self._environ = environ
        self._port = port
        self._host = host
        self.https = https
        self._print_line = print_line
        self._restarts = restarts
        self._supervision = SupervisionFile(self._folder.supervision_file)
        self._pauses = Pauses(self._supervision)
        self._names = tuple(name for name in SERVICES if name not in set(without))
        self._services: dict[str, ServiceSupervisor] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._cleanup = contextlib.AsyncExitStack()

    @property
    def address(self) -> str:
        """URL for browsers and clients on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104 - compared, not bound
        scheme = "http" if self.https is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self._port}"

    def pid_of(self, service: str) -> int | None:
        """The process id of `nats`, `catalog`, `gateway`, `tagger` or `trainer`; None while it does not run."""
        return self.nats.pid if service == "nats" else self._services[service].pid

    def why_not_ready(self, service: str) -> str:
        """Empty if it is ready, else the reason."""
        return self._services[service].why_not_ready()

    async def wait_ready(self, services: Iterable[str] | None = None, timeout: float = 60) -> None:
        """Wait for these services (None: all that were started); StackFailed with the reasons after `timeout` s."""
        names = self._names if services is None else tuple(services)
        deadline = time.monotonic() + timeout
        while reasons := [reason for name in names if (reason := self.why_not_ready(name))]:
            self._raise_failure()
            given_up = [failure for name in names if (failure := self._services[name].failure)]
            if given_up or time.monotonic() > deadline:
                raise StackFailed("; ".join(given_up or reasons))
            await asyncio.sleep(POLL_SECONDS)

    async def watch(self) -> NoReturn:
        """Run until cancelled; StackFailed, LogDamaged, SetupError: waiting does not help catalog, gateway or nats."""
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        self._raise_failure()
        raise AssertionError("the supervision of nats ends only with an error")

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`; StackFailed if the stack fails first."""
        return await run_unless(self.watch(), work)

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as starting:
            require_key_if_exposed(self._host, self._environ)
            starting.enter_context(self._folder)
            starting.enter_context(self._supervision)
            pause = self._pause("nats")
            await pause.wait_for_room()
            self._port = find_free_port(self._host, self._port)
            self._folder.record_address(self._host, self._port)
            await self.nats.start()
            starting.push_async_callback(self.nats.stop)
            migration = migrate_settings(self.nats, self._folder, self._environ)
            await migrate_or_diagnose(migration, self._folder, self._environment("catalog"))
            report = reporter(self._print_line, "nats")
            pause.became_ready()
            report("ready")
            starting.push_async_callback(self._stop_services)
            self._start_services()
            server = ServerSupervisor(self.nats, self.data, migration, report=report, pause=pause)
            self._start("nats", server.run())
            self._start("queue of nats", server.keep_queue(self._restarts.queue_poll))
            self._start("keys of nats", server.rotate_keys_when_asked())
            self._start("disk of nats", server.restart_after_full_disk(self._restarts.disk_poll))
            self._start("files of nats", server.restart_without_log(self._restarts.disk_poll))
            self._start("logins of nats", server.report_old_services(self._restarts.login_poll))
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

    def _start_services(self) -> None:
        for name in self._names:
            environ, report = self._environment(name), reporter(self._print_line, name)
            service = ServiceSupervisor(name, self._folder, environ, report=report, pause=self._pause(name))
            self._services[name] = service
        core = [service for name, service in self._services.items() if name in CORE_SERVICES]
        for service in self._services.values():
            self._start(service.name, service.run() if service in core else service.run_after(core))

    def _pause(self, name: str) -> RestartPause:
        report = reporter(self._print_line, name)
        return RestartPause(name, self._folder.path, self._restarts, self._pauses, report)

    def _start(self, name: str, supervision: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(supervision, name=f"supervise {name}"))

    async def _stop_services(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for group in (("gateway",), ("tagger", "trainer"), ("catalog",)):
            await asyncio.gather(*(self._services[name].stop() for name in group if name in self._services))

    def _environment(self, service: Service) -> dict[str, str]:
        settings: dict[str, object] = {**bus_settings(self.nats.url, *self.nats.credentials(service))}
        settings["METRICS"] = "127.0.0.1:0"  # where it is then: run/metrics-SERVICE.json
        if service == "gateway":
            settings |= {"HOST": self._host, "PORT": self._port, "SUPERVISION": self._folder.supervision_file}
            if self.https is not None:
                settings |= {"TLS_CERT": self.https.cert, "TLS_KEY": self.https.key}
        return service_environment(service, self._folder, given=self._environ, settings=settings)

    def _raise_failure(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error
