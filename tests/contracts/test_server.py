"""The embedded nats-server: exclusive access to its folder, no orphans, durability, and permissions of each role."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.js.api import StreamConfig

from contracts.errors import SetupError, Unavailable
from contracts.wire.server.accounts import ROLES, SERVICES, Role
from contracts.wire.server.binary import find_binary
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import Bus, connect
from contracts.wire.service.credentials import Password
from tests.limits import WAIT

STREAMS = {
    "EVT": "evt.*.*",
    "JOBS": "jobs.>",
    "MET": "met.>",
    "KV_catalog": "$KV.catalog.>",
}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(tmp_path / "nats") as running:
        yield running


@contextlib.asynccontextmanager
async def connected(server: EmbeddedServer, role: Role) -> AsyncIterator[Bus]:
    bus = await connect(server.url, *server.credentials(role), name="test")
    try:
        yield bus
    finally:
        await bus.close()


def count_refusals(*lines: Bus) -> int:
    return sum(bus.error_counts["not_permitted"] for bus in lines)


async def add_streams(server: EmbeddedServer) -> None:
    async with connected(server, "admin") as client:
        for name, subject in STREAMS.items():
            await client.jetstream().add_stream(StreamConfig(name=name, subjects=[subject], allow_direct=True))


async def has_ended(pid: int) -> bool:
    """Whether this process ends within five seconds."""
    for _ in range(500):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        await asyncio.sleep(0.01)
    return False


PUBLISH: list[tuple[Role, str, bool]] = [
    ("catalog", "evt.dataset.d1", True),
    ("catalog", "evt.preset.p1", True),
    ("catalog", "evt.job.j1", True),
    ("catalog", "evt.tagging.t1", True),
    ("catalog", "evt.log.main", False),
    ("catalog", "evt.other.x", False),
    ("catalog", "evt.job.j1.more", False),
    ("catalog", "jobs.train.normal.j1", True),
    ("catalog", "news.applied", True),
    ("catalog", "prog.train.j1", False),
    ("catalog", "$KV.catalog.writer", True),
    ("catalog", "$KV.catalog.other", False),
    ("trainer", "evt.job.j1", True),
    ("trainer", "evt.dataset.d1", False),
    ("trainer", "evt.tagging.t1", False),
    ("trainer", "jobs.train.normal.j1", False),
    ("trainer", "prog.train.j1", True),
    ("trainer", "prog.tag.t1", False),
    ("trainer", "met.job.j1", True),
    ("trainer", "wrk.trainer.w1", True),
    ("trainer", "wrk.tagger.w1", False),
    ("trainer", "qry.catalog.version", True),
    ("trainer", "cmd.catalog.dataset", False),
    ("trainer", "news.applied", False),
    ("trainer", "news.appended.trainer", True),
    ("trainer", "news.appended.tagger", False),
    ("trainer", "key.trainer", True),
    ("trainer", "key.tagger", False),
    ("trainer", "log.api.CONSUMER.MSG.NEXT.JOBS.train-high", True),
    ("trainer", "log.api.CONSUMER.MSG.NEXT.JOBS.tag-high", False),
    ("trainer", "$JS.ACK.JOBS.train-high.1.1.1.1.0", True),
    ("trainer", "$JS.ACK.JOBS.tag-high.1.1.1.1.0", False),
    ("tagger", "evt.tagging.t1", True),
    ("tagger", "evt.job.j1", False),
    ("tagger", "prog.tag.t1", True),
    ("tagger", "met.job.j1", False),
    ("gateway", "cmd.catalog.dataset", True),
    ("gateway", "qry.catalog.get_job", True),
    ("gateway", "ctl.train.j1", True),
    ("gateway", "evt.dataset.d1", False),
    ("gateway", "evt.job.j1", False),
    ("gateway", "jobs.train.high.j1", False),
    ("gateway", "$KV.catalog.writer", False),
    *((role, "log.api.STREAM.INFO.EVT", True) for role in SERVICES),
    *((role, "log.api.STREAM.MSG.GET.EVT", True) for role in SERVICES),
    *((role, "log.api.DIRECT.GET.EVT", role in ("catalog", "gateway")) for role in SERVICES),
    *((role, f"log.api.STREAM.{verb}.EVT", False) for role in SERVICES for verb in ("UPDATE", "DELETE", "PURGE")),
    *((role, f"{api}.CONSUMER.CREATE.EVT", False) for role in SERVICES for api in ("log.api", "$JS.API")),
    *((role, "log.api.STREAM.PURGE.JOBS", role == "catalog") for role in SERVICES),
    *((role, subject, False) for role in SERVICES for subject in ("$JS.API.INFO", "$SYS.REQ.SERVER.PING")),
]

SUBSCRIBE: list[tuple[Role, str, bool]] = [
    *((role, "news.appended.*", role == "catalog") for role in SERVICES),
    *((role, f"_INBOX_{other}.>", role == other) for role in SERVICES for other in SERVICES),
    *((role, subject, False) for role in SERVICES for subject in ("_INBOX.>", ">", "evt.>", "_R_.>")),
    *((role, "news.applied", role != "catalog") for role in SERVICES),
    *((role, "$SRV.>", role == "catalog") for role in SERVICES),
    *((role, "wrk.*.*", role in ("catalog", "gateway")) for role in SERVICES),
    ("catalog", "cmd.catalog.dataset", True),
    ("catalog", "key.trainer", True),
    ("gateway", "key.trainer", False),
    ("gateway", "cmd.catalog.dataset", False),
    ("trainer", "cmd.catalog.dataset", False),
    ("trainer", "ctl.train.j1", True),
    ("trainer", "ctl.tag.t1", False),
    ("gateway", "prog.train.*", True),
    ("gateway", "prog.tag.*", True),
    ("tagger", "prog.>", False),
    ("tagger", "prog.tag.*", False),
]


@pytest.mark.parametrize("role", SERVICES)
async def test_each_role_may_publish_only_to_its_subjects(server: EmbeddedServer, role: Role) -> None:
    for _, subject, allowed in [row for row in PUBLISH if row[0] == role]:
        async with connected(server, role) as bus:
            await bus.publish(subject, b"{}")
            await bus.flush()
        assert (count_refusals(bus) == 0) == allowed, (role, subject)


@pytest.mark.parametrize("role", SERVICES)
async def test_each_role_may_subscribe_only_to_its_subjects(server: EmbeddedServer, role: Role) -> None:
    for _, subject, allowed in [row for row in SUBSCRIBE if row[0] == role]:
        async with connected(server, role) as bus:
            await bus.subscribe(subject)
            await bus.flush()
        assert (count_refusals(bus) == 0) == allowed, (role, subject)


async def test_a_service_may_reply_only_to_requests(server: EmbeddedServer) -> None:
    async with connected(server, "catalog") as catalog, connected(server, "gateway") as gateway:
        subscription = await catalog.subscribe("qry.catalog.datasets")
        await catalog.flush()
        requesting = asyncio.create_task(gateway.request("qry.catalog.datasets", b"", timeout=WAIT))
        request = await subscription.next_msg(timeout=WAIT)
        await request.respond(b"[]")
        assert (await requesting).data == b"[]"
        assert count_refusals(catalog, gateway) == 0
        await catalog.publish("_INBOX_gateway.spoofed", b"")
        await catalog.flush()
        assert count_refusals(catalog) == 1


async def test_a_wrong_password_is_refused_with_a_reason(server: EmbeddedServer) -> None:
    with pytest.raises(SetupError, match=r"(?i)as catalog within 1 s: .*authorization.* does not accept the password"):
        await connect(server.url, "catalog", Password("wrong password"), "test", timeout=1)


async def test_an_unreachable_server_is_named() -> None:
    with pytest.raises(Unavailable, match=r"no connection to NATS at nats://127\.0\.0\.1:1 "):
        await connect("nats://127.0.0.1:1", "catalog", Password("wrong password"), "test", timeout=0.5)


async def test_connections_recover_after_the_server_was_killed(server: EmbeddedServer) -> None:
    async with connected(server, "gateway") as gateway, connected(server, "catalog") as catalog:
        subscription = await gateway.subscribe("news.applied")
        await gateway.flush()
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        await server.wait_died()
        await server.restart()
        async with asyncio.timeout(WAIT):
            while not (gateway.stats["reconnects"] and catalog.stats["reconnects"]):  # noqa: ASYNC110 - nats-py only counts
                await asyncio.sleep(0.05)
        await catalog.publish("news.applied", b"7")
        assert (await subscription.next_msg(timeout=WAIT)).data == b"7"


async def test_a_connection_closed_for_good_ends_the_watch(server: EmbeddedServer) -> None:
    async with connected(server, "gateway") as gateway:
        watching = asyncio.create_task(gateway.watch())
        await gateway.close()
        with pytest.raises(Unavailable, match="closed for good"):
            await watching


@pytest.mark.slow
async def test_a_second_server_on_the_folder_is_refused(server: EmbeddedServer) -> None:
    with pytest.raises(SetupError, match="another Loratory already uses"):
        await EmbeddedServer(server.folder).start()
    assert server.pid is not None


async def test_secrets_are_readable_by_their_owner_only(server: EmbeddedServer) -> None:
    modes = {name: (server.folder / name).stat().st_mode & 0o777 for name in ("keys/catalog.nk", "server.conf")}
    assert modes == {"keys/catalog.nk": 0o600, "server.conf": 0o600}


async def test_data_and_port_survive_a_killed_server(server: EmbeddedServer) -> None:
    await add_streams(server)
    url = server.url
    async with connected(server, "trainer") as trainer:
        for number in range(20):
            await trainer.jetstream().publish("evt.job.j1", str(number).encode())
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        assert await server.wait_died() == -signal.SIGKILL
    await server.restart()
    assert server.url == url
    async with connected(server, "trainer") as trainer:
        assert (await trainer.jetstream().stream_info("EVT")).state.last_seq == 20


async def test_a_server_started_again_keeps_port_users_and_data(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path / "nats") as first:
        await add_streams(first)
        before = first.url, [first.credentials(role) for role in ROLES]
    async with EmbeddedServer(tmp_path / "nats") as second:
        assert (second.url, [second.credentials(role) for role in ROLES]) == before
        async with connected(second, "gateway") as gateway:
            assert (await gateway.jetstream().stream_info("EVT")).config.name == "EVT"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel ends orphans on Linux only")
async def test_a_killed_parent_leaves_no_orphan_and_an_unlocked_folder(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys, pathlib\n"
        "from contracts.wire.server.embedded import EmbeddedServer\n"
        "async def main():\n"
        "    async with EmbeddedServer(pathlib.Path(sys.argv[1])) as server:\n"
        "        print(server.pid, flush=True)\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path / "nats"), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    parent.kill()
    await parent.communicate()
    assert await has_ended(pid)
    async with EmbeddedServer(tmp_path / "nats") as successor:
        assert successor.pid not in (None, pid)


async def test_a_server_that_cannot_start_is_an_error_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "nats").mkdir()
    (tmp_path / "nats" / "streams").write_text("a file where the folder should be")
    with pytest.raises(SetupError, match=r"nats-server did not start: .*storage directory"):
        await EmbeddedServer(tmp_path / "nats").start()
    (tmp_path / "nats" / "streams").unlink()
    async with EmbeddedServer(tmp_path / "nats") as server:
        assert server.pid is not None


async def test_another_port_is_chosen_if_the_previous_one_is_in_use(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path / "nats") as server:
        port = int(server.url.rpartition(":")[2])
    other_program = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", port)
    async with other_program, EmbeddedServer(tmp_path / "nats") as server:
        assert server.url != f"nats://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("output", "message"),
    [("nats-server: v2.11.9", r"2\.12 or newer"), ("hello", "is not a nats-server")],
)
def test_an_unsuitable_binary_is_refused(tmp_path: Path, output: str, message: str) -> None:
    program = tmp_path / "nats-server"
    program.write_text(f"#!/bin/sh\necho '{output}'\n")
    program.chmod(0o755)
    with pytest.raises(SetupError, match=message):
        find_binary(program)


def test_a_configured_binary_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no nats-server in"):
        find_binary(tmp_path / "nowhere")


async def test_only_a_server_that_is_not_durable_syncs_seldom_and_all_files_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for durable, sync_interval in ((True, "always"), (False, '"2m"')):
        async with EmbeddedServer(tmp_path / str(durable), durable=durable) as server:
            assert f"sync_interval: {sync_interval}\n" in (server.folder / "server.conf").read_text()
            await add_streams(server)

    synced: set[int] = set()
    monkeypatch.setattr(os, "fsync", lambda handle: synced.add(os.fstat(handle).st_ino))
    server.sync()

    streams = server.folder / "streams"
    assert server.stream_folder("EVT") in streams.rglob("*")
    assert synced == {path.stat().st_ino for path in (streams, *streams.rglob("*"))}
