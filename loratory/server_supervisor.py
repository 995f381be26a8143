"""The nats-server of the local stack: the migrate step at its start; restarted when it dies, and after a full disk."""

import asyncio
import os
import signal
import time
from collections.abc import Coroutine, Mapping
from typing import Any, NoReturn, TypeVar

from contracts.cures import cure
from contracts.errors import LogDamaged, LoratoryError
from contracts.wire.log.migration import DEFAULT_LEASE_SECONDS, MigrateSettings, migrate_once
from contracts.wire.log.streams import DAY
from contracts.wire.server.embedded import EmbeddedServer
from loratory.child import Child
from loratory.data_folder import DataFolder
from loratory.restarts import RestartBackoff, RestartPolicy
from loratory.services import LOG_DAMAGED, Report, StackFailed, describe_exit, service_command

T = TypeVar("T")


class ServerSupervisor:
    """Each restart is followed by the migrate step."""

    def __init__(
        self, server: EmbeddedServer, migration: MigrateSettings, *, report: Report, restarts: RestartPolicy
    ) -> None:
        self._restarts = restarts
        self._server = server
        self._migration = migration
        self._report = report

    async def run(self) -> NoReturn:
        """Restart it whenever it dies; StackFailed when it cannot be kept running, LogDamaged if its log is."""
        backoff = RestartBackoff(self._restarts)
        while True:
            code = await self._server.wait_died()
            await self._wait_for_disk_space()
            delay = backoff.next_delay(time.monotonic())
            if delay is None:
                times = f"{self._restarts.maximum + 1} times within {self._restarts.window:g} s"
                raise StackFailed(f"nats died {times}; see {self._server.folder}")
            self._report(f"ended ({describe_exit(code)}); restarting")
            await asyncio.sleep(delay)
            try:
                await self._server.restart()
                await run_unless(self._fail_when_it_dies(), migrate_once(self._migration))
            except LogDamaged:
                raise
            except (LoratoryError, OSError) as error:  # also a full disk: `wait_died` returns at once, and it retries
                self._report(f"not ready: {error}")
            else:
                self._report("ready")

    async def restart_after_full_disk(self) -> NoReturn:
        """A nats-server whose disk was full stores nothing more until it is restarted."""
        while True:
            await asyncio.sleep(self._restarts.disk_poll)
            pid = self._server.pid
            if pid is not None and await asyncio.to_thread(self._server.has_failed_writes) and self._server.pid == pid:
                self._report("disk space is available again; restarting")
                os.kill(pid, signal.SIGTERM)  # `run` restarts it
                await self._server.wait_died()

    async def _wait_for_disk_space(self) -> None:
        """On a full disk every start of the server would fail, until it is given up."""
        if await asyncio.to_thread(self._server.has_room):
            return
        self._report("waiting for disk space")
        while not await asyncio.to_thread(self._server.has_room):  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(self._restarts.disk_poll)

    async def _fail_when_it_dies(self) -> NoReturn:
        """Against a dead server the migrate step would wait until its timeout."""
        await self._server.wait_died()
        raise StackFailed("it died during the migrate step")


def migrate_settings(server: EmbeddedServer, folder: DataFolder, environ: Mapping[str, str]) -> MigrateSettings:
    """For a server that runs."""
    user, password = server.credentials("admin")
    return MigrateSettings(
        nats_url=server.url,
        nats_user=user,
        nats_password=password,
        lease=float(environ.get("LORATORY_LEASE") or DEFAULT_LEASE_SECONDS),
        known_log=folder / "catalog" / "log_id",
        duplicate_window=float(environ.get("LORATORY_DUPLICATE_WINDOW") or DAY),
    )


async def migrate_or_diagnose(settings: MigrateSettings, folder: DataFolder, catalog: Mapping[str, str]) -> None:
    """The migrate step knows only that the log is damaged; the audit of the catalog (its environment) finds how."""
    try:
        await migrate_once(settings)
    except LogDamaged as error:
        audit = Child("catalog", [*service_command("catalog"), "audit"], catalog, folder.log_file("catalog"))
        await audit.start()
        try:
            code = await audit.wait()
        finally:
            await audit.stop()
        detail = f"{error.detail}; {cure('log', folder.path)}"
        raise LogDamaged(audit.last_line if code == LOG_DAMAGED else detail) from error


async def run_unless(failure: Coroutine[Any, Any, NoReturn], work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, or the error of `failure` if that is raised first. Both have ended on return."""
    failing, working = asyncio.create_task(failure), asyncio.create_task(work)
    try:
        await asyncio.wait({failing, working}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            await failing
        return await working
    finally:
        failing.cancel()
        working.cancel()
        await asyncio.gather(failing, working, return_exceptions=True)
