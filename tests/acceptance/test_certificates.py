"""Certificates of the bus are replaced while a job trains, in services that somebody else than `loratory up` starts."""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import msgspec
import pytest

from contracts.errors import LoratoryError
from contracts.wire.log.migration import MigrateSettings, migrate_once
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import connect
from contracts.wire.service.credentials import Tls
from contracts.wire.service.health import ReadinessReport
from contracts.wire.service.metrics_endpoint import Target, target_file
from loratory.child import Child
from loratory.client import AsyncClient
from loratory.data_folder import DataFolder
from loratory.services import Service, bus_settings, service_command, service_environment
from tests.acceptance.event_recorder import ENVIRON, TIMEOUT_SECONDS, draw_pictures, use
from tests.acceptance.test_forged_jobs import step_of
from tests.acceptance.test_kills import RECIPE
from tests.certificates import client_tls, issue_all, server_tls
from tests.damage import IGNORE_UNCLOSED_SOCKETS
from tests.ports import free_port

pytestmark = [
    IGNORE_UNCLOSED_SOCKETS,
    pytest.mark.drill,
    pytest.mark.skipif(sys.platform != "linux", reason="as the other tests of a whole system"),
]
STARTED: tuple[Service, ...] = ("catalog", "gateway", "trainer")
STEPS = 300
ROTATIONS = 2


@dataclass(frozen=True)
class TlsSystem:
    """A nats-server that accepts only clients whose certificate its authority signed, and services with one."""

    folder: DataFolder
    certificates: Path
    server: EmbeddedServer
    address: str
    services: Mapping[Service, Child]

    async def replace_certificates(self) -> None:
        """As docs/operations.md says: replace the files, reload the server, and rotate the keys: all reconnect then."""
        before = {service: await self.reconnects(service) for service in STARTED}
        issue_all(self.certificates)
        await self.server.reload()
        await self.server.rotate_keys()
        for service, count in before.items():
            await wait_until(partial(self._has_reconnected, service, count))

    async def reconnects(self, service: Service) -> int:
        """How often a service has connected to the bus again, by its metrics."""
        (target,) = msgspec.json.decode(target_file(self.folder / "run", service).read_bytes(), type=list[Target])
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            text = (await http.get(f"http://{target.targets[0]}/metrics")).text
        values = dict(line.split() for line in text.splitlines() if line.startswith("loratory_bus_reconnects_total"))
        return int(float(values["loratory_bus_reconnects_total"]))

    async def _has_reconnected(self, service: Service, count: int) -> bool:
        return await self.reconnects(service) > count


@asynccontextmanager
async def tls_system(data: Path, certificates: Path) -> AsyncIterator[TlsSystem]:
    """Started in order, as docs/operations.md says for services without `loratory up`; stopped at the end."""
    async with AsyncExitStack() as started:
        folder = started.enter_context(DataFolder(data))
        server = EmbeddedServer(folder / "nats", tls=server_tls(certificates))
        await started.enter_async_context(server)
        mine = client_tls(certificates)
        _, key = server.credentials("admin")
        await migrate_once(
            MigrateSettings(
                nats_url=server.url, nats_nkey_file=key.path, nats_ca=mine.ca, nats_cert=mine.cert, nats_key=mine.key
            )
        )
        files = {"NATS_CA": mine.ca, "NATS_CERT": mine.cert, "NATS_KEY": mine.key, "METRICS": "127.0.0.1:0"}
        port, services = free_port(), dict[Service, Child]()
        for name in STARTED:
            settings: dict[str, object] = {**bus_settings(server.url, *server.credentials(name)), **files}
            settings |= {"HOST": "127.0.0.1", "PORT": port} if name == "gateway" else {}
            environ = service_environment(name, folder, given=ENVIRON, settings=settings)
            services[name] = Child(name, service_command(name), environ, folder.log_file(name))
            await services[name].start()
            started.push_async_callback(services[name].stop)
            await wait_until(partial(is_ready, folder.health_file(name)))
        yield TlsSystem(folder, certificates, server, f"http://127.0.0.1:{port}", services)


async def is_ready(health_file: Path) -> bool:
    return health_file.exists() and msgspec.json.decode(health_file.read_bytes(), type=ReadinessReport).ready


async def wait_until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not await condition():  # noqa: ASYNC110 - other processes do it
            await asyncio.sleep(0.05)


async def test_certificates_are_replaced_during_a_training(tmp_path: Path) -> None:
    certificates = issue_all(tmp_path / "tls")
    old = shutil.copytree(certificates, tmp_path / "old")
    pictures = draw_pictures(tmp_path / "pictures", 4)
    async with tls_system(tmp_path / "data", certificates) as system, AsyncClient(system.address) as client:
        pids = {name: child.pid for name, child in system.services.items()}
        await client.create_dataset("cats")
        await client.import_files("cats", pictures)
        changes = RECIPE | {"length": {"type": "steps", "count": STEPS}}
        job = (await client.train("cats", trigger="crtr", changes=changes)).id

        async def is_past(step: int) -> bool:
            return step_of(await client.job(job)) > step

        await wait_until(partial(is_past, 0))
        stopped = asyncio.Event()
        using = asyncio.create_task(use(system.address, stopped))
        for _ in range(ROTATIONS):
            await system.replace_certificates()
            await wait_until(partial(is_past, step_of(await client.job(job))))
        ended = await client.wait_job(job, timeout=TIMEOUT_SECONDS)
        stopped.set()

        statuses = await using
        assert set(statuses) == {200, 201}
        assert (ended.status, [attempt.ended for attempt in ended.attempts]) == ("completed", ["succeeded"])
        async with httpx.AsyncClient(base_url=system.address, trust_env=False, timeout=30) as http:
            curve = (await http.get(f"/api/v1/jobs/{job}/metrics")).json()
        assert curve["steps"] == list(range(1, STEPS + 1))
        assert {name: child.pid for name, child in system.services.items()} == pids
        now, before = client_tls(certificates), client_tls(old)
        for files in (Tls(ca=before.ca, cert=now.cert, key=now.key), Tls(ca=now.ca, cert=before.cert, key=before.key)):
            with pytest.raises(LoratoryError, match="no connection to NATS"):
                await connect(system.server.url, *system.server.credentials("trainer"), "old", tls=files, timeout=1)
