"""The nats-server of the local stack: the migrate step at its start; restarted when it dies, and after a full disk."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from contracts import subjects
from contracts.cures import cure
from contracts.errors import LogDamaged, LoratoryError, SetupError, Unavailable
from contracts.wire.log.migration import DEFAULT_LEASE_SECONDS, MigrateSettings, migrate_once
from contracts.wire.log.queue_watch import check_once
from contracts.wire.server.accounts import Role
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.server.rotation import rotate_when_asked
from contracts.wire.service.boot import LOG_DAMAGED
from loratory.child import Child
from loratory.data_folder import DataFolder
from loratory.restart_pause import RestartPause
from loratory.services import Report, exit_reason, service_command

DIAGNOSIS_SECONDS = 10.0
"""Time for the catalog to find a damaged log by itself: it knows the archive, and tells open pages what cures it."""

T = TypeVar("T")


class ServerSupervisor:
    """Each restart is followed by the migrate step."""

    def __init__(
        self, server: EmbeddedServer, data: Path, migration: MigrateSettings, *, report: Report, pause: RestartPause
    ) -> None:
        """`data`: the data folder, for messages."""
        self._server = server
        self._data = data
        self._migration = migration
        self._report = report
        self._pause = pause
        self._has_log = True
        """Since its last start the migrate step has found the log."""

    async def run(self) -> NoReturn:
        """Restart it whenever it dies. LogDamaged, SetupError: what it stores is damaged, or of another format."""
        while True:
            reason = exit_reason(await self._server.wait_died())
            self._has_log = False
            while reason:
                await self._pause.wait_for_room()  # on a full disk every start would fail
                await self._pause.wait(reason)
                reason = await self._restart()
            self._has_log = True
            self._pause.became_ready()
            self._report("ready")

    async def keep_queue(self, poll: float) -> NoReturn:
        """Recreate the work queue if it is lost: no service may. `poll` in seconds."""
        while True:
            await asyncio.sleep(poll)
            if self._server.pid is None:  # its next start is followed by the migrate step
                continue
            with contextlib.suppress(LoratoryError):  # it does not answer: `run` sees to that
                if await check_once(self._migration, self._migration.lease):
                    self._report("the work queue was lost and is recreated")

    async def rotate_keys_when_asked(self) -> None:
        """As `loratory keys rotate` asks, until cancelled."""
        await rotate_when_asked(self._server.folder, self._server.rotate_keys)

    async def report_old_services(self, poll: float) -> NoReturn:
        """Say once of each service that an older version of it tries to connect. `poll` in seconds."""
        reported: set[Role] = set()
        while True:
            await asyncio.sleep(poll)
            refused = await asyncio.to_thread(self._server.refused_passwords)
            for role in sorted(refused - reported):
                self._report(
                    f"refused a login as {role} with a password, as older versions of Loratory use: "
                    "if one of its services still runs somewhere, stop it, or install this version there"
                )
            reported |= refused

    async def restart_after_full_disk(self, poll: float) -> NoReturn:
        """A nats-server whose disk was full stores nothing more until it is restarted. `poll` in seconds."""
        while True:
            await asyncio.sleep(poll)
            pid = self._server.pid
            if pid is not None and await asyncio.to_thread(self._server.has_failed_writes) and self._server.pid == pid:
                self._report("disk space is available again; restarting")
                await self._end(pid)

    async def restart_without_log(self, poll: float) -> NoReturn:
        """A nats-server whose files were deleted goes on without them; a restart shows the loss. `poll` in seconds."""
        while True:
            await asyncio.sleep(poll)
            pid, folder = self._server.pid, self._server.stream_folder(subjects.EVENTS)
            if pid is not None and self._has_log and not await asyncio.to_thread(folder.is_dir):
                self._report(f"the files of the log are gone from {folder}; restarting")
                await self._end(pid)

    async def _end(self, pid: int) -> None:
        """End this process; `run` starts another one."""
        with contextlib.suppress(ProcessLookupError):  # it has just died
            os.kill(pid, signal.SIGTERM)
        await self._server.wait_died()

    async def _restart(self) -> str:
        """Restart it and run the migrate step. Empty if it is ready, else the reason."""
        try:
            await self._server.restart()
        except (LoratoryError, OSError) as error:  # also a full disk
            return f"it did not start: {error}"
        try:
            await run_unless(self._fail_when_it_dies(), migrate_once(self._migration))
        except LogDamaged as error:
            await asyncio.sleep(DIAGNOSIS_SECONDS)
            raise LogDamaged(f"{error.detail}; {cure('log', self._data)}") from error
        except SetupError:
            raise
        except (LoratoryError, OSError) as error:
            return f"it is not ready: {error}"
        return ""

    async def _fail_when_it_dies(self) -> NoReturn:
        """Against a dead server the migrate step would wait until its timeout."""
        await self._server.wait_died()
        raise Unavailable("it died during the migrate step", service="nats")


def migrate_settings(server: EmbeddedServer, folder: DataFolder, environ: Mapping[str, str]) -> MigrateSettings:
    """For a server that runs."""
    _, key = server.credentials("admin")
    return MigrateSettings(
        nats_url=server.url,
        nats_nkey_file=key.path,
        lease=float(environ.get("LORATORY_LEASE") or DEFAULT_LEASE_SECONDS),
        known_log=folder / "catalog" / "log_id",
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
