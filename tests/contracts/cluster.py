"""Three nats-servers with the accounts of this project, as one cluster."""

import asyncio
import itertools
import json
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self

import nats.errors

from contracts.wire.server import user_keys
from contracts.wire.server.accounts import Role
from contracts.wire.server.binary import find_binary
from contracts.wire.server.config import ServerSettings, render_config, render_users
from contracts.wire.service.bus import Bus, connect
from contracts.wire.service.credentials import SeedFile
from contracts.wire.system.child import SessionChild
from tests.limits import WAIT
from tests.ports import free_ports

SERVERS = 3


class Cluster:
    """`async with Cluster(folder) as cluster:` … `await cluster.connect("trainer")`, to each server in turn."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        ports = free_ports(2 * SERVERS)
        self._ports, self._routes = ports[:SERVERS], ports[SERVERS:]
        self._next = itertools.cycle(self._ports)
        self._children: dict[int, SessionChild] = {}
        self._stack = AsyncExitStack()

    @property
    def url(self) -> str:
        """All servers."""
        return ",".join(f"nats://127.0.0.1:{port}" for port in self._ports)

    def key(self, role: Role) -> SeedFile:
        return SeedFile(user_keys.seed_file(self._folder / "keys", role))

    async def connect(self, role: Role) -> Bus:
        return await connect(f"nats://127.0.0.1:{next(self._next)}", role, self.key(role), "test", timeout=WAIT)

    async def stop(self, port: int) -> None:
        """The server that clients find at this port."""
        await self._children[port].stop(10)

    async def replicate(self, admin: Bus, streams: Sequence[str]) -> None:
        """Three replicas of each, all current."""
        js = admin.jetstream(timeout=10)
        for name in streams:
            config = (await js.stream_info(name)).config
            await js.update_stream(replace(config, num_replicas=SERVERS))
        async with asyncio.timeout(WAIT):
            for name in streams:
                while not await self._is_current(admin, name):  # noqa: ASYNC110 - the server does not tell
                    await asyncio.sleep(0.1)

    async def _is_current(self, admin: Bus, name: str) -> bool:
        answer = await admin.request(f"$JS.API.STREAM.INFO.{name}", b"", timeout=10)
        cluster = json.loads(answer.data).get("cluster", {})
        replicas = cluster.get("replicas", [])
        return bool(cluster.get("leader")) and len(replicas) == SERVERS - 1 and all(r["current"] for r in replicas)

    async def __aenter__(self) -> Self:
        try:
            await self._start()
            await self._wait_for_leader()
        except BaseException as error:
            await self._stack.aclose()
            for log in sorted(self._folder.glob("*.log")):
                error.add_note(f"{log.name}: {log.read_text()[-2000:]}")
            raise
        return self

    async def _start(self) -> None:
        keys = user_keys.load_or_create(self._folder / "keys")
        peers = ", ".join(f'"nats://127.0.0.1:{peer}"' for peer in self._routes)
        for number, (port, route) in enumerate(zip(self._ports, self._routes, strict=True), start=1):
            settings = ServerSettings(
                store=str(self._folder / f"n{number}"),
                name=f"n{number}",
                port=port,
                durable=False,
                log_file=str(self._folder / f"n{number}.log"),
            )
            config = self._folder / f"n{number}.conf"
            config.write_text(
                render_config(settings, lambda role: render_users([keys[role].public]))
                + f'cluster {{ name: loratory, listen: "127.0.0.1:{route}", routes: [{peers}] }}\n'
            )
            child = await SessionChild.start([find_binary(), "--config", config], death_signal=signal.SIGTERM)
            self._stack.push_async_callback(child.stop, 10)
            self._children[port] = child

    async def _wait_for_leader(self) -> None:
        async with await self.connect("admin") as admin, asyncio.timeout(WAIT):
            while True:
                try:
                    await admin.jetstream(timeout=1).account_info()
                except nats.errors.Error:
                    await asyncio.sleep(0.1)
                else:
                    return

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
